package isa_test

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/skep-bpf/skep/isa"
)

// instructions lists every form once, with its little-endian encoding and text.
var instructions = []struct {
	insn Instruction
	hex  string
	text string
}{
	{Mov64(R1, R2), "bf21000000000000", "r1 = r2"},
	{Mov32(R1, R2), "bc21000000000000", "w1 = w2"},
	{Mov64Imm(R1, -5), "b7010000fbffffff", "r1 = -5"},
	{Mov32Imm(R10, 5), "b40a000005000000", "w10 = 5"},
	{MovSX64(R1, R2, 8), "bf21080000000000", "r1 = (s8)r2"},
	{MovSX64(R1, R2, 32), "bf21200000000000", "r1 = (s32)r2"},
	{MovSX32(R1, R2, 16), "bc21100000000000", "w1 = (s16)w2"},
	{AddrSpaceCast(R1, R2, 0, 1), "bf21010001000000", "r1 = addr_space_cast(r2, 0, 1)"},
	{AddrSpaceCast(R1, R2, 1, 0), "bf21010000000100", "r1 = addr_space_cast(r2, 1, 0)"},
	{ALU64(Add, R1, R2), "0f21000000000000", "r1 += r2"},
	{ALU32(Add, R1, R2), "0c21000000000000", "w1 += w2"},
	{ALU64Imm(Sub, R3, 7), "1703000007000000", "r3 -= 7"},
	{ALU64(Mul, R1, R2), "2f21000000000000", "r1 *= r2"},
	{ALU64(Div, R1, R2), "3f21000000000000", "r1 /= r2"},
	{ALU64(SDiv, R1, R2), "3f21010000000000", "r1 s/= r2"},
	{ALU32Imm(SMod, R1, 3), "9401010003000000", "w1 s%= 3"},
	{ALU64Imm(Mod, R1, 3), "9701000003000000", "r1 %= 3"},
	{ALU64(Or, R1, R2), "4f21000000000000", "r1 |= r2"},
	{ALU64(And, R1, R2), "5f21000000000000", "r1 &= r2"},
	{ALU64Imm(LSh, R1, 3), "6701000003000000", "r1 <<= 3"},
	{ALU64Imm(RSh, R1, 3), "7701000003000000", "r1 >>= 3"},
	{ALU32Imm(ArSh, R1, 3), "c401000003000000", "w1 s>>= 3"},
	{ALU64(Xor, R1, R2), "af21000000000000", "r1 ^= r2"},
	{Neg64(R4), "8704000000000000", "r4 = -r4"},
	{Neg32(R4), "8404000000000000", "w4 = -w4"},
	{SwapLE(R1, 16), "d401000010000000", "r1 = le16 r1"},
	{SwapBE(R1, 64), "dc01000040000000", "r1 = be64 r1"},
	{Bswap(R1, 32), "d701000020000000", "r1 = bswap32 r1"},
	{LoadMem(Double, R1, R2, 8), "7921080000000000", "r1 = *(u64 *)(r2 +8)"},
	{LoadMem(Byte, R1, R2, -8), "7121f8ff00000000", "r1 = *(u8 *)(r2 -8)"},
	{LoadMemSX(Half, R1, R2, 0), "8921000000000000", "r1 = *(s16 *)(r2 +0)"},
	{StoreMem(Double, R10, -8, R1), "7b1af8ff00000000", "*(u64 *)(r10 -8) = r1"},
	{StoreImm(Word, R10, -8, -1), "620af8ffffffffff", "*(u32 *)(r10 -8) = -1"},
	{LoadAbs(Half, 12), "280000000c000000", "r0 = *(u16 *)skb[12]"},
	{LoadInd(Byte, R3, 12), "503000000c000000", "r0 = *(u8 *)skb[r3 +12]"},
	{Atomic(AtomicAdd, Double, R1, 0, R2), "db21000000000000", "lock *(u64 *)(r1 +0) += r2"},
	{Atomic(AtomicOr, Word, R1, 4, R2), "c321040040000000", "lock *(u32 *)(r1 +4) |= r2"},
	{Atomic(AtomicAnd, Double, R1, 0, R2), "db21000050000000", "lock *(u64 *)(r1 +0) &= r2"},
	{Atomic(AtomicXor, Double, R1, 0, R2), "db210000a0000000", "lock *(u64 *)(r1 +0) ^= r2"},
	{Atomic(FetchAdd, Double, R1, 0, R2), "db21000001000000", "r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)"},
	{Atomic(FetchOr, Word, R1, 0, R2), "c321000041000000", "r2 = atomic_fetch_or((u32 *)(r1 +0), r2)"},
	{Atomic(FetchAnd, Word, R1, 0, R2), "c321000051000000", "r2 = atomic_fetch_and((u32 *)(r1 +0), r2)"},
	{Atomic(FetchXor, Word, R1, 0, R2), "c3210000a1000000", "r2 = atomic_fetch_xor((u32 *)(r1 +0), r2)"},
	{Atomic(Xchg, Double, R1, 0, R2), "db210000e1000000", "r2 = atomic64_xchg((u64 *)(r1 +0), r2)"},
	{Atomic(CmpXchg, Word, R1, 0, R2), "c3210000f1000000", "r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)"},
	{LoadAcquire(Byte, R1, R2, 8), "d321080000010000", "r1 = load_acquire((u8 *)(r2 +8))"},
	{StoreRelease(Double, R1, 8, R2), "db21080010010000", "store_release((u64 *)(r1 +8), r2)"},
	{LoadImm64(R1, 5), "18010000050000000000000000000000", "r1 = 0x5 ll"},
	{LoadImm64(R1, -2), "18010000feffffff00000000ffffffff", "r1 = 0xfffffffffffffffe ll"},
	{LoadMapFD(R1, 3), "18110000030000000000000000000000", "r1 = map[fd:3] ll"},
	{LoadMapValue(R1, 3, 16), "18210000030000000000000010000000", "r1 = map[fd:3][0]+16 ll"},
	{LoadMapIndex(R1, 3), "18510000030000000000000000000000", "r1 = map[idx:3] ll"},
	{LoadMapIndexValue(R1, 3, 16), "18610000030000000000000010000000", "r1 = map[idx:3][0]+16 ll"},
	{LoadBTFID(R1, 77, 0), "183100004d0000000000000000000000", "r1 = ksym[btf:77] ll"},
	{LoadBTFID(R1, 77, 4), "183100004d0000000000000004000000", "r1 = ksym[btf:77,fd:4] ll"},
	{LoadFunc(R1, -7), "18410000f9ffffff0000000000000000", "r1 = subprog[-7] ll"},
	{Jump(3), "0500030000000000", "goto pc+3"},
	{Jump(-1), "0500ffff00000000", "goto pc-1"},
	{JumpLong(70000), "0600000070110100", "gotol pc+70000"},
	{MayGoto(2), "e500020000000000", "may_goto pc+2"},
	{JumpIf(Eq, R1, R2, 3), "1d21030000000000", "if r1 == r2 goto pc+3"},
	{JumpIfImm(Eq, R1, 0, 3), "1501030000000000", "if r1 == 0x0 goto pc+3"},
	{JumpIfImm(SLT, R1, -1, -3), "c501fdffffffffff", "if r1 s< 0xffffffff goto pc-3"},
	{JumpIf32(GT, R1, R2, 3), "2e21030000000000", "if w1 > w2 goto pc+3"},
	{JumpIf32Imm(Set, R1, 8, 3), "4601030008000000", "if w1 & 0x8 goto pc+3"},
	{JumpIf(GE, R1, R2, 0), "3d21000000000000", "if r1 >= r2 goto pc+0"},
	{JumpIf(NE, R1, R2, 0), "5d21000000000000", "if r1 != r2 goto pc+0"},
	{JumpIf(SGT, R1, R2, 0), "6d21000000000000", "if r1 s> r2 goto pc+0"},
	{JumpIf(SGE, R1, R2, 0), "7d21000000000000", "if r1 s>= r2 goto pc+0"},
	{JumpIf(LT, R1, R2, 0), "ad21000000000000", "if r1 < r2 goto pc+0"},
	{JumpIf(LE, R1, R2, 0), "bd21000000000000", "if r1 <= r2 goto pc+0"},
	{JumpIf(SLE, R1, R2, 0), "dd21000000000000", "if r1 s<= r2 goto pc+0"},
	{Call(12), "850000000c000000", "call 12"},
	{CallLocal(5), "8510000005000000", "call pc+5"},
	{CallKfunc(99, 0), "8520000063000000", "call kfunc[btf:99]"},
	{CallKfunc(99, 2), "8520020063000000", "call kfunc[btf:99,idx:2]"},
	{Exit(), "9500000000000000", "exit"},
}

