//lint:file-ignore U1000 the kernel reads and writes the fields of these structures

package kernel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
	"unsafe"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/machine"
)

// progInfo is struct bpf_prog_info.
type progInfo struct {
	typ, id                   uint32
	tag                       [8]byte
	jitedLen, xlatedLen       uint32
	jited, xlated             uint64
	loadTime                  uint64
	uid, mapCount             uint32
	maps                      uint64
	name                      [objNameLen]byte
	ifindex, gpl              uint32
	netnsDev, netnsIno        uint64
	jitedSyms, jitedFuncs     uint32
	jitedSymsAt, jitedFuncsAt uint64
	btfID, funcInfoSize       uint32
	funcInfo                  uint64
	funcInfoCount, lineCount  uint32
	lineInfo, jitedLines      uint64
	jitedLineCount, lineSize  uint32
	jitedLineSize, tagCount   uint32
	tags                      uint64
	runTime, runs, misses     uint64
	verified, attachBTFObj    uint32
	attachBTFID, _            uint32
}

// linkInfo is struct bpf_link_info up to what is asked of it here: for links of
// many kprobes and for perf events.
type linkInfo struct {
	typ, id, prog, _ uint32
	kind             [72]byte
}

// Link types (enum bpf_link_type).
const (
	linkPerfEvent   = 7
	linkKprobeMulti = 8
)

// sortedLinks returns the links in a stable order. l.mu is held.
func (l *loaded) sortedLinks() []*fdLink {
	return slices.SortedFunc(maps.Keys(l.links), func(a, b *fdLink) int {
		return cmp.Or(cmp.Compare(a.program, b.program), cmp.Compare(a.seq, b.seq))
	})
}

// Missed adds up what the kernel left out: runs of a program while it ran on
// the same CPU, and hits of kprobes that were lost before.
func (l *loaded) Missed(name string) (uint64, error) {
	st, err := l.Stats(name)
	return st.Missed, err
}

func (l *loaded) Stats(name string) (machine.ProgramStats, error) {
	var st machine.ProgramStats
	p, err := l.program(name)
	if err != nil {
		return st, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range p.variants {
		var info progInfo
		if err := objInfo(v.fd, &info); err != nil {
			return st, fmt.Errorf("program %s does not say how it runs: %w", name, named(err))
		}
		st.Runs += info.runs
		st.Time += time.Duration(info.runTime)
		st.Missed += info.misses
		st.Instructions = len(v.img.code) / 8
		st.Verified += int(info.verified)
		st.JITed += int(info.jitedLen)
	}
	if p.abi.ProgType != abi.ProgKprobe {
		return st, nil // only kprobes lose hits before a program sees them
	}
	for k := range l.links {
		if k.program == name && k.fd >= 0 {
			st.Missed += missedOf(k.fd)
		}
	}
	return st, nil
}

// missedOf is how many hits a link's kprobes lost (Linux 6.7).
func missedOf(fd int) uint64 {
	var info linkInfo
	attr := &attrInfo{fd: uint32(fd), size: uint32(unsafe.Sizeof(info)), info: unsafe.Pointer(&info)}
	if _, err := sysBPF(cmdObjInfo, attr); err != nil {
		return 0
	}
	at, end := 0, 0
	switch info.typ {
	case linkKprobeMulti:
		// addrs u64, count u32, flags u32, missed u64
		at, end = 16, 24
	case linkPerfEvent:
		// type u32, pad, then for kprobes name u64, length u32, offset u32,
		// address u64, missed u64
		const kprobe, kretprobe = 3, 4 // enum bpf_perf_event_type
		if t := *(*uint32)(unsafe.Pointer(&info.kind)); t != kprobe && t != kretprobe {
			return 0
		}
		at, end = 32, 40
	default:
		return 0
	}
	if int(attr.size) < 16+end {
		return 0 // an older kernel
	}
	return *(*uint64)(unsafe.Pointer(&info.kind[at]))
}
