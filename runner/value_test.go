package runner

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/object"
)

func testNames(man *object.Manifest) *names {
	n := newNames(man, binary.LittleEndian, fstest.MapFS{
		"proc/kallsyms": {Data: []byte("ffffffff81000000 T _stext\nffffffff81000100 T vfs_read\nffffffff81000200 t helper\t[mod]\n")},
		"etc/passwd":    {Data: []byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")},
	})
	n.clocks = func(Clock) int64 { return 1_700_000_000_000_000_000 }
	n.frames = func(id uint64) []uint64 {
		return []uint64{0xffffffff81000104, 0xffffffff81000208, 0x10, 0, 0xffffffff81000000}
	}
	return n
}

func TestValues(t *testing.T) {
	man := &object.Manifest{
		Probes: []object.Probe{{Name: "kprobe:f"}}, Strings: []string{"%H:%M", "unified"},
		Target: object.Platform{Arch: "amd64"},
	}
	n := testNames(man)
	defer n.Close()
	time.Local = time.UTC
	i32 := object.Type{Kind: object.TypeInt, Size: 4, Signed: true}
	u8 := object.Type{Kind: object.TypeInt, Size: 1}
	le := func(size int, v int64) []byte { return word(uint64(v))[:size] }
	stack := func(frames byte) []byte {
		return slices.Concat(word(1), []byte{0, 0, 0, 0, frames, 0, 0, 0})
	}
	tests := []struct {
		t    object.Type
		data []byte
		want string
	}{
		{i32, le(4, -5), "-5"},
		{u8, le(1, 200), "200"},
		{object.Type{Kind: object.TypeBool, Size: 1}, le(1, 1), "true"},
		{object.Type{Kind: object.TypePointer, Size: 8}, le(8, 0x1f), "0x1f"},
		{object.Type{Kind: object.TypeEnum, Size: 4, Values: []object.EnumValue{{Name: "RED", Value: 2}}}, le(4, 2), "RED"},
		{object.Type{Kind: object.TypeEnum, Size: 4, Values: []object.EnumValue{{Name: "RED", Value: 2}}}, le(4, 3), "3"},
		{object.Type{Kind: object.TypeString, Size: 4}, []byte("ab\x00c"), "ab"},
		{object.Type{Kind: object.TypeString, Size: 4}, []byte("abcd"), "abcd.."},
		{object.Type{Kind: object.TypeBuffer, Size: 8}, []byte("\x03\x00\x00\x00a\x01\xffz"), `a\x01\xff`},
		{object.Type{Kind: object.TypeBuffer, Size: 8}, []byte("\xff\xff\xff\xffabcd"), "abcd"},
		{object.Type{Kind: object.TypeMAC, Size: 6}, []byte{0, 0x1a, 2, 3, 4, 0xff}, "00:1A:02:03:04:FF"},
		{object.Type{Kind: object.TypeInet, Size: 24}, slices.Concat(word(2), []byte{10, 0, 0, 1}, make([]byte, 12)), "10.0.0.1"},
		{object.Type{Kind: object.TypeInet, Size: 24}, slices.Concat(word(10), make([]byte, 15), []byte{1}), "::1"},
		{object.Type{Kind: object.TypeUsername, Size: 8}, le(8, 1000), "ann"},
		{object.Type{Kind: object.TypeUsername, Size: 8}, le(8, 4711), "4711"},
		{object.Type{Kind: object.TypeProbe, Size: 8}, le(8, 0), "kprobe:f"},
		{object.Type{Kind: object.TypeProbe, Size: 8}, le(8, 9), "9"},
		{object.Type{Kind: object.TypeErrno, Size: 8}, le(8, 2), "No such file or directory"},
		{object.Type{Kind: object.TypeSignal, Size: 8}, le(8, 9), "SIGKILL"},
		{object.Type{Kind: object.TypeSyscall, Size: 8}, le(8, 0), "read"},
		{object.Type{Kind: object.TypeKsym, Size: 8}, word(0xffffffff81000110), "vfs_read"},
		{object.Type{Kind: object.TypeKsym, Size: 8}, word(0x10), "0x10"},
		{object.Type{Kind: object.TypeUsym, Size: 16}, slices.Concat(word(0x4010), word(1<<30)), "0x4010"},
		{object.Type{Kind: object.TypeKstack, Size: object.StackSize}, stack(2), "\n        vfs_read+4\n        helper+8\n"},
		{object.Type{Kind: object.TypeKstack, Size: object.StackSize, Name: "perf"}, stack(1), "\n\tffffffff81000104 vfs_read+4\n"},
		{object.Type{Kind: object.TypeKstack, Size: object.StackSize, Name: "raw"}, stack(9), "\n        ffffffff81000104\n        ffffffff81000208\n        10\n"},
		{object.Type{Kind: object.TypeUstack, Size: object.StackSize}, stack(1), "\n        0xffffffff81000104\n"},
		{object.Type{Kind: object.TypeTimestamp, Size: 16, Name: "%Y %f"}, slices.Concat(word(1000), word(0)), "2023 000001"},
		{object.Type{Kind: object.TypeTimestamp, Size: 16}, slices.Concat(word(0), word(0)), "22:13"},
		{object.Type{Kind: object.TypeArray, Size: 8, Len: 2, Elem: &i32}, []byte{1, 0, 0, 0, 2, 0, 0, 0}, "[1,2]"},
		{object.Type{Kind: object.TypeTuple, Size: 5, Fields: []object.Field{{Type: i32}, {Offset: 4, Type: u8}}}, []byte{1, 0, 0, 0, 2}, "(1, 2)"},
		{object.Type{Kind: object.TypeTuple, Size: 5, Fields: []object.Field{{Name: "a", Type: i32}, {Name: "b", Offset: 4, Type: u8}}}, []byte{1, 0, 0, 0, 2}, "(a = 1, b = 2)"},
		{object.Type{Kind: object.TypeRecord, Size: 5, Fields: []object.Field{{Name: "a", Type: i32}, {Name: "b", Offset: 4, Bits: 3, BitOffset: 2, Type: u8}}}, []byte{1, 0, 0, 0, 0b10100}, "{ .a = 1, .b = 5 }"},
		{object.Type{Kind: object.TypeInt, Size: 8}, []byte{1}, "<cut short>"},
	}
	for _, tt := range tests {
		d := decoder{order: binary.LittleEndian, names: n}
		var v Value
		d.decode(&v, &tt.t, tt.data)
		if got := v.String(); got != tt.want {
			t.Errorf("%s of %x is %q, want %q", tt.t.Kind, tt.data, got, tt.want)
		}
		if got := v.Clone().String(); got != tt.want {
			t.Errorf("a clone of %s of %x is %q, want %q", tt.t.Kind, tt.data, got, tt.want)
		}
	}
}

func TestFormats(t *testing.T) {
	str := Value{Type: &object.Type{Kind: object.TypeString, Size: 16}, Bytes: []byte("ab\x1b")}
	num := func(n int64, size int, signed bool) Value {
		return Value{Type: &object.Type{Kind: object.TypeInt, Size: size, Signed: signed}, Int: n}
	}
	buf := Value{Type: &object.Type{Kind: object.TypeBuffer, Size: 16}, Bytes: []byte("a\x01b")}
	esc := func(dst, text []byte) []byte { return append(dst, strings.ToUpper(string(text))...) }
	tests := []struct {
		format string
		values []Value
		want   string
	}{
		{"plain %% %d\n", []Value{num(-3, 4, true)}, "plain % -3\n"},
		{"[%5s|%-5s|%.1s]", []Value{str, str, str}, "[  AB\x1b|AB\x1b  |A]"},
		{"[%*d|%-*d]", []Value{num(5, 8, true), num(1, 8, true), num(3, 8, true), num(2, 8, true)}, "[    1|2  ]"},
		{"%r %rx %rh", []Value{buf, buf, buf}, `a\x01b \x61\x01\x62 61 01 62`},
		{"%c%c", []Value{num('x', 8, false), num(7, 8, false)}, "X\x07"},
		{"%p %p %8p|", []Value{num(0, 8, false), num(31, 8, false), num(31, 8, false)}, "(nil) 0x1f     0x1f|"},
		{"%hhd %hd %lld", []Value{num(300, 8, true), num(70000, 8, true), num(-1, 8, true)}, "44 4464 -1"},
		{"%u %x", []Value{num(-1, 4, true), num(-1, 8, true)}, "4294967295 ffffffffffffffff"},
		{"%d", nil, "%d"},
		{"open %", nil, "open %"},
		{"\x1b[1m%s", []Value{str}, "\x1b[1mAB\x1b"},
	}
	for _, tt := range tests {
		if got := string(ParseFormat(tt.format).Append(nil, tt.values, esc)); got != tt.want {
			t.Errorf("%q gives %q, want %q", tt.format, got, tt.want)
		}
	}
}

// The C library's printf is the oracle for integers.
func TestFormatAgainstC(t *testing.T) {
	cc := testenv.NeedTool(t, "gcc")
	r := rand.New(rand.NewPCG(1, 2))
	interesting := []int64{0, 1, -1, 7, 8, 10, 255, 256, 65535, 1 << 31, -1 << 31, 1<<63 - 1, -1 << 63}
	var c strings.Builder
	c.WriteString("#include <stdio.h>\nint main(void) {\n")
	var want []string
	for range 2000 {
		flags := ""
		for _, f := range "-+ #0" {
			if r.IntN(4) == 0 {
				flags += string(f)
			}
		}
		width, prec := "", ""
		if r.IntN(2) == 0 {
			width = fmt.Sprint(1 + r.IntN(20))
		}
		if r.IntN(3) == 0 {
			prec = fmt.Sprint(".", r.IntN(12))
			prec = strings.ReplaceAll(prec, " ", "")
		}
		length := []string{"hh", "h", "l", "ll", "j", "z", "t"}[r.IntN(7)]
		spec := "%" + flags + width + prec + length + string("diuoxX"[r.IntN(6)])
		n := interesting[r.IntN(len(interesting))]
		if r.IntN(2) == 0 {
			n = int64(r.Uint64() >> r.IntN(64))
		}
		v := Value{Type: &object.Type{Kind: object.TypeInt, Size: 8, Signed: true}, Int: n}
		want = append(want, spec+" of "+fmt.Sprint(n)+": "+string(ParseFormat(spec).Append(nil, []Value{v}, nil)))
		fmt.Fprintf(&c, "printf(\"%%%s of %d: %s\\n\", (long)%dUL);\n", spec, n, spec, uint64(n))
	}
	c.WriteString("return 0;}\n")
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	if err := os.WriteFile(src, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-w", "-O0", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines of C, %d of ours", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("C says %q, we %q", got[i], want[i])
		}
	}
}

