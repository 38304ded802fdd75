package kernel

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// multiReturn is BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN.
const multiReturn = 1

// pmu is a source of perf events that sysfs describes.
type pmu struct {
	typ       uint32
	retBit    uint
	refShift  uint
	hasRefCtr bool
	err       error
}

func readPMU(name, what string, feature target.FeatureName) pmu {
	dir := "/sys/bus/event_source/devices/" + name
	n, err := strconv.ParseUint(readSys(dir+"/type"), 10, 32)
	if err != nil {
		info, _ := feature.Info()
		return pmu{err: fmt.Errorf("this kernel has no %s: %s (%s)", what, dir+" is missing", info.What)}
	}
	p := pmu{typ: uint32(n)}
	// "config:0", "config:32-63" (Documentation/trace/kprobetrace.rst has no
	// word of it; kernel/events/core.c, PMU_FORMAT_ATTR).
	bit := func(file string) (uint, bool) {
		rest, ok := strings.CutPrefix(readSys(dir+"/format/"+file), "config:")
		first, _, _ := strings.Cut(rest, "-")
		v, err := strconv.ParseUint(first, 10, 6)
		return uint(v), ok && err == nil
	}
	p.retBit, _ = bit("retprobe")
	p.refShift, p.hasRefCtr = bit("ref_ctr_offset")
	return p
}

var (
	kprobePMU = sync.OnceValue(func() pmu { return readPMU("kprobe", "kprobes", target.FeatureKprobe) })
	uprobePMU = sync.OnceValue(func() pmu { return readPMU("uprobe", "uprobes", target.FeatureUprobe) })
)

func isUser(k hook.Kind) bool {
	switch k {
	case hook.Uprobe, hook.Uretprobe, hook.USDT, hook.UprobeSession:
		return true
	}
	return false
}

func isReturn(k hook.Kind) bool {
	return k == hook.Kretprobe || k == hook.Uretprobe || k == hook.Kretsyscall
}

// multiType says whether a program is loaded for links of many places: one
// link for all, instead of a perf event for each.
func (l *loaded) multiType(p *program, points []hook.Point) abi.AttachType {
	user := 0
	for _, pt := range points {
		if isUser(pt.Kind) {
			user++
		}
	}
	want := len(points) > 1 || p.point.Multi || points[0].HasWildcard() || points[0].Kind == hook.USDT ||
		// A perf event on a place in a file takes CAP_SYS_ADMIN
		// (perf_uprobe_event_init), a link of many takes CAP_PERFMON alone.
		user == len(points) && missingCaps(needs{admin: true}) != ""
	switch {
	case !want, l.token >= 0:
		return abi.AttachNone
	case user == len(points):
		if haveFeature(target.FeatureUprobeMulti) {
			return abi.AttachTraceUprobeMulti
		}
	case user == 0:
		for _, pt := range points {
			if pt.Offset != 0 || pt.HasAddress || pt.Module != "" && pt.Module != "vmlinux" ||
				pt.Kind == hook.Ksyscall || pt.Kind == hook.Kretsyscall {
				return abi.AttachNone
			}
		}
		if haveFeature(target.FeatureKprobeMulti) {
			return abi.AttachTraceKprobeMulti
		}
	}
	return abi.AttachNone
}

func haveFeature(name target.FeatureName) bool {
	t, err := Target()
	return err == nil && t.Feature(name).Have
}

