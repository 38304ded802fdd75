package target

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target/typeindex"
)

// maxRecord is how large a record of a tracepoint can be: the trace buffers
// keep it in a page, of 64 KiB at most.
const maxRecord = 1 << 16

// ParseFormat reads the format file of an event (kernel/trace/trace_events.c,
// f_show).
func ParseFormat(subsystem string, raw []byte) (*Format, error) {
	f := &Format{Subsystem: subsystem}
	bad := func(line, why string) (*Format, error) {
		if len(line) > 200 {
			line = line[:200] + "..."
		}
		return nil, fmt.Errorf("the format of tracepoint %s:%s has a line that cannot be read (%s): %q", subsystem, f.Name, why, line)
	}
	text := string(raw)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == "" || trimmed == "format:":
		case strings.HasPrefix(line, "name: "):
			f.Name = line[len("name: "):]
		case strings.HasPrefix(line, "ID: "):
			id, err := strconv.ParseUint(line[len("ID: "):], 10, 32)
			if err != nil {
				return bad(line, "its ID is no number")
			}
			f.ID = uint32(id)
		case strings.HasPrefix(line, "print fmt:"):
			// The text may itself hold line ends.
			_, rest, _ := strings.Cut(text, "\nprint fmt:")
			if rest == "" {
				rest = line[len("print fmt:"):]
			}
			f.Print = strings.TrimSpace(rest)
			return f.checked()
		case strings.HasPrefix(trimmed, "field:"):
			field, why := parseField(trimmed[len("field:"):])
			if why != "" {
				return bad(line, why)
			}
			f.Fields = append(f.Fields, field)
		default:
			return bad(line, "it is none of name, ID, field and print fmt")
		}
	}
	return f.checked()
}

func (f *Format) checked() (*Format, error) {
	if f.Name == "" {
		return nil, fmt.Errorf("a format of subsystem %s has no name", f.Subsystem)
	}
	return f, nil
}

// parseField reads "int common_pid;\toffset:4;\tsize:4;\tsigned:1;".
func parseField(line string) (f Field, why string) {
	decl, attrs, ok := strings.Cut(line, ";")
	if !ok {
		return f, "it has no semicolon"
	}
	seen := 0
	for attr := range strings.SplitSeq(attrs, ";") {
		key, value, ok := strings.Cut(strings.TrimSpace(attr), ":")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return f, key + " is no number"
		}
		switch key {
		case "offset":
			f.Offset, seen = n, seen|1
		case "size":
			f.Size, seen = n, seen|2
		case "signed":
			f.Signed = n != 0
		}
	}
	if seen != 3 {
		return f, "it has no offset or no size"
	}
	if f.Offset < 0 || f.Size < 0 || f.Offset > maxRecord || f.Size > maxRecord {
		return f, "its place is out of bounds"
	}
	why = f.parseDecl(strings.TrimSpace(decl))
	f.Common = strings.HasPrefix(f.Name, "common_")
	return f, why
}

func (f *Field) parseDecl(decl string) (why string) {
	loc := false
	if rest, ok := strings.CutPrefix(decl, "__data_loc "); ok {
		decl, f.Kind, loc = rest, FieldDataLoc, true
	} else if rest, ok := strings.CutPrefix(decl, "__rel_loc "); ok {
		decl, f.Kind, loc = rest, FieldRelLoc, true
	}
	if loc && f.Size != 4 {
		return "its __data_loc is not 4 bytes"
	}
	// The kernel glues type and name: "char comm[16]", "__data_loc char[] msg".
	length, array := "", false
	if strings.HasSuffix(decl, "]") {
		open := strings.LastIndexByte(decl, '[')
		if open < 0 {
			return "it has half a bracket"
		}
		length, array = decl[open+1:len(decl)-1], true
		decl = strings.TrimSpace(decl[:open])
	}
	at := strings.LastIndexAny(decl, " *]\t") + 1
	f.Name, f.CType = decl[at:], strings.TrimSpace(decl[:at])
	if f.Name == "" || f.CType == "" {
		return "it has no name or no type"
	}
	if open := strings.LastIndexByte(f.CType, '['); open >= 0 && strings.HasSuffix(f.CType, "]") {
		length, array = f.CType[open+1:len(f.CType)-1], true
		f.CType = strings.TrimSpace(f.CType[:open])
		if f.CType == "" {
			return "it has no type"
		}
	}
	if loc {
		f.Dynamic = array
		return ""
	}
	switch {
	case array:
		f.Kind = FieldArray
		if f.CType == "char" {
			f.Kind = FieldString
		}
		// Lengths may be names of constants: then the size decides.
		if n, err := strconv.ParseUint(strings.TrimSpace(length), 0, 31); err == nil {
			f.Len = int(n)
		} else if size := scalarSize(f.CType); size > 0 {
			f.Len = f.Size / size
		}
	case strings.HasSuffix(f.CType, "*") || strings.HasSuffix(f.CType, "*const"):
		f.Kind = FieldPointer
	case strings.HasPrefix(f.CType, "struct ") || strings.HasPrefix(f.CType, "union "):
		f.Kind = FieldStruct
	}
	return ""
}

