//go:build linux

package main

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// The same programs in the tracing language and in C, as somebody who knows
// libbpf would write them: for the same events, with maps of the same kinds and
// layouts, and the same losses counted. Both objects are loaded by the same
// loader, must leave the same in their maps after the same events, and are
// then timed by the kernel.

//go:embed programs
var programs embed.FS

// A program is written in both languages as programs/NAME.bt and
// programs/NAME.bpf.c.
type program struct {
	name  string
	about string
	// event causes the event that the program traces, the n-th time.
	event func(n int)
	// timed tells that the values of the maps are of times: how many entries
	// there are and what their counts sum up to is compared.
	timed bool
	// text is where text begins in the records that the program sends: what
	// stands behind its end does not count.
	text int
}

// unusedFD is a file descriptor that nobody has.
const unusedFD = 1000

var codePrograms = []program{
	{name: "count", about: "count of a system call", event: getpriority},
	{name: "filter", about: "filter over three arguments, sum", event: lseek},
	{name: "bycomm", about: "count by process name", event: getpriority},
	{name: "bytuple", about: "count by name, process and two arguments", event: getpriority},
	{name: "hist", about: "histograms in powers of two, by argument", event: getpriority},
	{name: "lhist", about: "linear histogram", event: getpriority},
	{name: "stats", about: "average, minimum, maximum, sum by argument", event: getpriority},
	{name: "latency", about: "time between entry and exit, histogram", event: getpriority, timed: true},
	{name: "names", about: "chain of comparisons of the process name", event: getpriority},
	{name: "path", about: "path in user memory compared with a string", event: readlinkat},
	{name: "print", about: "record with name and path, ring buffer", event: readlinkat, text: 32},
	{name: "walk", about: "walk through structs of the kernel, sum by two members", event: rename},
	{name: "rename", about: "text of a tracepoint compared by prefix, used as key", event: rename},
	{name: "stack", about: "tuples in tuples as keys of four maps", event: getpriority},
	{name: "loop", about: "loop of sixteen rounds with arithmetic", event: getpriority},
}

// getpriority is asked for what it does not know: it returns at once, and
// nothing else on the machine calls it like that.
func getpriority(n int) {
	_, _, _ = unix.RawSyscall(unix.SYS_GETPRIORITY, uintptr(100+n%4), uintptr(n*37%1200-100), 0)
}

func lseek(n int) {
	_, _, _ = unix.RawSyscall(unix.SYS_LSEEK, unusedFD+uintptr(n>>4&1), uintptr(n*97%6000), uintptr(n>>3&1))
}

var paths = [...][]byte{
	[]byte("/etc/skep/nothing-is-there\x00"), []byte("relative\x00"), []byte("/etc/skep/nothing-is-there/too\x00"),
	[]byte("/etc/skep/nothing-is-there\x00"),
}

// readlinkat refuses a buffer of no bytes.
func readlinkat(n int) {
	path := paths[n%len(paths)]
	_, _, _ = unix.RawSyscall6(unix.SYS_READLINKAT, unusedFD, uintptr(unsafe.Pointer(&path[0])), 0, 0, 0, 0)
}

var threadNames = [...][]byte{[]byte("skep-bench\x00"), []byte("skep-bench-2\x00"), []byte("bench-peer\x00"), []byte("skep-bench\x00")}

func rename(n int) {
	name := threadNames[n%len(threadNames)]
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
}

// A compiled is a program as one compiler made it.
type compiled struct {
	coll     *ebpf.Collection
	links    []link.Link
	names    []string // of its programs, sorted
	sections map[string]string

	object   int // instructions as the compiler wrote them
	xlated   int // and as the kernel has rewritten them
	verified int // that its verifier looked at
	ns       []float64
}

func (b *compiled) close() {
	b.detach()
	if b.coll != nil {
		b.coll.Close()
	}
}

func (b *compiled) detach() {
	for _, l := range b.links {
		_ = l.Close()
	}
	b.links = nil
}

// slots is the number of instructions of n bytes.
func slots(n int) int { return n / 8 }

