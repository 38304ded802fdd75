package vm_test

import (
	"encoding/binary"
	"testing"

	"github.com/skep-bpf/skep/vm"
)

// Kernel functions are called by name, and an arena's pointers lead to the same
// memory for programs and for the host.
func TestKernelFunctions(t *testing.T) {
	object := compileC(t, "kfuncs.c")
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		c, err := v.LoadObject(object, nil)
		if err != nil {
			t.Fatal(err)
		}
		run := func(name string, want uint32) {
			t.Helper()
			if got, err := c.Programs[name].Call(t.Context(), nil); err != nil || got != want {
				t.Fatalf("%s returns %d, %v, want %d", name, got, err, want)
			}
		}
		for range 20 { // more often than there are pages
			run("list", 0)
			var head uint64
			if err := c.Variables["head"].Get(&head); err != nil {
				t.Fatal(err)
			}
			memory, start := c.Maps["arena"].Arena()
			if len(memory) != 8*4096 {
				t.Fatalf("the arena has %d bytes", len(memory))
			}
			for want := uint64(10); want > 0; want-- {
				node := memory[uint32(head)-start:]
				if value := binary.NativeEndian.Uint64(node[8:]); value != (want-1)*(want-1) {
					t.Fatalf("a node has %d, want %d", value, (want-1)*(want-1))
				}
				head = binary.NativeEndian.Uint64(node)
			}
			if head != 0 {
				t.Fatalf("the list goes on at %#x", head)
			}
			run("sum", 285)
		}
		run("pages", 0)
		var results [8]int32
		if err := c.Variables["results"].Get(&results); err != nil {
			t.Fatal(err)
		}
		if want := [8]int32{0, -16, 0, 0, 4 * 4096, 0, 0, -22}; results != want {
			t.Errorf("pages: %d, want %d", results, want)
		}
		packet := ethernet(0x0800, 1, 2, 3, 4)
		if got, _, err := c.Programs["dynptr"].Test(packet); err != nil || got != uint32(len(packet))<<8|2 {
			t.Errorf("dynptr returns %#x, %v", got, err)
		}
		if got, _, err := c.Programs["copy"].Test(packet); err != nil || got != 0 {
			t.Errorf("copy returns %d, %v", got, err)
		}
		var b [32]byte
		if err := c.Variables["bytes"].Get(&b); err != nil || string(b[:8]) != "\x01\x01\x02\x03\x04\x09\x09\x00" {
			t.Errorf("copied % x, %v", b[:8], err)
		}
	})
}