// planProbes says how to attach to functions of the kernel and of user
// binaries.
func (l *loaded) planProbes(p *program, points []hook.Point, cookies []uint64, pid int) ([]job, error) {
	attach := l.multiType(p, points)
	session := p.abi.AttachType == abi.AttachTraceKprobeSession || p.abi.AttachType == abi.AttachTraceUprobeSession
	if session {
		attach = p.abi.AttachType
	}
	b := &binaries{pid: pid}
	defer b.close()
	var jobs []job
	for _, pt := range points {
		if pt.Kind != points[0].Kind && attach != abi.AttachNone && isReturn(pt.Kind) != isReturn(points[0].Kind) {
			attach = abi.AttachNone // entry and return in one request
		}
		if !isUser(pt.Kind) && pt.Func == "" && !pt.HasAddress && pt.Event == "" {
			return nil, fmt.Errorf("program %s does not say which function it attaches to", p.name)
		}
	}
	single := func() ([]job, error) {
		b := &binaries{pid: pid}
		defer b.close()
		return l.planSingle(p, points, cookies, pid, b)
	}
	switch attach {
	case abi.AttachNone:
		return l.planSingle(p, points, cookies, pid, b)
	case abi.AttachTraceKprobeMulti, abi.AttachTraceKprobeSession:
		j := job{point: points[0], do: func() (*fdLink, error) { return l.kprobeMulti(p, points, cookies, attach) }}
		if !session {
			j.instead = single
		}
		return []job{j}, nil
	}
	// One link for each file.
	type group struct {
		path                string
		point               hook.Point
		offsets, counters   []uint64
		cookies             []uint64
		anyCounter, anyCook bool
	}
	var groups []*group
	for i, pt := range points {
		places, host, err := b.places(pt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pt, err)
		}
		at := slices.IndexFunc(groups, func(g *group) bool { return g.path == host })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &group{path: host, point: pt})
		}
		g := groups[at]
		for _, place := range places {
			g.offsets = append(g.offsets, place.offset)
			g.counters = append(g.counters, place.counter)
			g.anyCounter = g.anyCounter || place.counter != 0
			cookie := uint64(0)
			if i < len(cookies) {
				cookie = cookies[i]
			}
			if cookie, err = l.usdtCookie(place, cookie); err != nil {
				return nil, fmt.Errorf("%s: %w", pt, err)
			}
			g.cookies = append(g.cookies, cookie)
			g.anyCook = g.anyCook || cookie != 0
		}
	}
	for n, g := range groups {
		if !g.anyCounter {
			g.counters = nil
		}
		if !g.anyCook {
			g.cookies = nil
		}
		j := job{point: g.point, do: func() (*fdLink, error) {
			return l.uprobeMulti(p, g.point, attach, g.path, g.offsets, g.counters, g.cookies, pid)
		}}
		if !session && n == 0 && len(groups) == 1 {
			j.instead = single
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// planSingle attaches one perf event for each place.
func (l *loaded) planSingle(p *program, points []hook.Point, cookies []uint64, pid int, b *binaries) ([]job, error) {
	var jobs []job
	for i, pt := range points {
		cookie := uint64(0)
		if i < len(cookies) {
			cookie = cookies[i]
		}
		if !isUser(pt.Kind) {
			jobs = append(jobs, job{point: pt, do: func() (*fdLink, error) { return l.kprobe(p, pt, cookie) }})
			continue
		}
		places, host, err := b.places(pt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pt, err)
		}
		for _, place := range places {
			cookie, err := l.usdtCookie(place, cookie)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pt, err)
			}
			jobs = append(jobs, job{point: pt, do: func() (*fdLink, error) {
				return l.uprobe(p, pt, host, place, cookie, pid)
			}})
		}
	}
	return jobs, nil
}

// kprobeMulti is one link to many functions (Linux 5.18 with CONFIG_FPROBE).
func (l *loaded) kprobeMulti(p *program, points []hook.Point, cookies []uint64, attach abi.AttachType) (*fdLink, error) {
	v, err := l.variant(p, variantKey{attach: attach})
	if err != nil {
		return nil, err
	}
	syms := make([]unsafe.Pointer, len(points))
	for i, pt := range points {
		if syms[i], err = cstring(pt.Func); err != nil {
			return nil, err
		}
	}
	attr := &attrLinkKprobes{prog: uint32(v.fd), typ: uint32(attach), count: uint32(len(points)), syms: ptr(syms)}
	if len(cookies) == len(points) {
		attr.cookies = ptr(cookies)
	}
	if isReturn(points[0].Kind) {
		attr.multiFlags = multiReturn
	}
	fd, err := create(attr)
	runtime.KeepAlive(syms)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("not all of %d functions are there and can be traced: %w", len(points), named(err))
		}
		return nil, fmt.Errorf("attaching to %d functions failed: %w", len(points), attachRefused(err, p))
	}
	k := newLink(l, p, points[0], fd)
	k.count = len(points)
	return k, nil
}

// uprobeMulti is one link to many places of one file (Linux 6.6).
func (l *loaded) uprobeMulti(p *program, pt hook.Point, attach abi.AttachType, file string, offsets, counters, cookies []uint64, pid int) (*fdLink, error) {
	v, err := l.variant(p, variantKey{attach: attach})
	if err != nil {
		return nil, err
	}
	name, err := cstring(file)
	if err != nil {
		return nil, err
	}
	attr := &attrLinkUprobes{
		prog: uint32(v.fd), typ: uint32(attach), path: name,
		offsets: ptr(offsets), counters: ptr(counters), cookies: ptr(cookies), count: uint32(len(offsets)), pid: uint32(pid),
	}
	if isReturn(pt.Kind) {
		attr.multiFlags = multiReturn
	}
	fd, err := create(attr)
	if err != nil {
		return nil, uprobeError(err, p, file, pid)
	}
	k := newLink(l, p, pt, fd)
	k.count = len(offsets)
	return k, nil
}

