package codegen

import (
	"testing"

	"github.com/skep-bpf/skep/ir"
)

// TestHoist counts how often the address is loaded that both ways of a branch
// need.
func TestHoist(t *testing.T) {
	m, err := ir.Parse(`module "hoist" license "GPL"
global @g section ".data" init "00000000000000000000000000000000"
func program @main -> i32 section "syscall" {
^entry(%ctx: ptr.ctx):
  %one: i64 = const 1
  %eight: i64 = const 8
  %x: i64 = load %ctx
  %c: i1 = eq %x, %one
  if %c then ^yes else ^no
^yes:
  %g: ptr.value[16] = global @g
  atomic add %g, %one
  jump ^done
^no:
  %h: ptr.value[16] = global @g
  %h8: ptr.value = ptradd %h, %eight
  atomic add %h8, %one
  jump ^done
^done:
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
	wide := 0
	for _, in := range obj.Funcs[0].Insns {
		if in.IsWide() {
			wide++
		}
	}
	if wide != 1 {
		t.Errorf("the address is loaded at %d places, want 1:\n%s", wide, listing(obj))
	}
}
