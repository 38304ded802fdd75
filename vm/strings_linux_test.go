package vm_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/skep-bpf/skep/vm"
)

// The kernel functions on strings return what the kernel's do.
func TestStringsLikeKernel(t *testing.T) {
	for _, interpret := range []bool{true, false} {
		p := loadBoth(t, "strings.c", vm.Options{Interpret: interpret})
		r := rand.New(rand.NewPCG(8, 9))
		onCPU0(t)
		for i := 0; i < 3000 && !t.Failed(); i++ {
			in := make([]byte, 40)
			for k := range 24 {
				in[k] = "aabAB\x00"[r.IntN(6)]
			}
			if r.IntN(2) == 0 { // longer strings
				for k := range 12 {
					in[k] = "abA"[r.IntN(3)]
				}
			}
			binary.NativeEndian.PutUint32(in[24:], r.Uint32N(20))
			binary.NativeEndian.PutUint32(in[28:], uint32("abAx\x00"[r.IntN(5)]))
			what := uint32(i % 12)
			if r.IntN(8) == 0 {
				what |= 16 // from nowhere
			}
			binary.NativeEndian.PutUint32(in[32:], what)
			p.runContext(t, "strings", in)
			if t.Failed() {
				t.Logf("function %d, strings %q and %q, count %d, character %q", what, in[:16], in[16:24], in[24], in[28])
			}
		}
	}
}
