package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/target"
)

// A fdLink is one BPF link, or what serves as one: the kernel detaches when its
// descriptors are closed, however this process ends.
type fdLink struct {
	l       *loaded
	program string
	point   hook.Point
	fd      int          // of the link; -1 when there is none
	perf    int          // of the perf event behind it; -1 when there is none
	other   int          // of what else must stay open, a socket or a token; -1 when there is none
	detach  func() error // where closing does not
	after   func()       // called once it is closed
	pinned  bool
	count   int    // how many places it serves
	seq     uint64 // in the order of making
	once    sync.Once
	err     error
}

var linkSeq atomic.Uint64

func newLink(l *loaded, p *program, pt hook.Point, fd int) *fdLink {
	return &fdLink{l: l, program: p.name, point: pt, fd: fd, perf: -1, other: -1, count: 1, seq: linkSeq.Add(1)}
}

// Close detaches, and waits until the kernel has.
func (k *fdLink) Close() error {
	k.once.Do(func() {
		k.l.mu.Lock()
		delete(k.l.links, k)
		k.l.mu.Unlock()
		if k.detach != nil {
			if err := k.detach(); err != nil {
				k.err = fmt.Errorf("%s cannot be detached: %w", k.point, named(err))
			}
		}
		for _, fd := range []int{k.perf, k.fd, k.other} {
			if fd < 0 {
				continue
			}
			if err := unix.Close(fd); err != nil && k.err == nil {
				k.err = fmt.Errorf("%s cannot be detached: %w", k.point, named(err))
			}
		}
		if k.after != nil {
			k.after()
		}
	})
	return k.err
}

// maxSideBySide is how many attachments are made or ended at a time. The kernel
// waits for readers of each perf event that it gives up, mostly one after the
// other: more at a time gain nothing.
const maxSideBySide = 32

func closeLinks(links []*fdLink) error {
	errs := make([]error, len(links))
	sideBySide(len(links), maxSideBySide, func(i int) { errs[i] = links[i].Close() })
	return errors.Join(errs...)
}

// request is the Link of one request, which may be many.
type request []*fdLink

// Close detaches all of a request side by side.
func (r request) Close() error { return closeLinks(r) }

// iterator is the Link of a request for an iterator.
type iterator struct{ *fdLink }

// Open runs the iterator.
func (it iterator) Open() (io.ReadCloser, error) {
	fd, err := sysBPF(cmdIterCreate, &attrID{id: uint32(it.fd)})
	if err != nil {
		return nil, fmt.Errorf("%s cannot be run: %w", it.point, refusedOr(err, "running an iterator"))
	}
	return os.NewFile(uintptr(fd), it.point.String()), nil
}

// A job is one call to the kernel that attaches.
type job struct {
	request int
	point   hook.Point
	do      func() (*fdLink, error)
	// instead is what to do, place by place, where the kernel refuses a link
	// of many: it does not say which of them it did not like.
	instead func() ([]job, error)
}

func (l *loaded) Attach(ctx context.Context, requests []machine.Attach) ([]machine.Link, []error) {
	links, errs := make([]machine.Link, len(requests)), make([]error, len(requests))
	made := make([]request, len(requests))
	var jobs []job
	for i := range requests {
		list, err := l.plan(&requests[i])
		if err != nil {
			errs[i] = err
			continue
		}
		for _, j := range list {
			j.request = i
			jobs = append(jobs, j)
		}
	}
	var mu sync.Mutex
	failures := make([][]error, len(requests))
	run := func(jobs []job) (more []job) {
		sideBySide(len(jobs), maxSideBySide, func(n int) {
			j := jobs[n]
			err := ctx.Err()
			var link *fdLink
			if err == nil {
				link, err = j.do()
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made[j.request] = append(made[j.request], link)
				return
			}
			if j.instead != nil && ctx.Err() == nil {
				if list, err2 := j.instead(); err2 == nil {
					for _, j2 := range list {
						j2.request = j.request
						more = append(more, j2)
					}
					return
				}
			}
			if pt := j.point.String(); !strings.HasPrefix(err.Error(), pt) {
				err = fmt.Errorf("%s: %w", pt, err)
			}
			failures[j.request] = append(failures[j.request], err)
		})
		return more
	}
	for len(jobs) > 0 {
		jobs = run(jobs)
	}
	var drop []*fdLink
	for i := range requests {
		if len(failures[i]) > 0 {
			errs[i] = joinSome(failures[i])
			drop = append(drop, made[i]...)
			continue
		}
		if errs[i] != nil {
			continue
		}
		switch {
		case len(made[i]) == 1 && made[i][0].point.Kind == hook.Iter:
			links[i] = iterator{made[i][0]}
		default:
			links[i] = made[i]
		}
	}
	l.mu.Lock()
	closed := l.closed
	for i := range requests {
		if links[i] == nil {
			continue
		}
		for _, k := range made[i] {
			l.links[k] = struct{}{}
		}
	}
	l.mu.Unlock()
	if err := closeLinks(drop); err != nil {
		for i := range errs {
			if errs[i] != nil {
				errs[i] = errors.Join(errs[i], err)
				break
			}
		}
	}
	if closed {
		for i := range links {
			if links[i] != nil {
				links[i].Close()
				links[i], errs[i] = nil, os.ErrClosed
			}
		}
	}
	return links, errs
}

