package check

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// A Result is a script whose names and types are known.
type Result struct {
	Program   *syntax.Program
	Config    Config
	Maps      []*Map // in the order of their first use
	Instances []*Instance
	Funcs     []*Instance // of fn
	// Missing are attach points that were left out because they do not exist.
	Missing []Point
	// Matches are the attach points with wildcards.
	Matches []Match
	// Relied is what constants of the script were taken from.
	Relied []Reliance
	// GFPFlags are the names of page allocation flags, where they are shown.
	GFPFlags []target.Flag
}

// A Reliance is a property of the target that a constant of the script is,
// which another machine may have otherwise.
type Reliance struct {
	Kind string // the kind of fact ("layout"), and its name, as package facts has them
	Name string
	Span source.Span
}

// A Match is what an attach point with wildcards stands for.
type Match struct {
	hook.Point
	Span  source.Span
	Found []hook.Point
}

// An Instance is one probe body (or function) as it is meant at a group of
// attach points.
type Instance struct {
	Probe *syntax.Probe // nil for a function
	Func  *syntax.Func  // nil for a probe
	Pred  syntax.Expr   // nil when there is none
	Body  *syntax.Block
	// Points are the attach points, wildcards expanded, all of one kind.
	Points []Point
	Ctx    Context
	Info   Info
	// Result is the type that a function returns, nil when it returns nothing.
	Result *Type
	// Params are the variables of a function's parameters.
	Params []*Var
	// Exits is set for a function that may end the whole program.
	Exits bool
}

// A Point is an attach point with the name it has for the script.
type Point struct {
	hook.Point
	Name string      // as the builtin probe prints it
	Span source.Span // where the script says it
}

// A Context is what a probe body may use of its hook.
type Context struct {
	Kind hook.Kind
	// Args is the type of args: Kind Args, or nil when the hook has none.
	Args *Type
	// ArgsErr says why Args is nil, where that deserves a reason.
	ArgsErr error
	// Retval is the type of retval, nil when there is none.
	Retval *Type
	// Format is that of a tracepoint whose args are used.
	Format *target.Format
	// Syscall is set for system call tracepoints that are reached by the raw
	// tracepoint of all system calls.
	Syscall bool
	// Record is set for a tracepoint that a raw tracepoint must not stand in
	// for: a stack of the kernel would begin with what runs BPF programs.
	Record bool
	// Ctx is the type of the builtin ctx, nil when it is not known or not used.
	Ctx *Type
	// Kfuncs is set when the body calls functions of the kernel that are only
	// open to programs of the type "tracing".
	Kfuncs bool
	// Typed is set for a raw tracepoint whose program knows the types of its
	// arguments.
	Typed bool
	// Exit is the slot in which fexit finds what the function returned.
	Exit int
	// USDT are the places of a USDT probe whose arguments are used.
	USDT []symbol.USDTProbe
}

// An Arg tells where an argument of a probe is found.
type Arg struct {
	Index int           // of the argument, for functions and raw tracepoints
	Field *target.Field // in a tracepoint's record, when it comes from there
	Type  btf.Type      // nil when not known
}

// Info are the tables from syntax to meaning.
type Info struct {
	Types  map[syntax.Expr]*Type
	Consts map[syntax.Expr]Const
	Vars   map[*syntax.Var]*Var
	Loops  map[*syntax.For]*Loop
	Maps   map[*syntax.Map]*Map
	Fields map[syntax.Expr]*Selection
	Idents map[*syntax.Ident]*Builtin
	Calls  map[*syntax.Call]*Function
	// Funcs are the functions of the script that calls mean.
	Funcs map[*syntax.Call]*Instance
	// UserAddrs are the places that calls of uaddr are about.
	UserAddrs map[*syntax.Call]UserAddr
	// PrintedArgs are records of all members, where args is printed as a whole.
	PrintedArgs map[syntax.Expr]*syntax.Record
	// ScratchVars are all variables in the order of their declaration.
	ScratchVars []*Var
	// UsesArgs is set when the body looks at args.
	UsesArgs bool
}

// A Const is the value of a constant expression.
type Const struct {
	IsString bool
	Str      string
	Int      int64
}

// A Var is a scratch variable.
type Var struct {
	Name string
	Type *Type
	Decl source.Span
	// Declared is set when a let gave the type.
	Declared bool
	// Index tells variables of one instance apart.
	Index int
	// LoopVar is set for the variable of a for loop.
	LoopVar bool
	// earlier is set while its type is that of the round before.
	earlier bool
	// Hoisted is set when its first value was given in an inner block but it
	// is used outside: it starts as zero.
	Hoisted bool
}

// A Loop is what a for loop runs over.
type Loop struct {
	Map *Map // nil for a range
	Var *Var
}

// A Map is a map of the script.
type Map struct {
	Name string // with the @
	// Key is nil for a map without keys; a Tuple when there are several parts.
	Key   *Type
	Value *Type       // Kind Agg for aggregations
	Span  source.Span // of the first use
	// Kind and MaxEntries are what a let says, "" and 0 otherwise.
	Kind               string
	MaxEntries         int
	Writers            int // statements that write it
	keySpan, valueSpan source.Span
	noKey              bool
	earlier            bool // while its value's type is that of the round before
}

// A Selection is the member that x.name means.
type Selection struct {
	// Path are the member indices from the struct of x, through anonymous
	// members to the member itself.
	Path   []int
	Offset int // bytes, from the start of the struct
	// BitOffset and Bits place a bit-field: from the start of the struct.
	BitOffset, Bits int
	Struct          btf.Type
	Type            *Type
	// Arg is set when the member is an argument of the probe.
	Arg *Arg
	// Index is that of the field of a tuple or record.
	Index int
	// Deref is set when x is a pointer.
	Deref bool
	// Local is set when the layout is the script's own.
	Local bool
}

// A Builtin is what a bare name means.
type Builtin struct {
	Name string // canonical, e.g. "pid" for "pid"
	// N is the number in argN and sargN.
	N int
}
