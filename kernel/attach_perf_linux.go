package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/target"
)

// tracepoint attaches to a tracepoint by a perf event.
func (l *loaded) tracepoint(p *program, pt hook.Point, cookie uint64, pid int) (*fdLink, error) {
	if pt.Event == "" {
		return nil, fmt.Errorf("program %s does not say which tracepoint it attaches to", p.name)
	}
	id, err := tracepointID(pt.Subsystem, pt.Event)
	if err != nil {
		return nil, err
	}
	attr := perfAttr(unix.PERF_TYPE_TRACEPOINT)
	attr.Config, attr.Sample, attr.Wakeup = id, 1, 1
	// The program runs on every CPU and for every process, whatever the event
	// is opened for.
	evPID, cpu := systemWide(0)
	k, err := l.openPerf(p, pt, attr, evPID, cpu, cookie)
	var link *linkError
	switch {
	case err == nil:
		return k, nil
	case errors.As(err, &link) && errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("the kernel refuses it: the program looks beyond the end of the event's record: %w", named(link.err))
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL) && link == nil:
		return nil, fmt.Errorf("the tracepoint went away: %w", named(err))
	}
	return nil, fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}

// tracepointID is the number that perf_event_open(2) knows a tracepoint by.
func tracepointID(subsystem, event string) (uint64, error) {
	fs, err := OpenTraceFS()
	if err != nil {
		return 0, err
	}
	if strings.ContainsAny(subsystem+event, "/\x00") {
		return 0, fmt.Errorf("tracepoint %s:%s: %w", subsystem, event, target.ErrNotFound)
	}
	text, err := fs.ReadFile("events/" + subsystem + "/" + event + "/id")
	if errors.Is(err, target.ErrNotFound) {
		if t, err := Target(); err == nil {
			_, err = hook.Expand(t, hook.Point{Kind: hook.Tracepoint, Subsystem: subsystem, Event: event}, hook.Options{})
			var e *hook.Error
			if errors.As(err, &e) {
				return 0, e
			}
		}
		return 0, fmt.Errorf("the kernel has no tracepoint %s:%s: %w", subsystem, event, target.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the number of tracepoint %s:%s cannot be read: %w", subsystem, event, err)
	}
	return id, nil
}

// defaultPeriod is how many events pass between two runs where nothing else is
// said.
const defaultPeriod = 1_000_000

// Bits of perf_event_attr.bp_type (include/uapi/linux/hw_breakpoint.h).
const (
	breakRead  = 1
	breakWrite = 2
	breakExec  = 4
)

// planPerf says how to attach to events that each CPU, or each thread of a
// process, counts by itself.
func (l *loaded) planPerf(p *program, pt hook.Point, cookie uint64, pid int) ([]job, error) {
	attr, err := perfPoint(p, pt)
	if err != nil {
		return nil, err
	}
	type where struct{ pid, cpu int }
	var places []where
	if pid > 0 {
		threads, err := threadsOf(pid)
		if err != nil {
			return nil, err
		}
		for _, t := range threads {
			places = append(places, where{t, -1})
		}
		attr.Bits |= unix.PerfBitInherit // threads that it starts later
	} else {
		for _, cpu := range onlineCPUs() {
			places = append(places, where{-1, cpu})
		}
	}
	var jobs []job
	for _, w := range places {
		a := *attr
		jobs = append(jobs, job{point: pt, do: func() (*fdLink, error) {
			k, err := l.openPerf(p, pt, &a, w.pid, w.cpu, cookie)
			if err != nil {
				return nil, perfError(p, pt, pid, err)
			}
			return k, nil
		}})
	}
	return jobs, nil
}

// perfPoint describes the event of a point.
func perfPoint(p *program, pt hook.Point) (*unix.PerfEventAttr, error) {
	switch pt.Kind {
	case hook.Profile:
		attr := perfAttr(abi.PerfTypeSoftware)
		attr.Config = unix.PERF_COUNT_SW_CPU_CLOCK
		if pt.Unit == hook.Hz {
			if pt.Rate == 0 {
				return nil, errors.New("a rate of 0 means never")
			}
			attr.Sample, attr.Bits = pt.Rate, unix.PerfBitFreq
			return attr, nil
		}
		period := pt.Unit.Period(pt.Rate)
		if period <= 0 {
			return nil, errors.New("a period of 0 means always")
		}
		attr.Sample = uint64(period)
		return attr, nil
	case hook.Software, hook.Hardware:
		e, ok := pt.CPUEvent()
		if !ok {
			return nil, fmt.Errorf("there is no event %q", pt.Event)
		}
		typ := uint32(abi.PerfTypeSoftware)
		if pt.Kind == hook.Hardware {
			typ = abi.PerfTypeHardware
		}
		attr := perfAttr(typ)
		attr.Config, attr.Sample = e.Config, pt.Count
		if attr.Sample == 0 {
			attr.Sample = e.Count
		}
		if attr.Sample == 0 {
			attr.Sample = defaultPeriod
		}
		return attr, nil
	case hook.Watchpoint, hook.AsyncWatchpoint:
		if !pt.HasAddress && pt.Address == 0 {
			return nil, errors.New("the address to watch is not known yet: an argument of a function gives it when the function is called")
		}
		attr := perfAttr(abi.PerfTypeBreakpoint)
		attr.Sample = 1
		for _, c := range pt.Mode {
			switch c {
			case 'r':
				attr.Bp_type |= breakRead
			case 'w':
				attr.Bp_type |= breakWrite
			case 'x':
				attr.Bp_type |= breakExec
			}
		}
		attr.Ext1, attr.Ext2 = pt.Address, uint64(pt.Length)
		if attr.Bp_type&breakExec != 0 {
			attr.Ext2 = 8 // sizeof(long), whatever is said
		}
		return attr, nil
	}
	return nil, fmt.Errorf("program %s does not say which event it attaches to: name one, such as profile:hz:99", p.name)
}

// threadsOf lists the threads of a process.
func threadsOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return nil, fmt.Errorf("there is no process %d: %w", pid, target.ErrNotFound)
	}
	var threads []int
	for _, e := range entries {
		if t, err := strconv.Atoi(e.Name()); err == nil {
			threads = append(threads, t)
		}
	}
	return threads, nil
}

func perfError(p *program, pt hook.Point, pid int, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
		if pt.Kind == hook.Hardware {
			return fmt.Errorf("this machine does not count %s: it has no hardware counters, or a virtual machine hides them: %w", pt.Event, named(err))
		}
		if pt.Kind == hook.Watchpoint || pt.Kind == hook.AsyncWatchpoint {
			return fmt.Errorf("this machine has no watchpoints of that kind: %w", named(err))
		}
		return fmt.Errorf("this kernel does not count it: %w", named(err))
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("all hardware watchpoints are in use (amd64 has four): %w", named(err))
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("there is no process %d: %w", pid, named(err))
	case errors.Is(err, unix.EINVAL) && pt.Kind == hook.Profile:
		return fmt.Errorf("the kernel refuses that rate (kernel.perf_event_max_sample_rate is %s): %w", readSys("/proc/sys/kernel/perf_event_max_sample_rate"), named(err))
	case errors.Is(err, unix.EINVAL) && (pt.Kind == hook.Watchpoint || pt.Kind == hook.AsyncWatchpoint):
		return fmt.Errorf("the kernel refuses to watch %d bytes at %#x: the address must be a multiple of the length, and reads can be watched only together with writes on most machines: %w", pt.Length, pt.Address, named(err))
	}
	return fmt.Errorf("attaching failed: %w", attachRefused(err, p))
}
