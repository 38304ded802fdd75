package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A USDTProbe is a statically defined tracepoint of a binary, from a note of
// the section .note.stapsdt (format version 3: three addresses, then
// provider, name and arguments as zero-terminated strings).
type USDTProbe struct {
	Provider, Name string
	Addr           uint64 // of the probe's nop, as written in the file
	Semaphore      uint64 // address of its 16-bit counter; 0 when it has none
	Args           []USDTArg
	ArgText        string // the arguments as in the note
	// ArgErr says why ArgText could not be understood; Args is then nil and
	// the probe can still be attached to.
	ArgErr error
}

// ArgKind says where an argument of a USDT probe is.
type ArgKind uint8

// Kinds of places.
const (
	ArgConst    ArgKind = iota // the value is Value itself
	ArgRegister                // the value is in register Reg
	ArgMemory                  // the value is in memory at Reg + Index*Scale + Value
)

func (k ArgKind) String() string { return [...]string{"const", "register", "memory"}[k%3] }

// A USDTArg says how to fetch one argument.
type USDTArg struct {
	Size   uint8 // bytes: 1, 2, 4 or 8
	Signed bool
	Float  bool // in the format of Size bytes; in a vector register when Kind is ArgRegister
	Kind   ArgKind
	// Reg and Index are the full-width names of registers in the
	// architecture's own spelling: "rax", "x0", "sp", "a0". "" is none;
	// "rip" in ArgMemory means that the address does not depend on registers
	// but moves with the image: it is Value once Symbol has been resolved.
	Reg, Index string
	Scale      uint8 // 1, 2, 4 or 8 when Index is set
	// High is set for the second byte of a register (amd64's ah, bh, ch, dh).
	High bool
	// Value is the constant, or the displacement in bytes.
	Value int64
	// Symbol is what Value is relative to, for operands like counter+4(%rip).
	Symbol string
}

// maxUSDTProbes bounds how many probes are kept of one file.
const maxUSDTProbes = 1 << 20

// USDT returns the probes of b in the order of the file, with addresses
// corrected for prelinking and symbols in operands resolved. A file without
// probes has none, without an error.
func (b *Binary) USDT() ([]USDTProbe, error) {
	b.readNotes()
	if b.notes.usdtErr != nil {
		return nil, b.notes.usdtErr
	}
	if b.notes.usdt == nil {
		return nil, nil
	}
	base := uint64(0)
	if s := b.f.Section(".stapsdt.base"); s != nil {
		base = s.Addr
	}
	probes := parseUSDT(b.notes.usdt, b.f.ByteOrder, b.Is64(), b.f.Machine, base)
	for i := range probes {
		p := &probes[i]
		for j := range p.Args {
			a := &p.Args[j]
			if a.Symbol == "" {
				continue
			}
			var at []Symbol
			if t, err := b.Symbols(); err == nil {
				at = t.Lookup(a.Symbol)
			}
			if len(at) != 1 {
				p.ArgErr = fmt.Errorf("argument %d of %s:%s: symbol %q is not known", j, p.Provider, p.Name, a.Symbol)
				p.Args = nil
				break
			}
			a.Value += int64(at[0].Addr)
		}
	}
	return probes, nil
}

// parseUSDT decodes the notes in data. base is the address of .stapsdt.base,
// 0 for none.
func parseUSDT(data []byte, order binary.ByteOrder, is64 bool, machine elf.Machine, base uint64) []USDTProbe {
	var probes []USDTProbe
	word := uint64(8)
	if !is64 {
		word = 4
	}
	scanNotes(data, order, 4, func(n note) bool {
		if n.name != "stapsdt" || n.typ != noteStapSDT || uint64(len(n.desc)) < 3*word {
			return true
		}
		addr := func(i uint64) uint64 {
			if is64 {
				return order.Uint64(n.desc[i*8:])
			}
			return uint64(order.Uint32(n.desc[i*4:]))
		}
		parts := bytes.SplitN(n.desc[3*word:], []byte{0}, 4)
		if len(parts) < 3 {
			return true
		}
		p := USDTProbe{
			Addr: addr(0), Semaphore: addr(2),
			Provider: string(parts[0]), Name: string(parts[1]), ArgText: string(parts[2]),
		}
		// The note has the base's address at link time; what differs from the
		// section's address now, prelink has moved.
		if linked := addr(1); base != 0 && linked != 0 {
			p.Addr += base - linked
			if p.Semaphore != 0 {
				p.Semaphore += base - linked
			}
		}
		p.Args, p.ArgErr = ParseUSDTArgs(p.ArgText, machine)
		probes = append(probes, p)
		return len(probes) < maxUSDTProbes
	})
	return probes
}

