//go:build linux && (amd64 || arm64)

package jit

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

var soak = flag.Duration("soak", time.Second, "how long TestSoak runs")

// executable returns the number of bytes in this process that are executable and
// no file's, and the mappings that are writable and executable, or shared code.
func executable(t *testing.T) (bytes uint64, bad []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if !strings.Contains(fields[1], "x") || len(fields) > 5 { // of a file
			continue
		}
		var from, to uint64
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		bytes += to - from
		if fields[1] != "r-xp" {
			bad = append(bad, line)
		}
	}
	return bytes, bad
}

// TestNeverWritableAndExecutable watches the process's own memory map while
// programs are compiled, run and closed.
func TestNeverWritableAndExecutable(t *testing.T) {
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, jit, newCage(t))
	before, _ := executable(t)
	g := &progGen{rand.New(rand.NewPCG(1, 1))}
	for range 20 {
		w.compile(t, engine.Options{}, g.program(t), g.program(t))
		w.run([5]uint64{}, 100)
		during, bad := executable(t)
		if len(bad) > 0 {
			t.Fatalf("code has other permissions than r-xp: %q", bad)
		}
		if size := uint64(w.codes[0].Size() + w.codes[1].Size()); during != before+size {
			t.Fatalf("%d bytes of memory are executable, %d before; the code has %d", during, before, size)
		}
	}
	w.compile(t, engine.Options{})
	if after, _ := executable(t); after != before {
		t.Errorf("%d bytes of memory are executable after closing, %d before", after, before)
	}
}

