package symbol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const kallsymsText = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 t do_it
ffffffff81000200 T vfs_read
ffffffff81000300 W vfs_write
ffffffff81000400 t do_it
ffffffff82000000 D jiffies
ffffffffc0201000 t ext4_read	[ext4]
ffffffffc0201080 t do_it	[ext4]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530	[bpf]
garbage
ffffffffc0300000 t
`

func TestKallsyms(t *testing.T) {
	k, err := ParseKallsyms(iotest.OneByteReader(strings.NewReader(kallsymsText)))
	if err != nil {
		t.Fatal(err)
	}
	if k.Len() != 11 || k.Hidden() {
		t.Fatalf("Len() = %d, Hidden() = %v", k.Len(), k.Hidden())
	}
	addrs := []uint64{
		0xffffffff81000000, 0xffffffff810000ff, 0xffffffff810002fe, 0xffffffff81000500, 0xffffffff81000500,
		0xffffffffc0201084, 0xffffffffc0100010, 0xffffffffc0201010,
		0, 0x1000, 0xffffffff80ffffff, 0xffffffff81200000, 0xffffffffffffffff,
	}
	want := []string{
		"_stext", "_stext+255", "vfs_read+254", "do_it+256", "do_it+256",
		"do_it+4 [ext4]", "bpf_prog_6deef7357e7b4530+16 [bpf]", "ext4_read+16 [ext4]",
		"", "", "", "", "",
	}
	hits, err := ResolveKallsyms(strings.NewReader(kallsymsText), addrs)
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range addrs {
		if got := hits[i].String(); got != want[i] {
			t.Errorf("ResolveKallsyms(%#x) = %q, want %q", addr, got, want[i])
		}
		hit, ok, err := k.Resolve(addr)
		if got := hit.String(); got != want[i] || ok != (want[i] != "") || err != nil {
			t.Errorf("Resolve(%#x) = %q, %v, %v, want %q", addr, got, ok, err, want[i])
		}
	}

	found, err := LookupKallsyms(strings.NewReader(kallsymsText), "do_it", "jiffies", "nothing", "read", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"do_it", "jiffies", "nothing", "read", "vfs_write", "fixed_percpu_data"} {
		list, err := k.Lookup(name)
		if err != nil {
			t.Error(err)
		}
		if name != "vfs_write" && name != "fixed_percpu_data" && !slices.Equal(list, found[name]) {
			t.Errorf("Lookup(%q) = %v, LookupKallsyms says %v", name, list, found[name])
		}
		if n := strings.Count(kallsymsText, " "+name+"\n") + strings.Count(kallsymsText, " "+name+"\t"); len(list) != n {
			t.Errorf("Lookup(%q) has %d symbols, want %d", name, len(list), n)
		}
	}
	if s := found["do_it"]; len(s) != 3 || s[2] != (KernelSymbol{0xffffffffc0201080, 't', "do_it", "ext4"}) || !s[2].IsFunc() {
		t.Errorf("do_it = %v", s)
	}
	if s := found["jiffies"]; len(s) != 1 || s[0].IsFunc() {
		t.Errorf("jiffies = %v", s)
	}
	for pattern, want := range map[string]int{"vfs_*": 2, "*": 11, "*read": 2, "do_it": 3, "t": 0, "T*": 0, "*it*": 4, "x*": 0, "": 0, "\n*": 0, "*\n": 0} {
		if got := k.Match(NewPattern(pattern)); len(got) != want {
			t.Errorf("Match(%q) = %v, want %d symbols", pattern, got, want)
		}
	}
	if got := k.Modules(); !slices.Equal(got, []string{"bpf", "ext4"}) {
		t.Errorf("Modules() = %q", got)
	}
	if got := slices.Collect(k.All()); len(got) != 11 || !slices.IsSortedFunc(got, func(a, b KernelSymbol) int {
		if a.Addr < b.Addr {
			return -1
		}
		return 1
	}) && got[0].Name != "fixed_percpu_data" {
		t.Errorf("All() = %v", got)
	}
}

func TestKallsymsHidden(t *testing.T) {
	var b strings.Builder
	for line := range strings.Lines(kallsymsText) {
		if len(line) > 20 {
			b.WriteString("0000000000000000" + line[16:])
		}
	}
	k, err := ParseKallsyms(strings.NewReader(b.String()))
	if err != nil || !k.Hidden() {
		t.Fatalf("Hidden() = %v, %v", k.Hidden(), err)
	}
	if got := k.Match(NewPattern("vfs_*")); len(got) != 2 {
		t.Errorf("names of a hidden table: %v", got)
	}
	if s, err := k.Lookup("vfs_read"); len(s) != 1 || !errors.Is(err, ErrKernelAddressesHidden) {
		t.Errorf("Lookup = %v, %v", s, err)
	}
	if _, _, err := k.Resolve(1 << 63); !errors.Is(err, ErrKernelAddressesHidden) {
		t.Errorf("Resolve: %v", err)
	}
	if _, err := ResolveKallsyms(strings.NewReader(b.String()), []uint64{1 << 63}); !errors.Is(err, ErrKernelAddressesHidden) {
		t.Errorf("ResolveKallsyms: %v", err)
	}
	found, err := LookupKallsyms(strings.NewReader(b.String()), "vfs_read")
	if !errors.Is(err, ErrKernelAddressesHidden) || len(found["vfs_read"]) != 1 {
		t.Errorf("LookupKallsyms: %v, %v", found, err)
	}
	if _, err := LookupKallsyms(strings.NewReader(""), "vfs_read"); err != nil {
		t.Errorf("an empty file hides nothing: %v", err)
	}
}

func TestKallsymsReadError(t *testing.T) {
	broken := errors.New("broken")
	r := func() io.Reader {
		return io.MultiReader(strings.NewReader(kallsymsText), iotest.ErrReader(broken))
	}
	if _, err := ParseKallsyms(r()); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := LookupKallsyms(r(), "x"); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestScanLinesLong(t *testing.T) {
	long := strings.Repeat("x", 3*scanBuffer)
	text := "a\n" + long + "\nb\n" + strings.Repeat("y", maxLine) + "\n" + strings.Repeat("z", maxLine+1) + "\nc\n" + long
	for _, r := range []io.Reader{strings.NewReader(text), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
		var got []string
		err := scanLines(r, func(line []byte) bool { got = append(got, string(line[:1])); return true })
		if err != nil || !slices.Equal(got, []string{"a", "b", "y", "c"}) {
			t.Errorf("scanLines = %q, %v", got, err)
		}
	}
}

// The streaming look-ups and the table must agree on any table.
func TestKallsymsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b strings.Builder
		base := uint64(0xffffffff81000000)
		for range rng.IntN(50) {
			if rng.IntN(10) == 0 {
				base = uint64(0xffffffff80000000) + uint64(rng.IntN(1<<24))
			}
			base += uint64(rng.IntN(4) * 16)
			fmt.Fprintf(&b, "%016x t f%d\n", base, rng.IntN(30))
		}
		addrs := make([]uint64, rng.IntN(20))
		for i := range addrs {
			addrs[i] = 0xffffffff80000000 + uint64(rng.IntN(1<<25))
			if rng.IntN(2) == 0 {
				addrs[i] = base + uint64(rng.IntN(100)) - 50
			}
		}
		k, err := ParseKallsyms(strings.NewReader(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		hits, err := ResolveKallsyms(strings.NewReader(b.String()), addrs)
		if err != nil {
			t.Fatal(err)
		}
		for i, addr := range addrs {
			if want, _, _ := k.Resolve(addr); hits[i] != want {
				t.Fatalf("%s\n%#x: streaming %v, table %v", b.String(), addr, hits[i], want)
			}
		}
	}
}

func TestKallsymsLive(t *testing.T) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Skipf("no kernel symbols here: %v", err)
	}
	k, err := ParseKallsyms(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); k.Len() != n {
		t.Errorf("%d symbols of %d lines", k.Len(), n)
	}
	if k.Hidden() {
		t.Skip("the kernel hides its addresses: run as root or with CAP_SYSLOG")
	}
	s, err := k.Lookup("vfs_read")
	if err != nil || len(s) != 1 {
		t.Fatalf("Lookup(vfs_read) = %v, %v", s, err)
	}
	if hit, ok, err := k.Resolve(s[0].Addr + 3); !ok || hit.Name != "vfs_read" || hit.Offset != 3 || err != nil {
		t.Errorf("Resolve = %v, %v", hit, err)
	}
}

func FuzzKallsyms(f *testing.F) {
	f.Add(kallsymsText, "do_it", uint64(0xffffffff81000105))
	f.Add("ffffffff81000000 T a\t[b]", "*", uint64(1)<<63)
	f.Add("f T \n0 T x\n 0 T y\n0  z\n", "x*y", uint64(0))
	f.Fuzz(func(t *testing.T, text, name string, addr uint64) {
		k, err := ParseKallsyms(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		p := NewPattern(name)
		want := 0
		for s := range k.All() {
			if p.Match(s.Name) {
				want++
			}
		}
		if got := len(k.Match(p)); got != want {
			t.Errorf("Match(%q) finds %d, a walk finds %d", name, got, want)
		}
		found, _ := LookupKallsyms(strings.NewReader(text), name)
		list, _ := k.Lookup(name)
		if len(found[name]) != len(list) {
			t.Errorf("streaming finds %v, table %v", found[name], list)
		}
		hits, err1 := ResolveKallsyms(strings.NewReader(text), []uint64{addr})
		hit, _, err2 := k.Resolve(addr)
		if err1 == nil && err2 == nil && hits[0] != hit {
			t.Errorf("streaming resolves %v, table %v", hits[0], hit)
		}
	})
}

func bigKallsyms() []byte {
	var b bytes.Buffer
	for i := range 180_000 {
		fmt.Fprintf(&b, "%016x t some_kernel_function_%d\n", 0xffffffff81000000+uint64(i)*64, i)
	}
	return b.Bytes()
}

func BenchmarkKallsyms(b *testing.B) {
	text := bigKallsyms()
	run := func(name string, f func(b *testing.B)) {
		b.Run(name, func(b *testing.B) { b.ReportAllocs(); b.SetBytes(int64(len(text))); f(b) })
	}
	run("parse", func(b *testing.B) {
		for b.Loop() {
			if k, err := ParseKallsyms(bytes.NewReader(text)); err != nil || k.Len() != 180_000 {
				b.Fatal(err)
			}
		}
	})
	run("lookup-streaming", func(b *testing.B) {
		for b.Loop() {
			if m, err := LookupKallsyms(bytes.NewReader(text), "some_kernel_function_77", "vfs_read"); err != nil || len(m) != 1 {
				b.Fatal(err)
			}
		}
	})
	run("resolve-streaming", func(b *testing.B) {
		addrs := make([]uint64, 100)
		for i := range addrs {
			addrs[i] = 0xffffffff81000000 + uint64(i)*100_000
		}
		for b.Loop() {
			if _, err := ResolveKallsyms(bytes.NewReader(text), addrs); err != nil {
				b.Fatal(err)
			}
		}
	})
	k, _ := ParseKallsyms(bytes.NewReader(text))
	b.Run("table-resolve", func(b *testing.B) {
		for b.Loop() {
			if _, ok, _ := k.Resolve(0xffffffff81000000 + 100_003); !ok {
				b.Fatal()
			}
		}
	})
	b.Run("table-lookup", func(b *testing.B) {
		for b.Loop() {
			if s, _ := k.Lookup("some_kernel_function_170000"); len(s) != 1 {
				b.Fatal()
			}
		}
	})
	b.Run("table-match", func(b *testing.B) {
		for b.Loop() {
			if s := k.Match(NewPattern("*function_17000*")); len(s) != 11 {
				b.Fatal(len(s))
			}
		}
	})
}

func BenchmarkKallsymsLive(b *testing.B) {
	for b.Loop() {
		f, err := os.Open("/proc/kallsyms")
		if err != nil {
			b.Skip(err)
		}
		if _, err := LookupKallsyms(f, "vfs_read"); err != nil {
			b.Skip(err)
		}
		f.Close()
	}
}