// MatchUSDT returns the probes of b whose provider and name match; an empty
// provider matches all. One name may stand at several places. The error is a
// [*NotFoundError] when there is none, or that of [Binary.USDT].
func (b *Binary) MatchUSDT(provider, name string) ([]USDTProbe, error) {
	probes, err := b.USDT()
	if err != nil {
		return nil, err
	}
	if provider == "" {
		provider = "*"
	}
	pp, np := NewPattern(provider), NewPattern(name)
	probes = slices.DeleteFunc(probes, func(p USDTProbe) bool { return !pp.Match(p.Provider) || !np.Match(p.Name) })
	if len(probes) == 0 {
		return nil, &NotFoundError{Kind: "USDT probe", Name: provider + ":" + name}
	}
	return probes, nil
}

// maxUSDTArgs is the number of arguments that sys/sdt.h can write.
const maxUSDTArgs = 12

// ParseUSDTArgs parses the argument text of a note: operands of the
// architecture's assembler, each behind its size in bytes (negative when
// signed, with f when floating) and '@', separated by spaces:
//
//	amd64:   -4@%eax 8@-16(%rbp) 8@(%rax,%rbx,4) 8@$5 8@counter(%rip)
//	arm64:   -4@w0 8@[sp, 16] 8@[x0, x1, lsl 3] 8@5
//	riscv64: -4@a0 8@-24(s0) 8@5
//
// Other machines are an error.
func ParseUSDTArgs(text string, machine elf.Machine) ([]USDTArg, error) {
	var operand func(string, *USDTArg) error
	switch machine {
	case elf.EM_X86_64:
		operand = amd64Operand
	case elf.EM_AARCH64:
		operand = arm64Operand
	case elf.EM_RISCV:
		operand = riscvOperand
	default:
		if strings.TrimSpace(text) == "" {
			return nil, nil
		}
		return nil, fmt.Errorf("arguments of USDT probes are not understood on %v", machine)
	}
	var args []USDTArg
	for rest := strings.TrimSpace(text); rest != ""; {
		var word string
		word, rest = cutArg(rest)
		if len(args) == maxUSDTArgs {
			return nil, fmt.Errorf("more than %d arguments", maxUSDTArgs)
		}
		// Old notes of arguments without a size are as wide as a register.
		a := USDTArg{Size: 8}
		op := word
		if size, after, ok := strings.Cut(word, "@"); ok {
			op = after
			if err := a.setSize(size); err != nil {
				return nil, fmt.Errorf("argument %d, %q: %w", len(args), word, err)
			}
		}
		if err := operand(strings.TrimSpace(op), &a); err != nil {
			return nil, fmt.Errorf("argument %d, %q: %w", len(args), word, err)
		}
		args = append(args, a)
	}
	return args, nil
}

// cutArg cuts the first argument off s; spaces inside brackets do not end it.
func cutArg(s string) (word, rest string) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '(':
			depth++
		case ']', ')':
			depth--
		case ' ', '\t', '\n':
			if depth <= 0 {
				return s[:i], strings.TrimSpace(s[i:])
			}
		}
	}
	return s, ""
}

func (a *USDTArg) setSize(s string) error {
	digits := s
	if after, ok := strings.CutPrefix(digits, "-"); ok {
		digits, a.Signed = after, true
	}
	if before, ok := strings.CutSuffix(digits, "f"); ok {
		digits, a.Float = before, true
	}
	switch digits {
	case "1", "2", "4", "8":
		a.Size = digits[0] - '0'
		return nil
	}
	return fmt.Errorf("size %q is not 1, 2, 4 or 8", s)
}

func parseInt(s string) (int64, error) {
	if v, err := strconv.ParseInt(s, 0, 64); err == nil {
		return v, nil
	}
	// Assemblers take constants above the signed range too.
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return int64(v), nil
}

// displacement parses "12", "-8", "sym", "sym+4", "4+sym", "sym-8".
func (a *USDTArg) displacement(s string) error {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil
	}
	for s != "" {
		negative := false
		switch s[0] {
		case '-':
			negative, s = true, s[1:]
		case '+':
			s = s[1:]
		}
		end := strings.IndexAny(s, "+-")
		if end < 0 {
			end = len(s)
		}
		term := strings.TrimSpace(s[:end])
		s = s[end:]
		if term == "" {
			return fmt.Errorf("displacement ends early")
		}
		if c := term[0]; c-'0' > 9 {
			if a.Symbol != "" || negative || strings.ContainsAny(term, " ,()[]$%") {
				return fmt.Errorf("displacement %q is too complicated", term)
			}
			a.Symbol = term
			continue
		}
		v, err := parseInt(term)
		if err != nil {
			return err
		}
		if negative {
			v = -v
		}
		a.Value += v
	}
	return nil
}

