package vm

import (
	"bytes"
	"slices"
)

// The kernel functions on strings (kernel/bpf/helpers.c) read memory as
// bpf_probe_read_kernel does, up to a limit, and return an index, -ENOENT, -E2BIG
// beyond the limit, -ERANGE for addresses that are none, or -EFAULT.

// maxKfuncString is XATTR_SIZE_MAX.
const maxKfuncString = 65536

// readString reads a string of at most so many bytes up to its zero, which is not
// part of the result; whole is whether there was one.
func (r *run) readString(addr uint64, most int) (s []byte, whole bool, e Errno) {
	const step = 64
	if !r.readMemory(false, addr, make([]byte, 1)) {
		return nil, false, ERANGE // no address of the kernel
	}
	for len(s) < most {
		var buf [step]byte
		part := buf[:min(step, most-len(s))]
		r.charge(step)
		at := addr + uint64(len(s))
		if !r.readMemory(false, at, part) {
			// The string may end before what cannot be read.
			part = part[:1]
			if !r.readMemory(false, at, part) {
				return nil, false, EFAULT
			}
		}
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return append(s, part[:i]...), true, 0
		}
		s = append(s, part...)
	}
	return s, false, 0
}

// onString makes a kernel function of one that gets the string of the first
// argument and returns an index in it, its length for the zero, or -1.
func onString(f func(r *run, s []byte) int) helperFunc {
	return func(r *run) uint64 {
		s, whole, e := r.readString(r.arg(1), maxKfuncString)
		if e != 0 {
			return e.result()
		}
		if i := f(r, s); i >= 0 && (whole || i < len(s)) {
			return uint64(i)
		}
		if !whole {
			return E2BIG.result()
		}
		return ENOENT.result()
	}
}

// onStrings is onString with the string of the second argument too.
func onStrings(f func(r *run, s, other []byte) int) helperFunc {
	return func(r *run) uint64 {
		other, whole, e := r.readString(r.arg(2), maxKfuncString)
		if e == 0 && !whole {
			e = E2BIG
		}
		if e != 0 {
			return e.result()
		}
		return onString(func(r *run, s []byte) int { return f(r, s, other) })(r)
	}
}

func stringCompare(fold bool) helperFunc {
	return func(r *run) uint64 {
		var s [2][]byte
		for i := range s {
			text, whole, e := r.readString(r.arg(1+i), maxKfuncString)
			if e == 0 && !whole {
				e = E2BIG
			}
			if e != 0 {
				return e.result()
			}
			if s[i] = text; fold {
				for k, c := range text {
					if c >= 'A' && c <= 'Z' {
						text[k] = c + 'a' - 'A'
					}
				}
			}
		}
		return uint64(int64(bytes.Compare(s[0], s[1])))
	}
}

// first returns the index of the first byte of s that is, or is not, in set; the
// length of s if there is none.
func first(s, set []byte, in bool) int {
	var has [256]bool
	for _, c := range set {
		has[c] = true
	}
	if i := slices.IndexFunc(s, func(c byte) bool { return has[c] == in }); i >= 0 {
		return i
	}
	return len(s)
}

func init() {
	// With a count, only so many bytes are looked at.
	counted := func(count int, f func(r *run, s []byte, whole bool) int) helperFunc {
		return func(r *run) uint64 {
			n := r.arg(count)
			s, whole, e := r.readString(r.arg(1), int(min(n, maxKfuncString)))
			if e != 0 {
				return e.result()
			}
			if i := f(r, s, whole); i >= 0 {
				return uint64(i)
			}
			if !whole && n >= maxKfuncString {
				return E2BIG.result()
			}
			return ENOENT.result()
		}
	}
	indexByte := func(s []byte, whole bool, c byte) int {
		if i := bytes.IndexByte(s, c); i >= 0 || c != 0 || !whole {
			return i
		}
		return len(s) // the zero itself
	}
	for name, f := range map[string]helperFunc{
		"bpf_strcmp":     stringCompare(false),
		"bpf_strcasecmp": stringCompare(true),
		"bpf_strlen":     onString(func(_ *run, s []byte) int { return len(s) }),
		"bpf_strchr":     onString(func(r *run, s []byte) int { return indexByte(s, true, byte(r.arg(2))) }),
		"bpf_strchrnul": onString(func(r *run, s []byte) int {
			if i := bytes.IndexByte(s, byte(r.arg(2))); i >= 0 {
				return i
			}
			return len(s)
		}),
		"bpf_strspn":  onStrings(func(_ *run, s, accept []byte) int { return first(s, accept, false) }),
		"bpf_strcspn": onStrings(func(_ *run, s, reject []byte) int { return first(s, reject, true) }),
		"bpf_strstr":  onStrings(func(_ *run, s, other []byte) int { return bytes.Index(s, other) }),
		"bpf_strrchr": func(r *run) uint64 {
			s, whole, e := r.readString(r.arg(1), maxKfuncString)
			switch {
			case e != 0:
				return e.result()
			case !whole:
				return E2BIG.result()
			case byte(r.arg(2)) == 0:
				return uint64(len(s))
			}
			if i := bytes.LastIndexByte(s, byte(r.arg(2))); i >= 0 {
				return uint64(i)
			}
			return ENOENT.result()
		},
		"bpf_strnchr": counted(2, func(r *run, s []byte, whole bool) int { return indexByte(s, whole, byte(r.arg(3))) }),
		"bpf_strnlen": counted(2, func(r *run, s []byte, whole bool) int {
			if !whole && r.arg(2) >= maxKfuncString {
				return -1
			}
			return len(s)
		}),
		"bpf_strnstr": func(r *run) uint64 {
			other, whole, e := r.readString(r.arg(2), maxKfuncString)
			if e == 0 && !whole {
				e = E2BIG
			}
			if e != 0 {
				return e.result()
			}
			return counted(3, func(_ *run, s []byte, _ bool) int { return bytes.Index(s, other) })(r)
		},
	} {
		kfuncs[name] = f
	}
}
