package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/vm/engine"
)

// A Program is a linked program of a vm. Its methods may be called from several
// goroutines.
type Program struct {
	vm       *VM
	name     string
	typ      abi.ProgType
	attach   abi.AttachType
	kind     *progKind
	section  string
	attachTo string
	id       uint32

	linked *engine.Program
	code   engine.Code
	calls  []engine.Call
	hosts  []helperFunc // what calls lead to
	maps   []*Map
	pace   pace

	mu     sync.Mutex
	refs   int // of the host, of program arrays and of hooks
	closed atomic.Bool
}

// Name returns the program's name.
func (p *Program) Name() string { return p.name }

// Type returns the program's type.
func (p *Program) Type() abi.ProgType { return p.typ }

// AttachType returns the program's expected attach type.
func (p *Program) AttachType() abi.AttachType { return p.attach }

// Section returns the name of the section of the object that the program comes
// from.
func (p *Program) Section() string { return p.section }

// Instructions is the length of the linked program.
func (p *Program) Instructions() int { return len(p.linked.Insns) }

func (p *Program) String() string { return fmt.Sprintf("%s(%s)", p.typ, p.name) }

func (p *Program) hold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refs == 0 {
		return false
	}
	p.refs++
	return true
}

// Close gives the program up. Runs of it end undisturbed; what it takes is freed
// after the last, and when no program array has it any more.
func (p *Program) Close() error {
	p.mu.Lock()
	p.refs--
	last := p.refs == 0
	p.mu.Unlock()
	if last {
		p.closed.Store(true)
		p.vm.removeProgram(p)
		p.vm.afterRuns(func() {
			_ = p.code.Close()
			p.dropMaps()
		})
	}
	return nil
}

var programIDs atomic.Uint32

func (vm *VM) addProgram(p *Program) error {
	p.id = programIDs.Add(1)
	p.pace.begin()
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.closed {
		return errors.Join(ErrClosed, p.code.Close())
	}
	vm.open[p] = true
	vm.storePrograms()
	return nil
}

func (vm *VM) removeProgram(p *Program) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	// It can be found until the last run that may be in it is over.
	vm.deferDo(func() {
		vm.mu.Lock()
		defer vm.mu.Unlock()
		delete(vm.open, p)
		vm.storePrograms()
	})
}

// storePrograms publishes the index of programs by their code.
func (vm *VM) storePrograms() {
	index := make(map[engine.Code]*Program, len(vm.open))
	for p := range vm.open {
		index[p.code] = p
	}
	vm.byCode.Store(&index)
}

// programOf returns the program that a code belongs to.
func (vm *VM) programOf(c engine.Code) *Program { return (*vm.byCode.Load())[c] }

// RunOptions are what a program is run with, as package ebpf has them.
//
// Data is the packet of programs that take one, and DataOut what becomes of it.
// Context is what the program's context points to: bytes, or a value of fixed
// size, like a struct with the fields of __sk_buff or xdp_md. For types that
// have no fixed one it is what the program will see: the arguments of a
// tracepoint, the registers of a probe. CPU chooses the virtual processor with
// the number if Flags is 1 (BPF_F_TEST_RUN_ON_CPU). Reset is not called.
type RunOptions = ebpf.RunOptions

// A Result is what a run left.
type Result struct {
	Return uint32
	// R0 is all of the register that Return is the lower half of.
	R0 uint64
	// Data and Context are as the program left them.
	Data, Context []byte
	// Redirect is where a packet was sent, if it was.
	Redirect Redirect
	// Duration is the mean of one run.
	Duration time.Duration
	Runs     int
}

// A Redirect is what bpf_redirect and its like decided.
type Redirect struct {
	// Kind is "ifindex", "peer", "neigh", "map" or "socket"; "" is none.
	Kind    string
	Ifindex uint32
	// Map and Key are the entry of a devmap, cpumap or xskmap.
	Map   *Map
	Key   uint32
	Flags uint64
	// Socket is what bpf_sk_assign chose.
	Socket *Socket
}

// Test runs the program once over a packet, and returns its result and the packet.
func (p *Program) Test(in []byte) (uint32, []byte, error) {
	res, err := p.RunContext(context.Background(), &RunOptions{Data: in})
	return res.Return, res.Data, err
}

// Benchmark runs the program a number of times over a packet and returns the
// last result and the time that one run took. reset is not called: a run here
// is not interrupted.
func (p *Program) Benchmark(in []byte, repeat int, reset func()) (uint32, time.Duration, error) {
	if repeat < 1 || repeat > math.MaxInt32 {
		return 0, 0, fmt.Errorf("program %s cannot be run %d times: %w", p.name, repeat, EINVAL)
	}
	res, err := p.RunContext(context.Background(), &RunOptions{Data: in, Repeat: uint32(repeat)})
	return res.Return, res.Duration, err
}

