package codegen

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/opt"
	"github.com/skep-bpf/skep/object"
)

// TestFarJumps runs a program whose loop and branches span more than the
// 32,767 instructions that a jump reaches.
func TestFarJumps(t *testing.T) {
	needKernel(t)
	const stores = 50_000
	for _, cpu := range []int{3, 4} {
		m := &ir.Module{Name: "far", License: "GPL"}
		f := m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I32)
		f.Section = "syscall"
		b := ir.NewBuilder(f)
		ctx := f.Params()[0]
		x := b.Load(ir.I64, ctx)
		head, big, skip, out := f.NewBlock("head"), f.NewBlock("big"), f.NewBlock("skip"), f.NewBlock("out")
		i := head.NewParam(ir.I64, "i")
		b.Jump(head, b.Const(ir.I64, 0))
		b.At(head)
		b.If(b.Compare(ir.OpEq, x, b.Const(ir.I64, 7)), skip, big)
		b.At(big)
		for n := range stores {
			b.Store(b.Offset(ctx, int64(8+n%8)), b.Resize(x, ir.I8, false))
		}
		b.Jump(skip)
		b.At(skip)
		next := b.Binary(ir.OpAdd, i, b.Const(ir.I64, 1))
		b.Store(b.Offset(ctx, 16), next)
		b.IfEdges(b.Compare(ir.OpULt, next, b.Const(ir.I64, 3)), ir.Edge{To: head, Args: []*ir.Value{next}}, ir.Edge{To: out})
		b.At(out)
		b.Return(b.Const(ir.I32, 5))

		obj, err := Generate(m, Options{CPU: cpu, NoOptimise: true})
		if err != nil {
			t.Fatal(err)
		}
		l, err := load(obj, "main", progSyscall)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		for _, x := range []uint64{7, 0x33} {
			got := make([]byte, 24)
			binary.LittleEndian.PutUint64(got, x)
			want := bytes.Clone(got)
			if x != 7 {
				copy(want[8:], bytes.Repeat([]byte{byte(x)}, 8))
			}
			want[16] = 3
			result, err := l.run(got)
			if err != nil || result != 5 || !bytes.Equal(got, want) {
				t.Errorf("cpu %d, x %d: result %d, ctx % x, want % x, error %v", cpu, x, result, got, want, err)
			}
		}
	}
}

// compileAndRun compiles IR text and runs its function main on ctx.
func compileAndRun(t *testing.T, text string, opts Options, ctx []byte) (uint32, *loaded, *object.Object) {
	t.Helper()
	needKernel(t)
	m, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := ir.Check(m); err != nil {
		t.Fatal(err)
	}
	opts.Optimiser.Check = true
	obj, err := Generate(m, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := load(obj, "main", progSyscall)
	if err != nil {
		t.Fatalf("%v\n%s", err, listing(obj))
	}
	t.Cleanup(l.close)
	result, err := l.run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return result, l, obj
}

// TestReads reads user and kernel memory, right and wrong addresses.
func TestReads(t *testing.T) {
	text := `module "reads" license "GPL"
type $u64 = int 8
global @table section ".rodata" type $u64 init "1122334455667788"
func program @main -> i32 section "syscall" {
^entry(%ctx: ptr.ctx):
  %a: i64 = load %ctx
  %u: ptr.user = inttoptr %a
  %x: i32 = load %u
  %x64: i64 = zext %x
  %c8: i64 = const 8
  %p8: ptr.ctx = ptradd %ctx, %c8
  store %p8, %x64
  %n: i64 = const 4096
  %k: ptr.kernel = inttoptr %n
  %y: i64 = load %k
  %c16: i64 = const 16
  %p16: ptr.ctx = ptradd %ctx, %c16
  store %p16, %y
  %buf: ptr.stack[8] = alloca 8
  %err: i64 = memcopy 8 %buf, %k
  %c24: i64 = const 24
  %p24: ptr.ctx = ptradd %ctx, %c24
  store %p24, %err
  %t: ptr.value[8] = global @table
  %tk: ptr.kernel = ptrcast %t
  %z: i64 = load %tk
  %c32: i64 = const 32
  %p32: ptr.ctx = ptradd %ctx, %c32
  store %p32, %z
  %r: i32 = const 3
  return %r
}`
	secret := []byte{0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4}
	ctx := make([]byte, 40)
	for i := range ctx {
		ctx[i] = 0x55
	}
	binary.LittleEndian.PutUint64(ctx, addr(secret))
	compileAndRun(t, text, Options{}, ctx)
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(ctx[8*i:]) }
	if word(1) != 0xefbeadde || word(2) != 0 || word(4) != 0x8877665544332211 {
		t.Errorf("read %#x, want 0xefbeadde; %#x, want 0; %#x, want 0x8877665544332211", word(1), word(2), word(4))
	}
	if int64(word(3)) >= 0 {
		t.Errorf("a read of a bad address gave %d, want a negative error", word(3))
	}
}

