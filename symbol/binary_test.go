package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// variants are ways to link one C program.
var variants = map[string][]string{
	"pie":    {"-g", "-O1", "-fPIE", "-pie"},
	"no-pie": {"-g", "-O1", "-no-pie"},
	"static": {"-g", "-O1", "-static"},
}

// nmSymbols returns what nm says: name -> addresses, for code and data.
func nmSymbols(t *testing.T, file string, flags ...string) map[string][]uint64 {
	t.Helper()
	out := map[string][]uint64{}
	for line := range strings.Lines(output(t, tool(t, "nm"), append(flags, file)...)) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.Contains("TtWwiDdBbRrVvu", f[1]) {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			t.Fatal(line)
		}
		name, _, _ := strings.Cut(f[2], "@")
		out[name] = append(out[name], addr)
	}
	return out
}

func TestSymbolsAgainstNM(t *testing.T) {
	files := map[string][]string{}
	for name, flags := range variants {
		t.Run(name, func(t *testing.T) {
			files[compile(t, "gcc", "types.c", flags...)] = nil
		})
	}
	if p, err := FindLibrary(os.DirFS("/"), "libc", elf.EM_NONE); err == nil {
		files[p] = []string{"-D"}
	}
	if len(files) == 0 {
		t.Skip("neither a compiler nor a libc to look at")
	}
	for file, flags := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b := open(t, file)
			table, err := b.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			compared := 0
			for name, addrs := range nmSymbols(t, file, flags...) {
				got := table.Lookup(name)
				for _, addr := range addrs {
					i := slices.IndexFunc(got, func(s Symbol) bool { return s.Addr == addr && s.Name == name })
					if i >= 0 {
						compared++
						continue
					}
					// nm also lists what has no type and is no code.
					if addr != 0 && b.IsExecutable(addr) && !strings.Contains(name, ".") {
						t.Errorf("%s at %#x is missing, have %v", name, addr, got)
					}
				}
				for _, s := range got {
					if !s.IsCode() || s.Size == 0 {
						continue
					}
					hit, off, ok := table.Resolve(s.Addr + s.Size - 1)
					if !ok || hit.Addr+off != s.Addr+s.Size-1 {
						t.Errorf("Resolve(end of %s) = %v+%d, %v", name, hit, off, ok)
					}
					if !slices.ContainsFunc(table.Aliases(s.Addr), func(a Symbol) bool { return a.Name == name }) {
						t.Errorf("%s is not among its own aliases", name)
					}
				}
			}
			if compared < 20 {
				t.Errorf("only %d symbols compared", compared)
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	b := open(t, compile(t, "gcc", "types.c", variants["pie"]...))
	places, err := b.Functions("*static*", false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range places {
		names = append(names, p.Symbol.Name)
		if addr, ok := b.Addr(p.Offset); !ok || addr != p.Symbol.Addr {
			t.Errorf("%s: offset %#x is address %#x, %v; want %#x", p.Symbol.Name, p.Offset, addr, ok, p.Symbol.Addr)
		}
		if !b.IsExecutable(p.Symbol.Addr) {
			t.Errorf("%s is not executable", p.Symbol.Name)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"inner_static", "static_sum"}) {
		t.Errorf("functions *static*: %q", names)
	}
	alias, err := b.Functions("alias_of_sum", false)
	sum, err2 := b.Functions("static_sum", false)
	if err != nil || err2 != nil || alias[0].Offset != sum[0].Offset || alias[0].Symbol.Name != "alias_of_sum" {
		t.Errorf("alias: %v %v, %v %v", alias, sum, err, err2)
	}
	if moved, err := sum[0].At(4); err != nil || moved.Offset != sum[0].Offset+4 {
		t.Errorf("At(4) = %v, %v", moved, err)
	}
	if _, err := sum[0].At(1 << 20); err == nil {
		t.Error("an offset far outside the function is accepted")
	}
	var missing *NotFoundError
	if _, err := b.Functions("nothing_like_this", false); !errors.As(err, &missing) || missing.Name != "nothing_like_this" {
		t.Errorf("missing function: %v", err)
	}
	// Data carries no uprobe.
	if _, err := b.Functions("global_counter", false); !errors.As(err, &missing) {
		t.Errorf("data as a function: %v", err)
	}
	// The bytes at the offset are those at the address.
	data, err := os.ReadFile(compile(t, "gcc", "types.c", variants["pie"]...))
	if err != nil {
		t.Fatal(err)
	}
	dump := output(t, tool(t, "readelf"), "-x", ".text", compile(t, "gcc", "types.c", variants["pie"]...))
	text := b.f.Section(".text")
	off, _ := b.FileOffset(text.Addr)
	if !strings.Contains(dump, fmt.Sprintf("%x", data[off:off+4])) {
		t.Errorf("bytes at the start of .text are %x, readelf says %.200s", data[off:off+4], dump)
	}
}

func TestSplitOffset(t *testing.T) {
	for in, want := range map[string]struct {
		name string
		off  uint64
	}{
		"f": {"f", 0}, "f+4": {"f", 4}, "f+0x10": {"f", 16}, "operator+": {"operator+", 0},
		"operator++": {"operator++", 0}, "operator++1": {"operator+", 1}, "+4": {"+4", 0}, "a+b": {"a+b", 0},
	} {
		if name, off := SplitOffset(in); name != want.name || off != want.off {
			t.Errorf("SplitOffset(%q) = %q, %d", in, name, off)
		}
	}
}

func TestStripped(t *testing.T) {
	src := compile(t, "gcc", "types.c", variants["pie"]...)
	full := open(t, src)
	if full.BuildID() == "" {
		t.Fatal("no build-id")
	}
	if notes := output(t, tool(t, "readelf"), "-n", src); !strings.Contains(notes, full.BuildID()) {
		t.Errorf("build-id %s, readelf says %s", full.BuildID(), notes)
	}
	dir := t.TempDir()
	objcopy := tool(t, "objcopy")
	stripped := filepath.Join(dir, "prog")
	debugDir := filepath.Join(dir, "usr/lib/debug/.build-id", full.BuildID()[:2])
	if err := os.MkdirAll(debugDir, 0o755); err != nil {
		t.Fatal(err)
	}
	debug := filepath.Join(debugDir, full.BuildID()[2:]+".debug")
	output(t, objcopy, "--only-keep-debug", src, debug)
	output(t, objcopy, "--strip-all", src, stripped)
	b := open(t, stripped)
	if _, err := b.Functions("static_sum", false); err == nil {
		t.Error("a stripped file still has its functions")
	}
	if _, err := b.DebugInfo(); !errors.Is(err, ErrNoDWARF) {
		t.Errorf("debug information of a stripped file: %v", err)
	}
	d, err := b.DebugFile(os.DirFS(dir), "/prog")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := ReadSymbols(b, d)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := full.Functions("static_sum", false)
	got := table.Lookup("static_sum")
	if len(got) != 1 || got[0] != want[0].Symbol {
		t.Errorf("static_sum in the debug file is %v, want %v", got, want)
	}
	if off, ok := b.FileOffset(got[0].Addr); !ok || off != want[0].Offset {
		t.Errorf("offset %#x, want %#x", off, want[0].Offset)
	}
	if _, err := d.DebugInfo(); err != nil {
		t.Error(err)
	}
	var missing *NotFoundError
	if _, err := b.DebugFile(os.DirFS(filepath.Join(dir, "usr")), "/prog"); !errors.As(err, &missing) {
		t.Errorf("debug file in the wrong place: %v", err)
	}

	// The same by .gnu_debuglink, and as mini debug information.
	linked := filepath.Join(dir, "linked")
	output(t, objcopy, "--add-gnu-debuglink="+debug, stripped, linked)
	if err := os.MkdirAll(filepath.Join(dir, ".debug"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(debug, filepath.Join(dir, ".debug", filepath.Base(debug))); err != nil {
		t.Fatal(err)
	}
	if d, err := open(t, linked).DebugFile(os.DirFS(dir), "linked"); err != nil {
		t.Error(err)
	} else {
		d.Close()
	}
	mini := filepath.Join(dir, "mini")
	output(t, objcopy, "--strip-debug", src, mini)
	output(t, tool(t, "xz"), mini)
	withMini := filepath.Join(dir, "with-mini")
	output(t, objcopy, "--add-section=.gnu_debugdata="+mini+".xz", stripped, withMini)
	places, err := open(t, withMini).Functions("inner_static", false)
	if want, _ := full.Functions("inner_static", false); err != nil || len(places) != 1 || places[0] != want[0] {
		t.Errorf("with .gnu_debugdata: %v, %v; want %v", places, err, want)
	}
}

func TestIFunc(t *testing.T) {
	libc, err := FindLibrary(os.DirFS("/"), "libc", elf.EM_NONE)
	if err != nil {
		t.Skip(err)
	}
	b := open(t, libc)
	table, err := b.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for s := range table.All() {
		if s.Kind == IFunc {
			n++
		}
	}
	if want := strings.Count(output(t, tool(t, "readelf"), "-W", "--dyn-syms", libc), " IFUNC "); n > want || want > 0 && n < want/2 {
		t.Errorf("%d ifuncs, readelf sees %d names", n, want)
	}
	if got, _, ok := table.Resolve(table.Lookup("malloc")[0].Addr); !ok || got.Name != "malloc" {
		t.Errorf("malloc is shown as %q", got.Name)
	}
	if got, _, _ := table.Resolve(table.Lookup("write")[0].Addr); got.Name != "write" {
		t.Errorf("write is shown as %q", got.Name)
	}
	if b.Interpreter() != "" && !strings.HasPrefix(b.Interpreter(), "/") {
		t.Errorf("interpreter %q", b.Interpreter())
	}
}

func TestCPlusPlus(t *testing.T) {
	file := compile(t, "g++", "names.cc", "-g", "-O1")
	b := open(t, file)
	for pattern, want := range map[string]int{
		"outer::area":             2,
		"outer::area(double)":     1,
		"outer::area(char*,int)":  1,
		"outer::area(char*, int)": 1,
		"outer::*::area":          1,
		"outer::inner::Widget::*": -1,
		"outer::area(int)":        0,
		"area":                    0,
		"_ZN5outer4areaEd":        1,
		"main":                    1,
		"outer::inner::*::area(*": 1,
	} {
		places, err := b.Functions(pattern, true)
		if want < 0 && len(places) > 0 {
			continue
		}
		if len(places) != want {
			t.Errorf("%q matches %v, %v; want %d", pattern, places, err, want)
		}
	}
	// Every name as c++filt has it.
	table, err := b.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var mangled []string
	for s := range table.All() {
		if strings.HasPrefix(s.Name, "_Z") {
			mangled = append(mangled, s.Name)
		}
	}
	want := strings.Fields(strings.ReplaceAll(output(t, tool(t, "c++filt"), mangled...), " ", ""))
	if len(want) != len(mangled) || len(want) < 3 {
		t.Fatalf("c++filt made %d names of %d", len(want), len(mangled))
	}
	for i, name := range mangled {
		if got := strings.ReplaceAll(Demangle(name, true), " ", ""); got != want[i] {
			t.Errorf("Demangle(%s) = %s, c++filt says %s", name, got, want[i])
		}
	}
}

// The quick test before demangling must not lose a name.
func TestMangledWord(t *testing.T) {
	lib, err := FindLibrary(os.DirFS("/"), "libstdc++", elf.EM_NONE)
	if err != nil {
		t.Skip(err)
	}
	table, err := open(t, lib).Symbols()
	if err != nil {
		t.Fatal(err)
	}
	filtered := 0
	for s := range table.All() {
		if !strings.HasPrefix(s.Name, "_Z") {
			continue
		}
		for _, params := range []bool{false, true} {
			p := NewPattern(Demangle(s.Name, params))
			if p.word != nil {
				filtered++
			}
			if !bytes.Contains([]byte(s.Name), p.word) {
				t.Errorf("%s is lost: no %q in %s", p, p.word, s.Name)
			}
		}
	}
	if filtered < 500 {
		t.Errorf("only %d patterns have a word", filtered)
	}
}

func TestDemangle(t *testing.T) {
	for _, c := range []struct{ in, short, full string }{
		{"main", "main", "main"},
		{"_Z3fooi", "foo", "foo(int)"},
		{"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt", "core::fmt::Write::write_fmt"},
		{"_RNvC6_123foo3bar", "123foo::bar", "123foo::bar"},
		{"_Znope", "_Znope", "_Znope"},
		{"R", "R", "R"},
		{"", "", ""},
		{"_Z" + strings.Repeat("9", 10000), "_Z" + strings.Repeat("9", 10000), ""},
	} {
		if got := Demangle(c.in, false); got != c.short {
			t.Errorf("Demangle(%.40q, false) = %q, want %q", c.in, got, c.short)
		}
		if got := Demangle(c.in, true); c.full != "" && got != c.full {
			t.Errorf("Demangle(%.40q, true) = %q, want %q", c.in, got, c.full)
		}
	}
	if got := Demangle("_ZN2ns3BarC1Ev", true); got != "ns::Bar::Bar()" {
		t.Errorf("constructor: %q", got)
	}
}

func FuzzDemangle(f *testing.F) {
	f.Add("_ZN2ns3BarC1Ev", "ns::*")
	f.Add("_RNvC6_123foo3bar", "*")
	f.Fuzz(func(t *testing.T, name, pattern string) {
		if out := Demangle(name, true); len(out) > len(name)+1<<maxDemangledPow+64 {
			t.Errorf("%d bytes of %d", len(out), len(name))
		}
		MatchDemangled(NewPattern(pattern), name)
	})
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"vfs_*", "vfs_read", true},
		{"vfs_*", "vfs_", true},
		{"vfs_*", "xvfs_", false},
		{"*_read", "vfs_read", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*ab*ab*", "abab", true},
		{"*ab*ab*", "aba", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "acb", false},
		{"a**c", "abc", true},
		{"a?c", "abc", false},
	} {
		if got := NewPattern(c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
		if p := NewPattern(c.pattern); c.want && !p.mayMatch([]byte(c.name)) {
			t.Errorf("%q must not rule out %q", c.pattern, c.name)
		}
	}
}

// goVariants are ways to build a Go program.
var goVariants = map[string][]string{
	"plain":        nil,
	"stripped":     {"-ldflags=-s -w"},
	"stripped-pie": {"-buildmode=pie", "-ldflags=-s -w"},
	// C code before Go's: the start of .text is not where offsets count from.
	"external":     {"-ldflags=-s -w -linkmode=external"},
	"external-pie": {"-buildmode=pie", "-ldflags=-s -w -linkmode=external"},
}

func TestGoFuncs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Go writes ELF on Linux only")
	}
	for name, flags := range goVariants {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "external") {
				tool(t, "gcc")
				t.Setenv("CGO_ENABLED", "1")
			}
			file := compile(t, "go", "hello.go", flags...)
			b := open(t, file)
			g, err := b.GoFuncs()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(output(t, file)) {
				fn, hex, _ := strings.Cut(strings.TrimSpace(line), " ")
				addr, err := strconv.ParseUint(hex, 0, 64)
				if err != nil {
					t.Fatal(line)
				}
				places, err := b.Functions(fn, false)
				if err != nil || len(places) != 1 {
					t.Errorf("%s: %v, %v", fn, places, err)
					continue
				}
				n++
				at := places[0].Symbol.Addr
				if b.IsRelocatableImage() {
					if at%4096 != addr%4096 { // the rest is the kernel's choice
						t.Errorf("%s at %#x, ran at %#x", fn, at, addr)
					}
				} else if at != addr {
					t.Errorf("%s at %#x, ran at %#x", fn, at, addr)
				}
				s, off, ok := g.Resolve(at + 1)
				if !ok || s.Name != fn || off != 1 {
					t.Errorf("Resolve(%s+1) = %v+%d, %v", fn, s, off, ok)
				}
				src, num, ok := g.Line(at)
				if !ok || filepath.Base(src) != "hello.go" || num < 12 || num > 20 {
					t.Errorf("%s is at %s:%d, %v", fn, src, num, ok)
				}
			}
			if n != 2 {
				t.Errorf("%d functions compared", n)
			}
		})
	}
}

