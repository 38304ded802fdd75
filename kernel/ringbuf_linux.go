package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/machine"
)

// Bits of a record's length (include/uapi/linux/bpf.h).
const (
	ringBusy    = 1 << 31 // BPF_RINGBUF_BUSY_BIT
	ringDiscard = 1 << 30 // BPF_RINGBUF_DISCARD_BIT
	ringHeader  = 8       // BPF_RINGBUF_HDR_SZ
)

// The reader shares memory with the kernel and copies nothing. It tells the
// kernel how far it has read only when it has to: the kernel wakes a reader
// that has read everything up to the record that it writes, so one that is
// behind costs the writers no wake-ups. A reader that finds many records at a
// time therefore sleeps for a moment instead of asking to be woken for the
// next one.
const (
	ringNap  = time.Millisecond
	ringMany = 16 // records in one go for which a nap pays
)

// A ringReader reads a ring buffer. Read is for one goroutine.
type ringReader struct {
	name     string
	size     uint64 // of the data, a power of two
	consumer []byte // the kernel reads how far we are
	producer []byte // the kernel tells how far it is; the data follows, twice
	data     unsafe.Pointer

	pos       uint64 // after the record that was returned last
	told      uint64 // what the kernel knows
	limit     uint64 // up to where there are records, when last looked
	since     int    // records read since the last wait
	sinceByte uint64

	reading  atomic.Uint64 // pos for other goroutines
	returned atomic.Uint64 // position behind what Read returned last
	file     *os.File
	conn     syscall.RawConn
	nap      *time.Timer

	mu       sync.Mutex
	deadline time.Time
	closed   chan struct{}
	once     sync.Once
	inRead   sync.Mutex // memory is unmapped when no Read is under way
}

func (l *loaded) Records(name string) (machine.Records, error) {
	m, err := l.findMap(name)
	if err != nil {
		return nil, err
	}
	switch m.typ {
	case abi.MapRingbuf:
		return newRingReader(m)
	case abi.MapPerfEventArray:
		return newPerfReader(m)
	}
	return nil, fmt.Errorf("map %s is of type %s, which carries no records", name, m.typ)
}

func newRingReader(m *kernelMap) (*ringReader, error) {
	page := os.Getpagesize()
	r := &ringReader{name: m.name, size: uint64(m.maxEntries), closed: make(chan struct{})}
	var err error
	if r.consumer, err = unix.Mmap(m.fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("ring buffer %s cannot be mapped: %w", m.name, refusedOr(err, "mapping it"))
	}
	if r.producer, err = unix.Mmap(m.fd, int64(page), page+2*m.maxEntries, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		unix.Munmap(r.consumer)
		return nil, fmt.Errorf("ring buffer %s cannot be mapped: %w", m.name, named(err))
	}
	r.data = unsafe.Pointer(&r.producer[page])
	if r.file, r.conn, err = pollable(m.fd, "ring buffer "+m.name); err != nil {
		r.unmap()
		return nil, err
	}
	// An earlier reader may have left off anywhere.
	r.pos = atomic.LoadUint64(r.consumerPos())
	r.told = r.pos
	r.reading.Store(r.pos)
	return r, nil
}

// pollable makes a descriptor one that goroutines wait for in the runtime's
// poller, where they cost no thread. The file has a copy of its own.
func pollable(fd int, name string) (*os.File, syscall.RawConn, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s cannot be read: %w", name, named(err))
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return nil, nil, fmt.Errorf("%s cannot be read: %w", name, named(err))
	}
	f := os.NewFile(uintptr(dup), name)
	conn, err := f.SyscallConn()
	if err == nil {
		err = f.SetReadDeadline(time.Time{})
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s cannot be waited for: %w", name, err)
	}
	return f, conn, nil
}

func (r *ringReader) consumerPos() *uint64 { return (*uint64)(unsafe.Pointer(&r.consumer[0])) }
func (r *ringReader) producerPos() *uint64 { return (*uint64)(unsafe.Pointer(&r.producer[0])) }

func (r *ringReader) unmap() {
	unix.Munmap(r.consumer)
	unix.Munmap(r.producer)
}

