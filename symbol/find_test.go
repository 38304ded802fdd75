package symbol

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// library is the smallest file that counts as a 64-bit library of m.
func library(m elf.Machine) *fstest.MapFile {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(h[16:], uint16(elf.ET_DYN))
	binary.LittleEndian.PutUint16(h[18:], uint16(m))
	binary.LittleEndian.PutUint32(h[20:], 1)
	binary.LittleEndian.PutUint16(h[52:], 64)
	binary.LittleEndian.PutUint16(h[54:], 56)
	binary.LittleEndian.PutUint16(h[58:], 64)
	return &fstest.MapFile{Data: h, Mode: 0o644}
}

// cache builds an ld.so.cache.
func cache(libs ...Library) []byte {
	head := make([]byte, 48+24*len(libs))
	copy(head, cacheMagicNew)
	binary.LittleEndian.PutUint32(head[20:], uint32(len(libs)))
	data := head
	for i, l := range libs {
		e := data[48+24*i:]
		binary.LittleEndian.PutUint32(e, l.Flags)
		binary.LittleEndian.PutUint32(e[4:], uint32(len(data)))
		binary.LittleEndian.PutUint32(e[8:], uint32(len(data)+len(l.Soname)+1))
		data = append(data, l.Soname+"\x00"+l.Path+"\x00"...)
	}
	return data
}

func TestFindLibrary(t *testing.T) {
	x86, arm := elf.EM_X86_64, elf.EM_AARCH64
	libs := []Library{
		{"libc.so.6", "/lib/arm/libc.so.6", 0x0a03},
		{"libc.so.6", "/lib32/libc.so.6", 0x0003},
		{"libc.so.6", "/lib/x/libc.so.6", 0x0303},
		{"libcap.so.2", "/lib/x/libcap.so.2", 0x0303},
		{"libgone.so.1", "/lib/x/libgone.so.1", 0x0303},
		{"ld-linux-x86-64.so.2", "/lib/x/ld-linux-x86-64.so.2", 0x0303},
	}
	root := fstest.MapFS{
		"etc/ld.so.cache":              {Data: cache(libs...)},
		"etc/ld.so.conf":               {Data: []byte("# comment\ninclude ld.so.conf.d/*.conf\n/opt/lib # mine\nhwcap 1 x\n")},
		"etc/ld.so.conf.d/a.conf":      {Data: []byte("/opt/a\ninclude /etc/ld.so.conf\n")},
		"etc/ld-musl-x86_64.path":      {Data: []byte("/musl/lib:/musl/more\n")},
		"lib/arm/libc.so.6":            library(arm),
		"lib/x/libc.so.6":              library(x86),
		"lib32/libc.so.6":              {Data: []byte("\x7fELF\x01")},
		"lib/x/libcap.so.2":            library(x86),
		"lib/x/ld-linux-x86-64.so.2":   library(x86),
		"opt/a/libnew.so.3.1":          library(x86),
		"opt/lib/libnew.so.3.1":        library(arm),
		"usr/lib/libgone.so":           {Data: []byte("/* GNU ld script */")},
		"usr/lib/libgone.so.1":         library(x86),
		"usr/lib/x86-linux-gnu/w.so.1": library(x86),
		"musl/more/libm.so":            library(x86),
	}
	for _, c := range []struct {
		name    string
		machine elf.Machine
		want    string
	}{
		{"libc", x86, "/lib/x/libc.so.6"},
		{"c", x86, "/lib/x/libc.so.6"},
		{"libc.so.6", x86, "/lib/x/libc.so.6"},
		{"libc", arm, "/lib/arm/libc.so.6"},
		{"libca", x86, ""},
		{"cap", x86, "/lib/x/libcap.so.2"},
		{"ld-linux-x86-64", x86, "/lib/x/ld-linux-x86-64.so.2"},
		{"new", x86, "/opt/a/libnew.so.3.1"},
		{"libnew", arm, "/opt/lib/libnew.so.3.1"},
		{"gone", x86, "/usr/lib/libgone.so.1"},
		{"w", x86, "/usr/lib/x86-linux-gnu/w.so.1"},
		{"m", x86, "/musl/more/libm.so"},
		{"", x86, ""},
		{"../lib", x86, ""},
		{"lib", x86, ""},
	} {
		got, err := FindLibrary(root, c.name, c.machine)
		var missing *NotFoundError
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.As(err, &missing) {
			t.Errorf("FindLibrary(%q, %v) = %q, %v; want %q", c.name, c.machine, got, err, c.want)
		}
	}

	// The old table in front, as ldconfig wrote it for long.
	old := make([]byte, 16+12*3)
	copy(old, cacheMagicOld)
	binary.LittleEndian.PutUint32(old[12:], 3)
	for len(old)%8 != 0 {
		old = append(old, 0)
	}
	got, err := ParseLibraryCache(append(old, cache(libs...)...))
	if err != nil || !slices.Equal(got, libs) {
		t.Errorf("with the old table: %v, %v", got, err)
	}
}