func amd64Operand(s string, a *USDTArg) error {
	if rest, ok := strings.CutPrefix(s, "$"); ok {
		v, err := parseInt(rest)
		a.Kind, a.Value = ArgConst, v
		return err
	}
	if rest, ok := strings.CutPrefix(s, "%"); ok {
		a.Kind = ArgRegister
		if isVector(rest, "xmm") || isVector(rest, "ymm") {
			a.Reg = "xmm" + rest[3:]
			return nil
		}
		reg, high, ok := amd64Register(rest)
		if !ok {
			return fmt.Errorf("unknown register %q", s)
		}
		a.Reg, a.High = reg, high
		return nil
	}
	open := strings.IndexByte(s, '(')
	if open < 0 || !strings.HasSuffix(s, ")") {
		return fmt.Errorf("operand %q is not understood", s)
	}
	a.Kind = ArgMemory
	if err := a.displacement(s[:open]); err != nil {
		return err
	}
	parts := strings.Split(s[open+1:len(s)-1], ",")
	if len(parts) > 3 {
		return fmt.Errorf("operand %q is not understood", s)
	}
	full := func(p string) (string, error) {
		p = strings.TrimSpace(p)
		if p == "%rip" {
			return "rip", nil
		}
		reg, high, ok := amd64Register(strings.TrimPrefix(p, "%"))
		if !ok || high || p[0] != '%' || p[1:] != reg {
			return "", fmt.Errorf("%q is no address register", p)
		}
		return reg, nil
	}
	var err error
	if base := strings.TrimSpace(parts[0]); base != "" {
		if a.Reg, err = full(base); err != nil {
			return err
		}
	}
	if len(parts) > 1 {
		if a.Index, err = full(parts[1]); err != nil {
			return err
		}
		a.Scale = 1
	}
	if len(parts) > 2 {
		switch scale := strings.TrimSpace(parts[2]); scale {
		case "1", "2", "4", "8":
			a.Scale = scale[0] - '0'
		default:
			return fmt.Errorf("scale %q is not 1, 2, 4 or 8", scale)
		}
	}
	switch {
	case a.Reg == "" && a.Index == "":
		return fmt.Errorf("operand %q has no register", s)
	case a.Index == "rip" || a.Reg == "rip" && a.Index != "":
		return fmt.Errorf("operand %q uses rip as an index", s)
	case a.Reg == "rip" && a.Symbol == "":
		// The number alone is relative to the next instruction, whose
		// address the note does not tell.
		return fmt.Errorf("operand %q has no symbol", s)
	}
	return nil
}

// isVector reports whether name is prefix and a number below 32.
func isVector(name, prefix string) bool {
	digits, ok := strings.CutPrefix(name, prefix)
	n, err := strconv.Atoi(digits)
	return ok && err == nil && n >= 0 && n < 32 && digits == strconv.Itoa(n)
}

// amd64Register returns the full-width name of a register's part.
func amd64Register(name string) (full string, high, ok bool) {
	if rest, found := strings.CutPrefix(name, "r"); found && rest != "" && rest[0]-'0' <= 9 {
		digits := strings.TrimRight(rest, "bwdl")
		if n, err := strconv.Atoi(digits); err == nil && n >= 8 && n <= 15 && len(rest)-len(digits) <= 1 && digits == strconv.Itoa(n) {
			return "r" + digits, false, true
		}
		return "", false, false
	}
	for _, r := range []string{"ax", "bx", "cx", "dx"} {
		switch name {
		case r, "r" + r, "e" + r, r[:1] + "l":
			return "r" + r, false, true
		case r[:1] + "h":
			return "r" + r, true, true
		}
	}
	for _, r := range []string{"si", "di", "bp", "sp", "ip"} {
		switch name {
		case r, "r" + r, "e" + r, r + "l":
			return "r" + r, false, r != "ip" || name == "rip"
		}
	}
	return "", false, false
}

