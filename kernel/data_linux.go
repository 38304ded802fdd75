package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/symbol"
)

// A dataSection is a section of variables, which is an array map of one
// element to the kernel.
type dataSection struct {
	name  string
	vars  []*object.Var
	size  int
	typ   btf.Type // nil when it has none
	m     *kernelMap
	init  []byte
	mapIt sync.Once
	mem   []byte
	err   error
}

type varPlace struct {
	data   *dataSection
	offset int
}

func (d *dataSection) readOnly() bool { return strings.HasPrefix(d.name, ".rodata") }

// layOutData places the variables of each section as the object's writer does,
// in their order, and adds the types of sections.
func (l *loaded) layOutData() {
	sections := make(map[string]*dataSection)
	for _, v := range l.obj.Vars {
		if strings.HasPrefix(v.Section, ".struct_ops") {
			continue
		}
		d := sections[v.Section]
		if d == nil {
			d = &dataSection{name: v.Section}
			sections[v.Section] = d
			l.data = append(l.data, d)
		}
		align := alignment(v)
		d.size = (d.size + align - 1) / align * align
		l.vars[v] = varPlace{d, d.size}
		d.vars = append(d.vars, v)
		d.size += v.Size()
		if !v.Static || l.byName[v.Name] == nil {
			l.byName[v.Name] = v
		}
	}
	for _, d := range l.data {
		sec := &btf.Datasec{Name: d.name, Size: uint32(d.size)}
		for _, v := range d.vars {
			if v.Type == nil {
				continue
			}
			linkage := btf.GlobalVar
			if v.Static {
				linkage = btf.StaticVar
			}
			sec.Vars = append(sec.Vars, btf.VarSecinfo{
				Type:   &btf.Var{Name: v.Name, Type: v.Type, Linkage: linkage},
				Offset: uint32(l.vars[v].offset), Size: uint32(v.Size()),
			})
		}
		if len(sec.Vars) == 0 {
			continue
		}
		if _, err := l.types.add(sec); err == nil {
			d.typ = sec
		}
	}
}

// alignment is that of a variable: given, of its type, or of a number of its
// size.
func alignment(v *object.Var) int {
	switch {
	case v.Align > 0:
		return v.Align
	case v.Type != nil:
		return max(typeAlign(v.Type, 0), 1)
	}
	return scalarAlign(v.Size())
}

// scalarAlign is the alignment of a number of that size, as the object's
// writer sees it.
func scalarAlign(size int) int {
	for n := 8; n > 1; n /= 2 {
		if size >= n {
			return n
		}
	}
	return 1
}

func typeAlign(t btf.Type, depth int) int {
	if depth > coreDepth {
		return 1
	}
	switch t := bare(t).(type) {
	case *btf.Array:
		return typeAlign(t.Type, depth+1)
	case *btf.Struct, *btf.Union:
		n := 1
		for _, m := range membersOf(t) {
			n = max(n, typeAlign(m.Type, depth+1))
		}
		return n
	default:
		size, err := btf.Sizeof(t)
		if err != nil {
			size = 8
		}
		return scalarAlign(size)
	}
}

// createData makes the maps that hold variables, with the values that they
// start with.
func (l *loaded) createData() error {
	for _, d := range l.data {
		d.init = make([]byte, d.size)
		set := false
		for _, v := range d.vars {
			at := d.init[l.vars[v].offset:]
			copy(at, v.Init)
			if value, ok := l.opts.Vars[v.Name]; ok && l.byName[v.Name] == v {
				if len(value) != v.Size() {
					return fmt.Errorf("variable %s has %d bytes, and %d were given", v.Name, v.Size(), len(value))
				}
				copy(at, value)
			}
		}
		for _, b := range d.init {
			set = set || b != 0
		}
		if err := l.createSection(d, set); err != nil {
			return fmt.Errorf("section %s: %w", d.name, err)
		}
		l.maps[d.name] = d.m
	}
	return nil
}

func (l *loaded) createSection(d *dataSection, set bool) error {
	km := &kernelMap{name: d.name, typ: abi.MapArray, keySize: 4, valueSize: d.size, maxEntries: 1, flags: flagMmapable}
	if d.readOnly() {
		km.flags = flagRDOnlyProg
	}
	km.setSlot()
	attr := &attrMapCreate{typ: uint32(km.typ), keySize: 4, valueSize: uint32(d.size), maxEntries: 1, flags: km.flags, name: objName(d.name)}
	if l.opts.Replace != "" && !d.readOnly() {
		path := filepath.Join(l.opts.Replace, pinMaps, pinName(d.name))
		if err := km.open(path); err == nil {
			if d.sameLayout(km.fd) {
				d.m = km
				return nil // with the values that it has
			}
			km.close()
			km = &kernelMap{name: km.name, fd: -1, typ: km.typ, keySize: 4, valueSize: d.size, maxEntries: 1, flags: km.flags, slot: d.size}
		}
	}
	if d.typ != nil && l.types.fd >= 0 {
		attr.btfFD, attr.valueType = uint32(l.types.fd), uint32(l.types.ids[d.typ])
	}
	if err := l.sendMap(km, attr); err != nil {
		return err
	}
	d.m = km
	if set {
		if err := km.update(make([]byte, 4), d.init); err != nil {
			return named(err)
		}
	}
	if d.readOnly() {
		// A frozen map's values are constants to the verifier.
		if _, err := sysBPF(cmdMapFreeze, &attrMapElem{fd: uint32(km.fd)}); err != nil {
			return fmt.Errorf("it cannot be frozen: %w", refusedOr(err, "freezing it"))
		}
	}
	return nil
}

