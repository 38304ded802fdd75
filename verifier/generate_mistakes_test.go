package verifier

import (
	"fmt"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// A mistake is a piece of a program that is wrong, in kernel-style assembly, for
// each of the messages that the kernel has. r6 is the context, map[fd:0] to
// map[fd:4] are the generator's maps.
type mistake struct {
	types []abi.ProgType // nil for all
	text  string
}

var (
	genPackets  = []abi.ProgType{abi.ProgSchedCls, abi.ProgXDP}
	genTracing  = []abi.ProgType{abi.ProgTracepoint, abi.ProgKprobe}
	genLocking  = []abi.ProgType{abi.ProgSchedCls, abi.ProgXDP, abi.ProgCgroupSkb}
	genSkbs     = []abi.ProgType{abi.ProgSocketFilter, abi.ProgSchedCls, abi.ProgCgroupSkb}
	genReadOnly = []abi.ProgType{abi.ProgSocketFilter, abi.ProgCgroupSkb}
)

const (
	genLookup = `
	*(u64 *)(r10 -8) = 0
	r2 = r10
	r2 += -8
	r1 = map[fd:1]
	call map_lookup_elem`
	genReserve = `
	r1 = map[fd:2]
	r2 = 32
	r3 = 0
	call ringbuf_reserve`
	genDynptr = `
	r1 = map[fd:3][0]+0
	r2 = 32
	r3 = 0
	r4 = r10
	r4 += -32
	call dynptr_from_mem`
)

var mistakes = []mistake{
	{nil, "\tr0 = r9\n\tcall get_prandom_u32\n\tr0 = r3"},
	{nil, "\tr10 += 8"},
	{nil, "\tr0 = 7\n\tr0 /= 0"},
	{nil, "\tr0 = 7\n\tr0 <<= 64"},
	{nil, "\tr0 = map[fd:3][0]+0\n\tr1 = *(u64 *)(r0 +0)\n\tr0 += r1\n\tr1 = *(u8 *)(r0 +0)"},
	{nil, "\tr0 = map[fd:3][0]+0\n\tr1 = *(u32 *)(r0 +0)\n\tr0 += r1\n\tr1 = *(u8 *)(r0 +0)"},
	{nil, "\tr0 = map[fd:3][0]+0\n\tr1 = *(u8 *)(r0 +0)\n\tr1 -= 8\n\tr0 += r1\n\tr1 = *(u8 *)(r0 +0)"},
	{nil, "\tr0 = map[fd:3][0]+0\n\tr0 += 0x20000000\n\tr1 = *(u8 *)(r0 +0)"},
	{nil, "\tr1 = *(u64 *)(r10 -520)"},
	{nil, "\t*(u64 *)(r10 +0) = 0"},
	{nil, "\t*(u32 *)(r10 -7) = 0"},
	{nil, "\tr1 = *(u32 *)(r6 +0)\n\tr2 = r10\n\tr2 += r1\n\t*(u8 *)(r2 -8) = 0"},
	{nil, genLookup + "\n\tr1 = *(u64 *)(r0 +0)"},
	{nil, genLookup + "\n\tr0 += 8"},
	{nil, "\tr1 = *(u64 *)(r6 +4096)"},
	{nil, "\tr1 = *(u8 *)(r6 -1)"},
	{nil, "\tr1 = r6\n\tr2 = *(u32 *)(r6 +0)\n\tr2 &= 4\n\tr1 += r2\n\tr3 = *(u32 *)(r1 +0)"},
	{nil, "\tr1 = r6\n\tr1 *= 8"},
	{nil, "\tr1 = r6\n\tr1 += r10"},
	{nil, "\tr1 = r6\n\tw1 += 4"},
	{nil, "\tr1 = 4\n\tr1 -= r6"},
	{nil, "\tr1 = r10\n\tr2 = 8\n\tr1 -= r2"},
	{nil, "\tr1 = r10\n\tr1 <<= 3"},
	{nil, "\tcall 9999"},
	{genTracing, "\tr1 = r6\n\tr2 = 0\n\tr3 = r10\n\tr3 += -8\n\tr4 = 8\n\tcall skb_load_bytes"},
	{nil, "\tr1 = 4\n\tr2 = r10\n\tr2 += -8\n\t*(u64 *)(r10 -8) = 0\n\tcall map_lookup_elem"},
	{nil, "\tr1 = map[fd:1]\n\tr2 = 0\n\tcall map_lookup_elem"},
	{nil, "\tr1 = map[fd:1]\n\tr2 = r10\n\tr2 += -4\n\tcall map_lookup_elem"},
	{genTracing, "\tr1 = r10\n\tr1 += -8\n\tr2 = -1\n\tr3 = 0\n\tcall probe_read_kernel"},
	{genTracing, "\tr1 = r10\n\tr1 += -8\n\tr2 = *(u64 *)(r10 -16)\n\tr3 = 0\n\tcall probe_read_kernel"},
	{genSkbs, "\tr1 = r6\n\tr2 = 0\n\tr3 = r10\n\tr3 += -8\n\tr4 = 0\n\tcall skb_load_bytes"},
	{genSkbs, "\tr1 = r10\n\tr2 = 0\n\tr3 = r10\n\tr3 += -8\n\tr4 = 8\n\tcall skb_load_bytes"},
	{nil, genReserve + "\n\tr0 = 0"},
	{nil, genReserve + "\n\tif r0 != 0 goto on\n\tr0 = 0\n\texit\non:\n\tr1 = r0\n\tr1 += 8\n\tr2 = 0\n\tcall ringbuf_submit"},
	{nil, genReserve + "\n\tr1 = r0\n\tr2 = 0\n\tcall ringbuf_submit"},
	{nil, genReserve + "\n\tif r0 != 0 goto on\n\tr0 = 0\n\texit\non:\n\tr7 = r0\n\tr1 = r0\n\tr2 = 0\n\tcall ringbuf_submit\n\tr1 = *(u64 *)(r7 +0)"},
	{nil, "\tr1 = map[fd:3][0]+0\n\tr2 = 0\n\tcall ringbuf_submit"},
	{nil, "\tr1 = map[fd:2]\n\tr2 = *(u32 *)(r10 -16)\n\tr3 = 0\n\tcall ringbuf_reserve"},
	{genLocking, "\tr1 = map[fd:4][0]+8\n\tcall spin_lock\n\tr0 = 0"},
	{genLocking, "\tr1 = map[fd:4][0]+8\n\tcall spin_lock\n\tcall get_prandom_u32"},
	{genLocking, "\tr1 = map[fd:4][0]+8\n\tcall spin_lock\n\tr1 = map[fd:4][0]+8\n\tcall spin_lock"},
	{genLocking, "\tr1 = map[fd:4][0]+8\n\tcall spin_unlock"},
	{genLocking, "\tr1 = map[fd:4][0]+0\n\tcall spin_lock"},
	{genLocking, "\tr1 = map[fd:4][0]+0\n\tr0 = *(u32 *)(r1 +8)"},
	{genLocking, "\tr1 = map[fd:3][0]+0\n\tcall spin_lock"},
	{nil, genDynptr + "\n\tr1 = r10\n\tr1 += -24\n\tr2 = 0\n\tr3 = 8\n\tcall dynptr_data"},
	{nil, genDynptr + "\n\tr1 = r10\n\tr1 += -32\n\tr2 = 0\n\tr3 = 8\n\tcall dynptr_data\n\tr1 = *(u64 *)(r0 +0)"},
	{nil, genDynptr + "\n\tr1 = *(u64 *)(r10 -32)"},
	{nil, "\tr1 = map[fd:2]\n\tr2 = 32\n\tr3 = 0\n\tr4 = r10\n\tr4 += -32\n\tcall ringbuf_reserve_dynptr\n\tr0 = 0"},
	{nil, "\tr1 = map[fd:2]\n\tr2 = 32\n\tr3 = 0\n\tr4 = r10\n\tr4 += -32\n\tcall ringbuf_reserve_dynptr\n\t*(u64 *)(r10 -32) = 0"},
	{nil, "again:\n\tr0 = 1\n\tif r0 == 1 goto again"},
	{nil, "\tr1 = *(u32 *)(r6 +0)\nagain:\n\tif r1 == 7 goto again"},
	{nil, "\tgoto +30000"},
	{nil, "\texit"},
	{nil, "\tlock *(u64 *)(r6 +0) += r6"},
	{nil, "\tr1 = 1\n\tlock *(u32 *)(r10 -6) += r1"},
	{genSkbs, "\tr7 = r6\n\tr6 = 0\n\tr0 = *(u8 *)skb[0]"},
	{genTracing, "\tr0 = *(u8 *)skb[0]"},
	{nil, "\t*(u64 *)(r10 -8) = r6\n\tr1 = *(u32 *)(r10 -8)"},
	{nil, "\t*(u32 *)(r10 -8) = r6"},
	{nil, "\tr1 = r6\n\tr2 = map[fd:1]\n\tr3 = 0\n\tcall tail_call"},
	{nil, "\tr1 = map[fd:2]\n\tr2 = r10\n\tr2 += -8\n\t*(u64 *)(r10 -8) = 0\n\tcall map_lookup_elem"},
	{genPackets, "\tr1 = 8\n\tr2 = *(u64 *)(r1 +0)"},
	{genReadOnly, "\tr1 = map[fd:3][0]+0\n\tr2 = *(u64 *)(r1 +0)\n\tr2 = *(u64 *)(r2 +0)"},
	{nil, "\tr1 = map[fd:3][0]+0\n\tr2 = 32\n\tr3 = map[fd:3][0]+0\n\tr4 = 8\n\tr5 = map[fd:3][0]+0\n\tcall snprintf"},
	{nil, "\tr1 = map[fd:1]\n\tr1 = *(u64 *)(r1 +8192)"},
	{nil, "\tr1 = map[fd:1]\n\t*(u64 *)(r1 +0) = 0"},
	{nil, "\tr1 = r6\n\tr1 = -r1\n\tr1 = *(u8 *)(r1 +0)"},
	{nil, "\tr1 = map[fd:3][0]+0\n\tr2 = *(u64 *)(r1 +0)\n\tr3 = r10\n\tif r2 > 5 goto on\n\tr3 = r6\non:\n\tr1 = *(u8 *)(r3 -16)"},
}

// mistake adds one of the mistakes that there are for the program's type.
func (g *generator) mistake() {
	m := mistakes[g.r.IntN(len(mistakes))]
	for m.types != nil && !genIn(m.types, g.p.Type) {
		m = mistakes[g.r.IntN(len(mistakes))]
	}
	p := isa.Parser{Helper: func(name string) (int32, bool) {
		h := abi.HelperByName(name)
		if h == nil {
			return 0, false
		}
		return h.ID, true
	}}
	insns, err := p.Parse(strings.TrimPrefix(m.text, "\n") + "\n")
	if err != nil {
		panic(fmt.Sprintf("a mistake that is none: %v\n%s", err, m.text))
	}
	if g.kinds[6] != genContext {
		return
	}
	g.insns = append(g.insns, insns...)
	g.scratch()
	g.kinds[0], g.kinds[7] = genNothing, genNothing
	g.slots[0], g.slots[1], g.slots[2], g.slots[3] = genNothing, genNothing, genNothing, genNothing
}

func genIn(types []abi.ProgType, t abi.ProgType) bool {
	for _, have := range types {
		if have == t {
			return true
		}
	}
	return false
}
