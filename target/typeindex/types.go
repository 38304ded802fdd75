package typeindex

import (
	"errors"
	"fmt"
	"iter"
	"sort"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// ErrNotFound is wrapped by errors that say that there is no such type.
var ErrNotFound = errors.New("not found")

// A NotFoundError says which type there is not. It wraps ErrNotFound.
type NotFoundError struct {
	What string // "struct", "function", "enumerator", ...
	Name string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("the kernel's type information has no %s %q", e.What, e.Name)
}

// Unwrap returns ErrNotFound.
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

// Types looks up types in the BTF of a kernel and its modules.
//
// Types that it returns are ordinary values of cilium's btf package, shared and
// not to be modified. They are materialised up to pointers: what a pointer
// points to, seen through typedefs, qualifiers and arrays, has a *[btf.Fwd] in
// the place of each named struct or union. [Types.Resolve] turns such a Fwd,
// or a type that ends in one, into the complete type:
//
//	task, _ := types.Struct("task_struct")
//	mm := member(task, "mm").Type.(*btf.Pointer).Target // *btf.Fwd{Name: "mm_struct"}
//	full, _ := types.Resolve(mm)                        // *btf.Struct with members
//
// Structs and unions that are held by value, and anonymous ones, are complete
// at once. The same type yields the same Go value every time, except that a
// typedef, qualifier or array may have two: one that ends in a Fwd (reached
// through a pointer) and its complete form. [Types.Same] sees through that.
//
// All methods may be called from several goroutines.
type Types struct {
	mu      sync.Mutex
	kernel  *blob
	modules []*module // sorted by name
	known   map[btf.Type]ref
}

type module struct {
	name string
	load func() ([]byte, error)
	blob *blob // nil until loaded
	err  error
}

// A ref is where a type stands.
type ref struct {
	blob *blob
	id   btf.TypeID
	lazy bool // ends in a Fwd that stands for a complete type
}

// A Module names a module's BTF and reads it when it is needed.
type Module struct {
	Name string
	// Load returns the raw BTF, split against the kernel's. The bytes must not
	// change afterwards.
	Load func() ([]byte, error)
}

// New returns the types in kernel, the raw BTF of vmlinux, and in modules.
// The bytes are used in place and must not change afterwards.
func New(kernel []byte, modules []Module) (*Types, error) {
	b, err := parse("", kernel, nil)
	if err != nil {
		return nil, fmt.Errorf("the kernel's BTF cannot be read: %w", err)
	}
	t := &Types{kernel: b, known: make(map[btf.Type]ref)}
	for _, m := range modules {
		t.modules = append(t.modules, &module{name: m.Name, load: m.Load})
	}
	sort.Slice(t.modules, func(i, j int) bool { return t.modules[i].name < t.modules[j].name })
	return t, nil
}

// A Kind is a set of kinds of named BTF types.
type Kind uint32

// Kinds of types. They may be or-ed.
const (
	KindInt     Kind = 1 << kindInt
	KindStruct  Kind = 1 << kindStruct
	KindUnion   Kind = 1 << kindUnion
	KindEnum    Kind = 1<<kindEnum | 1<<kindEnum64
	KindFwd     Kind = 1 << kindFwd
	KindTypedef Kind = 1 << kindTypedef
	KindFunc    Kind = 1 << kindFunc
	KindVar     Kind = 1 << kindVar
	KindDatasec Kind = 1 << kindDatasec
	KindFloat   Kind = 1 << kindFloat
	// KindC is what a C declaration can name without a keyword.
	KindC = KindInt | KindFloat | KindTypedef
	// KindAny is every kind that carries a name.
	KindAny = KindC | KindStruct | KindUnion | KindEnum | KindFwd | KindFunc | KindVar | KindDatasec
)

func (k Kind) String() string {
	switch k {
	case KindStruct:
		return "struct"
	case KindUnion:
		return "union"
	case KindEnum:
		return "enum"
	case KindTypedef:
		return "typedef"
	case KindFunc:
		return "function"
	case KindVar:
		return "variable"
	case KindDatasec:
		return "section"
	case KindInt:
		return "integer type"
	}
	return "type"
}

// An Entry is a named type that has not been materialised.
type Entry struct {
	Name   string
	Kind   Kind
	Module string // "" for the kernel itself
	ID     btf.TypeID
}

// Struct returns the struct of that tag, complete.
func (t *Types) Struct(name string) (*btf.Struct, error) {
	return find[*btf.Struct](t, KindStruct, name)
}

// Union returns the union of that tag, complete.
func (t *Types) Union(name string) (*btf.Union, error) { return find[*btf.Union](t, KindUnion, name) }

// Enum returns the enum of that tag.
func (t *Types) Enum(name string) (*btf.Enum, error) { return find[*btf.Enum](t, KindEnum, name) }

// Typedef returns the typedef of that name.
func (t *Types) Typedef(name string) (*btf.Typedef, error) {
	return find[*btf.Typedef](t, KindTypedef, name)
}

// Func returns the function of that name; its Type is a *[btf.FuncProto] with
// the names of its parameters.
func (t *Types) Func(name string) (*btf.Func, error) { return find[*btf.Func](t, KindFunc, name) }

// Var returns the global variable of that name; the kernel's BTF has per-CPU
// variables alone.
func (t *Types) Var(name string) (*btf.Var, error) { return find[*btf.Var](t, KindVar, name) }

// Named returns the type that a C declaration calls name, without a keyword:
// an integer or float type or a typedef.
func (t *Types) Named(name string) (btf.Type, error) { return find[btf.Type](t, KindC, name) }

// Find returns the first type of one of the kinds and that name: of the kernel,
// else of a module in the order of their names. The error wraps ErrNotFound.
func (t *Types) Find(kinds Kind, name string) (btf.Type, error) {
	return find[btf.Type](t, kinds, name)
}

// FindIn is Find in one module alone, or in the kernel alone for "".
func (t *Types) FindIn(module string, kinds Kind, name string) (btf.Type, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.blobOf(module)
	if err != nil {
		return nil, err
	}
	id, err := b.find(kinds, name)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		if module != "" {
			name = module + ":" + name
		}
		return nil, &NotFoundError{kinds.String(), name}
	}
	return t.inflate(b, id)
}

