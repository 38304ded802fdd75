package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// perfPages is the size of the ring of each CPU, in pages.
const perfPages = 64

// Offsets in struct perf_event_mmap_page.
const (
	perfDataHead = 1024
	perfDataTail = 1032
)

// A perfRing is the ring of one perf event.
type perfRing struct {
	cpu  int
	fd   int
	mem  []byte
	data []byte
	tail uint64        // after the record that was returned last
	told uint64        // what the kernel knows
	head uint64        // up to where there are records, when last looked
	copy []byte        // of a record that goes round the end
	read atomic.Uint64 // tail for other goroutines, exact at the end of what is there
}

func openPerfRing(attr *unix.PerfEventAttr, cpu int) (*perfRing, error) {
	a := *attr
	fd, err := unix.PerfEventOpen(&a, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (1+perfPages)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &perfRing{cpu: cpu, fd: fd, mem: mem, data: mem[page:]}, nil
}

func (r *perfRing) close() {
	unix.Munmap(r.mem)
	unix.Close(r.fd)
}

// next returns the next record, with its header, or nil.
func (r *perfRing) next() []byte {
	// The record that was returned before is done with now.
	if r.tail == r.head || r.tail-r.told >= uint64(len(r.data))/4 {
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&r.mem[perfDataTail])), r.tail)
		r.told = r.tail
	}
	if r.tail == r.head {
		if r.head = atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.mem[perfDataHead]))); r.tail == r.head {
			return nil
		}
	}
	size := uint64(len(r.data))
	at := r.tail % size
	// Records are multiples of 8 bytes, so the header stands in one piece.
	n := uint64(binary.NativeEndian.Uint16(r.data[at+6:]))
	if n < 8 || n > r.head-r.tail {
		r.tail = r.head // cannot be: the kernel wrote it
		r.read.Store(r.tail)
		return nil
	}
	if r.tail += n; r.tail == r.head {
		r.read.Store(r.tail)
	}
	if at+n <= size {
		return r.data[at : at+n : at+n]
	}
	r.copy = append(append(r.copy[:0], r.data[at:]...), r.data[:n-(size-at)]...)
	return r.copy
}

func (r *perfRing) pending() int {
	head := atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.mem[perfDataHead])))
	return int(head - r.read.Load())
}

// A perfReader reads the rings of all CPUs, as records of one map of perf
// events, or of one event.
type perfReader struct {
	name  string
	rings []*perfRing
	at    int // the ring that was read last
	// decode takes a sample apart and returns nil for what is not to be shown.
	decode func(body []byte) []byte
	lost   atomic.Uint64

	epoll  int
	file   *os.File
	conn   syscall.RawConn
	done   func()
	inRead sync.Mutex
	closed atomic.Bool
}

// newPerfReader opens an event for each CPU, to which programs then write.
func newPerfReader(m *kernelMap) (*perfReader, error) {
	attr := perfAttr(unix.PERF_TYPE_SOFTWARE)
	attr.Config = unix.PERF_COUNT_SW_BPF_OUTPUT
	attr.Sample_type = unix.PERF_SAMPLE_RAW
	attr.Sample, attr.Wakeup = 1, 1
	r, err := openPerfReader("perf event array "+m.name, attr, rawSample)
	if err != nil {
		return nil, err
	}
	remove := func() {
		for _, ring := range r.rings {
			key := make([]byte, 4)
			put(key, uint64(ring.cpu))
			m.Delete(key)
		}
	}
	for _, ring := range r.rings {
		if ring.cpu >= m.maxEntries {
			continue
		}
		key, value := make([]byte, 4), make([]byte, 4)
		put(key, uint64(ring.cpu))
		put(value, uint64(ring.fd))
		if err := m.update(key, value); err != nil {
			remove()
			r.Close()
			return nil, fmt.Errorf("perf event array %s cannot be set up: %w", m.name, refusedOr(err, "setting it up"))
		}
	}
	r.done = remove
	return r, nil
}

// rawSample is what a program wrote: a length, and as many bytes.
func rawSample(body []byte) []byte {
	if len(body) < 4 {
		return nil
	}
	n := binary.NativeEndian.Uint32(body)
	if uint64(n) > uint64(len(body)-4) {
		return nil
	}
	return body[4 : 4+n]
}

func openPerfReader(name string, attr *unix.PerfEventAttr, decode func([]byte) []byte) (*perfReader, error) {
	r := &perfReader{name: name, decode: decode, epoll: -1}
	fail := func(what string, err error) (*perfReader, error) {
		r.release()
		return nil, refused(what, err, needs{perfmon: true, perf: true})
	}
	var err error
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fail("waiting for "+name, err)
	}
	for _, cpu := range onlineCPUs() {
		ring, err := openPerfRing(attr, cpu)
		if errors.Is(err, unix.ENODEV) {
			continue // went offline
		}
		if err != nil {
			return fail("opening "+name, err)
		}
		r.rings = append(r.rings, ring)
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, ring.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(ring.fd)}); err != nil {
			return fail("waiting for "+name, err)
		}
	}
	if r.file, r.conn, err = pollable(r.epoll, name); err != nil {
		r.release()
		return nil, err
	}
	for _, ring := range r.rings {
		if err := unix.IoctlSetInt(ring.fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return fail("starting "+name, err)
		}
	}
	return r, nil
}

func (r *perfReader) release() {
	for _, ring := range r.rings {
		ring.close()
	}
	if r.epoll >= 0 {
		unix.Close(r.epoll)
	}
	if r.file != nil {
		r.file.Close()
	}
}

// Kinds of records (enum perf_event_type).
const (
	perfRecordLost   = 2
	perfRecordSample = 9
)

// next returns a record that is there, or nil.
func (r *perfReader) next() []byte {
	for range r.rings {
		for {
			rec := r.rings[r.at].next()
			if rec == nil {
				break
			}
			switch binary.NativeEndian.Uint32(rec) {
			case perfRecordSample:
				if b := r.decode(rec[8:]); b != nil {
					return b
				}
			case perfRecordLost:
				if len(rec) >= 24 {
					r.lost.Add(binary.NativeEndian.Uint64(rec[16:]))
				}
			}
		}
		r.at = (r.at + 1) % len(r.rings)
	}
	return nil
}

func (r *perfReader) Read() (b []byte, err error) {
	r.inRead.Lock()
	defer r.inRead.Unlock()
	if r.closed.Load() {
		return nil, fmt.Errorf("%s: %w", r.name, os.ErrClosed)
	}
	if b := r.next(); b != nil {
		return b, nil
	}
	err = r.conn.Read(func(uintptr) bool {
		// What is ready now is looked at now; later events wake us again.
		var events [16]unix.EpollEvent
		unix.EpollWait(r.epoll, events[:], 0)
		b = r.next()
		return b != nil
	})
	switch {
	case b != nil:
		return b, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, os.ErrDeadlineExceeded
	}
	return nil, fmt.Errorf("%s: %w", r.name, os.ErrClosed)
}

func (r *perfReader) SetDeadline(t time.Time) { r.file.SetReadDeadline(t) }

func (r *perfReader) Pending() int {
	if r.closed.Load() {
		return 0
	}
	n := 0
	for _, ring := range r.rings {
		n += ring.pending()
	}
	return n
}

func (r *perfReader) Lost() uint64 { return r.lost.Load() }

func (r *perfReader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	if r.done != nil {
		r.done()
	}
	err := r.file.Close()
	r.inRead.Lock()
	defer r.inRead.Unlock()
	r.file = nil
	r.release()
	return err
}
