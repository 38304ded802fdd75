package vm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
	"github.com/skep-bpf/skep/vm/jit"
)

// DefaultMemory is the memory limit of a vm where Options has none.
const DefaultMemory = 64 << 20

// Options are the choices for a vm. The zero value is useful.
type Options struct {
	// MemoryLimit is how many bytes maps, stacks and packets may take
	// together; 0 is DefaultMemory.
	MemoryLimit int64
	// MapLimit is how many bytes one map may take; 0 leaves that to MemoryLimit.
	MapLimit int64
	// CPUs is the number of virtual processors: how many programs run at a
	// time, and how many copies maps have that are per CPU. 0 is one for each
	// processor of the machine.
	CPUs int
	// Interpret keeps programs from being compiled to native code, which is done
	// where the system allows it.
	Interpret bool
	// Step, where it is set, is called before each instruction of every program;
	// programs are interpreted then. An error that it returns ends the run.
	Step func(*Step) error
	// Host answers what programs ask of their surroundings.
	Host Host
}

// A VM is one domain of trust: programs and the maps that they share. Closing
// it frees them all. Methods may be called from several goroutines.
type VM struct {
	cage     *cage.Cage
	engine   engine.Engine
	host     Host
	limit    int64
	mapLimit int64
	cpus     int
	used     atomic.Int64
	locks    locks
	timers   timers
	hostRun  uint64 // what the host holds locks as

	native  bool                        // programs are compiled
	runs    []*run                      // one for each virtual processor
	last    [places]atomic.Pointer[run] // which processor goroutines had last
	idle    sync.Mutex
	wake    *sync.Cond
	asleep  atomic.Int32 // how many wait for a processor
	waiting atomic.Int32 // for a processor to become idle: asleep, and in later
	epoch   atomic.Uint64

	mu      sync.Mutex
	maps    atomic.Pointer[[]*Map] // by handle
	handles uint32                 // the address of the first handle
	later   []deferred
	open    map[*Program]bool
	byCode  atomic.Pointer[map[engine.Code]*Program]
	closed  bool
	shut    atomic.Bool // no run begins any more
}

// A handle is an address that stands for a map. It lies in the cage, where
// nothing is, so that programs may compare it and read zeros there.
const (
	handleSize = 64
	maxMaps    = 4096
)

// New returns a vm.
func New(o Options) (*VM, error) {
	vm := &VM{
		limit: o.MemoryLimit, mapLimit: o.MapLimit, cpus: o.CPUs, host: o.Host.filled(),
		open: map[*Program]bool{}, hostRun: 1<<64 - 1,
	}
	if vm.limit == 0 {
		vm.limit = DefaultMemory
	}
	if vm.cpus <= 0 {
		vm.cpus = runtime.NumCPU()
	}
	var err error
	if vm.cage, err = cage.New(vm.limit); err != nil {
		return nil, err
	}
	err = engine.ErrUnavailable
	switch {
	case o.Step != nil:
		vm.engine, err = interp.NewStepper(vm.cage, vm.stepper(o.Step)), nil
	case !o.Interpret:
		vm.engine, err = jit.New()
	}
	vm.native = err == nil && o.Step == nil
	if errors.Is(err, engine.ErrUnavailable) {
		vm.engine, err = interp.New(vm.cage), nil
	}
	if err != nil {
		return nil, errors.Join(err, vm.cage.Close())
	}
	vm.wake = sync.NewCond(&vm.idle)
	vm.timers.vm = vm
	vm.maps.Store(&[]*Map{})
	vm.byCode.Store(&map[engine.Code]*Program{})
	if vm.handles, err = vm.cage.Alloc(maxMaps * handleSize); err == nil {
		for cpu := range vm.cpus {
			var r *run
			if r, err = newRun(vm, cpu); err != nil {
				break
			}
			vm.runs = append(vm.runs, r)
		}
	}
	if err != nil {
		return nil, errors.Join(err, vm.cage.Close())
	}
	for i := range vm.last {
		vm.last[i].Store(vm.runs[i*len(vm.runs)/places])
	}
	return vm, nil
}

// CPUs returns the number of virtual processors.
func (vm *VM) CPUs() int { return vm.cpus }

// EngineName returns what executes programs: "interp" or "jit".
func (vm *VM) EngineName() string { return vm.engine.Name() }

// MemoryUsed returns the bytes that count against the memory limit.
func (vm *VM) MemoryUsed() int64 { return vm.used.Load() }

// Close ends the vm with its programs and maps. Runs that go on are waited
// for; cancel their contexts to end them.
func (vm *VM) Close() error {
	vm.mu.Lock()
	if vm.closed {
		vm.mu.Unlock()
		return nil
	}
	vm.closed = true
	programs := vm.open
	vm.open = map[*Program]bool{}
	vm.mu.Unlock()
	vm.timers.close()
	for cpu := range vm.runs {
		_, _ = vm.acquire(context.Background(), cpu) // and never given back
	}
	vm.shut.Store(true)
	vm.idle.Lock()
	vm.wake.Broadcast()
	vm.idle.Unlock()
	var errs []error
	for p := range programs {
		errs = append(errs, p.code.Close())
	}
	if c, ok := vm.engine.(interface{ Close() error }); ok {
		errs = append(errs, c.Close())
	}
	for _, m := range *vm.maps.Load() {
		if m != nil {
			if c, ok := m.table.(interface{ stop() }); ok {
				c.stop()
			}
		}
	}
	errs = append(errs, vm.cage.Close())
	return errors.Join(errs...)
}

