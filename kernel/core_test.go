package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/typeindex"
)

var (
	coreInt   = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	coreU32   = &btf.Int{Name: "unsigned int", Size: 4}
	coreU64   = &btf.Int{Name: "unsigned long", Size: 8}
	coreLong  = &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	coreChar  = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	coreIndex = &btf.Int{Name: "__ARRAY_SIZE_TYPE__", Size: 4}
)

func field(name string, t btf.Type, byteOff, bits uint32) btf.Member {
	return btf.Member{Name: name, Type: t, Offset: btf.Bits(byteOff * 8), BitfieldSize: btf.Bits(bits)}
}

// coreKernel are the types of a made-up kernel.
func coreKernel(t testing.TB) *typeindex.Types {
	t.Helper()
	inner := &btf.Struct{Name: "inner", Size: 16, Members: []btf.Member{field("a", coreU64, 0, 0), field("b", coreU64, 8, 0)}}
	task := &btf.Struct{Name: "task", Size: 96}
	task.Members = []btf.Member{
		field("state", coreU32, 0, 0),
		field("pid", coreInt, 4, 0),
		{Type: &btf.Struct{Size: 16, Members: []btf.Member{field("hidden", coreU64, 8, 0)}}, Offset: 8 * 8},
		field("wide", coreU64, 24, 0),
		field("signed", coreLong, 32, 0),
		field("comm", &btf.Array{Type: coreChar, Index: coreIndex, Nelems: 16}, 40, 0),
		field("in", &btf.Array{Type: inner, Index: coreIndex, Nelems: 2}, 56, 0),
		{Name: "bit", Type: coreU32, Offset: 88*8 + 3, BitfieldSize: 5},
		field("next", &btf.Pointer{Target: task}, 0, 0),
	}
	state := &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "RUN", Value: 0}, {Name: "STOP", Value: 9}}}
	fn := &btf.Typedef{Name: "fn_t", Type: &btf.FuncProto{Return: coreInt, Params: []btf.FuncParam{{Name: "x", Type: coreU64}}}}
	b, err := btf.NewBuilder([]btf.Type{task, state, fn, inner}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: binary.NativeEndian})
	if err != nil {
		t.Fatal(err)
	}
	types, err := typeindex.New(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func TestCORE(t *testing.T) {
	types := coreKernel(t)
	inner := &btf.Struct{Name: "inner___old", Size: 8, Members: []btf.Member{field("b", coreU64, 0, 0)}}
	task := &btf.Struct{Name: "task___mine", Size: 80}
	task.Members = []btf.Member{
		field("pid", coreInt, 0, 0),
		field("hidden", coreU64, 8, 0),
		field("wide", coreU32, 16, 0),
		field("signed", coreInt, 20, 0),
		field("comm", &btf.Array{Type: coreChar, Index: coreIndex, Nelems: 4}, 24, 0),
		field("in", &btf.Array{Type: inner, Index: coreIndex, Nelems: 4}, 32, 0),
		{Name: "bit", Type: coreU32, Offset: 64 * 8, BitfieldSize: 3},
		field("gone", coreU64, 72, 0),
		field("next", &btf.Pointer{Target: &btf.Struct{Name: "task", Size: 80}}, 72, 0),
		field("state", &btf.Struct{Name: "s", Size: 4}, 76, 0),
	}
	state := &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "STOP___x", Value: 1}, {Name: "GONE", Value: 2}}}
	proto := func(param btf.Type) btf.Type {
		return &btf.Typedef{Name: "fn_t", Type: &btf.FuncProto{Return: coreInt, Params: []btf.FuncParam{{Name: "y", Type: param}}}}
	}
	shift := func(little, big uint64) uint64 {
		if hostBigEndian {
			return big
		}
		return little
	}
	for _, tt := range []struct {
		kind   object.COREKind
		typ    btf.Type
		access string
		local  uint64
		target uint64
		poison string
	}{
		{object.COREFieldOffset, task, "0:0", 0, 4, ""},
		{object.COREFieldOffset, task, "0:1", 8, 16, ""},
		{object.COREFieldOffset, task, "0:2", 16, 24, ""},
		{object.COREFieldOffset, task, "0:4:2", 26, 42, ""},
		{object.COREFieldOffset, task, "0:5:1:0", 40, 56 + 24, ""},
		{object.COREFieldOffset, task, "0:5:3:0", 0, 0, "no field in[3].b in struct task"},
		{object.COREFieldOffset, task, "2:0", 160, 2*96 + 4, ""},
		{object.COREFieldOffset, task, "0:7", 0, 0, "no field gone in struct task"},
		{object.COREFieldOffset, task, "0:9", 0, 0, "no field state in struct task"},
		{object.COREFieldExists, task, "0:7", 0, 0, ""},
		{object.COREFieldExists, task, "0:1", 1, 1, ""},
		{object.COREFieldExists, task, "0:8", 1, 1, ""},
		{object.COREFieldSize, task, "0:2", 4, 8, ""},
		{object.COREFieldSize, task, "0:4", 4, 16, ""},
		{object.COREFieldSigned, task, "0:2", 0, 0, ""},
		{object.COREFieldSigned, task, "0:3", 1, 1, ""},
		{object.COREFieldOffset, task, "0:6", 64, 88, ""},
		{object.COREFieldSize, task, "0:6", 4, 4, ""},
		{object.COREFieldLShift, task, "0:6", 0, shift(64-8, 32+3), ""},
		{object.COREFieldRShift, task, "0:6", 0, 64 - 5, ""},
		{object.CORETypeSize, task, "0", 80, 96, ""},
		{object.CORETypeExists, task, "0", 1, 1, ""},
		{object.CORETypeExists, &btf.Struct{Name: "gone", Size: 4}, "0", 0, 0, ""},
		{object.CORETypeSize, &btf.Struct{Name: "gone", Size: 4}, "0", 0, 0, ""},
		{object.CORETypeTarget, &btf.Struct{Name: "gone", Size: 4}, "0", 0, 0, "no struct gone"},
		{object.COREEnumValue, state, "0", 1, 9, ""},
		{object.COREEnumExists, state, "0", 1, 1, ""},
		{object.COREEnumExists, state, "1", 0, 0, ""},
		{object.COREEnumValue, state, "1", 0, 0, "no enumerator GONE of enum state"},
		{object.CORETypeExists, proto(coreU64), "0", 1, 1, ""},
		{object.CORETypeExists, proto(&btf.Pointer{Target: &btf.Void{}}), "0", 0, 0, ""},
		{object.CORETypeMatches, proto(coreU64), "0", 1, 1, ""},
		{object.CORETypeMatches, proto(coreU32), "0", 0, 0, ""},
		{object.CORETypeMatches, task, "0", 0, 0, ""},
		{object.CORETypeMatches, &btf.Struct{Name: "task", Size: 4, Members: []btf.Member{field("pid", coreInt, 0, 0)}}, "0", 1, 1, ""},
		{object.CORETypeLocal, task, "0", 0, 77, ""},
	} {
		t.Run(fmt.Sprintf("%d %s %s", tt.kind, tt.typ.TypeName(), tt.access), func(t *testing.T) {
			r := relocator{
				types:   func() (*typeindex.Types, error) { return types, nil },
				localID: func(btf.Type) (btf.TypeID, error) { return 77, nil },
			}
			fix, err := r.resolve(&object.CORE{Kind: tt.kind, Type: tt.typ, Access: tt.access})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(fix.poison, tt.poison) || tt.poison == "" && fix.poison != "" {
				t.Fatalf("poison %q, want %q", fix.poison, tt.poison)
			}
			if tt.poison == "" && (fix.target != tt.target || !fix.loose && fix.local != tt.local) {
				t.Errorf("%d->%d, want %d->%d", fix.local, fix.target, tt.local, tt.target)
			}
		})
	}
	r := relocator{types: func() (*typeindex.Types, error) { return types, nil }}
	id, err := r.resolve(&object.CORE{Kind: object.CORETypeTarget, Type: task, Access: "0"})
	want, _ := types.Struct("task")
	if _, wantID, _ := types.ID(want); err != nil || id.target != uint64(wantID) {
		t.Errorf("type ID %d, %v, want %d", id.target, err, wantID)
	}
	for _, access := range []string{"", "0:99", "x", "0:0:0", "-1", strings.Repeat("0:", 100) + "0", "0:4:0:0", "99999999999999999999"} {
		if _, err := r.resolve(&object.CORE{Kind: object.COREFieldOffset, Type: task, Access: access}); err == nil {
			t.Errorf("access %q was taken", access)
		}
	}
}