// loadObject loads an object file.
func loadObject(path string) (*compiled, error) {
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		return nil, err
	}
	b := &compiled{sections: map[string]string{}}
	for name, p := range spec.Programs {
		b.sections[name] = p.SectionName
		b.names = append(b.names, name)
		b.object += slots(int(p.Instructions.Size()))
	}
	slices.Sort(b.names)
	if b.coll, err = ebpf.NewCollection(spec); err != nil {
		if refused := new(ebpf.VerifierError); errors.As(err, &refused) {
			return nil, fmt.Errorf("%s: %+v", path, refused)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range b.names {
		info, err := b.coll.Programs[name].Info()
		if err != nil {
			return nil, err
		}
		code, err := info.Instructions()
		if err != nil {
			return nil, err
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			return nil, errors.New("the kernel does not say how many instructions it verified (Linux 5.16 does)")
		}
		b.xlated += slots(int(code.Size()))
		b.verified += int(n)
	}
	return b, nil
}

// attach attaches the programs of a build, by their sections.
func (b *compiled) attach() error {
	for _, name := range b.names {
		p := b.coll.Programs[name]
		kind, event, _ := strings.Cut(b.sections[name], "/")
		var l link.Link
		var err error
		switch kind {
		case "raw_tp":
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: p})
		case "tp_btf":
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		case "tp", "tracepoint":
			group, event, _ := strings.Cut(event, "/")
			l, err = link.Tracepoint(group, event, p, nil)
		default:
			err = fmt.Errorf("no way to attach %q", b.sections[name])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.links = append(b.links, l)
	}
	return nil
}