func declare(f Field) string {
	switch {
	case f.Kind == FieldDataLoc || f.Kind == FieldRelLoc:
		word := "__data_loc"
		if f.Kind == FieldRelLoc {
			word = "__rel_loc"
		}
		if f.Dynamic {
			return word + " " + f.CType + "[] " + f.Name
		}
		return word + " " + f.CType + " " + f.Name
	case f.Kind == FieldArray || f.Kind == FieldString:
		if f.Len == 0 {
			return f.CType + " " + f.Name + "[]"
		}
		return fmt.Sprintf("%s %s[%d]", f.CType, f.Name, f.Len)
	case strings.HasSuffix(f.CType, "*"):
		return f.CType + f.Name
	}
	return f.CType + " " + f.Name
}

func fieldType(t Target, f Field) (btf.Type, error) {
	types, err := t.Types()
	if err != nil {
		types = nil
	}
	elem, err := ParseCType(types, f.CType)
	known := err == nil
	plain := &btf.Int{Name: f.CType, Size: uint32(f.Size)}
	if f.Signed {
		plain.Encoding = btf.Signed
	}
	switch f.Kind {
	case FieldDataLoc, FieldRelLoc:
		if !known {
			elem = &btf.Int{Name: "u8", Size: 1}
		}
		if f.Dynamic {
			return &btf.Array{Index: arrayIndex, Type: elem}, nil
		}
		return elem, nil
	case FieldArray, FieldString:
		if !known {
			n := max(f.Len, 1)
			elem = &btf.Int{Name: f.CType, Size: uint32(f.Size / n), Encoding: plain.Encoding}
			return &btf.Array{Index: arrayIndex, Type: elem, Nelems: uint32(n)}, nil
		}
		n := f.Len
		if size, err := btf.Sizeof(elem); n == 0 && err == nil && size > 0 {
			n = f.Size / size
		}
		return &btf.Array{Index: arrayIndex, Type: elem, Nelems: uint32(n)}, nil
	case FieldPointer:
		if !known {
			return &btf.Pointer{Target: (*btf.Void)(nil)}, nil
		}
		return elem, nil
	}
	if !known {
		return plain, nil
	}
	// Arguments of system calls stand in words of 8 bytes whatever their type
	// is; the type still tells sign and meaning.
	return elem, nil
}

var arrayIndex = &btf.Int{Name: "__ARRAY_SIZE_TYPE__", Size: 4}

