package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Kind is the kind of a Type.
type Kind uint8

// The kinds of types of the language.
const (
	Invalid Kind = iota // after an error; fits everything, so that one mistake gives one message
	None                // no value: statements' calls
	Bool
	Int     // Size 1, 2, 4, 8; an enum when BTF is one
	Pointer // Elem, nil for void
	String  // Size bytes including the terminating zero
	Buffer  // Size bytes after a u32 length
	Inet
	MAC
	Username
	Ksym
	Usym
	Kstack
	Ustack
	Timestamp
	Cgroup
	Errno
	Signal
	Syscall
	ProbeName
	Array  // Len of Elem
	Struct // BTF is a *btf.Struct or *btf.Union; always by reference
	Args   // the arguments of the probe: Fields
	Tuple  // Fields without names
	Record // Fields with names
	Agg    // what count(), hist() and so on give: only for maps
	Mode   // a bare word that only steers a call: a stack mode, a clock
)

// Space says through which address space a pointer reads, or where a value
// that is held by reference lies.
type Space uint8

// The spaces.
const (
	NoSpace     Space = iota
	KernelSpace       // by bpf_probe_read_kernel
	UserSpace         // by bpf_probe_read_user
	BTFSpace          // a kernel object the verifier knows: read directly
	CtxSpace          // the program's context
	OwnSpace          // memory of the program: a variable, a map's value
	AnySpace          // an address that may be either: the sign bit decides
)

func (s Space) String() string {
	return [...]string{"", "kernel", "user", "btf", "ctx", "own", "any"}[s]
}

// A Type is the type of an expression. Types are immutable and shared.
type Type struct {
	Kind   Kind
	Size   int // bytes in memory
	Signed bool
	Elem   *Type
	Len    int
	Space  Space
	// BTF is the struct or union of a Struct, or the enum of an Int.
	BTF btf.Type
	// Local is set when a Struct's layout is the script's or a user binary's
	// and not the kernel's, so that it is not relocated.
	Local  bool
	Fields []Field
	// Agg says which of the aggregations, and Mode how a stack or time is shown.
	Agg  AggKind
	Mode string
	// Params are the constants of an aggregation: k of hist(n, k); min, max
	// and step of lhist.
	Params []int64
	// Literal marks the type of an integer constant: the smallest that holds it.
	Literal bool
}

// A Field is a member of a Tuple, a Record or of the arguments of a probe.
type Field struct {
	Name   string
	Type   *Type
	Offset int // bytes; in Args see Arg
	Arg    *Arg
}

// AggKind is an aggregation.
type AggKind uint8

// The aggregations.
const (
	NoAgg AggKind = iota
	Count
	Sum
	Min
	Max
	Avg
	Stats
	Hist
	Lhist
	Tseries
)

func (a AggKind) String() string {
	return [...]string{"", "count", "sum", "min", "max", "avg", "stats", "hist", "lhist", "tseries"}[a]
}

// The types that need no parameters.
var (
	tInvalid  = &Type{Kind: Invalid, Size: 8}
	tNone     = &Type{Kind: None}
	tBool     = &Type{Kind: Bool, Size: 1}
	tInt8     = &Type{Kind: Int, Size: 1, Signed: true}
	tInt16    = &Type{Kind: Int, Size: 2, Signed: true}
	tInt32    = &Type{Kind: Int, Size: 4, Signed: true}
	tInt64    = &Type{Kind: Int, Size: 8, Signed: true}
	tUint8    = &Type{Kind: Int, Size: 1}
	tUint16   = &Type{Kind: Int, Size: 2}
	tUint32   = &Type{Kind: Int, Size: 4}
	tUint64   = &Type{Kind: Int, Size: 8}
	tInet     = &Type{Kind: Inet, Size: 24}
	tMAC      = &Type{Kind: MAC, Size: 6}
	tUsername = &Type{Kind: Username, Size: 8}
	tKsym     = &Type{Kind: Ksym, Size: 8}
	tUsym     = &Type{Kind: Usym, Size: 16}
	tUfunc    = &Type{Kind: Usym, Size: 16, Mode: "func"} // func at uprobes
	tCgroup   = &Type{Kind: Cgroup, Size: 16}
	tErrno    = &Type{Kind: Errno, Size: 8}
	tSignal   = &Type{Kind: Signal, Size: 8}
	tSyscall  = &Type{Kind: Syscall, Size: 8}
	tProbe    = &Type{Kind: ProbeName, Size: 8}
	tVoidPtr  = &Type{Kind: Pointer, Size: 8, Space: AnySpace}
)

