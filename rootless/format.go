package rootless

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/target"
)

// commonFields begin every record (struct trace_entry,
// include/linux/trace_events.h).
const commonFields = `	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

`

// plainFormats are the fields of the events that are no single system call.
var plainFormats = map[target.Event]string{
	{Subsystem: "raw_syscalls", Name: "sys_enter"}: `	field:long id;	offset:8;	size:8;	signed:1;
	field:unsigned long args[6];	offset:16;	size:48;	signed:0;
`,
	{Subsystem: "raw_syscalls", Name: "sys_exit"}: `	field:long id;	offset:8;	size:8;	signed:1;
	field:long ret;	offset:16;	size:8;	signed:1;
`,
}

// formatText is the format file of an event as the kernel would write it
// (__set_enter_print_fmt and the like in kernel/trace/trace_syscalls.c), but for
// its number and how it is printed; ok is false for events that take privilege.
func formatText(a abi.Arch, e target.Event) (text string, ok bool) {
	head := "name: " + e.Name + "\nID: 0\nformat:\n" + commonFields
	if fields, ok := plainFormats[e]; ok {
		return head + fields, true
	}
	if e.Subsystem != "syscalls" {
		return "", false
	}
	const number = "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n"
	if name, ok := strings.CutPrefix(e.Name, "sys_exit_"); ok {
		if s := tracedCall(a, name); s == nil {
			return "", false
		}
		return head + number + "\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n", true
	}
	name, ok := strings.CutPrefix(e.Name, "sys_enter_")
	if !ok {
		return "", false
	}
	s := tracedCall(a, name)
	if s == nil {
		return "", false
	}
	var b strings.Builder
	b.WriteString(head + number)
	params, _ := s.Params(a)
	for i, p := range params {
		fmt.Fprintf(&b, "\tfield:%s %s;\toffset:%d;\tsize:8;\tsigned:0;\n", p.Type, p.Name, 16+8*i)
	}
	return b.String(), true
}

// tracedCall returns the system call behind the events sys_enter_NAME and
// sys_exit_NAME, or nil where 64-bit programs have no such call.
func tracedCall(a abi.Arch, name string) *abi.Syscall {
	s := abi.SyscallByEntry(name)
	if s == nil {
		return nil
	}
	if _, known := s.Params(a); !known {
		return nil
	}
	if _, ok := s.Number(a); !ok {
		return nil
	}
	return s
}

// events are all that there are on an architecture, sorted.
func events(a abi.Arch) []target.Event {
	var list []target.Event
	for e := range plainFormats {
		list = append(list, e)
	}
	for n := range maxSyscall {
		s := abi.SyscallByNumber(a, n)
		if s == nil || tracedCall(a, s.Entry()) == nil {
			continue
		}
		list = append(list, target.Event{Subsystem: "syscalls", Name: "sys_enter_" + s.Entry()},
			target.Event{Subsystem: "syscalls", Name: "sys_exit_" + s.Entry()})
	}
	slices.SortFunc(list, func(a, b target.Event) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(list)
}

// maxSyscall bounds the numbers of system calls.
const maxSyscall = 1024