// The running test binary is its own oracle, for every function.
func TestGoFuncsSelf(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	b, err := OpenBinary(os.DirFS("/"), exe)
	if errors.Is(err, ErrNotELF) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("executables are not ELF here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	g, err := b.GoFuncs()
	if err != nil {
		t.Fatal(err)
	}
	if b.IsRelocatableImage() {
		t.Skip("addresses are moved in this build")
	}
	n := 0
	for s := range g.All() {
		f := runtime.FuncForPC(uintptr(s.Addr))
		if f == nil || f.Name() == "" { // the runtime hides some of its own
			continue
		}
		if n++; f.Name() != s.Name && !strings.HasPrefix(s.Name, "go:") && !strings.Contains(f.Name(), "[...]") {
			t.Errorf("%#x is %s, runtime says %s", s.Addr, s.Name, f.Name())
		}
		file, line, ok := g.Line(s.Addr)
		if wantFile, wantLine := f.FileLine(uintptr(s.Addr)); ok && (file != wantFile || line != wantLine) {
			t.Errorf("%s is at %s:%d, runtime says %s:%d", s.Name, file, line, wantFile, wantLine)
		}
	}
	if n < 1000 {
		t.Errorf("only %d functions compared", n)
	}
	if _, _, ok := g.Resolve(1); ok {
		t.Error("address 1 has a function")
	}
}

func FuzzGoFuncs(f *testing.F) {
	head := func(magic uint32, words ...uint64) []byte {
		b := binary.LittleEndian.AppendUint32(nil, magic)
		b = append(b, 0, 0, 1, 8)
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return append(b, bytes.Repeat([]byte{1, 2, 0, 4}, 40)...)
	}
	f.Add(head(goMagic120, 2, 1, 0, 72, 80, 90, 100, 110), uint64(5))
	f.Add(head(goMagic116, 2, 1, 72, 80, 90, 100, 110), uint64(5))
	f.Add(head(goMagic12, 2, 3, 4), uint64(5))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		g, err := parseGoFuncs(data, binary.LittleEndian)
		if err != nil {
			return
		}
		n := 0
		for s := range g.All() {
			g.Line(s.Addr)
			if n++; n > 1000 {
				break
			}
		}
		g.Resolve(addr)
		g.Line(addr)
	})
}