// drain reads what is in the ring buffer, if the build has one.
func (b *compiled) drain(each func(record []byte)) error {
	m := b.coll.Maps["skep_events"]
	if m == nil {
		return nil
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer r.Close()
	r.SetDeadline(time.Now())
	for {
		record, err := r.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		each(record.RawSample)
	}
}

// An entry of a map, or a record of a ring buffer, which has no key.
type entry struct {
	where      string
	key, value []byte
}

func compareEntries(a, b entry) int {
	return cmp.Or(strings.Compare(a.where, b.where), bytes.Compare(a.key, b.key))
}

// result is what the events have left. Losses are an error.
func (b *compiled) result(p *program) ([]entry, error) {
	var all []entry
	for name, m := range b.coll.Maps {
		switch {
		case m.Type() == ebpf.RingBuf || name == "skep_scratch" || name == ".rodata":
			continue
		case name == ".bss":
			var value []byte
			if err := m.Lookup(uint32(0), &value); err != nil {
				return nil, err
			}
			if len(bytes.Trim(value, "\x00")) > 0 {
				return nil, fmt.Errorf("losses are counted: % x", value)
			}
			continue
		}
		perCPU := m.Type() == ebpf.PerCPUHash || m.Type() == ebpf.PerCPUArray
		var key, value []byte
		var values [][]byte
		into := any(&value)
		if perCPU {
			into = &values
		}
		for it := m.Iterate(); ; {
			if !it.Next(&key, into) {
				if err := it.Err(); err != nil {
					return nil, fmt.Errorf("map %s: %w", name, err)
				}
				break
			}
			if perCPU {
				value = bytes.Join(values, nil)
			}
			if p.timed {
				value = binary.NativeEndian.AppendUint64(nil, total(value))
			}
			all = append(all, entry{name, bytes.Clone(key), bytes.Clone(value)})
		}
	}
	slices.SortFunc(all, compareEntries)
	err := b.drain(func(record []byte) {
		record = bytes.Clone(record)
		if p.text > 0 {
			text := record[p.text:]
			clear(text[max(0, bytes.IndexByte(text, 0)):])
		}
		all = append(all, entry{where: "ring buffer", value: record})
	})
	return all, err
}

// total adds up the words of a value.
func total(value []byte) (sum uint64) {
	for word := range slices.Chunk(value, 8) {
		sum += binary.NativeEndian.Uint64(word)
	}
	return sum
}

// clear empties the maps.
func (b *compiled) clear() error {
	for name, m := range b.coll.Maps {
		switch m.Type() {
		case ebpf.RingBuf:
			if err := b.drain(func([]byte) {}); err != nil {
				return err
			}
		case ebpf.Hash, ebpf.PerCPUHash:
			var key []byte
			var keys [][]byte
			for m.NextKey(nil, &key) == nil {
				for err := error(nil); err == nil; err = m.NextKey(key, &key) {
					keys = append(keys, bytes.Clone(key))
				}
				for _, k := range keys {
					if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
						return fmt.Errorf("map %s: %w", name, err)
					}
				}
				keys = nil
			}
		case ebpf.PerCPUArray:
			var values [][]byte
			if err := m.Lookup(uint32(0), &values); err != nil {
				return err
			}
			for _, v := range values {
				clear(v)
			}
			if err := m.Put(uint32(0), values); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	burst      = 400 // events that a ring buffer has room for
	timedBurst = 50  // bursts that are timed in one round
	checks     = 10  // times that results may differ, since others cause events too
)

// cause causes n events.
func (p *program) cause(n int) {
	for i := range n {
		p.event(i)
	}
}

// outcome is what a build makes of a burst of events.
func (b *compiled) outcome(p *program) ([]entry, error) {
	if err := b.clear(); err != nil {
		return nil, err
	}
	rename(0)
	if err := b.attach(); err != nil {
		return nil, err
	}
	p.cause(burst)
	b.detach()
	rename(0)
	return b.result(p)
}

// same checks that builds make the same of the same events.
func same(p *program, builds []*compiled) error {
	var err error
	for range checks {
		var outcomes [][]entry
		for _, b := range builds {
			o, err := b.outcome(p)
			if err != nil {
				return err
			}
			outcomes = append(outcomes, o)
		}
		if err = differ(outcomes[0], outcomes[1]); err == nil {
			return nil
		}
	}
	return err
}

func differ(a, b []entry) error {
	if len(a) == 0 {
		return errors.New("the events left nothing")
	}
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a) || i >= len(b):
			return fmt.Errorf("%d entries, and %d", len(a), len(b))
		case compareEntries(a[i], b[i]) != 0 || !bytes.Equal(a[i].value, b[i].value):
			return fmt.Errorf("entry %d differs: %s % x: % x, and %s % x: % x", i,
				a[i].where, a[i].key, a[i].value, b[i].where, b[i].key, b[i].value)
		}
	}
	return nil
}

// time runs a build for a while and notes the nanoseconds of a run, those of
// its programs added up.
func (b *compiled) time(p *program) error {
	if err := b.attach(); err != nil {
		return err
	}
	defer b.detach()
	type stats struct{ ns, runs float64 }
	read := func() (list []stats, err error) {
		for _, name := range b.names {
			s, err := b.coll.Programs[name].Stats()
			if err != nil {
				return nil, err
			}
			list = append(list, stats{float64(s.Runtime.Nanoseconds()), float64(s.RunCount)})
		}
		return list, nil
	}
	ignore := func([]byte) {}
	p.cause(burst)
	if err := b.drain(ignore); err != nil {
		return err
	}
	before, err := read()
	if err != nil {
		return err
	}
	for range timedBurst {
		p.cause(burst)
		if err := b.drain(ignore); err != nil {
			return err
		}
	}
	after, err := read()
	if err != nil {
		return err
	}
	ns := 0.0
	for i := range after {
		ns += (after[i].ns - before[i].ns) / (after[i].runs - before[i].runs)
	}
	b.ns = append(b.ns, ns)
	return nil
}