// joinSome joins a few errors, each text once, and counts the rest.
func joinSome(errs []error) error {
	const most = 5
	seen := make(map[string]bool)
	errs = slices.DeleteFunc(errs, func(err error) bool {
		text := err.Error()
		again := seen[text]
		seen[text] = true
		return again
	})
	if len(errs) <= most {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs[:most:most], fmt.Errorf("and %d more", len(errs)-most))...)
}

// plan says what is to be done for a request.
func (l *loaded) plan(r *machine.Attach) ([]job, error) {
	p, err := l.program(r.Program)
	if err != nil {
		return nil, err
	}
	points, cookies := r.Points, r.Cookies
	if len(points) == 0 {
		points = []hook.Point{p.point}
		if len(p.points) > 0 {
			points = p.points
		}
	}
	if points, cookies, err = expandPoints(p, points, cookies, r.PID); err != nil {
		return nil, err
	}
	cookie := func(i int) uint64 {
		if i < len(cookies) {
			return cookies[i]
		}
		return 0
	}
	var jobs []job
	one := func(pt hook.Point, do func() (*fdLink, error)) { jobs = append(jobs, job{point: pt, do: do}) }
	switch p.abi.ProgType {
	case abi.ProgKprobe:
		return l.planProbes(p, points, cookies, r.PID)
	case abi.ProgTracepoint:
		for i, pt := range points {
			one(pt, func() (*fdLink, error) { return l.tracepoint(p, pt, cookie(i), r.PID) })
		}
	case abi.ProgRawTracepoint, abi.ProgRawTracepointWritable:
		for i, pt := range points {
			one(pt, func() (*fdLink, error) { return l.rawTracepoint(p, pt, cookie(i)) })
		}
	case abi.ProgTracing, abi.ProgLSM, abi.ProgExt:
		for i, pt := range points {
			one(pt, func() (*fdLink, error) { return l.tracing(p, pt, cookie(i), r) })
		}
	case abi.ProgStructOps:
		one(points[0], func() (*fdLink, error) { return l.structOps(p, points[0]) })
	case abi.ProgPerfEvent:
		for i, pt := range points {
			list, err := l.planPerf(p, pt, cookie(i), r.PID)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pt, err)
			}
			jobs = append(jobs, list...)
		}
	default:
		for _, pt := range points {
			one(pt, func() (*fdLink, error) { return l.attachTo(p, pt, r.Target) })
		}
	}
	return jobs, nil
}

// expandPoints replaces wildcards by what they match here. All that one matches
// share its cookie.
func expandPoints(p *program, points []hook.Point, cookies []uint64, pid int) ([]hook.Point, []uint64, error) {
	wild := false
	for _, pt := range points {
		wild = wild || pt.HasWildcard()
	}
	if !wild {
		return points, cookies, nil
	}
	t, err := Target()
	if err != nil {
		return nil, nil, err
	}
	var all []hook.Point
	var allCookies []uint64
	for i, pt := range points {
		list := []hook.Point{pt}
		if pt.HasWildcard() {
			if list, err = hook.Expand(t, pt, hook.Options{PID: pid}); err != nil {
				return nil, nil, err
			}
			if len(list) == 0 {
				return nil, nil, fmt.Errorf("%s matches nothing here", pt)
			}
		}
		for range list {
			cookie := uint64(0)
			if i < len(cookies) {
				cookie = cookies[i]
			}
			allCookies = append(allCookies, cookie)
		}
		all = append(all, list...)
	}
	return all, allCookies, nil
}

// create is BPF_LINK_CREATE.
func create[T any](attr *T) (int, error) { return sysBPF(cmdLinkCreate, attr) }

