package bt

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/object"
)

// coreBits reads a bit-field of the kernel's, wherever the kernel that runs
// the program has it.
func (g *gen) coreBits(base *ir.Value, s *check.Selection, t *check.Type) *ir.Value {
	size := t.Size
	if size != 1 && size != 2 && size != 4 && size != 8 {
		size = 8
	}
	start := s.BitOffset / (8 * size) * size
	for s.BitOffset+s.Bits-8*start > 8*size && size < 8 {
		size *= 2
		start = s.BitOffset / (8 * size) * size
	}
	fact := func(kind ir.CoreKind, local int) *ir.Value {
		return g.b.Core(ir.I64, &ir.CoreRef{Kind: kind, Type: s.Struct, Path: s.Path, Local: int64(local)})
	}
	left := 64 - (s.BitOffset + s.Bits - 8*start)
	if g.target.ByteOrder().String() == "BigEndian" {
		left = (8-size)*8 + s.BitOffset - 8*start
	}
	word := g.b.Alloca(8, nil, "bits")
	g.b.Store(word, g.const64(0))
	at := g.b.PtrAdd(g.readable(base), fact(ir.CoreFieldByteOffset, start))
	r := g.helper(hReadKernel, word, fact(ir.CoreFieldByteSize, size), at)
	g.ifThen(g.b.Compare(ir.OpNe, r, g.const64(0)), func() { g.lose(object.LossFault, "a bit-field") })
	v := g.b.Binary(ir.OpShl, g.b.Load(ir.I64, word), fact(ir.CoreFieldLShiftU64, left))
	op := ir.OpLShr
	if n, ok := btf.UnderlyingType(memberType(s)).(*btf.Int); ok && n.Encoding == btf.Signed {
		op = ir.OpAShr
	}
	return g.b.Binary(op, v, fact(ir.CoreFieldRShiftU64, 64-s.Bits))
}

// memberType is the C type of the member that s selects.
func memberType(s *check.Selection) btf.Type {
	t := s.Struct
	for _, i := range s.Path {
		switch u := btf.UnderlyingType(t).(type) {
		case *btf.Struct:
			t = u.Members[i].Type
		case *btf.Union:
			t = u.Members[i].Type
		}
	}
	return t
}
