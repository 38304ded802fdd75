package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// New returns the Linux kernel that skep runs on.
func New() machine.Machine { return kernelMachine{} }

type kernelMachine struct{}

func (kernelMachine) Name() string { return "kernel" }

// loaded is an object in the kernel.
type loaded struct {
	obj   *object.Object
	opts  machine.LoadOptions
	token int // -1 for none
	types *objectTypes
	core  relocator

	mapOf   map[*object.Map]*kernelMap
	maps    map[string]*kernelMap // data sections too
	vars    map[*object.Var]varPlace
	byName  map[string]*object.Var
	kconfig kconfigData
	data    []*dataSection
	progs   map[string]*program
	order   []*program

	symbols map[string]uint64
	modules map[string]*btf.Handle

	mu     sync.Mutex // guards pieces, variants and all below
	pieces map[*object.Func]*piece
	links  map[*fdLink]struct{}
	taken  map[string]bool // pins of links that were taken over
	usdt   map[string]int  // numbers of what tells about USDT places
	stats  int             // descriptor that keeps statistics on, -1 for none
	closed bool

	opsMu      sync.Mutex
	registered map[*object.Var]bool // struct_ops that have a link

	dataMu     sync.RWMutex // held while the memory of variables is used
	dataClosed bool
}

// A program is one that the object has. The kernel may hold it more than once:
// what it is attached to, and by which kind of link, is fixed when it is
// loaded.
type program struct {
	name     string
	fn       *object.Func
	point    hook.Point // of its section
	abi      abi.Section
	points   []hook.Point // of the manifest
	variants []*variant
}

// A variantKey is what the kernel wants to know of an attachment beforehand.
type variantKey struct {
	attach   abi.AttachType
	module   string
	function string // kernel function or type that is attached to
	progID   uint32 // of a program that is attached to
}

type variant struct {
	key variantKey
	fd  int
	log string
	img *image
}

var errNoTypes = errors.New("the kernel has no type information")

// noTypes is errNoTypes with a cause that says so itself, and what it takes.
type noTypes struct{ cause error }

func (e *noTypes) Error() string   { return e.cause.Error() }
func (e *noTypes) Unwrap() []error { return []error{errNoTypes, e.cause} }