func (l *loaded) rawTracepoint(p *program, pt hook.Point, cookie uint64) (*fdLink, error) {
	if pt.Event == "" {
		return nil, fmt.Errorf("program %s does not say which raw tracepoint it attaches to", p.name)
	}
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	name, err := cstring(pt.Event)
	if err != nil {
		return nil, err
	}
	fd, err := sysBPF(cmdRawTracepointOpen, &attrRawTracepoint{name: name, prog: uint32(v.fd), cookie: cookie})
	if errors.Is(err, unix.E2BIG) || cookie != 0 && errors.Is(err, unix.EINVAL) {
		// Cookies of raw tracepoints came with Linux 6.10; a program that has
		// one hook needs none.
		fd, err = sysBPF(cmdRawTracepointOpen, &attrRawTracepoint{name: name, prog: uint32(v.fd)})
	}
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.ENOENT):
		return nil, l.noRawTracepoint(pt)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("the kernel refuses it: the program looks at more arguments than this raw tracepoint has, or writes to them: %w", named(err))
	}
	return nil, fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}

func (l *loaded) noRawTracepoint(pt hook.Point) error {
	t, err := Target()
	if err == nil {
		_, err = hook.Expand(t, hook.Point{Kind: hook.RawTracepoint, Event: pt.Event}, hook.Options{})
	}
	var e *hook.Error
	if errors.As(err, &e) {
		return e
	}
	return fmt.Errorf("the kernel has no raw tracepoint %q: %w", pt.Event, target.ErrNotFound)
}

// attachRefused explains a refusal to attach.
func attachRefused(err error, p *program) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		n := programNeeds(p, false)
		n.perf = true
		return refused("attaching program "+p.name, err, n)
	}
	if errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("this process may not open more files: raise its limit (ulimit -n) or attach to fewer places: %w", named(err))
	}
	if errors.Is(err, errNotSupp) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel does not do that: %w", named(err))
	}
	return named(err)
}

// attachKey says what a program that names its hook when it is loaded needs for
// a point.
func attachKey(p *program, pt hook.Point, target string) (variantKey, error) {
	key := variantKey{attach: p.abi.AttachType, module: pt.Module}
	switch p.abi.AttachType {
	case abi.AttachTraceRawTp, abi.AttachLSMMac, abi.AttachLSMCgroup, abi.AttachTraceIter:
		key.function = pt.Event
	default:
		key.function = pt.Func
		if pt.BPF || pt.ProgramID != 0 {
			key.module, key.progID = "", pt.ProgramID
			if key.progID == 0 {
				id, err := programByFunc(pt.Func)
				if err != nil {
					return key, err
				}
				key.progID = id
			}
		}
	}
	if p.abi.ProgType == abi.ProgExt {
		id, function, err := splitProgram(target)
		if err != nil {
			return key, &machine.TargetError{Program: p.name, Needs: "a function of another program (ID:function)", Target: target, Err: err}
		}
		key.module, key.progID = "", id
		if function != "" {
			key.function = function
		}
	}
	if key.function == "" {
		return key, fmt.Errorf("program %s does not say what it attaches to", p.name)
	}
	return key, nil
}

func splitProgram(text string) (id uint32, function string, err error) {
	number, function, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == 0 {
		return 0, "", errors.New("the number of a program is missing (bpftool prog lists them)")
	}
	return uint32(n), function, nil
}

// tracing attaches programs whose hook was named when they were loaded: typed
// raw tracepoints, functions, LSM hooks, iterators, replacements.
func (l *loaded) tracing(p *program, pt hook.Point, cookie uint64, r *machine.Attach) (*fdLink, error) {
	key, err := attachKey(p, pt, r.Target)
	if err != nil {
		return nil, err
	}
	v, err := l.variant(p, key)
	if err != nil {
		return nil, err
	}
	if p.abi.AttachType == abi.AttachTraceIter {
		return l.iter(p, pt, v, r)
	}
	if p.abi.AttachType == abi.AttachLSMCgroup {
		return l.cgroup(p, pt, v, r.Target)
	}
	var fd int
	if cookie != 0 && p.abi.ProgType != abi.ProgExt {
		fd, err = create(&attrLinkTracing{prog: uint32(v.fd), typ: uint32(key.attach), cookie: cookie})
	}
	if cookie == 0 || p.abi.ProgType == abi.ProgExt || errors.Is(err, unix.EINVAL) {
		// Typed raw tracepoints have cookies since Linux 6.10 alone.
		fd, err = sysBPF(cmdRawTracepointOpen, &attrRawTracepoint{prog: uint32(v.fd)})
	}
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("the function cannot be attached to now: something else has changed its first instructions: %w", named(err))
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("the function is not there: %w", named(err))
	case errors.Is(err, unix.E2BIG):
		return nil, fmt.Errorf("more programs are attached to it than the kernel allows: %w", named(err))
	case errors.Is(err, errNotSupp), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL) && p.abi.ProgType == abi.ProgLSM:
		return nil, fmt.Errorf("this kernel does not let programs attach to %s; it was built without what that needs (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, trampolines; bpf among the security modules for lsm): %w", key.function, named(err))
	}
	return nil, fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}