func intType(size int, signed bool) *Type {
	switch size {
	case 1:
		if signed {
			return tInt8
		}
		return tUint8
	case 2:
		if signed {
			return tInt16
		}
		return tUint16
	case 4:
		if signed {
			return tInt32
		}
		return tUint32
	}
	if signed {
		return tInt64
	}
	return tUint64
}

// literalType is the smallest type that holds n, which is an unsigned one
// unless n is negative.
func literalType(n int64, unsigned bool) *Type {
	size := 8
	signed := n < 0 && !unsigned
	for _, s := range []int{1, 2, 4} {
		bits := 8 * s
		if signed && n >= -1<<(bits-1) || !signed && uint64(n)>>bits == 0 {
			size = s
			break
		}
	}
	return &Type{Kind: Int, Size: size, Signed: signed, Literal: true}
}

// stringType is a string of up to size-1 bytes.
func stringType(size int) *Type { return &Type{Kind: String, Size: size} }

// stackSize is the size of a stored stack; see object.StackSize.
const stackSize = 16

func (t *Type) isInt() bool { return t.Kind == Int || t.Kind == Bool }

// IsScalar reports whether values of t fit a register.
func (t *Type) IsScalar() bool {
	switch t.Kind {
	case Bool, Int, Pointer, Username, Ksym, Errno, Signal, Syscall, ProbeName, Invalid:
		return true
	}
	return false
}

// IsEnum reports whether t is an integer with names for its values.
func (t *Type) IsEnum() bool { _, ok := t.BTF.(*btf.Enum); return ok && t.Kind == Int }

// Align is the alignment of t in bytes.
func (t *Type) Align() int {
	switch t.Kind {
	case String, MAC:
		return 1
	case Buffer:
		return 4
	case Array:
		return t.Elem.Align()
	case Tuple, Record:
		a := 1
		for _, f := range t.Fields {
			a = max(a, f.Type.Align())
		}
		return a
	case Bool, Int:
		return t.Size
	}
	return 8
}

// String is the type as scripts write it.
func (t *Type) String() string {
	switch t.Kind {
	case Invalid:
		return "an unknown type"
	case None:
		return "no value"
	case Bool:
		return "bool"
	case Int:
		if e, ok := t.BTF.(*btf.Enum); ok && e.Name != "" {
			return "enum " + e.Name
		}
		if t.Signed {
			return fmt.Sprintf("int%d", t.Size*8)
		}
		return fmt.Sprintf("uint%d", t.Size*8)
	case Pointer:
		if t.Elem == nil {
			return "void *"
		}
		return t.Elem.String() + " *"
	case String:
		return fmt.Sprintf("string[%d]", t.Size)
	case Buffer:
		return fmt.Sprintf("buffer[%d]", t.Size-4)
	case Array:
		return fmt.Sprintf("%s[%d]", t.Elem, t.Len)
	case Struct:
		return structName(t.BTF)
	case Args:
		return "args"
	case Tuple, Record:
		var b strings.Builder
		b.WriteByte('(')
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			if t.Kind == Record {
				b.WriteString(f.Name + "=")
			}
			b.WriteString(f.Type.String())
		}
		b.WriteByte(')')
		return b.String()
	case Agg:
		return t.Agg.String() + "()"
	}
	return kindNames[t.Kind]
}

var kindNames = map[Kind]string{
	Inet: "inet", MAC: "macaddr", Username: "username", Ksym: "ksym", Usym: "usym",
	Kstack: "kstack", Ustack: "ustack", Timestamp: "timestamp", Cgroup: "cgroup_path",
	Errno: "strerror", Signal: "signal_name", Syscall: "syscall_name", ProbeName: "probe", Mode: "mode",
}

// StructName is the name of a struct, union or enum with its keyword.
func StructName(t btf.Type) string { return structName(t) }

func structName(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Fwd:
		if t.Kind == btf.FwdUnion {
			return "union " + t.Name
		}
		return "struct " + t.Name
	case *btf.Struct:
		if t.Name == "" {
			return "struct"
		}
		return "struct " + t.Name
	case *btf.Union:
		if t.Name == "" {
			return "union"
		}
		return "union " + t.Name
	}
	return "struct"
}

