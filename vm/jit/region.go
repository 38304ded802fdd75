//go:build linux && (amd64 || arm64)

package jit

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/vm/engine"
)

// A region is the memory of one program's code. It is written while it is private
// to the compiler, becomes executable once, and is never written again: there is
// no other mapping of it, and no way back.
type region struct {
	pages []byte
	start uintptr // of the code
}

// codeAlign is the alignment of code, a cache line.
const codeAlign = 64

func newRegion(code []byte, k *keys) (*region, error) {
	page := os.Getpagesize()
	length := (len(code) + page) &^ (page - 1) // some slack at least
	pages, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("no memory for %d bytes of code: %w", length, err)
	}
	// Code starts somewhere in the slack, and traps are all around it.
	at := k.below((length-len(code))/codeAlign+1) * codeAlign
	for i := range pages {
		pages[i] = trapFill
	}
	copy(pages[at:], code)
	if err := unix.Mprotect(pages, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		unix.Munmap(pages)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("the JIT is %w: it forbids to make memory executable (%w)", engine.ErrUnavailable, err)
		}
		return nil, fmt.Errorf("cannot make code executable: %w", err)
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(pages))) + uintptr(at)
	flushCode(start, uintptr(len(code)))
	return &region{pages: pages, start: start}, nil
}

func (r *region) close() error {
	if r.pages == nil {
		return nil
	}
	pages := r.pages
	r.pages = nil
	if err := unix.Munmap(pages); err != nil {
		return fmt.Errorf("cannot free code: %w", err)
	}
	return nil
}
