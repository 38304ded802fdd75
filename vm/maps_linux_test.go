package vm_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/skep-bpf/skep/vm"
)

// Random operations of programs on every kind of map leave the same results and
// the same contents as in the kernel.
func TestMapsLikeKernel(t *testing.T) {
	p := loadBoth(t, "maps.c", vm.Options{})
	r := rand.New(rand.NewPCG(3, 4))
	number := func(most int) func() []byte {
		return func() []byte { return binary.NativeEndian.AppendUint32(nil, r.Uint32N(uint32(most))) }
	}
	value := func() []byte { return binary.NativeEndian.AppendUint64(nil, r.Uint64()) }
	big := func() []byte {
		b := make([]byte, 32)
		b[0], b[27] = byte(r.IntN(5)), byte(r.IntN(5))
		return b
	}
	prefix := func() []byte {
		b := binary.NativeEndian.AppendUint32(nil, r.Uint32N(35))
		return append(b, byte(r.IntN(2)*0x80), byte(r.IntN(2)), byte(r.IntN(2)*7), byte(r.IntN(4)))
	}
	for _, m := range []struct {
		name       string
		key, value func() []byte
		n          int
	}{
		{"hash", number(24), value, 400},
		{"hash_big", big, big, 400},
		{"hash_lazy", number(24), value, 400},
		{"percpu_hash", number(24), value, 400},
		{"lru", number(40), value, 600},
		{"lru_many", number(900), value, 4000},
		{"lru_percpu", number(40), value, 600},
		{"lru_own", number(100), value, 1000},
		{"array", number(20), value, 300},
		{"percpu_array", number(20), value, 300},
		{"lpm", prefix, value, 600},
	} {
		t.Run(m.name, func(t *testing.T) {
			onCPU0(t)
			for i := 0; i < m.n && !t.Failed(); i++ {
				data := ethernet(0x0800)[:14]
				flags := uint32(r.IntN(4))
				if r.IntN(2) == 0 {
					flags = 0
				}
				op := uint32(r.IntN(4))
				data = binary.NativeEndian.AppendUint32(data, op)
				data = binary.NativeEndian.AppendUint32(data, flags)
				data = append(data, make([]byte, 8)...)
				data = append(data, m.key()...)
				data = append(data, m.value()...)
				p.run(t, "do_"+m.name, data, nil)
			}
			p.sameMaps(t, m.name)
		})
	}
	for _, name := range []string{"queue", "stack", "bloom"} {
		t.Run(name, func(t *testing.T) {
			onCPU0(t)
			for i := 0; i < 300 && !t.Failed(); i++ {
				data := ethernet(0x0800)[:14]
				data = binary.NativeEndian.AppendUint32(data, uint32(r.IntN(3)))
				data = binary.NativeEndian.AppendUint32(data, uint32(r.IntN(2)*r.IntN(4)))
				data = append(data, make([]byte, 8)...)
				data = append(data, byte(r.IntN(30)), 0, 0, 0, 0, 0, 0, 0)
				p.run(t, "do_"+name, data, nil)
			}
		})
	}
}