func TestNotELF(t *testing.T) {
	if _, err := NewBinary(strings.NewReader("#!/bin/sh\n")); !errors.Is(err, ErrNotELF) {
		t.Errorf("a script: %v", err)
	}
	if _, err := NewBinary(strings.NewReader("")); !errors.Is(err, ErrNotELF) {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := NewBinary(strings.NewReader("\x7fELF")); err == nil || errors.Is(err, ErrNotELF) {
		t.Errorf("a truncated file: %v", err)
	}
	if _, err := OpenBinary(fstest.MapFS{"d/f": {}}, "/d"); err == nil {
		t.Error("a directory opens")
	}
}

// Every prefix and a stripe of damaged copies of a real file: errors, no panics.
func TestDamagedELF(t *testing.T) {
	data, err := os.ReadFile(compile(t, "gcc", "probes.c", "-g", "-O1"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data); n += 97 {
		useEverything(bytes.NewReader(data[:n]))
	}
	for n := 0; n < len(data); n += 31 {
		bad := bytes.Clone(data)
		for i := n; i < min(n+4, len(bad)); i++ {
			bad[i] ^= 0xff
		}
		useEverything(bytes.NewReader(bad))
	}
}

func useEverything(r io.ReaderAt) {
	b, err := NewBinary(r)
	if err != nil {
		return
	}
	b.BuildID()
	b.Interpreter()
	b.USDT()
	b.GoFuncs()
	if t, err := b.Symbols(); err == nil {
		t.Lookup("main")
		t.Match(NewPattern("m*"), true)
		t.Resolve(0x1139)
	}
	b.Functions("main", false)
	if d, err := b.DebugInfo(); err == nil {
		d.Type("int")
		d.Type("struct node")
		d.Function("main")
		d.Line(0x1139)
	}
}

func FuzzBinary(f *testing.F) {
	f.Add(readOrNil(compile(f, "gcc", "probes.c", "-g", "-nostdlib", "-static", "-Wl,-e,main")))
	f.Add(readOrNil(compile(f, "gcc", "types.c", "-gdwarf-4", "-O1", "-c")))
	f.Fuzz(func(t *testing.T, data []byte) { useEverything(bytes.NewReader(data)) })
}

func readOrNil(name string) []byte {
	data, _ := os.ReadFile(name)
	return data
}

// A header may promise what the file does not have.
func TestHugeSections(t *testing.T) {
	data := readOrNil(compile(t, "gcc", "probes.c", "-g", "-O1"))
	shoff := binary.LittleEndian.Uint64(data[40:])
	n := uint64(binary.LittleEndian.Uint16(data[60:]))
	for i := range n {
		binary.LittleEndian.PutUint64(data[shoff+i*64+32:], 1<<29)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	useEverything(bytes.NewReader(data))
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
		t.Errorf("%d MiB for a file of %d bytes", used>>20, len(data))
	}
}

func TestXZ(t *testing.T) {
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog\n", 400) + strings.Repeat("\x00", 3000))
	for i := range 40_000 {
		text = append(text, byte(i*i>>5), byte(i))
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "text")
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
	xz := tool(t, "xz")
	for _, flags := range [][]string{
		{"-9"},
		{"-0"},
		{"--check=none"},
		{"--check=sha256"},
		{"--block-size=10000"},
		{"--lzma2=preset=6,lc=0,lp=2,pb=0"},
		{"--lzma2=preset=6,lc=1,lp=3,pb=4"},
		{"--check=crc32"},
	} {
		packed := output(t, xz, append(flags, "-k", "-c", name)...)
		out, err := unxz([]byte(packed))
		if err != nil || !bytes.Equal(out, text) {
			t.Errorf("%v: %d bytes of %d, %v", flags, len(out), len(text), err)
		}
		for i := 0; i < len(packed) && flags[0] == "-9"; i += 1 + len(packed)/100 {
			bad := []byte(packed)
			bad[i] ^= 0x55
			if out, err := unxz(bad); err == nil && !bytes.Equal(out, text) {
				t.Errorf("damage at byte %d is not noticed", i)
			}
			if _, err := unxz(bad[:i]); err == nil && i < len(packed)-64 {
				t.Errorf("truncation at byte %d is not noticed", i)
			}
		}
	}
}

func FuzzXZ(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x04hello\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		unxz(data)
		// Without the checksums in the way.
		d := lzma2{in: data}
		d.run()
		if len(d.out) > maxXZ {
			t.Errorf("%d bytes", len(d.out))
		}
	})
}

