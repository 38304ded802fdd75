package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// summarisedEnums are the kernel's own lists of what it knows.
var summarisedEnums = []string{
	"bpf_func_id", "bpf_prog_type", "bpf_attach_type", "bpf_map_type", "bpf_link_type",
}

// summariseBTF adds the enums and the prototypes of functions that are tagged as
// callable by programs. Kernels without tags get the functions of that name
// which others have; names is nil for none.
func summariseBTF(path string, names map[string]bool, out *records) error {
	spec, err := btf.LoadSpec(path)
	if err != nil {
		return err
	}
	for _, name := range summarisedEnums {
		var e *btf.Enum
		if err := spec.TypeByName(name, &e); err != nil {
			return fmt.Errorf("enum %s: %w", name, err)
		}
		seen := map[uint64]bool{}
		for _, v := range e.Values {
			// Kept names of renamed values follow the new ones.
			if !strings.HasPrefix(v.Name, "__") && !seen[v.Value] {
				out.add("enum", name, v.Name, v.Value)
			}
			seen[v.Value] = true
		}
	}
	funcs := map[string]string{}
	for typ, err := range spec.All() {
		if err != nil {
			return err
		}
		f, ok := typ.(*btf.Func)
		if !ok {
			continue
		}
		tagged := names[f.Name]
		for _, tag := range f.Tags {
			tagged = tagged || tag == "bpf_kfunc"
		}
		if tagged {
			funcs[f.Name] = functionText(f)
		}
	}
	for _, name := range sortedKeys(funcs) {
		out.add("func", name, funcs[name])
	}
	return nil
}

func functionText(f *btf.Func) string {
	p, ok := f.Type.(*btf.FuncProto)
	if !ok {
		return f.Name + "()"
	}
	var params []string
	for _, a := range p.Params {
		params = append(params, declare(a.Type, a.Name))
	}
	if len(params) == 0 {
		params = []string{"void"}
	}
	return declare(p.Return, f.Name+"("+strings.Join(params, ", ")+")")
}

// declare returns the C declaration of a name with a type.
func declare(t btf.Type, name string) string {
	switch t := t.(type) {
	case nil:
		return "..."
	case *btf.Pointer:
		switch to := t.Target.(type) {
		case *btf.FuncProto:
			var params []string
			for _, a := range to.Params {
				params = append(params, declare(a.Type, a.Name))
			}
			return declare(to.Return, "(*"+name+")("+strings.Join(params, ", ")+")")
		case *btf.Const:
			return declare(to, "*"+name)
		}
		return declare(t.Target, "*"+name)
	case *btf.Const:
		return "const " + declare(t.Type, name)
	case *btf.Volatile:
		return "volatile " + declare(t.Type, name)
	case *btf.Restrict:
		return declare(t.Type, name)
	case *btf.TypeTag:
		return declare(t.Type, name)
	case *btf.Array:
		return declare(t.Type, fmt.Sprintf("%s[%d]", name, t.Nelems))
	case *btf.Void:
		return strings.TrimSpace("void " + name)
	case *btf.Struct:
		return strings.TrimSpace("struct " + t.Name + " " + name)
	case *btf.Union:
		return strings.TrimSpace("union " + t.Name + " " + name)
	case *btf.Enum:
		return strings.TrimSpace("enum " + t.Name + " " + name)
	case *btf.Fwd:
		return strings.TrimSpace(t.Kind.String() + " " + t.Name + " " + name)
	default:
		return strings.TrimSpace(t.TypeName() + " " + name)
	}
}

// kfuncNames returns the functions that summaries name.
func kfuncNames(paths []string) (map[string]bool, error) {
	names := map[string]bool{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Split(line, "\t"); f[0] == "kfunc" || f[0] == "func" {
				names[f[1]] = true
			}
		}
	}
	return names, nil
}