// unpack writes the programs into a directory.
func unpack(dir string) error {
	sources, err := programs.ReadDir("programs")
	if err != nil {
		return err
	}
	for _, f := range sources {
		text, err := programs.ReadFile("programs/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command runs a compiler.
func command(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", args, err, out)
	}
	return nil
}

// clang compiles a program that was unpacked to dir.
func (p *program) clang(dir, object string) error {
	return command("clang", "-O2", "-g", "-mcpu=v3", "-target", "bpf", "-Wall", "-Werror",
		"-I", "/usr/include/x86_64-linux-gnu", "-c", filepath.Join(dir, p.name+".bpf.c"), "-o", object)
}

// code compares the code of skep with that of clang.
func (b *bencher) code() error {
	if runtime.GOARCH != "amd64" {
		return errors.New("the programs in C know the registers and system calls of amd64 alone; leave this table out with -only")
	}
	version, err := exec.Command("clang", "--version").Output()
	if err != nil {
		return fmt.Errorf("clang: %w (Debian's packages clang and libbpf-dev have what this needs)", err)
	}
	compiler, _, _ := strings.Cut(string(version), "\n")
	dir, err := os.MkdirTemp("", "skep-bench-code")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unpack(dir); err != nil {
		return err
	}
	defer pin()()
	enabled, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return err
	}
	defer enabled.Close()

	var all [][2]*compiled
	defer func() {
		for _, pair := range all {
			pair[0].close()
			pair[1].close()
		}
	}()
	for i := range codePrograms {
		p := &codePrograms[i]
		paths := [2]string{filepath.Join(dir, p.name+".skep.o"), filepath.Join(dir, p.name+".clang.o")}
		if err := command(filepath.Join(b.dir, "skep"), "build", filepath.Join(dir, p.name+".bt"), "-o", paths[0]); err != nil {
			return err
		}
		if err := p.clang(dir, paths[1]); err != nil {
			return err
		}
		var pair [2]*compiled
		for j, path := range paths {
			if pair[j], err = loadObject(path); err != nil {
				return err
			}
		}
		all = append(all, pair)
		if err := same(p, pair[:]); err != nil {
			return fmt.Errorf("%s: skep and clang: %w", p.name, err)
		}
	}
	for round := range b.reps {
		for i := range codePrograms {
			for j := range all[i] {
				// Neither is always the one that finds the caches warm.
				if err := all[i][(j+round)%2].time(&codePrograms[i]); err != nil {
					return fmt.Errorf("%s: %w", codePrograms[i].name, err)
				}
			}
		}
	}
	codeTable(&b.out, compiler, all)
	return nil
}

// pin keeps this thread on one processor until the function that it returns is called.
func pin() func() {
	var before, one unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil {
		return func() {}
	}
	for cpu := range 8 * int(unsafe.Sizeof(before)) {
		if before.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	_ = unix.SchedSetaffinity(0, &one)
	return func() { _ = unix.SchedSetaffinity(0, &before) }
}

func codeTable(w io.Writer, compiler string, all [][2]*compiled) {
	fmt.Fprintf(w, `
### Generated code

Fifteen programs in the tracing language and in C (internal/bench/programs),
compiled by skep and by %s with -O2 -mcpu=v3: for the
same events, with the same maps and records, which were compared. Each pair of
columns is skep and clang, then the ratio: instructions in the object, those
that the kernel's verifier looked at, those that the kernel runs (xlated), and
nanoseconds of a run by the kernel's run_time_ns and run_cnt, which have the
time that measuring takes in them.

| program | object | | ratio | verified | | ratio | xlated | | ratio | ns | | ratio |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`, compiler)
	id := func(f float64) float64 { return f }
	var logs [4]float64
	for i, pair := range all {
		values := func(b *compiled) [4]float64 {
			return [4]float64{float64(b.object), float64(b.verified), float64(b.xlated), median(b.ns, id)}
		}
		ours, theirs := values(pair[0]), values(pair[1])
		fmt.Fprintf(w, "| `%s`: %s |", codePrograms[i].name, codePrograms[i].about)
		for k := range logs {
			ratio := ours[k] / theirs[k]
			logs[k] += math.Log(ratio)
			fmt.Fprintf(w, " %.0f | %.0f | %.2f |", ours[k], theirs[k], ratio)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "| geometric mean |")
	for _, l := range logs {
		fmt.Fprintf(w, " | | %.3f |", math.Exp(l/float64(len(all))))
	}
	fmt.Fprintln(w)
}