func TestCOREApply(t *testing.T) {
	for _, tt := range []struct {
		name string
		fix  coreFix
		in   isa.Instruction
		want isa.Instruction
		err  string
	}{
		{"load", coreFix{local: 4, target: 8, localSize: 4, targetSize: 4}, isa.LoadMem(isa.Word, 1, 2, 4), isa.LoadMem(isa.Word, 1, 2, 8), ""},
		{"wider", coreFix{local: 4, target: 8, localSize: 4, targetSize: 8}, isa.LoadMem(isa.Word, 1, 2, 4), isa.LoadMem(isa.Double, 1, 2, 8), ""},
		{"narrower store", coreFix{local: 4, target: 8, localSize: 8, targetSize: 2}, isa.StoreMem(isa.Double, 1, 4, 2), isa.StoreMem(isa.Half, 1, 8, 2), ""},
		{"part of a field", coreFix{local: 4, target: 8, localSize: 4, targetSize: 8}, isa.LoadMem(isa.Byte, 1, 2, 4), isa.LoadMem(isa.Byte, 1, 2, 8), ""},
		{"signed", coreFix{local: 4, target: 8, localSize: 4, targetSize: 8, fixed: true}, isa.LoadMem(isa.Word, 1, 2, 4), isa.Call(corePoison), ""},
		{"far", coreFix{local: 4, target: 1 << 15}, isa.LoadMem(isa.Word, 1, 2, 4), isa.Instruction{}, "can only reach"},
		{"other", coreFix{local: 5, target: 8}, isa.LoadMem(isa.Word, 1, 2, 4), isa.Instruction{}, "holds 4 where 5"},
		{"loose", coreFix{local: 5, target: 8, loose: true}, isa.LoadMem(isa.Word, 1, 2, 4), isa.LoadMem(isa.Word, 1, 2, 8), ""},
		{"odd size", coreFix{local: 4, target: 8, localSize: 4, targetSize: 12}, isa.LoadMem(isa.Word, 1, 2, 4), isa.Instruction{}, "12 bytes"},
		{"add", coreFix{local: 4, target: 8}, isa.ALU64Imm(isa.Add, 1, 4), isa.ALU64Imm(isa.Add, 1, 8), ""},
		{"move", coreFix{local: 4, target: math.MaxUint64}, isa.Mov64Imm(1, 4), isa.Mov64Imm(1, -1), ""},
		{"too large", coreFix{local: 4, target: 1 << 33}, isa.Mov64Imm(1, 4), isa.Instruction{}, "does not fit"},
		{"wide", coreFix{local: 4, target: 1 << 40}, isa.LoadImm64(1, 4), isa.LoadImm64(1, 1<<40), ""},
		{"poison", coreFix{poison: "x"}, isa.Mov64Imm(1, 4), isa.Call(corePoison), ""},
		{"wide poison", coreFix{poison: "x"}, isa.LoadImm64(1, 4), isa.LoadImm64(isa.R10, corePoison), ""},
		{"jump", coreFix{}, isa.Jump(1), isa.Instruction{}, "cannot take"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ins := tt.in
			err := tt.fix.apply(&ins)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || ins != tt.want {
				t.Errorf("%v, %v, want %v", ins, err, tt.want)
			}
		})
	}
}

