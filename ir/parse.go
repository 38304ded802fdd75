package ir

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

// Parse reads the text form of a module that [Print] writes. In text written
// by hand a value or block needs no number behind its name; it gets a free one.
//
// An error is a [source.Diagnostic] that points into the text. Parse accepts
// modules that [Check] does not.
func Parse(text string) (*Module, error) { return ParseFile(source.NewFile("ir", text)) }

// ParseFile is [Parse] for a file with a name to show in errors.
func ParseFile(file *source.File) (*Module, error) {
	toks, err := scan(file)
	if err != nil {
		return nil, err
	}
	p := &parser{
		file: file, toks: toks, m: &Module{}, lines: lineIndex{},
		types: map[string]btf.Type{}, funcs: map[string]*Func{}, maps: map[string]*Map{},
		globals: map[string]*Global{}, externs: map[string]*Extern{},
	}
	return p.parse()
}

type parser struct {
	file  *source.File
	toks  []token
	pos   int
	depth int
	m     *Module
	lines lineIndex

	sources []*source.File
	types   map[string]btf.Type
	funcs   map[string]*Func
	maps    map[string]*Map
	globals map[string]*Global
	externs map[string]*Extern
}

// parse returns what it built, or the error that a method failed with.
func (p *parser) parse() (m *Module, err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *source.Diagnostic:
			m, err = nil, e
		default:
			panic(e)
		}
	}()
	p.declare()
	p.pos = 0
	for p.skipLines(); p.peek().kind != tokEOF; p.skipLines() {
		p.topLevel()
	}
	return p.m, nil
}

func (p *parser) peek() token { return p.toks[p.pos] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != tokEOF {
		p.pos++
	}
	return t
}

// fail ends parsing by an error at t.
func (p *parser) fail(t token, format string, args ...any) {
	panic(source.Errorf(source.Span{File: p.file, Start: t.start, End: t.end}, "ir-syntax", format, args...))
}

func (p *parser) skipLines() {
	for p.peek().kind == tokLine {
		p.pos++
	}
}

func (p *parser) isPunct(c byte) bool { t := p.peek(); return t.kind == tokPunct && t.sigil == c }