func TestForms(t *testing.T) {
	for _, test := range instructions {
		code, err := Encode(nil, binary.LittleEndian, []Instruction{test.insn})
		if err != nil {
			t.Errorf("%v: %v", test.insn, err)
			continue
		}
		if got := hexOf(code); got != test.hex {
			t.Errorf("%s is encoded as %s, want %s", test.text, got, test.hex)
		}
		if got := test.insn.String(); got != test.text {
			t.Errorf("%s is printed as %q, want %q", test.hex, got, test.text)
		}
		back, err := Decode(code, binary.LittleEndian)
		if err != nil || !slices.Equal(back, []Instruction{test.insn}) {
			t.Errorf("%s is decoded as %+v, %v, want %+v", test.hex, back, err, test.insn)
		}
		if big, err := Encode(nil, binary.BigEndian, []Instruction{test.insn}); err != nil {
			t.Errorf("%s: big endian: %v", test.text, err)
		} else if back, err := Decode(big, binary.BigEndian); err != nil || !slices.Equal(back, []Instruction{test.insn}) {
			t.Errorf("%s: big endian: decoded as %+v, %v", test.text, back, err)
		}
		parsed, err := Parse(test.text)
		if err != nil || !slices.Equal(parsed, []Instruction{test.insn}) {
			t.Errorf("%q is parsed as %+v, %v, want %+v", test.text, parsed, err, test.insn)
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestBigEndian(t *testing.T) {
	code, err := Encode(nil, binary.BigEndian, []Instruction{StoreMem(Double, R10, -8, R1), LoadImm64(R2, 0x1122334455667788)})
	if err != nil {
		t.Fatal(err)
	}
	const want = "7ba1fff800000000" + "1820000055667788" + "0000000011223344"
	if got := hexOf(code); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestAgainstClang assembles the forms that any clang's assembler knows, in its
// spelling, and compares the bytes.
func TestAgainstClang(t *testing.T) {
	clang, err := exec.LookPath("clang")
	if err != nil {
		t.Skip("clang is not installed")
	}
	objcopy, err := exec.LookPath("llvm-objcopy")
	if err != nil {
		if objcopy, err = exec.LookPath("llvm-objcopy-14"); err != nil {
			t.Skip("llvm-objcopy is not installed")
		}
	}
	const asm = `
r1 = r2
w1 = w2
r1 = -5
r1 += r2
w1 += 7
r3 /= 7
w3 s>>= 2
r4 = -r4
w4 = -w4
r1 = le16 r1
r1 = be64 r1
r1 = *(u64 *)(r2 + 8)
r1 = *(u8 *)(r2 - 8)
*(u32 *)(r10 - 8) = r1
r0 = *(u16 *)skb[12]
r0 = *(u8 *)skb[r3]
lock *(u64 *)(r1 + 0) += r2
lock *(u32 *)(r1 + 4) ^= w2
r1 = 81985529216486895 ll
goto +3
if r1 == r2 goto +3
if r1 s< -1 goto -3
if w1 > w2 goto +3
if w1 <= 8 goto +3
call 12
exit
`
	want := []Instruction{
		Mov64(R1, R2), Mov32(R1, R2), Mov64Imm(R1, -5), ALU64(Add, R1, R2), ALU32Imm(Add, R1, 7),
		ALU64Imm(Div, R3, 7), ALU32Imm(ArSh, R3, 2), Neg64(R4), Neg32(R4),
		SwapLE(R1, 16), SwapBE(R1, 64), LoadMem(Double, R1, R2, 8), LoadMem(Byte, R1, R2, -8),
		StoreMem(Word, R10, -8, R1), LoadAbs(Half, 12), LoadInd(Byte, R3, 0),
		Atomic(AtomicAdd, Double, R1, 0, R2), Atomic(AtomicXor, Word, R1, 4, R2),
		LoadImm64(R1, 0x0123456789abcdef), Jump(3), JumpIf(Eq, R1, R2, 3), JumpIfImm(SLT, R1, -1, -3),
		JumpIf32(GT, R1, R2, 3), JumpIf32Imm(LE, R1, 8, 3), Call(12), Exit(),
	}
	for _, target := range []struct {
		triple string
		order  binary.ByteOrder
	}{{"bpfel", binary.LittleEndian}, {"bpfeb", binary.BigEndian}} {
		dir := t.TempDir()
		in, obj, out := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o"), filepath.Join(dir, "a.bin")
		if err := os.WriteFile(in, []byte(asm), 0o600); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.Command(clang, "-target", target.triple, "-mcpu=v3", "-c", in, "-o", obj).CombinedOutput(); err != nil {
			t.Fatalf("clang: %v\n%s", err, msg)
		}
		if msg, err := exec.Command(objcopy, "-O", "binary", "--only-section=.text", obj, out).CombinedOutput(); err != nil {
			t.Fatalf("objcopy: %v\n%s", err, msg)
		}
		code, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(code, target.order)
		if err != nil {
			t.Fatalf("%s: %v", target.triple, err)
		}
		for n := range max(len(got), len(want)) {
			if n >= len(got) || n >= len(want) || got[n] != want[n] {
				t.Fatalf("%s: instruction %d differs: got %v, want %v", target.triple, n, got[min(n, len(got)):], want[min(n, len(want)):])
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		hex, want string
	}{
		{"", ""},
		{"9500", "instruction 0 (slot 0): cut off: 2 of 8 bytes"},
		{"1801000005000000", "instruction 0 (slot 0): cut off: a 64-bit immediate needs two slots"},
		{"18010000050000000100000000000000", "the second slot of a 64-bit immediate holds more"},
		{"9500000000000000" + "9500000001000000", "instruction 1 (slot 1): reserved field in use: imm is 1"},
		{"18010000050000000000000000000000" + "ff00000000000000", "instruction 1 (slot 2): unknown opcode 0xff"},
		{"bf2b000000000000", "register r11 does not exist"},
		{"bfb1000000000000", "register r11 does not exist"},
		{"0f21010000000000", "reserved field in use: off is 1"},
		{"0f21000001000000", "reserved field in use: imm is 1"},
		{"0721000001000000", "reserved field in use: src is 2"},
		{"3f21020000000000", "off of a division is 2"},
		{"bf21070000000000", "off of a register move is 7"},
		{"bc21200000000000", "off of a register move is 32"},
		{"d401000008000000", "width of a byte swap is 8"},
		{"df01000010000000", "unknown opcode 0xdf"},
		{"8f01000000000000", "unknown opcode 0x8f"},
		{"8530000001000000", "unknown kind of call: src is 3"},
		{"8500010001000000", "reserved field in use: off is 1"},
		{"0d00010000000000", "unknown opcode 0x0d"},
		{"9600000000000000", "unknown opcode 0x96"},
		{"f501000000000000", "unknown opcode 0xf5"},
		{"d321000000000000", "atomic operation on 1 bytes"},
		{"db21000070000000", "unknown atomic operation 0x70"},
		{"18710000000000000000000000000000", "unknown kind of 64-bit immediate: src is 7"},
		{"18110000010000000000000001000000", "imm of the second slot is 1"},
		{"9921000000000000", "unknown opcode 0x99"},
		{"3800000000000000", "unknown opcode 0x38"},
	} {
		code := make([]byte, len(test.hex)/2)
		for n := range code {
			code[n] = nibble(test.hex[2*n])<<4 | nibble(test.hex[2*n+1])
		}
		_, err := Decode(code, binary.LittleEndian)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.hex, err)
			}
			continue
		}
		var enc *EncodingError
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &enc) {
			t.Errorf("%s: got error %v, want one with %q", test.hex, err, test.want)
		}
	}
	if _, err := Encode(nil, binary.LittleEndian, []Instruction{Exit(), {Op: Mov64Imm(R1, 0).Op, Imm: 1 << 40}}); err == nil ||
		err.Error() != "instruction 1 (slot 1): immediate 0x10000000000 does not fit 32 bits" {
		t.Errorf("a large immediate: %v", err)
	}
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func TestParse(t *testing.T) {
	text := `
; a comment
0: (b7) r1 = 0x10       ; as the kernel's log has it
	if r1 == 0 goto out // forward
loop:
	r1 += 1
	r2 = 0x123456789ab
	call sub
	r3 = sub ll
	call bpf_get_current_pid_tgid#14
	call bpf_ktime_get_ns
	if r1 < r2 goto loop
out:
	exit
sub:
	exit
`
	p := Parser{Helper: func(name string) (int32, bool) { return 5, name == "bpf_ktime_get_ns" }}
	got, err := p.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Instruction{
		Mov64Imm(R1, 0x10), JumpIfImm(Eq, R1, 0, 9), ALU64Imm(Add, R1, 1), LoadImm64(R2, 0x123456789ab),
		CallLocal(6), LoadFunc(R3, 5), Call(14), Call(5), JumpIf(LT, R1, R2, -9), Exit(), Exit(),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", Sprint(got), Sprint(want))
	}
	for text, want := range map[string]string{
		"r1 = ":                                  "line 1: the line ends where a number should stand",
		"r11 = 5":                                `unexpected "r11", want an instruction`,
		"r1 += w2":                               `unexpected "w2", want a register r0 to r10`,
		"r1 += 4294967296":                       "4294967296 does not fit 32 bits",
		"r1 = *(u64 *)(r2 +40000)":               "40000 does not fit 16 bits",
		"goto nowhere":                           "label nowhere is not defined",
		"a:\na:":                                 "line 2: label a stands twice",
		"r1 = -r2":                               "negation works in place",
		"exit 5":                                 `unexpected "5" after the instruction`,
		"r1 = é":                                 "unexpected character 'é'",
		"*(s8 *)(r1 +0) = 5":                     "not a signed type",
		"r1 = *(s64 *)(r2 +0)":                   "unknown opcode 0x99",
		"r3 = atomic_xchg((u64 *)(r1 +0), r3)":   "does not fit an access of 8 bytes",
		"r3 = atomic64_xchg((u64 *)(r1 +0), r4)": "puts the old value",
		"w1 = (s32)w2":                           "no width to sign-extend from",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	p := Printer{
		Symbol: func(slot int, i Instruction) string {
			switch {
			case i.IsCall() && i.Src == CallHelper:
				return "bpf_ktime_get_ns"
			case i.IsCall() && i.Src == CallPseudo:
				return "sub"
			case i.IsCall():
				return "bpf_task_release"
			}
			return "counts"
		},
		Label: func(slot int) string {
			if slot == 8 {
				return "L1"
			}
			return ""
		},
	}
	for _, test := range []struct {
		insn Instruction
		want string
	}{
		{Call(5), "call bpf_ktime_get_ns#5"},
		{CallLocal(5), "call sub"},
		{CallKfunc(5, 0), "call bpf_task_release[btf:5]"},
		{LoadMapFD(R1, 3), "r1 = counts ll"},
		{LoadMapValue(R1, 3, 8), "r1 = counts+8 ll"},
		{Jump(2), "goto L1"},
		{JumpIfImm(NE, R1, 0, 2), "if r1 != 0x0 goto L1"},
		{Jump(3), "goto pc+3"},
	} {
		if got := p.Instruction(5, test.insn); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestComparisons(t *testing.T) {
	holds := func(op JumpOp, a, b int64) bool {
		switch op {
		case Eq:
			return a == b
		case NE:
			return a != b
		case GT:
			return uint64(a) > uint64(b)
		case GE:
			return uint64(a) >= uint64(b)
		case LT:
			return uint64(a) < uint64(b)
		case LE:
			return uint64(a) <= uint64(b)
		case SGT:
			return a > b
		case SGE:
			return a >= b
		case SLT:
			return a < b
		case SLE:
			return a <= b
		}
		return a&b != 0
	}
	values := []int64{-2, -1, 0, 1, 2}
	for op := Eq; op <= SLE; op += 0x10 {
		if !op.IsCompare() {
			continue
		}
		neg, ok := op.Negate()
		if ok == (op == Set) {
			t.Errorf("%v: Negate says %v", op, ok)
		}
		for _, a := range values {
			for _, b := range values {
				if ok && holds(op, a, b) == holds(neg, a, b) {
					t.Errorf("%v is not the negation of %v for %d, %d", neg, op, a, b)
				}
				if holds(op, a, b) != holds(op.Swap(), b, a) {
					t.Errorf("%v is not %v swapped for %d, %d", op.Swap(), op, a, b)
				}
			}
		}
	}
}

// FuzzDecode checks on any bytes that what is decoded is encoded to the same
// bytes, and printed to a text that is parsed to the same instructions.
func FuzzDecode(f *testing.F) {
	for _, test := range instructions {
		code, err := Encode(nil, binary.LittleEndian, []Instruction{test.insn})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(code, false)
	}
	f.Fuzz(func(t *testing.T, code []byte, big bool) {
		var order binary.ByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		insns, err := Decode(code, order)
		if err != nil {
			return
		}
		back, err := Encode(nil, order, insns)
		if err != nil || !slices.Equal(back, code) {
			t.Fatalf("%x is encoded again as %x, %v", code, back, err)
		}
		text := Sprint(insns)
		parsed, err := Parse(text)
		if err != nil || !slices.Equal(parsed, insns) {
			t.Fatalf("%sis parsed as\n%s, %v", text, Sprint(parsed), err)
		}
	})
}

// FuzzParse checks that any text is either refused or stable under printing.
func FuzzParse(f *testing.F) {
	for _, test := range instructions {
		f.Add(test.text)
	}
	f.Add("a: \n call a\n r1 = a ll\n goto a")
	f.Fuzz(func(t *testing.T, text string) {
		insns, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(Sprint(insns))
		if err != nil || !slices.Equal(again, insns) {
			t.Fatalf("%q is printed as\n%swhich is parsed as\n%s, %v", text, Sprint(insns), Sprint(again), err)
		}
		if _, err := Encode(nil, binary.LittleEndian, insns); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