func FuzzCOREAccess(f *testing.F) {
	for _, s := range []string{"0:5:1:0", "0", "3", "0:0:0:0", ""} {
		f.Add(uint8(0), s)
	}
	types := coreKernel(f)
	kernelTask, err := types.Struct("task")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, access string) {
		r := relocator{
			types:   func() (*typeindex.Types, error) { return types, nil },
			localID: func(btf.Type) (btf.TypeID, error) { return 1, nil },
		}
		c := &object.CORE{Kind: object.COREKind(kind % 14), Type: kernelTask, Access: access}
		fix, err := r.resolve(c)
		// A type relocated against itself changes nothing.
		if err == nil && fix.poison == "" && !fix.loose && fix.local != fix.target {
			t.Errorf("kind %d of %q: %d->%d", c.Kind, access, fix.local, fix.target)
		}
	})
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name, log string
		slot      int
		message   string
	}{
		{"empty", "", -1, ""},
		{
			"6.12", "0: R1=ctx() R10=fp0\n; $b = *$a; @ script.bt:3\n0: (b7) r7 = 2                         ; R7_w=2\n1: (79) r1 = *(u64 *)(r7 +0)\nR7 invalid mem access 'scalar'\n" +
				"processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n", 1, "R7 invalid mem access 'scalar'",
		},
		{"before", "number of funcs in func_info doesn't match number of subprogs\n", -1, "number of funcs in func_info doesn't match number of subprogs"},
		{
			"paths", "from 4 to 7: R0=0 R10=fp0\n7: (95) exit\nR0 !read_ok\nprocessed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n",
			7, "R0 !read_ok",
		},
		{"argument", "99: (85) call bpf_loop#181\nR3 type=map_value expected=fp\nprocessed 82 insns (limit 1000000)\n", 99, "R3 type=map_value expected=fp"},
		{"kfunc", "3: (85) call bpf_task_release#1\narg#0 is x\nR1 must be a rcu pointer\n", 3, "R1 must be a rcu pointer"},
	} {
		slot, said := verdict(tt.log)
		message := ""
		if len(said) > 0 {
			message = said[len(said)-1]
		}
		if slot != tt.slot || message != tt.message {
			t.Errorf("%s: %d %q, want %d %q", tt.name, slot, message, tt.slot, tt.message)
		}
	}
}

