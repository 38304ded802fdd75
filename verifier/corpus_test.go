package verifier

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// A corpusCase is one program of testdata/*.txt with its expected verdict. The
// format: "prog NAME" begins a program, then what the program is, a line each,
// and its instructions, indented:
//
//	type TYPE       program type (socket_filter)
//	attach TYPE     attach type
//	license TEXT    (GPL)
//	caps SET        all, bpf or none (all)
//	long            it takes the kernel too long to log every instruction
//	r0 VALUE        what the program returns, for a packet of zeros
//	since VERSION   the rule is there from this kernel on
//	sleepable       it may sleep
//	target NAME     what a program with BTF attaches to
//	struct NAME FIELD:TYPE...  a type of the program, see corpusStruct
//	map NAME TYPE KEY VALUE ENTRIES [lock|timer|value=STRUCT] [rdonly]
//	expect accepted | rejected CATEGORY INSN | unsupported
//
// CATEGORY and INSN may be left open as ? and filled in from the kernel with
// -update.
//
// In instructions map[NAME] is a map, map[NAME]+8 an address in its value,
// type[NAME] the id of a structure; calls name helpers, and kfunc[NAME] is a
// function of the kernel.
type corpusCase struct {
	file     string
	line     int
	program  *Program
	caps     Caps
	since    abi.Version
	verdict  Verdict
	category Category
	insn     int
	// open: the instruction is not filled in yet ("?"), see -update.
	open       bool
	long       bool
	r0         *uint32
	expectLine int
	structs    []*btf.Struct
}

func (c *corpusCase) where() string { return fmt.Sprintf("%s:%d: %s", c.file, c.line, c.program.Name) }

var (
	typeRef  = regexp.MustCompile(`type\[(\w+)\]`)
	kfuncRef = regexp.MustCompile(`kfunc\[(\w+)\]`)
)

var mapRef = regexp.MustCompile(`map\[(\w+)\](\+\d+)?`)

// lockStruct and timerStruct are the types of values with a special field at
// offset 8.
func specialValue(name string, size uint32) *btf.Struct {
	u64 := &btf.Int{Name: "unsigned long", Size: 8}
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	var inner *btf.Struct
	members := []btf.Member{{Name: "count", Type: u64}}
	next := uint32(8)
	switch name {
	case "lock":
		inner = &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: u32}}}
		next = 12
	case "timer":
		inner = &btf.Struct{Name: "bpf_timer", Size: 16, Members: []btf.Member{
			{Name: "__opaque", Type: &btf.Array{Type: u64, Index: u32, Nelems: 2}},
		}}
		next = 24
	}
	members = append(members, btf.Member{Name: "f", Type: inner, Offset: 64})
	if next < size {
		members = append(members, btf.Member{Name: "rest", Offset: btf.Bits(next * 8), Type: &btf.Array{
			Type: &btf.Int{Name: "char", Size: 1, Encoding: btf.Char}, Index: u32, Nelems: size - next,
		}})
	}
	return &btf.Struct{Name: "value", Size: size, Members: members}
}

func parseMap(fields []string, structs []*btf.Struct) (*Map, error) {
	if len(fields) < 5 {
		return nil, fmt.Errorf("map NAME TYPE KEY VALUE ENTRIES is wanted")
	}
	t, ok := abi.ParseMapType(fields[1])
	if !ok {
		return nil, fmt.Errorf("no map type %q", fields[1])
	}
	m := &Map{Name: fields[0], Type: t}
	for i, to := range []*uint32{&m.KeySize, &m.ValueSize, &m.MaxEntries} {
		n, err := strconv.ParseUint(fields[2+i], 0, 32)
		if err != nil {
			return nil, err
		}
		*to = uint32(n)
	}
	for _, f := range fields[5:] {
		if name, ok := strings.CutPrefix(f, "value="); ok {
			for _, s := range structs {
				if s.Name == name {
					m.Value, m.ValueSize = s, s.Size
				}
			}
			continue
		}
		switch f {
		case "lock", "timer":
			m.Value = specialValue(f, m.ValueSize)
		case "rdonly":
			m.Flags |= mapReadOnlyProg
		case "wronly":
			m.Flags |= mapWriteOnlyProg
		case "noprealloc":
			m.Flags |= 1
		case "inner":
			m.Inner = &Map{Name: m.Name + "_inner", Type: abi.MapArray, KeySize: 4, ValueSize: 16, MaxEntries: 4}
		default:
			return nil, fmt.Errorf("unknown word %q", f)
		}
	}
	return m, nil
}

