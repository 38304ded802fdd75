package ir

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

// Print returns m as text that [Parse] reads back to an equal module: the
// texts of the source files, the BTF types that are spoken of and all that
// these lead to, maps, variables, externs, functions.
//
// A value is written as %name.ID, a block as ^name.ID, and a position in the
// source as !line:column-end.
func Print(m *Module) string {
	p := newPrinter()
	p.module(m, true)
	return p.b.String()
}

// PrintShort is [Print] for people: it leaves out the texts of files and the
// declarations of types, which may be most of the kernel's. Parse does not
// read it.
func PrintShort(m *Module) string {
	p := newPrinter()
	p.module(m, false)
	return p.b.String()
}

// String returns the function in the form that [Print] gives it, without the
// types and files it refers to.
func (f *Func) String() string {
	p := newPrinter()
	p.fn(f)
	return p.b.String()
}

// String returns the value on one line, as [Print] writes it.
func (v *Value) String() string {
	if v == nil {
		return "%nil"
	}
	p := newPrinter()
	p.value(v)
	return p.b.String()
}

// String returns the block in the form that [Print] gives it.
func (b *Block) String() string {
	p := newPrinter()
	p.block(b)
	return p.b.String()
}

// Label returns the value's name in the text form, e.g. %len.5.
func (v *Value) Label() string {
	if v == nil {
		return "%nil"
	}
	return "%" + idLabel(v.Name, v.ID)
}

// Label returns the block's name in the text form, e.g. ^loop.head.3.
func (b *Block) Label() string {
	if b == nil {
		return "^nil"
	}
	return "^" + idLabel(b.Name, b.ID)
}

func idLabel(name string, id int32) string {
	if name == "" {
		return strconv.Itoa(int(id))
	}
	return quoteName(name) + "." + strconv.Itoa(int(id))
}

// quoteName returns name, in quotes if it does not consist of letters,
// digits, underscores and dots alone.
func quoteName(name string) string {
	for i := 0; i < len(name); i++ {
		if !isWordByte(name[i]) {
			return strconv.Quote(name)
		}
	}
	return name
}

