package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/skep-bpf/skep/abi"
)

// A ringTable is a ring buffer (kernel/bpf/ringbuf.c). The bytes of records are
// in the cage; their lengths, and who may commit them, are not. A record that
// would cross the end lies whole in a second stretch behind it.
type ringTable struct {
	m    *Map
	base uint32
	size uint64

	mu       sync.Mutex
	producer uint64
	consumer uint64
	records  []*ringRecord // that were not read, the oldest first
	reader   signal
	lost     uint64
}

type ringRecord struct {
	pos   uint64
	n     uint32
	state ringState
}

type ringState uint8

const (
	ringBusy ringState = iota
	ringReady
	ringDiscarded
)

const (
	ringHeader  = 8
	ringMaxSize = 1<<30 - 1 // RINGBUF_MAX_RECORD_SZ
	noWakeup    = 1
	forceWakeup = 2
)

func newRing(m *Map) (table, error) {
	n := uint64(m.maxEntries)
	if m.flags&^(1<<2) != 0 || m.keySize != 0 || m.valueSize != 0 || n == 0 || n&(n-1) != 0 || n%pageSize != 0 {
		return nil, EINVAL
	}
	t := &ringTable{m: m, size: n}
	t.reader.init()
	var err error
	t.base, err = m.alloc(2 * n)
	return t, err
}

// reserve makes room for a record; nil when there is none.
func (t *ringTable) reserve(n uint64) *ringRecord {
	if n > ringMaxSize {
		return nil
	}
	length := (n + ringHeader + 7) &^ 7
	if length > t.size {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.producer+length-t.consumer > t.size-1 {
		t.lost++
		return nil
	}
	rec := &ringRecord{pos: t.producer, n: uint32(n)}
	t.records = append(t.records, rec)
	t.producer += length
	return rec
}

func (t *ringTable) address(rec *ringRecord) uint32 {
	return t.base + uint32(rec.pos&(t.size-1)) + ringHeader
}

func (t *ringTable) commit(rec *ringRecord, state ringState, flags uint64) {
	t.mu.Lock()
	rec.state = state
	first := len(t.records) > 0 && t.records[0] == rec
	t.mu.Unlock()
	if flags&forceWakeup != 0 || first && flags&noWakeup == 0 {
		t.reader.notify()
	}
}

// pull returns a copy of the oldest record that is ready; ok is false if there
// is none.
func (t *ringTable) pull(buf []byte) (data []byte, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.records) > 0 {
		rec := t.records[0]
		if rec.state == ringBusy {
			return nil, false
		}
		b, _ := t.m.vm.cage.Bytes(t.address(rec), int(rec.n))
		if rec.state == ringReady {
			data, ok = append(buf[:0], b...), true
		}
		t.records[0] = nil
		t.records = t.records[1:]
		t.consumer += uint64(rec.n+ringHeader+7) &^ 7
		if ok {
			return data, true
		}
	}
	return nil, false
}

func (t *ringTable) query(what uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch what {
	case 0: // BPF_RB_AVAIL_DATA
		return t.producer - t.consumer
	case 1: // BPF_RB_RING_SIZE
		return t.size
	case 2: // BPF_RB_CONS_POS
		return t.consumer
	case 3: // BPF_RB_PROD_POS
		return t.producer
	}
	return 0
}

func (t *ringTable) lookup(int, []byte) uint32                { return 0 }
func (t *ringTable) update(int, []byte, []byte, uint64) Errno { return ENOTSUPP }
func (t *ringTable) remove([]byte) Errno                      { return ENOTSUPP }
func (t *ringTable) next([]byte) ([]byte, Errno)              { return nil, ENOTSUPP }
func (t *ringTable) read(_, _ []byte, _ uint64) Errno         { return ENOTSUPP }
func (t *ringTable) write(_, _ []byte, _ uint64) Errno        { return ENOTSUPP }

func (t *ringTable) stop() { t.reader.close() }

func (t *ringTable) close() {
	t.stop()
	t.m.release(t.base)
}

// A signal wakes readers.
type signal struct {
	mu     sync.Mutex
	ch     chan struct{}
	closed bool
}

func (s *signal) init() { s.ch = make(chan struct{}, 1) }

func (s *signal) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

func (s *signal) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ch)
	}
}

// A Record is what a program sent.
type Record struct {
	// RawSample are the bytes.
	RawSample []byte
	// CPU is the virtual processor of a record from a perf event array.
	CPU int
	// LostSamples is how many did not fit before this one; RawSample is empty
	// then. Perf event arrays only.
	LostSamples uint64
}

// A Reader reads what programs send through a ring buffer or a perf event array.
// One goroutine reads; the other methods may be called from others.
type Reader struct {
	m      *Map
	pull   func(*Record) bool
	signal *signal

	mu       sync.Mutex
	deadline time.Time
	closed   bool
	onClose  func()
}