// tell lets the kernel reuse what was read.
func (r *ringReader) tell() {
	if r.told != r.pos {
		atomic.StoreUint64(r.consumerPos(), r.pos)
		r.told = r.pos
	}
}

// next returns the next record that is there, or nil.
func (r *ringReader) next() []byte {
	for {
		if r.pos >= r.limit {
			if r.limit = atomic.LoadUint64(r.producerPos()); r.pos >= r.limit {
				return nil
			}
		}
		at := unsafe.Add(r.data, uintptr(r.pos&(r.size-1)))
		n := atomic.LoadUint32((*uint32)(at))
		if n&ringBusy != 0 {
			return nil
		}
		size := n &^ ringDiscard
		r.pos += uint64(size+ringHeader+7) &^ 7
		if n&ringDiscard != 0 {
			continue
		}
		r.since++
		r.sinceByte += uint64(size)
		return unsafe.Slice((*byte)(unsafe.Add(at, ringHeader)), size)
	}
}

func (r *ringReader) Read() ([]byte, error) {
	r.inRead.Lock()
	defer r.inRead.Unlock()
	data, err := r.read()
	// What was returned no longer waits, though its room is not given back yet.
	r.returned.Store(r.pos)
	return data, err
}

func (r *ringReader) read() ([]byte, error) {
	select {
	case <-r.closed:
		return nil, fmt.Errorf("ring buffer %s: %w", r.name, os.ErrClosed)
	default:
	}
	// The record that was returned before is done with now.
	r.reading.Store(r.pos)
	if r.pos-r.told >= r.size/4 {
		r.tell()
	}
	for {
		if b := r.next(); b != nil {
			return b, nil
		}
		if r.since >= ringMany && r.sinceByte < r.size/4 && r.doze() {
			continue
		}
		if b, err := r.wait(); b != nil || err != nil {
			return b, err
		}
	}
}

// doze sleeps for a moment. It reports false where that must not be: the
// deadline is nearer.
func (r *ringReader) doze() bool {
	r.mu.Lock()
	deadline := r.deadline
	r.mu.Unlock()
	if !deadline.IsZero() && time.Until(deadline) < ringNap {
		r.since, r.sinceByte = 0, 0
		return false
	}
	r.since, r.sinceByte = 0, 0
	if r.nap == nil {
		r.nap = time.NewTimer(ringNap)
	} else {
		r.nap.Reset(ringNap)
	}
	select {
	case <-r.nap.C:
	case <-r.closed:
		r.nap.Stop()
		return false
	}
	return true
}

// wait blocks until there is a record, and returns it.
func (r *ringReader) wait() (b []byte, err error) {
	r.since, r.sinceByte = 0, 0
	err = r.conn.Read(func(uintptr) bool {
		// First tell, then look again: what the kernel writes from now on, it
		// wakes us for.
		r.tell()
		r.limit = 0
		b = r.next()
		return b != nil
	})
	r.reading.Store(r.pos)
	switch {
	case b != nil:
		return b, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, os.ErrDeadlineExceeded
	case err != nil:
		return nil, fmt.Errorf("ring buffer %s: %w", r.name, os.ErrClosed)
	}
	return nil, nil
}

func (r *ringReader) SetDeadline(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.Equal(r.deadline) || t.IsZero() != r.deadline.IsZero() {
		r.deadline = t
		r.file.SetReadDeadline(t)
	}
}

func (r *ringReader) Pending() int {
	select {
	case <-r.closed:
		return 0
	default:
	}
	return int(atomic.LoadUint64(r.producerPos()) - r.returned.Load())
}

// Lost is 0: a program knows when a record does not fit.
func (r *ringReader) Lost() uint64 { return 0 }

func (r *ringReader) Close() error {
	var err error
	r.once.Do(func() {
		close(r.closed)
		err = r.file.Close() // wakes a Read
		r.inRead.Lock()
		defer r.inRead.Unlock()
		r.tell()
		// The last record may still be looked at until here and no longer.
		r.unmap()
	})
	return err
}