func isWordByte(c byte) bool {
	return c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// A namer gives each object of one kind a label of its own: its name, and
// #2, #3, ... behind it where several have one name. What has no name is #1,
// #2, ...
type namer struct {
	labels map[any]string
	count  map[string]int
}

func newNamer() namer { return namer{map[any]string{}, map[string]int{}} }

func (n *namer) label(key any, name string) string {
	if l, ok := n.labels[key]; ok {
		return l
	}
	n.count[name]++
	l := quoteName(name)
	if name != "" && !isLetter(name[0]) {
		l = strconv.Quote(name)
	}
	if c := n.count[name]; c > 1 || name == "" {
		l += "#" + strconv.Itoa(c)
	}
	n.labels[key] = l
	return l
}

type printer struct {
	b                             strings.Builder
	files                         map[*source.File]int
	fileList                      []*source.File
	lines                         lineIndex
	funcs, maps, globals, externs namer
	types                         typePrinter
}

func newPrinter() *printer {
	return &printer{
		files: map[*source.File]int{}, lines: lineIndex{},
		funcs: newNamer(), maps: newNamer(), globals: newNamer(), externs: newNamer(),
		types: typePrinter{names: newNamer()},
	}
}

func (p *printer) f(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

func (p *printer) module(m *Module, full bool) {
	for _, f := range m.Funcs {
		p.funcs.label(f, f.Name)
	}
	maps := slices.Clone(m.Maps)
	for _, mp := range m.Maps {
		p.maps.label(mp, mp.Name)
	}
	for i := 0; i < len(maps); i++ {
		if in := maps[i].Inner; in != nil && !slices.Contains(maps, in) {
			maps = append(maps, in)
		}
	}
	for _, g := range m.Globals {
		p.globals.label(g, g.Name)
	}
	for _, e := range m.Externs {
		p.externs.label(e, e.Name)
	}
	p.collectFiles(m, maps)
	if full {
		p.types.collectModule(m, maps)
	}

	p.f("module %q", m.Name)
	if m.License != "" {
		p.f(" license %q", m.License)
	}
	p.b.WriteByte('\n')
	for i, f := range p.fileList {
		p.f("\nfile %d %q\n", i, f.Name)
		if !full {
			continue
		}
		for line := range strings.SplitSeq(f.Text, "\n") {
			p.b.WriteString("|" + line + "\n")
		}
	}
	if len(p.types.decls) > 0 {
		p.b.WriteByte('\n')
	}
	for _, t := range p.types.decls {
		p.f("type $%s = ", p.types.names.label(typeKey(t), t.TypeName()))
		p.types.body(&p.b, t)
		p.b.WriteByte('\n')
	}
	if len(maps) > 0 {
		p.b.WriteByte('\n')
	}
	for i, mp := range maps {
		p.mapDecl(mp, i >= len(m.Maps))
	}
	if len(m.Globals) > 0 {
		p.b.WriteByte('\n')
	}
	for _, g := range m.Globals {
		p.global(g)
	}
	if len(m.Externs) > 0 {
		p.b.WriteByte('\n')
	}
	for _, e := range m.Externs {
		p.extern(e)
	}
	for _, f := range m.Funcs {
		p.b.WriteByte('\n')
		p.fn(f)
	}
}

func (p *printer) collectFiles(m *Module, maps []*Map) {
	for _, mp := range maps {
		p.file(mp.Pos)
	}
	for _, g := range m.Globals {
		p.file(g.Pos)
	}
	for _, f := range m.Funcs {
		p.file(f.Pos)
		for _, b := range f.Blocks {
			p.file(b.Pos)
			for _, v := range b.Params {
				p.file(v.Pos)
			}
			for _, v := range b.Values {
				p.file(v.Pos)
			}
		}
	}
}

func (p *printer) file(s source.Span) int {
	if s.File == nil {
		return 0
	}
	i, ok := p.files[s.File]
	if !ok {
		i = len(p.fileList)
		p.files[s.File] = i
		p.fileList = append(p.fileList, s.File)
	}
	return i
}

// pos writes a position: !line:column-column, !line:column-line:column, or
// !@offset-offset where lines and columns cannot say it. Files other than the
// first have their number and a slash in front.
func (p *printer) pos(s source.Span) {
	if s.File == nil {
		return
	}
	p.b.WriteString(" !")
	if i := p.file(s); i > 0 {
		p.f("%d/", i)
	}
	start, end := s.File.Position(s.Start), s.File.Position(s.End)
	if p.lines.offset(s.File, start) != s.Start || p.lines.offset(s.File, end) != s.End {
		p.f("@%d-%d", s.Start, s.End)
		return
	}
	p.f("%d:%d", start.Line, start.Column)
	switch {
	case start == end:
	case start.Line == end.Line:
		p.f("-%d", end.Column)
	default:
		p.f("-%d:%d", end.Line, end.Column)
	}
}

func (p *printer) mapDecl(m *Map, hidden bool) {
	p.b.WriteString("map ")
	if hidden {
		// An inner map that is only a template.
		p.b.WriteString("template ")
	}
	p.f("@%s type %d", p.maps.label(m, m.Name), m.Type)
	if m.Key != nil {
		p.b.WriteString(" key ")
		p.types.ref(&p.b, m.Key)
	}
	if m.Value != nil {
		p.b.WriteString(" value ")
		p.types.ref(&p.b, m.Value)
	}
	for _, n := range []struct {
		word string
		n    uint32
	}{{"keysize", m.KeySize}, {"valuesize", m.ValueSize}, {"max", m.MaxEntries}, {"flags", m.Flags}} {
		if n.n != 0 {
			p.f(" %s %d", n.word, n.n)
		}
	}
	if m.Inner != nil {
		p.f(" inner @%s", p.maps.label(m.Inner, m.Inner.Name))
	}
	if m.Pinned {
		p.b.WriteString(" pinned")
	}
	p.pos(m.Pos)
	p.b.WriteByte('\n')
}

func (p *printer) global(g *Global) {
	p.f("global @%s section %q", p.globals.label(g, g.Name), g.Section)
	if g.Type != nil {
		p.b.WriteString(" type ")
		p.types.ref(&p.b, g.Type)
	}
	if len(g.Init) > 0 {
		p.f(" init %q", hex.EncodeToString(g.Init))
	}
	if g.Volatile {
		p.b.WriteString(" volatile")
	}
	p.pos(g.Pos)
	p.b.WriteByte('\n')
}

func (p *printer) extern(e *Extern) {
	p.f("extern %s @%s", e.Kind, p.externs.label(e, e.Name))
	if e.ID != 0 {
		p.f(" id %d", e.ID)
	}
	if e.Params != nil {
		p.b.WriteString(" (")
		for i, t := range e.Params {
			if i > 0 {
				p.b.WriteString(", ")
			}
			p.b.WriteString(t.String())
		}
		p.b.WriteByte(')')
	}
	if e.Result != (Type{}) {
		p.f(" -> %s", e.Result)
	}
	if e.Type != nil {
		p.b.WriteString(" type ")
		p.types.ref(&p.b, e.Type)
	}
	if e.Weak {
		p.b.WriteString(" weak")
	}
	if e.Effect.Reads != 0 {
		p.f(" reads(%s)", e.Effect.Reads)
	}
	if e.Effect.Writes != 0 {
		p.f(" writes(%s)", e.Effect.Writes)
	}
	if e.Effect.Volatile {
		p.b.WriteString(" volatile")
	}
	if e.Effect.Fills {
		p.b.WriteString(" fills")
	}
	if e.Effect.Finds {
		p.b.WriteString(" finds")
	}
	p.b.WriteByte('\n')
}

// String returns the names of the spaces, separated by spaces.
func (set SpaceSet) String() string {
	var names []string
	for s := SpaceNone; s < 16; s++ {
		if set.Has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, " ")
}

func (p *printer) fn(f *Func) {
	p.f("func %s @%s", f.Linkage, p.funcs.label(f, f.Name))
	if f.Result != (Type{}) {
		p.f(" -> %s", f.Result)
	}
	if f.Section != "" {
		p.f(" section %q", f.Section)
	}
	if f.Proto != nil {
		p.b.WriteString(" proto ")
		p.types.ref(&p.b, f.Proto)
	}
	p.pos(f.Pos)
	p.b.WriteString(" {\n")
	for _, b := range f.Blocks {
		p.block(b)
	}
	p.b.WriteString("}\n")
}

func (p *printer) block(b *Block) {
	p.b.WriteString(b.Label())
	if len(b.Params) > 0 {
		p.b.WriteByte('(')
		for i, v := range b.Params {
			if i > 0 {
				p.b.WriteString(", ")
			}
			p.f("%s: %s", v.Label(), v.Type)
			p.pos(v.Pos)
		}
		p.b.WriteByte(')')
	}
	p.b.WriteString(":\n")
	for _, v := range b.Values {
		p.b.WriteString("  ")
		p.value(v)
		p.b.WriteByte('\n')
	}
	p.term(b)
}

func (p *printer) term(b *Block) {
	switch b.Term {
	case TermNone:
		p.b.WriteString("  ; the block is not finished\n")
		return
	case TermJump:
		p.b.WriteString("  jump")
	case TermIf:
		p.b.WriteString("  if " + b.Cond.Label())
	case TermReturn:
		p.b.WriteString("  return")
		if b.Cond != nil {
			p.b.WriteString(" " + b.Cond.Label())
		}
	default:
		p.b.WriteString("  unreachable")
	}
	for i, e := range b.Succs {
		if b.Term == TermIf {
			p.b.WriteString([]string{" then", " else"}[i&1])
		}
		p.b.WriteString(" " + e.To.Label())
		if len(e.Args) > 0 {
			p.b.WriteByte('(')
			p.args(e.Args)
			p.b.WriteByte(')')
		}
	}
	switch b.Likely {
	case Then:
		p.b.WriteString(" likely then")
	case Else:
		p.b.WriteString(" likely else")
	}
	p.pos(b.Pos)
	p.b.WriteByte('\n')
}

func (p *printer) args(args []*Value) {
	for i, a := range args {
		if i > 0 {
			p.b.WriteString(", ")
		}
		p.b.WriteString(a.Label())
	}
}

func (p *printer) value(v *Value) {
	if v.Type == (Type{}) {
		p.f("%s.%s", v.Op, idLabel(v.Name, v.ID))
	} else {
		p.f("%s: %s = %s", v.Label(), v.Type, v.Op)
	}
	comment := ""
	switch v.Op {
	case OpConst:
		p.f(" %d", v.Int)
	case OpAlloca, OpMemCopy, OpMemZero:
		p.f(" %d", v.Int)
	case OpLoad, OpStore:
		switch v.Int {
		case 0:
		case VolatileAccess:
			p.b.WriteString(" volatile")
		default:
			p.f(" %d", v.Int)
		}
	case OpAtomic:
		if a := AtomicOp(v.Int); a >= 0 && int(a) < len(atomicNames) {
			p.f(" %s", a)
		} else {
			p.f(" %d", v.Int)
		}
	}
	switch aux := v.Aux.(type) {
	case *Global:
		p.f(" @%s", p.globals.label(aux, aux.Name))
	case *Map:
		p.f(" @%s", p.maps.label(aux, aux.Name))
	case *Func:
		p.f(" @%s", p.funcs.label(aux, aux.Name))
	case *Extern:
		if v.Op == OpCall {
			p.f(" %s", aux.Kind)
		}
		p.f(" @%s", p.externs.label(aux, aux.Name))
	case *CoreRef:
		p.f(" %s ", aux.Kind)
		p.types.ref(&p.b, aux.Type)
		p.path(aux.Path)
		p.f(" = %d", aux.Local)
		comment = PathString(aux.Type, aux.Path)
	case btf.Type:
		p.b.WriteByte(' ')
		p.types.ref(&p.b, aux)
	}
	if v.Op == OpCall {
		p.b.WriteByte('(')
		p.args(v.Args)
		p.b.WriteByte(')')
	} else if len(v.Args) > 0 {
		p.b.WriteByte(' ')
		p.args(v.Args)
	}
	if ref, ok := v.Aux.(*FieldRef); ok {
		p.b.WriteString(", ")
		p.types.ref(&p.b, ref.Struct)
		p.path(ref.Path)
		p.f(" +%d", ref.Offset)
		if ref.Relocate {
			p.b.WriteString(" reloc")
		}
		comment = PathString(ref.Struct, ref.Path)
	}
	p.pos(v.Pos)
	if comment != "" {
		p.b.WriteString(" ; " + strings.ReplaceAll(comment, "\n", " "))
	}
}

func (p *printer) path(path []int) {
	p.b.WriteString(" [")
	for i, n := range path {
		if i > 0 {
			p.b.WriteByte(' ')
		}
		p.b.WriteString(strconv.Itoa(n))
	}
	p.b.WriteByte(']')
}
