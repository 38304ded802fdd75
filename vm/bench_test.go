package vm_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

func benchEngines(b *testing.B, f func(b *testing.B, v *vm.VM)) {
	for _, interpret := range []bool{true, false} {
		v := newVM(b, vm.Options{Interpret: interpret, CPUs: 2})
		b.Run(v.EngineName(), func(b *testing.B) { f(b, v) })
	}
}

// A program of two instructions, through the public API.
func BenchmarkCall(b *testing.B) {
	benchEngines(b, func(b *testing.B, v *vm.VM) {
		p := program(b, v, nil, isa.Mov64Imm(isa.R0, 1), isa.Exit())
		ctx := context.Background()
		b.ReportAllocs()
		for range b.N { // b.Loop takes a sixth as long as a call
			if _, err := p.Call(ctx, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// loopOf calls body a thousand times in one run. r6 counts.
func loopOf(body ...isa.Instruction) []isa.Instruction {
	list := append([]isa.Instruction{isa.Mov64Imm(isa.R6, 1000), isa.StoreImm(isa.Double, isa.R10, -8, 0)}, body...)
	back := isa.Slots(body) + 2
	return append(list, isa.ALU64Imm(isa.Sub, isa.R6, 1), isa.JumpIfImm(isa.NE, isa.R6, 0, int16(-back)), isa.Mov64Imm(isa.R0, 0), isa.Exit())
}

// What one call of a helper takes, per call.
func BenchmarkHelpers(b *testing.B) {
	at := func(off int32) []isa.Instruction {
		return []isa.Instruction{isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, off)}
	}
	benchEngines(b, func(b *testing.B, v *vm.VM) {
		array := newMap(b, v, ebpf.MapSpec{Name: "array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 16})
		hash := newMap(b, v, ebpf.MapSpec{Name: "hash", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 10000})
		for i := range uint64(10000) {
			if err := hash.Put(i, i); err != nil {
				b.Fatal(err)
			}
		}
		maps := map[int32]*vm.Map{3: array, 4: hash}
		// The key is the low bits of a sum, below 8,192.
		key := []isa.Instruction{
			isa.Mov64(isa.R1, isa.R6), isa.ALU64Imm(isa.Mul, isa.R1, 7919), isa.ALU64Imm(isa.And, isa.R1, 8191), isa.StoreMem(isa.Double, isa.R10, -8, isa.R1),
		}
		for _, c := range []struct {
			name string
			body []isa.Instruction
		}{
			{"ktime", []isa.Instruction{isa.Call(5)}},
			{"pid_tgid", []isa.Instruction{isa.Call(14)}},
			{"array lookup", append(append([]isa.Instruction{isa.LoadMapFD(isa.R1, 3)}, at(-8)...), isa.Call(1))},
			{"hash lookup", append(append(append(key[:4:4], isa.LoadMapFD(isa.R1, 4)), at(-8)...), isa.Call(1))},
			{"hash update", append(append(append(key[:4:4], isa.LoadMapFD(isa.R1, 4)), at(-8)...), isa.Mov64(isa.R3, isa.R2), isa.Mov64Imm(isa.R4, 0), isa.Call(2))},
		} {
			b.Run(c.name, func(b *testing.B) {
				p := program(b, v, maps, loopOf(c.body...)...)
				for b.Loop() {
					if _, err := p.Call(context.Background(), nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/call")
			})
		}
	})
}

// The interpreter beside a plain loop over a switch, which decodes as it goes: in
// turns, the shortest of all runs of each. of-switch is how many instructions the
// interpreter does while the plain loop does one: above 1 it is the faster.
func BenchmarkInstructions(b *testing.B) {
	insns := loopOf(
		isa.ALU64Imm(isa.Add, isa.R1, 3), isa.ALU64(isa.Xor, isa.R2, isa.R1), isa.ALU64Imm(isa.Mul, isa.R2, 5), isa.ALU64(isa.Add, isa.R3, isa.R2),
		isa.StoreMem(isa.Double, isa.R10, -16, isa.R3), isa.ALU64Imm(isa.RSh, isa.R3, 3), isa.LoadMem(isa.Double, isa.R4, isa.R10, -16), isa.ALU64(isa.Sub, isa.R4, isa.R1),
		isa.JumpIfImm(isa.GT, isa.R4, 7, 1), isa.ALU64Imm(isa.Or, isa.R5, 1), isa.ALU32(isa.Add, isa.R5, isa.R4), isa.Mov64(isa.R1, isa.R5))
	const perRun = 2 + 1000*13.5 + 2
	code, err := isa.Encode(nil, binary.NativeEndian, insns)
	if err != nil {
		b.Fatal(err)
	}
	words := make([]uint64, len(code)/8)
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(code[i*8:])
	}
	stack := make([]byte, 512)
	timed := func(best *time.Duration, f func()) {
		start := time.Now()
		f()
		*best = min(*best, time.Since(start))
	}
	benchEngines(b, func(b *testing.B, v *vm.VM) {
		p := program(b, v, nil, insns...)
		ours, plain := time.Hour, time.Hour
		for b.Loop() {
			timed(&plain, func() { plainSwitch(words, stack) })
			timed(&ours, func() {
				if _, err := p.Call(context.Background(), nil); err != nil {
					b.Fatal(err)
				}
			})
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(perRun/ours.Seconds()/1e6, "Minsn/s")
		b.ReportMetric(perRun/plain.Seconds()/1e6, "switch-Minsn/s")
		b.ReportMetric(float64(plain)/float64(ours), "of-switch")
	})
}

// plainSwitch is the interpreter that one would write first: registers in an
// array, a switch over the opcode, a slice for the stack, which r10 ends.
func plainSwitch(code []uint64, stack []byte) uint64 {
	var r [16]uint64
	r[10] = uint64(len(stack))
	for pc := 0; ; pc++ {
		in := code[pc]
		dst, src := in>>8&15, in>>12&15
		off, imm := int16(in>>16), uint64(int64(int32(in>>32)))
		switch uint8(in) {
		case 0x07:
			r[dst] += imm
		case 0x0f:
			r[dst] += r[src]
		case 0x17:
			r[dst] -= imm
		case 0x1f:
			r[dst] -= r[src]
		case 0x27:
			r[dst] *= imm
		case 0x2f:
			r[dst] *= r[src]
		case 0x47:
			r[dst] |= imm
		case 0x57:
			r[dst] &= imm
		case 0x67:
			r[dst] <<= imm & 63
		case 0x77:
			r[dst] >>= imm & 63
		case 0xaf:
			r[dst] ^= r[src]
		case 0xb7:
			r[dst] = imm
		case 0xbf:
			r[dst] = r[src]
		case 0x04:
			r[dst] = uint64(uint32(r[dst]) + uint32(imm))
		case 0x0c:
			r[dst] = uint64(uint32(r[dst]) + uint32(r[src]))
		case 0x05:
			pc += int(off)
		case 0x15:
			if r[dst] == imm {
				pc += int(off)
			}
		case 0x25:
			if r[dst] > imm {
				pc += int(off)
			}
		case 0x55:
			if r[dst] != imm {
				pc += int(off)
			}
		case 0x79:
			r[dst] = binary.NativeEndian.Uint64(stack[r[src]+uint64(int64(off)):])
		case 0x7a:
			binary.NativeEndian.PutUint64(stack[r[dst]+uint64(int64(off)):], imm)
		case 0x7b:
			binary.NativeEndian.PutUint64(stack[r[dst]+uint64(int64(off)):], r[src])
		case 0x95:
			return r[0]
		default:
			panic("an instruction that the benchmark does not have")
		}
	}
}