func TestVerdictInWords(t *testing.T) {
	for said, want := range map[string]string{
		"R0 invalid mem access 'map_value_or_null'":   "what a look-up in a map returned is used, and it may be null",
		"R1 invalid mem access 'ringbuf_mem_or_null'": "(it may be null)",
		"R6 invalid mem access 'sock_or_null'":        "a pointer (sock) is used that may be null",
		"R7 invalid mem access 'inv'":                 "through a number",
		"R7 invalid mem access 'scalar'":              "through a number",
		"R2 type=map_value_or_null expected=fp, pkt":  "an argument of the call may be null",
		"R3 type=scalar expected=fp, pkt, map_value":  "argument 3 of the call is of the kind scalar, and what is wanted is one of: fp, pkt, map_value",
		"R8 !read_ok": "never set on this path",
		"R0 !read_ok": "before one was set",
		"invalid access to map value, value_size=8 off=8 size=4\nR0 min value is outside of the allowed memory range": "4 bytes are read or written at offset 8 of a map's value, which has 8 bytes",
		"R2 unbounded memory access, make sure to bounds check any such access":                                       "no upper bound that the kernel could see",
		"invalid access to packet, off=14 size=1, R1(id=0,off=14,r=0)\nR1 offset is outside of the packet":            "1 bytes of the packet are used at offset 14",
		"invalid bpf_context access off=4096 size=8":                                                                  "no field of 8 bytes at offset 4096",
		"invalid read from stack R10 off -8+0 size 8":                                                                 "nothing was written before",
		"invalid indirect read from stack R2 off -16+4 size 8":                                                        "nothing was written before",
		"infinite loop detected at insn 4\ncur state: R0=0":                                                           "the loop may never end",
		"BPF program is too large. Processed 1000001 insn":                                                            "1000001 instructions",
		"The sequence of 8193 jumps is too complex.":                                                                  "8193 branches",
		"program of this type cannot use helper bpf_probe_write_user#36":                                              "may not call bpf_probe_write_user",
		"cannot call GPL-restricted function from non-GPL compatible program":                                         "GPL",
		"Unreleased reference id=2 alloc_insn=7\nBPF_EXIT instruction in main prog would lead to reference leak":      "instruction 7 acquired",
		"At program exit the register R0 has smin=7 smax=7 should have been in [0, 1]":                                "it takes [0, 1]",
		"At program exit the register R0 has value (0x7; 0x0) should have been in (0x0; 0x1)":                         "it takes (0x0; 0x1)",
		"math between fp pointer and register with unbounded min value is not allowed":                                "may be too large or negative",
		"R1 pointer arithmetic on map_value_or_null prohibited, null-check it first":                                  "(map_value_or_null)",
		"R2 bitwise operator &= on pointer prohibited":                                                                "cannot be done on a pointer",
		"combined stack size of 2 calls is 544. Too large":                                                            "need 544 bytes of stack",
		"the verifier of another time":                                                                                "",
	} {
		if got := inWords(strings.Split(said, "\n")); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q is %q in words, want %q", said, got, want)
		}
	}
}
