package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
)

// debugVariants are ways to write debug information.
var debugVariants = map[string][]string{
	"gcc-5":         {"gcc", "types.c", "-gdwarf-5", "-O1"},
	"gcc-4":         {"gcc", "types.c", "-gdwarf-4", "-O1"},
	"gcc-3":         {"gcc", "types.c", "-gdwarf-3", "-gstrict-dwarf", "-O1"},
	"gcc-2":         {"gcc", "types.c", "-gdwarf-2", "-gstrict-dwarf", "-O0"},
	"gcc-64":        {"gcc", "types.c", "-gdwarf-5", "-gdwarf64", "-O1"},
	"gcc-types":     {"gcc", "types.c", "-g", "-fdebug-types-section"},
	"gcc-packed":    {"gcc", "types.c", "-g", "-gz=zlib", "-O1"},
	"clang-5":       {"clang", "types.c", "-gdwarf-5", "-O1"},
	"clang-4":       {"clang", "types.c", "-gdwarf-4", "-O1"},
	"gcc-5-inlined": {"gcc", "types.c", "-g", "-O3", "-flto"},
}

func TestTypes(t *testing.T) {
	for name, v := range debugVariants {
		t.Run(name, func(t *testing.T) {
			file := compile(t, v[0], v[1], append(slices.Clone(v[2:]), "-fsigned-char")...)
			d, err := open(t, file).DebugInfo()
			if err != nil {
				t.Fatal(err)
			}
			typ, err := d.Type("struct node")
			if err != nil {
				t.Fatal(err)
			}
			node, ok := typ.(*btf.Struct)
			if !ok {
				t.Fatalf("struct node is %v", typ)
			}
			members := map[string]btf.Member{}
			for _, m := range node.Members {
				members[m.Name] = m
				if anon, ok := m.Type.(*btf.Struct); ok && m.Name == "" {
					for _, in := range anon.Members {
						in.Offset += m.Offset
						members[in.Name] = in
					}
				}
			}
			// The program prints what its compiler thinks.
			for line := range strings.Lines(output(t, file)) {
				field, num, _ := strings.Cut(strings.TrimSpace(line), " ")
				n, err := strconv.ParseUint(num, 10, 32)
				if err != nil {
					break
				}
				if field == "size" {
					if uint64(node.Size) != n {
						t.Errorf("size %d, want %d", node.Size, n)
					}
				} else if m, ok := members[field]; !ok || uint64(m.Offset) != n*8 {
					t.Errorf("%s at bit %d, want %d", field, m.Offset, n*8)
				}
			}
			for field, want := range map[string]string{
				"next":  "*struct node",
				"flags": "const volatile byte_t=uint8",
				"color": "enum color 4 signed",
				"in":    "struct inner", "n": "union number", "ok": "bool1", "ld": "float16",
				"call": "*func(*struct node, *const int8) int32", "opaque": "*void",
				"hidden": "*fwd hidden", "tail": "[0]int32",
				"a": "uint32", "wide": "int32", "far": "uint64_t=__uint64_t=uint64",
			} {
				if got := describe(members[field].Type); got != want {
					t.Errorf("%s is %q, want %q", field, got, want)
				}
			}
			// 3 + 7 bits behind flags, which is at byte 8; x86 and arm agree.
			for field, want := range map[string][2]btf.Bits{"a": {72, 3}, "b": {75, 7}, "wide": {96, 20}, "far": {128, 33}} {
				if m := members[field]; m.Offset != want[0] || m.BitfieldSize != want[1] {
					t.Errorf("%s has %d bits at %d, want %d at %d", field, m.BitfieldSize, m.Offset, want[1], want[0])
				}
			}
			inner, _ := d.Type("struct inner")
			if s, ok := inner.(*btf.Struct); !ok || describe(s.Members[1].Type) != "[3][4]int16" {
				t.Errorf("struct inner is %v", inner)
			}
			e, _ := d.Type("enum color")
			if e, ok := e.(*btf.Enum); !ok || len(e.Values) != 3 || e.Values[1].Value != 5 || int64(e.Values[2].Value) != -3 {
				t.Errorf("enum color is %+v", e)
			}
			if s, err := d.Type("byte_t"); err != nil || describe(s) != "byte_t=uint8" {
				t.Errorf("byte_t is %v, %v", s, err)
			}
			var missing *NotFoundError
			if s, err := d.Type("struct nothing"); !errors.As(err, &missing) {
				t.Errorf("struct nothing is %v, %v", s, err)
			}
			if s, err := d.Type("struct color"); !errors.As(err, &missing) {
				t.Errorf("struct color is %v, %v", s, err)
			}

			fn, err := d.Function("static_sum")
			if err != nil {
				t.Fatal(err)
			}
			proto := fn.Type.(*btf.FuncProto)
			if got := describe(proto); got != "func(int32, *struct node, *const int8, float8) int32" {
				t.Errorf("static_sum is %s", got)
			}
			if proto.Params[1].Name != "n" {
				t.Errorf("parameters %v", proto.Params)
			}
			if fn, err := d.Function("inner_static"); err != nil || describe(fn.Type) != "func(byte_t=uint8, enum big 8) int32" && describe(fn.Type) != "func(byte_t=uint8, enum big 8 signed) int32" {
				t.Errorf("inner_static is %v, %v", fn, err)
			}
			if _, err := d.Function("nothing"); !errors.As(err, &missing) {
				t.Errorf("function nothing: %v", err)
			}
		})
	}
}

