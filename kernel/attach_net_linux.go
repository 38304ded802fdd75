package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
)

// attachTo attaches programs to one object of many: an interface, a cgroup, a
// network namespace, a map of sockets.
func (l *loaded) attachTo(p *program, pt hook.Point, to string) (*fdLink, error) {
	switch p.abi.ProgType {
	case abi.ProgXDP:
		if p.abi.AttachType != abi.AttachXDP {
			return nil, fmt.Errorf("program %s is attached by putting it into a %s: write its descriptor there", p.name, pt.Attach)
		}
		return l.netLink(p, pt, to, p.abi.AttachType)
	case abi.ProgSchedCls:
		return l.classifier(p, pt, to)
	case abi.ProgCgroupSkb, abi.ProgCgroupSock, abi.ProgCgroupSockAddr, abi.ProgCgroupDevice, abi.ProgCgroupSysctl,
		abi.ProgCgroupSockopt, abi.ProgSockOps:
		v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
		if err != nil {
			return nil, err
		}
		return l.cgroup(p, pt, v, to)
	case abi.ProgSkLookup, abi.ProgFlowDissector:
		return l.netNamespace(p, pt, to)
	case abi.ProgNetfilter:
		return l.netfilter(p, pt, to)
	case abi.ProgSkMsg, abi.ProgSkSkb:
		return l.sockMap(p, pt, to)
	case abi.ProgSocketFilter:
		return l.socketFilter(p, pt, to)
	case abi.ProgSyscall:
		return nil, fmt.Errorf("program %s is run by hand, not attached", p.name)
	case abi.ProgSchedAct:
		return nil, fmt.Errorf("program %s is an action of traffic control, for which there is no link: pin it and use tc(8)", p.name)
	case abi.ProgSkReuseport:
		return nil, fmt.Errorf("program %s belongs to a group of sockets, whose owner attaches it: pin it for that", p.name)
	case abi.ProgLWTIn, abi.ProgLWTOut, abi.ProgLWTXmit, abi.ProgLWTSeg6local:
		return nil, fmt.Errorf("program %s belongs to a route, for which there is no link: pin it and use ip-route(8)", p.name)
	case abi.ProgLircMode2:
		return nil, fmt.Errorf("program %s belongs to an infrared device, for which there is no link: pin it and use ir-keytable(1)", p.name)
	}
	return nil, fmt.Errorf("programs of type %s cannot be attached by skep", p.abi.ProgType)
}

// interfaceIndex finds a network interface by name or number.
func interfaceIndex(p *program, name string) (int, error) {
	e := &machine.TargetError{Program: p.name, Needs: "a network interface", Target: name}
	if name == "" {
		return 0, e
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 {
		return n, nil
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		e.Err = errors.New("there is no interface of that name")
		return 0, e
	}
	return i.Index, nil
}

// netLink attaches to an interface.
func (l *loaded) netLink(p *program, pt hook.Point, name string, attach abi.AttachType) (*fdLink, error) {
	index, err := interfaceIndex(p, name)
	if err != nil {
		return nil, err
	}
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	if k := l.takeOver(p, pt, v); k != nil {
		return k, nil
	}
	fd, err := create(&attrLink{prog: uint32(v.fd), target: uint32(index), typ: uint32(attach)})
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("another program is attached to interface %s already: %w", name, named(err))
	case errors.Is(err, unix.ENODEV):
		return nil, &machine.TargetError{Program: p.name, Needs: "a network interface", Target: name, Err: errors.New("there is no interface of that number")}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, errNotSupp):
		return nil, fmt.Errorf("interface %s does not take such programs: %w", name, named(err))
	}
	return nil, fmt.Errorf("attaching to interface %s failed: %w", name, attachRefused(err, p))
}