// Run runs the program once, or opts.Repeat times, and returns its result.
func (p *Program) Run(opts *RunOptions) (uint32, error) {
	res, err := p.RunContext(context.Background(), opts)
	if err != nil {
		return 0, err
	}
	if opts.DataOut != nil {
		if len(res.Data) > len(opts.DataOut) {
			return res.Return, fmt.Errorf("the packet has %d bytes, and DataOut takes %d: %w", len(res.Data), len(opts.DataOut), ENOSPC)
		}
		opts.DataOut = opts.DataOut[:copy(opts.DataOut, res.Data)]
	}
	if opts.ContextOut != nil {
		if err := unmarshal(res.Context, opts.ContextOut); err != nil {
			return res.Return, err
		}
	}
	return res.Return, nil
}

// RunContext is Run with all of the outcome, and with a context that ends the
// run when it is done: the program's locks, references and reservations are
// given back then, and the error is the context's cause.
func (p *Program) RunContext(ctx context.Context, opts *RunOptions) (Result, error) {
	cpu := -1
	if opts.Flags&1 != 0 {
		if int(opts.CPU) >= p.vm.cpus {
			return Result{}, fmt.Errorf("program %s: there is no virtual processor %d, only %d: %w", p.name, opts.CPU, p.vm.cpus, EINVAL)
		}
		cpu = int(opts.CPU)
	}
	r, err := p.acquire(ctx, cpu)
	if err != nil {
		return Result{}, err
	}
	defer r.release()
	r.redirect, r.retval = Redirect{}, 0
	in := input{data: opts.Data}
	if opts.Context != nil {
		if in.context, err = contextBytes(opts.Context); err != nil {
			return Result{}, fmt.Errorf("program %s: its context: %w", p.name, err)
		}
	}
	at, err := p.kind.prepare(r, p, &in)
	if err != nil {
		return Result{}, fmt.Errorf("program %s: %w", p.name, err)
	}
	defer r.dropInput(&in)
	r.prog = p
	res := Result{Runs: max(1, int(opts.Repeat))}
	start := time.Now()
	for range res.Runs {
		v, err := r.exec(ctx, p, at, uint64(in.size))
		if err != nil {
			return Result{}, err
		}
		res.R0, res.Return = v, uint32(v)
	}
	res.Duration = time.Since(start) / time.Duration(res.Runs)
	p.kind.finish(r, &in, &res)
	res.Redirect = r.redirect
	return res, nil
}

// Call runs the program once over a context of at most 1,024 bytes, which it may
// change, and nothing else: no packet, no copies. It is the fast way into programs
// that host code calls often; see also [Hook].
func (p *Program) Call(ctx context.Context, arg []byte) (uint32, error) {
	if len(arg) > contextSize || !p.kind.plain {
		return 0, fmt.Errorf("program %s of type %s cannot be called with %d bytes: %w", p.name, p.typ, len(arg), EINVAL)
	}
	// What this calls is inlined, but for what is rare.
	r := p.vm.lastRun()
	if taken := r.try(); !taken || p.closed.Load() {
		if taken {
			r.release()
		}
		var err error
		if r, err = p.acquire(ctx, -1); err != nil {
			return 0, err
		}
	}
	if len(arg) > 0 {
		copy(r.contextBytes(len(arg)), arg)
	}
	s := r.begin(uint64(r.context), 0, p.pace.quantum())
	exit := engine.Exit(0)
	if r.starts++; r.starts%watchStarts != 0 {
		exit = p.code.Enter(s)
	} else {
		exit = r.enterWatched(p)
	}
	if exit != engine.Done {
		if err := r.finishElseRelease(ctx, p); err != nil {
			return 0, err
		}
	}
	v := uint32(s.Regs[0])
	if len(arg) > 0 {
		copy(arg, r.contextBytes(len(arg)))
	}
	r.release()
	return v, nil
}

// acquire takes a virtual processor for a run of the program. While it is
// taken, the program's code stays.
func (p *Program) acquire(ctx context.Context, cpu int) (*run, error) {
	r, err := p.vm.acquire(ctx, cpu)
	if err != nil {
		return nil, err
	}
	if p.closed.Load() {
		r.release()
		return nil, fmt.Errorf("program %s: %w", p.name, ErrClosed)
	}
	return r, nil
}

func (r *run) contextBytes(n int) []byte {
	b, _ := r.vm.cage.Bytes(r.context, n)
	return b
}

// contextBytes returns the bytes that a context given by the host stands for.
func contextBytes(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return marshalAny(v)
}

// input is what a run gets, on its way in and out.
type input struct {
	data, context []byte
	block         uint32 // memory of the cage that was taken for it
	at            uint32 // the context's address
	size          int    // of the context, where it has no fixed one
}

func (r *run) dropInput(in *input) {
	if in.block != 0 {
		r.vm.cage.Free(in.block)
	}
}

// A progKind is what is particular to a program type.
type progKind struct {
	// prepare puts a context, and a packet, where the program finds them, and
	// returns what r1 is.
	prepare func(r *run, p *Program, in *input) (uint64, error)
	// finish copies out what became of them.
	finish func(r *run, in *input, res *Result)
	// plain: the context is bytes, as they are.
	plain bool
	// helpers differ from those of other types.
	helpers map[int32]helperFunc
}

var progKinds = map[abi.ProgType]*progKind{}

// ProgTypes returns the program types that there are, by number.
func ProgTypes() []abi.ProgType { return slices.Sorted(maps.Keys(progKinds)) }
