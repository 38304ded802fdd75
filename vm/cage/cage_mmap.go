//go:build linux && (amd64 || arm64)

package cage

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mapped says that every 32-bit address, and Slack on both sides, is mapped:
// Base plus any of them may be read and written as it is.
const Mapped = true

// A mapping is the reserved range, filled from end to end with one memory file.
type mapping struct {
	fd    int
	start unsafe.Pointer
}

const reserved = Space + 2*Slack

func (m *mapping) open(c *Cage) (err error) {
	if m.fd, err = unix.MemfdCreate("skep-vm", unix.MFD_CLOEXEC); err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			_ = m.close()
		}
	}()
	size := uintptr(c.size)
	if err = unix.Ftruncate(m.fd, int64(size)); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	m.start, err = unix.MmapPtr(-1, 0, nil, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("mmap of 4 GiB of address space: %w (is it limited, by ulimit -v?)", err)
	}
	place := func(at, offset, n uintptr) {
		if err == nil {
			_, err = unix.MmapPtr(m.fd, int64(offset), unsafe.Add(m.start, at), n,
				unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_NORESERVE)
		}
	}
	place(0, size-Slack, Slack)
	for at := uintptr(0); at < Space; at += size {
		place(Slack+at, 0, size)
	}
	place(Slack+Space, 0, Slack)
	if err != nil {
		return fmt.Errorf("mmap: %w (there are at most vm.max_map_count mappings in a process)", err)
	}
	c.base = unsafe.Add(m.start, Slack)
	return nil
}

func (m *mapping) close() error {
	var err error
	if m.start != nil {
		err = unix.MunmapPtr(m.start, reserved)
		m.start = nil
	}
	if m.fd >= 0 {
		_ = unix.Close(m.fd)
		m.fd = -1
	}
	return err
}

// discard turns a stretch of memory into zeros without touching it.
func (m *mapping) discard(addr, n uint32) bool {
	return addr%4096 == 0 && n%4096 == 0 &&
		unix.Fallocate(m.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(addr), int64(n)) == nil
}
