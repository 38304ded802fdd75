package hook

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// arguments describes what a program at a point gets, as far as the target
// knows; what it does not know is left out.
func arguments(t target.Target, p Point) (args []Arg, returns string) {
	switch p.Kind {
	case Tracepoint:
		f, err := t.Format(p.Subsystem, p.Event)
		if err != nil {
			return nil, ""
		}
		for _, field := range f.Args() {
			args = append(args, Arg{field.Name, field.Text()})
		}
		return args, ""
	case RawTracepoint:
		r, err := t.RawTracepoint(p.Event)
		if err != nil {
			return nil, ""
		}
		return params(r.Args), ""
	case Kprobe, Kretprobe, Fentry, Fexit:
		types, err := t.Types()
		if err != nil || p.BPF {
			return nil, ""
		}
		fn, err := types.FindIn(p.Module, typeindex.KindFunc, p.Func)
		if err != nil {
			return nil, ""
		}
		proto, ok := fn.(*btf.Func).Type.(*btf.FuncProto)
		if !ok {
			return nil, ""
		}
		return params(proto.Params), target.Declare(proto.Return, "")
	case Iter:
		types, err := t.Types()
		if err != nil {
			return nil, ""
		}
		ctx, err := types.Struct("bpf_iter__" + p.Event)
		if err != nil {
			return nil, ""
		}
		for _, m := range ctx.Members {
			typ := m.Type
			// Pointers stand in anonymous unions of 8 bytes (__bpf_md_ptr).
			if u, ok := typ.(*btf.Union); ok && m.Name == "" && len(u.Members) > 0 {
				m, typ = u.Members[0], u.Members[0].Type
			}
			args = append(args, Arg{m.Name, target.Declare(typ, "")})
		}
	}
	return args, ""
}

func params(list []btf.FuncParam) []Arg {
	args := make([]Arg, len(list))
	for i, p := range list {
		args[i] = Arg{p.Name, target.Declare(p.Type, "")}
	}
	return args
}
