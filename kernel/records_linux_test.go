package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// writer is an object with a program that writes a 16-byte record at each run:
// a number that counts up, and what its context's first word is; and counts in
// "lost" the records that did not fit.
func writer(section string, typ abi.MapType, size uint32) *object.Object {
	m := &object.Map{Name: "out", Type: uint32(typ), MaxEntries: size}
	seq := &object.Var{Name: "seq", Section: ".bss", Type: typeU64}
	lost := &object.Var{Name: "lost", Section: ".bss", Type: typeU64}
	f := &object.Func{Name: "prog", Section: section, Insns: []isa.Instruction{
		isa.Mov64(isa.R6, isa.R1),
		isa.LoadMapValue(isa.R1, 0, 0), // seq
		isa.Mov64Imm(isa.R2, 1),
		isa.Atomic(isa.FetchAdd, isa.Double, isa.R1, 0, isa.R2),
		isa.StoreMem(isa.Double, isa.FP, -16, isa.R2),
		isa.Mov64Imm(isa.R2, 0x55),
		isa.StoreMem(isa.Double, isa.FP, -8, isa.R2),
	}}
	f.Relocs = append(f.Relocs, object.Reloc{Insn: 1, Kind: object.RelocVar, Symbol: seq})
	mapAt := len(f.Insns)
	if typ == abi.MapRingbuf {
		f.Insns = append(f.Insns,
			isa.LoadMapFD(isa.R1, 0), isa.Mov64(isa.R2, isa.FP), isa.ALU64Imm(isa.Add, isa.R2, -16),
			isa.Mov64Imm(isa.R3, 16), isa.Mov64Imm(isa.R4, 0), isa.Call(fnRingOutput))
	} else {
		m.KeySize, m.ValueSize = 4, 4
		f.Insns = append(f.Insns,
			isa.LoadMapFD(isa.R2, 0), isa.Mov64(isa.R1, isa.R6), isa.LoadImm64(isa.R3, 0xffffffff),
			isa.Mov64(isa.R4, isa.FP), isa.ALU64Imm(isa.Add, isa.R4, -16), isa.Mov64Imm(isa.R5, 16), isa.Call(fnPerfOutput))
	}
	f.Relocs = append(f.Relocs, object.Reloc{Insn: mapAt, Kind: object.RelocMap, Symbol: m})
	f.Insns = append(f.Insns, isa.JumpIfImm(isa.Eq, isa.R0, 0, 4))
	f.Relocs = append(f.Relocs, object.Reloc{Insn: len(f.Insns), Kind: object.RelocVar, Symbol: lost})
	f.Insns = append(f.Insns,
		isa.LoadMapValue(isa.R1, 0, 0), isa.Mov64Imm(isa.R2, 1), isa.Atomic(isa.AtomicAdd, isa.Double, isa.R1, 0, isa.R2),
		isa.Mov64Imm(isa.R0, 0), isa.Exit())
	return &object.Object{License: "GPL", Maps: []*object.Map{m}, Vars: []*object.Var{seq, lost}, Funcs: []*object.Func{f}}
}

func records(t testing.TB, l machine.Loaded) machine.Records {
	t.Helper()
	r, err := l.Records("out")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRecords(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		t.Run("ring buffer", func(t *testing.T) { testRecords(t, "raw_tp", abi.MapRingbuf, 4096) })
		t.Run("perf events", func(t *testing.T) { testRecords(t, "raw_tp", abi.MapPerfEventArray, 0) })
	})
}