func (kernelMachine) Load(ctx context.Context, elf []byte, o machine.LoadOptions) (machine.Loaded, error) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, errors.New("programs are loaded by 64-bit machines alone")
	}
	obj, err := object.Unmarshal(elf)
	if err != nil {
		return nil, err
	}
	if isBig := obj.ByteOrder().Uint16([]byte{0, 1}) == 1; isBig != hostBigEndian {
		here, there, target := "little", "big", "bpfel"
		if hostBigEndian {
			here, there, target = "big", "little", "bpfeb"
		}
		return nil, fmt.Errorf("the object is %s-endian and this machine is %s-endian: build it for this machine (with clang, by -target %s)", there, here, target)
	}
	if obj.Arch != "" && obj.Arch != runtime.GOARCH {
		return nil, fmt.Errorf("the object was built for %s, and this machine is %s", obj.Arch, runtime.GOARCH)
	}
	l := &loaded{
		obj: obj, opts: o, token: -1, stats: -1, types: newObjectTypes(),
		mapOf: make(map[*object.Map]*kernelMap), maps: make(map[string]*kernelMap),
		vars: make(map[*object.Var]varPlace), byName: make(map[string]*object.Var),
		progs: make(map[string]*program), pieces: make(map[*object.Func]*piece),
		modules: make(map[string]*btf.Handle), links: make(map[*fdLink]struct{}),
	}
	l.core = relocator{types: kernelTypes, localID: l.types.add}
	if err := l.load(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// kernelTypes are the types of the running kernel.
func kernelTypes() (*typeindex.Types, error) {
	t, err := Target()
	if err != nil {
		return nil, err
	}
	types, err := t.Types()
	if err != nil {
		return nil, &noTypes{err}
	}
	return types, nil
}

func (l *loaded) load(ctx context.Context) error {
	if l.opts.TokenPath != "" {
		fd, err := createToken(l.opts.TokenPath)
		if err != nil {
			return err
		}
		l.token = fd
	}
	if err := l.findPrograms(); err != nil {
		return err
	}
	needed := l.neededFuncs()
	if err := l.prepareTypes(needed); err != nil {
		return err
	}
	for _, step := range []func() error{
		l.createMaps,
		l.createData,
		func() error { return l.createKconfig(needed) },
		func() error { return l.findSymbols(needed) },
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	if l.opts.Stats {
		fd, err := sysBPF(cmdEnableStats, &attrID{id: 0 /* BPF_STATS_RUN_TIME */})
		if err != nil {
			return refused("counting the runs of programs", err, needs{admin: true})
		}
		l.stats = fd
	}
	if err := l.loadPrograms(ctx); err != nil {
		return err
	}
	return l.fillMaps()
}

// findPrograms sorts out what the sections of functions say.
func (l *loaded) findPrograms() error {
	skip := make(map[string]bool, len(l.opts.Skip))
	for _, name := range l.opts.Skip {
		skip[name] = true
	}
	hooks := make(map[string][]hook.Point)
	if m := l.obj.Manifest; m != nil {
		for _, p := range m.Programs {
			hooks[p.Name] = manifestPoints(m, p)
		}
	}
	for _, f := range l.obj.Funcs {
		if f.Section == "" || skip[f.Name] {
			continue
		}
		if l.progs[f.Name] != nil {
			return fmt.Errorf("the object has two programs called %s", f.Name)
		}
		point, err := hook.ParseSection(f.Section)
		if err != nil {
			return fmt.Errorf("program %s cannot be loaded: %w", f.Name, err)
		}
		p := &program{name: f.Name, fn: f, point: point, points: hooks[f.Name]}
		if p.abi, err = sectionType(f.Section, point); err != nil {
			return fmt.Errorf("program %s cannot be loaded: %w", f.Name, err)
		}
		l.progs[f.Name] = p
		l.order = append(l.order, p)
	}
	return nil
}

// sectionType is the type of program that a section holds. Libbpf is strict
// with names that take no extras; here a label may follow ("xdp/drop").
func sectionType(name string, p hook.Point) (abi.Section, error) {
	for n := name; ; {
		if s, _, ok := abi.ParseSection(n); ok {
			return s, nil
		}
		i := strings.LastIndexByte(n, '/')
		if i < 0 {
			return abi.Section{}, fmt.Errorf("the section %q is of no kind of program that is known", name)
		}
		n = n[:i]
	}
}

func manifestPoints(m *object.Manifest, p object.Program) []hook.Point {
	names := m.Hooks(&p)
	if p.Hook != "" {
		names = []string{p.Hook}
	}
	var points []hook.Point
	for _, name := range names {
		if pt, err := hook.Parse(name); err == nil {
			points = append(points, pt)
		}
	}
	return points
}

// neededFuncs returns the programs and all that they refer to.
func (l *loaded) neededFuncs() []*object.Func {
	seen := make(map[*object.Func]bool)
	var all []*object.Func
	add := func(f *object.Func) {
		if !seen[f] {
			seen[f] = true
			all = append(all, f)
		}
	}
	for _, p := range l.order {
		add(p.fn)
	}
	for i := 0; i < len(all); i++ {
		for _, r := range all[i].Relocs {
			if f, ok := r.Symbol.(*object.Func); ok {
				add(f)
			}
		}
	}
	return all
}

// prepareTypes gives the kernel the types of what is needed. Where it does not
// take them it still loads most programs.
func (l *loaded) prepareTypes(funcs []*object.Func) error {
	t := l.types
	for _, f := range funcs {
		if err := t.addFunc(f); err != nil {
			return err
		}
		for i := range f.CORE {
			if f.CORE[i].Kind == object.CORETypeLocal {
				if _, err := t.add(f.CORE[i].Type); err != nil {
					return fmt.Errorf("function %s: %w", f.Name, err)
				}
			}
		}
	}
	for _, m := range l.obj.Maps {
		for _, typ := range []btf.Type{m.Key, m.Value} {
			if typ != nil {
				if _, err := t.add(typ); err != nil {
					return fmt.Errorf("map %s: %w", m.Name, err)
				}
			}
		}
	}
	l.layOutData()
	if err := t.finish(); err != nil {
		return err
	}
	for _, f := range funcs {
		for _, line := range f.Lines {
			where := line.Where()
			t.text(where.File)
			t.text(where.Text)
		}
	}
	if t.err = t.load(l.token); errors.Is(t.err, unix.EPERM) {
		return refused("loading an object's types", t.err, needs{bpf: true, token: l.token >= 0})
	}
	return nil
}

// findSymbols looks up all addresses that programs ask for, in one reading.
func (l *loaded) findSymbols(funcs []*object.Func) error {
	var names []string
	needed := ""
	for _, f := range funcs {
		for _, r := range f.Relocs {
			x, ok := r.Symbol.(*object.Extern)
			if !ok || x.Kind != object.ExternKsym || slices.Contains(names, x.Name) {
				continue
			}
			names = append(names, x.Name)
			if !x.Weak {
				needed = x.Name
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	found, err := kernelSymbols(names)
	if err != nil && needed != "" {
		return fmt.Errorf("the address of the kernel's %s is needed: %w", needed, err)
	}
	l.symbols = found
	return nil
}

func (l *loaded) symbolAddr(name string) (uint64, error) {
	addr, ok := l.symbols[name]
	if !ok {
		return 0, fmt.Errorf("the kernel has no symbol %s", name)
	}
	return addr, nil
}

// kernelType finds a type of the kernel or a module, with its number.
func (l *loaded) kernelType(kind typeindex.Kind, name string) (module string, id btf.TypeID, typ btf.Type, err error) {
	types, err := kernelTypes()
	if err != nil {
		return "", 0, nil, err
	}
	typ, err = types.Find(kind, name)
	if err != nil {
		return "", 0, nil, err
	}
	module, id, _ = types.ID(typ)
	return module, id, typ, nil
}

// moduleFD opens the types of a module, 0 for the kernel's own.
func (l *loaded) moduleFD(module string) (int, error) {
	if module == "" {
		return 0, nil
	}
	if h, ok := l.modules[module]; ok {
		return h.FD(), nil
	}
	it := new(btf.HandleIterator)
	defer it.Handle.Close()
	for it.Next() {
		info, err := it.Handle.Info()
		if err != nil {
			continue
		}
		if info.IsModule() && info.Name == module {
			h := it.Take()
			l.modules[module] = h
			return h.FD(), nil
		}
	}
	if err := it.Err(); err != nil {
		return 0, refused("looking for the types of module "+module, err, needs{admin: true})
	}
	return 0, fmt.Errorf("the types of module %s are not to be found", module)
}

// loadPrograms loads every program as it will most likely be attached, side by
// side: the verifier takes most of the time.
func (l *loaded) loadPrograms(ctx context.Context) error {
	type job struct {
		p   *program
		key variantKey
	}
	var jobs []job
	for _, p := range l.order {
		if p.point.Manual && len(p.points) == 0 {
			continue // loaded when somebody asks for it
		}
		key, ok := l.guess(p)
		if ok {
			jobs = append(jobs, job{p, key})
		}
	}
	errs := make([]error, len(jobs))
	sideBySide(len(jobs), runtime.GOMAXPROCS(0), func(i int) {
		if err := ctx.Err(); err != nil {
			errs[i] = err
			return
		}
		_, errs[i] = l.variant(jobs[i].p, jobs[i].key)
	})
	return errors.Join(errs...)
}

// sideBySide calls f for 0 to n-1, at most limit at a time.
func sideBySide(n, limit int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, limit) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				f(i)
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// guess says how a program will be attached, as far as the object tells. ok is
// false where it cannot be loaded before one knows.
func (l *loaded) guess(p *program) (key variantKey, ok bool) {
	points := p.points
	if len(points) == 0 {
		points = []hook.Point{p.point}
	}
	switch {
	case p.abi.ProgType == abi.ProgKprobe:
		if p.abi.AttachType == abi.AttachTraceKprobeSession || p.abi.AttachType == abi.AttachTraceUprobeSession {
			return variantKey{attach: p.abi.AttachType}, true
		}
		return variantKey{attach: l.multiType(p, points)}, true
	case p.abi.ProgType == abi.ProgStructOps:
		key, err := l.opsKey(p)
		return key, err == nil
	case p.abi.BTF:
		key, err := attachKey(p, points[0], "")
		return key, err == nil
	}
	return variantKey{attach: p.abi.AttachType}, true
}

// variant returns the program as the kernel holds it for one kind of
// attachment, and loads it the first time.
func (l *loaded) variant(p *program, key variantKey) (*variant, error) {
	l.mu.Lock()
	for _, v := range p.variants {
		if v.key == key {
			l.mu.Unlock()
			return v, nil
		}
	}
	if l.closed {
		l.mu.Unlock()
		return nil, os.ErrClosed
	}
	var img *image
	var err error
	if len(p.variants) > 0 {
		img = p.variants[0].img
	} else if img, err = l.link(p.fn); err != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("program %s: %w", p.name, err)
	}
	btfID, attachFD, release, err := l.attachType(p, key)
	l.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", p.name, err)
	}
	defer release()
	v, err := l.loadProgram(p, key, img, btfID, attachFD)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range p.variants {
		if other.key == key { // loaded meanwhile
			unix.Close(v.fd)
			return other, nil
		}
	}
	if l.closed {
		unix.Close(v.fd)
		return nil, os.ErrClosed
	}
	p.variants = append(p.variants, v)
	return v, nil
}

// attachType finds what a program's key means in the running kernel.
func (l *loaded) attachType(p *program, key variantKey) (id btf.TypeID, fd int, release func(), err error) {
	release = func() {}
	if key.progID != 0 {
		return programTarget(key.progID, key.function)
	}
	if key.function == "" {
		return 0, 0, release, nil
	}
	types, err := kernelTypes()
	if err != nil {
		return 0, 0, release, err
	}
	kind, prefix, what := typeindex.KindFunc, "", "function"
	switch attach := key.attach; {
	case p.abi.ProgType == abi.ProgStructOps: // whose attach types are members
		kind, what = typeindex.KindStruct, "struct"
	case attach == abi.AttachTraceRawTp:
		kind, prefix, what = typeindex.KindTypedef, "btf_trace_", "raw tracepoint"
	case attach == abi.AttachLSMMac, attach == abi.AttachLSMCgroup:
		prefix, what = "bpf_lsm_", "LSM hook"
	case attach == abi.AttachTraceIter:
		prefix, what = "bpf_iter_", "iterator"
	}
	var typ btf.Type
	switch key.module {
	case "":
		typ, err = types.Find(kind, prefix+key.function)
	case "vmlinux":
		typ, err = types.FindIn("", kind, prefix+key.function)
	default:
		typ, err = types.FindIn(key.module, kind, prefix+key.function)
	}
	if errors.Is(err, typeindex.ErrNotFound) {
		return 0, 0, release, noSuch(types, kind, prefix, what, key.module, key.function)
	}
	if err != nil {
		return 0, 0, release, err
	}
	module, id, _ := types.ID(typ)
	fd, err = l.moduleFD(module)
	return id, fd, release, err
}

// noSuch says that the kernel has no such thing, and what it has instead.
func noSuch(types *typeindex.Types, kind typeindex.Kind, prefix, what, module, name string) error {
	in := "the kernel"
	if module != "" {
		in = "module " + module
	}
	nearest := source.Nearest(name, func(yield func(string) bool) {
		for e := range types.Names(kind, prefix) {
			if !yield(e.Name[len(prefix):]) {
				return
			}
		}
	})
	err := fmt.Errorf("%s has no %s %q: %w", in, what, name, target.ErrNotFound)
	if nearest != "" {
		err = fmt.Errorf("%s has no %s %q; did you mean %q?: %w", in, what, name, nearest, target.ErrNotFound)
	}
	return err
}

// loadProgram is BPF_PROG_LOAD.
func (l *loaded) loadProgram(p *program, key variantKey, img *image, btfID btf.TypeID, attachFD int) (*variant, error) {
	license, err := cstring(l.obj.License)
	if err != nil {
		return nil, fmt.Errorf("the object's license is %w", err)
	}
	attr := &attrProgLoad{
		typ: uint32(p.abi.ProgType), attachType: uint32(key.attach), name: objName(p.name),
		insns: ptr(img.code), insnCount: uint32(len(img.code) / 8), license: license,
		attachBTFID: uint32(btfID), attachFD: uint32(attachFD), fdArray: ptr(img.fdArray),
	}
	if l.types.fd >= 0 {
		attr.btfFD = uint32(l.types.fd)
		attr.funcInfo, attr.funcInfoSize, attr.funcInfoCount = ptr(img.funcInfo), funcInfoSize, uint32(len(img.funcInfo)/funcInfoSize)
		attr.lineInfo, attr.lineInfoSize, attr.lineInfoCount = ptr(img.lineInfo), lineInfoSize, uint32(len(img.lineInfo)/lineInfoSize)
	}
	if p.abi.Sleepable {
		attr.flags |= flagSleepable
	}
	if p.abi.Frags {
		attr.flags |= flagXDPFrags
	}
	if l.token >= 0 {
		attr.flags |= flagTokenFD
		attr.tokenFD = int32(l.token)
	}
	var log []byte
	size := uint32(64 << 10)
	if l.opts.LogSize > 0 {
		size = uint32(min(max(l.opts.LogSize, 128), maxLogSize))
	}
	if l.opts.Verbose {
		attr.logLevel = 1 | 4 // branches and statistics
	}
	var fd int
	var first error // the verdict, not the complaints about the log
	for {
		if attr.logLevel != 0 {
			log = make([]byte, size)
			attr.log, attr.logSize = ptr(log), size
		}
		fd, err = sysBPF(cmdProgLoad, attr)
		if err == nil {
			return &variant{key: key, fd: fd, log: cut(log), img: img}, nil
		}
		switch {
		case errors.Is(err, unix.ENOSPC) && attr.logLevel != 0 && size < maxLogSize:
			size = min(max(size*4, attr.logTrueSize), maxLogSize)
			continue
		case attr.logLevel == 0:
			first = err
			attr.logLevel = 1
			continue
		}
		if first == nil || errors.Is(first, unix.ENOSPC) {
			first = err
		}
		return nil, l.programError(p, key, img, cut(log), first)
	}
}

// maxLogSize bounds the verifier's log.
const maxLogSize = 128 << 20

// programError puts the kernel's refusal of a program into words.
func (l *loaded) programError(p *program, key variantKey, img *image, log string, err error) error {
	slot, said := verdict(log)
	message := ""
	if len(said) > 0 {
		message = said[len(said)-1]
	}
	if message == "" && slot < 0 {
		// The verifier did not get to see it.
		if l.types.err != nil {
			err = fmt.Errorf("%w (its types were refused before: %w)", err, l.types.err)
		}
		return l.notVerified(p, key, err)
	}
	e := &VerifierError{Program: p.name, Log: log, Message: message, Slot: slot, Err: err, Func: p.name}
	f, insn, note := img.locate(slot)
	if slot < 0 || f == nil {
		e.Reason = inWords(said)
		return e
	}
	e.Func, e.Insn, e.Reason = f.Name, insn, note
	for _, line := range f.Lines {
		if line.Insn > insn {
			break
		}
		e.Where = line.Where()
	}
	if e.Reason == "" && strings.Contains(message, "unknown func") || strings.Contains(message, "program of this type cannot use helper") {
		e.Reason = l.helperReason(f, insn, p)
	}
	if e.Reason == "" {
		e.Reason = inWords(said)
	}
	return e
}

// helperReason says which kernel has a helper that this one has not.
func (l *loaded) helperReason(f *object.Func, insn int, p *program) string {
	ins := f.Insns[insn]
	if !ins.IsCall() || ins.Src != 0 {
		return ""
	}
	h := abi.HelperByID(int32(ins.Imm))
	if h == nil {
		return ""
	}
	t, err := Target()
	if err != nil {
		return ""
	}
	if since := h.Since; since != 0 && !t.Release().AtLeast(since.Major(), since.Minor()) {
		return fmt.Sprintf("the kernel has no helper %s (Linux has it since %s)", h.Name, since)
	}
	// A kernel that is locked down takes these helpers away (bpf_base_func_proto).
	if strings.HasPrefix(h.Name, "bpf_probe_read_kernel") && lockedDown("confidentiality") {
		return "the kernel is locked down (lockdown=confidentiality), which forbids reading its memory"
	}
	if h.Name == "bpf_probe_write_user" && (lockedDown("integrity") || lockedDown("confidentiality")) {
		return "the kernel is locked down, which forbids writing to the memory of programs"
	}
	if missing := missingCaps(needs{bpf: true, perfmon: true}); missing != "" {
		return fmt.Sprintf("the helper %s is not for programs of this type, or needs %s, which this process has not", h.Name, missing)
	}
	return fmt.Sprintf("programs of type %s may not call %s here", p.abi.ProgType, h.Name)
}

// notVerified explains refusals that come before the verifier.
func (l *loaded) notVerified(p *program, key variantKey, err error) error {
	t, targetErr := Target()
	name := fmt.Sprintf("program %s", p.name)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return refused("loading "+name, err, programNeeds(p, l.token >= 0))
	case targetErr == nil && errors.Is(err, unix.EINVAL):
		release := t.Release()
		if v := p.abi.ProgType.Since(); v != 0 && !release.AtLeast(v.Major(), v.Minor()) {
			return fmt.Errorf("%s cannot be loaded: the kernel has no programs of type %s (Linux has them since %s)", name, p.abi.ProgType, v)
		}
		if v := key.attach.Since(); v != 0 && !release.AtLeast(v.Major(), v.Minor()) {
			return fmt.Errorf("%s cannot be loaded: the kernel has no %s (Linux has it since %s)", name, key.attach, v)
		}
		if key.function != "" {
			return fmt.Errorf("%s cannot be loaded: the kernel refuses to let a program of type %s attach to %s: %w", name, p.abi.ProgType, key.function, named(err))
		}
		return fmt.Errorf("%s cannot be loaded: the kernel refuses a program of type %s, and does not say why; CONFIG_BPF_JIT, the kernel's configuration, or something in the object that it is too old for: %w", name, p.abi.ProgType, named(err))
	case errors.Is(err, errNotSupp), errors.Is(err, unix.EOPNOTSUPP):
		if key.function != "" {
			return fmt.Errorf("%s cannot be loaded: this kernel does not let programs of type %s attach to functions (it was built without the ftrace or trampolines that this needs): %w", name, p.abi.ProgType, named(err))
		}
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%s cannot be loaded: there is no memory for it%s: %w", name, memlockHint(), named(err))
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%s cannot be loaded: it has %d instructions, which is too many for this kernel or this process (root may have 1,000,000): %w", name, len(l.pieces[p.fn].insns), named(err))
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s cannot be loaded: what it attaches to is not there: %w", name, named(err))
	}
	return fmt.Errorf("%s cannot be loaded: %w", name, named(err))
}

func (l *loaded) program(name string) (*program, error) {
	p, ok := l.progs[name]
	if ok {
		return p, nil
	}
	nearest := source.Nearest(name, func(yield func(string) bool) {
		for n := range l.progs {
			if !yield(n) {
				return
			}
		}
	})
	if nearest != "" {
		return nil, fmt.Errorf("the object has no program %q; did you mean %q?", name, nearest)
	}
	return nil, fmt.Errorf("the object has no program %q", name)
}

// anyVariant returns the program as it was loaded first.
func (l *loaded) anyVariant(name string) (*program, *variant, error) {
	p, err := l.program(name)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	if len(p.variants) > 0 {
		defer l.mu.Unlock()
		return p, p.variants[0], nil
	}
	l.mu.Unlock()
	key, ok := l.guess(p)
	if !ok {
		return nil, nil, fmt.Errorf("program %s is not loaded: it does not say what it attaches to", name)
	}
	v, err := l.variant(p, key)
	return p, v, err
}

func (l *loaded) Run(name string) (uint32, error) {
	r, err := l.RunWith(name, machine.RunOptions{})
	return r.Return, err
}

func (l *loaded) RunWith(name string, o machine.RunOptions) (machine.RunResult, error) {
	p, v, err := l.anyVariant(name)
	if err != nil {
		return machine.RunResult{}, err
	}
	attr := &attrTestRun{prog: uint32(v.fd)}
	var ctxOut, dataOut []byte
	if len(o.Context) > 0 {
		attr.ctx, attr.ctxSize = ptr(o.Context), uint32(len(o.Context))
	}
	switch p.abi.ProgType {
	case abi.ProgRawTracepoint:
		if o.Context == nil {
			// As many arguments as a raw tracepoint can have: the kernel wants
			// all that the program looks at.
			zero := make([]byte, 12*8)
			attr.ctx, attr.ctxSize = ptr(zero), uint32(len(zero))
		}
	case abi.ProgSyscall:
		// The kernel writes to the context itself.
		ctxOut = bytes.Clone(o.Context)
		attr.ctx = ptr(ctxOut)
	default:
		if len(o.Context) > 0 {
			ctxOut = make([]byte, len(o.Context))
			attr.ctxOut, attr.ctxSizeOut = ptr(ctxOut), uint32(len(ctxOut))
		}
		if len(o.Data) > 0 {
			dataOut = make([]byte, len(o.Data)+256)
			attr.data, attr.dataSize = ptr(o.Data), uint32(len(o.Data))
			attr.dataOut, attr.dataSizeOut = ptr(dataOut), uint32(len(dataOut))
		}
		attr.repeat = uint32(o.Repeat)
	}
	if _, err := sysBPF(cmdProgTestRun, attr); err != nil {
		switch {
		case errors.Is(err, errNotSupp), errors.Is(err, unix.EOPNOTSUPP):
			return machine.RunResult{}, fmt.Errorf("program %s is of type %s, which the kernel does not run by hand", name, p.abi.ProgType)
		case errors.Is(err, unix.EPERM):
			return machine.RunResult{}, refused("running program "+name, err, programNeeds(p, false))
		case errors.Is(err, unix.EINVAL) && len(o.Data) == 0 && p.abi.ProgType != abi.ProgRawTracepoint && p.abi.ProgType != abi.ProgSyscall:
			return machine.RunResult{}, fmt.Errorf("program %s wants a packet to run on: %w", name, named(err))
		}
		return machine.RunResult{}, fmt.Errorf("program %s cannot be run: %w", name, named(err))
	}
	r := machine.RunResult{Return: attr.retval, Duration: durationNS(uint64(attr.duration)), Context: ctxOut}
	if dataOut != nil {
		r.Data = dataOut[:min(int(attr.dataSizeOut), len(dataOut))]
	}
	return r, nil
}

func (l *loaded) Logs(name string) string {
	p, ok := l.progs[name]
	if !ok {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p.variants) == 0 {
		return ""
	}
	return p.variants[0].log
}

// Close detaches everything and lets go of all that is not pinned.
func (l *loaded) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	links := slices.Collect(maps.Keys(l.links))
	l.mu.Unlock()
	err := closeLinks(links)
	for _, p := range l.order {
		for _, v := range p.variants {
			unix.Close(v.fd)
		}
	}
	for _, m := range l.maps {
		m.close()
	}
	for _, m := range l.mapOf {
		m.close()
	}
	l.kconfig.close()
	l.dataMu.Lock()
	l.dataClosed = true
	for _, d := range l.data {
		d.close()
	}
	l.dataMu.Unlock()
	for _, h := range l.modules {
		h.Close()
	}
	for _, fd := range []int{l.types.fd, l.token, l.stats} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return err
}

// put writes a number in the machine's byte order.
func put(b []byte, n uint64) {
	switch len(b) {
	case 1:
		b[0] = byte(n)
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(n))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(n))
	case 8:
		binary.NativeEndian.PutUint64(b, n)
	}
}
