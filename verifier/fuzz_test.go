package verifier

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
)

// FuzzObject feeds the verifier objects of any bytes: programs that can be read
// come to a verdict, on all kernels.
func FuzzObject(f *testing.F) {
	o := &object.Object{License: "GPL", Arch: "amd64"}
	m := &object.Map{Name: "m", Type: uint32(abi.MapArray), KeySize: 4, ValueSize: 64, MaxEntries: 1}
	o.Maps = append(o.Maps, m)
	o.Funcs = append(o.Funcs, &object.Func{
		Name: "prog", Section: "xdp", Global: true,
		Type: &btf.Func{Name: "prog", Linkage: btf.GlobalFunc, Type: &btf.FuncProto{
			Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
			Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}},
		}},
		Insns: []isa.Instruction{
			isa.StoreImm(isa.Word, 10, -4, 0), isa.Mov64(2, 10), isa.ALU64Imm(isa.Add, 2, -4), isa.LoadMapFD(1, 0), isa.Call(helperMapLookup),
			isa.JumpIfImm(isa.Eq, 0, 0, 1), isa.LoadMem(isa.Double, 0, 0, 8), isa.Mov64Imm(0, 2), isa.Exit(),
		},
		Relocs: []object.Reloc{{Insn: 3, Kind: object.RelocMap, Symbol: m}},
	})
	data, err := o.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := object.Unmarshal(data)
		if err != nil {
			return
		}
		programs, err := Programs(o, nil)
		if err != nil {
			return
		}
		for _, p := range programs {
			for _, kernel := range []abi.Version{abi.Linux6_1, abi.Linux6_12, abi.Linux6_18} {
				r := Verify(p, Config{Kernel: kernel, Caps: Caps(len(data) % 3), limit: 20_000})
				if (r.Verdict == Accepted) != (r.Err == nil) {
					t.Fatalf("%s: %v with the error %v", p.Name, r.Verdict, r.Err)
				}
				if r.Err != nil {
					if err := Render(io.Discard, p, r.Err); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

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
		kernel := []abi.Version{abi.Linux6_18, abi.Linux6_12, abi.Linux6_1}[caps/3%3]
		r := Verify(p, Config{Kernel: kernel, Caps: Caps(caps % 3), limit: 50_000})
		if (r.Verdict == Accepted) != (r.Err == nil) {
			t.Fatalf("%v with the error %v", r.Verdict, r.Err)
		}
	})
}