func testRecords(t *testing.T, section string, typ abi.MapType, size uint32) {
	l := loadObject(t, writer(section, typ, size), machine.LoadOptions{})
	r := records(t, l)
	// More than the buffer holds at once, read as they come.
	const n = 2000
	next := uint64(0)
	for i := 0; i < n; i++ {
		if _, err := l.Run("prog"); err != nil {
			t.Fatal(err)
		}
		if i%7 != 0 && i != n-1 {
			continue
		}
		if i%14 == 0 && r.Pending() == 0 {
			t.Fatal("nothing is pending")
		}
		for next <= uint64(i) {
			r.SetDeadline(time.Now().Add(time.Second))
			b, err := r.Read()
			if err != nil {
				t.Fatalf("record %d: %v", next, err)
			}
			if len(b) < 16 || binary.NativeEndian.Uint64(b) != next && typ == abi.MapRingbuf || b[8] != 0x55 {
				t.Fatalf("record %d is %x", next, b)
			}
			next++
		}
		if r.Pending() != 0 {
			t.Fatalf("%d bytes are pending after all was read", r.Pending())
		}
	}
	if lost := number(t, l, "lost"); lost != 0 {
		t.Errorf("%d were lost", lost)
	}
	start := time.Now()
	r.SetDeadline(start.Add(20 * time.Millisecond))
	if b, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with nothing there: %x, %v", b, err)
	}
	if d := time.Since(start); d < 15*time.Millisecond || d > time.Second {
		t.Errorf("the deadline came after %v", d)
	}
	// A deadline set by somebody else ends a Read, too.
	r.SetDeadline(time.Time{})
	time.AfterFunc(10*time.Millisecond, func() { r.SetDeadline(time.Unix(1, 0)) })
	if _, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline in the past: %v", err)
	}
	// A record wakes a Read.
	r.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		time.Sleep(10 * time.Millisecond)
		l.Run("prog")
	}()
	if _, err := r.Read(); err != nil {
		t.Error(err)
	}
	// What is not read is lost, and counted: by the program, or by the kernel.
	for range 100_000 {
		if _, err := l.Run("prog"); err != nil {
			t.Fatal(err)
		}
		if typ == abi.MapRingbuf && number(t, l, "lost") > 0 {
			break
		}
	}
	if typ == abi.MapRingbuf && number(t, l, "lost") == 0 {
		t.Error("a full buffer lost nothing")
	}
	for r.Pending() > 0 {
		r.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := r.Read(); err != nil {
			break
		}
	}
	if typ == abi.MapPerfEventArray {
		// The next record of each CPU tells of those that were lost before.
		onEachCPU(t, func() { l.Run("prog") })
		r.SetDeadline(time.Now().Add(time.Second))
		for range onlineCPUs() {
			if _, err := r.Read(); err != nil {
				t.Error(err)
			}
		}
		if r.Lost() == 0 {
			t.Error("full rings lost nothing")
		}
	}
	// Close ends a Read, and all after it.
	r.SetDeadline(time.Time{})
	time.AfterFunc(10*time.Millisecond, func() { r.Close() })
	for {
		_, err := r.Read()
		if errors.Is(err, os.ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Read(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if r.Pending() != 0 || r.Close() != nil {
		t.Error("after Close something is pending, or a second Close fails")
	}
}

// onEachCPU calls f on each CPU in turn.
func onEachCPU(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &before)
	for _, cpu := range onlineCPUs() {
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Fatal(err)
		}
		f()
	}
}

// Every record that programs write on all CPUs under load arrives, in the order
// of each writer.
func TestRecordsUnderLoad(t *testing.T) {
	needKernel(t)
	l := loadObject(t, writer("raw_tp", abi.MapRingbuf, 1<<20), machine.LoadOptions{})
	r := records(t, l)
	const writers, each = 4, 20_000
	var wg sync.WaitGroup
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				if _, err := l.Run("prog"); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen := make([]bool, writers*each)
	got := 0
	for idle := 0; idle < 2; {
		r.SetDeadline(time.Now().Add(50 * time.Millisecond))
		b, err := r.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-done:
				idle++
			default:
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n := binary.NativeEndian.Uint64(b)
		if n >= uint64(len(seen)) || seen[n] {
			t.Fatalf("record %d came twice, or never was", n)
		}
		seen[n] = true
		got++
	}
	if lost := number(t, l, "lost"); got+int(lost) != writers*each || lost > 0 {
		t.Errorf("%d records and %d lost, want %d", got, lost, writers*each)
	}
}