// charge counts bytes against the memory limit.
func (vm *VM) charge(n int64) error {
	if used := vm.used.Add(n); n > 0 && used > vm.limit {
		vm.used.Add(-n)
		return fmt.Errorf("the vm has %d of %d bytes left, and %d are needed: raise Options.MemoryLimit: %w", vm.limit-used+n, vm.limit, n, ENOMEM)
	}
	return nil
}

func (vm *VM) addMap(m *Map) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.closed {
		return ErrClosed
	}
	list := slices.Clone(*vm.maps.Load())
	i := slices.Index(list, nil)
	if i < 0 {
		if len(list) == maxMaps {
			return fmt.Errorf("a vm has at most %d maps: %w", maxMaps, ENOMEM)
		}
		i, list = len(list), append(list, nil)
	}
	list[i] = m
	m.handle = vm.handles + uint32(i)*handleSize
	vm.maps.Store(&list)
	return nil
}

func (vm *VM) removeMap(m *Map) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	list := slices.Clone(*vm.maps.Load())
	if i := (m.handle - vm.handles) / handleSize; list[i] == m {
		list[i] = nil
		vm.maps.Store(&list)
	}
}

// mapAt returns the map that an address stands for, which a program has made up
// perhaps.
func (vm *VM) mapAt(addr uint64) *Map {
	list := *vm.maps.Load()
	i := uint32(addr) - vm.handles
	if i%handleSize != 0 || int(i/handleSize) >= len(list) {
		return nil
	}
	return list[i/handleSize]
}

// ErrClosed is returned by what was closed.
var ErrClosed = errors.New("the vm or the program is closed")

// A deferred is done once no run is left that began before epoch.
type deferred struct {
	epoch uint64
	do    func()
}

// afterRuns calls do when all runs that go on now have ended: they may still
// use what do frees.
func (vm *VM) afterRuns(do func()) {
	vm.mu.Lock()
	if vm.closed {
		vm.mu.Unlock()
		return
	}
	vm.deferDo(do)
	vm.mu.Unlock()
	vm.settle()
}

// deferDo puts something off, with the lock held.
func (vm *VM) deferDo(do func()) {
	vm.later = append(vm.later, deferred{vm.epoch.Add(1), do})
	vm.waiting.Add(1)
}

// settle does what was deferred and may be done now.
func (vm *VM) settle() {
	vm.mu.Lock()
	if len(vm.later) == 0 || vm.closed {
		vm.mu.Unlock()
		return
	}
	oldest := vm.epoch.Load()
	for _, r := range vm.runs {
		if e := r.busy.Load(); e != 0 && e-1 < oldest {
			oldest = e - 1
		}
	}
	var ready []func()
	vm.later = slices.DeleteFunc(vm.later, func(d deferred) bool {
		if d.epoch <= oldest {
			ready = append(ready, d.do)
			return true
		}
		return false
	})
	vm.waiting.Add(-int32(len(ready)))
	vm.mu.Unlock()
	for _, do := range ready {
		do()
	}
}

// acquire returns an idle virtual processor for the calling goroutine, or the
// one with the given number. It waits until there is one, or ctx is done.
func (vm *VM) acquire(ctx context.Context, cpu int) (*run, error) {
	for {
		if cpu < 0 {
			if r := vm.idleRun(); r != nil {
				return r, nil
			}
		} else if r := vm.runs[cpu]; r.try() {
			return r, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if vm.shut.Load() {
			return nil, ErrClosed
		}
		vm.wait(ctx, cpu)
	}
}

// wait waits until a processor may be idle.
func (vm *VM) wait(ctx context.Context, cpu int) {
	isIdle := func() bool {
		for i, r := range vm.runs {
			if r.busy.Load() == 0 && (cpu < 0 || i == cpu) {
				return true
			}
		}
		return false
	}
	for range 100 {
		runtime.Gosched()
		if isIdle() {
			return
		}
	}
	stop := context.AfterFunc(ctx, func() {
		vm.idle.Lock()
		defer vm.idle.Unlock()
		vm.wake.Broadcast()
	})
	defer stop()
	vm.idle.Lock()
	defer vm.idle.Unlock()
	vm.asleep.Add(1)
	vm.waiting.Add(1)
	defer vm.waiting.Add(-1)
	defer vm.asleep.Add(-1)
	if isIdle() || ctx.Err() != nil || vm.shut.Load() {
		return
	}
	vm.wake.Wait()
}

// list writes names with commas.
func list(names []string) string { return strings.Join(names, ", ") }

func names[T fmt.Stringer](list []T) []string {
	var s []string
	for _, x := range list {
		s = append(s, x.String())
	}
	return s
}