func TestFormatAllocates(t *testing.T) {
	f := ParseFormat("%-16s %6d %s\n")
	fields := []object.Field{
		{Offset: 8, Type: object.Type{Kind: object.TypeString, Size: 16}},
		{Offset: 24, Type: object.Type{Kind: object.TypeInt, Size: 8}},
		{Offset: 32, Type: object.Type{Kind: object.TypeString, Size: 64}},
	}
	data := slices.Concat(word(0), []byte("bash\x00           "), word(12), make([]byte, 64))
	copy(data[32:], "/etc/passwd")
	d := decoder{order: binary.LittleEndian}
	var values []Value
	var dst []byte
	if n := testing.AllocsPerRun(100, func() {
		values = d.decodeFields(values, fields, data)
		dst = f.Append(dst[:0], values, nil)
	}); n != 0 {
		t.Errorf("an event costs %v allocations", n)
	}
	if want := "bash                 12 /etc/passwd\n"; string(dst) != want {
		t.Errorf("it is %q, want %q", dst, want)
	}
}

func TestStrftime(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 789012345, time.FixedZone("CET", 3600))
	for format, want := range map[string]string{
		"%H:%M:%S.%f":          "04:05:06.789012",
		"%Y-%m-%dT%T":          "2026-02-03T04:05:06",
		"%a %A %b %B %h":       "Tue Tuesday Feb February Feb",
		"%c":                   "Tue Feb  3 04:05:06 2026",
		"%C %y %G %g %V %u %w": "20 26 2026 26 06 2 2",
		"%D %F %R %r":          "02/03/26 2026-02-03 04:05 04:05:06 AM",
		"%e|%k|%l|%I|%p|%P":    " 3| 4| 4|04|AM|am",
		"%j %U %W":             "034 05 05",
		"%z %Z %s":             "+0100 CET 1770087906",
		"%-d %_d %^a %03d %#p": "3  3 TUE 003 am",
		"%n%t%%%Ey %Q %":       "\n\t%26 %Q %",
	} {
		if got := Strftime(format, at); got != want {
			t.Errorf("%s gives %q, want %q", format, got, want)
		}
	}
}

