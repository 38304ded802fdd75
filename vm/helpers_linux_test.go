package vm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/skep-bpf/skep/vm"
)

// Helpers, callbacks, locks, tail calls, maps of maps and global variables do
// what they do in the kernel.
func TestHelpersLikeKernel(t *testing.T) {
	for _, interpret := range []bool{true, false} {
		p := loadBoth(t, "helpers.c", vm.Options{Interpret: interpret})
		name := p.vm.EngineName()
		r := rand.New(rand.NewPCG(8, 9))
		payload := func(head ...byte) []byte {
			data := append(ethernet(0x0800)[:14], head...)
			for len(data) < 200 {
				data = append(data, 0)
			}
			return data
		}
		t.Run(name+"/strtol", func(t *testing.T) {
			for _, text := range []string{"12", "-12", " \t7x", "0x1f", "0xg", "077", "08", "zz", "-", "", "9223372036854775", "-0x80", "+5", "  -3 ", "0", "abc"} {
				for _, base := range []byte{0, 8, 10, 16, 3, 32} {
					head := make([]byte, 17)
					copy(head, text)
					head[16] = base
					p.run(t, "do_strtol", payload(head...), nil)
				}
			}
		})
		t.Run(name+"/snprintf", func(t *testing.T) {
			for i := range 60 {
				head := make([]byte, 25)
				for k := range 3 {
					v := r.Uint64()
					if r.IntN(2) == 0 {
						v = uint64(int64(r.IntN(200) - 100))
					}
					binary.NativeEndian.PutUint64(head[k*8:], v)
				}
				head[16] = 'A' + byte(i%26)
				head[24] = byte(i % 6)
				p.run(t, "do_snprintf", payload(head...), nil)
			}
		})
		t.Run(name+"/strncmp", func(t *testing.T) {
			for _, text := range []string{"abcdef", "abc", "abcd", "abd", "", "zz", "abcdefg"} {
				for _, n := range []byte{0, 1} {
					head := make([]byte, 9)
					copy(head, text)
					head[8] = n
					p.run(t, "do_strncmp", payload(head...), nil)
				}
			}
		})
		t.Run(name+"/loop", func(t *testing.T) {
			for range 20 {
				p.run(t, "do_loop", payload(byte(r.Uint32()), 0, 0, byte(r.IntN(2)*0x80), byte(r.Uint32())), nil)
			}
			p.sameMaps(t, "numbers")
			var want, got uint64
			if err := errors.Join(p.kernel.Variables["total"].Get(&want), p.user.Variables["total"].Get(&got)); err != nil || got != want {
				t.Errorf("total is %d, in the kernel %d: %v", got, want, err)
			}
		})
		t.Run(name+"/lock", func(t *testing.T) {
			for range 100 {
				p.run(t, "do_lock", payload(byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())), nil)
			}
			p.sameMaps(t, "locked")
		})
		t.Run(name+"/maps of maps", func(t *testing.T) {
			for range 50 {
				p.run(t, "do_outer", payload(byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())), nil)
			}
			p.sameMaps(t, "in0", "in1")
		})
		t.Run(name+"/tail calls", func(t *testing.T) {
			for i, prog := range []string{"do_again", "leaf"} {
				if err := p.kernel.Maps["progs"].Put(uint32(i*2), p.kernel.Programs[prog]); err != nil {
					t.Fatal(err)
				}
				if err := p.user.Maps["progs"].Put(uint32(i*2), p.user.Programs[prog]); err != nil {
					t.Fatal(err)
				}
			}
			for b := range 16 {
				p.run(t, "do_tail", payload(byte(b&1), byte(b>>1)), nil)
				p.run(t, "do_again", payload(), nil)
			}
			// Through a subprogram too.
			if err := errors.Join(p.kernel.Maps["progs"].Put(uint32(1), p.kernel.Programs["leaf"]), p.user.Maps["progs"].Put(uint32(1), p.user.Programs["leaf"])); err != nil {
				t.Fatal(err)
			}
			p.run(t, "do_tail", payload(0, 3), nil)
			p.run(t, "do_tail", payload(1, 3), nil)
		})
		t.Run(name+"/ring", func(t *testing.T) { ringLikeKernel(t, p, r, payload) })
	}
}

func ringLikeKernel(t *testing.T, p *pair, r *rand.Rand, payload func(...byte) []byte) {
	kr, err := ringbuf.NewReader(p.kernel.Maps["ring"])
	if err != nil {
		t.Fatal(err)
	}
	defer kr.Close()
	ur, err := vm.NewRingReader(p.user.Maps["ring"])
	if err != nil {
		t.Fatal(err)
	}
	defer ur.Close()
	for round := range 20 {
		for range 12 {
			head := binary.NativeEndian.AppendUint64(nil, r.Uint64())
			p.run(t, "do_ring", payload(append(head, byte(r.IntN(3)), byte(r.IntN(110)), byte(r.Uint32()))...), nil)
		}
		kr.SetDeadline(time.Now())
		ur.SetDeadline(time.Now())
		for n := 0; !t.Failed(); n++ {
			k, kerr := kr.Read()
			u, uerr := ur.Read()
			if errors.Is(kerr, os.ErrDeadlineExceeded) && errors.Is(uerr, os.ErrDeadlineExceeded) {
				break
			}
			if kerr != nil || uerr != nil {
				t.Fatalf("round %d, record %d: kernel %v, vm %v", round, n, kerr, uerr)
			}
			if len(k.RawSample) == 100 || len(k.RawSample) == 700 {
				// What was not written is what lay there before.
				if len(u.RawSample) != len(k.RawSample) {
					t.Errorf("a record of %d bytes, and of %d in the kernel", len(u.RawSample), len(k.RawSample))
				}
				if len(k.RawSample) == 700 {
					k.RawSample, u.RawSample = k.RawSample[:8], u.RawSample[:8]
				} else {
					continue
				}
			}
			if !bytes.Equal(k.RawSample, u.RawSample) {
				t.Errorf("round %d, record %d: vm %x, kernel %x", round, n, u.RawSample, k.RawSample)
			}
		}
	}
}
