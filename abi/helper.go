package abi

import (
	"fmt"
	"sort"
	"strings"
)

// Helper is a function that the kernel offers programs by number.
type Helper struct {
	ID        int32
	Name      string  // with its prefix: "bpf_map_lookup_elem"
	Prototype string  // in C, as include/uapi/linux/bpf.h documents it
	Since     Version // the first release that has it
}

// ArgType is what a helper takes: a base type (Arg...) with properties
// (PtrMaybeNull, MemUninit, ...). Values are Linux 6.12's.
type ArgType uint32

// Base returns the type without its properties.
func (t ArgType) Base() ArgType { return t & 0xff }

// Has reports whether t has all properties of flags.
func (t ArgType) Has(flags ArgType) bool { return t&flags == flags }

// ReturnType is what a helper returns: a base type (Ret...) with properties.
type ReturnType uint32

// Base returns the type without its properties.
func (t ReturnType) Base() ReturnType { return t & 0xff }

// Has reports whether t has all properties of flags.
func (t ReturnType) Has(flags ReturnType) bool { return t&flags == flags }

// Proto is what the verifier knows of a helper (struct bpf_func_proto). One
// helper has several where program types differ in their context.
type Proto struct {
	Name         string // the kernel's, without "_proto"
	Return       ReturnType
	Args         [5]ArgType // ArgDontcare after the last
	GPLOnly      bool       // only for programs under a GPL-compatible licence
	MightSleep   bool       // only for sleepable programs
	PacketAccess bool       // takes pointers into a packet
	FastCall     bool       // may be inlined and keeps registers (Linux 6.12)
	// BTFTypes are the kernel structures of the result (0) and the arguments
	// (1 to 5) that are typed pointers; "*" stands for one that depends on the
	// call.
	BTFTypes [6]string
	// Sizes are the bytes of arguments (1 to 5) that have [MemFixedSize].
	Sizes [6]uint8
}

// NumArgs counts the arguments.
func (p *Proto) NumArgs() int {
	n := 0
	for n < len(p.Args) && p.Args[n] != ArgDontcare {
		n++
	}
	return n
}

// Call is how programs of one type may call a helper.
type Call struct {
	Proto *Proto
	// Sleepable is the prototype for sleepable programs, mostly the same.
	Sleepable *Proto
	// Conditional: not every program of the type may; it depends on the attach
	// type, on the map in use, on lockdown, or on how the kernel is configured.
	Conditional bool
	// Capability is "CAP_BPF" or "CAP_PERFMON" where the loader needs it for
	// this call, else empty.
	Capability string
}

// call holds one helper's prototypes for a set of program types.
type call struct {
	helper           uint8
	proto, sleepable uint16
	types, some      ProgTypes
	capBPF, perfmon  ProgTypes
}

// HelperByID returns the helper with a number, or nil.
func HelperByID(id int32) *Helper {
	if id <= 0 || int(id) >= len(helpers) {
		return nil
	}
	return &helpers[id]
}

// HelperByName returns the helper with a name, which may lack "bpf_", or nil.
func HelperByName(name string) *Helper {
	if !strings.HasPrefix(name, "bpf_") {
		name = "bpf_" + name
	}
	n := sort.Search(len(helperNames), func(n int) bool { return helpers[helperNames[n]].Name >= name })
	if n == len(helperNames) || helpers[helperNames[n]].Name != name {
		return nil
	}
	return &helpers[helperNames[n]]
}

// Helpers returns all helpers in the order of their numbers.
func Helpers() []Helper { return helpers[1:] }

// callsOf returns the table of the youngest kernel not after k, and for older
// kernels the oldest table.
func callsOf(k Version) []call {
	switch {
	case k < Linux6_12:
		return calls61[:]
	case k < Linux6_18:
		return calls612[:]
	}
	return calls618[:]
}

func (h *Helper) calls(k Version) []call {
	all := callsOf(k)
	first := sort.Search(len(all), func(n int) bool { return int32(all[n].helper) >= h.ID })
	end := first
	for end < len(all) && int32(all[end].helper) == h.ID {
		end++
	}
	return all[first:end]
}

// Call returns how programs of type t may call h on kernel k; ok is false where
// they may not, or the kernel does not have it.
func (h *Helper) Call(k Version, t ProgType) (c Call, ok bool) {
	if k < h.Since {
		return Call{}, false
	}
	for _, e := range h.calls(k) {
		if !e.types.Has(t) {
			continue
		}
		c := Call{Proto: &protos[e.proto], Sleepable: &protos[e.sleepable], Conditional: e.some.Has(t)}
		switch {
		case e.capBPF.Has(t):
			c.Capability = "CAP_BPF"
		case e.perfmon.Has(t):
			c.Capability = "CAP_PERFMON"
		}
		return c, true
	}
	return Call{}, false
}

// ProgTypes returns the program types that may call h on kernel k.
func (h *Helper) ProgTypes(k Version) ProgTypes {
	var all ProgTypes
	if k >= h.Since {
		for _, e := range h.calls(k) {
			all |= e.types
		}
	}
	return all
}

func (h *Helper) String() string { return fmt.Sprintf("%s#%d", h.Name, h.ID) }
