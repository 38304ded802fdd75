package verifier

import (
	"testing"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// TestContexts tries every aligned access to the context of each program type,
// and to the sockets that programs get from it, against the live kernel.
func TestContexts(t *testing.T) {
	o := newOracle(t)
	for _, c := range []struct {
		t abi.ProgType
		a abi.AttachType
	}{
		{t: abi.ProgSocketFilter},
		{t: abi.ProgSchedCls},
		{t: abi.ProgXDP},
		{t: abi.ProgXDP, a: abi.AttachXDPDevmap},
		{t: abi.ProgCgroupSkb, a: abi.AttachCgroupInetIngress},
		{t: abi.ProgLWTXmit},
		{t: abi.ProgSkSkb},
		{t: abi.ProgFlowDissector},
		{t: abi.ProgCgroupSock, a: abi.AttachCgroupInetSockCreate},
		{t: abi.ProgCgroupSock, a: abi.AttachCgroupInet4PostBind},
		{t: abi.ProgCgroupSockAddr, a: abi.AttachCgroupInet4Connect},
		{t: abi.ProgCgroupSockAddr, a: abi.AttachCgroupUDP6Sendmsg},
		{t: abi.ProgSockOps},
		{t: abi.ProgSkMsg},
		{t: abi.ProgSkReuseport, a: abi.AttachSkReuseportSelect},
		{t: abi.ProgCgroupDevice},
		{t: abi.ProgCgroupSysctl},
		{t: abi.ProgCgroupSockopt, a: abi.AttachCgroupGetsockopt},
		{t: abi.ProgCgroupSockopt, a: abi.AttachCgroupSetsockopt},
		{t: abi.ProgSkLookup, a: abi.AttachSkLookup},
		{t: abi.ProgKprobe},
		{t: abi.ProgTracepoint},
		{t: abi.ProgRawTracepoint},
		{t: abi.ProgPerfEvent},
	} {
		size := min(abi.ContextOf(c.t).Size, 256)
		p := &Program{Name: "context", Type: c.t, Attach: c.a, License: "GPL"}
		refused := 0
		for off := -8; off <= size+8; off++ {
			for _, s := range []isa.Size{isa.Byte, isa.Half, isa.Word, isa.Double} {
				if off%s.Bytes() != 0 {
					continue
				}
				for _, write := range []bool{false, true} {
					access := isa.LoadMem(s, 2, 1, int16(off))
					if write {
						access = isa.StoreImm(s, 1, int16(off), 0)
					}
					p.Insns = []isa.Instruction{access, isa.Mov64Imm(0, 1), isa.Exit()}
					a, err := o.load(p, CapsAll, 0)
					if err != nil {
						t.Fatal(err)
					}
					r := Verify(p, Config{})
					if a.accepted != (r.Verdict == Accepted) && refused < 8 {
						refused++
						t.Errorf("%v (attach %d): %v: the kernel accepts it: %v, and we say %v (%v)", c.t, c.a, access, a.accepted, r.Verdict, r.Err)
					}
				}
			}
		}
	}
}