// NewRingReader returns a reader of a ring buffer.
func NewRingReader(m *Map) (*Reader, error) {
	t, ok := m.table.(*ringTable)
	if !ok {
		return nil, fmt.Errorf("map %s is no ring buffer but a %s", m.name, m.typ)
	}
	return &Reader{m: m, signal: &t.reader, pull: func(r *Record) (ok bool) {
		r.RawSample, ok = t.pull(r.RawSample)
		return ok
	}}, nil
}

// Read returns the next record. It waits for one until the deadline, and fails
// with os.ErrDeadlineExceeded then, and with os.ErrClosed after Close.
func (r *Reader) Read() (Record, error) {
	var rec Record
	err := r.ReadInto(&rec)
	return rec, err
}

// ReadInto is Read into a record whose memory is used again.
func (r *Reader) ReadInto(rec *Record) error {
	for {
		r.mu.Lock()
		closed, deadline := r.closed, r.deadline
		r.mu.Unlock()
		if closed {
			return fmt.Errorf("map %s: %w", r.m.name, os.ErrClosed)
		}
		rec.LostSamples = 0
		if r.pull(rec) {
			return nil
		}
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			d := time.Until(deadline)
			if d <= 0 {
				return fmt.Errorf("map %s: %w", r.m.name, os.ErrDeadlineExceeded)
			}
			timeout = time.After(d)
		}
		select {
		case _, open := <-r.signal.ch:
			if !open {
				r.mu.Lock()
				r.closed = true
				r.mu.Unlock()
			}
		case <-timeout:
		}
	}
}

// SetDeadline bounds how long reads wait; the zero time is for ever.
func (r *Reader) SetDeadline(t time.Time) {
	r.mu.Lock()
	r.deadline = t
	r.mu.Unlock()
	r.signal.notify()
}

// Pending is the number of bytes that wait to be read, for a ring buffer.
func (r *Reader) Pending() int {
	if t, ok := r.m.table.(*ringTable); ok {
		return int(t.query(0))
	}
	return 0
}

// Close ends reading.
func (r *Reader) Close() error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.mu.Unlock()
	if first && r.onClose != nil {
		r.onClose()
	}
	r.signal.notify()
	return nil
}

// ring returns the ring buffer of the first argument.
func (r *run) ring() *ringTable {
	if m := r.vm.mapAt(r.arg(1)); m != nil {
		if t, ok := m.table.(*ringTable); ok {
			return t
		}
	}
	r.badMap(1)
	return nil
}

func ringOutput(r *run) uint64 {
	t := r.ring()
	if t == nil {
		return 0
	}
	if r.arg(4)&^(noWakeup|forceWakeup) != 0 {
		return EINVAL.result()
	}
	data, ok := r.bytes(r.arg(2), r.arg(3))
	if !ok {
		return r.badMemory(2)
	}
	rec := t.reserve(uint64(len(data)))
	if rec == nil {
		return EAGAIN.result()
	}
	to, _ := r.vm.cage.Bytes(t.address(rec), len(data))
	copy(to, data)
	t.commit(rec, ringReady, r.arg(4))
	return 0
}

func ringReserve(r *run) uint64 {
	t := r.ring()
	if t == nil || r.arg(3) != 0 {
		return 0
	}
	rec := t.reserve(r.arg(2))
	if rec == nil {
		return 0
	}
	return uint64(r.ownRecord(t, rec))
}

// ownRecord makes a reserved record one that the run has to give back, and
// returns its address.
func (r *run) ownRecord(t *ringTable, rec *ringRecord) uint32 {
	addr := t.address(rec)
	r.own(addr, func(submit bool, flags uint64) {
		state := ringDiscarded
		if submit {
			state = ringReady
		}
		t.commit(rec, state, flags)
	})
	return addr
}

func ringEnd(submit bool) helperFunc {
	return func(r *run) uint64 {
		end := r.disown(uint32(r.arg(1)))
		if end == nil {
			return r.giveUp(fmt.Errorf("%#x is no reserved record", r.arg(1)))
		}
		end(submit, r.arg(2))
		return 0
	}
}

func ringQuery(r *run) uint64 {
	if t := r.ring(); t != nil {
		return t.query(r.arg(2))
	}
	return 0
}

// own notes what the program has to give back.
func (r *run) own(addr uint32, end func(submit bool, flags uint64)) {
	r.owned = append(r.owned, owned{addr: addr, end: end})
}

// disown takes back what stands at an address, or returns nil.
func (r *run) disown(addr uint32) func(bool, uint64) {
	for i := len(r.owned) - 1; i >= 0; i-- {
		if o := r.owned[i]; o.addr == addr {
			r.owned = append(r.owned[:i], r.owned[i+1:]...)
			return o.end
		}
	}
	return nil
}

