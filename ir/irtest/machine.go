package irtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/skep-bpf/skep/ir"
)

// A Machine runs functions. What the kernel would provide is made up, always
// in the same way: a helper's result is a hash of its name, its integer
// arguments and the memory it may read, and it writes such hashes to the
// memory it may write; kernel and user memory hold a hash of their address.
// Two functions with one meaning thus have equal results and traces.
type Machine struct {
	// Steps is how many values may still be computed.
	Steps int
	// Trace lists the calls that something outside may notice.
	Trace []string

	regions []*region
	globals map[*ir.Global]uint64
	handles map[any]uint64
	found   map[string]uint64 // by function, map and key
	depth   int
}

type region struct {
	bytes []byte
	space ir.Space
}

// ErrSteps is returned when a function ran for too long.
var ErrSteps = errors.New("the function did not end in the number of steps allowed")

// NewMachine returns a machine that may run for a number of steps.
func NewMachine(steps int) *Machine {
	return &Machine{Steps: steps, globals: map[*ir.Global]uint64{}, handles: map[any]uint64{}}
}

// NewMemory adds memory with the given bytes and returns a pointer to it.
// Addresses are the number of the region and, in the low 32 bits, an offset.
func (m *Machine) NewMemory(space ir.Space, bytes []byte) uint64 {
	m.regions = append(m.regions, &region{bytes, space})
	return uint64(len(m.regions)) << 32
}

// Memory returns the bytes that p points into, from its start.
func (m *Machine) Memory(p uint64) []byte { return m.regions[p>>32-1].bytes }

// Globals returns what the variables hold, in the order given.
func (m *Machine) Globals(list []*ir.Global) []string {
	var out []string
	for _, g := range list {
		out = append(out, fmt.Sprintf("%s=%x", g.Name, m.Memory(m.global(g))))
	}
	return out
}

func (m *Machine) global(g *ir.Global) uint64 {
	p, ok := m.globals[g]
	if !ok {
		p = m.NewMemory(ir.SpaceMapValue, append([]byte(nil), g.Init...))
		m.globals[g] = p
	}
	return p
}

// at finds n bytes at p, or fails.
func (m *Machine) at(p uint64, n int) ([]byte, error) {
	r := p >> 32
	if r == 0 || r > uint64(len(m.regions)) {
		return nil, fmt.Errorf("access through %#x, which is no pointer", p)
	}
	bytes, off := m.regions[r-1].bytes, int(uint32(p))
	if off+n > len(bytes) {
		return nil, fmt.Errorf("access to bytes %d to %d of %d", off, off+n, len(bytes))
	}
	return bytes[off : off+n], nil
}

