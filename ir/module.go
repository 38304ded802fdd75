package ir

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

// A Module is what becomes one object: functions, maps, variables.
type Module struct {
	Name    string
	License string // as declared to the kernel, e.g. "GPL"

	Funcs   []*Func
	Maps    []*Map
	Globals []*Global
	Externs []*Extern
}

// A Map is a BPF map definition.
type Map struct {
	Name       string
	Type       uint32   // enum bpf_map_type
	Key        btf.Type // nil when the map has no keys (ring buffer, queue, ...)
	Value      btf.Type // nil when the map has no values of a type
	KeySize    uint32   // bytes
	ValueSize  uint32   // bytes
	MaxEntries uint32
	Flags      uint32 // BPF_F_*
	Inner      *Map   // for maps of maps
	Pinned     bool   // LIBBPF_PIN_BY_NAME
	Pos        source.Span
}

// A Global is a variable in a data section.
type Global struct {
	Name    string
	Section string   // .rodata, .data, .bss or one of these with a suffix
	Type    btf.Type // its size is that of Init where Init is not empty
	Init    []byte   // initial bytes; empty means zeros
	// Volatile marks read-only data that the loader may change before the
	// program is loaded: it must not be folded into code.
	Volatile bool
	Pos      source.Span
}

// ExternKind says what an Extern is.
type ExternKind uint8

// The kinds of things outside a module.
const (
	ExternHelper  ExternKind = iota // a helper, by number
	ExternKfunc                     // a kernel function callable from BPF, by name
	ExternKsym                      // the address of a kernel symbol
	ExternKconfig                   // a value of the kernel's configuration, LINUX_* virtual ones too
)

var externNames = [...]string{"helper", "kfunc", "ksym", "kconfig"}

func (k ExternKind) String() string { return externNames[k] }

// An Extern is something that the kernel provides.
type Extern struct {
	Kind   ExternKind
	Name   string
	ID     int32    // of a helper
	Params []Type   // of functions, for checking; nil accepts any
	Result Type     // of functions
	Type   btf.Type // of variables; the *btf.Func of a kfunc
	Weak   bool     // may be missing on the target
	Effect Effects  // of functions
}

// Linkage says who may call a function and how it is verified.
type Linkage uint8

// The linkages.
const (
	// Program is an entry point that the kernel runs.
	Program Linkage = iota
	// Static is a subprogram that is verified in the context of each call.
	Static
	// GlobalSub is a subprogram that is verified once, by its signature alone.
	GlobalSub
)

var linkageNames = [...]string{"program", "static", "global"}

func (l Linkage) String() string { return linkageNames[l] }

// A Func is a function with a body.
type Func struct {
	Name    string
	Linkage Linkage
	// Section is the ELF section of a Program, which tells loaders its type
	// and attach point, e.g. "tp_btf/sched_switch".
	Section string
	Result  Type
	// Proto describes the signature in BTF; when nil it is derived from the
	// types of the parameters.
	Proto *btf.FuncProto
	// Blocks[0] is the entry; its parameters are those of the function.
	Blocks []*Block
	Module *Module
	Pos    source.Span

	nextValue int32
	nextBlock int32
}

// Entry returns the entry block.
func (f *Func) Entry() *Block { return f.Blocks[0] }

// Params returns the parameters of the function.
func (f *Func) Params() []*Value { return f.Blocks[0].Params }

// NumValues is larger than the ID of every value of f.
func (f *Func) NumValues() int { return int(f.nextValue) }

// NumBlocks is larger than the ID of every block of f.
func (f *Func) NumBlocks() int { return int(f.nextBlock) }

// A Block is a sequence of values that ends by a terminator.
type Block struct {
	ID     int32
	Name   string // a hint for people, e.g. "loop.head"; may be empty
	Func   *Func
	Params []*Value // Op is OpParam
	Values []*Value

	Term Term
	// Cond is the I1 value of a TermIf, or the result of a TermReturn
	// (nil when the function returns nothing).
	Cond *Value
	// Succs are the targets: none, one (TermJump), or then and else (TermIf).
	Succs []Edge
	// Likely tells the layout which successor of a TermIf to favour.
	Likely Likely
	Pos    source.Span // of the terminator
}

// An Edge leads to a block, with one argument for each of its parameters.
type Edge struct {
	To   *Block
	Args []*Value
}

// Term is the kind of a block's terminator.
type Term uint8

// The terminators.
const (
	TermNone        Term = iota // the block is not finished
	TermJump                    // to Succs[0]
	TermIf                      // to Succs[0] when Cond is 1, else to Succs[1]
	TermReturn                  // returns Cond
	TermUnreachable             // control never comes here
)

var termNames = [...]string{"none", "jump", "if", "return", "unreachable"}

func (t Term) String() string { return termNames[t] }

// Likely is a guess about a TermIf.
type Likely uint8

// The guesses.
const (
	Unknown Likely = iota
	Then
	Else
)

// NewFunc adds a function with an entry block whose parameters have the given types.
func (m *Module) NewFunc(name string, linkage Linkage, params []Type, result Type) *Func {
	f := &Func{Name: name, Linkage: linkage, Result: result, Module: m}
	entry := f.NewBlock("entry")
	for _, t := range params {
		entry.NewParam(t, "")
	}
	m.Funcs = append(m.Funcs, f)
	return f
}

// Helper returns the module's declaration of a helper, adding it if need be.
func (m *Module) Helper(h Extern) *Extern {
	for _, e := range m.Externs {
		if e.Kind == h.Kind && e.Name == h.Name && e.ID == h.ID {
			return e
		}
	}
	e := &h
	m.Externs = append(m.Externs, e)
	return e
}

// NewBlock appends an empty block to f.
func (f *Func) NewBlock(name string) *Block {
	b := &Block{ID: f.nextBlock, Name: name, Func: f}
	f.nextBlock++
	f.Blocks = append(f.Blocks, b)
	return b
}

// NewParam appends a parameter to b. Edges to b need an argument more.
func (b *Block) NewParam(t Type, name string) *Value {
	v := b.Func.newValue(OpParam, t)
	v.Block = b
	v.Name = name
	b.Params = append(b.Params, v)
	return v
}

func (f *Func) newValue(op Op, t Type) *Value {
	v := &Value{ID: f.nextValue, Op: op, Type: t}
	f.nextValue++
	return v
}

// NewValue makes a value that is not yet in any block, for passes.
func (f *Func) NewValue(op Op, t Type, pos source.Span, args ...*Value) *Value {
	v := f.newValue(op, t)
	v.Pos = pos
	v.Args = args
	return v
}
