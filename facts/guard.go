package facts

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// GuardName is the program that [Guard] makes.
const GuardName = "skep_guard"

// corePoison is the helper that libbpf and the kernel put where a CO-RE
// relocation has no answer. There is none of that number.
const corePoison = 0xbad2310

// A check compares a number that a loader fills in by CO-RE with the one that
// the object was compiled for.
type check struct {
	kind   object.COREKind
	typ    btf.Type
	access string
	want   int64
}

// Guard returns a program that no kernel loads on which the fields that an
// object reads, or types that it relies on, are others than where it was
// compiled, and with it no loader the object: CO-RE finds a field, but its size
// and sign are in the code. It is attached to nothing. types are those that the
// object was compiled for. The facts that it does not see to come back, and the
// program is nil when it has nothing to see to. Without types (nil) it sees to
// fields only.
func Guard(types target.Target, o *object.Object) (*object.Func, []object.Fact) {
	var checks []check
	var open []object.Fact
	for _, f := range o.Funcs {
		for _, c := range f.CORE {
			switch c.Kind {
			case object.COREFieldOffset, object.COREFieldLShift:
				list, err := readChecks(c)
				if err != nil {
					name, names, _ := fieldPath(c)
					open = append(open, object.Fact{Kind: object.FactLayout, Name: name + "." + strings.Join(names, ".") + "[]"})
				}
				checks = append(checks, list...)
			}
		}
	}
	for _, f := range o.Manifest.Facts {
		list, err := factChecks(types, f)
		if err != nil {
			open = append(open, f)
			continue
		}
		checks = append(checks, list...)
	}
	if len(checks) == 0 {
		return nil, open
	}
	g := &object.Func{Name: GuardName, Section: "socket"}
	seen := map[string]bool{}
	for _, c := range checks {
		key := fmt.Sprint(c.kind, " ", typeName(c.typ), " ", c.access)
		if seen[key] {
			continue
		}
		seen[key] = true
		g.CORE = append(g.CORE, object.CORE{Insn: len(g.Insns), Kind: c.kind, Type: c.typ, Access: c.access})
		g.Insns = append(g.Insns,
			isa.Mov64Imm(isa.R1, int32(c.want)),
			isa.JumpIfImm(isa.Eq, isa.R1, int32(c.want), 1),
			isa.Call(corePoison))
	}
	g.Insns = append(g.Insns, isa.Mov64Imm(isa.R0, 0), isa.Exit())
	return g, open
}

// readChecks are what code that reads a field relies on. The error says that it
// is not all of it: CO-RE knows the size of an array's elements, but not their sign
// (bpf_core_calc_field_relo in tools/lib/bpf/relo_core.c).
func readChecks(c object.CORE) ([]check, error) {
	name, _, leaf := fieldPath(c)
	if name == "" || leaf == nil {
		return nil, nil
	}
	access, element := c.Access, false
	for readShape(leaf) != shape(leaf) {
		// Of an array that is no text the elements count, not how many there are.
		a, ok := btf.UnderlyingType(leaf).(*btf.Array)
		if !ok {
			return nil, nil
		}
		access, leaf, element = access+":0", a.Type, true
	}
	list := shapeChecks(c.Type, access, leaf, shape(leaf) != "")
	if !element {
		return list, nil
	}
	sized := slices.DeleteFunc(slices.Clone(list), func(c check) bool { return c.kind == object.COREFieldSigned })
	if len(sized) < len(list) {
		return sized, errNoGuard
	}
	return sized, nil
}

// shapeChecks compare the sign of a number, and the size of a field where it counts.
func shapeChecks(root btf.Type, access string, leaf btf.Type, size bool) []check {
	var out []check
	if size {
		out = append(out, check{object.COREFieldSize, root, access, int64(sizeOf(leaf))})
	}
	switch t := btf.UnderlyingType(leaf).(type) {
	case *btf.Int:
		if t.Name != "char" {
			out = append(out, check{object.COREFieldSigned, root, access, boolean(t.Encoding == btf.Signed)})
		}
	case *btf.Enum:
		out = append(out, check{object.COREFieldSigned, root, access, boolean(t.Signed)})
	}
	return out
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

var errNoGuard = errors.New("CO-RE cannot tell")

// factChecks say of a fact what CO-RE can compare; the error says that it is
// not all of it.
func factChecks(t target.Target, f object.Fact) ([]check, error) {
	if t == nil || f.Kind != object.FactLayout || f.Value == Unknown {
		return nil, errNoGuard
	}
	if name, ok := strings.CutPrefix(f.Name, "enumerator "); ok {
		types, err := t.Types()
		if err != nil {
			return nil, err
		}
		e, err := types.Enumerator(name)
		if err != nil {
			return nil, err
		}
		value := int64(e.Value)
		for i, v := range e.Enum.Values {
			if v.Name == name && e.Enum.Name != "" && value >= math.MinInt32 && value <= math.MaxInt32 {
				return []check{{object.COREEnumValue, e.Enum, strconv.Itoa(i), value}}, nil
			}
		}
		return nil, errNoGuard
	}
	name, path, isMember := strings.Cut(f.Name, ".")
	typ, err := typeOf(t, name)
	if err != nil {
		return nil, err
	}
	switch typ = btf.UnderlyingType(typ); typ.(type) {
	case *btf.Struct, *btf.Union:
	default:
		return nil, errNoGuard
	}
	if !isMember {
		return []check{{object.CORETypeSize, typ, "0", int64(sizeOf(typ))}}, nil
	}
	place, ok := findPath(typ, strings.Split(path, "."))
	if !ok || place.member.BitfieldSize > 0 || shape(place.member.Type) == "" {
		return nil, errNoGuard
	}
	access, ok := accessPath(typ, strings.Split(path, "."))
	if !ok {
		return nil, errNoGuard
	}
	return append(shapeChecks(typ, access, place.member.Type, true),
		check{object.COREFieldOffset, typ, access, int64(place.offset / 8)}), nil
}

// accessPath is the path of a member of a member as CO-RE has it.
func accessPath(t btf.Type, names []string) (string, bool) {
	access := "0"
	for _, name := range names {
		path, member, ok := memberPath(t, name)
		if !ok {
			return "", false
		}
		access += path
		t = member.Type
	}
	return access, true
}

func memberPath(t btf.Type, name string) (string, btf.Member, bool) {
	for i, m := range membersOf(t) {
		if m.Name == name {
			return ":" + strconv.Itoa(i), m, true
		}
		if m.Name == "" {
			if path, found, ok := memberPath(m.Type, name); ok {
				return ":" + strconv.Itoa(i) + path, found, true
			}
		}
	}
	return "", btf.Member{}, false
}
