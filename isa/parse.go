package isa

import (
	"fmt"
	"strconv"
	"strings"
)

// Parser reads the text that [Printer] writes. It also takes blank lines,
// comments (from ";" or "//" to the end of the line), labels ("name:") as
// targets of jumps and local calls, and the slot number and opcode byte that the
// kernel's log puts before an instruction.
type Parser struct {
	// Helper returns the number of the helper with a name; "name#7" needs none.
	Helper func(name string) (id int32, ok bool)
}

// Parse reads one instruction a line with the zero [Parser].
func Parse(text string) ([]Instruction, error) { return new(Parser).Parse(text) }

// A ParseError says which line is wrong and why.
type ParseError struct {
	Line int // from 1
	Err  error
}

func (e *ParseError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the reason.
func (e *ParseError) Unwrap() error { return e.Err }

// reference is a label to be resolved once all lines are read.
type reference struct {
	index, slot, line int
	label             string
}

// Parse reads one instruction a line. It fails with a [*ParseError].
func (p *Parser) Parse(text string) ([]Instruction, error) {
	var (
		insns  []Instruction
		refs   []reference
		labels = map[string]int{}
		slot   int
	)
	for n, line := range strings.Split(text, "\n") {
		tokens, err := scan(line)
		if err != nil {
			return nil, &ParseError{n + 1, err}
		}
		tokens = stripPosition(tokens)
		if len(tokens) == 2 && tokens[1] == ":" && isName(tokens[0]) {
			if _, dup := labels[tokens[0]]; dup {
				return nil, &ParseError{n + 1, fmt.Errorf("label %s stands twice", tokens[0])}
			}
			labels[tokens[0]] = slot
			continue
		}
		if len(tokens) == 0 {
			continue
		}
		l := lineParser{tokens: tokens, helper: p.Helper}
		i, err := l.instruction()
		if err == nil && l.pos < len(l.tokens) {
			err = fmt.Errorf("unexpected %q after the instruction", l.tokens[l.pos])
		}
		if err == nil {
			err = i.Check()
		}
		if err != nil {
			return nil, &ParseError{n + 1, err}
		}
		if l.label != "" {
			refs = append(refs, reference{len(insns), slot, n + 1, l.label})
		}
		insns = append(insns, i)
		slot += i.Size()
	}
	for _, r := range refs {
		to, ok := labels[r.label]
		if !ok {
			return nil, &ParseError{r.line, fmt.Errorf("label %s is not defined", r.label)}
		}
		i := &insns[r.index]
		distance := to - r.slot - 1
		switch {
		case i.IsWide():
			*i = LoadFunc(i.Dst, int32(distance))
		case i.IsCall():
			*i = CallLocal(int32(distance))
		default:
			if err := i.SetJump(distance); err != nil {
				return nil, &ParseError{r.line, err}
			}
		}
	}
	return insns, nil
}

// operators, longest first where one is the start of another.
var operators = []string{
	"s>>=", "s>=", "s<=", "s/=", "s%=", "s>", "s<",
	">>=", "<<=", ">=", "<=", "==", "!=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
	">", "<", "&", "=", "+", "-", "*", "(", ")", "[", "]", ",", ":", "#",
}

func isWord(c byte) bool {
	return c == '_' || c == '.' || c == '$' || c == '@' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func isName(s string) bool { return isWord(s[0]) && (s[0] < '0' || s[0] > '9') }

func scan(line string) ([]string, error) {
	var tokens []string
next:
	for line = strings.TrimLeft(line, " \t\r"); line != ""; line = strings.TrimLeft(line, " \t\r") {
		if line[0] == ';' || strings.HasPrefix(line, "//") {
			break
		}
		for _, op := range operators {
			if strings.HasPrefix(line, op) {
				tokens, line = append(tokens, op), line[len(op):]
				continue next
			}
		}
		n := 0
		for n < len(line) && isWord(line[n]) {
			n++
		}
		if n == 0 {
			r := []rune(line)[0]
			return nil, fmt.Errorf("unexpected character %q", r)
		}
		tokens, line = append(tokens, line[:n]), line[n:]
	}
	return tokens, nil
}

// stripPosition removes "12:" and "(b7)", which the kernel's log prints first.
func stripPosition(t []string) []string {
	if len(t) >= 2 && t[1] == ":" && t[0][0] >= '0' && t[0][0] <= '9' {
		t = t[2:]
	}
	if len(t) >= 3 && t[0] == "(" && len(t[1]) == 2 && t[2] == ")" {
		if _, err := strconv.ParseUint(t[1], 16, 8); err == nil {
			t = t[3:]
		}
	}
	return t
}

type lineParser struct {
	tokens []string
	pos    int
	helper func(string) (int32, bool)
	label  string // what the instruction's jump or call refers to
}

func (l *lineParser) peek(n int) string {
	if l.pos+n < len(l.tokens) {
		return l.tokens[l.pos+n]
	}
	return ""
}

func (l *lineParser) next() string {
	t := l.peek(0)
	if t != "" {
		l.pos++
	}
	return t
}

func (l *lineParser) accept(tokens ...string) bool {
	for n, t := range tokens {
		if l.peek(n) != t {
			return false
		}
	}
	l.pos += len(tokens)
	return true
}

func (l *lineParser) unexpected(want string) error {
	if t := l.peek(0); t != "" {
		return fmt.Errorf("unexpected %q, want %s", t, want)
	}
	return fmt.Errorf("the line ends where %s should stand", want)
}

func (l *lineParser) expect(tokens ...string) error {
	for _, t := range tokens {
		if !l.accept(t) {
			return l.unexpected(strconv.Quote(t))
		}
	}
	return nil
}

// parseRegister reads r0 to r10 or w0 to w10.
func parseRegister(s string) (r Register, bank byte, ok bool) {
	if len(s) < 2 || s[0] != 'r' && s[0] != 'w' || len(s) > 2 && s[1] == '0' {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(s[1:], 10, 8)
	if err != nil || n >= NumRegisters {
		return 0, 0, false
	}
	return Register(n), s[0], true
}

// register reads a register of a bank, or of both when bank is 0.
func (l *lineParser) register(bank byte) (Register, byte, error) {
	r, b, ok := parseRegister(l.peek(0))
	if !ok || bank != 0 && b != bank {
		want := "a register"
		if bank != 0 {
			want = fmt.Sprintf("a register %c0 to %c10", bank, bank)
		}
		return 0, 0, l.unexpected(want)
	}
	l.pos++
	return r, b, nil
}

// number reads a signed number that fits bits, or an unsigned one that fits
// them: imm fields are written both ways.
func (l *lineParser) number(bits int) (int64, error) {
	start := l.pos
	neg := false
	if l.accept("-") {
		neg = true
	} else {
		l.accept("+")
	}
	t := l.next()
	u, err := strconv.ParseUint(t, 0, 64)
	if err != nil {
		l.pos = start
		return 0, l.unexpected("a number")
	}
	if neg && u > 1<<(bits-1) || !neg && bits < 64 && u >= 1<<bits {
		return 0, fmt.Errorf("%s does not fit %d bits", strings.Join(l.tokens[start:l.pos], ""), bits)
	}
	if neg {
		u = -u
	}
	return int64(u<<(64-bits)) >> (64 - bits), nil
}

// signed reads a number within the signed range of bits: offsets.
func (l *lineParser) signed(bits int) (int64, error) {
	n, err := l.number(64)
	if err == nil && n != n<<(64-bits)>>(64-bits) {
		err = fmt.Errorf("%d does not fit %d bits", n, bits)
	}
	return n, err
}

func sizeOfType(t string) (size Size, signed, ok bool) {
	switch t {
	case "u8", "s8":
		size = Byte
	case "u16", "s16":
		size = Half
	case "u32", "s32":
		size = Word
	case "u64", "s64":
		size = Double
	default:
		return 0, false, false
	}
	return size, t[0] == 's', true
}

// pointer reads "(u64 *)".
func (l *lineParser) pointer() (size Size, signed bool, err error) {
	if err := l.expect("("); err != nil {
		return 0, false, err
	}
	size, signed, ok := sizeOfType(l.peek(0))
	if !ok {
		return 0, false, l.unexpected("a type u8 to u64 or s8 to s32")
	}
	l.pos++
	return size, signed, l.expect("*", ")")
}

// base reads "(r1 +8)".
func (l *lineParser) base() (r Register, off int16, err error) {
	if err := l.expect("("); err != nil {
		return 0, 0, err
	}
	if r, _, err = l.register('r'); err != nil {
		return 0, 0, err
	}
	if !l.accept(")") {
		n, err := l.signed(16)
		if err != nil {
			return 0, 0, err
		}
		off = int16(n)
		err = l.expect(")")
		return r, off, err
	}
	return r, 0, nil
}

// address reads "(u64 *)(r1 +8)" of an unsigned type.
func (l *lineParser) address() (size Size, r Register, off int16, err error) {
	size, signed, err := l.pointer()
	if err == nil && signed {
		err = fmt.Errorf("a store or an atomic operation takes u8 to u64, not a signed type")
	}
	if err == nil {
		r, off, err = l.base()
	}
	return size, r, off, err
}

func (l *lineParser) instruction() (Instruction, error) {
	switch t := l.peek(0); t {
	case "exit":
		l.pos++
		return Exit(), nil
	case "call":
		l.pos++
		return l.call()
	case "goto":
		l.pos++
		return l.target(Jump(0))
	case "gotol":
		l.pos++
		return l.target(JumpLong(0))
	case "may_goto":
		l.pos++
		return l.target(MayGoto(0))
	case "if":
		l.pos++
		return l.compare()
	case "lock":
		l.pos++
		return l.lock()
	case "store_release":
		l.pos++
		return l.storeRelease()
	case "*":
		l.pos++
		return l.store()
	default:
		if _, _, ok := parseRegister(t); ok {
			return l.assignment()
		}
		return Instruction{}, l.unexpected("an instruction")
	}
}

// target reads where a jump goes: "pc+3", "+3" or a label.
func (l *lineParser) target(i Instruction) (Instruction, error) {
	hasPC := l.peek(0) == "pc" && (l.peek(1) == "+" || l.peek(1) == "-")
	if hasPC {
		l.pos++
	}
	if t := l.peek(0); hasPC || t == "+" || t == "-" {
		bits := 16
		if i.Class() == ClassJMP32 && i.Op.JumpOp() == Always {
			bits = 32
		}
		n, err := l.signed(bits)
		if err != nil {
			return i, err
		}
		return i, i.SetJump(int(n))
	}
	if t := l.peek(0); t != "" && isName(t) {
		l.label = l.next()
		return i, nil
	}
	return i, l.unexpected("a jump target (pc+N or a label)")
}

func (l *lineParser) compare() (Instruction, error) {
	dst, bank, err := l.register(0)
	if err != nil {
		return Instruction{}, err
	}
	op, sign := Always, l.peek(0)
	for o, s := range jumpSigns {
		if s == sign {
			op = o
		}
	}
	if op == Always {
		return Instruction{}, l.unexpected("a comparison")
	}
	l.pos++
	class := ClassJMP
	if bank == 'w' {
		class = ClassJMP32
	}
	var i Instruction
	if _, _, ok := parseRegister(l.peek(0)); ok {
		src, _, err := l.register(bank)
		if err != nil {
			return Instruction{}, err
		}
		i = jump(class, op, SourceReg, dst, src, 0, 0)
	} else {
		imm, err := l.number(32)
		if err != nil {
			return Instruction{}, err
		}
		i = jump(class, op, SourceImm, dst, 0, 0, int32(imm))
	}
	if err := l.expect("goto"); err != nil {
		return Instruction{}, err
	}
	return l.target(i)
}

func (l *lineParser) call() (Instruction, error) {
	t := l.peek(0)
	if t == "pc" && (l.peek(1) == "+" || l.peek(1) == "-") {
		l.pos++
		n, err := l.signed(32)
		return CallLocal(int32(n)), err
	}
	if t == "" || !isName(t) {
		n, err := l.number(32)
		return Call(int32(n)), err
	}
	l.pos++
	switch {
	case l.accept("#"):
		n, err := l.number(32)
		return Call(int32(n)), err
	case l.accept("[", "btf", ":"):
		id, err := l.number(32)
		if err != nil {
			return Instruction{}, err
		}
		var idx int64
		if l.accept(",", "idx", ":") {
			if idx, err = l.number(16); err != nil {
				return Instruction{}, err
			}
		}
		return CallKfunc(int32(id), int16(idx)), l.expect("]")
	}
	if l.helper != nil {
		if id, ok := l.helper(t); ok {
			return Call(id), nil
		}
	}
	l.label = t
	return CallLocal(0), nil
}

func (l *lineParser) lock() (Instruction, error) {
	if err := l.expect("*"); err != nil {
		return Instruction{}, err
	}
	size, dst, off, err := l.address()
	if err != nil {
		return Instruction{}, err
	}
	var op AtomicOp
	switch sign := l.peek(0); sign {
	case "+=":
		op = AtomicAdd
	case "|=":
		op = AtomicOr
	case "&=":
		op = AtomicAnd
	case "^=":
		op = AtomicXor
	default:
		return Instruction{}, l.unexpected("+=, |=, &= or ^=")
	}
	l.pos++
	src, _, err := l.register('r')
	return Atomic(op, size, dst, off, src), err
}

func (l *lineParser) storeRelease() (Instruction, error) {
	if err := l.expect("("); err != nil {
		return Instruction{}, err
	}
	size, dst, off, err := l.address()
	if err == nil {
		err = l.expect(",")
	}
	if err != nil {
		return Instruction{}, err
	}
	src, _, err := l.register('r')
	if err != nil {
		return Instruction{}, err
	}
	return StoreRelease(size, dst, off, src), l.expect(")")
}

func (l *lineParser) store() (Instruction, error) {
	size, dst, off, err := l.address()
	if err == nil {
		err = l.expect("=")
	}
	if err != nil {
		return Instruction{}, err
	}
	if _, _, ok := parseRegister(l.peek(0)); ok {
		src, _, err := l.register('r')
		return StoreMem(size, dst, off, src), err
	}
	imm, err := l.number(32)
	return StoreImm(size, dst, off, int32(imm)), err
}

func (l *lineParser) assignment() (Instruction, error) {
	dst, bank, err := l.register(0)
	if err != nil {
		return Instruction{}, err
	}
	class := ClassALU64
	if bank == 'w' {
		class = ClassALU
	}
	op, sign := End, l.peek(0)
	for o, s := range aluSigns {
		if s == sign {
			op = o
		}
	}
	if op == End {
		return Instruction{}, l.unexpected("an assignment")
	}
	l.pos++
	if op == Mov {
		return l.move(class, dst, bank)
	}
	return l.operand(class, op, dst, bank)
}

// operand reads the register or immediate on the right of an assignment.
func (l *lineParser) operand(class Class, op ALUOp, dst Register, bank byte) (Instruction, error) {
	if _, _, ok := parseRegister(l.peek(0)); ok {
		src, _, err := l.register(bank)
		return alu(class, op, SourceReg, dst, src, 0), err
	}
	imm, err := l.number(32)
	return alu(class, op, SourceImm, dst, 0, int32(imm)), err
}

// swaps maps the names of byte order conversions to their constructors.
var swaps = map[string]struct {
	build func(Register, int) Instruction
	bits  int
}{
	"le16": {SwapLE, 16}, "le32": {SwapLE, 32}, "le64": {SwapLE, 64},
	"be16": {SwapBE, 16}, "be32": {SwapBE, 32}, "be64": {SwapBE, 64},
	"bswap16": {Bswap, 16}, "bswap32": {Bswap, 32}, "bswap64": {Bswap, 64},
}

// move reads the right side of "r1 = ".
func (l *lineParser) move(class Class, dst Register, bank byte) (Instruction, error) {
	t := l.peek(0)
	if _, _, ok := parseRegister(t); ok {
		return l.operand(class, Mov, dst, bank)
	}
	if _, _, ok := parseRegister(l.peek(1)); ok && t == "-" {
		l.pos++
		src, _, err := l.register(bank)
		if err == nil && src != dst {
			err = fmt.Errorf("negation works in place: %c%d = -%c%d", bank, dst, bank, dst)
		}
		return alu(class, Neg, SourceImm, dst, 0, 0), err
	}
	if t == "(" {
		return l.signExtend(class, dst, bank)
	}
	if bank == 'w' {
		return l.operand(class, Mov, dst, bank)
	}
	if s, ok := swaps[t]; ok {
		l.pos++
		src, _, err := l.register('r')
		if err == nil && src != dst {
			err = fmt.Errorf("a byte swap works in place: %v = %s %v", dst, t, dst)
		}
		return s.build(dst, s.bits), err
	}
	switch {
	case t == "*":
		l.pos++
		return l.load(dst)
	case t == "load_acquire":
		l.pos++
		if err := l.expect("("); err != nil {
			return Instruction{}, err
		}
		size, src, off, err := l.address()
		if err != nil {
			return Instruction{}, err
		}
		return LoadAcquire(size, dst, src, off), l.expect(")")
	case t == "addr_space_cast":
		l.pos++
		return l.addrSpaceCast(dst)
	case strings.HasPrefix(t, "atomic_"), strings.HasPrefix(t, "atomic64_"):
		return l.fetch(dst)
	case t == "map" || t == "ksym" || t == "subprog":
		if l.peek(1) == "[" {
			l.pos++
			return l.wideReference(t, dst)
		}
	}
	if t != "" && isName(t) {
		if l.peek(1) != "ll" {
			return Instruction{}, l.unexpected("an operand")
		}
		l.pos += 2
		l.label = t
		return LoadFunc(dst, 0), nil
	}
	imm, err := l.number(64)
	if err != nil {
		return Instruction{}, err
	}
	if l.accept("ll") || imm != int64(int32(imm)) {
		return LoadImm64(dst, imm), nil
	}
	return Mov64Imm(dst, int32(imm)), nil
}

func (l *lineParser) signExtend(class Class, dst Register, bank byte) (Instruction, error) {
	l.pos++
	size, signed, ok := sizeOfType(l.peek(0))
	if !ok || !signed {
		return Instruction{}, l.unexpected("s8, s16 or s32")
	}
	l.pos++
	if err := l.expect(")"); err != nil {
		return Instruction{}, err
	}
	src, _, err := l.register(bank)
	i := alu(class, Mov, SourceReg, dst, src, 0)
	i.Off = int16(8 * size.Bytes())
	return i, err
}

func (l *lineParser) addrSpaceCast(dst Register) (Instruction, error) {
	if err := l.expect("("); err != nil {
		return Instruction{}, err
	}
	src, _, err := l.register('r')
	if err == nil {
		err = l.expect(",")
	}
	var to, from int64
	if err == nil {
		to, err = l.number(16)
	}
	if err == nil {
		err = l.expect(",")
	}
	if err == nil {
		from, err = l.number(16)
	}
	if err == nil {
		err = l.expect(")")
	}
	return AddrSpaceCast(dst, src, uint16(to), uint16(from)), err
}

func (l *lineParser) load(dst Register) (Instruction, error) {
	size, signed, err := l.pointer()
	if err != nil {
		return Instruction{}, err
	}
	if l.accept("skb", "[") {
		if dst != R0 || signed {
			return Instruction{}, fmt.Errorf("packet access loads an unsigned value into r0")
		}
		return l.packet(size)
	}
	src, off, err := l.base()
	if signed {
		return LoadMemSX(size, dst, src, off), err
	}
	return LoadMem(size, dst, src, off), err
}

func (l *lineParser) packet(size Size) (Instruction, error) {
	if _, _, ok := parseRegister(l.peek(0)); !ok {
		imm, err := l.number(32)
		if err != nil {
			return Instruction{}, err
		}
		return LoadAbs(size, int32(imm)), l.expect("]")
	}
	src, _, err := l.register('r')
	var imm int64
	if err == nil && l.peek(0) != "]" {
		imm, err = l.number(32)
	}
	if err != nil {
		return Instruction{}, err
	}
	return LoadInd(size, src, int32(imm)), l.expect("]")
}

// fetch reads "atomic64_fetch_add((u64 *)(r1 +0), r2)" and its like.
func (l *lineParser) fetch(dst Register) (Instruction, error) {
	t := l.peek(0)
	prefix, name, _ := strings.Cut(t, "_")
	var op AtomicOp
	for o, s := range fetchNames {
		if s == name {
			op = o
		}
	}
	if op == 0 {
		return Instruction{}, l.unexpected("an atomic operation")
	}
	l.pos++
	if err := l.expect("("); err != nil {
		return Instruction{}, err
	}
	size, base, off, err := l.address()
	if err == nil && (size == Double) != (prefix == "atomic64") {
		err = fmt.Errorf("%s does not fit an access of %d bytes", t, size.Bytes())
	}
	if err == nil && op == CmpXchg {
		err = l.expect(",", "r0")
	}
	if err == nil {
		err = l.expect(",")
	}
	if err != nil {
		return Instruction{}, err
	}
	src, _, err := l.register('r')
	if err != nil {
		return Instruction{}, err
	}
	if old := src; op == CmpXchg && dst != R0 || op != CmpXchg && dst != old {
		return Instruction{}, fmt.Errorf("%s puts the old value into its last operand, or r0 for cmpxchg, not %v", t, dst)
	}
	return Atomic(op, size, base, off, src), l.expect(")")
}

// wideReference reads what follows map, ksym or subprog.
func (l *lineParser) wideReference(kind string, dst Register) (Instruction, error) {
	i, err := l.reference(kind, dst)
	if err == nil {
		l.accept("ll")
	}
	return i, err
}

func (l *lineParser) reference(kind string, dst Register) (Instruction, error) {
	l.pos++ // the bracket, which the caller has seen
	if kind == "subprog" {
		n, err := l.signed(32)
		if err != nil {
			return Instruction{}, err
		}
		return LoadFunc(dst, int32(n)), l.expect("]")
	}
	key := l.next()
	if err := l.expect(":"); err != nil {
		return Instruction{}, err
	}
	n, err := l.number(32)
	if err != nil {
		return Instruction{}, err
	}
	id := int32(n)
	if kind == "ksym" {
		if key != "btf" {
			return Instruction{}, fmt.Errorf("unexpected %q in ksym[...], want btf", key)
		}
		var fd int64
		if l.accept(",", "fd", ":") {
			if fd, err = l.number(32); err != nil {
				return Instruction{}, err
			}
		}
		return LoadBTFID(dst, id, int32(fd)), l.expect("]")
	}
	if key != "fd" && key != "idx" {
		return Instruction{}, fmt.Errorf("unexpected %q in map[...], want fd or idx", key)
	}
	if err := l.expect("]"); err != nil {
		return Instruction{}, err
	}
	if !l.accept("[", "0", "]") {
		if key == "idx" {
			return LoadMapIndex(dst, id), nil
		}
		return LoadMapFD(dst, id), nil
	}
	var off int64
	if l.peek(0) == "+" {
		if off, err = l.number(32); err != nil {
			return Instruction{}, err
		}
	}
	if key == "idx" {
		return LoadMapIndexValue(dst, id, uint32(off)), nil
	}
	return LoadMapValue(dst, id, uint32(off)), nil
}