// describe writes a type so that a test can compare it.
func describe(t btf.Type) string {
	switch t := t.(type) {
	case *btf.Void:
		return "void"
	case *btf.Int:
		switch t.Encoding {
		case btf.Bool:
			return fmt.Sprintf("bool%d", t.Size)
		case btf.Signed:
			return fmt.Sprintf("int%d", t.Size*8)
		}
		return fmt.Sprintf("uint%d", t.Size*8)
	case *btf.Float:
		return fmt.Sprintf("float%d", t.Size)
	case *btf.Pointer:
		return "*" + describe(t.Target)
	case *btf.Const:
		return "const " + describe(t.Type)
	case *btf.Volatile:
		if c, ok := t.Type.(*btf.Const); ok { // compilers differ in the order
			return "const volatile " + describe(c.Type)
		}
		return "volatile " + describe(t.Type)
	case *btf.Typedef:
		return t.Name + "=" + describe(t.Type)
	case *btf.Struct:
		return "struct " + t.Name
	case *btf.Union:
		return "union " + t.Name
	case *btf.Fwd:
		return "fwd " + t.Name
	case *btf.Enum:
		s := fmt.Sprintf("enum %s %d", t.Name, t.Size)
		if t.Signed {
			s += " signed"
		}
		return s
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, describe(t.Type))
	case *btf.FuncProto:
		var params []string
		for _, p := range t.Params {
			params = append(params, describe(p.Type))
		}
		return "func(" + strings.Join(params, ", ") + ") " + describe(t.Return)
	}
	return fmt.Sprintf("%T", t)
}

