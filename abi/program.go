package abi

import "fmt"

// ProgType is a program type, with the kernel's number.
type ProgType uint32

// AttachType is an attach type, with the kernel's number.
type AttachType uint32

// AttachNone stands for no particular attach type, which the kernel writes as 0.
const AttachNone AttachType = 0

// MapType is a map type, with the kernel's number.
type MapType uint32

// LinkType is a link type, with the kernel's number.
type LinkType uint32

type named struct {
	name  string
	since Version
}

func nameOf(table []named, n uint32, typ string) string {
	if int64(n) < int64(len(table)) {
		return table[n].name
	}
	return fmt.Sprintf("%s(%d)", typ, n)
}

func sinceOf(table []named, n uint32) Version {
	if int64(n) < int64(len(table)) {
		return table[n].since
	}
	return 0
}

func find(table []named, name string) (uint32, bool) {
	for n := range table {
		if table[n].name == name {
			return uint32(n), true
		}
	}
	return 0, false
}

// String returns the kernel's name in lower case: "socket_filter".
func (t ProgType) String() string { return nameOf(progTypes[:], uint32(t), "ProgType") }

// Since returns the first release that has the type.
func (t ProgType) Since() Version { return sinceOf(progTypes[:], uint32(t)) }

// Context returns the C type, without "struct", that the program's context
// points to, as programs see it: "__sk_buff", "pt_regs", "bpf_perf_event_data".
// It is empty where there is none of a fixed type: tracepoints have a record in
// their event's format, BTF-typed programs an array of 64-bit arguments.
func (t ProgType) Context() string {
	if int64(t) >= int64(len(progContexts)) {
		return ""
	}
	if c := progContexts[t]; c != "bpf_user_pt_regs_t" {
		return c
	}
	return "pt_regs"
}

// ParseProgType returns the type with a name that [ProgType.String] returns.
func ParseProgType(name string) (ProgType, bool) {
	n, ok := find(progTypes[:], name)
	return ProgType(n), ok
}

// String returns the kernel's name in lower case, without "bpf_":
// "cgroup_inet_ingress", "trace_fentry".
func (t AttachType) String() string { return nameOf(attachTypes[:], uint32(t), "AttachType") }

// Since returns the first release that has the type.
func (t AttachType) Since() Version { return sinceOf(attachTypes[:], uint32(t)) }

// ParseAttachType returns the type with a name that [AttachType.String] returns.
func ParseAttachType(name string) (AttachType, bool) {
	n, ok := find(attachTypes[:], name)
	return AttachType(n), ok
}

// String returns the kernel's name in lower case: "percpu_hash".
func (t MapType) String() string { return nameOf(mapTypes[:], uint32(t), "MapType") }

// Since returns the first release that has the type.
func (t MapType) Since() Version { return sinceOf(mapTypes[:], uint32(t)) }

// ParseMapType returns the type with a name that [MapType.String] returns.
func ParseMapType(name string) (MapType, bool) {
	n, ok := find(mapTypes[:], name)
	return MapType(n), ok
}

// String returns the kernel's name in lower case: "tracing".
func (t LinkType) String() string { return nameOf(linkTypes[:], uint32(t), "LinkType") }

// ProgTypes is a set of program types.
type ProgTypes uint64

// Has reports whether the set holds t.
func (s ProgTypes) Has(t ProgType) bool { return t < 64 && s>>t&1 == 1 }

// Slice returns the members in the order of their numbers.
func (s ProgTypes) Slice() []ProgType {
	var all []ProgType
	for t := ProgType(0); t < 64; t++ {
		if s.Has(t) {
			all = append(all, t)
		}
	}
	return all
}