func find[T btf.Type](t *Types, kinds Kind, name string) (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var zero T
	var failed error
	for b, err := range t.blobs() {
		if err != nil {
			failed = err
			continue
		}
		id, err := b.find(kinds, name)
		if err != nil {
			failed = err
			continue
		}
		if id == 0 {
			continue
		}
		typ, err := t.inflate(b, id)
		if err != nil {
			return zero, err
		}
		if v, ok := typ.(T); ok {
			return v, nil
		}
	}
	if failed != nil {
		return zero, fmt.Errorf("%w: %w", &NotFoundError{kinds.String(), name}, failed)
	}
	return zero, &NotFoundError{kinds.String(), name}
}

// An Enumerator is a constant of an enum.
type Enumerator struct {
	Enum  *btf.Enum
	Value uint64 // sign-extended when Enum is signed
}

// Enumerator returns the enum constant of that name, such as AF_INET's kin
// TCP_ESTABLISHED. Where several enums have it, the first one counts.
func (t *Types) Enumerator(name string) (Enumerator, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var failed error
	for b, err := range t.blobs() {
		if err != nil {
			failed = err
			continue
		}
		id, value, err := b.findEnumerator(name)
		if err != nil {
			failed = err
			continue
		}
		if id == 0 {
			continue
		}
		typ, err := t.inflate(b, id)
		if err != nil {
			return Enumerator{}, err
		}
		if e, ok := typ.(*btf.Enum); ok {
			return Enumerator{e, value}, nil
		}
	}
	notFound := &NotFoundError{"enumerator", name}
	if failed != nil {
		return Enumerator{}, fmt.Errorf("%w: %w", notFound, failed)
	}
	return Enumerator{}, notFound
}

// Enumerators iterates over the names of all enum constants that start with
// prefix, in the order of the BTF.
func (t *Types) Enumerators(prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, b := range t.loaded() {
			if !b.enumerators(prefix, yield) {
				return
			}
		}
	}
}