// classifier attaches to the packets that enter or leave an interface.
func (l *loaded) classifier(p *program, pt hook.Point, to string) (*fdLink, error) {
	attach := p.abi.AttachType
	name := to
	if pt.Kind != hook.Netkit {
		var direction string
		name, direction, _ = strings.Cut(to, ":")
		switch direction {
		case "ingress":
			attach = abi.AttachTCXIngress
		case "egress":
			attach = abi.AttachTCXEgress
		case "":
			if attach == abi.AttachNone {
				attach = abi.AttachTCXIngress
			}
		default:
			return nil, &machine.TargetError{Program: p.name, Needs: "a network interface", Target: to, Err: errors.New("after the colon there may be ingress or egress")}
		}
	}
	k, err := l.netLink(p, pt, name, attach)
	if errors.Is(err, unix.EINVAL) {
		if t, err2 := Target(); err2 == nil {
			if v := attach.Since(); !t.Release().AtLeast(v.Major(), v.Minor()) {
				return nil, fmt.Errorf("the kernel has no links of classifiers (Linux has them since %s); what tc(8) attaches would stay when skep dies, so skep does not: pin the program and use tc filter add ... object-pinned", v)
			}
		}
	}
	return k, err
}

// cgroup attaches to a cgroup.
func (l *loaded) cgroup(p *program, pt hook.Point, v *variant, path string) (*fdLink, error) {
	if path == "" {
		return nil, &machine.TargetError{Program: p.name, Needs: "a cgroup"}
	}
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &machine.TargetError{Program: p.name, Needs: "a cgroup", Target: path, Err: named(err)}
	}
	defer unix.Close(dir)
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err == nil && st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, &machine.TargetError{Program: p.name, Needs: "a cgroup", Target: path, Err: fmt.Errorf("it is not below a mount of cgroup v2 (%s is one)", cgroupRoot())}
	}
	if k := l.takeOver(p, pt, v); k != nil {
		return k, nil
	}
	fd, err := create(&attrLink{prog: uint32(v.fd), target: uint32(dir), typ: uint32(p.abi.AttachType)})
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("attaching to cgroup %s was refused: a program on a cgroup above it does not let others attach, or %w", path, attachRefused(err, p))
	}
	return nil, fmt.Errorf("attaching to cgroup %s failed: %w", path, attachRefused(err, p))
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot() string {
	for line := range strings.Lines(readSys("/proc/self/mounts")) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return "/sys/fs/cgroup"
}

// netNamespace attaches to a network namespace, the one of this process if none
// is named.
func (l *loaded) netNamespace(p *program, pt hook.Point, path string) (*fdLink, error) {
	if path == "" {
		path = "/proc/self/ns/net"
	}
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &machine.TargetError{Program: p.name, Needs: "a network namespace", Target: path, Err: named(err)}
	}
	defer unix.Close(ns)
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	if k := l.takeOver(p, pt, v); k != nil {
		return k, nil
	}
	fd, err := create(&attrLink{prog: uint32(v.fd), target: uint32(ns), typ: uint32(p.abi.AttachType)})
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.E2BIG):
		return nil, fmt.Errorf("another program is attached to the network namespace already: %w", named(err))
	case errors.Is(err, unix.EINVAL):
		return nil, &machine.TargetError{Program: p.name, Needs: "a network namespace", Target: path, Err: named(err)}
	}
	return nil, fmt.Errorf("attaching to the network namespace failed: %w", attachRefused(err, p))
}