// iter makes an iterator; nothing runs until it is opened.
func (l *loaded) iter(p *program, pt hook.Point, v *variant, r *machine.Attach) (*fdLink, error) {
	var info struct {
		a, b, c, d uint32
	}
	attr := &attrLinkIter{prog: uint32(v.fd), typ: uint32(v.key.attach)}
	switch v.key.function {
	case "bpf_map_elem", "bpf_sk_storage_map", "sockmap":
		if r.Target == "" {
			return nil, &machine.TargetError{Program: p.name, Needs: "a map of the object"}
		}
		m, err := l.findMap(r.Target)
		if err != nil {
			return nil, &machine.TargetError{Program: p.name, Needs: "a map of the object", Target: r.Target, Err: err}
		}
		info.a = uint32(m.fd)
	case "task", "task_file", "task_vma":
		info.b = uint32(r.PID) // all threads of the process, since Linux 6.1
	case "cgroup":
		info.a = 2 // BPF_CGROUP_ITER_DESCENDANTS_PRE
		path := r.Target
		if path == "" {
			path = cgroupRoot()
		}
		fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &machine.TargetError{Program: p.name, Needs: "a cgroup", Target: path, Err: named(err)}
		}
		defer unix.Close(fd)
		info.b = uint32(fd)
	}
	if info.a != 0 || info.b != 0 {
		attr.info, attr.size = unsafe.Pointer(&info), uint32(unsafe.Sizeof(info))
	}
	fd, err := create(attr)
	if err != nil {
		return nil, fmt.Errorf("attaching failed: %w", attachRefused(err, p))
	}
	k := newLink(l, p, pt, fd)
	if pt.Pin != "" {
		path := pt.Pin
		if !strings.HasPrefix(path, "/") {
			path = pinRoot + "/" + path
		}
		if err := pin(fd, path); err != nil {
			return nil, errors.Join(err, k.Close())
		}
		k.pinned = true
	}
	return k, nil
}

// programTarget finds a function of a program in the kernel, by the types that
// it was loaded with.
func programTarget(id uint32, function string) (btf.TypeID, int, func(), error) {
	none := func() {}
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, 0, none, fmt.Errorf("there is no BPF program with number %d: %w", id, target.ErrNotFound)
		}
		return 0, 0, none, fmt.Errorf("program %d cannot be had: %w", id, refusedOr(err, "opening it"))
	}
	fail := func(err error) (btf.TypeID, int, func(), error) {
		prog.Close()
		return 0, 0, none, err
	}
	h, err := prog.Handle()
	if err != nil {
		return fail(fmt.Errorf("program %d has no types, so nothing can attach to its functions: %w", id, err))
	}
	defer h.Close()
	spec, err := h.Spec(nil)
	if err != nil {
		return fail(fmt.Errorf("the types of program %d cannot be read: %w", id, err))
	}
	var f *btf.Func
	if err := spec.TypeByName(function, &f); err != nil {
		return fail(fmt.Errorf("program %d has no function %q: %w", id, function, target.ErrNotFound))
	}
	typeID, err := spec.TypeID(f)
	if err != nil {
		return fail(err)
	}
	return typeID, prog.FD(), func() { prog.Close() }, nil
}

// programByFunc finds the one program in the kernel that is called so.
func programByFunc(name string) (uint32, error) {
	var found []uint32
	kernelName := objName(name)
	err := eachProgram(func(id ebpf.ProgramID, prog *ebpf.Program) {
		var info progInfo
		if objInfo(prog.FD(), &info) == nil && info.name == kernelName {
			found = append(found, uint32(id))
		}
	})
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("there is no BPF program called %q (skep list 'fentry:bpf:*' names those there are): %w", name, target.ErrNotFound)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("there are %d BPF programs called %q: name one by its number, as in fentry:bpf:%d:%s", len(found), name, found[0], name)
}