// TestPadding looks at what surrounds code, and that it does not start where it
// did before.
func TestPadding(t *testing.T) {
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	p := program(t, isa.Mov64Imm(isa.R0, 1), isa.Exit())
	seen := map[uintptr]bool{}
	for range 32 {
		c, err := jit.Compile(p, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mem := c.(*code).mem
		at := mem.start % uintptr(os.Getpagesize())
		seen[at] = true
		if head := mem.pages[:at]; len(bytes.Trim(head, string(trapBytes))) > 0 {
			t.Errorf("before the code: % x", head)
		}
		tail := mem.pages[len(mem.pages)-32:]
		if len(bytes.Trim(tail, string(trapBytes))) > 0 && at < 1024 {
			t.Errorf("behind the code: % x", tail)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) < 8 {
		t.Errorf("32 compilations start at %d places only", len(seen))
	}
}

// immediates returns a program that has v as every kind of immediate.
func immediates(t testing.TB, v int32) *engine.Program {
	var insns []isa.Instruction
	for _, op := range []isa.ALUOp{isa.Add, isa.Sub, isa.Mul, isa.Div, isa.SDiv, isa.Or, isa.And, isa.Mod, isa.SMod, isa.Xor, isa.Mov} {
		insns = append(insns, isa.ALU64Imm(op, isa.R1, v), isa.ALU32Imm(op, isa.R6, v), isa.ALU64Imm(op, isa.R3, v))
	}
	for _, op := range jumpOps {
		insns = append(insns, isa.JumpIfImm(op, isa.R1, v, 0), isa.JumpIf32Imm(op, isa.R6, v, 0))
	}
	for _, size := range sizes {
		insns = append(insns, isa.StoreImm(size, isa.R10, -8, v), isa.StoreImm(size, isa.R1, 8, v))
	}
	insns = append(insns,
		isa.LoadImm64(isa.R1, int64(v)), isa.LoadImm64(isa.R1, int64(uint32(v))),
		isa.LoadImm64(isa.R7, int64(v)<<32), isa.LoadImm64(isa.R8, int64(v)<<32|int64(uint32(^v))),
		isa.LoadAbs(isa.Word, v), isa.LoadInd(isa.Word, isa.R1, v), isa.Exit())
	return program(t, insns...)
}

// contains reports whether code has v where a constant of the program could
// be executed: on x86 at any byte, on arm64 in the moves.
func contains(code []byte, v int32, arm bool) bool {
	if !arm {
		return bytes.Contains(code, binary.LittleEndian.AppendUint32(nil, uint32(v)))
	}
	for i := 0; i+4 <= len(code); i += 4 {
		w := binary.LittleEndian.Uint32(code[i:])
		half := uint16(w >> 5)
		if w&0x1f800000 == 0x12800000 && (half == uint16(v) || half == uint16(v>>16) || half == ^uint16(v) || half == ^uint16(v>>16)) {
			return true
		}
	}
	return false
}

// TestBlinding looks for immediates of full entropy in what is emitted for them,
// for both machines.
func TestBlinding(t *testing.T) {
	for name, generate := range generators {
		t.Run(name, func(t *testing.T) {
			arm := name == "arm64"
			found := 0
			for range 1000 {
				// Not what State offsets, indices and sign extensions look like.
				v := int32(0x1000+rand.Uint32N(0xe000))<<16 | int32(0x1000+rand.Uint32N(0xe000))
				p := immediates(t, v)
				plain, err := generate(p, options{}, newKeys())
				if err != nil {
					t.Fatal(err)
				}
				if contains(plain.code, v, arm) {
					found++
				}
				blind, err := generate(p, options{Options: engine.Options{Blind: true}}, newKeys())
				if err != nil {
					t.Fatal(err)
				}
				if contains(blind.code, v, arm) {
					t.Fatalf("%#x is in the code", v)
				}
			}
			if found < 990 {
				t.Errorf("without blinding only %d of 1000 are found: the test is blind", found)
			}
		})
	}
}

// TestSoak runs native code on all threads under profiling signals, preemption
// requests and garbage collection. The numbers that come out must be right; that
// the process survives is the other half.
func TestSoak(t *testing.T) {
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	// Calls, loops, memory, and an exit each round.
	p, err := engine.New("soak", []isa.Instruction{
		isa.Mov64Imm(isa.R6, 200),
		isa.Mov64Imm(isa.R7, 0),
		isa.Mov64(isa.R1, isa.R6), // 2
		isa.CallLocal(6),
		isa.ALU64(isa.Add, isa.R7, isa.R0),
		isa.Call(0),
		isa.ALU64Imm(isa.Sub, isa.R6, 1),
		isa.JumpIfImm(isa.NE, isa.R6, 0, -6),
		isa.Mov64(isa.R0, isa.R7),
		isa.Exit(),
		isa.Mov64Imm(isa.R0, 0), // 10
		isa.ALU64(isa.Add, isa.R0, isa.R1),
		isa.StoreMem(isa.Double, isa.R10, -8, isa.R1),
		isa.LoadMem(isa.Double, isa.R1, isa.R10, -8),
		isa.ALU64Imm(isa.Sub, isa.R1, 1),
		isa.JumpIfImm(isa.NE, isa.R1, 0, -5),
		isa.Exit(),
	}, []int{0, 10}, hostCalls)
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(0)
	for i := uint64(200); i > 0; i-- {
		want += i * (i + 1) / 2
	}
	if err := pprof.StartCPUProfile(new(bytes.Buffer)); err != nil {
		t.Logf("without profiling: %v", err)
	} else {
		defer pprof.StopCPUProfile()
	}
	c := newCage(t)
	code, err := jit.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer code.Close()
	end := time.Now().Add(*soak)
	var group sync.WaitGroup
	var runs, exits atomic.Int64
	for cpu := range 2 * runtime.GOMAXPROCS(0) {
		group.Go(func() {
			s := engine.NewState(4)
			s.Base, s.StackLimit = uintptr(c.Base()), uint32(0x4000+0x4000*cpu-engine.FrameSize)
			for time.Now().Before(end) {
				s.Regs[10], s.Budget = uint64(0x4000+0x4000*cpu), engine.Quantum
				if err := code.Start(s, 0); err != nil {
					t.Error(err)
					return
				}
				for jit.Run(s) != engine.Done {
					exits.Add(1)
					s.Budget = engine.Quantum
					if s.Exit == engine.HostCall {
						s.Regs[0] = 0
						if exits.Load()%64 == 0 {
							grow(64)
						}
					}
				}
				if s.Regs[0] != want {
					t.Errorf("r0 = %d, want %d", s.Regs[0], want)
					return
				}
				runs.Add(1)
			}
		})
	}
	group.Go(func() {
		for time.Now().Before(end) {
			runtime.GC()
			buf := make([]byte, 1<<16)
			runtime.Stack(buf, true) // stops the world, and unwinds everybody
		}
	})
	group.Wait()
	t.Logf("%d runs, %d exits", runs.Load(), exits.Load())
}

// grow makes the goroutine's stack move.
func grow(n int) byte {
	var b [512]byte
	if n > 0 {
		b[n] = grow(n - 1)
	}
	return b[n]
}
