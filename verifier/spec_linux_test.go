package verifier

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
)

// TestProgramsOf holds programs from a spec of package ebpf against those that
// were read from the same object by our own reader.
func TestProgramsOf(t *testing.T) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		types = nil
	}
	for _, file := range []string{"programs.c", "wrong.c"} {
		data := compile(t, filepath.Join("testdata", file))
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		o, err := object.Unmarshal(data)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Programs(o, types)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ProgramsOf(spec, types)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || len(got) == 0 {
			t.Fatalf("%s: %d programs, want %d", file, len(got), len(want))
		}
		for _, w := range want {
			i := slices.IndexFunc(got, func(p *Program) bool { return p.Name == w.Name })
			if i < 0 {
				t.Errorf("%s: no program %s", file, w.Name)
				continue
			}
			g := got[i]
			rw, rg := Verify(w, Config{Types: types}), Verify(g, Config{Types: types})
			if rw.Verdict != rg.Verdict || rw.Insns != rg.Insns {
				t.Errorf("%s: %v after %d instructions, want %v after %d (%v, %v)", w.Name, rg.Verdict, rg.Insns, rw.Verdict, rw.Insns, rg.Err, rw.Err)
			}
			if rw.Err != nil && rg.Err != nil && rw.Err.Insn >= 0 {
				lw, _ := w.LineOf(rw.Err.Insn)
				lg, _ := g.LineOf(rg.Err.Insn)
				if rw.Err.Code != rg.Err.Code || lw.Row != lg.Row || filepath.Base(lw.File) != filepath.Base(lg.File) {
					t.Errorf("%s: %v at line %d, want %v at line %d", w.Name, rg.Err, lg.Row, rw.Err, lw.Row)
				}
			}
		}
	}
}

// TestTrace looks at what is known before instructions, and which numbers
// mattered.
func TestTrace(t *testing.T) {
	p := &Program{Name: "p", Type: abi.ProgSocketFilter, License: "GPL", Insns: []isa.Instruction{
		isa.Call(7),                               // 0: r0 is any 32-bit number
		isa.Mov64(isa.R6, isa.R0),                 // 1
		isa.ALU64Imm(isa.And, isa.R0, 3),          // 2
		isa.Mov64(isa.R2, isa.R10),                // 3
		isa.StoreImm(isa.Double, 10, -8, 0),       // 4
		isa.ALU64(isa.Add, isa.R2, isa.R0),        // 5: where r2 points depends on r0
		isa.LoadMem(isa.Byte, isa.R0, isa.R2, -8), // 6
		isa.Exit(), // 7
	}}
	trace := &Trace{}
	if r := Verify(p, Config{Trace: trace}); r.Verdict != Accepted {
		t.Fatal(r.Err)
	}
	views := trace.At(5)
	if len(views) != 1 {
		t.Fatalf("%d states, want 1", len(views))
	}
	v := &views[0]
	for _, c := range []struct {
		reg     int
		value   uint64
		holds   bool
		precise bool
	}{{0, 3, true, true}, {0, 4, false, true}, {6, 1 << 31, true, false}, {1, 0, false, false}, {2, 99, true, true}} {
		r := &v.Regs[c.reg]
		if r.Holds(c.value) != c.holds || r.Precise != c.precise {
			t.Errorf("r%d is %q: holds %#x: %v, precise: %v; want %v, %v", c.reg, r.What, c.value, r.Holds(c.value), r.Precise, c.holds, c.precise)
		}
	}
	if !v.Regs[2].Pointer || v.Regs[2].What != "fp" || len(v.Stack) != 1 || v.Stack[0] != (Known{"fp-8", "0"}) {
		t.Errorf("r2 is %q, the stack %v", v.Regs[2].What, v.Stack)
	}
	if trace.Visited(8) || trace.Full(7) {
		t.Error("there is no instruction 8, and one state at 7")
	}
}

// TestSpeculationAsked holds that speculative paths are followed for all
// capabilities when that is asked for.
func TestSpeculationAsked(t *testing.T) {
	p := &Program{Name: "p", Type: abi.ProgSocketFilter, License: "GPL", Insns: []isa.Instruction{
		isa.Call(7),
		isa.ALU64Imm(isa.And, isa.R0, 3),
		isa.Mov64(isa.R2, isa.R10),
		isa.ALU64(isa.Add, isa.R2, isa.R0),
		isa.Mov64Imm(isa.R0, 0),
		isa.Exit(),
	}}
	if r := Verify(p, Config{}); r.Verdict != Accepted {
		t.Error(r.Err)
	}
	r := Verify(p, Config{Speculation: true})
	if r.Verdict != Rejected || !strings.HasPrefix(string(r.Err.Code), "speculative") {
		t.Errorf("%v: %v, want a refusal", r.Verdict, r.Err)
	}
}
