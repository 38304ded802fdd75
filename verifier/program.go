package verifier

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// Caps is what the loader of a program may do.
type Caps uint8

// The sets of capabilities whose rules differ.
const (
	CapsAll  Caps = iota // CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN
	CapsBPF              // CAP_BPF alone
	CapsNone             // none
)

func (c Caps) String() string { return [...]string{"all", "bpf", "none"}[c] }

// ParseCaps returns the set with a name that [Caps.String] returns.
func ParseCaps(name string) (Caps, bool) {
	for c := CapsAll; c <= CapsNone; c++ {
		if c.String() == name {
			return c, true
		}
	}
	return 0, false
}

func (c Caps) bpf() bool     { return c <= CapsBPF }
func (c Caps) perfmon() bool { return c == CapsAll }

// Config is whose rules hold.
type Config struct {
	// Kernel is the release; 0 is Linux 6.18.
	Kernel abi.Version
	Caps   Caps
	// Types is the kernel's BTF, which typed pointers and kernel functions
	// need.
	Types *btf.Spec
	// StrictAlignment refuses accesses that are not aligned
	// (BPF_F_STRICT_ALIGNMENT).
	StrictAlignment bool
	// CPUs is how many processors the machine may have; 0 is what
	// distributions build their kernels for.
	CPUs int
	// Speculation applies the rules for speculative paths whatever Caps allow.
	Speculation bool
	// Trace, where it is set, gets what was known at each instruction.
	Trace *Trace
	// Arch is the machine's architecture as GOARCH has it; empty is amd64.
	Arch string
	// limit is how many instructions are processed; 0 is the kernel's limit.
	limit int
}

// A Program is what one BPF_PROG_LOAD would be given.
type Program struct {
	Name      string
	Type      abi.ProgType
	Attach    abi.AttachType
	License   string
	Sleepable bool
	// Insns are the instructions of the program and of all functions that it
	// calls. Calls are relative, in slots; map references hold an index into
	// Maps where the kernel wants a descriptor.
	Insns []isa.Instruction
	Maps  []*Map
	// Funcs are the functions by their first slot, in order; the first one is
	// the program. It may be empty where no function has a type.
	Funcs []Func
	Lines []Line
	// Target is the kernel function, tracepoint or object type that a program
	// with BTF attaches to.
	Target *btf.Func
	// AttachTo is what follows the attach type in a section's name.
	AttachTo string
	// Kfuncs and Ksyms are the functions and variables of the kernel that calls
	// and PseudoBTFID loads refer to: -1 stands for the first.
	Kfuncs []Kfunc
	// Locals are the program's own types that its instructions name by their
	// ids in its BTF, and those that its lists and trees hold.
	Locals map[uint32]btf.Type
	Ksyms  []Ksym
}

// A Func is a function of a program.
type Func struct {
	Name   string
	Start  int // slot
	Global bool
	Type   *btf.Func // nil where it is not known
}

// A Kfunc is a function of the kernel that a program calls.
type Kfunc struct {
	Name string
	Weak bool
}

// A Ksym is a variable of the kernel.
type Ksym struct {
	Name string
	Type btf.Type
	Weak bool
}

// A Line says where the instructions from a slot on come from.
type Line struct {
	Slot int
	File string
	Row  int // from 1
	Col  int // from 1
	Text string
}

// A Map is what the verifier has to know of a map.
type Map struct {
	Name       string
	Type       abi.MapType
	KeySize    uint32 // bytes
	ValueSize  uint32 // bytes
	MaxEntries uint32
	Flags      uint32
	Extra      uint64
	Inner      *Map
	// Value is the type of values, which says where locks, timers and pointers
	// to kernel objects are in them.
	Value btf.Type
	// Frozen contents: what a read-only map holds, known when the program is
	// verified.
	Contents []byte

	fields []mapField // set by the verifier
}

// A Result is what [Verify] finds out.
type Result struct {
	Verdict Verdict
	Insns   int // instructions processed, over all paths
	States  int // states kept
	Peak    int // states kept at once
	Err     *Error
}
