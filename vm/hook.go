package vm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// A Hook is a place in a Go program where BPF programs may look at a value and
// change it. T is what their context points to: a struct, array or number of
// fixed size without pointers, laid out as Go does, which is as C does on the
// same machine. Methods may be called from several goroutines.
type Hook[T any] struct {
	// Stop, where it is set, says which results keep the programs that follow
	// from being run. Set it before the first Fire.
	Stop func(result uint32) bool

	name  string
	mu    sync.Mutex
	links atomic.Pointer[[]*HookLink]
}

// NewHook returns a hook that no program is attached to. It fails for types
// that cannot be shown to programs.
func NewHook[T any](name string) (*Hook[T], error) {
	t := reflect.TypeFor[T]()
	if err := plain(t); err != nil {
		return nil, fmt.Errorf("hook %s: %w", name, err)
	}
	if t.Size() > contextSize {
		return nil, fmt.Errorf("hook %s: a %s has %d bytes, and a context at most %d", name, t, t.Size(), contextSize)
	}
	h := &Hook[T]{name: name}
	h.links.Store(&[]*HookLink{})
	return h, nil
}

// plain reports why a type is not made of numbers alone.
func plain(t reflect.Type) error {
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return nil
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if err := plain(t.Field(i).Type); err != nil {
				return fmt.Errorf("field %s: %w", t.Field(i).Name, err)
			}
		}
		return nil
	}
	return fmt.Errorf("programs cannot see a %s: use numbers of a fixed size, and arrays and structs of them", t)
}

// A HookLink is a program on a hook.
type HookLink struct {
	prog   atomic.Pointer[Program]
	detach func()
	once   sync.Once
}

// Attach adds a program behind those that are attached. It is of a type whose
// context is what the hook has: raw_tracepoint, tracepoint, syscall and the like.
func (h *Hook[T]) Attach(p *Program) (*HookLink, error) {
	if err := hookable(p); err != nil {
		return nil, fmt.Errorf("hook %s: %w", h.name, err)
	}
	l := &HookLink{}
	l.prog.Store(p)
	l.detach = func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		list := slices.DeleteFunc(slices.Clone(*h.links.Load()), func(x *HookLink) bool { return x == l })
		h.links.Store(&list)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	list := append(slices.Clone(*h.links.Load()), l)
	h.links.Store(&list)
	return l, nil
}

// hookable takes a reference to a program that can be attached to hooks.
func hookable(p *Program) error {
	if !p.kind.plain {
		return fmt.Errorf("program %s of type %s takes another context than the hook has: use a type like raw_tracepoint or syscall", p.name, p.typ)
	}
	if !p.hold() {
		return fmt.Errorf("program %s: %w", p.name, ErrClosed)
	}
	return nil
}

// Replace puts another program in the place of the attached one. Runs of the old
// one end undisturbed.
func (l *HookLink) Replace(p *Program) error {
	if err := hookable(p); err != nil {
		return err
	}
	if old := l.prog.Swap(p); old != nil {
		return old.Close()
	}
	l.prog.Store(nil)
	return errors.Join(ErrClosed, p.Close())
}

// Close detaches the program.
func (l *HookLink) Close() error {
	var err error
	l.once.Do(func() {
		l.detach()
		if p := l.prog.Swap(nil); p != nil {
			err = p.Close()
		}
	})
	return err
}

// Fire runs the attached programs over v, in the order in which they were
// attached. Each sees what those before it changed. It returns the result of the
// last one that ran, 0 without any, and fails with the first that fails. Where no
// program is attached, nothing is done.
func (h *Hook[T]) Fire(ctx context.Context, v *T) (result uint32, err error) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
	for _, l := range *h.links.Load() {
		r, ran, err := l.run(ctx, b)
		if err != nil {
			return 0, fmt.Errorf("hook %s: %w", h.name, err)
		}
		if !ran {
			continue // it was detached this moment
		}
		result = r
		if h.Stop != nil && h.Stop(result) {
			break
		}
	}
	return result, nil
}

// run runs the program that is attached, or the one that takes its place this
// moment; ran is false where none is.
func (l *HookLink) run(ctx context.Context, b []byte) (result uint32, ran bool, err error) {
	for p := l.prog.Load(); p != nil; {
		result, err := p.Call(ctx, b)
		now := l.prog.Load()
		if now == p || !errors.Is(err, ErrClosed) {
			return result, true, err
		}
		p = now
	}
	return 0, false, nil
}
