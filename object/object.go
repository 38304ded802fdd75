package object

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/source"
)

// An Object is everything that goes into one ELF file.
type Object struct {
	// Arch is the architecture the programs were made for, as GOARCH has it.
	// It decides the byte order.
	Arch    string
	License string
	Funcs   []*Func
	Maps    []*Map
	Vars    []*Var
	Externs []*Extern
	// Manifest is nil for objects that were not made by skep.
	Manifest *Manifest
}

// A Func is one function: a program, or a subprogram.
type Func struct {
	Name string
	// Section is the section of a program, e.g. "tp_btf/sched_switch".
	// It is empty for subprograms, which live in .text.
	Section string
	// Global subprograms are verified once by their signature; static ones
	// with each call.
	Global bool
	// Insns are the instructions; jumps are by relative offset in slots, and
	// what a Reloc or CORE record names is filled in by the loader.
	Insns  []isa.Instruction
	Relocs []Reloc
	CORE   []CORE
	Lines  []Line
	// Type is the signature.
	Type *btf.Func
}

// RelocKind says what a Reloc refers to.
type RelocKind uint8

// The kinds of relocation.
const (
	RelocMap      RelocKind = iota // lddw of a map: Symbol is a *Map
	RelocVar                       // lddw of a variable's address: Symbol is a *Var
	RelocCall                      // call of a subprogram: Symbol is a *Func
	RelocFuncAddr                  // lddw of a subprogram's address: Symbol is a *Func
	RelocExtern                    // lddw or call of a ksym, kfunc or kconfig value: Symbol is an *Extern
)

// A Reloc is a reference from an instruction to a symbol.
type Reloc struct {
	Insn   int // index into Insns
	Kind   RelocKind
	Symbol any
}

// A CORE is a CO-RE relocation (struct bpf_core_relo, include/uapi/linux/bpf.h).
type CORE struct {
	Insn int // index into Insns
	Kind uint32
	Type btf.Type
	// Access is the path, e.g. "0:1:2" for the field kinds, "3" for the
	// enumerator kinds and "0" for the type kinds.
	Access string
}

// A Line says where the instructions from Insn on come from.
type Line struct {
	Insn int
	Span source.Span
}

// A Map is a BPF map definition in section .maps.
type Map struct {
	Name       string
	Type       uint32 // enum bpf_map_type
	Key, Value btf.Type
	KeySize    uint32 // bytes
	ValueSize  uint32 // bytes
	MaxEntries uint32
	Flags      uint32 // BPF_F_*
	Inner      *Map   // of a map of maps
	Pinned     bool   // LIBBPF_PIN_BY_NAME
}

// A Var is a global variable. Type gives its size unless Init does.
type Var struct {
	Name    string
	Section string // .rodata, .data, .bss, or one of these with a suffix
	Type    btf.Type
	Init    []byte // empty means zeros
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
