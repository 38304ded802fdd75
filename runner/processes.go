package runner

import (
	"fmt"
	"io/fs"
	"sync"

	"github.com/skep-bpf/skep/symbol"
)

// processes knows what processes have mapped, also of those that are gone
// when their addresses are shown. It is safe for concurrent use.
type processes struct {
	root    fs.FS
	symbols *symbol.Symbolizer

	mu    sync.Mutex
	known map[int]*symbol.Process
	maps  map[int][]symbol.Mapping
}

// maxProcesses bounds the processes that are remembered.
const maxProcesses = 1 << 16

// capture opens what a process has mapped, if it lives and was not seen yet.
func (p *processes) capture(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.known[pid]; !ok {
		p.load(pid)
	}
}

// process returns what is known of a process, or nil.
func (p *processes) process(pid int) *symbol.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if proc, ok := p.known[pid]; ok {
		return proc
	}
	return p.load(pid)
}

func (p *processes) load(pid int) *symbol.Process {
	if p.known == nil || len(p.known) >= maxProcesses {
		p.known = map[int]*symbol.Process{}
	}
	maps := p.read(pid)
	if len(maps) == 0 {
		maps = p.maps[pid]
	}
	var proc *symbol.Process
	if len(maps) > 0 {
		proc = p.symbols.Capture(pid, maps)
	}
	p.known[pid] = proc
	return proc
}

func (p *processes) read(pid int) []symbol.Mapping {
	if p.root == nil || pid <= 0 {
		return nil
	}
	f, err := p.root.Open(fmt.Sprintf("proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	maps, err := symbol.ParseMaps(f)
	if err != nil {
		return nil
	}
	return maps
}

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

// note takes a change in. What was resolved of the process so far is read
// anew when it is asked for next.
func (p *processes) note(e ProcessEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.maps == nil || len(p.maps) >= maxProcesses {
		p.maps = map[int][]symbol.Mapping{}
	}
	switch {
	case e.Parent != 0:
		if _, ok := p.maps[e.PID]; ok {
			// Told late, by another CPU: the process has moved on.
			return
		}
		maps, ok := p.maps[e.Parent]
		if !ok {
			maps = p.read(e.Parent)
		}
		p.maps[e.PID] = maps[:len(maps):len(maps)]
	case e.Exec:
		p.maps[e.PID] = nil
	case e.Map != nil:
		maps, ok := p.maps[e.PID]
		if !ok {
			// It ran before it was watched.
			maps = p.read(e.PID)
		}
		p.maps[e.PID] = insertMapping(maps, *e.Map)
	}
	delete(p.known, e.PID)
}

// seed takes in what a process has mapped now, which is watched from now on.
func (p *processes) seed(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.maps == nil {
		p.maps = map[int][]symbol.Mapping{}
	}
	p.maps[pid] = p.read(pid)
}

// insertMapping adds m to a list that ascends; what it covers goes.
func insertMapping(list []symbol.Mapping, m symbol.Mapping) []symbol.Mapping {
	out := make([]symbol.Mapping, 0, len(list)+1)
	placed := false
	for _, old := range list {
		if old.Start >= m.End && !placed {
			out, placed = append(out, m), true
		}
		if old.End <= m.Start || old.Start >= m.End {
			out = append(out, old)
		}
	}
	if !placed {
		out = append(out, m)
	}
	return out
}
