package cage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func newCage(t testing.TB, limit int64) *Cage {
	t.Helper()
	c, err := New(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Every address with every offset is the byte that its residue names.
func TestAliases(t *testing.T) {
	if !Mapped {
		return
	}
	c := newCage(t, 0)
	for _, addr := range []uint32{0, 1, First, MinSize - 1, MinSize, MinSize + 7, 1 << 31, 1<<32 - 1} {
		for _, off := range []int{0, -32768, 32767, 8} {
			at := (*byte)(unsafe.Add(c.Base(), int(addr)+off))
			*at = 0x5a
			low := (uint32(int64(addr)+int64(off)) & c.Mask())
			b, ok := c.Bytes(low, 1)
			if !ok || b[0] != 0x5a {
				t.Errorf("address %#x%+d is not the byte at %#x", addr, off, low)
			}
			*at = 0
			if b[0] != 0 {
				t.Errorf("address %#x%+d: a second write is not seen at %#x", addr, off, low)
			}
		}
	}
}

func TestBytes(t *testing.T) {
	c := newCage(t, 0)
	for _, x := range []struct {
		addr uint32
		n    int
		ok   bool
	}{{0, 0, true}, {0, MinSize, true}, {0, MinSize + 1, false}, {MinSize - 1, 1, true}, {MinSize - 1, 2, false}, {1<<32 - 1, 1, true}, {5, -1, false}, {0, 1 << 40, false}} {
		if b, ok := c.Bytes(x.addr, x.n); ok != x.ok || ok && len(b) != x.n {
			t.Errorf("Bytes(%#x, %d) = %d bytes, %v", x.addr, x.n, len(b), ok)
		}
	}
}

// What is allocated never overlaps, is zero, and all comes back.
func TestAlloc(t *testing.T) {
	c := newCage(t, 0)
	r := rand.New(rand.NewPCG(1, 2))
	live := map[uint32]int{}
	check := func(addr uint32, n int, want byte) {
		b, ok := c.Bytes(addr, n)
		if !ok || bytes.ContainsFunc(b, func(x rune) bool { return x != rune(want) }) {
			t.Fatalf("%d bytes at %#x are not all %#x", n, addr, want)
		}
	}
	for i := range 3000 {
		if r.IntN(3) > 0 {
			n := 1 << r.IntN(18)
			if i%100 == 0 {
				n = bigBlock + r.IntN(bigBlock)
			}
			addr, err := c.Alloc(n)
			if errors.Is(err, ErrFull) {
				continue
			}
			if err != nil || addr < First || addr%align != 0 {
				t.Fatalf("Alloc(%d) = %#x, %v", n, addr, err)
			}
			check(addr, n, 0)
			b, _ := c.Bytes(addr, n)
			mark := byte(1 + addr/align%100)
			for k := range b {
				b[k] = mark
			}
			live[addr] = n
			continue
		}
		for addr, n := range live {
			check(addr, n, byte(1+addr/align%100))
			c.Free(addr)
			delete(live, addr)
			break
		}
	}
	for addr, n := range live {
		check(addr, n, byte(1+addr/align%100))
		c.Free(addr)
		c.Free(addr) // a second time does nothing
	}
	if len(c.free) != 1 || c.Used() != 0 {
		t.Errorf("%d spans and %d bytes in use after everything came back", len(c.free), c.Used())
	}
	if _, err := c.Alloc(MinSize); !errors.Is(err, ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
	if _, err := c.Alloc(MinSize - First - Slack - 4096); err != nil {
		t.Errorf("all that there is: %v", err)
	}
}

// As many vms as a process should have.
func TestMany(t *testing.T) {
	for range 200 {
		newCage(t, 0)
	}
}

func TestLimit(t *testing.T) {
	if _, err := New(MaxSize + 1); err == nil {
		t.Error("a limit above the largest is taken")
	}
	if c := newCage(t, MinSize+1); c.Size() != 2*MinSize {
		t.Errorf("the size for %d is %d", MinSize+1, c.Size())
	}
}
