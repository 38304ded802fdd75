package runner

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// fake is a machine in memory: programs are functions of the test.
type fake struct {
	programs map[string]func(*fake)
	maps     map[string]*fakeMap
	vars     map[string][]byte
	attached []machine.Attach
	refuse   map[string]error // by attach point
	missed   map[string]uint64
	closed   bool

	mu       sync.Mutex
	cond     *sync.Cond
	records  [][]byte
	deadline time.Time
}

func newFake() *fake {
	f := &fake{programs: map[string]func(*fake){}, maps: map[string]*fakeMap{}, vars: map[string][]byte{}, refuse: map[string]error{}, missed: map[string]uint64{}}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *fake) Name() string { return "fake" }

func (f *fake) Load(_ context.Context, _ []byte, o machine.LoadOptions) (machine.Loaded, error) {
	for name, v := range o.Vars {
		f.vars[name] = v
	}
	return f, nil
}

type fakeLink struct{}

func (fakeLink) Close() error { return nil }

func (f *fake) Attach(_ context.Context, requests []machine.Attach) ([]machine.Link, []error) {
	links, errs := make([]machine.Link, len(requests)), make([]error, len(requests))
	for i, r := range requests {
		f.attached = append(f.attached, r)
		for _, pt := range r.Points {
			errs[i] = errors.Join(errs[i], f.refuse[pt.String()])
		}
		if errs[i] == nil {
			links[i] = fakeLink{}
		}
	}
	return links, errs
}

func (f *fake) Run(name string) (uint32, error) {
	p, ok := f.programs[name]
	if !ok {
		return 0, errors.New("no such program")
	}
	p(f)
	return 0, nil
}

func (f *fake) Map(name string) (machine.Map, error) {
	if m, ok := f.maps[name]; ok {
		return m, nil
	}
	return nil, errors.New("no such map")
}

func (f *fake) Var(name string) (machine.Var, error) { return fakeVar{f, name}, nil }

type fakeVar struct {
	f    *fake
	name string
}

func (v fakeVar) Get() ([]byte, error) { return bytes.Clone(v.f.vars[v.name]), nil }
func (v fakeVar) Set(b []byte) error   { v.f.vars[v.name] = bytes.Clone(b); return nil }

func (f *fake) Records(string) (machine.Records, error)    { return fakeRecords{f}, nil }
func (f *fake) Logs(string) string                         { return "" }
func (f *fake) Missed(name string) (uint64, error)         { return f.missed[name], nil }
func (f *fake) Prints() (machine.Records, error)           { return nil, errors.New("none") }
func (f *fake) Stats(string) (machine.ProgramStats, error) { return machine.ProgramStats{}, nil }
func (f *fake) RunWith(name string, _ machine.RunOptions) (machine.RunResult, error) {
	_, err := f.Run(name)
	return machine.RunResult{}, err
}
func (f *fake) Pin(string) error { return nil }
func (f *fake) Close() error     { f.closed = true; return nil }
func (f *fake) submit(record []byte) {
	f.mu.Lock()
	f.records = append(f.records, record)
	f.mu.Unlock()
	f.cond.Broadcast()
}
func (f *fake) event(id int, words ...uint64)           { f.submit(pack(id, words...)) }
func (f *fake) addMap(name string, m *fakeMap) *fakeMap { f.maps[name] = m; return m }

// pack makes a record of words of 64 bits.
func pack(id int, words ...uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(id))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

type fakeRecords struct{ f *fake }

func (r fakeRecords) Read() ([]byte, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if len(f.records) > 0 {
			rec := f.records[0]
			f.records = f.records[1:]
			return rec, nil
		}
		if !f.deadline.IsZero() {
			wait := time.Until(f.deadline)
			if wait <= 0 {
				return nil, os.ErrDeadlineExceeded
			}
			// Whoever holds the lock waits already, or looks at the time again.
			t := time.AfterFunc(wait, func() { f.mu.Lock(); defer f.mu.Unlock(); f.cond.Broadcast() })
			f.cond.Wait()
			t.Stop()
			continue
		}
		f.cond.Wait()
	}
}

func (r fakeRecords) SetDeadline(t time.Time) {
	r.f.mu.Lock()
	r.f.deadline = t
	r.f.mu.Unlock()
	r.f.cond.Broadcast()
}

func (r fakeRecords) Pending() int {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return len(r.f.records)
}

func (r fakeRecords) Lost() uint64 { return 0 }

func (r fakeRecords) Close() error { return nil }

type fakeMap struct {
	keySize, valueSize int
	perCPU             bool
	keys, values       [][]byte
}

func (m *fakeMap) Name() string    { return "" }
func (m *fakeMap) KeySize() int    { return m.keySize }
func (m *fakeMap) ValueSize() int  { return m.valueSize }
func (m *fakeMap) PerCPU() bool    { return m.perCPU }
func (m *fakeMap) MaxEntries() int { return 100 }

func (m *fakeMap) find(key []byte) int {
	return slices.IndexFunc(m.keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

func (m *fakeMap) Lookup(key []byte) ([]byte, error) {
	if i := m.find(key); i >= 0 {
		return m.values[i], nil
	}
	return nil, machine.ErrKeyNotExist
}

func (m *fakeMap) Update(key, value []byte) error {
	if i := m.find(key); i >= 0 {
		m.values[i] = bytes.Clone(value)
		return nil
	}
	m.keys, m.values = append(m.keys, bytes.Clone(key)), append(m.values, bytes.Clone(value))
	return nil
}

func (m *fakeMap) Delete(key []byte) error {
	i := m.find(key)
	if i < 0 {
		return machine.ErrKeyNotExist
	}
	m.keys, m.values = slices.Delete(m.keys, i, i+1), slices.Delete(m.values, i, i+1)
	return nil
}

func (m *fakeMap) All(yield func(key, value []byte) bool) error {
	for i := range m.keys {
		if !yield(m.keys[i], m.values[i]) {
			break
		}
	}
	return nil
}

// runFake runs a manifest on a fake machine and returns what happened.
func runFake(t *testing.T, f *fake, man *object.Manifest, change func(*Config)) ([]Event, Result) {
	t.Helper()
	var events []Event
	c := Config{Machine: f, Manifest: man, Root: os.DirFS(t.TempDir()), Events: func(e Event) error {
		events = append(events, e.Clone())
		return nil
	}}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	res, err := Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if !f.closed {
		t.Error("the object was left loaded")
	}
	return events, res
}