// A perfTable is a perf event array: where a reader is open, each processor has
// a queue of records.
type perfTable struct {
	m *Map

	mu     sync.Mutex
	open   bool
	limit  int // bytes in each queue
	queues []perfQueue
	reader signal
	rotate int
}

type perfQueue struct {
	records [][]byte
	bytes   int
	lost    uint64
}

func newPerf(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize != 4 && m.valueSize != 0 {
		return nil, EINVAL
	}
	if m.maxEntries == 0 {
		m.maxEntries = uint32(m.vm.cpus)
	}
	t := &perfTable{m: m, queues: make([]perfQueue, m.vm.cpus)}
	t.reader.init()
	return t, nil
}

// NewPerfReader returns a reader of a perf event array that keeps up to
// perCPUBuffer bytes for each processor. Until there is one, programs find that
// no event is open.
func NewPerfReader(m *Map, perCPUBuffer int) (*Reader, error) {
	t, ok := m.table.(*perfTable)
	if !ok {
		return nil, fmt.Errorf("map %s is no perf event array but a %s", m.name, m.typ)
	}
	if perCPUBuffer < 1 {
		return nil, errors.New("perCPUBuffer must be larger than 0")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open {
		return nil, fmt.Errorf("map %s has a reader already: %w", m.name, EBUSY)
	}
	t.open, t.limit = true, perCPUBuffer
	return &Reader{m: m, signal: &t.reader, pull: t.pull, onClose: func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open = false
		clear(t.queues)
	}}, nil
}

func (t *perfTable) pull(rec *Record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range t.queues {
		cpu := t.rotate
		q := &t.queues[cpu]
		t.rotate = (t.rotate + 1) % len(t.queues)
		rec.CPU = cpu
		if len(q.records) > 0 {
			t.rotate = cpu // this one until it is empty
			rec.RawSample = append(rec.RawSample[:0], q.records[0]...)
			q.bytes -= len(q.records[0]) + ringHeader
			q.records = q.records[1:]
			return true
		}
		if q.lost > 0 {
			rec.RawSample, rec.LostSamples, q.lost = rec.RawSample[:0], q.lost, 0
			return true
		}
	}
	return false
}

// output sends a record, made of parts, to the queue of a processor.
func (t *perfTable) output(cpu int, parts ...[]byte) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.open {
		return ENOENT
	}
	data := bytes.Join(parts, nil)
	q := &t.queues[cpu]
	if q.bytes+len(data)+ringHeader > t.limit {
		q.lost++
		return ENOSPC
	}
	q.records = append(q.records, data)
	q.bytes += len(data) + ringHeader
	t.reader.notify()
	return 0
}

func (t *perfTable) lookup(int, []byte) uint32                { return 0 }
func (t *perfTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }
func (t *perfTable) remove([]byte) Errno                      { return ENOENT }
func (t *perfTable) next(key []byte) ([]byte, Errno)          { return nextIndex(key, t.m.maxEntries) }
func (t *perfTable) read(_, _ []byte, _ uint64) Errno         { return EOPNOTSUPP }
func (t *perfTable) write(_, _ []byte, _ uint64) Errno        { return EINVAL }
func (t *perfTable) stop()                                    { t.reader.close() }
func (t *perfTable) close()                                   { t.stop() }

// perfOutput is bpf_perf_event_output; more returns what the flags ask for of
// the context, for programs with a packet.
func perfOutput(more func(r *run, n uint64) ([]byte, Errno)) helperFunc {
	const currentCPU = 1<<32 - 1
	return func(r *run) uint64 {
		m := r.vm.mapAt(r.arg(2))
		if m == nil {
			return r.badMap(2)
		}
		t, ok := m.table.(*perfTable)
		if !ok {
			return r.badMap(2)
		}
		flags := r.arg(3)
		extra := flags >> 32 & 0xfffff
		if flags&^(0xfffff<<32|currentCPU) != 0 || more == nil && extra != 0 {
			return EINVAL.result()
		}
		data, ok := r.bytes(r.arg(4), r.arg(5))
		if !ok {
			return r.badMemory(4)
		}
		var packet []byte
		if extra > 0 {
			var e Errno
			if packet, e = more(r, extra); e != 0 {
				return e.result()
			}
		}
		cpu := flags & currentCPU
		if cpu == currentCPU {
			cpu = uint64(r.cpu)
		}
		switch {
		case cpu >= uint64(m.maxEntries):
			return E2BIG.result()
		case cpu >= uint64(len(t.queues)):
			return ENOENT.result()
		case int(cpu) != r.cpu:
			return EOPNOTSUPP.result()
		}
		return t.output(int(cpu), data, packet).result()
	}
}

func init() {
	mapTypes[abi.MapRingbuf] = newRing
	mapTypes[abi.MapPerfEventArray] = newPerf
}
