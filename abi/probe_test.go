package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/skep-bpf/skep/isa"
)

// TestCallsOfRunningKernel loads, for every program type and helper, a program
// that calls the helper, and compares the kernel's "you may not call this" with
// the table of its release. No such program is run or attached.
func TestCallsOfRunningKernel(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux")
	}
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	release, err := ParseVersion(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains([]Version{Linux6_1, Linux6_12, Linux6_18}, release) {
		t.Skipf("skep has no table of Linux %v", release)
	}
	specs := map[ProgType]ebpf.ProgramSpec{
		ProgCgroupSock:     {AttachType: ebpf.AttachType(AttachCgroupInetSockCreate)},
		ProgCgroupSockAddr: {AttachType: ebpf.AttachType(AttachCgroupInet4Connect)},
		ProgCgroupSockopt:  {AttachType: ebpf.AttachType(AttachCgroupSetsockopt)},
		ProgSkLookup:       {AttachType: ebpf.AttachType(AttachSkLookup)},
		ProgNetfilter:      {AttachType: ebpf.AttachType(AttachNetfilter)},
		ProgTracing:        {AttachType: ebpf.AttachType(AttachTraceRawTp), AttachTo: "sched_switch"},
		ProgSyscall:        {Flags: 1 << 4}, // BPF_F_SLEEPABLE
	}
	tested := 0
	for typ := ProgType(1); int(typ) < len(progTypes); typ++ {
		spec := specs[typ]
		spec.Type, spec.License = ebpf.ProgramType(typ), "GPL"
		if err := load(t, spec, isa.Mov64Imm(isa.R0, 1)); err != nil {
			t.Logf("%v is not tested: %v", typ, err)
			continue
		}
		tested++
		for _, h := range Helpers() {
			err := load(t, spec, isa.Call(h.ID))
			got := true
			var refusal *ebpf.VerifierError
			if errors.As(err, &refusal) {
				log := strings.Join(refusal.Log, "\n")
				for _, words := range []string{"cannot use helper", "unknown func", "invalid func"} {
					got = got && !strings.Contains(log, words)
				}
			} else if err != nil {
				t.Fatalf("%v: %v", typ, err)
			}
			c, want := h.Call(release, typ)
			if got != want && !c.Conditional {
				t.Errorf("%v calls %s: the kernel says %v, the table %v", typ, h.Name, got, want)
			}
		}
	}
	if tested == 0 {
		t.Skip("the kernel lets this process load no program")
	}
}

func load(t *testing.T, spec ebpf.ProgramSpec, first isa.Instruction) error {
	t.Helper()
	code, err := isa.Encode(nil, binary.NativeEndian, []isa.Instruction{first, isa.Mov64Imm(isa.R0, 1), isa.Exit()})
	if err != nil {
		t.Fatal(err)
	}
	spec.Instructions, err = asm.AppendInstructions(nil, bytes.NewReader(code), binary.NativeEndian, "linux")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgram(&spec)
	if err == nil {
		err = p.Close()
	}
	return err
}
