//go:build amd64 || arm64

package rootless

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/vm"
)

// engineMap is a map of the engine as machine.Map.
type engineMap struct{ *vm.Map }

func (m engineMap) Lookup(key []byte) ([]byte, error) {
	value, err := m.LookupBytes(key)
	if err == nil && value == nil {
		return nil, machine.ErrKeyNotExist
	}
	return value, err
}

func (m engineMap) Update(key, value []byte) error {
	return m.Map.Update(key, value, ebpf.UpdateAny)
}

func (m engineMap) Delete(key []byte) error {
	err := m.Map.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return machine.ErrKeyNotExist
	}
	return err
}

func (m engineMap) All(yield func(key, value []byte) bool) error {
	for key, value := range m.Map.All() {
		if !yield(key, value) {
			break
		}
	}
	return nil
}

// variable is a global variable as machine.Var.
type variable struct{ v *vm.Variable }

func (v variable) Get() ([]byte, error) {
	b := make([]byte, v.v.Size())
	return b, v.v.Get(b)
}

func (v variable) Set(b []byte) error { return v.v.Set(b) }

// records is a reader of the engine as machine.Records.
type records struct {
	*vm.Reader
	rec  vm.Record
	mu   sync.Mutex
	lost uint64
}

// perCPUBuffer is what a perf event array keeps for its reader.
const perCPUBuffer = 256 << 10

func newRecords(m *vm.Map) (machine.Records, error) {
	r, err := vm.NewRingReader(m)
	if err != nil {
		if r, err = vm.NewPerfReader(m, perCPUBuffer); err != nil {
			return nil, fmt.Errorf("map %s is neither a ring buffer nor a perf event array", m.Name())
		}
	}
	return &records{Reader: r}, nil
}

func (r *records) Read() ([]byte, error) {
	for {
		if err := r.ReadInto(&r.rec); err != nil {
			// The errors of the interface are compared by identity.
			for _, is := range []error{os.ErrDeadlineExceeded, os.ErrClosed} {
				if errors.Is(err, is) {
					return nil, is
				}
			}
			return nil, err
		}
		if r.rec.LostSamples == 0 {
			return r.rec.RawSample, nil
		}
		r.mu.Lock()
		r.lost += r.rec.LostSamples
		r.mu.Unlock()
	}
}

func (r *records) Lost() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}