// Names iterates over the named types of some kinds whose name starts with
// prefix, in the order of their IDs, the kernel's before those of modules in
// the order of their names. Nothing is materialised. A module whose BTF cannot
// be read is left out.
func (t *Types) Names(kinds Kind, prefix string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, b := range t.loaded() {
			if !b.names(kinds, prefix, yield) {
				return
			}
		}
	}
}

// ByID returns the complete type with an ID, of a module or, for "", of the
// kernel. IDs of a module continue those of the kernel.
func (t *Types) ByID(module string, id btf.TypeID) (btf.Type, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.blobOf(module)
	if err != nil {
		return nil, err
	}
	return t.inflate(b, id)
}

// ID returns the ID of a type that t returned, and the module it belongs to,
// "" for the kernel itself. The ID of a Fwd placeholder is that of the type
// it stands for.
func (t *Types) ID(typ btf.Type) (module string, id btf.TypeID, ok bool) {
	if _, void := typ.(*btf.Void); void {
		return "", 0, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.known[typ]
	if !ok {
		return "", 0, false
	}
	return r.blob.name, r.id, true
}

// Same reports whether a and b, both from t, are the same type.
func (t *Types) Same(a, b btf.Type) bool {
	if a == b {
		return true
	}
	am, ai, aok := t.ID(a)
	bm, bi, bok := t.ID(b)
	return aok && bok && am == bm && ai == bi
}

// Resolve completes a type: a Fwd that stands for a struct or union becomes
// it, a typedef, qualifier or array that ends in one is returned in its
// complete form, and a true forward declaration becomes the struct or union of
// that name where another part of the BTF has it. Types that are complete, or
// of which no more is known, are returned as they are.
func (t *Types) Resolve(typ btf.Type) (btf.Type, error) {
	t.mu.Lock()
	r, ok := t.known[typ]
	if ok && r.lazy {
		defer t.mu.Unlock()
		return t.inflate(r.blob, r.id)
	}
	t.mu.Unlock()
	fwd, ok := typ.(*btf.Fwd)
	if !ok || fwd.Name == "" {
		return typ, nil
	}
	kind := KindStruct
	if fwd.Kind == btf.FwdUnion {
		kind = KindUnion
	}
	full, err := t.Find(kind, fwd.Name)
	if errors.Is(err, ErrNotFound) {
		return typ, nil
	}
	return full, err
}

// Modules lists the modules that have BTF, sorted by name.
func (t *Types) Modules() []string {
	names := make([]string, len(t.modules))
	for i, m := range t.modules {
		names[i] = m.name
	}
	return names
}

// Raw returns the raw BTF of a module, or of the kernel for "".
func (t *Types) Raw(module string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.blobOf(module)
	if err != nil {
		return nil, err
	}
	return b.raw, nil
}

func (t *Types) blobOf(name string) (*blob, error) {
	if name == "" {
		return t.kernel, nil
	}
	i := sort.Search(len(t.modules), func(i int) bool { return t.modules[i].name >= name })
	if i == len(t.modules) || t.modules[i].name != name {
		return nil, &NotFoundError{"module", name}
	}
	return t.modules[i].get(t.kernel)
}

func (m *module) get(base *blob) (*blob, error) {
	if m.blob == nil && m.err == nil {
		raw, err := m.load()
		if err == nil {
			m.blob, err = parse(m.name, raw, base)
		}
		if err != nil {
			m.err = fmt.Errorf("the BTF of module %s cannot be read: %w", m.name, err)
		}
	}
	return m.blob, m.err
}

// blobs iterates over the kernel's blob and those of modules. t.mu is held.
func (t *Types) blobs() iter.Seq2[*blob, error] {
	return func(yield func(*blob, error) bool) {
		if !yield(t.kernel, nil) {
			return
		}
		for _, m := range t.modules {
			if !yield(m.get(t.kernel)) {
				return
			}
		}
	}
}

// loaded returns all blobs that can be read, so that they can be walked
// without holding the lock: a caller may look up types meanwhile.
func (t *Types) loaded() []*blob {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*blob
	for b, err := range t.blobs() {
		if err == nil && b.index() == nil {
			all = append(all, b)
		}
	}
	return all
}