// cScalars are the integer types that C spells with keywords, by their words
// sorted as specifiers are counted in ParseCType.
var cScalars = map[string]*btf.Int{
	"char":               {Name: "char", Size: 1, Encoding: btf.Signed},
	"signed char":        {Name: "signed char", Size: 1, Encoding: btf.Signed},
	"unsigned char":      {Name: "unsigned char", Size: 1},
	"short":              {Name: "short int", Size: 2, Encoding: btf.Signed},
	"unsigned short":     {Name: "short unsigned int", Size: 2},
	"int":                {Name: "int", Size: 4, Encoding: btf.Signed},
	"unsigned int":       {Name: "unsigned int", Size: 4},
	"long":               {Name: "long int", Size: 8, Encoding: btf.Signed},
	"unsigned long":      {Name: "long unsigned int", Size: 8},
	"long long":          {Name: "long long int", Size: 8, Encoding: btf.Signed},
	"unsigned long long": {Name: "long long unsigned int", Size: 8},
	"bool":               {Name: "_Bool", Size: 1, Encoding: btf.Bool},
	"__int128":           {Name: "__int128", Size: 16, Encoding: btf.Signed},
	"unsigned __int128":  {Name: "__int128 unsigned", Size: 16},
}

// cTypedefs are integer typedefs that every kernel has, for targets without BTF.
var cTypedefs = map[string]string{
	"u8": "unsigned char", "u16": "unsigned short", "u32": "unsigned int", "u64": "unsigned long long",
	"s8": "signed char", "s16": "short", "s32": "int", "s64": "long long",
	"__u8": "unsigned char", "__u16": "unsigned short", "__u32": "unsigned int", "__u64": "unsigned long long",
	"__s8": "signed char", "__s16": "short", "__s32": "int", "__s64": "long long",
	"uint8_t": "unsigned char", "uint16_t": "unsigned short", "uint32_t": "unsigned int", "uint64_t": "unsigned long long",
	"int8_t": "signed char", "int16_t": "short", "int32_t": "int", "int64_t": "long long",
	"size_t": "unsigned long", "ssize_t": "long", "pid_t": "int", "uid_t": "unsigned int", "gid_t": "unsigned int",
	"loff_t": "long long", "off_t": "long", "dev_t": "unsigned int", "ino_t": "unsigned long", "umode_t": "unsigned short",
	"sector_t": "unsigned long long", "gfp_t": "unsigned int", "uintptr_t": "unsigned long", "ulong": "unsigned long", "uint": "unsigned int",
}

// scalarSize is the size of a type whose name alone tells it, or 0.
func scalarSize(ctype string) int {
	if typ, err := ParseCType(nil, ctype); err == nil {
		if n, err := btf.Sizeof(typ); err == nil {
			return n
		}
	}
	return 0
}

// ParseCType reads a C type name without parentheses: specifiers, qualifiers,
// stars and array bounds, such as "const struct file *const" or "u8[16]".
// Names are looked up in types, which may be nil; then only the integer types
// that all kernels share are known, and structs behind pointers stay forward
// declarations. Qualifiers are dropped, but for those that BTF types carry.
func ParseCType(types *typeindex.Types, text string) (btf.Type, error) {
	if len(text) > 4096 {
		return nil, fmt.Errorf("a C type of %d characters is too long", len(text))
	}
	unknown := func(why string) (btf.Type, error) {
		return nil, fmt.Errorf("the C type %q cannot be read: %s", text, why)
	}
	words, stars, bounds, why := lexCType(text)
	if why != "" {
		return unknown(why)
	}
	keyword, name := "", ""
	counts := make(map[string]int)
	for _, w := range words {
		switch w {
		case "const", "volatile", "restrict", "__user", "__kernel", "__rcu", "__iomem", "__percpu", "__seg_gs", "__seg_fs", "__force":
		case "struct", "union", "enum":
			if keyword != "" {
				return unknown("it has two of struct, union and enum")
			}
			keyword = w
		case "unsigned", "signed", "char", "short", "int", "long", "_Bool", "bool", "void", "__int128":
			if keyword != "" {
				return unknown("it mixes " + keyword + " and " + w)
			}
			counts[w]++
		default:
			if name != "" {
				return unknown("it has two names")
			}
			name = w
		}
	}
	if len(counts) > 0 && name != "" {
		return unknown("it has two names")
	}
	if keyword != "" && name == "" {
		return unknown(keyword + " has no name")
	}
	var typ btf.Type
	switch {
	case keyword == "enum":
		if types == nil {
			typ = cScalars["unsigned int"]
			break
		}
		e, err := types.Enum(name)
		if err != nil {
			return nil, err
		}
		typ = e
	case keyword != "":
		kind, fwd := typeindex.KindStruct, btf.FwdStruct
		if keyword == "union" {
			kind, fwd = typeindex.KindUnion, btf.FwdUnion
		}
		if stars > 0 {
			// Types.Resolve completes it by name when somebody looks inside.
			typ = &btf.Fwd{Name: name, Kind: fwd}
			break
		}
		if types == nil {
			return unknown("there is no type information to look it up in")
		}
		s, err := types.Find(kind, name)
		if err != nil {
			return nil, err
		}
		typ = s
	case name != "":
		if types != nil {
			t, err := types.Named(name)
			if err == nil {
				typ = t
				break
			}
		}
		if base, ok := cTypedefs[name]; ok {
			typ = &btf.Typedef{Name: name, Type: cScalars[base]}
			break
		}
		if stars == 0 {
			return unknown("it is not known")
		}
		typ = (*btf.Void)(nil)
	case counts["void"] > 0:
		if len(counts) > 1 || counts["void"] > 1 {
			return unknown("void stands alone")
		}
		typ = (*btf.Void)(nil)
	default:
		scalar, ok := cScalars[scalarName(counts)]
		if !ok {
			return unknown("it is not known")
		}
		typ = scalar
	}
	for range stars {
		typ = &btf.Pointer{Target: typ}
	}
	for i := len(bounds) - 1; i >= 0; i-- {
		typ = &btf.Array{Index: arrayIndex, Type: typ, Nelems: bounds[i]}
	}
	return typ, nil
}