func TestCPlusPlusTypes(t *testing.T) {
	for _, compiler := range []string{"g++", "clang++"} {
		t.Run(compiler, func(t *testing.T) {
			d, err := open(t, compile(t, compiler, "names.cc", "-g", "-O1")).DebugInfo()
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"outer::inner::Widget", "Widget", "class Widget"} {
				typ, err := d.Type(name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				s, ok := typ.(*btf.Struct)
				// A base class, one member of its own, no static one.
				if !ok || len(s.Members) != 2 || s.Members[1].Name != "own" || s.Members[1].Offset != 128 || s.Size != 24 {
					t.Errorf("%s is %+v", name, typ)
				}
			}
			if typ, err := d.Type("inner::Widget"); err == nil {
				t.Errorf("a scope cut off is found: %v", typ)
			}
			for name, want := range map[string]string{
				"outer::inner::Widget::area": "this w name",
				"_ZN5outer4areaEd":           "d",
				"_ZN5outer4areaEPci":         "p n",
				"main":                       "argc argv",
			} {
				fn, err := d.Function(name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				var names []string
				for _, p := range fn.Type.(*btf.FuncProto).Params {
					names = append(names, p.Name)
				}
				if got := strings.Join(names, " "); got != want {
					t.Errorf("%s has parameters %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestLine(t *testing.T) {
	for name, v := range debugVariants {
		t.Run(name, func(t *testing.T) {
			file := compile(t, v[0], v[1], append(slices.Clone(v[2:]), "-fsigned-char")...)
			b := open(t, file)
			d, err := b.DebugInfo()
			if err != nil {
				t.Fatal(err)
			}
			table, err := b.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			var addrs []string
			for _, fn := range []string{"static_sum", "inner_static"} {
				for _, s := range table.Lookup(fn) {
					for off := uint64(0); off < s.Size; off += 5 {
						addrs = append(addrs, fmt.Sprintf("%#x", s.Addr+off))
					}
				}
			}
			if len(addrs) == 0 {
				t.Fatal("no functions")
			}
			out := output(t, tool(t, "addr2line"), append([]string{"-e", file}, addrs...)...)
			for i, want := range strings.Split(strings.TrimSpace(out), "\n") {
				want, _, _ = strings.Cut(want, " (discriminator")
				if strings.HasSuffix(want, "?") {
					continue // binutils do not read 64-bit DWARF 5 lines
				}
				want = strings.Replace(want, "<artificial>", "types.c", 1)
				addr, _ := strconv.ParseUint(addrs[i], 0, 64)
				name, line, err := d.Line(addr)
				if got := fmt.Sprintf("%s:%d", filepath.Base(name), line); got != filepath.Base(want) || err != nil {
					t.Errorf("%s is at %s, %v; addr2line says %s", addrs[i], got, err, want)
				}
			}
			var missing *NotFoundError
			if _, _, err := d.Line(1); !errors.As(err, &missing) {
				t.Errorf("line of address 1: %v", err)
			}
		})
	}
}

// A C++ library's own debug information, if its package is there, is the large case;
// the Go test binary always is.
func TestGoDebugInfo(t *testing.T) {
	file := compile(t, "go", "hello.go")
	d, err := open(t, file).DebugInfo()
	if err != nil {
		t.Fatal(err)
	}
	typ, err := d.Type("runtime.g")
	if s, ok := typ.(*btf.Struct); err != nil || !ok || len(s.Members) < 10 {
		t.Errorf("runtime.g is %v, %v", typ, err)
	}
	fn, err := d.Function("main.plain")
	if err != nil || len(fn.Type.(*btf.FuncProto).Params) < 1 {
		t.Errorf("main.plain is %v, %v", fn, err)
	}
}

func BenchmarkDebugInfo(b *testing.B) {
	file := compile(b, "go", "hello.go")
	bin, err := OpenBinary(os.DirFS("/"), file)
	if err != nil {
		b.Fatal(err)
	}
	defer bin.Close()
	for _, name := range []string{"struct runtime.g", "struct no_such_thing"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := readDebugInfo(bin)
				if err != nil {
					b.Fatal(err)
				}
				d.Type(name)
			}
		})
	}
}

// withSections is an ELF file that has debug sections and nothing else.
func withSections(sections map[string][]byte) []byte {
	const header, entry = 64, 64
	names := slices.Sorted(maps.Keys(sections))
	strtab := "\x00.shstrtab\x00"
	var body, table []byte
	section := func(name uint32, kind elf.SectionType, data []byte) {
		var s [entry]byte
		binary.LittleEndian.PutUint32(s[0:], name)
		binary.LittleEndian.PutUint32(s[4:], uint32(kind))
		binary.LittleEndian.PutUint64(s[24:], uint64(header+len(body)))
		binary.LittleEndian.PutUint64(s[32:], uint64(len(data)))
		binary.LittleEndian.PutUint64(s[48:], 1)
		table, body = append(table, s[:]...), append(body, data...)
	}
	section(0, elf.SHT_NULL, nil)
	for _, name := range names {
		section(uint32(len(strtab)), elf.SHT_PROGBITS, sections[name])
		strtab += name + "\x00"
	}
	section(1, elf.SHT_STRTAB, []byte(strtab))
	h := make([]byte, header)
	copy(h, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(h[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(h[18:], uint16(elf.EM_X86_64))
	binary.LittleEndian.PutUint32(h[20:], 1)
	binary.LittleEndian.PutUint64(h[40:], uint64(header+len(body)))
	binary.LittleEndian.PutUint16(h[52:], header)
	binary.LittleEndian.PutUint16(h[58:], entry)
	binary.LittleEndian.PutUint16(h[60:], uint16(len(names)+2))
	binary.LittleEndian.PutUint16(h[62:], uint16(len(names)+1))
	return slices.Concat(h, body, table)
}

// FuzzDWARF damages the sections of debug information themselves, which a
// fuzzer of whole files seldom meets.
func FuzzDWARF(f *testing.F) {
	for _, variant := range []string{"gcc-5", "gcc-4", "clang-5"} {
		v := debugVariants[variant]
		data := readOrNil(compile(f, v[0], v[1], append(v[2:len(v):len(v)], "-fPIC", "-shared", "-nostdlib")...))
		file, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			f.Fatal(err)
		}
		section := func(name string) []byte {
			s := file.Section(".debug_" + name)
			if s == nil {
				return nil
			}
			data, err := s.Data()
			if err != nil {
				f.Fatal(err)
			}
			return data
		}
		f.Add(section("info"), section("abbrev"), section("str"), section("line"), section("str_offsets"))
	}
	f.Fuzz(func(t *testing.T, info, abbrev, str, line, offsets []byte) {
		defer time.AfterFunc(10*time.Second, func() { panic("hangs") }).Stop()
		useEverything(bytes.NewReader(withSections(map[string][]byte{
			".debug_info": info, ".debug_abbrev": abbrev, ".debug_str": str, ".debug_line": line, ".debug_line_str": str, ".debug_str_offsets": offsets,
		})))
	})
}
