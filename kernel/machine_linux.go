package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
)

// New returns the Linux kernel that skep runs on.
func New() machine.Machine { return kernelMachine{} }

type kernelMachine struct{}

func (kernelMachine) Name() string { return "kernel" }

func (kernelMachine) Load(ctx context.Context, elf []byte, o machine.LoadOptions) (machine.Loaded, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(elf))
	if err != nil {
		return nil, fmt.Errorf("the object cannot be read: %w", err)
	}
	for name, value := range o.Vars {
		v, ok := spec.Variables[name]
		if !ok {
			continue
		}
		if err := v.Set(value); err != nil {
			return nil, fmt.Errorf("variable %s cannot be set: %w", name, err)
		}
	}
	for name, mo := range o.Maps {
		if m, ok := spec.Maps[name]; ok && mo.MaxEntries > 0 {
			m.MaxEntries = mo.MaxEntries
		}
	}
	for _, name := range o.Skip {
		delete(spec.Programs, name)
	}
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogSizeStart: uint32(o.LogSize)}}
	if o.Verbose {
		opts.Programs.LogLevel = ebpf.LogLevelBranch | ebpf.LogLevelStats
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, loadError(err)
	}
	return &loaded{coll: coll, spec: spec}, nil
}

// loadError puts what the kernel said about a load into words.
func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return &VerifierError{Log: ve.Log, Err: err}
	}
	return err
}

// A VerifierError is the kernel's refusal of a program.
type VerifierError struct {
	Log []string
	Err error
}

func (e *VerifierError) Error() string { return e.Err.Error() }

// Unwrap returns what the load failed with.
func (e *VerifierError) Unwrap() error { return e.Err }

type loaded struct {
	coll *ebpf.Collection
	spec *ebpf.CollectionSpec

	mu    sync.Mutex
	links []link.Link
}

func (l *loaded) program(name string) (*ebpf.Program, error) {
	p, ok := l.coll.Programs[name]
	if !ok {
		return nil, fmt.Errorf("the object has no program %q", name)
	}
	return p, nil
}

func (l *loaded) Attach(ctx context.Context, requests []machine.Attach) ([]machine.Link, []error) {
	links := make([]machine.Link, len(requests))
	errs := make([]error, len(requests))
	for i, r := range requests {
		links[i], errs[i] = l.attach(r)
	}
	return links, errs
}

// multiLink is several links that belong to one request.
type multiLink []link.Link

// Close detaches side by side: the kernel waits for readers of each.
func (m multiLink) Close() error {
	errs := make([]error, len(m))
	var wg sync.WaitGroup
	for i, l := range m {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = l.Close()
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *loaded) attach(r machine.Attach) (machine.Link, error) {
	p, err := l.program(r.Program)
	if err != nil {
		return nil, err
	}
	var links multiLink
	for i, pt := range r.Points {
		cookie := uint64(0)
		if i < len(r.Cookies) {
			cookie = r.Cookies[i]
		}
		lk, err := attachPoint(p, pt, cookie)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", pt, err), links.Close())
		}
		links = append(links, lk)
	}
	l.mu.Lock()
	l.links = append(l.links, links...)
	l.mu.Unlock()
	return links, nil
}

func attachPoint(p *ebpf.Program, pt hook.Point, cookie uint64) (link.Link, error) {
	switch pt.Kind {
	case hook.RawTracepoint:
		if p.Type() == ebpf.Tracing {
			return link.AttachTracing(link.TracingOptions{Program: p})
		}
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: pt.Event, Program: p})
	case hook.Tracepoint:
		return link.Tracepoint(pt.Subsystem, pt.Event, p, &link.TracepointOptions{Cookie: cookie})
	case hook.Kprobe:
		return link.Kprobe(pt.Func, p, &link.KprobeOptions{Cookie: cookie, Offset: pt.Offset})
	case hook.Kretprobe:
		return link.Kretprobe(pt.Func, p, &link.KprobeOptions{Cookie: cookie})
	}
	return nil, fmt.Errorf("programs cannot be attached to hooks of this kind yet")
}

func (l *loaded) Run(program string) (uint32, error) {
	p, err := l.program(program)
	if err != nil {
		return 0, err
	}
	return p.Run(&ebpf.RunOptions{})
}

func (l *loaded) Map(name string) (machine.Map, error) {
	m, ok := l.coll.Maps[name]
	if !ok {
		return nil, fmt.Errorf("the object has no map %q", name)
	}
	return &kernelMap{name: name, m: m}, nil
}

