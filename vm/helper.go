package vm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/skep-bpf/skep/abi"
)

// A helperFunc is a helper: it reads its arguments from the run's registers and
// returns r0. What programs pass may be hostile.
type helperFunc func(r *run) uint64

// A HelperFunc is a helper, or a kernel function, that the host supplies. What
// it returns is r0; an Errno is returned as e.Result().
type HelperFunc func(c *Call) uint64

// host makes a HelperFunc callable for programs.
func (f HelperFunc) host() helperFunc {
	return func(r *run) uint64 { return f(&Call{r: r}) }
}

// A Call is one call of a helper. It is good until the helper returns.
type Call struct{ r *run }

// Arg returns an argument, from 1 to 5.
func (c *Call) Arg(i int) uint64 {
	if i < 1 || i > 5 {
		return 0
	}
	return c.r.arg(i)
}

// Memory returns n bytes that an argument points to. They are the program's: it
// may change them at any time. ok is false for what is no memory of the vm.
func (c *Call) Memory(addr uint64, n int) (b []byte, ok bool) {
	if n < 0 {
		return nil, false
	}
	return c.r.bytes(addr, uint64(n))
}

// Map returns the map that an argument stands for, or nil.
func (c *Call) Map(arg uint64) *Map { return c.r.vm.mapAt(arg) }

// CPU is the virtual processor of the run.
func (c *Call) CPU() int { return c.r.cpu }

// Fail ends the run of the program with an error.
func (c *Call) Fail(err error) uint64 { return c.r.giveUp(err) }

// Result is what a program gets: 0, or the number negative.
func (e Errno) Result() uint64 { return e.result() }

// Numbers of helpers that are treated specially.
const (
	helperTailCall = 12
	helperCPU      = 8
)

// helpers are those that all program types share, by number; what differs is in
// their progKind.
var helpers = map[int32]helperFunc{
	1:   mapLookup,
	2:   mapUpdate,
	3:   mapDelete,
	5:   func(r *run) uint64 { return r.vm.host.Monotonic() },
	7:   func(r *run) uint64 { return uint64(r.vm.host.Random()) },
	8:   func(r *run) uint64 { return uint64(r.cpu) },
	42:  func(*run) uint64 { return 0 }, // NUMA node
	87:  mapPush,
	88:  mapPop,
	89:  mapPeek,
	125: func(r *run) uint64 { return r.vm.host.Boot() },
	160: func(r *run) uint64 { return r.vm.host.MonotonicCoarse() },
	195: mapLookupPerCPU,
	208: func(r *run) uint64 { return r.vm.host.TAI() },
	118: func(r *run) uint64 { return r.vm.host.Monotonic() / 10e6 }, // jiffies of 10 ms
}

// kfuncs are the kernel functions that there are, by name.
var kfuncs = map[string]helperFunc{}

// HelperNames returns the names of the helpers that programs of a type have.
func HelperNames(t abi.ProgType) []string {
	ids := slices.Collect(maps.Keys(helpers))
	if k := progKinds[t]; k != nil {
		ids = slices.AppendSeq(ids, maps.Keys(k.helpers))
	}
	ids = append(ids, helperTailCall)
	slices.Sort(ids)
	var list []string
	for _, id := range slices.Compact(ids) {
		h := abi.HelperByID(id)
		if _, ok := h.Call(abi.Linux6_18, t); ok {
			list = append(list, h.Name)
		}
	}
	return list
}

// KfuncNames returns the names of the kernel functions that there are.
func KfuncNames() []string { return slices.Sorted(maps.Keys(kfuncs)) }

// badMap ends the run: a verified program never passes anything else for a map.
func (r *run) badMap(arg int) uint64 {
	return r.giveUp(fmt.Errorf("argument %d is %#x, which is no map", arg, r.arg(arg)))
}

func (r *run) badMemory(arg int) uint64 {
	return r.giveUp(fmt.Errorf("argument %d is %#x, which does not lead to memory of the needed size", arg, r.arg(arg)))
}

// mapKey returns the map of the first argument and the key of the second.
func (r *run) mapKey() (*Map, []byte, bool) {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		r.badMap(1)
		return nil, nil, false
	}
	key, ok := r.vm.cage.Bytes(uint32(r.arg(2)), m.keySize)
	if !ok {
		r.badMemory(2)
		return nil, nil, false
	}
	return m, key, true
}

func mapLookup(r *run) uint64 {
	m, key, ok := r.mapKey()
	if !ok {
		return 0
	}
	return uint64(m.table.lookup(r.cpu, key))
}

func mapUpdate(r *run) uint64 {
	m, key, ok := r.mapKey()
	if !ok {
		return 0
	}
	value, ok := r.vm.cage.Bytes(uint32(r.arg(3)), m.valueSize)
	if !ok {
		return r.badMemory(3)
	}
	return m.table.update(r.cpu, key, value, r.arg(4)).result()
}

func mapDelete(r *run) uint64 {
	m, key, ok := r.mapKey()
	if !ok {
		return 0
	}
	return m.table.remove(key).result()
}

// A pusher is a queue, a stack or a bloom filter.
type pusher interface {
	push(value []byte, flags uint64) Errno
	peek(value []byte) Errno
	take(value []byte) Errno
}

// mapValue returns the map of the first argument and the value of the second.
func (r *run) mapValue() (pusher, []byte, bool) {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		r.badMap(1)
		return nil, nil, false
	}
	p, ok := m.table.(pusher)
	if !ok {
		r.giveUp(fmt.Errorf("a map of type %s is no queue: %w", m.typ, EINVAL))
		return nil, nil, false
	}
	value, ok := r.vm.cage.Bytes(uint32(r.arg(2)), m.valueSize)
	if !ok {
		r.badMemory(2)
		return nil, nil, false
	}
	return p, value, true
}

func mapPush(r *run) uint64 {
	p, value, ok := r.mapValue()
	if !ok {
		return 0
	}
	return p.push(value, r.arg(3)).result()
}

func mapPop(r *run) uint64 {
	p, value, ok := r.mapValue()
	if !ok {
		return 0
	}
	return p.take(value).result()
}

func mapPeek(r *run) uint64 {
	p, value, ok := r.mapValue()
	if !ok {
		return 0
	}
	return p.peek(value).result()
}

func mapLookupPerCPU(r *run) uint64 {
	m, key, ok := r.mapKey()
	if !ok {
		return 0
	}
	if cpu := r.arg(3); cpu < uint64(r.vm.cpus) {
		return uint64(m.table.lookup(int(cpu), key))
	}
	return 0
}

// tailTarget returns the program that a tail call leads to, or nil if it fails.
func (r *run) tailTarget() *Program {
	m := r.vm.mapAt(r.arg(2))
	if m == nil {
		r.badMap(2)
		return nil
	}
	t, ok := m.table.(*progTable)
	if !ok {
		r.badMap(2)
		return nil
	}
	index := uint32(r.arg(3))
	if uint64(index) >= uint64(len(t.slots)) || r.tailCalls >= maxTailCalls {
		return nil
	}
	return t.slots[index].Load()
}