func (m *Machine) load(space ir.Space, p uint64, n int) (uint64, error) {
	if space == ir.SpaceKernel || space == ir.SpaceUser || space == ir.SpaceBTF || space == ir.SpaceCtx {
		return hash(fmt.Sprint(space, p, n)) >> (64 - 8*n), nil
	}
	b, err := m.at(p, n)
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

func (m *Machine) store(p uint64, n int, x uint64) error {
	b, err := m.at(p, n)
	if err != nil {
		return err
	}
	var full [8]byte
	binary.LittleEndian.PutUint64(full[:], x)
	copy(b, full[:n])
	return nil
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	x := h.Sum64()
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return x ^ x>>32
}

// Run runs f with the given arguments and returns its result, 0 when it has none.
func (m *Machine) Run(f *ir.Func, args ...uint64) (uint64, error) {
	if m.depth++; m.depth > 50 {
		return 0, errors.New("calls are nested too deeply")
	}
	defer func() { m.depth-- }()
	vals := make([]uint64, f.NumValues())
	b := f.Entry()
	for i, p := range b.Params {
		vals[p.ID] = args[i]
	}
	get := func(v *ir.Value) uint64 { return vals[v.ID] }
	for {
		for _, v := range b.Values {
			if m.Steps--; m.Steps < 0 {
				return 0, ErrSteps
			}
			x, err := m.value(v, get)
			if err != nil {
				return 0, fmt.Errorf("@%s: %s: %w", f.Name, v, err)
			}
			if v.Type.IsInt() {
				x = uint64(ir.Truncate(int64(x), v.Type))
			}
			vals[v.ID] = x
		}
		if m.Steps--; m.Steps < 0 {
			return 0, ErrSteps
		}
		var e ir.Edge
		switch b.Term {
		case ir.TermReturn:
			if b.Cond == nil {
				return 0, nil
			}
			return get(b.Cond), nil
		case ir.TermJump:
			e = b.Succs[0]
		case ir.TermIf:
			e = b.Succs[1]
			if get(b.Cond) != 0 {
				e = b.Succs[0]
			}
		default:
			return 0, fmt.Errorf("@%s: control came to the end of %s", f.Name, b.Label())
		}
		next := make([]uint64, len(e.Args))
		for i, a := range e.Args {
			next[i] = get(a)
		}
		b = e.To
		for i, p := range b.Params {
			vals[p.ID] = next[i]
		}
	}
}

func (m *Machine) value(v *ir.Value, get func(*ir.Value) uint64) (uint64, error) {
	arg := func(i int) uint64 { return get(v.Args[i]) }
	switch {
	case v.Op.IsBinary():
		return uint64(ir.EvalBinary(v.Op, v.Type, int64(arg(0)), int64(arg(1)))), nil
	case v.Op.IsCompare():
		t := v.Args[0].Type
		if t.IsPtr() {
			t = ir.I64
		}
		return uint64(ir.EvalCompare(v.Op, t, int64(arg(0)), int64(arg(1)))), nil
	}
	switch v.Op {
	case ir.OpConst:
		return uint64(v.Int), nil
	case ir.OpNeg:
		return -arg(0), nil
	case ir.OpSwap:
		return uint64(ir.EvalSwap(v.Type, int64(arg(0)))), nil
	case ir.OpTrunc, ir.OpZExt, ir.OpIntToPtr, ir.OpPtrToInt, ir.OpPtrCast:
		return arg(0), nil
	case ir.OpNonNull:
		if arg(0) == 0 {
			return 0, errors.New("null where a branch should have told")
		}
		return arg(0), nil
	case ir.OpSExt:
		return uint64(ir.SignExtend(int64(arg(0)), v.Args[0].Type)), nil
	case ir.OpAlloca:
		return m.NewMemory(ir.SpaceStack, make([]byte, v.Int)), nil
	case ir.OpPtrAdd:
		return move(arg(0), arg(1)), nil
	case ir.OpField:
		return move(arg(0), uint64(v.Aux.(*ir.FieldRef).Offset)), nil
	case ir.OpCore:
		return uint64(v.Aux.(*ir.CoreRef).Local), nil
	case ir.OpGlobal:
		return m.global(v.Aux.(*ir.Global)), nil
	case ir.OpMap, ir.OpFunc, ir.OpKsym:
		h, ok := m.handles[v.Aux]
		if !ok {
			h = uint64(len(m.handles)+1) << 48
			m.handles[v.Aux] = h
		}
		return h, nil
	case ir.OpLoad:
		x, err := m.load(v.Args[0].Type.Space, arg(0), v.Type.Bytes())
		if v.IsVolatile() {
			m.Trace = append(m.Trace, fmt.Sprintf("load %s %#x", v.Type, x))
		}
		return x, err
	case ir.OpStore:
		if v.IsVolatile() {
			m.Trace = append(m.Trace, fmt.Sprintf("store %s %#x", v.Args[1].Type, arg(1)))
		}
		return 0, m.store(arg(0), v.Args[1].Type.Bytes(), arg(1))
	case ir.OpMemZero:
		b, err := m.at(arg(0), int(v.Int))
		clear(b)
		return 0, err
	case ir.OpMemCopy:
		dst, err := m.at(arg(0), int(v.Int))
		if err != nil {
			return 0, err
		}
		for i := range dst {
			x, err := m.load(v.Args[1].Type.Space, move(arg(1), uint64(i)), 1)
			if err != nil {
				return 0, err
			}
			dst[i] = byte(x)
		}
		return 0, nil
	case ir.OpAtomic:
		return m.atomic(v, arg)
	case ir.OpCall:
		args := make([]uint64, len(v.Args))
		for i := range args {
			args[i] = arg(i)
		}
		switch callee := v.Aux.(type) {
		case *ir.Func:
			return m.Run(callee, args...)
		case *ir.Extern:
			return m.extern(v, callee, args)
		}
	}
	return 0, fmt.Errorf("the test machine cannot run %s", v.Op)
}

func move(p, by uint64) uint64 { return p&^0xffffffff | uint64(uint32(p)+uint32(by)) }

func (m *Machine) atomic(v *ir.Value, arg func(int) uint64) (uint64, error) {
	t := v.Args[1].Type
	n := t.Bytes()
	old, err := m.load(v.Args[0].Type.Space, arg(0), n)
	if err != nil {
		return 0, err
	}
	x := arg(1)
	switch ir.AtomicOp(v.Int) {
	case ir.AtomicAdd:
		x += old
	case ir.AtomicAnd:
		x &= old
	case ir.AtomicOr:
		x |= old
	case ir.AtomicXor:
		x ^= old
	case ir.AtomicCmpXchg:
		if x = arg(2); old != arg(1) {
			x = old
		}
	}
	return old, m.store(arg(0), n, x)
}

// fill writes hashes of what a function that fills memory depends on.
func (m *Machine) fill(v *ir.Value, e *ir.Extern, args []uint64) (uint64, error) {
	text := e.Name
	for i, a := range v.Args[1:] {
		if a.Type.IsInt() {
			text += fmt.Sprintf(" %d", args[i+1])
		}
	}
	for i := range args[1] {
		if err := m.store(args[0]+i, 1, hash(fmt.Sprint(text, i))); err != nil {
			return 0, err
		}
	}
	return hash(text), nil
}

// find looks up a key, and finds the same again until memory is written.
func (m *Machine) find(v *ir.Value, e *ir.Extern, args []uint64) (uint64, error) {
	key, err := m.at(args[1], int(v.Args[0].Aux.(*ir.Map).KeySize))
	if err != nil {
		return 0, err
	}
	text := fmt.Sprintf("%s %d %x", e.Name, args[0], key)
	p, ok := m.found[text]
	if !ok {
		if hash(text)%3 != 0 {
			p = m.NewMemory(e.Result.Space, make([]byte, max(e.Result.Size, 8)))
		}
		if m.found == nil {
			m.found = map[string]uint64{}
		}
		m.found[text] = p
	}
	return p, nil
}

// extern does what a helper might, see Machine.
func (m *Machine) extern(v *ir.Value, e *ir.Extern, args []uint64) (uint64, error) {
	text := e.Name
	if e.Effect.Fills {
		return m.fill(v, e, args)
	}
	if e.Effect.Finds {
		return m.find(v, e, args)
	}
	if e.Effect.Writes != 0 {
		m.found = nil
	}
	behind := func(i int, set ir.SpaceSet) []byte {
		t := v.Args[i].Type
		if !t.IsPtr() || !set.Has(t.Space) {
			return nil
		}
		if r := args[i] >> 32; r == 0 || r > uint64(len(m.regions)) {
			return nil
		}
		return m.Memory(args[i])[uint32(args[i]):]
	}
	for i, a := range v.Args {
		if a.Type.IsInt() {
			text += fmt.Sprintf(" %d", args[i])
		}
		text += fmt.Sprintf(" %x", behind(i, e.Effect.Reads))
	}
	if e.Effect.Volatile {
		m.Trace = append(m.Trace, text)
		text += fmt.Sprint(len(m.Trace))
	}
	for i := range v.Args {
		for j, b := 0, behind(i, e.Effect.Writes); j < len(b); j++ {
			b[j] = byte(hash(fmt.Sprint(text, i, j)))
		}
	}
	h := hash(text)
	if e.Result.IsPtr() {
		// A pointer to fresh memory, or null now and then.
		if h%3 == 0 && e.Result.Nullable {
			return 0, nil
		}
		return m.NewMemory(e.Result.Space, make([]byte, max(e.Result.Size, 8))), nil
	}
	return h, nil
}
