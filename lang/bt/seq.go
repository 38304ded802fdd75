package bt

import (
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// A pinned iterator runs when its file is read, by anyone and after skep: what
// it prints goes into the text that the reader gets, by bpf_seq_write and
// bpf_seq_printf (kernel/trace/bpf_trace.c).

// pinned reports whether the program is an iterator that is pinned.
func (g *gen) pinned() bool {
	return g.inst.Ctx.Kind == hook.Iter && g.inst.Points[0].Pin != ""
}

// seqFile is the kernel's struct seq_file: the first member of struct
// bpf_iter_meta, to which the first member of every iterator's context points.
func (g *gen) seqFile() *ir.Value {
	meta := g.b.Load(ir.PtrTo(ir.SpaceBTF), g.ctx)
	return g.b.Load(ir.PtrTo(ir.SpaceBTF), meta)
}

// seqChecked counts text that the reader of the file does not get.
func (g *gen) seqChecked(result *ir.Value) {
	// A full buffer is no failure: the kernel calls the program again for the
	// same element once there is room.
	failed := g.b.Compare(ir.OpNe, result, g.const64(0))
	full := g.b.Compare(ir.OpEq, result, g.const64(-75)) // EOVERFLOW
	g.ifThen(failed, func() {
		bad, done := g.block("seq.failed"), g.block("seq.full")
		g.b.If(full, done, bad)
		g.b.At(bad)
		g.lose(object.LossEvent, string(object.EventPrintf))
		g.b.Jump(done)
		g.b.At(done)
	})
}

// seqText writes constant text.
func (g *gen) seqText(text string) {
	if text == "" {
		return
	}
	p := g.b.Global(g.rodata("text", []byte(text)))
	g.seqChecked(g.helper(hSeqWrite, g.seqFile(), p, g.const64(int64(len(text)))))
}

// seqValue writes one value by a format of the kernel, which has one conversion.
func (g *gen) seqValue(format string, v *ir.Value) {
	data := g.b.Alloca(8, nil, "data")
	g.b.Store(data, v)
	p := g.b.Global(g.rodata("format", append([]byte(format), 0)))
	g.seqChecked(g.helper(hSeqPrintf, g.seqFile(), p, g.const64(int64(len(format)+1)), data, g.const64(8)))
}

// seqString writes a string of at most limit bytes.
func (g *gen) seqString(format string, e syntax.Expr, limit int) {
	t := g.typeOf(e)
	size := t.Size
	p := g.b.Alloca((size+8)/8*8, nil, "string")
	g.b.Store(g.b.Offset(p, int64(size/8*8)), g.const64(0))
	g.into(p, e, t)
	g.b.Store(g.b.Offset(p, int64(min(limit, size))), g.b.Const(ir.I8, 0))
	g.seqValue(format, g.b.PtrToInt(p))
}

// seqFormat is printf in a pinned iterator.
func (g *gen) seqFormat(e *syntax.Call) {
	format := g.info.Consts[e.Args[0]].Str
	verbs, _ := check.Verbs(format)
	args := e.Args[1:]
	for _, v := range verbs {
		at := strings.Index(format, "%"+v.Spec)
		g.seqText(format[:at])
		format = format[at+1+len(v.Spec):]
		switch {
		case v.Verb == '%':
			g.seqText("%")
			continue
		case v.Star:
			g.seqRefuse(args[0], "%"+v.Spec)
			return
		}
		g.seqVerb(v, args[0])
		args = args[1:]
	}
	g.seqText(format)
}

// seqRefuse says that the kernel cannot print something.
func (g *gen) seqRefuse(e syntax.Expr, what string) {
	g.errorf(e.Span(), "unsupported", "a pinned iterator cannot print %s: the text of its file is made by the kernel (bpf_seq_printf)", what)
}

// seqVerb writes one value as a conversion wants it.
func (g *gen) seqVerb(v check.Verb, e syntax.Expr) {
	spec := strings.TrimRight(v.Spec[:len(v.Spec)-1], "ljzt")
	short := strings.Count(spec, "h")
	spec = strings.TrimRight(spec, "h")
	precision := -1
	if flags, digits, ok := strings.Cut(spec, "."); ok {
		precision, _ = strconv.Atoi(digits)
		spec = flags
	}
	t := g.typeOf(e)
	number := func(conversion string, signed bool) {
		if precision >= 0 || !t.IsScalar() {
			g.seqRefuse(e, "%"+v.Spec)
			return
		}
		prefix := ""
		if strings.Contains(spec, "#") {
			if spec != "#" || v.Verb != 'x' && v.Verb != 'X' {
				g.seqRefuse(e, "%"+v.Spec)
				return
			}
			prefix, spec = "0"+string(v.Verb), ""
		}
		n := g.int(g.value(e))
		if short > 0 {
			n = g.b.Resize(g.b.Resize(n, []ir.Type{ir.I16, ir.I8}[min(short, 2)-1], false), ir.I64, signed)
		}
		g.seqValue(prefix+"%"+spec+conversion, n)
	}
	switch v.Verb {
	case 'd', 'i':
		number("lld", true)
	case 'u':
		number("llu", false)
	case 'x', 'X':
		number("ll"+string(v.Verb), false)
	case 'p':
		g.seqText("0x")
		number("llx", false)
	case 'c':
		number("c", false)
	case 's':
		switch {
		case t.Kind == check.String:
			limit := t.Size
			if precision >= 0 {
				limit = precision
			}
			g.seqString("%"+spec+"s", e, limit)
		case t.Kind == check.Ksym && precision < 0:
			g.seqValue("%"+spec+"ps", g.int(g.value(e)))
		default:
			g.seqRefuse(e, t.String()+" by %"+v.Spec)
		}
	default:
		g.seqRefuse(e, "%"+v.Spec)
	}
}

// seqPrint is print in a pinned iterator.
func (g *gen) seqPrint(e syntax.Expr) {
	t := g.typeOf(e)
	switch {
	case t.Kind == check.String:
		g.seqString("%s", e, t.Size)
	case t.Kind == check.Ksym:
		g.seqValue("%ps", g.int(g.value(e)))
	case t.Kind == check.Pointer:
		g.seqValue("0x%llx", g.int(g.value(e)))
	case t.Kind == check.Int && t.Signed:
		g.seqValue("%lld", g.int(g.value(e)))
	case t.Kind == check.Int:
		g.seqValue("%llu", g.int(g.value(e)))
	default:
		g.seqRefuse(e, t.String())
		return
	}
	g.seqText("\n")
}
