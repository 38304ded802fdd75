package symbol

import (
	"bytes"
	"cmp"
	"container/heap"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Mapping is one line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64 // addresses in the process, End excluded
	Perms      string // "r-xp"
	Offset     uint64 // of Start in the file, bytes
	Major      uint32 // device
	Minor      uint32
	Inode      uint64 // 0 for memory without a file
	Path       string // unescaped, without " (deleted)"; "[vdso]", "[heap]" and the like for special memory
	Deleted    bool
}

// IsExecutable reports whether code can run in m.
func (m *Mapping) IsExecutable() bool { return len(m.Perms) > 2 && m.Perms[2] == 'x' }

// IsFile reports whether m shows a file.
func (m *Mapping) IsFile() bool { return m.Inode != 0 && strings.HasPrefix(m.Path, "/") }

const maxMappings = 1 << 20

// ParseMaps reads text in the form of /proc/PID/maps (proc(5)) and returns
// the mappings in ascending order of addresses. Lines of another form are an
// error. A process that has exited gives empty text and no mappings.
func ParseMaps(r io.Reader) ([]Mapping, error) {
	var maps []Mapping
	var bad error
	err := scanLines(r, func(line []byte) bool {
		m, ok := parseMapping(line)
		switch {
		case !ok:
			bad = fmt.Errorf("memory map: line %d is not understood: %.80q", len(maps)+1, line)
		case len(maps) == maxMappings:
			bad = fmt.Errorf("memory map: %w", ErrTooLarge)
		default:
			maps = append(maps, m)
		}
		return bad == nil
	})
	if err = cmp.Or(err, bad); err != nil {
		return nil, err
	}
	slices.SortFunc(maps, func(a, b Mapping) int { return cmp.Compare(a.Start, b.Start) })
	return maps, nil
}

// parseMapping reads "start-end perms offset major:minor inode   path".
func parseMapping(line []byte) (m Mapping, ok bool) {
	hex := func(end byte) (uint64, bool) {
		v, n := parseHex(line)
		if n == 0 || n >= len(line) || line[n] != end {
			return 0, false
		}
		line = line[n+1:]
		return v, true
	}
	if m.Start, ok = hex('-'); !ok {
		return m, false
	}
	if m.End, ok = hex(' '); !ok || m.End < m.Start || len(line) < 5 || line[4] != ' ' {
		return m, false
	}
	m.Perms = string(line[:4])
	line = line[5:]
	if m.Offset, ok = hex(' '); !ok {
		return m, false
	}
	major, ok1 := hex(':')
	minor, ok2 := hex(' ')
	m.Major, m.Minor = uint32(major), uint32(minor)
	digits, path, _ := bytes.Cut(line, []byte{' '})
	inode, err := strconv.ParseUint(string(digits), 10, 64)
	if !ok1 || !ok2 || err != nil {
		return m, false
	}
	m.Inode = inode
	m.Path = unescapeMaps(string(bytes.TrimLeft(path, " ")))
	if before, found := strings.CutSuffix(m.Path, " (deleted)"); found && m.Inode != 0 {
		m.Path, m.Deleted = before, true
	}
	return m, true
}

// unescapeMaps undoes the kernel's one escape in maps: a line feed as \012.
func unescapeMaps(s string) string { return strings.ReplaceAll(s, `\012`, "\n") }

// FindMapping returns the mapping of maps, which ascend, that holds addr, or nil.
func FindMapping(maps []Mapping, addr uint64) *Mapping {
	i, _ := slices.BinarySearchFunc(maps, addr, func(m Mapping, a uint64) int {
		if m.End <= a {
			return -1
		}
		return 1
	})
	if i < len(maps) && addr >= maps[i].Start {
		return &maps[i]
	}
	return nil
}

// A PerfMap is what a JIT compiler says of its code in /tmp/perf-PID.map:
// lines of start and size in hexadecimal and a name (Linux,
// tools/perf/Documentation/jit-interface.txt). It is immutable.
type PerfMap struct {
	entries []jitEntry // ascending, not overlapping
	names   []byte
}

// jitEntry is a piece of code that no later line has overwritten.
type jitEntry struct {
	base       uint64 // start of the code that the piece is of
	start, end uint64
	name, size uint32 // in names
}

type jitLine struct {
	jitEntry
	line int
}

type jitHeap []jitLine

func (h jitHeap) Len() int           { return len(h) }
func (h jitHeap) Less(i, j int) bool { return h[i].line > h[j].line }
func (h jitHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *jitHeap) Push(x any)        { *h = append(*h, x.(jitLine)) }
func (h *jitHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// maxPerfMap bounds what is read of a perf map.
const maxPerfMap = 256 << 20

// ParsePerfMap reads a perf map. Later lines win over earlier ones that they
// overlap, since a JIT compiler uses memory again. Lines of another form,
// like one half written, are skipped. The error is that of r or [ErrTooLarge].
func ParsePerfMap(r io.Reader) (*PerfMap, error) {
	m := &PerfMap{}
	var all []jitLine
	limited := &io.LimitedReader{R: r, N: maxPerfMap + 1}
	err := scanLines(limited, func(line []byte) bool {
		start, n := parseHex(bytes.TrimPrefix(line, []byte("0x")))
		if bytes.HasPrefix(line, []byte("0x")) {
			n += 2
		}
		if n == 0 || n >= len(line) || line[n] != ' ' {
			return true
		}
		rest := bytes.TrimPrefix(line[n+1:], []byte("0x"))
		size, n := parseHex(rest)
		if n == 0 || n+1 >= len(rest) || rest[n] != ' ' || size == 0 || start+size < start {
			return true
		}
		name := bytes.TrimSpace(rest[n+1:])
		if len(name) == 0 {
			return true
		}
		all = append(all, jitLine{jitEntry{start, start, start + size, uint32(len(m.names)), uint32(len(name))}, len(all)})
		m.names = append(m.names, name...)
		return true
	})
	if err != nil {
		return nil, err
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("perf map: %w", ErrTooLarge)
	}
	slices.SortFunc(all, func(a, b jitLine) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.line, b.line)) })
	// Sweep over the starts; live holds the entries begun, the latest line on
	// top. Those that have ended stay until they come to the top.
	var live jitHeap
	pos := uint64(0)
	emitUntil := func(to uint64) {
		for pos < to {
			for len(live) > 0 && live[0].end <= pos {
				heap.Pop(&live)
			}
			if len(live) == 0 {
				break
			}
			top, end := live[0], min(live[0].end, to)
			if n := len(m.entries); n > 0 && m.entries[n-1].end == pos && m.entries[n-1].name == top.name {
				m.entries[n-1].end = end
			} else {
				m.entries = append(m.entries, jitEntry{top.base, pos, end, top.name, top.size})
			}
			pos = end
		}
		pos = to
	}
	for _, e := range all {
		emitUntil(e.start)
		heap.Push(&live, e)
	}
	emitUntil(math.MaxUint64)
	m.entries = slices.Clip(m.entries)
	return m, nil
}

// Resolve returns the name of the code that holds addr, an address in the
// process, and addr's distance from its start.
func (m *PerfMap) Resolve(addr uint64) (name string, offset uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(m.entries, addr, func(e jitEntry, a uint64) int {
		if e.end <= a {
			return -1
		}
		return 1
	})
	if i == len(m.entries) || addr < m.entries[i].start {
		return "", 0, false
	}
	e := m.entries[i]
	return string(m.names[e.name : e.name+e.size]), addr - e.base, true
}

// Len returns the number of pieces of code.
func (m *PerfMap) Len() int { return len(m.entries) }