// No manifest and no record may make the decoder panic or read what is not
// there.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"tuple","size":16,"fields":[{"offset":0,"type":{"kind":"int","size":8}},{"offset":8,"bits":3,"type":{"kind":"string","size":8}}]}`), []byte("0123456789abcdef"))
	f.Add([]byte(`{"kind":"array","size":8,"len":1000000,"elem":{"kind":"array","size":0,"len":99999,"elem":{"kind":"int","size":1}}}`), []byte("01234567"))
	f.Add([]byte(`{"kind":"kstack","size":24,"name":"perf"}`), make([]byte, 24))
	f.Add([]byte(`{"kind":"timestamp","size":16}`), make([]byte, 16))
	man := &object.Manifest{Strings: []string{"%H"}}
	f.Fuzz(func(t *testing.T, typ, data []byte) {
		var ty object.Type
		if json.Unmarshal(typ, &ty) != nil {
			return
		}
		n := testNames(man)
		defer n.Close()
		d := decoder{order: binary.LittleEndian, names: n}
		var v Value
		d.decode(&v, &ty, data)
		v.Append(nil, nil)
		v.Clone()
		ParseFormat("%s %d %r %5p %.3s %c").Append(nil, []Value{v, v, v, v, v, v}, nil)
	})
}

func FuzzFormat(f *testing.F) {
	f.Add("%5d %-*s %rx %.3s %%")
	f.Add("%9999999999999d")
	f.Fuzz(func(t *testing.T, format string) {
		v := Value{Type: &object.Type{Kind: object.TypeInt, Size: 8}, Int: 1 << 40}
		ParseFormat(format).Append(nil, []Value{v, v, v}, nil)
		Strftime(format, time.Unix(0, 0))
	})
}

// TestFunc shows the functions that probes are on: demangled, unless the script
// says otherwise.
func TestFunc(t *testing.T) {
	const mangled = "_ZN4deep3Box3putEi"
	v := Value{Type: &object.Type{Kind: object.TypeUsym, Name: "func"}}
	for setting, want := range map[string]string{"": "deep::Box::put", "0": mangled, "false": mangled, "1": "deep::Box::put"} {
		man := &object.Manifest{Probes: []object.Probe{{Func: mangled}}, Settings: map[string]string{}}
		if setting != "" {
			man.Settings["cpp_demangle"] = setting
		}
		if got := string(newNames(man, binary.LittleEndian, nil).append(nil, &v, nil, 0)); got != want {
			t.Errorf("cpp_demangle %q: %q, not %q", setting, got, want)
		}
	}
}