func (l *loaded) Var(name string) (machine.Var, error) {
	v, ok := l.coll.Variables[name]
	if !ok {
		return nil, fmt.Errorf("the object has no variable %q", name)
	}
	return kernelVar{v}, nil
}

func (l *loaded) Records(name string) (machine.Records, error) {
	m, ok := l.coll.Maps[name]
	if !ok {
		return nil, fmt.Errorf("the object has no map %q", name)
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, err
	}
	return &records{r: r}, nil
}

func (l *loaded) Logs(program string) string {
	if p, ok := l.coll.Programs[program]; ok {
		return p.VerifierLog
	}
	return ""
}

func (l *loaded) Missed(program string) (uint64, error) {
	p, err := l.program(program)
	if err != nil {
		return 0, err
	}
	st, err := p.Stats()
	if err != nil {
		return 0, err
	}
	return st.RecursionMisses, nil
}

func (l *loaded) Pin(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, p := range l.coll.Programs {
		if err := p.Pin(dir + "/" + name); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, lk := range l.links {
		if err := lk.Pin(fmt.Sprintf("%s/link_%d", dir, i)); err != nil {
			return err
		}
	}
	return nil
}

func (l *loaded) Close() error {
	l.mu.Lock()
	err := multiLink(l.links).Close()
	l.links = nil
	l.mu.Unlock()
	l.coll.Close()
	return err
}

type kernelVar struct{ v *ebpf.Variable }

func (v kernelVar) Get() ([]byte, error) {
	b := make([]byte, v.v.Size())
	err := v.v.Get(b)
	return b, err
}

func (v kernelVar) Set(b []byte) error { return v.v.Set(b) }

type kernelMap struct {
	name string
	m    *ebpf.Map
}

func (m *kernelMap) Name() string    { return m.name }
func (m *kernelMap) KeySize() int    { return int(m.m.KeySize()) }
func (m *kernelMap) ValueSize() int  { return int(m.m.ValueSize()) }
func (m *kernelMap) MaxEntries() int { return int(m.m.MaxEntries()) }

func (m *kernelMap) PerCPU() bool {
	switch m.m.Type() {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		return true
	}
	return false
}

// slot is the size of the value that the kernel hands out: of all CPUs.
func (m *kernelMap) slot() (size, cpus int) {
	size = m.ValueSize()
	if !m.PerCPU() {
		return size, 1
	}
	return (size + 7) / 8 * 8, ebpf.MustPossibleCPU()
}

func (m *kernelMap) Lookup(key []byte) ([]byte, error) {
	if !m.PerCPU() {
		b, err := m.m.LookupBytes(key)
		if err == nil && b == nil {
			return nil, machine.ErrKeyNotExist
		}
		return b, err
	}
	var values [][]byte
	err := m.m.Lookup(key, &values)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, machine.ErrKeyNotExist
	}
	if err != nil {
		return nil, err
	}
	return m.join(values), nil
}

func (m *kernelMap) join(values [][]byte) []byte {
	size, cpus := m.slot()
	b := make([]byte, size*cpus)
	for i, v := range values {
		copy(b[i*size:], v)
	}
	return b
}

func (m *kernelMap) Update(key, value []byte) error {
	if !m.PerCPU() {
		return m.m.Put(key, value)
	}
	size, cpus := m.slot()
	values := make([][]byte, cpus)
	for i := range values {
		values[i] = value[i*size : i*size+m.ValueSize()]
	}
	return m.m.Put(key, values)
}

func (m *kernelMap) Delete(key []byte) error {
	err := m.m.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return machine.ErrKeyNotExist
	}
	return err
}

func (m *kernelMap) All(yield func(key, value []byte) bool) error {
	it := m.m.Iterate()
	if m.PerCPU() {
		var key []byte
		var values [][]byte
		for it.Next(&key, &values) {
			if !yield(slices.Clone(key), m.join(values)) {
				return nil
			}
		}
		return it.Err()
	}
	var key, value []byte
	for it.Next(&key, &value) {
		if !yield(slices.Clone(key), slices.Clone(value)) {
			return nil
		}
	}
	return it.Err()
}

type records struct {
	r   *ringbuf.Reader
	rec ringbuf.Record
}

func (r *records) Read() ([]byte, error) {
	err := r.r.ReadInto(&r.rec)
	if errors.Is(err, ringbuf.ErrClosed) {
		return nil, os.ErrClosed
	}
	return r.rec.RawSample, err
}

func (r *records) SetDeadline(t time.Time) { r.r.SetDeadline(t) }
func (r *records) Pending() int            { return r.r.AvailableBytes() }
func (r *records) Close() error            { return r.r.Close() }
