package check

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/target"
)

// context finds what a body may use at an attach point.
func (c *checker) context(pt Point, args bool) Context {
	ctx := Context{Kind: pt.Kind}
	ctx.Syscall = pt.Kind == hook.Tracepoint && pt.Subsystem == "syscalls"
	if !args {
		return ctx
	}
	switch pt.Kind {
	case hook.Tracepoint:
		f, err := c.target.Format(pt.Subsystem, pt.Event)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		ctx.Format = f
		space := KernelSpace
		if ctx.Syscall {
			space = UserSpace
		}
		ctx.Args = &Type{Kind: Args, Size: f.Size(), Space: CtxSpace}
		for _, field := range f.Fields {
			if ctx.Syscall && field.Common {
				continue
			}
			ft, err := target.FieldType(c.target, field)
			if err != nil {
				ctx.ArgsErr = err
				continue
			}
			typ := fromBTF(ft, space, false)
			if field.IsString() {
				typ = stringType(c.res.Config.MaxStrlen)
				if field.Kind == target.FieldString {
					typ = stringType(field.Len)
				}
			} else if typ.Kind == Struct || typ.Kind == Array {
				own := *typ
				own.Space = CtxSpace
				typ = &own
			}
			ctx.Args.Fields = append(ctx.Args.Fields, Field{
				Name: field.Name, Type: typ, Offset: field.Offset,
				Arg: &Arg{Field: &field, Type: ft, Index: (field.Offset - 16) / 8},
			})
		}
	case hook.RawTracepoint:
		rt, err := c.target.RawTracepoint(pt.Event)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		ctx.Args = paramArgs(rt.Args, BTFSpace)
	case hook.Kprobe, hook.Fentry, hook.Fexit:
		fn, err := c.function(pt)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		space := KernelSpace
		if pt.Kind != hook.Kprobe {
			space = BTFSpace
		}
		proto, ok := fn.Type.(*btf.FuncProto)
		if !ok {
			return ctx
		}
		ctx.Args = paramArgs(proto.Params, space)
		if pt.Kind == hook.Fexit {
			if _, void := btf.UnderlyingType(proto.Return).(*btf.Void); !void {
				ctx.Retval = fromBTF(proto.Return, KernelSpace, false)
				ctx.Args.Fields = append(ctx.Args.Fields, Field{
					Name: "$retval", Type: ctx.Retval, Arg: &Arg{Index: len(proto.Params), Exit: true},
				})
			}
		}
	}
	return ctx
}

func (c *checker) function(pt Point) (*btf.Func, error) {
	types, err := c.target.Types()
	if err != nil {
		return nil, err
	}
	return types.Func(pt.Func)
}

func paramArgs(params []btf.FuncParam, space Space) *Type {
	t := &Type{Kind: Args, Space: CtxSpace, Size: 8 * len(params)}
	for i, p := range params {
		typ := fromBTF(p.Type, space, false)
		t.Fields = append(t.Fields, Field{Name: p.Name, Type: typ, Offset: 8 * i, Arg: &Arg{Index: i, Type: p.Type}})
	}
	return t
}