// addFuncs gives types to the functions of a program that takes the address of
// one, for which the kernel wants to know them.
func addFuncs(p *Program) {
	starts := map[int]bool{0: true}
	at, taken := 0, false
	for _, in := range p.Insns {
		if in.IsWide() && in.Src == isa.PseudoFunc {
			taken = true
			starts[at+int(in.Low())+1] = true
		}
		if in.IsCall() && in.Src == isa.CallPseudo {
			starts[at+int(in.Low())+1] = true
		}
		at += in.Size()
	}
	if !taken && len(p.Locals) == 0 {
		return
	}
	integer := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	for _, s := range slices.Sorted(maps.Keys(starts)) {
		name := fmt.Sprintf("f%d", s)
		p.Funcs = append(p.Funcs, Func{Name: name, Start: s, Type: &btf.Func{
			Name: name, Linkage: btf.StaticFunc,
			Type: &btf.FuncProto{Return: integer, Params: []btf.FuncParam{{Name: "a", Type: integer}}},
		}})
	}
}

func parseCorpus(file, text string) ([]*corpusCase, error) {
	var all []*corpusCase
	var c *corpusCase
	var code strings.Builder
	finish := func() error {
		if c == nil {
			return nil
		}
		index := map[string]int{}
		for i, m := range c.program.Maps {
			index[m.Name] = i
		}
		var unknown string
		asm := mapRef.ReplaceAllStringFunc(code.String(), func(s string) string {
			m := mapRef.FindStringSubmatch(s)
			i, ok := index[m[1]]
			if !ok {
				unknown = m[1]
			}
			if m[2] != "" {
				return fmt.Sprintf("map[fd:%d][0]%s", i, m[2])
			}
			return fmt.Sprintf("map[fd:%d]", i)
		})
		asm = typeRef.ReplaceAllStringFunc(asm, func(s string) string {
			name := typeRef.FindStringSubmatch(s)[1]
			for i, t := range c.structs {
				if t.Name == name {
					return strconv.Itoa(i + 1)
				}
			}
			return s
		})
		asm = kfuncRef.ReplaceAllStringFunc(asm, func(s string) string {
			name := kfuncRef.FindStringSubmatch(s)[1]
			n := slices.IndexFunc(c.program.Kfuncs, func(k Kfunc) bool { return k.Name == name })
			if n < 0 {
				n = len(c.program.Kfuncs)
				c.program.Kfuncs = append(c.program.Kfuncs, Kfunc{Name: name})
			}
			return fmt.Sprintf("kfunc[btf:%d]", n)
		})
		if unknown != "" {
			return fmt.Errorf("no map %q", unknown)
		}
		p := isa.Parser{Helper: func(name string) (int32, bool) {
			h := abi.HelperByName(name)
			if h == nil {
				return 0, false
			}
			return h.ID, true
		}}
		var err error
		c.program.Insns, err = p.Parse(asm)
		for i := range c.program.Insns {
			if in := &c.program.Insns[i]; in.IsCall() && in.Src == isa.CallKernel {
				in.Imm = -1 - in.Imm
			}
		}
		if err == nil {
			err = addLocals(c)
		}
		addFuncs(c.program)
		all = append(all, c)
		return err
	}
	for n, line := range strings.Split(text, "\n") {
		fail := func(err error) error { return fmt.Errorf("%s:%d: %w", file, n+1, err) }
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '\t' || strings.HasSuffix(line, ":") {
			code.WriteString(line + "\n")
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == "prog" {
			if err := finish(); err != nil {
				return nil, fmt.Errorf("%s: before line %d: %w", file, n+1, err)
			}
			code.Reset()
			c = &corpusCase{file: file, line: n + 1, insn: -1, program: &Program{Name: rest, Type: abi.ProgSocketFilter, License: "GPL"}}
			continue
		}
		if c == nil {
			return nil, fail(fmt.Errorf("no program has begun"))
		}
		fields := strings.Fields(rest)
		var ok bool
		switch word {
		case "type":
			if c.program.Type, ok = abi.ParseProgType(rest); !ok {
				return nil, fail(fmt.Errorf("no program type %q", rest))
			}
		case "attach":
			if c.program.Attach, ok = abi.ParseAttachType(rest); !ok {
				return nil, fail(fmt.Errorf("no attach type %q", rest))
			}
		case "license":
			c.program.License = rest
		case "caps":
			if c.caps, ok = ParseCaps(rest); !ok {
				return nil, fail(fmt.Errorf("no set of capabilities %q", rest))
			}
		case "long":
			c.long = true
		case "r0":
			n, err := strconv.ParseUint(rest, 0, 32)
			if err != nil {
				return nil, fail(err)
			}
			r0 := uint32(n)
			c.r0 = &r0
		case "since":
			v, err := abi.ParseVersion(rest)
			if err != nil {
				return nil, fail(err)
			}
			c.since = v
		case "sleepable":
			c.program.Sleepable = true
		case "target":
			c.program.AttachTo = rest
		case "struct":
			s, err := corpusStruct(fields, c.structs)
			if err != nil {
				return nil, fail(err)
			}
			c.structs = append(c.structs, s)
		case "map":
			m, err := parseMap(fields, c.structs)
			if err != nil {
				return nil, fail(err)
			}
			c.program.Maps = append(c.program.Maps, m)
		case "expect":
			switch {
			case rest == "accepted":
			case rest == "unsupported":
				c.verdict = Unsupported
			case len(fields) == 3 && fields[0] == "rejected":
				c.verdict, c.category = Rejected, Category(fields[1])
				c.expectLine = n + 1
				if fields[2] == "?" {
					c.open = true
					break
				}
				at, err := strconv.Atoi(fields[2])
				if err != nil {
					return nil, fail(err)
				}
				c.insn = at
			default:
				return nil, fail(fmt.Errorf("%q is no verdict", rest))
			}
		default:
			return nil, fail(fmt.Errorf("unknown word %q", word))
		}
	}
	if err := finish(); err != nil {
		return nil, fmt.Errorf("%s: last program: %w", file, err)
	}
	return all, nil
}

// needsTypes reports whether the kernel's types are needed to judge a program.
func (c *corpusCase) needsTypes() bool {
	return c.program.AttachTo != "" || len(c.program.Kfuncs) > 0 || len(c.structs) > 0
}

// kernelTypes are the types of this machine's kernel; nil where it has none.
func kernelTypes(t testing.TB) *btf.Spec {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return nil
	}
	types, err := kernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// kernelSpec loads the kernel's types once: each load copies them.
var kernelSpec = sync.OnceValues(btf.LoadKernelSpec)

// corpus reads all programs of testdata.
func corpus(t testing.TB) []*corpusCase {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var all []*corpusCase
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseCorpus(f, string(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cases...)
	}
	return all
}

// TestCorpus has every program of testdata judged as it says itself.
func TestCorpus(t *testing.T) {
	rejected, accepted := 0, 0
	names := map[string]bool{}
	for _, c := range corpus(t) {
		if names[c.program.Name] {
			t.Errorf("%s stands twice", c.where())
		}
		names[c.program.Name] = true
		cfg := Config{Caps: c.caps}
		if c.needsTypes() {
			if cfg.Types = kernelTypes(t); cfg.Types == nil {
				continue
			}
		}
		r := Verify(c.program, cfg)
		switch c.verdict {
		case Accepted:
			accepted++
		case Rejected:
			rejected++
		}
		if r.Verdict != c.verdict {
			t.Errorf("%s: %v (%v), want %v", c.where(), r.Verdict, r.Err, c.verdict)
			continue
		}
		if c.verdict == Rejected && (r.Err.Category != c.category || r.Err.Insn != c.insn) {
			t.Errorf("%s: rejected for %s at %d (%v), want %s at %d", c.where(), r.Err.Category, r.Err.Insn, r.Err, c.category, c.insn)
		}
	}
	t.Logf("%d accepted, %d rejected", accepted, rejected)
}
