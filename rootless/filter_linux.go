//go:build amd64 || arm64

package rootless

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	seccompNr   = 0
	seccompArch = 4

	seccompAllow = 0x7fff0000 // SECCOMP_RET_ALLOW
	seccompTrace = 0x7ff00000 // SECCOMP_RET_TRACE
)

// A callSet is a set of system calls of 64-bit programs.
type callSet struct {
	// all is set for every call, those of 32-bit programs among them.
	all   bool
	calls map[int]bool
}

func (s *callSet) has(nr uint64) bool { return s.all || s.calls[int(nr)] }

func (s *callSet) add(o *callSet) {
	s.all = s.all || o.all
	if s.calls == nil {
		s.calls = map[int]bool{}
	}
	for nr := range o.calls {
		s.calls[nr] = true
	}
}

// filter is the seccomp program that stops at the calls of a set, and at nothing
// else. The numbers are compared in ranges, since many calls are neighbours.
func (s *callSet) filter() []unix.SockFilter {
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	if s.all {
		return []unix.SockFilter{ret(seccompTrace)}
	}
	load := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	prog := []unix.SockFilter{
		load(seccompArch), jump(unix.BPF_JEQ, nativeArch, 1, 0), ret(seccompAllow), load(seccompNr),
	}
	var nrs []int
	for nr := range s.calls {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	for i := 0; i < len(nrs); {
		j := i
		for j+1 < len(nrs) && nrs[j+1] == nrs[j]+1 {
			j++
		}
		prog = append(prog, jump(unix.BPF_JGE, uint32(nrs[i]), 0, 2), jump(unix.BPF_JGT, uint32(nrs[j]), 1, 0), ret(seccompTrace))
		i = j + 1
	}
	return append(prog, ret(seccompAllow))
}