// same reports whether a and b are one type, up to where values are held.
func same(a, b *Type) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.Kind != b.Kind || a.Size != b.Size || a.Signed != b.Signed || a.Len != b.Len ||
		a.Agg != b.Agg || a.Mode != b.Mode || !slices.Equal(a.Params, b.Params) {
		return false
	}
	if a.Kind == Pointer && a.Space != b.Space {
		return false
	}
	if a.Kind == Struct && structName(a.BTF) != structName(b.BTF) {
		return false
	}
	if (a.Elem == nil) != (b.Elem == nil) || a.Elem != nil && !samePointee(a.Elem, b.Elem) {
		return false
	}
	return slices.EqualFunc(a.Fields, b.Fields, func(x, y Field) bool {
		return x.Name == y.Name && x.Offset == y.Offset && same(x.Type, y.Type)
	})
}

// SameLayout reports whether values of a and b lie in memory alike.
func SameLayout(a, b *Type) bool {
	if a.Kind != b.Kind || a.Size != b.Size {
		return false
	}
	return slices.EqualFunc(a.Fields, b.Fields, func(x, y Field) bool {
		return x.Offset == y.Offset && SameLayout(x.Type, y.Type)
	})
}

// Join returns a type that holds values of both a and b, or nil when there is
// none.
func Join(a, b *Type) *Type { return join(a, b) }

// samePointee is same without following pointers, which may be cyclic.
func samePointee(a, b *Type) bool {
	if a.Kind != b.Kind || a.Size != b.Size || a.Signed != b.Signed {
		return false
	}
	if a.Kind == Struct {
		return structName(a.BTF) == structName(b.BTF)
	}
	return a.Kind != Pointer || (a.Elem == nil) == (b.Elem == nil)
}

// layout places fields one after the other by their alignment and returns the
// size of the whole.
func layout(fields []Field) int {
	offset, align := 0, 1
	for i := range fields {
		a := fields[i].Type.Align()
		align = max(align, a)
		offset = (offset + a - 1) / a * a
		fields[i].Offset = offset
		offset += fields[i].Type.Size
	}
	return (offset + align - 1) / align * align
}

// stored is the type that a value of type t has in a variable or map.
func stored(t *Type) *Type {
	switch {
	case t.Kind == Int && t.Literal:
		return intType(t.Size, t.Signed)
	case t.Kind == Tuple || t.Kind == Record:
		fields := slices.Clone(t.Fields)
		for i := range fields {
			fields[i].Type = stored(fields[i].Type)
		}
		n := *t
		n.Fields = fields
		n.Size = layout(fields)
		return &n
	case t.Kind == Struct || t.Kind == Array:
		n := *t
		n.Space = OwnSpace
		return &n
	}
	return t
}

// join returns a type that holds values of both a and b, or nil when there is
// none.
func join(a, b *Type) *Type {
	switch {
	case a == nil || a.Kind == Invalid:
		return b
	case b == nil || b.Kind == Invalid, same(a, b):
		return a
	case a.isInt() && b.isInt():
		if a.Signed == b.Signed {
			if a.Size >= b.Size {
				return a
			}
			return b
		}
		// The signed one has to be wider than the unsigned one to hold both;
		// at 64 bits the sign is kept, as C programmers see it in print.
		signed, unsigned := a, b
		if b.Signed {
			signed, unsigned = b, a
		}
		return intType(min(8, max(signed.Size, 2*unsigned.Size)), true)
	case a.Kind == String && b.Kind == String, a.Kind == Buffer && b.Kind == Buffer:
		if a.Size >= b.Size {
			return a
		}
		return b
	case a.Kind == Pointer && b.Kind == Pointer:
		j := &Type{Kind: Pointer, Size: 8, Space: max(a.Space, b.Space)}
		if x, y := a.Elem, b.Elem; x != nil && y != nil && x.Kind == Int && y.Kind == Int && x.Size == y.Size {
			// Of a map's value, whose sign may change from round to round.
			j.Elem = intType(x.Size, x.Signed || y.Signed)
		}
		return j
	case a.Kind == Pointer && b.isInt(), a.isInt() && b.Kind == Pointer:
		// Null and addresses as numbers.
		if a.Kind == Pointer {
			return a
		}
		return b
	case a.Kind == b.Kind && (a.Kind == Tuple || a.Kind == Record) && len(a.Fields) == len(b.Fields):
		fields := make([]Field, len(a.Fields))
		for i := range fields {
			t := join(a.Fields[i].Type, b.Fields[i].Type)
			if t == nil || a.Fields[i].Name != b.Fields[i].Name {
				return nil
			}
			fields[i] = Field{Name: a.Fields[i].Name, Type: t}
		}
		n := *a
		n.Fields = fields
		n.Size = layout(fields)
		return &n
	case a.Kind == Usym && b.Kind == Usym:
		return tUsym
	case a.Kind == Ksym && b.Kind == Int, a.Kind == Int && b.Kind == Ksym:
		return nil
	}
	return nil
}