func uprobeError(err error, p *program, file string, pid int) error {
	switch {
	case errors.Is(err, unix.EACCES) && missingCaps(needs{admin: true}) != "":
		n := programNeeds(p, false)
		n.admin = true
		return refused("attaching program "+p.name, err, n)
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("there is no process %d: %w", pid, named(err))
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("there is no file %s: %w", file, target.ErrNotFound)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIO):
		return fmt.Errorf("the kernel refuses a place in %s: it is no start of an instruction, an instruction that cannot be traced, or the file cannot be mapped (some file systems cannot): %w", file, named(err))
	case errors.Is(err, errNotSupp), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the instruction there in %s cannot be traced: %w", file, named(err))
	}
	return fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}

// perfAttr starts the description of a perf event.
func perfAttr(typ uint32) *unix.PerfEventAttr {
	return &unix.PerfEventAttr{Type: typ, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
}

// openPerf opens a perf event and links the program to it.
func (l *loaded) openPerf(p *program, pt hook.Point, attr *unix.PerfEventAttr, pid, cpu int, cookie uint64) (*fdLink, error) {
	v, err := l.variant(p, variantKey{attach: abi.AttachNone})
	if err != nil {
		return nil, err
	}
	perf, err := unix.PerfEventOpen(attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	fd, err := create(&attrLinkPerf{prog: uint32(v.fd), target: uint32(perf), typ: uint32(abi.AttachPerfEvent), cookie: cookie})
	if err != nil {
		unix.Close(perf)
		if errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("the same program is attached there already: %w", named(err))
		}
		return nil, &linkError{err}
	}
	k := newLink(l, p, pt, fd)
	k.perf = perf
	return k, nil
}

// A linkError tells a refusal of the link from one of the event.
type linkError struct{ err error }

func (e *linkError) Error() string {
	return fmt.Sprintf("linking the program failed: %v", named(e.err))
}
func (e *linkError) Unwrap() error { return e.err }

// systemWide is the process and CPU of an event that is not bound to either: the
// program runs wherever the event happens.
func systemWide(pid int) (int, int) {
	if pid > 0 {
		return pid, -1
	}
	return -1, onlineCPUs()[0]
}

// onlineCPUs lists the CPUs that run.
func onlineCPUs() []int {
	var cpus []int
	for part := range strings.SplitSeq(readSys("/sys/devices/system/cpu/online"), ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || b-a > 1<<16 {
			continue
		}
		for ; a <= b; a++ {
			cpus = append(cpus, a)
		}
	}
	if len(cpus) == 0 {
		for i := range runtime.NumCPU() {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// kprobe attaches to one kernel function by a perf event, which leaves no entry
// in tracefs.
func (l *loaded) kprobe(p *program, pt hook.Point, cookie uint64) (*fdLink, error) {
	m := kprobePMU()
	if m.err != nil {
		return nil, m.err
	}
	function := pt.Func
	if pt.Kind == hook.Ksyscall || pt.Kind == hook.Kretsyscall {
		function = syscallFunc(pt.Event)
	}
	open := func(name string, at uint64) (*fdLink, error) {
		attr := perfAttr(m.typ)
		if isReturn(pt.Kind) {
			attr.Config |= 1 << m.retBit
		}
		b, err := unix.ByteSliceFromString(name)
		if err != nil {
			return nil, err
		}
		if name != "" {
			attr.Ext1 = uint64(uintptr(unsafe.Pointer(&b[0])))
		}
		attr.Ext2 = at
		pid, cpu := systemWide(0)
		k, err := l.openPerf(p, pt, attr, pid, cpu, cookie)
		runtime.KeepAlive(b)
		return k, err
	}
	if pt.HasAddress {
		k, err := open("", pt.Address)
		if err != nil {
			return nil, l.kprobeError(p, pt, err)
		}
		return k, nil
	}
	name := function
	if pt.Module != "" && pt.Module != "vmlinux" {
		name = pt.Module + ":" + function
	}
	k, err := open(name, pt.Offset)
	// Since 6.7 names that several functions share are refused, and some
	// kernels do not take a module before the name.
	if errors.Is(err, unix.EADDRNOTAVAIL) || pt.Module != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)) {
		if addr, err2 := l.functionAddr(pt.Module, function); err2 != nil {
			err = err2
		} else {
			k, err = open("", addr+pt.Offset)
		}
	}
	if err != nil {
		return nil, l.kprobeError(p, pt, err)
	}
	return k, nil
}

// functionAddr is the address of a function that a name alone does not tell.
func (l *loaded) functionAddr(module, name string) (uint64, error) {
	t, err := Target()
	if err != nil {
		return 0, err
	}
	symbols, err := t.Symbol(name)
	if err != nil {
		return 0, err
	}
	var found []uint64
	for _, s := range symbols {
		text := s.Type == 't' || s.Type == 'T' || s.Type == 'w' || s.Type == 'W'
		if text && (module == "" || s.Module == module || module == "vmlinux" && s.Module == "") {
			found = append(found, s.Addr)
		}
	}
	switch {
	case len(found) == 0:
		return 0, fmt.Errorf("module %s has no function %q: %w", module, name, target.ErrNotFound)
	case len(found) > 1:
		return 0, fmt.Errorf("%d functions of the kernel are called %s: attach to one of them by its address (/proc/kallsyms has them)", len(found), name)
	case found[0] == 0:
		return 0, &PrivilegeError{
			What: "reading the kernel's addresses", Err: named(unix.EPERM), Missing: missingCaps(needs{syslog: true}),
			Why: "/proc/kallsyms hides them (kernel.kptr_restrict)",
		}
	}
	return found[0], nil
}

// syscallFunc is the function that a system call enters.
func syscallFunc(name string) string {
	switch runtime.GOARCH {
	case "amd64":
		return "__x64_sys_" + name
	case "arm64":
		return "__arm64_sys_" + name
	case "riscv64":
		return "__riscv_sys_" + name
	}
	return "__se_sys_" + name
}

func (l *loaded) kprobeError(p *program, pt hook.Point, err error) error {
	var link *linkError
	if errors.As(err, &link) {
		return fmt.Errorf("attaching failed: %w", attachRefused(err, p))
	}
	where := pt.Func
	if pt.HasAddress {
		where = fmt.Sprintf("%#x", pt.Address)
	} else if pt.Offset != 0 {
		where = fmt.Sprintf("%s+%d", pt.Func, pt.Offset)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		if t, err := Target(); err == nil {
			_, err = hook.Expand(t, pt, hook.Options{})
			var e *hook.Error
			if errors.As(err, &e) {
				return e
			}
		}
		return fmt.Errorf("the kernel has no function %q: %w", where, target.ErrNotFound)
	case errors.Is(err, unix.EILSEQ):
		return fmt.Errorf("%s is in the middle of an instruction: %w", where, named(err))
	case errors.Is(err, unix.EINVAL) && pt.Offset != 0:
		return fmt.Errorf("%s cannot be probed: it is outside of the function, or the kernel keeps it from probes: %w", where, named(err))
	case errors.Is(err, unix.EINVAL) && !pt.HasAddress && notrace(pt.Func):
		// within_notrace_func (kernel/trace/trace_kprobe.c)
		return fmt.Errorf("%s cannot be probed: it is a function of this kernel, but none of those that can be traced (available_filter_functions of tracefs): functions marked notrace are not, and all that are declared inline are so marked, also where the compiler did not inline them; probe what calls it, or a tracepoint (skep list tells): %w", where, named(err))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s cannot be probed: the kernel keeps it from probes (/sys/kernel/debug/kprobes/blacklist has them), or it is no code: %w", where, named(err))
	}
	return fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}

// notrace reports whether the kernel lists the functions that can be traced
// without this one.
func notrace(name string) bool {
	t, err := Target()
	if err != nil {
		return false
	}
	all, err := t.Functions()
	return err == nil && !slices.ContainsFunc(all, func(f target.Function) bool { return f.Name == name })
}

// A userPlace is a place in a file.
type userPlace struct {
	offset  uint64
	counter uint64            // of a semaphore, in the file; 0 for none
	probe   *symbol.USDTProbe // nil but for USDT
}

// uprobe attaches to one place of a file by a perf event.
func (l *loaded) uprobe(p *program, pt hook.Point, file string, place userPlace, cookie uint64, pid int) (*fdLink, error) {
	m := uprobePMU()
	if m.err != nil {
		return nil, m.err
	}
	attr := perfAttr(m.typ)
	if isReturn(pt.Kind) {
		attr.Config |= 1 << m.retBit
	}
	if place.counter != 0 {
		if !m.hasRefCtr {
			info, _ := target.FeatureUSDTSemaphore.Info()
			return nil, fmt.Errorf("the kernel has no %s (Linux has them since %s)", info.What, info.Since)
		}
		attr.Config |= place.counter << m.refShift
	}
	name, err := unix.ByteSliceFromString(file)
	if err != nil {
		return nil, err
	}
	attr.Ext1, attr.Ext2 = uint64(uintptr(unsafe.Pointer(&name[0]))), place.offset
	evPID, cpu := systemWide(pid)
	k, err := l.openPerf(p, pt, attr, evPID, cpu, cookie)
	runtime.KeepAlive(name)
	if err != nil {
		return nil, uprobeError(err, p, file, pid)
	}
	return k, nil
}

// binaries opens each file of a request once.
type binaries struct {
	pid   int
	files target.Files
	open  map[string]*userBinary
}

type userBinary struct {
	host   string
	binary *symbol.Binary
	file   target.File
}

func (b *binaries) close() {
	for _, u := range b.open {
		u.file.Close()
	}
	b.open = nil
}

// binary opens a file as the process sees it.
func (b *binaries) binary(name string) (*userBinary, error) {
	if u, ok := b.open[name]; ok {
		return u, nil
	}
	t, err := Target()
	if err != nil {
		return nil, err
	}
	if b.files == nil {
		if b.files, err = t.Files(b.pid); err != nil {
			return nil, err
		}
	}
	full := name
	switch {
	case name == "" && b.pid != 0:
		if full, err = os.Readlink("/proc/" + strconv.Itoa(b.pid) + "/exe"); err != nil {
			return nil, fmt.Errorf("the program of process %d cannot be told: %w", b.pid, named(err))
		}
	case name == "":
		return nil, errors.New("no file is named")
	case !path.IsAbs(name):
		if full, err = target.ResolveBinary(b.files, t.Arch(), name); err != nil {
			return nil, err
		}
	}
	u := &userBinary{}
	if u.host, err = b.files.HostPath(full); err != nil {
		return nil, err
	}
	if u.file, err = b.files.OpenFile(full); err != nil {
		return nil, err
	}
	if u.binary, err = symbol.NewBinary(u.file); err != nil {
		u.file.Close()
		return nil, fmt.Errorf("%s cannot be probed: %w", full, err)
	}
	if b.open == nil {
		b.open = make(map[string]*userBinary)
	}
	b.open[name] = u
	return u, nil
}

// places finds where a point of a user binary is, and the path by which the
// kernel reaches the file.
func (b *binaries) places(pt hook.Point) ([]userPlace, string, error) {
	u, err := b.binary(pt.Path)
	if err != nil {
		return nil, "", err
	}
	offset := func(addr uint64, what string) (uint64, error) {
		off, ok := u.binary.FileOffset(addr)
		if !ok {
			return 0, fmt.Errorf("%s at %#x is in no part of %s that is loaded", what, addr, pt.Path)
		}
		return off, nil
	}
	var places []userPlace
	switch {
	case pt.Kind == hook.USDT:
		probes, err := u.binary.MatchUSDT(pt.Namespace, pt.Event)
		if err != nil {
			return nil, "", err
		}
		for i := range probes {
			probe := &probes[i]
			if pt.HasAddress && probe.Addr != pt.Address {
				continue // the point means one place of several
			}
			place := userPlace{probe: probe}
			if place.offset, err = offset(probe.Addr, "the probe"); err != nil {
				return nil, "", err
			}
			if probe.Semaphore != 0 {
				if place.counter, err = offset(probe.Semaphore, "the probe's semaphore"); err != nil {
					return nil, "", err
				}
			}
			if !slices.ContainsFunc(places, func(p userPlace) bool { return p.offset == place.offset }) {
				places = append(places, place)
			}
		}
	case pt.HasAddress:
		off, err := offset(pt.Address, "the address")
		if err != nil {
			return nil, "", err
		}
		places = []userPlace{{offset: off}}
	case pt.Func == "":
		return nil, "", errors.New("no function is named")
	default:
		found, err := u.binary.Functions(pt.Func, pt.Demangled)
		if err != nil {
			return nil, "", err
		}
		for _, f := range found {
			if f, err = f.At(pt.Offset); err != nil {
				return nil, "", err
			}
			places = append(places, userPlace{offset: f.Offset})
		}
	}
	return places, u.host, nil
}