// bigCopy fills an alloca of size bytes, copies it, clears part of it, and
// sums up what is there in the end.
func bigCopy(size int) *ir.Module {
	m := &ir.Module{Name: "copy", License: "GPL"}
	f := m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I32)
	f.Section = "syscall"
	b := ir.NewBuilder(f)
	ctx := f.Params()[0]
	x := b.Load(ir.I64, ctx)
	p, q := b.Alloca(size, nil, "p"), b.Alloca(size, nil, "q")
	b.MemZero(p, size)
	b.Store(b.Offset(p, int64(size-8)&^7), x)
	b.Store(p, x)
	b.MemCopy(q, p, size)
	b.MemZero(p, size)
	sum := b.Const(ir.I64, 0)
	for _, src := range []*ir.Value{p, q} {
		for off := 0; off+8 <= size; off += 8 {
			sum = b.Binary(ir.OpAdd, sum, b.Load(ir.I64, b.Offset(src, int64(off))))
		}
	}
	b.Store(b.Offset(ctx, 8), sum)
	b.Return(b.Const(ir.I32, 0))
	return m
}

// TestCopies copies and clears memory of sizes that take every way there is.
func TestCopies(t *testing.T) {
	needKernel(t)
	for _, size := range []int{8, 24, 100, 200, 256, 264, 330, 1000, 1024, 1025, 5000} {
		m := bigCopy(size)
		obj, err := Generate(m, Options{Optimiser: opt.Options{Check: true}})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		l, err := load(obj, "main", progSyscall)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		ctx := make([]byte, 16)
		ctx[0], ctx[7] = 3, 1
		if _, err := l.run(ctx); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		want := 2 * binary.LittleEndian.Uint64(ctx)
		if size == 8 {
			want /= 2
		}
		if got := binary.LittleEndian.Uint64(ctx[8:]); got != want {
			t.Errorf("%d bytes: sum %#x, want %#x", size, got, want)
		}
		l.close()
	}
}

// TestScratchTaken finds all elements of a program that may meet itself taken:
// the run leaves and is counted.
func TestScratchTaken(t *testing.T) {
	needKernel(t)
	m := bigCopy(1000)
	loss := &ir.Global{Name: "losses", Section: ".bss", Init: make([]byte, 32)}
	m.Globals = append(m.Globals, loss)
	obj, err := Generate(m, Options{Optimiser: opt.Options{Check: true}, Loss: LossCounter{Var: loss, Index: 2}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := load(obj, "main", progSyscall)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var scratch int
	losses := l.vars[".bss"]
	var valueSize uint32
	for om, fd := range l.maps {
		if om.Name == "skep_scratch" {
			scratch, valueSize = fd, om.ValueSize
			if om.MaxEntries != scratchSlots {
				t.Errorf("%d elements, want %d", om.MaxEntries, scratchSlots)
			}
		}
	}
	cpus := possibleCPUs(t)
	element := func(index uint32, busy byte) {
		key := make([]byte, 4)
		binary.LittleEndian.PutUint32(key, index)
		value := make([]byte, int(valueSize)*cpus)
		for c := range cpus {
			value[c*int(valueSize)] = busy
		}
		if _, err := bpf(cmdMapUpdate, attr(uint32(scratch), uint32(0), addr(key), addr(value), uint64(0))); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n uint64) {
		key := make([]byte, 4)
		value := make([]byte, 32)
		if _, err := bpf(cmdMapLookup, attr(uint32(losses), uint32(0), addr(key), addr(value), uint64(0))); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(value[8*2:])
	}
	ran := func() bool {
		ctx := make([]byte, 16)
		ctx[0] = 1
		if _, err := l.run(ctx); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(ctx[8:]) == 2
	}
	for n := range uint32(scratchSlots) {
		if !twice(ran) || count() != 0 {
			t.Fatalf("with %d elements taken the program does not run: %d losses", n, count())
		}
		element(n, 1)
	}
	if ran() || count() != 1 {
		t.Fatalf("with all elements taken: %d losses, want 1", count())
	}
	element(1, 0)
	if !twice(ran) || count() != 1 {
		t.Fatalf("with one element free again the program does not run: %d losses", count())
	}
}

func twice(f func() bool) bool {
	ok := f()
	return f() && ok
}

func possibleCPUs(t *testing.T) int {
	data, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(data))
	n := 0
	for _, part := range strings.Split(text, ",") {
		_, last, ok := strings.Cut(part, "-")
		if !ok {
			last = part
		}
		n = 0
		for _, c := range last {
			n = 10*n + int(c-'0')
		}
	}
	return n + 1
}