// An idle reader costs nothing.
func TestRecordsIdle(t *testing.T) {
	needKernel(t)
	l := loadObject(t, writer("raw_tp", abi.MapRingbuf, 1<<16), machine.LoadOptions{})
	r := records(t, l)
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	r.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	if used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); used > 50*time.Millisecond {
		t.Errorf("waiting for 200 ms took %v of CPU time", used)
	}
}

func BenchmarkRecords(b *testing.B) {
	needKernel(b)
	l := loadObject(b, writer("raw_tp/sys_enter", abi.MapRingbuf, 1<<22), machine.LoadOptions{})
	r := records(b, l)
	link := attach(b, l, machine.Attach{Program: "prog"})
	defer link.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
				getpid(1000)
			}
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		r.SetDeadline(time.Time{})
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	b.ReportMetric(float64(number(b, l, "lost"))/float64(number(b, l, "seq"))*100, "%lost")
}

func TestPrints(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		text := &object.Var{Name: "text", Section: ".rodata", Init: []byte("skep counts %d\n\x00"), Static: true}
		program := func(name, section string, n int32) *object.Func {
			return &object.Func{
				Name: name, Section: section,
				Insns: []isa.Instruction{
					isa.LoadMapValue(isa.R1, 0, 0), isa.Mov64Imm(isa.R2, 16), isa.Mov64Imm(isa.R3, n), isa.Call(fnTracePrintk), isa.Mov64Imm(isa.R0, 0), isa.Exit(),
				},
				Relocs: []object.Reloc{{Insn: 0, Kind: object.RelocVar, Symbol: text}},
			}
		}
		l := loadObject(t, &object.Object{License: "GPL", Vars: []*object.Var{text}, Funcs: []*object.Func{
			program("prog", "raw_tp", 42), program("perf", "tp/syscalls/sys_enter_getsid", 43),
		}}, machine.LoadOptions{})
		r, err := l.Prints()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := l.Run("prog"); err != nil {
			t.Fatal(err)
		}
		attach(t, l, machine.Attach{Program: "perf"})
		getpid(1)
		r.SetDeadline(time.Now().Add(10 * time.Second))
		for _, want := range []string{": skep counts 42", ": skep counts 43"} {
			for {
				b, err := r.Read()
				if err != nil {
					t.Fatalf("%s: %v", want, err)
				}
				if strings.HasSuffix(string(b), want) && strings.Contains(string(b), "-") {
					break
				}
			}
		}
		if n := r.Lost(); n != 0 {
			t.Errorf("%d texts were lost", n)
		}
	})
}

// An iterator prints what its program writes, as often as it is opened.
func TestIterator(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		// ctx->meta->seq, and an 'x' for each element.
		o := &object.Object{License: "GPL", Funcs: []*object.Func{{
			Name: "prog", Section: "iter/bpf_map", Insns: []isa.Instruction{
				isa.LoadMem(isa.Double, isa.R2, isa.R1, 0), isa.LoadMem(isa.Double, isa.R1, isa.R2, 0),
				isa.StoreImm(isa.Byte, isa.FP, -1, 'x'), isa.Mov64(isa.R2, isa.FP), isa.ALU64Imm(isa.Add, isa.R2, -1),
				isa.Mov64Imm(isa.R3, 1), isa.Call(fnSeqWrite), isa.Mov64Imm(isa.R0, 0), isa.Exit(),
			},
		}}, Maps: mapObject(abi.MapHash, 0).Maps}
		l := loadObject(t, o, machine.LoadOptions{})
		link := attach(t, l, machine.Attach{Program: "prog"})
		it, ok := link.(machine.Iterator)
		if !ok {
			t.Fatalf("the link of an iterator is a %T", link)
		}
		for range 2 {
			f, err := it.Open()
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 4096)
			n, err := f.Read(buf)
			f.Close()
			if err != nil || n < 2 || strings.Trim(string(buf[:n]), "x") != "" {
				t.Errorf("it printed %q, %v", buf[:n], err)
			}
		}
	})
}

func ExampleNew() {
	fmt.Println(New().Name())
	// Output: kernel
}