// scalarName is the key of cScalars for a multiset of specifiers, or "" for
// those that C does not allow together.
func scalarName(counts map[string]int) string {
	for w, n := range counts {
		if n > 1 && (w != "long" || n > 2) {
			return ""
		}
	}
	if counts["unsigned"] > 0 && counts["signed"] > 0 {
		return ""
	}
	base, bases := "int", 0
	for w, canonical := range map[string]string{"char": "char", "short": "short", "_Bool": "bool", "bool": "bool", "__int128": "__int128", "long": "long"} {
		if counts[w] > 0 {
			base, bases = canonical, bases+1
		}
	}
	if counts["long"] == 2 {
		base = "long long"
	}
	withInt := base == "short" || base == "long" || base == "long long"
	if bases > 1 || counts["int"] > 0 && bases == 1 && !withInt || len(counts) == 0 {
		return ""
	}
	switch {
	case counts["unsigned"] > 0:
		return "unsigned " + base
	case counts["signed"] > 0 && base == "char":
		return "signed char"
	}
	return base
}

func lexCType(text string) (words []string, stars int, bounds []uint32, why string) {
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\t':
			i++
		case c == '*':
			if len(bounds) > 0 {
				return nil, 0, nil, "a star follows an array bound"
			}
			if stars++; stars > 16 {
				return nil, 0, nil, "it has too many stars"
			}
			i++
		case c == '[':
			end := strings.IndexByte(text[i:], ']')
			if end < 0 {
				return nil, 0, nil, "a bracket is not closed"
			}
			inner := strings.TrimSpace(text[i+1 : i+end])
			n := uint64(0)
			if inner != "" {
				var err error
				if n, err = strconv.ParseUint(inner, 0, 31); err != nil {
					return nil, 0, nil, "an array bound is no number"
				}
			}
			if len(bounds) == 8 {
				return nil, 0, nil, "it has too many dimensions"
			}
			bounds = append(bounds, uint32(n))
			i += end + 1
		case isWordByte(c):
			if len(bounds) > 0 {
				return nil, 0, nil, "a word follows an array bound"
			}
			start := i
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
			w := text[start:i]
			if stars > 0 && w != "const" && w != "volatile" && w != "restrict" && !strings.HasPrefix(w, "__") {
				return nil, 0, nil, "a word follows a star"
			}
			words = append(words, w)
		default:
			return nil, 0, nil, fmt.Sprintf("it has the character %q", c)
		}
	}
	return words, stars, bounds, ""
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
