package kernel

import "regexp"

// A wording says in plain words what a message of the verifier means.
type wording struct {
	message *regexp.Regexp
	// words may refer to groups of the expression.
	words string
}

// wordings are for the messages that authors of programs meet most, by
// kernel/bpf/verifier.c of Linux 6.1 to 6.18. The first that matches is taken,
// so what is special stands before what is general.
var wordings = func() []wording {
	var list []wording
	for _, w := range [][2]string{
		// Pointers.
		{`R\d+ invalid mem access 'map_value_or_null'`, "what a look-up in a map returned is used, and it may be null: compare it with 0 before"},
		{`R\d+ invalid mem access '\w*mem_or_null'`, "memory is used that may not have been given (it may be null): compare the pointer with 0 before"},
		{`R\d+ invalid mem access '(\w+)_or_null_?'`, "a pointer (${1}) is used that may be null: compare it with 0 before"},
		{`R\d+ invalid mem access '(?:scalar|inv)'`, "memory is read or written through a number, of which the kernel does not know that it is a good address; what another pointer led to is read by bpf_probe_read_kernel or bpf_probe_read_user, or through BTF"},
		{`R\d+ invalid mem access '(\w+)'`, "memory cannot be read or written in this way through a pointer of this kind (${1})"},
		{`Possibly NULL pointer passed to \w+ arg(\d+)`, "argument ${1} of the call may be null: compare it with 0 before"},
		{`R\d+ type=\w*or_null\w* expected=`, "an argument of the call may be null: compare it with 0 before"},
		{`R(\d+) type=(\S+) expected=(.+)`, "argument ${1} of the call is of the kind ${2}, and what is wanted is one of: ${3}"},
		{`R\d+ pointer comparison prohibited`, "a pointer is compared with something that is no pointer of the same kind; unprivileged programs may not do that"},
		{`R\d+ (?:bitwise operator (\S+)|pointer arithmetic with (\S+) operator|32-bit pointer arithmetic) (?:on pointer )?prohibited`, "this arithmetic cannot be done on a pointer: only 64-bit additions and subtractions can"},
		{`R\d+ pointer arithmetic on (\S+) prohibited`, "nothing may be added to a pointer of this kind (${1}); one that may be null must be compared with 0 before"},
		{`math between (\S+) pointer and (?:register with unbounded min value|.+) is not allowed`, "what is added to a pointer (${1}) may be too large or negative: check its bounds before"},
		{`dereference of modified (\S+) ptr`, "a pointer (${1}) is used after something was added to it, which this kind does not allow"},
		// Bounds.
		{`invalid access to map value, value_size=(\d+) off=(-?\d+) size=(\d+)`, "${3} bytes are read or written at offset ${2} of a map's value, which has ${1} bytes"},
		{`invalid access to map key, key_size=(\d+) off=(-?\d+) size=(\d+)`, "${3} bytes are read at offset ${2} of a map's key, which has ${1} bytes"},
		{`invalid access to packet, off=(-?\d+) size=(\d+)`, "${2} bytes of the packet are used at offset ${1}, of which it was not checked that they are there: compare with data_end before"},
		{`invalid access to memory, mem_size=(\d+) off=(-?\d+) size=(\d+)`, "${3} bytes are used at offset ${2} of memory that has ${1} bytes"},
		{`invalid bpf_context access off=(-?\d+) size=(\d+)`, "the context of this type of program has no field of ${2} bytes at offset ${1} that may be used so"},
		{`R\d+ unbounded memory access`, "the size or the offset of an access to memory has no upper bound that the kernel could see: check it before, with the very value that is used"},
		{`R\d+ (?:min value is negative|max value is outside)`, "the offset of an access to memory may be outside of it: check it before, with the very value that is used"},
		{`R\d+ min value is outside`, "the offset of an access to memory is outside of it, or may be: check it before, with the very value that is used"},
		{`access beyond (?:the end of member \S+ of )?struct (\S+)`, "more is read than struct ${1} has"},
		{`invalid (?:indirect )?(?:read|access)(?: to variable)?.* (?:from|to) stack`, "part of the stack is read to which nothing was written before"},
		{`invalid.* (?:read|write).* stack`, "the stack is used outside of what the function has of it, or where nothing was written before"},
		{`misaligned (?:\S+ )?access off`, "the access is not at a multiple of its size"},
		// Values.
		{`R0 !read_ok`, "the program ends, or a value is returned, before one was set (register R0)"},
		{`(R\d+) !read_ok`, "a value is used that was never set on this path, or that a call before it made invalid (register ${1})"},
		{`R0 leaks addr as return value`, "an address of the kernel would be returned"},
		{`R\d+ leaks addr into (\w+)`, "an address of the kernel would become visible in a ${1}"},
		{`At (?:program|subprogram|callback|async callback) exit .*should have been in (.+)`, "the program may return a value that this hook does not take; it takes ${1}"},
		{`div by zero`, "something is divided by zero"},
		{`invalid shift (\d+)`, "a value is shifted by ${1} bits, which is more than it has"},
		{`R\d+ must be a known constant|R\d+ is not a known constant`, "an argument of the call must be a constant"},
		{`R\d+ invalid zero-sized read|invalid zero-sized read`, "the size of what is read may be zero, which the helper does not take"},
		{`(?:frame pointer is read only)`, "the pointer to the stack (R10) cannot be changed"},
		// Writes.
		{`R\d+ cannot write into (\S+)|cannot write into (\S+)`, "nothing can be written to memory of this kind (${1}${2})"},
		{`write into map forbidden`, "the map can only be read by programs"},
		{`read from map forbidden`, "the map can only be written by programs"},
		{`only read (?:from .* )?is supported`, "memory of the kernel can only be read in this way, not written"},
		// Control flow and size.
		{`infinite loop detected`, "the loop may never end: what ends it does not change in it in a way that the kernel can follow"},
		{`back-edge from insn (\d+) to (\d+)`, "this kernel, or this process, has no loops: they take Linux 5.3 and CAP_BPF"},
		{`BPF program is too large\. Processed (\d+) insn`, "the kernel gave up after it had followed ${1} instructions: a loop has too many rounds, or there are too many ways through the program; shorten its loops, or use bpf_loop"},
		{`The sequence of (\d+) jumps is too complex`, "there are too many ways through the program (${1} branches wait to be looked at): make it simpler"},
		{`the call stack of (\d+) frames is too deep`, "functions call each other more than 8 deep, or recursively (${1} frames)"},
		{`recursive call from|recursion`, "a function calls itself, which programs may not"},
		{`combined stack size of (\d+) calls is (\d+)`, "${1} functions that call each other need ${2} bytes of stack, and have 512"},
		{`stack size of subprog \d+ is (\d+)|stack size (\d+)`, "a function needs ${1}${2} bytes of stack, and has 512"},
		{`unreachable insn`, "part of the program can never be reached"},
		{`jump out of range`, "a jump leads out of the program"},
		{`last insn is not an exit or jmp`, "the program has no end"},
		{`unknown opcode ([0-9a-f]+)`, "the kernel does not know an instruction (opcode 0x${1}): build for an older one (clang -mcpu=v3)"},
		{`BPF_ATOMIC uses|invalid BPF_ATOMIC|BPF_\w+ uses reserved fields`, "an instruction has a form that this kernel does not know"},
		// Helpers and kernel functions.
		{`(?:invalid func unknown|unknown func \S*)#(\d+)`, "the kernel has no helper with number ${1}"},
		{`(?:program of this type cannot use helper|unknown func) (\S+)#\d+`, "programs of this type may not call ${1} here"},
		{`cannot call GPL-restricted function from non-GPL compatible program`, "a helper is called that is for programs under the GPL only: say so by the object's license"},
		{`cannot call kernel function from non-GPL compatible program`, "a function of the kernel is called, which is for programs under the GPL only: say so by the object's license"},
		{`calling kernel function (\S+) is not allowed`, "programs of this type may not call the kernel's function ${1}"},
		{`program must be sleepable to call sleepable kfunc (\S+)`, "the kernel's function ${1} may sleep, so only sleepable programs (sections that end in .s) may call it"},
		{`helper call might sleep in a non-sleepable prog|helper call is not allowed in probe`, "the helper may sleep, so only sleepable programs (sections that end in .s) may call it"},
		{`cannot pass map_type (\d+) into func (\S+)#`, "${2} does not take maps of this type (${1})"},
		// Locks, references.
		{`Unreleased reference id=\d+ alloc_insn=(\d+)`, "something that instruction ${1} acquired is not released on every path"},
		{`reference has not been acquired before`, "something is released that was not acquired, or was released already"},
		{`bpf_spin_lock is missing|bpf_spin_unlock is missing|bpf_spin_lock-ed region`, "a lock is held where none may be: bpf_spin_unlock is missing on a path"},
		{`bpf_spin_unlock without taking a lock`, "bpf_spin_unlock is called where no lock is held"},
		{`calls are not allowed while holding a lock`, "functions cannot be called while a lock is held"},
	} {
		list = append(list, wording{regexp.MustCompile(w[0]), w[1]})
	}
	return list
}()

// inWords says what the verifier's last words mean, "" where that is not known.
// The kernel tells what is exact first and what is general last.
func inWords(lines []string) string {
	for _, line := range lines {
		for _, w := range wordings {
			if m := w.message.FindStringSubmatchIndex(line); m != nil {
				return string(w.message.ExpandString(nil, w.words, line, m))
			}
		}
	}
	return ""
}