func (p *parser) accept(c byte) bool {
	if p.isPunct(c) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(c byte) {
	if !p.accept(c) {
		p.fail(p.peek(), "expected %s, found %s", token{kind: tokPunct, sigil: c}.describe(), p.peek().describe())
	}
}

func (p *parser) isWord(w string) bool { t := p.peek(); return t.kind == tokWord && t.text == w }

func (p *parser) acceptWord(w string) bool {
	if p.isWord(w) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) word(what string) token {
	t := p.next()
	if t.kind != tokWord {
		p.fail(t, "expected %s, found %s", what, t.describe())
	}
	return t
}

func (p *parser) str() string {
	t := p.next()
	if t.kind != tokString {
		p.fail(t, "expected a string in quotes, found %s", t.describe())
	}
	return t.text
}

func (p *parser) int64() int64 {
	t := p.next()
	if t.kind == tokInt {
		if n, err := strconv.ParseInt(t.text, 0, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(t.text, 0, 64); err == nil {
			return int64(n)
		}
	}
	p.fail(t, "expected a number of 64 bits, found %s", t.describe())
	return 0
}

func (p *parser) uint32() uint32 {
	t := p.peek()
	n := p.int64()
	if n < 0 || n > math.MaxUint32 {
		p.fail(t, "%d does not fit 32 bits without a sign", n)
	}
	return uint32(n)
}

func (p *parser) endLine() {
	if t := p.next(); t.kind != tokLine {
		p.fail(t, "expected the end of the line, found %s", t.describe())
	}
}

func (p *parser) label(sigil byte, what string) token {
	t := p.next()
	if t.kind != tokLabel || t.sigil != sigil {
		p.fail(t, "expected the name of a %s (%c...), found %s", what, sigil, t.describe())
	}
	return t
}

// declare finds all that can be spoken of before it is described.
func (p *parser) declare() {
	lineStart := true
	braces := 0
	for ; p.peek().kind != tokEOF; p.pos++ {
		t := p.peek()
		start := lineStart
		lineStart = t.kind == tokLine || t.kind == tokRaw
		switch {
		case p.isPunct('{'):
			braces++
		case p.isPunct('}'):
			braces--
		}
		if !start || braces > 0 || t.kind != tokWord {
			continue
		}
		switch t.text {
		case "type":
			p.pos++
			l := p.label('$', "type")
			p.expect('=')
			if p.types[l.text] != nil {
				p.fail(l, "the type $%s is declared twice", l.text)
			}
			p.types[l.text] = p.emptyType(l.name)
			p.pos--
		case "map":
			p.pos++
			template := p.acceptWord("template")
			l := p.label('@', "map")
			if p.maps[l.text] != nil {
				p.fail(l, "the map @%s is declared twice", l.text)
			}
			mp := &Map{Name: l.name}
			p.maps[l.text] = mp
			if !template {
				p.m.Maps = append(p.m.Maps, mp)
			}
			p.pos--
		case "global":
			p.pos++
			l := p.label('@', "variable")
			if p.globals[l.text] != nil {
				p.fail(l, "the variable @%s is declared twice", l.text)
			}
			g := &Global{Name: l.name}
			p.globals[l.text] = g
			p.m.Globals = append(p.m.Globals, g)
			p.pos--
		case "extern":
			p.pos++
			k := p.word("helper, kfunc, ksym or kconfig")
			kind, ok := find(externNames[:], k.text)
			if !ok {
				p.fail(k, "expected helper, kfunc, ksym or kconfig, found %s", k.describe())
			}
			l := p.label('@', "kernel symbol")
			if p.externs[l.text] != nil {
				p.fail(l, "the extern @%s is declared twice", l.text)
			}
			e := &Extern{Kind: ExternKind(kind), Name: l.name}
			p.externs[l.text] = e
			p.m.Externs = append(p.m.Externs, e)
			p.pos--
		case "func":
			p.pos++
			k := p.word("program, static or global")
			kind, ok := find(linkageNames[:], k.text)
			if !ok {
				p.fail(k, "expected program, static or global, found %s", k.describe())
			}
			l := p.label('@', "function")
			if p.funcs[l.text] != nil {
				p.fail(l, "the function @%s is there twice", l.text)
			}
			f := &Func{Name: l.name, Linkage: Linkage(kind), Module: p.m}
			p.funcs[l.text] = f
			p.m.Funcs = append(p.m.Funcs, f)
			p.pos--
		}
	}
}

func find(names []string, name string) (int, bool) {
	for i, n := range names {
		if n == name && n != "" {
			return i, true
		}
	}
	return 0, false
}

func (p *parser) topLevel() {
	t := p.word("module, file, type, map, global, extern or func")
	switch t.text {
	case "module":
		p.m.Name = p.str()
		if p.acceptWord("license") {
			p.m.License = p.str()
		}
		p.endLine()
	case "file":
		p.sourceFile()
	case "type":
		l := p.next()
		p.expect('=')
		p.fillType(p.types[l.text])
		p.endLine()
	case "map":
		p.acceptWord("template")
		p.mapDecl(p.maps[p.next().text])
	case "global":
		p.global(p.globals[p.next().text])
	case "extern":
		p.next()
		p.extern(p.externs[p.next().text])
	case "func":
		p.next()
		p.fn(p.funcs[p.next().text])
	default:
		p.fail(t, "expected module, file, type, map, global, extern or func, found %s", t.describe())
	}
}

func (p *parser) sourceFile() {
	t := p.peek()
	if n := p.int64(); n != int64(len(p.sources)) {
		p.fail(t, "files are numbered in order: this is number %d", len(p.sources))
	}
	name := p.str()
	p.endLine()
	var lines []string
	for p.peek().kind == tokRaw {
		lines = append(lines, p.next().text)
	}
	p.sources = append(p.sources, source.NewFile(name, strings.Join(lines, "\n")))
}

// span reads a position if one follows.
func (p *parser) span() source.Span {
	t := p.peek()
	if t.kind != tokPos {
		return source.Span{}
	}
	p.pos++
	bad := func() source.Span {
		p.fail(t, "%s is no position: it reads !line:column-column or !line:column-line:column, with the number of the file and a slash in front", t.describe())
		return source.Span{}
	}
	text := t.text
	index := 0
	if n, rest, ok := strings.Cut(text, "/"); ok {
		i, err := strconv.Atoi(n)
		if err != nil {
			return bad()
		}
		index, text = i, rest
	}
	if index < 0 || index >= len(p.sources) {
		p.fail(t, "there is no file number %d here, only %d files", index, len(p.sources))
	}
	s := source.Span{File: p.sources[index]}
	if offsets, ok := strings.CutPrefix(text, "@"); ok {
		// Either number may be negative; the dash between them is the first
		// that follows a digit.
		dash := strings.Index(offsets[min(1, len(offsets)):], "-") + 1
		if dash < 1 {
			return bad()
		}
		var err1, err2 error
		s.Start, err1 = strconv.Atoi(offsets[:dash])
		s.End, err2 = strconv.Atoi(offsets[dash+1:])
		if err1 != nil || err2 != nil {
			return bad()
		}
		return s
	}
	from, to, isRange := strings.Cut(text, "-")
	start, ok := position(from, 0)
	if !ok {
		return bad()
	}
	end := start
	if isRange {
		if end, ok = position(to, start.Line); !ok {
			return bad()
		}
	}
	s.Start, s.End = p.lines.offset(s.File, start), p.lines.offset(s.File, end)
	if s.Start < 0 || s.End < 0 {
		p.fail(t, "%s lies outside of %s", t.describe(), s.File.Name)
	}
	return s
}

// position reads line:column, or a column of the given line.
func position(text string, line int) (source.Position, bool) {
	l, c, ok := strings.Cut(text, ":")
	var err error
	if !ok {
		if line == 0 {
			return source.Position{}, false
		}
		c = l
	} else if line, err = strconv.Atoi(l); err != nil {
		return source.Position{}, false
	}
	column, err := strconv.Atoi(c)
	return source.Position{Line: line, Column: column}, err == nil
}

func (p *parser) mapDecl(m *Map) {
	for {
		t := p.peek()
		if t.kind != tokWord {
			break
		}
		p.pos++
		switch t.text {
		case "type":
			m.Type = p.uint32()
		case "key":
			m.Key = p.btfType()
		case "value":
			m.Value = p.btfType()
		case "keysize":
			m.KeySize = p.uint32()
		case "valuesize":
			m.ValueSize = p.uint32()
		case "max":
			m.MaxEntries = p.uint32()
		case "flags":
			m.Flags = p.uint32()
		case "inner":
			l := p.label('@', "map")
			if m.Inner = p.maps[l.text]; m.Inner == nil {
				p.fail(l, "there is no map @%s", l.text)
			}
		case "pinned":
			m.Pinned = true
		default:
			p.fail(t, "a map has no property %s", t.describe())
		}
	}
	m.Pos = p.span()
	p.endLine()
}

func (p *parser) global(g *Global) {
	for {
		t := p.peek()
		if t.kind != tokWord {
			break
		}
		p.pos++
		switch t.text {
		case "section":
			g.Section = p.str()
		case "type":
			g.Type = p.btfType()
		case "init":
			t := p.peek()
			init, err := hex.DecodeString(p.str())
			if err != nil {
				p.fail(t, "initial bytes are pairs of hexadecimal digits")
			}
			if len(init) > 0 {
				g.Init = init
			}
		case "volatile":
			g.Volatile = true
		default:
			p.fail(t, "a variable has no property %s", t.describe())
		}
	}
	g.Pos = p.span()
	p.endLine()
}

func (p *parser) extern(e *Extern) {
	for {
		switch {
		case p.acceptWord("id"):
			t := p.peek()
			n := p.int64()
			if n != int64(int32(n)) {
				p.fail(t, "%d does not fit 32 bits", n)
			}
			e.ID = int32(n)
		case p.accept('('):
			e.Params = []Type{}
			for !p.accept(')') {
				if len(e.Params) > 0 {
					p.expect(',')
				}
				e.Params = append(e.Params, p.irType())
			}
		case p.accept('>'):
			e.Result = p.irType()
		case p.acceptWord("type"):
			e.Type = p.btfType()
		case p.acceptWord("weak"):
			e.Weak = true
		case p.acceptWord("reads"):
			e.Effect.Reads = p.spaceSet()
		case p.acceptWord("writes"):
			e.Effect.Writes = p.spaceSet()
		case p.acceptWord("volatile"):
			e.Effect.Volatile = true
		case p.acceptWord("fills"):
			e.Effect.Fills = true
		case p.acceptWord("finds"):
			e.Effect.Finds = true
		default:
			p.endLine()
			return
		}
	}
}

func (p *parser) spaceSet() SpaceSet {
	var set SpaceSet
	p.expect('(')
	for !p.accept(')') {
		t := p.word("an address space")
		set |= Spaces(p.space(t, t.text))
	}
	return set
}

func (p *parser) space(t token, name string) Space {
	s, ok := find(spaceNames[:], name)
	if !ok {
		p.fail(t, "there is no address space %q", name)
	}
	return Space(s)
}

func (p *parser) irType() Type {
	t := p.word("a type")
	switch t.text {
	case "void":
		return Type{}
	case "i1":
		return I1
	case "i8":
		return I8
	case "i16":
		return I16
	case "i32":
		return I32
	case "i64":
		return I64
	}
	space, ok := strings.CutPrefix(t.text, "ptr.")
	if !ok {
		p.fail(t, "%s is no type: types are void, i1, i8, i16, i32, i64 and ptr.SPACE", t.describe())
	}
	typ := PtrTo(p.space(t, space))
	if p.accept('[') {
		typ.Size = p.uint32()
		p.expect(']')
	}
	typ.Nullable = p.accept('?')
	return typ
}

// labelKey tells values, and blocks, of a function apart in the text.
type labelKey struct {
	name string
	id   int32
}

// fnParser reads one function.
type fnParser struct {
	*parser
	f      *Func
	values map[labelKey]*Value
	blocks map[labelKey]*Block
	// Where a value or block was spoken of and not yet seen.
	valueUses []valueUse
	blockUses []token  // one for each edge, in order
	anonymous []*Value // without an ID so far
	unnamed   []*Block
	usedValue map[int32]bool
	usedBlock map[int32]bool
}

type valueUse struct {
	slot *Value // stands in for the value until it is known
	tok  token
}

func (p *parser) fn(f *Func) {
	fp := &fnParser{
		parser: p, f: f, values: map[labelKey]*Value{}, blocks: map[labelKey]*Block{},
		usedValue: map[int32]bool{}, usedBlock: map[int32]bool{},
	}
	if p.accept('>') {
		f.Result = p.irType()
	}
	if p.acceptWord("section") {
		f.Section = p.str()
	}
	if p.acceptWord("proto") {
		t := p.peek()
		proto, ok := p.btfType().(*btf.FuncProto)
		if !ok {
			p.fail(t, "the proto of a function has to be a function type")
		}
		f.Proto = proto
	}
	f.Pos = p.span()
	p.expect('{')
	p.endLine()
	for p.skipLines(); !p.isPunct('}'); p.skipLines() {
		fp.line()
	}
	p.next()
	p.endLine()
	fp.finish()
}

// line reads the head of a block, a value or a terminator.
func (p *fnParser) line() {
	t := p.peek()
	if t.kind == tokLabel && t.sigil == '^' {
		p.blockHead()
		return
	}
	if len(p.f.Blocks) == 0 {
		p.fail(t, "expected the name of a block (^...), found %s", t.describe())
	}
	b := p.f.Blocks[len(p.f.Blocks)-1]
	if b.Term != TermNone {
		p.fail(t, "the block has already ended; a new one starts by its name (^...)")
	}
	if t.kind == tokWord {
		switch t.text {
		case "jump", "if", "return", "unreachable":
			p.pos++
			p.terminator(b, t.text)
			return
		}
	}
	p.value(b)
}

func (p *fnParser) blockHead() {
	t := p.next()
	b := &Block{ID: t.id, Name: t.name, Func: p.f}
	key := labelKey{t.name, t.id}
	if p.blocks[key] != nil || p.usedBlock[t.id] {
		p.fail(t, "there are two blocks %s, or two with its number", t.describe())
	}
	p.blocks[key] = b
	if t.id < 0 {
		p.unnamed = append(p.unnamed, b)
	} else {
		p.usedBlock[t.id] = true
	}
	p.f.Blocks = append(p.f.Blocks, b)
	if p.accept('(') {
		for !p.accept(')') {
			if len(b.Params) > 0 {
				p.expect(',')
			}
			l := p.label('%', "value")
			p.expect(':')
			v := &Value{Op: OpParam, Block: b, Type: p.irType()}
			v.Pos = p.span()
			p.define(l, l.name, l.id, v)
			b.Params = append(b.Params, v)
		}
	}
	p.expect(':')
	p.endLine()
}

func (p *fnParser) define(t token, name string, id int32, v *Value) {
	v.Name, v.ID = name, id
	if id < 0 && name == "" {
		p.anonymous = append(p.anonymous, v)
		return
	}
	key := labelKey{name, id}
	if p.values[key] != nil || p.usedValue[id] {
		p.fail(t, "there are two values %s, or two with its number", t.describe())
	}
	p.values[key] = v
	if id < 0 {
		p.anonymous = append(p.anonymous, v)
	} else {
		p.usedValue[id] = true
	}
}

// use reads a value that is spoken of.
func (p *fnParser) use() *Value {
	t := p.label('%', "value")
	if v := p.values[labelKey{t.name, t.id}]; v != nil {
		return v
	}
	slot := &Value{}
	p.valueUses = append(p.valueUses, valueUse{slot, t})
	return slot
}

func (p *fnParser) uses(end byte) []*Value {
	var list []*Value
	for !p.accept(end) {
		if len(list) > 0 {
			p.expect(',')
		}
		list = append(list, p.use())
	}
	return list
}

func (p *fnParser) edge() Edge {
	t := p.label('^', "block")
	e := Edge{To: &Block{Name: t.name, ID: t.id}}
	if p.accept('(') {
		e.Args = p.uses(')')
	}
	return e
}

func (p *fnParser) terminator(b *Block, word string) {
	mark := func(e Edge, t token) {
		b.Succs = append(b.Succs, e)
		p.blockUses = append(p.blockUses, t)
	}
	switch word {
	case "jump":
		b.Term = TermJump
		t := p.peek()
		mark(p.edge(), t)
	case "if":
		b.Term = TermIf
		b.Cond = p.use()
		for _, w := range []string{"then", "else"} {
			if !p.acceptWord(w) {
				p.fail(p.peek(), "expected %q, found %s", w, p.peek().describe())
			}
			t := p.peek()
			mark(p.edge(), t)
		}
		if p.acceptWord("likely") {
			switch t := p.word("then or else"); t.text {
			case "then":
				b.Likely = Then
			case "else":
				b.Likely = Else
			default:
				p.fail(t, "expected then or else, found %s", t.describe())
			}
		}
	case "return":
		b.Term = TermReturn
		if p.peek().kind == tokLabel {
			b.Cond = p.use()
		}
	default:
		b.Term = TermUnreachable
	}
	b.Pos = p.span()
	p.endLine()
}

var opByName = func() map[string]Op {
	m := map[string]Op{}
	for op := OpConst; op < numOps; op++ {
		m[op.String()] = op
	}
	return m
}()

func (p *fnParser) value(b *Block) {
	v := &Value{Block: b}
	t := p.next()
	var opTok token
	switch t.kind {
	case tokLabel:
		if t.sigil != '%' {
			p.fail(t, "expected a value (%%...: TYPE = ...), found %s", t.describe())
		}
		p.expect(':')
		typeTok := p.peek()
		if v.Type = p.irType(); v.Type == (Type{}) {
			p.fail(typeTok, "a value without a result has no name in front: write OP.NUMBER")
		}
		p.expect('=')
		opTok = p.word("an operation")
		if v.Op = opByName[opTok.text]; v.Op == OpInvalid {
			p.fail(opTok, "there is no operation %s", opTok.describe())
		}
		p.define(t, t.name, t.id, v)
	case tokWord:
		opTok = t
		name, rest, _ := strings.Cut(t.text, ".")
		if v.Op = opByName[name]; v.Op == OpInvalid {
			p.fail(t, "expected a value, a terminator or a block, found %s", t.describe())
		}
		id := int64(-1)
		dot := strings.LastIndexByte(rest, '.')
		if n, err := strconv.ParseInt(rest[dot+1:], 10, 32); err == nil && n >= 0 {
			id, rest = n, rest[:max(dot, 0)]
		}
		p.define(t, rest, int32(id), v)
	default:
		p.fail(t, "expected a value, a terminator or a block, found %s", t.describe())
	}

	switch v.Op {
	case OpConst, OpAlloca, OpMemCopy, OpMemZero:
		v.Int = p.int64()
	case OpLoad, OpStore:
		switch {
		case p.acceptWord("volatile"):
			v.Int = VolatileAccess
		case p.peek().kind == tokInt:
			v.Int = p.int64()
		}
	case OpAtomic:
		if p.peek().kind == tokInt {
			v.Int = p.int64()
			break
		}
		w := p.word("an atomic operation")
		n, ok := find(atomicNames[:], w.text)
		if !ok {
			p.fail(w, "there is no atomic operation %s", w.describe())
		}
		v.Int = int64(n)
	}
	switch v.Op {
	case OpAlloca:
		if t := p.peek(); t.kind != tokLine && t.kind != tokPos {
			v.Aux = p.auxType()
		}
	case OpGlobal:
		l := p.label('@', "variable")
		if g := p.globals[l.text]; g != nil {
			v.Aux = g
		} else {
			p.fail(l, "there is no variable @%s", l.text)
		}
	case OpMap:
		l := p.label('@', "map")
		if m := p.maps[l.text]; m != nil {
			v.Aux = m
		} else {
			p.fail(l, "there is no map @%s", l.text)
		}
	case OpFunc:
		v.Aux = p.function()
	case OpKsym:
		v.Aux = p.externRef()
	case OpCore:
		w := p.word("what is asked of the target, e.g. field_exists")
		n, ok := find(coreNames[:], w.text)
		if !ok {
			p.fail(w, "there is no such question to the target: %s", w.describe())
		}
		ref := &CoreRef{Kind: CoreKind(n), Type: p.btfType(), Path: p.path()}
		p.expect('=')
		ref.Local = p.int64()
		v.Aux = ref
	case OpCall:
		if p.peek().kind == tokWord {
			p.next()
			v.Aux = p.externRef()
		} else {
			v.Aux = p.function()
		}
		p.expect('(')
		v.Args = p.uses(')')
	case OpField:
		v.Args = []*Value{p.use()}
		p.expect(',')
		ref := &FieldRef{Struct: p.btfType(), Path: p.path()}
		p.expect('+')
		ref.Offset = p.uint32()
		ref.Relocate = p.acceptWord("reloc")
		v.Aux = ref
	}
	if v.Op != OpField && v.Op != OpCall && p.peek().kind == tokLabel {
		v.Args = append(v.Args, p.use())
		for p.accept(',') {
			v.Args = append(v.Args, p.use())
		}
	}
	v.Pos = p.span()
	p.endLine()
	b.Values = append(b.Values, v)
}

// auxType reads a type into an any that stays nil for no type.
func (p *fnParser) auxType() any {
	if t := p.btfType(); t != nil {
		return t
	}
	return nil
}

func (p *fnParser) function() *Func {
	l := p.label('@', "function")
	f := p.funcs[l.text]
	if f == nil {
		p.fail(l, "there is no function @%s", l.text)
	}
	return f
}

func (p *fnParser) externRef() *Extern {
	l := p.label('@', "kernel symbol")
	e := p.externs[l.text]
	if e == nil {
		p.fail(l, "there is no extern @%s", l.text)
	}
	return e
}

func (p *parser) path() []int {
	p.expect('[')
	var path []int
	for !p.accept(']') {
		t := p.peek()
		n := p.int64()
		if n != int64(int32(n)) {
			p.fail(t, "%d is too large for an index", n)
		}
		path = append(path, int(n))
	}
	return path
}

// finish puts values and blocks where they were only spoken of.
func (p *fnParser) finish() {
	found := make(map[*Value]*Value, len(p.valueUses))
	for _, u := range p.valueUses {
		v := p.values[labelKey{u.tok.name, u.tok.id}]
		if v == nil {
			p.fail(u.tok, "there is no value %s in function @%s", u.tok.describe(), p.f.Name)
		}
		found[u.slot] = v
	}
	fix := func(v *Value) *Value {
		if real := found[v]; real != nil {
			return real
		}
		return v
	}
	edge := 0
	for _, b := range p.f.Blocks {
		for _, v := range b.Values {
			for i, a := range v.Args {
				v.Args[i] = fix(a)
			}
		}
		if b.Cond != nil {
			b.Cond = fix(b.Cond)
		}
		for i := range b.Succs {
			e := &b.Succs[i]
			t := p.blockUses[edge]
			edge++
			to := p.blocks[labelKey{e.To.Name, e.To.ID}]
			if to == nil {
				p.fail(t, "there is no block %s in function @%s", t.describe(), p.f.Name)
			}
			e.To = to
			for j, a := range e.Args {
				e.Args[j] = fix(a)
			}
		}
	}
	// Numbers for what has none.
	for _, v := range p.anonymous {
		for p.usedValue[p.f.nextValue] {
			p.f.nextValue++
		}
		v.ID = p.f.nextValue
		p.f.nextValue++
	}
	for id := range p.usedValue {
		if id == math.MaxInt32 {
			p.fail(p.peek(), "the number %d is too large for a value", id)
		}
		p.f.nextValue = max(p.f.nextValue, id+1)
	}
	for _, b := range p.unnamed {
		for p.usedBlock[p.f.nextBlock] {
			p.f.nextBlock++
		}
		b.ID = p.f.nextBlock
		p.f.nextBlock++
	}
	for id := range p.usedBlock {
		if id == math.MaxInt32 {
			p.fail(p.peek(), "the number %d is too large for a block", id)
		}
		p.f.nextBlock = max(p.f.nextBlock, id+1)
	}
}
