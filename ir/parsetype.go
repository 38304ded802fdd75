package ir

import (
	"strconv"

	"github.com/cilium/ebpf/btf"
)

// emptyType makes the type whose description follows, to be filled in later,
// so that types can speak of each other in any order.
func (p *parser) emptyType(name string) btf.Type {
	t := p.peek()
	if t.kind == tokPunct {
		switch t.sigil {
		case '*':
			return &btf.Pointer{}
		case '[':
			return &btf.Array{}
		}
	}
	if t.kind == tokWord {
		switch t.text {
		case "int":
			return &btf.Int{Name: name}
		case "float":
			return &btf.Float{Name: name}
		case "fwd":
			return &btf.Fwd{Name: name}
		case "const":
			return &btf.Const{}
		case "volatile":
			return &btf.Volatile{}
		case "restrict":
			return &btf.Restrict{}
		case "tag":
			return &btf.TypeTag{}
		case "typedef":
			return &btf.Typedef{Name: name}
		case "struct":
			return &btf.Struct{Name: name}
		case "union":
			return &btf.Union{Name: name}
		case "enum":
			return &btf.Enum{Name: name}
		case "func":
			return &btf.FuncProto{}
		case "function":
			return &btf.Func{Name: name}
		case "var":
			return &btf.Var{Name: name}
		}
	}
	p.fail(t, "expected a description of a type, found %s", t.describe())
	return nil
}

// maxTypeDepth bounds how deep types may be written within each other.
const maxTypeDepth = 1000

// btfType reads a type as it is spoken of: by name, or described in place.
func (p *parser) btfType() btf.Type {
	t := p.peek()
	if t.kind == tokLabel && t.sigil == '$' {
		p.pos++
		typ := p.types[t.text]
		if typ == nil {
			p.fail(t, "there is no type $%s", t.text)
		}
		return typ
	}
	if p.acceptWord("void") {
		return (*btf.Void)(nil)
	}
	if p.acceptWord("nil") {
		return nil
	}
	if p.depth++; p.depth > maxTypeDepth {
		p.fail(t, "types are nested too deeply; give some a name")
	}
	typ := p.emptyType("")
	p.fillType(typ)
	p.depth--
	return typ
}

// fillType reads the description of a type into what emptyType made of it.
func (p *parser) fillType(typ btf.Type) {
	p.next() // the keyword, * or [
	switch typ := typ.(type) {
	case *btf.Int:
		typ.Size = p.uint32()
		switch {
		case p.acceptWord("signed"):
			typ.Encoding = btf.Signed
		case p.acceptWord("char"):
			typ.Encoding = btf.Char
		case p.acceptWord("bool"):
			typ.Encoding = btf.Bool
		case p.acceptWord("encoding"):
			typ.Encoding = btf.IntEncoding(p.int64())
		}
	case *btf.Float:
		typ.Size = p.uint32()
	case *btf.Fwd:
		switch t := p.word("struct or union"); t.text {
		case "struct":
		case "union":
			typ.Kind = btf.FwdUnion
		default:
			p.fail(t, "expected struct or union, found %s", t.describe())
		}
	case *btf.Pointer:
		typ.Target = p.btfType()
	case *btf.Array:
		typ.Nelems = p.uint32()
		if !p.accept(']') {
			typ.Index = p.btfType()
			p.expect(']')
		}
		typ.Type = p.btfType()
	case *btf.Const:
		typ.Type = p.btfType()
	case *btf.Volatile:
		typ.Type = p.btfType()
	case *btf.Restrict:
		typ.Type = p.btfType()
	case *btf.TypeTag:
		typ.Value = p.str()
		typ.Type = p.btfType()
	case *btf.Typedef:
		typ.Tags = p.tags()
		typ.Type = p.btfType()
	case *btf.Struct:
		typ.Size = p.uint32()
		typ.Tags = p.tags()
		typ.Members = p.members()
	case *btf.Union:
		typ.Size = p.uint32()
		typ.Tags = p.tags()
		typ.Members = p.members()
	case *btf.Enum:
		typ.Size = p.uint32()
		typ.Signed = p.acceptWord("signed")
		p.open('{')
		for !p.close('}', len(typ.Values)) {
			name := p.fieldName()
			p.expect('=')
			typ.Values = append(typ.Values, btf.EnumValue{Name: name, Value: uint64(p.int64())})
		}
	case *btf.FuncProto:
		p.open('(')
		for !p.close(')', len(typ.Params)) {
			name := p.fieldName()
			p.expect(':')
			typ.Params = append(typ.Params, btf.FuncParam{Name: name, Type: p.btfType()})
		}
		typ.Return = p.btfType()
	case *btf.Func:
		typ.Linkage = btf.FuncLinkage(p.uint32())
		typ.Tags = p.tags()
		if p.acceptWord("params") {
			typ.ParamTags = [][]string{}
			p.expect('(')
			for !p.accept(')') {
				if len(typ.ParamTags) > 0 {
					p.expect(',')
				}
				typ.ParamTags = append(typ.ParamTags, p.tags())
				if !p.isPunct(',') && !p.isPunct(')') {
					p.fail(p.peek(), "expected tags(...), a comma or a closing parenthesis, found %s", p.peek().describe())
				}
			}
		}
		typ.Type = p.btfType()
	case *btf.Var:
		typ.Linkage = btf.VarLinkage(p.uint32())
		typ.Tags = p.tags()
		typ.Type = p.btfType()
	}
}

// open and close read the brackets of a list that may span lines.
func (p *parser) open(c byte) {
	p.expect(c)
	p.skipLines()
}

func (p *parser) close(c byte, n int) bool {
	p.skipLines()
	if p.accept(c) {
		return true
	}
	if n > 0 {
		p.expect(',')
		p.skipLines()
		// A comma may stand behind the last one.
		return p.accept(c)
	}
	return false
}

func (p *parser) fieldName() string {
	t := p.next()
	if t.kind != tokWord && t.kind != tokString {
		p.fail(t, "expected a name, found %s", t.describe())
	}
	return t.text
}

func (p *parser) tags() []string {
	if !p.acceptWord("tags") {
		return nil
	}
	var list []string
	p.expect('(')
	for !p.accept(')') {
		if len(list) > 0 {
			p.expect(',')
		}
		list = append(list, p.str())
	}
	return list
}

func (p *parser) members() []btf.Member {
	var list []btf.Member
	p.open('{')
	for !p.close('}', len(list)) {
		m := btf.Member{Name: p.fieldName()}
		p.expect(':')
		m.Type = p.btfType()
		p.expect('@')
		t := p.peek()
		bits := uint64(p.uint32()) * 8
		if p.accept('.') {
			bits += uint64(p.uint32())
		}
		if bits != uint64(uint32(bits)) {
			p.fail(t, "%s bytes are too far for a member", strconv.Quote(t.text))
		}
		m.Offset = btf.Bits(bits)
		if p.accept(':') {
			m.BitfieldSize = btf.Bits(p.uint32())
		}
		m.Tags = p.tags()
		list = append(list, m)
	}
	return list
}
