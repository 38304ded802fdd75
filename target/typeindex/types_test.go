package typeindex_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target/targettest"
	"github.com/skep-bpf/skep/target/typeindex"
)

func open(t *testing.T) *typeindex.Types {
	t.Helper()
	types, err := typeindex.New(targettest.Kernel(t).Blobs[""], nil)
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func member(t *testing.T, s *btf.Struct, name string) btf.Member {
	t.Helper()
	i := slices.IndexFunc(s.Members, func(m btf.Member) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("struct %s has no member %s", s.Name, name)
	}
	return s.Members[i]
}

func TestStruct(t *testing.T) {
	types := open(t)
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	if task.Size != 128 || len(task.Members) != 10 {
		t.Errorf("task_struct: size %d, %d members", task.Size, len(task.Members))
	}
	if m := member(t, task, "in_iowait"); m.Offset != 33 || m.BitfieldSize != 1 {
		t.Errorf("in_iowait: %+v", m)
	}
	if m := member(t, task, "tasks"); m.Type.TypeName() != "list_head" {
		t.Errorf("tasks is %v", m.Type)
	} else if list := m.Type.(*btf.Struct); len(list.Members) != 2 {
		t.Errorf("a struct held by value has %d members", len(list.Members))
	}
	again, err := types.Struct("task_struct")
	if again != task || err != nil {
		t.Error("a second look-up gives another value")
	}
}

func TestResolve(t *testing.T) {
	types := open(t)
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	target := member(t, task, "mm").Type.(*btf.Pointer).Target
	fwd, ok := target.(*btf.Fwd)
	if !ok || fwd.Name != "mm_struct" || fwd.Kind != btf.FwdStruct {
		t.Fatalf("mm points to %v", target)
	}
	full, err := types.Resolve(fwd)
	if err != nil {
		t.Fatal(err)
	}
	mm, err := types.Struct("mm_struct")
	if err != nil || full != btf.Type(mm) {
		t.Errorf("Resolve gives %v, Struct %v, %v", full, mm, err)
	}
	if !types.Same(fwd, mm) || types.Same(fwd, task) {
		t.Error("Same does not see that the placeholder is mm_struct")
	}
	// Through a type tag, and back to the struct itself.
	parent := member(t, task, "real_parent").Type.(*btf.Pointer).Target
	full, err = types.Resolve(parent)
	if err != nil {
		t.Fatal(err)
	}
	if tag, ok := full.(*btf.TypeTag); !ok || tag.Type != btf.Type(task) || tag.Value != "rcu" {
		t.Errorf("real_parent points to %v", full)
	}
	// What is complete stays, what is nobody's is looked up by name.
	if got, err := types.Resolve(task); got != btf.Type(task) || err != nil {
		t.Errorf("Resolve(task_struct) = %v, %v", got, err)
	}
	if got, err := types.Resolve(&btf.Fwd{Name: "inode"}); err != nil || got.(*btf.Struct).Size != 16 {
		t.Errorf("Resolve(struct inode) = %v, %v", got, err)
	}
	unknown := &btf.Fwd{Name: "opaque"}
	if got, err := types.Resolve(unknown); got != btf.Type(unknown) || err != nil {
		t.Errorf("Resolve(struct opaque) = %v, %v", got, err)
	}
}

func TestKinds(t *testing.T) {
	types := open(t)
	fn, err := types.Func("vfs_read")
	if err != nil {
		t.Fatal(err)
	}
	proto := fn.Type.(*btf.FuncProto)
	if len(proto.Params) != 4 || proto.Params[0].Name != "file" || proto.Return.TypeName() != "ssize_t" {
		t.Errorf("vfs_read: %v", proto)
	}
	for _, c := range []struct {
		name  string
		value uint64
		enum  string
	}{
		{"TCP_LISTEN", 10, "tcp_state"},
		{"MINUS_ONE", math.MaxUint64, "sign"},
		{"BIG_ONE", 1 << 40, "big"},
	} {
		e, err := types.Enumerator(c.name)
		if err != nil || e.Value != c.value || e.Enum.Name != c.enum {
			t.Errorf("%s = %d of %v, %v", c.name, e.Value, e.Enum, err)
		}
	}
	if e, err := types.Enumerator("LISTEN"); !errors.Is(err, typeindex.ErrNotFound) {
		t.Errorf("the end of a name gives %v, %v", e, err)
	}
	if v, err := types.Var("runqueues"); err != nil || v.Type.TypeName() != "list_head" {
		t.Errorf("runqueues: %v, %v", v, err)
	}
	if n, err := types.Named("u64"); err != nil || n.TypeName() != "u64" {
		t.Errorf("u64: %v, %v", n, err)
	}
	if n, err := types.Named("unsigned int"); err != nil || n.TypeName() != "unsigned int" {
		t.Errorf("unsigned int: %v, %v", n, err)
	}
	// A tag is no C name, and a struct no union.
	for _, err := range []error{
		second(types.Named("task_struct")), second(types.Union("task_struct")), second(types.Func("task_struct")),
		second(types.Struct("")), second(types.Struct("task_struct\x00")), second(types.Struct("task")),
	} {
		var notFound *typeindex.NotFoundError
		if !errors.As(err, &notFound) || !errors.Is(err, typeindex.ErrNotFound) {
			t.Errorf("want a NotFoundError, have %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// The table of hashes that many look-ups bring gives what scans give.
func TestManyLookups(t *testing.T) {
	types := open(t)
	for range 3 {
		for e := range types.Names(typeindex.KindAny, "") {
			typ, err := types.Find(e.Kind, e.Name)
			if err != nil {
				t.Errorf("%+v: %v", e, err)
				continue
			}
			if _, id, ok := types.ID(typ); id != e.ID || !ok {
				t.Errorf("%+v has ID %d", e, id)
			}
		}
		if _, err := types.Struct("nothing"); !errors.Is(err, typeindex.ErrNotFound) {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	types := open(t)
	var names []string
	for e := range types.Names(typeindex.KindFunc, "vfs_") {
		names = append(names, e.Name)
	}
	if !slices.Equal(names, []string{"vfs_read", "vfs_write", "vfs_open"}) {
		t.Errorf("functions: %v", names)
	}
	names = slices.Collect(types.Enumerators("TCP_S"))
	if !slices.Equal(names, []string{"TCP_SYN_SENT"}) {
		t.Errorf("enumerators: %v", names)
	}
	for range types.Names(typeindex.KindAny, "") {
		break // a consumer may stop
	}
}

func TestBigEndian(t *testing.T) {
	point := &btf.Struct{Name: "point", Size: 8, Members: []btf.Member{
		{Name: "x", Type: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Offset: 0},
		{Name: "y", Type: &btf.Int{Name: "char", Size: 1}, Offset: 32},
	}}
	types, err := typeindex.New(targettest.Marshal(t, binary.BigEndian, point), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := types.Struct("point")
	if err != nil || got.Size != 8 || len(got.Members) != 2 || got.Members[1].Offset != 32 {
		t.Errorf("%v, %v", got, err)
	}
}

// split turns BTF of its own into BTF that is split against a kernel without
// types of its own in it: IDs and names are moved behind the kernel's.
func split(t *testing.T, kernel []byte, types ...btf.Type) []byte {
	t.Helper()
	raw := targettest.Marshal(t, binary.LittleEndian, types...)
	le := binary.LittleEndian
	spec, err := btf.LoadSpecFromReader(strings.NewReader(string(kernel)))
	if err != nil {
		t.Fatal(err)
	}
	last := uint32(0)
	for range spec.All() {
		last++
	}
	last-- // void
	strs := le.Uint32(kernel[20:])
	// Only structs of one member, ints and functions without parameters occur.
	body := raw[24 : 24+le.Uint32(raw[12:])]
	for off := 0; off < len(body); {
		p := body[off:]
		move := func(at int, by uint32) {
			if v := le.Uint32(p[at:]); v != 0 {
				le.PutUint32(p[at:], v+by)
			}
		}
		move(0, strs)
		switch kind := le.Uint32(p[4:]) >> 24 & 0x1f; kind {
		case 1:
			off += 16
		case 4:
			move(12, strs)
			move(16, last)
			off += 24
		case 12:
			move(8, last)
			off += 12
		case 2:
			move(8, last)
			off += 12
		case 13:
			move(8, last)
			off += 12
		default:
			t.Fatalf("kind %d", kind)
		}
	}
	return raw
}

func TestModules(t *testing.T) {
	kernel := targettest.Kernel(t).Blobs[""]
	int4 := &btf.Int{Name: "module_int", Size: 4}
	loads := 0
	ext4 := split(t, kernel,
		&btf.Struct{Name: "ext4_inode", Size: 4, Members: []btf.Member{{Name: "magic", Type: int4}}},
		&btf.Func{Name: "ext4_sync_file", Type: &btf.FuncProto{Return: int4}})
	types, err := typeindex.New(kernel, []typeindex.Module{
		{Name: "zfs", Load: func() ([]byte, error) { return nil, errors.New("gone") }},
		{Name: "ext4", Load: func() ([]byte, error) { loads++; return ext4, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := types.Struct("task_struct"); err != nil || loads != 0 {
		t.Errorf("%v; %d modules were read for a type of the kernel", err, loads)
	}
	s, err := types.Struct("ext4_inode")
	if err != nil || s.Members[0].Type.TypeName() != "module_int" {
		t.Fatalf("%v, %v", s, err)
	}
	if module, _, ok := types.ID(s); module != "ext4" || !ok {
		t.Errorf("ext4_inode is of module %q", module)
	}
	if _, err := types.FindIn("ext4", typeindex.KindFunc, "ext4_sync_file"); err != nil {
		t.Error(err)
	}
	if _, err := types.FindIn("", typeindex.KindFunc, "ext4_sync_file"); !errors.Is(err, typeindex.ErrNotFound) {
		t.Error(err)
	}
	if _, err := types.FindIn("xfs", typeindex.KindFunc, "f"); !errors.Is(err, typeindex.ErrNotFound) {
		t.Error(err)
	}
	if _, err := types.Struct("nothing"); !errors.Is(err, typeindex.ErrNotFound) || !strings.Contains(err.Error(), "zfs") {
		t.Errorf("an unreadable module is not named: %v", err)
	}
	if got := types.Modules(); !slices.Equal(got, []string{"ext4", "zfs"}) {
		t.Errorf("modules: %v", got)
	}
	if loads != 1 {
		t.Errorf("the module was read %d times", loads)
	}
}

// BTF can be built from what was looked up, as compilers do.
func TestMarshalAgain(t *testing.T) {
	types := open(t)
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	raw := targettest.Marshal(t, binary.LittleEndian, task)
	again, err := typeindex.New(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Struct("task_struct"); err != nil || fmt.Sprintf("%v", got) != fmt.Sprintf("%v", task) {
		t.Errorf("%v, %v", got, err)
	}
}

// blob writes BTF by hand, little-endian: words are the type section.
func blob(strs string, words ...uint32) []byte {
	le := binary.LittleEndian
	b := []byte{0x9f, 0xeb, 1, 0}
	for _, w := range []uint32{24, 0, uint32(4 * len(words)), uint32(4 * len(words)), uint32(len(strs))} {
		b = le.AppendUint32(b, w)
	}
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	return append(b, strs...)
}

func TestHostile(t *testing.T) {
	const (
		structKind  = 4 << 24
		typedefKind = 8 << 24
		ptrKind     = 2 << 24
		funcKind    = 12 << 24
	)
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty":             {nil, "ends early"},
		"magic":             {make([]byte, 64), "magic"},
		"struct in itself":  {blob("\x00s\x00", 1, structKind|1, 8, 0, 1, 0), "contains itself"},
		"typedef of itself": {blob("\x00s\x00", 1, typedefKind, 1), "contains itself"},
		"type beyond":       {blob("\x00s\x00", 1, typedefKind, 9), "not found"},
		"name beyond":       {blob("\x00s\x00", 1, structKind|1, 8, 99, 0, 0), "outside"},
		"unknown kind":      {blob("\x00s\x00", 1, 30<<24, 0), "kind 30"},
		"short member":      {blob("\x00s\x00", 1, structKind|7, 8, 0), "ends early"},
		"function of int":   {blob("\x00s\x00", 1, funcKind, 2, 0, 1<<24, 4, 32), "no prototype"},
		"strings":           {blob("\x00s", 1, typedefKind, 0), "zero byte"},
	} {
		types, err := typeindex.New(c.raw, nil)
		if err == nil {
			_, err = types.Find(typeindex.KindAny, "s")
			if err == nil {
				_, err = types.ByID("", 1)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	// A pointer to itself is odd, and no cycle by value.
	types, err := typeindex.New(blob("\x00s\x00", 0, ptrKind, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := types.ByID("", 1)
	if err != nil || p.(*btf.Pointer).Target != p {
		t.Errorf("%v, %v", p, err)
	}
	// After a failure nothing half-made is left.
	types, err = typeindex.New(blob("\x00s\x00", 1, structKind|2, 8, 0, 2, 0, 0, 9, 0, 0, ptrKind, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, err := types.Struct("s"); err == nil {
			t.Errorf("%v", s)
		}
	}
}

func FuzzTypes(f *testing.F) {
	f.Add(targettest.Kernel(f).Blobs[""], "task_struct")
	f.Add(blob("\x00s\x00", 1, 4<<24|1, 8, 0, 1, 0), "s")
	f.Add(blob("\x00s\x00", 1, 8<<24, 1), "s")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		types, err := typeindex.New(raw, []typeindex.Module{{Name: "m", Load: func() ([]byte, error) { return raw, nil }}})
		if err != nil {
			return
		}
		_, _ = types.Enumerator(name)
		n := 0
		for e := range types.Names(typeindex.KindAny, "") {
			if n++; n > 200 {
				break
			}
			typ, err := types.ByID(e.Module, e.ID)
			if err != nil {
				continue
			}
			if typ.TypeName() != e.Name {
				t.Errorf("%+v became %v", e, typ)
			}
			_, _ = btf.Sizeof(typ)
			if _, err := types.Resolve(typ); err != nil {
				t.Errorf("Resolve of a complete type: %v", err)
			}
			// The first of that name may be damaged, but there is one.
			found, err := types.Find(e.Kind, e.Name)
			if errors.Is(err, typeindex.ErrNotFound) && !strings.Contains(err.Error(), "damaged") || err == nil && found.TypeName() != e.Name {
				t.Errorf("Find(%v, %q) = %v, %v", e.Kind, e.Name, found, err)
			}
		}
	})
}

func TestSubset(t *testing.T) {
	types := open(t)
	spec, err := types.Subset("task_struct", "tcp_state___old", "nothing", "task_struct")
	if err != nil {
		t.Fatal(err)
	}
	var task *btf.Struct
	if err := spec.TypeByName("task_struct", &task); err != nil || len(task.Members) != 10 || task.Size != 128 {
		t.Errorf("%v, %v", task, err)
	}
	var state *btf.Enum
	if err := spec.TypeByName("tcp_state", &state); err != nil || len(state.Values) != 3 {
		t.Errorf("%v, %v", state, err)
	}
	var file *btf.Struct
	if err := spec.TypeByName("file", &file); !errors.Is(err, btf.ErrNotFound) {
		t.Errorf("a type that nobody asked for: %v, %v", file, err)
	}
}