func arm64Operand(s string, a *USDTArg) error {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		parts := strings.Split(inner, ",")
		if !ok || len(parts) > 3 {
			return fmt.Errorf("operand %q is not understood", s)
		}
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		a.Kind = ArgMemory
		if a.Reg, ok = arm64Register(parts[0]); !ok || parts[0][0] == 'w' {
			return fmt.Errorf("%q is no address register", parts[0])
		}
		if len(parts) == 1 {
			return nil
		}
		if index, ok := arm64Register(parts[1]); ok {
			if parts[1][0] == 'w' {
				return fmt.Errorf("index %q of 32 bits is not understood", parts[1])
			}
			a.Index, a.Scale = index, 1
			if len(parts) == 2 {
				return nil
			}
			shift, ok := strings.CutPrefix(parts[2], "lsl")
			n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(shift), "#"))
			if !ok || err != nil || n < 0 || n > 3 {
				return fmt.Errorf("shift %q is not lsl 0 to 3", parts[2])
			}
			a.Scale = 1 << n
			return nil
		}
		if len(parts) > 2 {
			return fmt.Errorf("operand %q is not understood", s)
		}
		v, err := parseInt(strings.TrimPrefix(parts[1], "#"))
		a.Value = v
		return err
	}
	if reg, ok := arm64Register(s); ok {
		a.Kind, a.Reg = ArgRegister, reg
		return nil
	}
	for _, prefix := range []string{"b", "h", "s", "d", "q", "v"} {
		if isVector(s, prefix) {
			a.Kind, a.Reg = ArgRegister, "v"+s[1:]
			return nil
		}
	}
	v, err := parseInt(strings.TrimPrefix(s, "#"))
	if err != nil {
		return fmt.Errorf("operand %q is not understood", s)
	}
	a.Kind, a.Value = ArgConst, v
	return nil
}

func arm64Register(name string) (string, bool) {
	switch name {
	case "sp", "wsp":
		return "sp", true
	case "fp":
		return "x29", true
	case "lr":
		return "x30", true
	}
	for _, prefix := range []string{"x", "w"} {
		if isVector(name, prefix) && name[1:] != "31" {
			return "x" + name[1:], true
		}
	}
	return "", false
}

// riscvRegisters are the integer registers by number, in the spelling of the
// calling convention, which is also that of the kernel's struct pt_regs.
var riscvRegisters = strings.Fields("zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 " +
	"s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6")

func riscvRegister(name string) (string, bool) {
	switch {
	case name == "fp":
		return "s0", true
	case isVector(name, "x"):
		n, _ := strconv.Atoi(name[1:])
		return riscvRegisters[n], true
	}
	return name, slices.Contains(riscvRegisters, name)
}

func riscvOperand(s string, a *USDTArg) error {
	if before, ok := strings.CutSuffix(s, ")"); ok {
		disp, base, ok := strings.Cut(before, "(")
		reg, known := riscvRegister(strings.TrimSpace(base))
		if !ok || !known {
			return fmt.Errorf("operand %q is not understood", s)
		}
		a.Kind, a.Reg = ArgMemory, reg
		if strings.TrimSpace(disp) == "" {
			return nil
		}
		v, err := parseInt(strings.TrimSpace(disp))
		a.Value = v
		return err
	}
	if reg, ok := riscvRegister(s); ok {
		a.Kind, a.Reg = ArgRegister, reg
		return nil
	}
	if strings.HasPrefix(s, "fa") || strings.HasPrefix(s, "ft") || strings.HasPrefix(s, "fs") {
		if n, err := strconv.Atoi(s[2:]); err == nil && n >= 0 && n < 12 && s[2:] == strconv.Itoa(n) {
			a.Kind, a.Reg = ArgRegister, s
			return nil
		}
	}
	v, err := parseInt(s)
	if err != nil {
		return fmt.Errorf("operand %q is not understood", s)
	}
	a.Kind, a.Value = ArgConst, v
	return nil
}

// String writes a in one spelling for all architectures, for listings:
// "s4 rax", "u8 [rbp-16]", "u8 5".
func (a USDTArg) String() string {
	t := "u"
	switch {
	case a.Float:
		t = "f"
	case a.Signed:
		t = "s"
	}
	t += strconv.Itoa(int(a.Size)) + " "
	switch a.Kind {
	case ArgConst:
		return t + strconv.FormatInt(a.Value, 10)
	case ArgRegister:
		if a.High {
			return t + a.Reg + "[8:16]"
		}
		return t + a.Reg
	}
	var b strings.Builder
	b.WriteString(t + "[" + a.Reg)
	if a.Index != "" {
		fmt.Fprintf(&b, "+%s*%d", a.Index, a.Scale)
	}
	if a.Value != 0 {
		fmt.Fprintf(&b, "%+d", a.Value)
	}
	return b.String() + "]"
}