// The live machine's cache against ldconfig -p.
func TestLibraryCacheLive(t *testing.T) {
	data, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skip(err)
	}
	libs, err := ParseLibraryCache(data)
	if err != nil {
		t.Fatal(err)
	}
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		ldconfig = "/sbin/ldconfig"
	}
	out, err := exec.Command(ldconfig, "-p").Output()
	if err != nil {
		t.Skipf("ldconfig: %v", err)
	}
	for _, l := range libs {
		if !strings.Contains(string(out), "\t"+l.Soname+" (") || !strings.Contains(string(out), "=> "+l.Path+"\n") {
			t.Errorf("ldconfig does not know %+v", l)
		}
	}
	if n := strings.Count(string(out), "=>"); n != len(libs) {
		t.Errorf("%d libraries, ldconfig has %d", len(libs), n)
	}
}

func FuzzLibraryCache(f *testing.F) {
	f.Add(cache(Library{"libc.so.6", "/lib/libc.so.6", 0x303}))
	f.Add([]byte(cacheMagicOld + "\x00\x00\x00\x00\x00" + cacheMagicNew))
	f.Fuzz(func(t *testing.T, data []byte) {
		libs, err := ParseLibraryCache(data)
		if err == nil && len(libs)*24 > len(data) {
			t.Errorf("%d libraries in %d bytes", len(libs), len(data))
		}
	})
}

func TestFindProgram(t *testing.T) {
	x := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o755} }
	root := fstest.MapFS{
		"bin/bash":        x("\x7fELF"),
		"bin/plain":       {Data: []byte("text"), Mode: 0o644},
		"usr/bin/env":     x("\x7fELF"),
		"usr/bin/python3": x("\x7fELF"),
		"usr/bin/plain":   x("\x7fELF"),
		"bin/script":      x("#!/bin/bash -e\necho"),
		"bin/snake":       x("#! /usr/bin/env -S VAR=1 python3 -u\n"),
		"bin/twice":       x("#!/bin/script\n"),
		"bin/loop":        x("#!/bin/loop\n"),
		"bin/broken":      x("#!/bin/nothing\n"),
		"bin/dir/x":       x(""),
		"lib/libssl.so.3": library(elf.EM_X86_64),
		"opt/data.bin":    {Data: []byte("x"), Mode: 0o644},
	}
	const env = ":relative:/bin:/usr/bin"
	for name, want := range map[string]string{
		"bash": "/bin/bash", "script": "/bin/bash", "snake": "/usr/bin/python3", "twice": "/bin/bash",
		"plain": "/usr/bin/plain", "/bin/../bin/bash": "/bin/bash", "loop": "", "broken": "", "nothing": "", "dir": "",
		"/bin/plain": "", "/nowhere": "", "": "",
	} {
		got, err := FindProgram(root, env, name)
		if (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("FindProgram(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"ssl": "/lib/libssl.so.3", "bash": "/bin/bash", "/lib/libssl.so.3": "/lib/libssl.so.3", "/opt/data.bin": "/opt/data.bin", "nothing": "", "/no": "",
	} {
		got, err := ResolveBinary(root, env, name, elf.EM_NONE)
		if (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("ResolveBinary(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := FindExecutable(root, "/bin", "plain"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that is not executable: %v", err)
	}
}

func TestFindProgramLive(t *testing.T) {
	want, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	if want, err = filepath.Abs(want); err != nil {
		t.Fatal(err)
	}
	got, err := FindProgram(os.DirFS("/"), os.Getenv("PATH"), "sh")
	if err != nil || got != want {
		t.Errorf("sh is %q, %v; want %q", got, err, want)
	}
}
