package codegen

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/object"
)

// TestLoadELF writes golden programs as ELF files and has cilium/ebpf load
// them: the types in the text have wrong offsets on purpose, so that only
// relocated code can be accepted.
func TestLoadELF(t *testing.T) {
	needKernel(t)
	for _, name := range []string{"event", "count_by_comm", "packet", "hist", "scratch_own", "scratch_shared"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + name + ".ir")
			if err != nil {
				t.Fatal(err)
			}
			input, _, _ := bytes.Cut(text, []byte(wantMark))
			m, err := ir.Parse(string(input))
			if err != nil {
				t.Fatal(err)
			}
			obj, err := Generate(m, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var elf bytes.Buffer
			if err := object.Write(&elf, obj); err != nil {
				t.Fatal(err)
			}
			spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(elf.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			coll, err := ebpf.NewCollection(spec)
			if err != nil {
				var ve *ebpf.VerifierError
				if errors.As(err, &ve) {
					t.Fatalf("%+v", ve)
				}
				t.Fatal(err)
			}
			defer coll.Close()
			if coll.Programs["main"] == nil {
				t.Error("there is no program main")
			}
		})
	}
}