// sameLayout reports whether a map holds the same variables at the same places,
// as its types tell.
func (d *dataSection) sameLayout(fd int) bool {
	var info mapInfo
	if err := objInfo(fd, &info); err != nil || info.btfID == 0 || d.typ == nil {
		return false
	}
	h, err := btf.NewHandleFromID(btf.ID(info.btfID))
	if err != nil {
		return false
	}
	defer h.Close()
	spec, err := h.Spec(nil)
	if err != nil {
		return false
	}
	typ, err := spec.TypeByID(btf.TypeID(info.valueType))
	if err != nil {
		return false
	}
	there, ok1 := typ.(*btf.Datasec)
	here, ok2 := d.typ.(*btf.Datasec)
	return ok1 && ok2 && slices.EqualFunc(there.Vars, here.Vars, func(a, b btf.VarSecinfo) bool {
		return a.Offset == b.Offset && a.Size == b.Size && a.Type.TypeName() == b.Type.TypeName()
	})
}

// memory maps the section into this process.
func (d *dataSection) memory() ([]byte, error) {
	d.mapIt.Do(func() {
		d.mem, d.err = unix.Mmap(d.m.fd, 0, d.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if d.err != nil {
			d.err = fmt.Errorf("section %s cannot be mapped: %w", d.name, named(d.err))
		}
	})
	return d.mem, d.err
}

func (d *dataSection) close() {
	d.mapIt.Do(func() { d.err = os.ErrClosed })
	if d.mem != nil {
		unix.Munmap(d.mem)
		d.mem = nil
	}
}

// A kernelVar is a global variable.
type kernelVar struct {
	l     *loaded
	v     *object.Var
	place varPlace
}

func (l *loaded) Var(name string) (machine.Var, error) {
	v, ok := l.byName[name]
	if !ok {
		nearest := source.Nearest(name, func(yield func(string) bool) {
			for n := range l.byName {
				if !yield(n) {
					return
				}
			}
		})
		if nearest != "" {
			return nil, fmt.Errorf("the object has no variable %q; did you mean %q?", name, nearest)
		}
		return nil, fmt.Errorf("the object has no variable %q", name)
	}
	return &kernelVar{l, v, l.vars[v]}, nil
}

// with calls f with the variable's memory. Programs may change it meanwhile.
func (v *kernelVar) with(f func(mem []byte)) error {
	v.l.dataMu.RLock()
	defer v.l.dataMu.RUnlock()
	if v.l.dataClosed {
		return os.ErrClosed
	}
	d := v.place.data
	if d.readOnly() {
		f(d.init[v.place.offset:][:v.v.Size()])
		return nil
	}
	mem, err := d.memory()
	if err != nil {
		return err
	}
	f(mem[v.place.offset:][:v.v.Size()])
	return nil
}

func (v *kernelVar) Get() ([]byte, error) {
	b := make([]byte, v.v.Size())
	err := v.with(func(mem []byte) { copyWords(b, mem) })
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (v *kernelVar) Set(b []byte) error {
	if v.place.data.readOnly() {
		return fmt.Errorf("variable %s is constant: it can be set before the object is loaded alone", v.v.Name)
	}
	if len(b) != v.v.Size() {
		return fmt.Errorf("variable %s has %d bytes, and %d were given", v.v.Name, v.v.Size(), len(b))
	}
	return v.with(func(mem []byte) { copyWords(mem, b) })
}

// copyWords copies numbers of 8 bytes whole, so that counters are not seen
// half changed.
func copyWords(dst, src []byte) {
	for len(src) >= 8 && uintptr(unsafe.Pointer(&src[0]))%8 == 0 && uintptr(unsafe.Pointer(&dst[0]))%8 == 0 {
		*(*uint64)(unsafe.Pointer(&dst[0])) = *(*uint64)(unsafe.Pointer(&src[0]))
		dst, src = dst[8:], src[8:]
	}
	copy(dst, src)
}

// kconfigData is the map that holds values of the kernel's configuration.
type kconfigData struct {
	m       *kernelMap
	offsets map[*object.Extern]int
}

func (k *kconfigData) close() {
	if k.m != nil {
		k.m.close()
	}
}

// createKconfig makes the map behind extern variables of section .kconfig.
func (l *loaded) createKconfig(funcs []*object.Func) error {
	var externs []*object.Extern
	for _, f := range funcs {
		for _, r := range f.Relocs {
			if x, ok := r.Symbol.(*object.Extern); ok && x.Kind == object.ExternKconfig && !slices.Contains(externs, x) {
				externs = append(externs, x)
			}
		}
	}
	if len(externs) == 0 {
		return nil
	}
	k := &l.kconfig
	k.offsets = make(map[*object.Extern]int)
	var data []byte
	config := sync.OnceValues(kernelConfig)
	for _, x := range externs {
		if x.Type == nil {
			return fmt.Errorf("configuration value %s has no type", x.Name)
		}
		size, err := btf.Sizeof(x.Type)
		if err != nil || size == 0 || size > 1<<16 {
			return fmt.Errorf("configuration value %s has a type without a size", x.Name)
		}
		for len(data)%8 != 0 {
			data = append(data, 0)
		}
		k.offsets[x] = len(data)
		value := make([]byte, size)
		if err := kconfigValue(value, x, config); err != nil {
			return err
		}
		data = append(data, value...)
	}
	d := &dataSection{name: ".rodata.kconfig", size: len(data), init: data}
	if err := l.createSection(d, true); err != nil {
		return fmt.Errorf("section .kconfig: %w", err)
	}
	k.m = d.m
	return nil
}

// kconfigValue writes one value, as libbpf has them: options of the kernel's
// configuration, and a few that are none.
func kconfigValue(dst []byte, x *object.Extern, config func() (map[string]string, error)) error {
	switch x.Name {
	case "LINUX_KERNEL_VERSION":
		t, err := Target()
		if err != nil {
			return err
		}
		put(dst, uint64(t.Release().Code()))
		return nil
	case "LINUX_HAS_BPF_COOKIE":
		put(dst, 1) // since 5.15, and the floor is newer
		return nil
	case "LINUX_HAS_SYSCALL_WRAPPER":
		put(dst, 1) // since 4.17
		return nil
	}
	options, err := config()
	text, ok := options[x.Name]
	if !ok {
		if x.Weak {
			return nil
		}
		if err != nil {
			return fmt.Errorf("configuration value %s is needed: %w", x.Name, err)
		}
		return fmt.Errorf("the kernel's configuration does not have %s", x.Name)
	}
	switch text {
	case "y":
		put(dst, tristate(x, 1, 'y'))
		return nil
	case "n":
		put(dst, tristate(x, 0, 'n'))
		return nil
	case "m":
		put(dst, tristate(x, 2, 'm'))
		return nil
	}
	if s, err := strconv.Unquote(text); err == nil {
		copy(dst[:len(dst)-1], s)
		return nil
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		u, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return fmt.Errorf("the kernel's configuration has %s=%s, which is no number", x.Name, text)
		}
		n = int64(u)
	}
	put(dst, uint64(n))
	return nil
}

// tristate is y, n or m as the variable's type has it: a character, a bool,
// or libbpf's enum libbpf_tristate (TRI_NO, TRI_YES, TRI_MODULE).
func tristate(x *object.Extern, value uint64, char byte) uint64 {
	if i, ok := bare(x.Type).(*btf.Int); ok && i.Size == 1 && (i.Encoding == btf.Char || i.Name == "char") {
		return uint64(char)
	}
	return value
}

// kernelConfig reads the configuration that the kernel was built with.
func kernelConfig() (map[string]string, error) {
	var text []byte
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("/proc/config.gz cannot be read: %w", err)
		}
		if text, err = io.ReadAll(io.LimitReader(z, 16<<20)); err != nil {
			return nil, fmt.Errorf("/proc/config.gz cannot be read: %w", err)
		}
	} else {
		t, err := Target()
		if err != nil {
			return nil, err
		}
		path := "/boot/config-" + t.Release().Text
		if text, err = os.ReadFile(path); err != nil {
			return nil, errors.New("the kernel's configuration is not to be had: there is neither /proc/config.gz nor " + path)
		}
	}
	options := make(map[string]string)
	for line := range bytes.Lines(text) {
		name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte("="))
		if ok && bytes.HasPrefix(name, []byte("CONFIG_")) {
			options[string(name)] = string(value)
		}
	}
	return options, nil
}

// kernelSymbols finds the addresses of symbols in one reading of
// /proc/kallsyms.
func kernelSymbols(names []string) (map[string]uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, cannotRead("/proc/kallsyms", err)
	}
	defer f.Close()
	found, err := symbol.LookupKallsyms(f, names...)
	if errors.Is(err, symbol.ErrKernelAddressesHidden) {
		return nil, &PrivilegeError{
			What: "reading the kernel's addresses", Err: named(unix.EPERM), Missing: missingCaps(needs{syslog: true}),
			Why: "/proc/kallsyms hides them (kernel.kptr_restrict)",
		}
	}
	if err != nil {
		return nil, err
	}
	addrs := make(map[string]uint64, len(found))
	for name, symbols := range found {
		if len(symbols) > 0 {
			addrs[name] = symbols[0].Addr
		}
	}
	return addrs, nil
}
