//go:build amd64 || arm64

package rootless

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/machine"
)

// prints are the lines that programs print with bpf_printk, as machine.Records.
type prints struct {
	mu       sync.Mutex
	lines    [][]byte
	size     int // of all lines, in bytes
	lost     uint64
	wanted   bool // somebody reads
	closed   bool
	deadline time.Time
	wake     chan struct{}
}

// maxPrints bounds the bytes of lines that wait.
const maxPrints = 1 << 20

// print adds a line as the kernel's trace has it.
func (p *prints) print(tid int, name string, cpu int, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted || p.closed {
		return
	}
	ns := clock(unix.CLOCK_MONOTONIC)()
	line := fmt.Appendf(nil, "%s-%d [%03d] %d.%06d: %s", name, tid, cpu, ns/1e9, ns/1e3%1e6, strings.TrimSuffix(text, "\n"))
	if p.size+len(line) > maxPrints {
		p.lost++
		return
	}
	p.lines, p.size = append(p.lines, line), p.size+len(line)
	p.notify()
}

func (p *prints) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// records opens the lines for reading, from now on.
func (p *prints) records() machine.Records {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted, p.wake = true, make(chan struct{}, 1)
	return p
}

func (p *prints) Read() ([]byte, error) {
	for {
		p.mu.Lock()
		closed, deadline := p.closed, p.deadline
		if !closed && len(p.lines) > 0 {
			line := p.lines[0]
			p.lines, p.size = p.lines[1:], p.size-len(line)
			p.mu.Unlock()
			return line, nil
		}
		p.mu.Unlock()
		if closed {
			return nil, os.ErrClosed
		}
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			d := time.Until(deadline)
			if d <= 0 {
				return nil, os.ErrDeadlineExceeded
			}
			timeout = time.After(d)
		}
		select {
		case <-p.wake:
		case <-timeout:
		}
	}
}

func (p *prints) SetDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	p.notify()
}

func (p *prints) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

func (p *prints) Lost() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

func (p *prints) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.notify()
	}
	return nil
}
