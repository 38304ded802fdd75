package verifier

import (
	"encoding/binary"
	"testing"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// FuzzVerify feeds the verifier instructions of any bytes: it must come to a
// verdict.
func FuzzVerify(f *testing.F) {
	for _, c := range corpus(f) {
		code, err := isa.Encode(nil, binary.LittleEndian, c.program.Insns)
		if err != nil {
			f.Fatal(err)
		}
		if !c.long {
			f.Add(code, uint8(c.program.Type), uint8(c.caps))
		}
	}
	maps := []*Map{
		{Name: "array", Type: abi.MapArray, KeySize: 4, ValueSize: 64, MaxEntries: 1},
		{Name: "hash", Type: abi.MapHash, KeySize: 8, ValueSize: 24, MaxEntries: 4},
		{Name: "ring", Type: abi.MapRingbuf, MaxEntries: 4096},
		{Name: "lock", Type: abi.MapArray, KeySize: 4, ValueSize: 32, MaxEntries: 1, Value: specialValue("lock", 32)},
		{Name: "timer", Type: abi.MapArray, KeySize: 4, ValueSize: 32, MaxEntries: 1, Value: specialValue("timer", 32)},
	}
	f.Fuzz(func(t *testing.T, code []byte, typ, caps uint8) {
		if len(code) > 8*200 {
			return
		}
		insns, err := isa.Decode(code[:len(code)&^7], binary.LittleEndian)
		if err != nil {
			return
		}
		p := &Program{Name: "fuzz", Type: abi.ProgType(typ), License: "GPL", Insns: insns, Maps: append([]*Map(nil), maps...)}
		addFuncs(p)
		r := Verify(p, Config{Caps: Caps(caps % 3)})
		if (r.Verdict == Accepted) != (r.Err == nil) {
			t.Fatalf("%v with the error %v", r.Verdict, r.Err)
		}
	})
}
