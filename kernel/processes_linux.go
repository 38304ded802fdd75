package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/symbol"
)

// A ProcessEvent tells of one change to a process's memory map.
type ProcessEvent struct {
	PID int
	// Parent is set when the process was forked from it.
	Parent int
	// Exec is set when the process runs another program from now on.
	Exec bool
	// Map is a piece of a file that was mapped as code, or nil.
	Map *symbol.Mapping
}

// Kinds of records about processes (enum perf_event_type), and the mark of a
// PERF_RECORD_COMM that an exec caused.
const (
	perfRecordComm  = 3
	perfRecordFork  = 7
	perfRecordMmap2 = 10
	perfMiscExec    = 1 << 13
)

// WatchProcesses calls note for each new process, program and mapping of code
// on this machine until ctx is cancelled. It needs CAP_PERFMON.
func WatchProcesses(ctx context.Context, note func(ProcessEvent)) error {
	attr := perfAttr(unix.PERF_TYPE_SOFTWARE)
	attr.Config = unix.PERF_COUNT_SW_DUMMY
	// Only samples are counted, so wake at the first byte.
	attr.Wakeup = 1
	attr.Bits = unix.PerfBitWatermark | unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitTask
	var rings []*perfRing
	defer func() {
		for _, r := range rings {
			r.close()
		}
	}()
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(stop)
	fds := []unix.PollFd{{Fd: int32(stop), Events: unix.POLLIN}}
	for _, cpu := range onlineCPUs() {
		r, err := openPerfRing(attr, cpu)
		if errors.Is(err, unix.ENODEV) {
			continue // went offline
		}
		if err != nil {
			return refused("watching processes", err, needs{perfmon: true, perf: true})
		}
		rings = append(rings, r)
		fds = append(fds, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
	}
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(stop, one[:])
	})
	defer func() {
		// The descriptor must live until the write to it is over.
		if !cancel() {
			<-done
		}
	}()
	for {
		for _, r := range rings {
			for rec := r.next(); rec != nil; rec = r.next() {
				if e, ok := processEvent(rec); ok {
					note(e)
				}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// processEvent decodes a record with its header (include/uapi/linux/perf_event.h).
func processEvent(rec []byte) (ProcessEvent, bool) {
	if len(rec) < 16 {
		return ProcessEvent{}, false
	}
	order := binary.NativeEndian
	body := rec[8:]
	e := ProcessEvent{PID: int(order.Uint32(body))}
	switch order.Uint32(rec) {
	case perfRecordComm:
		e.Exec = order.Uint16(rec[4:])&perfMiscExec != 0
		return e, e.Exec
	case perfRecordFork:
		if len(body) < 16 {
			return e, false
		}
		e.Parent = int(order.Uint32(body[4:]))
		// A new thread has the process of its parent.
		return e, e.Parent != e.PID
	case perfRecordMmap2:
		if len(body) < 64 {
			return e, false
		}
		name, _, _ := bytes.Cut(body[64:], []byte{0})
		addr := order.Uint64(body[8:])
		e.Map = &symbol.Mapping{
			Start: addr, End: addr + order.Uint64(body[16:]), Perms: "r-xp", Offset: order.Uint64(body[24:]),
			Major: order.Uint32(body[32:]), Minor: order.Uint32(body[36:]), Inode: order.Uint64(body[40:]), Path: string(name),
		}
		return e, e.Map.End > e.Map.Start
	}
	return e, false
}