func FuzzNotes(f *testing.F) {
	f.Add([]byte("\x08\x00\x00\x00\x1c\x00\x00\x00\x03\x00\x00\x00stapsdt\x00aaaaaaaabbbbbbbbccccccccp\x00n\x00\x00\x00"), uint64(4))
	f.Add([]byte("\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x0012345678901234567890"), uint64(8))
	f.Fuzz(func(t *testing.T, data []byte, align uint64) {
		scanNotes(data, binary.LittleEndian, align, func(n note) bool { return true })
		for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64, elf.EM_RISCV, elf.EM_386} {
			parseUSDT(data, binary.LittleEndian, align%2 == 0, m, align)
		}
	})
}

func BenchmarkSymbols(b *testing.B) {
	bin, err := OpenBinary(os.DirFS("/"), compile(b, "go", "hello.go"))
	if err != nil {
		b.Fatal(err)
	}
	defer bin.Close()
	table, err := readSymbols(1<<30, bin)
	if err != nil {
		b.Fatal(err)
	}
	target := table.Lookup("main.plain")
	if len(target) == 0 {
		b.Fatal("no symbol main.plain")
	}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readSymbols(1<<30, bin); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(table.Bytes())/float64(table.Len()), "table-B/symbol")
	})
	b.Run("resolve", func(b *testing.B) {
		for b.Loop() {
			if _, _, ok := table.Resolve(target[0].Addr + 5); !ok {
				b.Fatal()
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			table.Lookup(target[0].Name)
		}
	})
	b.Run("go-table", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g, err := readGoFuncs(bin)
			if err != nil {
				b.Fatal(err)
			}
			if _, _, ok := g.Resolve(target[0].Addr); !ok {
				b.Fatal()
			}
		}
	})
}
