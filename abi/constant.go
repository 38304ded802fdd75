package abi

import (
	"fmt"
	"sort"
)

type constant struct {
	name  string
	value int64
}

func findConstant(table []constant, name string) (int64, bool) {
	n := sort.Search(len(table), func(n int) bool { return table[n].name >= name })
	if n == len(table) || table[n].name != name {
		return 0, false
	}
	return table[n].value, true
}

// Constant returns the value of a C constant of the kernel's headers that
// programs commonly use: AF_INET, O_CREAT, SIGKILL, ENOENT, CLONE_NEWPID, ...
// Values are those of a 64-bit kernel; unsigned ones above the range of int64
// appear as negative. Values that change between kernels are not here but in
// the kernel's BTF.
func Constant(a Arch, name string) (int64, bool) {
	if v, ok := findConstant(constants[:], name); ok {
		return v, true
	}
	if int(a) < len(archConstants) {
		return findConstant(archConstants[a], name)
	}
	return 0, false
}

// ConstantNames returns the names of all constants of an architecture, in no
// order.
func ConstantNames(a Arch) []string {
	names := make([]string, 0, len(constants))
	for _, c := range constants {
		names = append(names, c.name)
	}
	if int(a) < len(archConstants) {
		for _, c := range archConstants[a] {
			names = append(names, c.name)
		}
	}
	return names
}

type errno struct {
	number     int
	name, text string
}

func findErrno(n int) *errno {
	i := sort.Search(len(errnos), func(i int) bool { return errnos[i].number >= n })
	if i == len(errnos) || errnos[i].number != n {
		return nil
	}
	return &errnos[i]
}

// ErrnoName returns the name of an error number, "ENOENT", or an empty string.
// The numbers are the same on all of skep's architectures. The kernel's internal
// ones, from 512, are included.
func ErrnoName(n int) string {
	if e := findErrno(n); e != nil {
		return e.name
	}
	return ""
}

// Strerror returns the C library's text of an error number.
func Strerror(n int) string {
	if n == 0 {
		return "Success"
	}
	if e := findErrno(n); e != nil {
		return e.text
	}
	return fmt.Sprintf("Unknown error %d", n)
}

// SignalName returns the name of a signal, "SIGKILL", or of a real-time one
// "SIGRTMIN+n" as the C library counts them, or an empty string.
func SignalName(n int) string {
	switch {
	case n > 0 && n < len(signals):
		return signals[n]
	case n == 34:
		return "SIGRTMIN"
	case n > 34 && n <= 64:
		return fmt.Sprintf("SIGRTMIN+%d", n-34)
	}
	return ""
}

// SignalByName returns the number of a signal, named with or without "SIG".
func SignalByName(name string) (int, bool) {
	for n, s := range signals {
		if n > 0 && (s == name || s[3:] == name) {
			return n, true
		}
	}
	for _, alias := range [...]struct {
		name   string
		number int
	}{{"IOT", 6}, {"CLD", 17}, {"POLL", 29}, {"UNUSED", 31}} {
		if name == alias.name || name == "SIG"+alias.name {
			return alias.number, true
		}
	}
	return 0, false
}
