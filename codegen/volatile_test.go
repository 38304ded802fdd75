package codegen

import (
	"testing"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
)

// TestVolatile counts the accesses of a program whose volatile ones nobody
// needs.
func TestVolatile(t *testing.T) {
	m, err := ir.Parse(`module "volatile" license "GPL"
global @g section ".data" init "0000000000000000"
func program @main -> i32 section "syscall" {
^entry(%ctx: ptr.ctx):
  %slot: ptr.stack[8] = alloca 8
  %g: ptr.value[8] = global @g
  %one: i64 = const 1
  %a: i64 = load volatile %g
  %b: i64 = load volatile %g
  %c: i64 = load %g
  store volatile %slot, %one
  store volatile %slot, %one
  store %slot, %one
  %r: i32 = const 0
  return %r
}`)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := Generate(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	loads, stores := 0, 0
	for _, in := range obj.Funcs[0].Insns {
		switch in.Op.Class() {
		case isa.ClassLDX:
			loads++
		case isa.ClassST, isa.ClassSTX:
			stores++
		}
	}
	if loads != 2 || stores != 2 {
		t.Errorf("%d loads and %d stores, want 2 and 2:\n%s", loads, stores, listing(obj))
	}
}
