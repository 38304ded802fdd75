package codegen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
)

// The tests speak to the kernel directly: an object's functions are linked as
// a loader would link them and given to bpf(2) without types, so that nothing
// but the instructions is judged.

const (
	cmdMapCreate  = 0
	cmdMapLookup  = 1
	cmdMapUpdate  = 2
	cmdProgLoad   = 5
	cmdProgRun    = 10
	cmdGetInfo    = 15
	progSocket    = 1
	progSyscall   = 31
	flagSleepable = 1 << 4
)

func bpf(cmd int, attr []byte) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EAGAIN, unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// attr lays out the fields of union bpf_attr one after the other.
func attr(fields ...any) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		if err := binary.Write(&b, binary.LittleEndian, f); err != nil {
			panic(err)
		}
	}
	out := make([]byte, 168)
	copy(out, b.Bytes())
	return out
}

func addr(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// needKernel skips where programs cannot be loaded.
func needKernel(t testing.TB) {
	t.Helper()
	code := []isa.Instruction{isa.Mov64Imm(0, 0), isa.Exit()}
	fd, _, err := loadInsns(code, progSyscall, false)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the kernel does not let us load programs: %v", err)
		}
		t.Skipf("the kernel does not let us load programs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

func loadInsns(code []isa.Instruction, progType uint32, verbose bool) (fd int, log string, err error) {
	raw, err := isa.Encode(nil, binary.LittleEndian, code)
	if err != nil {
		return -1, "", err
	}
	license := []byte("GPL\x00")
	flags := uint32(0)
	if progType == progSyscall {
		flags = flagSleepable
	}
	var logBuf []byte
	level := uint32(0)
	if verbose {
		logBuf, level = make([]byte, 8<<20), 2
	}
	a := attr(progType, uint32(len(raw)/8), addr(raw), addr(license), level, uint32(len(logBuf)), addr(logBuf),
		uint32(0), flags)
	fd, err = bpf(cmdProgLoad, a)
	if verbose {
		log = string(bytes.TrimRight(logBuf, "\x00"))
	}
	return fd, log, err
}

// A loaded program and its maps.
type loaded struct {
	fd   int
	maps map[*object.Map]int
	vars map[string]int // section to map
	code []isa.Instruction
}

func (l *loaded) close() {
	unix.Close(l.fd)
	for _, fd := range l.maps {
		unix.Close(fd)
	}
	for _, fd := range l.vars {
		unix.Close(fd)
	}
}

func createMap(typ, key, value, entries, flags uint32) (int, error) {
	return bpf(cmdMapCreate, attr(typ, key, value, entries, flags))
}

// load links function name of obj with what it calls and loads it.
func load(obj *object.Object, name string, progType uint32) (*loaded, error) {
	l := &loaded{maps: map[*object.Map]int{}, vars: map[string]int{}}
	for _, m := range obj.Maps {
		fd, err := createMap(m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", m.Name, err)
		}
		l.maps[m] = fd
	}
	type place struct {
		section string
		off     uint32
	}
	places := map[*object.Var]place{}
	sections := map[string][]byte{}
	for _, v := range obj.Vars {
		data := sections[v.Section]
		for len(data)%8 != 0 {
			data = append(data, 0)
		}
		places[v] = place{v.Section, uint32(len(data))}
		sections[v.Section] = append(data, v.Init...)
	}
	for name, data := range sections {
		fd, err := createMap(2, 4, uint32(len(data)), 1, 0)
		if err != nil {
			return nil, err
		}
		key := make([]byte, 4)
		if _, err := bpf(cmdMapUpdate, attr(uint32(fd), uint32(0), addr(key), addr(data), uint64(0))); err != nil {
			return nil, err
		}
		l.vars[name] = fd
	}
	var main *object.Func
	for _, f := range obj.Funcs {
		if f.Name == name {
			main = f
		}
	}
	funcs := []*object.Func{main}
	start := map[*object.Func]int{main: 0}
	for i := 0; i < len(funcs); i++ {
		f := funcs[i]
		for _, r := range f.Relocs {
			if callee, ok := r.Symbol.(*object.Func); ok {
				if _, seen := start[callee]; !seen {
					start[callee] = -1
					funcs = append(funcs, callee)
				}
			}
		}
	}
	slot := 0
	for _, f := range funcs {
		start[f] = slot
		slot += isa.Slots(f.Insns)
	}
	for _, f := range funcs {
		code := append([]isa.Instruction(nil), f.Insns...)
		at := make([]int, len(code))
		slot := start[f]
		for i := range code {
			at[i] = slot
			slot += code[i].Size()
		}
		for _, r := range f.Relocs {
			i := &code[r.Insn]
			switch sym := r.Symbol.(type) {
			case *object.Map:
				*i = isa.LoadMapFD(i.Dst, int32(l.maps[sym]))
			case *object.Var:
				p := places[sym]
				*i = isa.LoadMapValue(i.Dst, int32(l.vars[p.section]), p.off)
			case *object.Func:
				if r.Kind == object.RelocCall {
					i.Imm = int64(start[sym] - at[r.Insn] - 1)
				} else {
					*i = isa.LoadFunc(i.Dst, int32(start[sym]-at[r.Insn]-1))
				}
			}
		}
		l.code = append(l.code, code...)
	}
	fd, _, err := loadInsns(l.code, progType, false)
	if err != nil {
		_, log, _ := loadInsns(l.code, progType, true)
		if len(log) > 6000 {
			log = log[:1500] + "\n...\n" + log[len(log)-4500:]
		}
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	l.fd = fd
	return l, nil
}

// run runs a syscall program on ctx, which it changes.
func (l *loaded) run(ctx []byte) (uint32, error) {
	a := attr(uint32(l.fd), uint32(0), uint32(0), uint32(0), uint64(0), uint64(0), uint32(0), uint32(0),
		uint32(len(ctx)), uint32(0), addr(ctx), uint64(0))
	_, err := bpf(cmdProgRun, a)
	return binary.LittleEndian.Uint32(a[4:]), err
}
