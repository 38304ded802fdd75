package object

import (
	"encoding/binary"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/source"
)

// An Object is everything that goes into one ELF file.
type Object struct {
	// Arch is the architecture the programs were made for, as GOARCH has it.
	// It decides the byte order. It is empty for objects that were not made by
	// skep: clang writes one object for every machine of a byte order.
	Arch string
	// Big is the byte order of an object without Arch.
	Big     bool
	License string
	Funcs   []*Func
	Maps    []*Map
	Vars    []*Var
	Externs []*Extern
	// Manifest is nil for objects that were not made by skep.
	Manifest *Manifest
	// BTF is everything in the .BTF section of an object that was read, of
	// which Funcs, Maps and the rest name only what they use. Writing ignores it.
	BTF *btf.Spec
}

// ByteOrder returns the order of bytes in instructions, data and ELF headers.
func (o *Object) ByteOrder() binary.ByteOrder { return o.byteOrder() }

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func (o *Object) byteOrder() byteOrder {
	switch o.Arch {
	case "":
		if o.Big {
			return binary.BigEndian
		}
	case "s390x", "ppc64", "ppc", "mips", "mips64", "armbe", "arm64be", "s390", "sparc64":
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// A Func is one function: a program, or a subprogram.
type Func struct {
	Name string
	// Section is the section of a program, e.g. "tp_btf/sched_switch".
	// It is empty for subprograms, which live in .text.
	Section string
	// Global subprograms are verified once by their signature, which Type must
	// then give; static ones with each call. Programs are global by nature.
	Global bool
	// Weak lets a linker choose another definition of the name.
	Weak bool
	// Insns are the instructions; jumps are by relative offset in slots, and
	// what a Reloc or CORE record names is filled in by the loader.
	Insns  []isa.Instruction
	Relocs []Reloc
	CORE   []CORE
	Lines  []Line
	// Type is the signature. Its name and linkage are not looked at. Without
	// it the function is written as int f(void *ctx), or int f(void) for a
	// static subprogram.
	Type *btf.Func
}

// RelocKind says what a Reloc refers to.
type RelocKind uint8

// The kinds of relocation, each with the form that [Read] gives to its
// instruction. Of that form writing looks at the opcode, the destination and
// the offset into a variable only.
const (
	// RelocMap is lddw of a map; Symbol is a *Map.
	// The instruction is isa.LoadMapFD(dst, 0).
	RelocMap RelocKind = iota
	// RelocVar is lddw of an address in a variable; Symbol is a *Var.
	// The instruction is isa.LoadMapValue(dst, 0, offset into the variable), or
	// isa.LoadImm64(dst, offset).
	RelocVar
	// RelocCall is a call of a subprogram; Symbol is a *Func.
	// The instruction is isa.CallLocal(0).
	RelocCall
	// RelocFuncAddr is lddw of a subprogram's address; Symbol is a *Func.
	// The instruction is isa.LoadFunc(dst, 0).
	RelocFuncAddr
	// RelocExtern is lddw of a ksym or kconfig value's address,
	// isa.LoadImm64(dst, 0), or a call of a kfunc, isa.CallKfunc(0, 0);
	// Symbol is an *Extern.
	RelocExtern
)

// A Reloc is a reference from an instruction to a symbol. There is at most one
// for an instruction.
type Reloc struct {
	Insn   int // index into Insns
	Kind   RelocKind
	Symbol any
}

// COREKind says what a CORE relocation puts into its instruction (enum
// bpf_core_relo_kind, include/uapi/linux/bpf.h).
type COREKind uint32

// The kinds of CO-RE relocations.
const (
	COREFieldOffset COREKind = iota // bytes from the start of Type
	COREFieldSize                   // bytes
	COREFieldExists                 // 1 or 0
	COREFieldSigned                 // 1 or 0
	COREFieldLShift                 // bits, to bring a bit-field to the top of 64 bits
	COREFieldRShift                 // bits, to bring it down again
	CORETypeLocal                   // the type's identifier in the object's BTF
	CORETypeTarget                  // the type's identifier in the kernel's BTF
	CORETypeExists                  // 1 or 0
	CORETypeSize                    // bytes
	COREEnumExists                  // 1 or 0
	COREEnumValue
	CORETypeMatches // 1 or 0; Linux 6.0
)

// A CORE is a CO-RE relocation (struct bpf_core_relo, include/uapi/linux/bpf.h).
// The instruction holds the value that is right for Type as it stands here:
// loaders check that before they change it. There is at most one for an
// instruction.
type CORE struct {
	Insn int // index into Insns
	Kind COREKind
	Type btf.Type
	// Access is the path, e.g. "0:1:2" for the field kinds, "3" for the
	// enumerator kinds and "0" for the type kinds.
	Access string
}

// A Line says where the instructions from Insn on come from.
type Line struct {
	Insn int
	Span source.Span
	// Place is used where Span is not valid: for objects that were read and
	// whose source the manifest does not hold.
	Place Place
}

// A Place is a line of a source as .BTF.ext keeps it.
type Place struct {
	File string
	Row  int // from 1; 0 is unknown
	Col  int // from 1; 0 is unknown
	Text string
}

// Where returns the place of l, by its span where that is valid.
func (l Line) Where() Place {
	if !l.Span.IsValid() {
		return l.Place
	}
	p := l.Span.Pos()
	return Place{File: l.Span.File.Name, Row: p.Line, Col: p.Column, Text: l.Span.File.Line(p.Line)}
}

// A Map is a BPF map definition in section .maps.
type Map struct {
	Name string
	Type uint32 // enum bpf_map_type
	// Key and Value give the sizes where they are not nil.
	Key, Value btf.Type
	KeySize    uint32 // bytes
	ValueSize  uint32 // bytes
	MaxEntries uint32
	Flags      uint32 // BPF_F_*
	Extra      uint64 // map_extra: hash functions of a bloom filter, address of an arena
	NUMANode   uint32 // with BPF_F_NUMA_NODE
	Inner      *Map   // of a map of maps; its Name does not matter
	Pinned     bool   // LIBBPF_PIN_BY_NAME
	// Values are what a map of maps, or a program array, is filled with before
	// the programs run: each a *Map, a *Func or nil, by index.
	Values []any
}

// Sizes returns the bytes of a key and of a value.
func (m *Map) Sizes() (key, value int) {
	size := func(t btf.Type, n uint32) int {
		if t == nil {
			return int(n)
		}
		size, err := btf.Sizeof(t)
		if err != nil {
			return int(n)
		}
		return size
	}
	if m.hasValues() {
		return size(m.Key, m.KeySize), 4
	}
	return size(m.Key, m.KeySize), size(m.Value, m.ValueSize)
}

// A Var is a global variable. Type gives its size unless Init does.
type Var struct {
	Name string
	// Section is .bss, .rodata or .data, the latter two with a suffix if need
	// be, or .struct_ops or .struct_ops.link.
	Section string
	Type    btf.Type
	Init    []byte // empty means zeros
	// Align is the alignment in bytes, a power of two up to 8; 0 is that of
	// Type, or what a scalar of that size has.
	Align int
	// Static variables are not shown to users of the object. A constant that a
	// compiler put aside is one, without a Type.
	Static bool
	// Pointers are what a struct_ops variable is filled with.
	Pointers []Pointer
}

// A Pointer is a place in a variable that refers to a function.
type Pointer struct {
	Offset int // bytes
	Func   *Func
}

func (v *Var) alignment(c *typeCopier) int {
	switch {
	case v.Align > 0:
		return v.Align
	case v.Type != nil:
		return c.alignOf(v.Type)
	}
	return alignFor(v.Size())
}

// Size returns the variable's size in bytes, or 0 if it cannot be told.
func (v *Var) Size() int {
	if len(v.Init) > 0 || v.Type == nil {
		return len(v.Init)
	}
	n, err := btf.Sizeof(v.Type)
	if err != nil {
		return 0
	}
	return n
}

// ExternKind says what an Extern is.
type ExternKind uint8

// The kinds of externs.
const (
	ExternKsym    ExternKind = iota // a symbol of the kernel, section .ksyms
	ExternKfunc                     // a kernel function, section .ksyms; Type is its *btf.Func
	ExternKconfig                   // a configuration value, section .kconfig
)

// An Extern is a thing that the kernel provides by name.
type Extern struct {
	Kind ExternKind
	Name string
	Type btf.Type // of a kconfig value or typed ksym; nil for an untyped ksym
	Weak bool
}
