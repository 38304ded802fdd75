package vm_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/skep-bpf/skep/vm"
)

// Random calls of the packet helpers give the same results, packets and contexts
// as in the kernel.
func TestPacketHelpersLikeKernel(t *testing.T) {
	p := loadBoth(t, "packets.c", vm.Options{})
	r := rand.New(rand.NewPCG(5, 6))
	packet := func(what, helpers int) []byte {
		proto := []uint16{0x0800, 0x86dd, 0x8100, 0x1234}[r.IntN(4)]
		data := ethernet(proto)[:14]
		small := func() int16 {
			switch r.IntN(4) {
			case 0:
				return int16(r.IntN(9) - 4)
			case 1:
				return int16(r.Uint32())
			}
			return int16(r.IntN(200) - 60)
		}
		data = append(data, byte(what), 0)
		data = binary.NativeEndian.AppendUint16(data, uint16(small()))
		b := uint16(small())
		if r.IntN(2) == 0 {
			b = uint16(r.IntN(2))
		}
		data = binary.NativeEndian.AppendUint16(data, b)
		data = binary.NativeEndian.AppendUint16(data, uint16(r.Uint32()))
		flags := uint64(0)
		if r.IntN(2) == 0 {
			flags = uint64(1) << r.IntN(10)
			if r.IntN(3) == 0 {
				flags |= uint64(1) << r.IntN(10)
			}
		}
		data = binary.NativeEndian.AppendUint64(data, flags)
		for len(data) < 60+r.IntN(300) {
			data = append(data, byte(r.Uint32()))
		}
		return data
	}
	t.Run("tc", func(t *testing.T) {
		onCPU0(t)
		for i := 0; i < 3000 && !t.Failed(); i++ {
			what := i % 15
			data := packet(what, 15)
			p.run(t, "do_tc", data, make([]byte, 192))
			if t.Failed() {
				t.Logf("helper %d, a=%d b=%d flags=%#x", what, int16(binary.NativeEndian.Uint16(data[16:])), int16(binary.NativeEndian.Uint16(data[18:])), binary.NativeEndian.Uint64(data[22:]))
			}
		}
	})
	t.Run("xdp", func(t *testing.T) {
		onCPU0(t)
		for i := 0; i < 2000 && !t.Failed(); i++ {
			what := i % 8
			data := packet(what, 8)
			p.run(t, "do_xdp", data, nil)
			if t.Failed() {
				t.Logf("helper %d, a=%d b=%d", what, int16(binary.NativeEndian.Uint16(data[16:])), int16(binary.NativeEndian.Uint16(data[18:])))
			}
		}
	})
}
