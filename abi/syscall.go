package abi

import (
	"sort"
	"strings"
)

// Syscall is a system call, under the name that programs know it by.
type Syscall struct {
	Name string

	entry   string // where the kernel's name differs: "newstat" for "stat"
	args    string
	known   bool // whether args is known; there are calls without arguments
	numbers [4]int16
}

// Param is an argument of a system call.
type Param struct {
	Type string // in C, without address spaces: "const char *"
	Name string
}

// Entry returns the kernel's name of the call, which names its tracepoints
// (sys_enter_newstat for stat).
func (s *Syscall) Entry() string {
	if s.entry != "" {
		return s.entry
	}
	return s.Name
}

// Number returns the call's number on an architecture; ok is false where there
// is none.
func (s *Syscall) Number(a Arch) (n int, ok bool) {
	if int(a) >= len(s.numbers) || s.numbers[a] < 0 {
		return 0, false
	}
	return int(s.numbers[a]), true
}

// Params returns the arguments in order, of the 64-bit kernel's entry; ok is
// false where they are not known, as for calls that are not implemented.
func (s *Syscall) Params(a Arch) (params []Param, ok bool) {
	if !s.known {
		return nil, false
	}
	if s.args != "" {
		for _, arg := range strings.Split(s.args, ", ") {
			cut := strings.LastIndexByte(arg, ' ')
			params = append(params, Param{Type: arg[:cut], Name: arg[cut+1:]})
		}
	}
	// CONFIG_CLONE_BACKWARDS: all but amd64 take tls before child_tidptr.
	if s.Name == "clone" && a != AMD64 {
		params[3], params[4] = params[4], params[3]
	}
	return params, true
}

// SyscallByName returns the system call with a name, or the one with that entry
// ("newstat"), or nil.
func SyscallByName(name string) *Syscall {
	n := sort.Search(len(syscalls), func(n int) bool { return syscalls[n].Name >= name })
	if n < len(syscalls) && syscalls[n].Name == name {
		return &syscalls[n]
	}
	for n := range syscalls {
		if syscalls[n].entry == name {
			return &syscalls[n]
		}
	}
	return nil
}

// SyscallByEntry returns the system call that the kernel's tracepoints name
// sys_enter_<entry>, or nil. It differs from [SyscallByName] where the name of one
// call is the entry of another: the event of stat is sys_enter_newstat, and
// sys_enter_stat is that of an older call. Of several calls with that entry
// (select, and _newselect of 32-bit programs) it is one of 64-bit programs.
func SyscallByEntry(entry string) *Syscall {
	var found *Syscall
	for n := range syscalls {
		s := &syscalls[n]
		if s.Entry() != entry {
			continue
		}
		if s.numbers[AMD64] >= 0 || s.numbers[ARM64] >= 0 || s.numbers[RISCV64] >= 0 {
			return s
		}
		if found == nil {
			found = s
		}
	}
	return found
}

// SyscallByNumber returns the system call with a number on an architecture, or
// nil.
func SyscallByNumber(a Arch, number int) *Syscall {
	if int(a) >= len(syscallNumbers) || number < 0 || number >= len(syscallNumbers[a]) {
		return nil
	}
	if n := syscallNumbers[a][number]; n >= 0 {
		return &syscalls[n]
	}
	return nil
}

// Syscalls returns all system calls by name.
func Syscalls() []Syscall { return syscalls[:] }