// Families and hooks of netfilter (include/uapi/linux/netfilter.h).
var (
	nfFamilies = map[string]uint32{"ipv4": 2, "ipv6": 10}
	nfHooks    = map[string]uint32{"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
)

// netfilter attaches to a hook of netfilter: "ipv4:input:-100".
func (l *loaded) netfilter(p *program, pt hook.Point, to string) (*fdLink, error) {
	e := &machine.TargetError{Program: p.name, Needs: "a netfilter hook (FAMILY:HOOK:PRIORITY, such as ipv4:input:-100)", Target: to}
	if to == "" {
		return nil, e
	}
	parts := strings.Split(to, ":")
	e.Err = errors.New("families are ipv4 and ipv6; hooks prerouting, input, forward, output and postrouting; priorities numbers")
	if len(parts) != 3 {
		return nil, e
	}
	family, ok1 := nfFamilies[parts[0]]
	where, ok2 := nfHooks[parts[1]]
	priority, err := strconv.ParseInt(parts[2], 10, 32)
	if !ok1 || !ok2 || err != nil {
		return nil, e
	}
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	fd, err := create(&attrLinkNetfilter{
		prog: uint32(v.fd), typ: uint32(p.abi.AttachType), family: family, hook: where, priority: int32(priority),
	})
	switch {
	case err == nil:
		return newLink(l, p, pt, fd), nil
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("something else is attached to %s with that priority: choose another: %w", to, named(err))
	}
	return nil, fmt.Errorf("attaching to %s failed: %w", to, attachRefused(err, p))
}

// sockMap attaches to a map of sockets of the object.
func (l *loaded) sockMap(p *program, pt hook.Point, name string) (*fdLink, error) {
	e := &machine.TargetError{Program: p.name, Needs: "a map of sockets of the object", Target: name}
	if name == "" {
		return nil, e
	}
	m, err := l.findMap(name)
	if err != nil {
		e.Err = err
		return nil, e
	}
	if m.typ != abi.MapSockmap && m.typ != abi.MapSockhash {
		e.Err = fmt.Errorf("it is of type %s", m.typ)
		return nil, e
	}
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	attr := &attrLink{prog: uint32(v.fd), target: uint32(m.fd), typ: uint32(p.abi.AttachType)}
	fd, err := create(attr)
	if err == nil {
		return newLink(l, p, pt, fd), nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("attaching to map %s failed: %w", name, attachRefused(err, p))
	}
	// Links came with Linux 6.10. Before, the map itself holds the program, and
	// lets go of it when it goes.
	if _, err := sysBPF(cmdProgAttach, &attrAttach{target: uint32(m.fd), prog: uint32(v.fd), typ: uint32(p.abi.AttachType)}); err != nil {
		return nil, fmt.Errorf("attaching to map %s failed: %w", name, attachRefused(err, p))
	}
	k := newLink(l, p, pt, -1)
	k.detach = func() error {
		_, err := sysBPF(cmdProgDetach, &attrAttach{target: uint32(m.fd), prog: uint32(v.fd), typ: uint32(p.abi.AttachType)})
		return err
	}
	return k, nil
}

// socketFilter lets a program see the packets of an interface, by a socket of
// our own that throws them away.
func (l *loaded) socketFilter(p *program, pt hook.Point, name string) (*fdLink, error) {
	index, err := interfaceIndex(p, name)
	if err != nil {
		return nil, err
	}
	v, err := l.variant(p, variantKey{attach: p.abi.AttachType})
	if err != nil {
		return nil, err
	}
	// Protocol 0 takes no packets until the filter is there.
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, refused("opening a packet socket", err, needs{net: true})
	}
	fail := func(what string, err error) (*fdLink, error) {
		unix.Close(s)
		return nil, fmt.Errorf("%s failed: %w", what, attachRefused(err, p))
	}
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, v.fd); err != nil {
		return fail("attaching to a packet socket", err)
	}
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return fail("preparing a packet socket", err)
	}
	everything := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network order
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: index}); err != nil {
		return fail("binding a packet socket to interface "+name, err)
	}
	k := newLink(l, p, pt, -1)
	k.other = s
	return k, nil
}

// takeOver points the pinned link of an object that runs to this object's
// program, where LoadOptions.Replace names one. Nothing is missed in between.
func (l *loaded) takeOver(p *program, pt hook.Point, v *variant) *fdLink {
	if l.opts.Replace == "" {
		return nil
	}
	for i := range maxTakeOver {
		path := linkPath(l.opts.Replace, p.name, i)
		l.mu.Lock()
		taken := l.taken[path]
		l.mu.Unlock()
		if taken {
			continue
		}
		name, err := cstring(path)
		if err != nil {
			return nil
		}
		fd, err := sysBPF(cmdObjGet, &attrObj{path: name})
		if err != nil {
			return nil
		}
		if _, err := sysBPF(cmdLinkUpdate, &attrLinkUpdate{link: uint32(fd), prog: uint32(v.fd)}); err != nil {
			unix.Close(fd)
			return nil
		}
		l.mu.Lock()
		if l.taken == nil {
			l.taken = make(map[string]bool)
		}
		l.taken[path] = true
		l.mu.Unlock()
		k := newLink(l, p, pt, fd)
		k.pinned = true
		return k
	}
	return nil
}

const maxTakeOver = 1024
