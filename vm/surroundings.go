package vm

import (
	"errors"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
)

// This file has the helpers that ask for what surrounds a program, and which the
// host answers: routes, devices, processes and their control groups, settings.

// A Sysctl is the setting that a program of type cgroup_sysctl decides about.
type Sysctl struct {
	// Name is what follows /proc/sys/.
	Name string
	// Current is the value, New the one that is being written, which the program
	// may replace: nil for a read.
	Current, New []byte
}

// fibLookup is bpf_fib_lookup (net/core/filter.c).
func fibLookup(r *run) uint64 {
	const size, known = 64, 1<<6 - 1 // of struct bpf_fib_lookup; BPF_FIB_LOOKUP_*
	n, flags := uint32(r.arg(3)), uint32(r.arg(4))
	if n < size || flags&^known != 0 {
		return EINVAL.result()
	}
	params, ok := r.bytes(r.arg(2), size)
	if !ok {
		return r.badMemory(2)
	}
	if family := params[0]; family != 2 && family != 10 { // AF_INET, AF_INET6
		return EAFNOSUPPORT.result()
	}
	return uint64(int64(r.vm.host.LookupRoute(params, flags)))
}

// checkMTU is bpf_check_mtu, without segments: packets here have none.
func checkMTU(r *run) uint64 {
	const segments = 1 // BPF_MTU_CHK_SEGS
	to, ok := r.bytes(r.arg(3), 4)
	if !ok {
		return r.badMemory(3)
	}
	given, diff, flags := native.Uint32(to), int64(int32(r.arg(4))), r.arg(5)
	k := &r.packet
	if flags&^segments != 0 || flags != 0 && (k.xdp || given != 0) {
		return EINVAL.result()
	}
	mtu := r.vm.host.MTU(uint32(r.arg(2)))
	if mtu == 0 {
		return ENODEV.result()
	}
	length := int64(k.end - k.data)
	if given != 0 {
		length = int64(given) + ethLen
	}
	native.PutUint32(to, mtu)
	if length+diff > int64(mtu)+ethLen {
		return 1 // BPF_MTU_CHK_RET_FRAG_NEEDED
	}
	return 0
}

// copySysctl is copy_sysctl_value of kernel/bpf/cgroup.c, for the buffer of
// arguments 2 and 3.
func copySysctl(r *run, value []byte) uint64 {
	dst, ok := r.bytes(r.arg(2), uint64(uint32(r.arg(3))))
	switch {
	case !ok:
		return r.badMemory(2)
	case len(dst) == 0:
		return EINVAL.result()
	}
	clear(dst[copy(dst, value):])
	switch {
	case len(value) == 0:
		return EINVAL.result()
	case len(dst) > len(value):
		return uint64(len(value))
	}
	dst[len(dst)-1] = 0
	return E2BIG.result()
}

func sysctlName(r *run) uint64 {
	const base = 1 // BPF_F_SYSCTL_BASE_NAME
	name := r.vm.host.Sysctl().Name
	if r.arg(4)&base != 0 {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	dst, ok := r.bytes(r.arg(2), uint64(uint32(r.arg(3))))
	switch {
	case !ok:
		return r.badMemory(2)
	case len(dst) == 0:
		return E2BIG.result()
	}
	n := copy(dst[:len(dst)-1], name)
	dst[n] = 0
	if n < len(name) {
		return E2BIG.result()
	}
	return uint64(n)
}

func sysctlSet(r *run) uint64 {
	from, ok := r.bytes(r.arg(2), uint64(uint32(r.arg(3))))
	s := r.vm.host.Sysctl()
	switch {
	case !ok:
		return r.badMemory(2)
	case s.New == nil || len(from) == 0:
		return EINVAL.result()
	case len(from) > pageSize-1:
		return E2BIG.result()
	}
	s.New = slices.Clone(from)
	return 0
}

// nsPID is bpf_get_ns_current_pid_tgid.
func nsPID(r *run) uint64 {
	dst, ok := r.bytes(r.arg(3), uint64(uint32(r.arg(4))))
	if !ok {
		return r.badMemory(3)
	}
	clear(dst)
	p := r.vm.host.Process()
	if len(dst) != 8 || p.PIDNamespace == 0 || r.arg(1) != p.PIDNamespaceDev || r.arg(2) != p.PIDNamespace {
		return EINVAL.result()
	}
	native.PutUint32(dst, p.PID)
	native.PutUint32(dst[4:], p.TGID)
	return 0
}

func sendSignal(thread bool) helperFunc {
	return func(r *run) uint64 {
		number := uint32(r.arg(1))
		if number > 64 {
			return EINVAL.result()
		}
		err := r.vm.host.Signal(number, thread)
		if e := Errno(0); errors.As(err, &e) {
			return e.result()
		} else if err != nil {
			return EPERM.result()
		}
		return 0
	}
}

// ancestor returns the process's control group at a level, which is 0 for the root.
func ancestor(r *run, level uint64) uint64 {
	p := r.vm.host.Process()
	switch n := uint64(len(p.Ancestors)); {
	case level < n:
		return p.Ancestors[level]
	case level == n:
		return p.CgroupID
	}
	return 0
}

// underCgroup tells whether the process is in the control group that an entry of
// a cgroup_array stands for, or below.
func underCgroup(arg int) helperFunc {
	return func(r *run) uint64 {
		m := r.vm.mapAt(r.arg(arg))
		if m == nil {
			return r.badMap(arg)
		}
		t, ok := m.table.(targetArray)
		if !ok || t.typ != abi.MapCgroupArray {
			return r.badMap(arg)
		}
		index := uint32(r.arg(arg + 1))
		switch {
		case index >= t.n:
			return E2BIG.result()
		case !t.has(index):
			return EAGAIN.result()
		}
		id := native.Uint32(t.m.bytes(t.address(0, index)))
		p := r.vm.host.Process()
		same := func(cgroup uint64) bool { return uint32(cgroup) == id }
		if same(p.CgroupID) || slices.ContainsFunc(p.Ancestors, same) {
			return 1
		}
		return 0
	}
}

func init() {
	cgroup := func(r *run) uint64 { return r.vm.host.Process().CgroupID }
	for id, f := range map[int32]helperFunc{
		33:  underCgroup(2),
		37:  underCgroup(1),
		69:  fibLookup,
		79:  cgroup,
		83:  func(r *run) uint64 { return ancestor(r, r.arg(2)) },
		101: sysctlName,
		102: func(r *run) uint64 { return copySysctl(r, r.vm.host.Sysctl().Current) },
		103: func(r *run) uint64 { return copySysctl(r, r.vm.host.Sysctl().New) },
		104: sysctlSet,
		109: sendSignal(false),
		117: sendSignal(true),
		120: nsPID,
		123: func(r *run) uint64 { return ancestor(r, r.arg(1)) },
		128: cgroup,
		129: func(r *run) uint64 { return ancestor(r, r.arg(2)) },
		163: checkMTU,
	} {
		helpers[id] = f
	}
	mapTypes[abi.MapCgroupArray] = newTargets
}
