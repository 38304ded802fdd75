package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/isa"
)

// TestNotAnObject checks that the error for a file of another kind says what
// it is and what to do.
func TestNotAnObject(t *testing.T) {
	machine := func(m elf.Machine) func(b []byte) []byte {
		return func(b []byte) []byte {
			binary.LittleEndian.PutUint16(b[18:], uint16(m))
			return b
		}
	}
	tests := []struct {
		want string
		make func(object []byte) []byte
	}{
		{"the file is empty", func([]byte) []byte { return nil }},
		{"LLVM bitcode, which clang writes with -flto", func([]byte) []byte { return []byte("BC\xc0\xde5\x14\x00\x00") }},
		{"an archive of objects", func([]byte) []byte { return []byte("!<arch>\n/               0") }},
		{"Mach-O", func([]byte) []byte { return []byte("\xcf\xfa\xed\xfe\x07\x00\x00\x01") }},
		{"a Windows program", func([]byte) []byte { return []byte("MZ\x90\x00") }},
		{"BTF types alone", func([]byte) []byte { return []byte("\x9f\xeb\x01\x00\x18\x00\x00\x00") }},
		{"compressed: unpack it first", func([]byte) []byte { return []byte("\x1f\x8b\x08\x00") }},
		{"text, not a BPF object", func([]byte) []byte { return []byte("BEGIN { exit(); }\n") }},
		{"not a BPF object (an ELF file)", func([]byte) []byte { return []byte("\x00\x01\x02\x03\xff") }},
		{"made for amd64, not for BPF: compile it with `clang -target bpf`", machine(elf.EM_X86_64)},
		{"made for the machine EM_S390", machine(elf.EM_S390)},
		{"32-bit ELF", func(b []byte) []byte { b[elf.EI_CLASS] = 1; return b }},
		{"of type 2", func(b []byte) []byte { b[16] = 2; return b }},
		{"cut off or damaged", func(b []byte) []byte { return b[:len(b)-1] }},
		{"cut off or damaged", func(b []byte) []byte { return b[:40] }},
	}
	for _, test := range tests {
		data := test.make(marshal(t, counterObject()))
		if _, err := Read(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

// endless is a file without an end.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

type broken struct{ err error }

func (b broken) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func TestReadFailure(t *testing.T) {
	if _, err := Read(endless{}); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("got %v", err)
	}
	if _, err := Read(broken{io.ErrClosedPipe}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

// TestTruncated reads every beginning of an object.
func TestTruncated(t *testing.T) {
	data := marshal(t, counterObject())
	for n := range data {
		if _, err := Unmarshal(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken for an object", n, len(data))
		}
	}
}

// TestFlipped reads objects with one byte changed: they must not make Read
// panic, and what it takes must not make Marshal panic.
func TestFlipped(t *testing.T) {
	for name, sample := range samples() {
		good := marshal(t, sample())
		flips := []byte{0xff}
		if name == "counter" {
			flips = []byte{0x01, 0x80, 0xff}
		}
		for n := range good {
			for _, flip := range flips {
				data := bytes.Clone(good)
				data[n] ^= flip
				if o, err := Unmarshal(data); err == nil {
					_, _ = o.Marshal()
				}
			}
		}
	}
}

// brokenObject returns the counter's object after change was made to the
// section of that name.
func brokenObject(t *testing.T, section string, change func(data []byte)) []byte {
	data := marshal(t, counterObject())
	f, err := parseELF(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.sections {
		if s.name == section {
			change(data[s.off : s.off+s.size])
			return data
		}
	}
	t.Fatalf("no section %s", section)
	return nil
}

func TestDamaged(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		want, section string
		change        func(data []byte)
	}{
		{"unknown opcode", "raw_tp/sys_enter", func(b []byte) { b[0] = 0xff }},
		{"symbol 999 is not there", ".relraw_tp/sys_enter", func(b []byte) { le.PutUint32(b[12:], 999) }},
		{"lies outside of raw_tp/sys_enter", ".relraw_tp/sys_enter", func(b []byte) { le.PutUint64(b, 4096) }},
		{"middle of an instruction", ".relraw_tp/sys_enter", func(b []byte) { le.PutUint64(b, 40) }},
		{"cannot refer to", ".relraw_tp/sys_enter", func(b []byte) { le.PutUint64(b, 0) }},
		{"lies outside of its section", ".symtab", func(b []byte) { le.PutUint64(b[symSize+16:], 1<<40) }},
		{"does not consist of instructions", ".symtab", func(b []byte) { b[symSize+16] = 95 }},
		{"is in section 77", ".symtab", func(b []byte) { b[symSize+6] = 77 }},
		{"was it stripped", ".symtab", func(b []byte) { b[symSize+4] = 0x11 }},
		{"BTF of the file's byte order", ".BTF", func(b []byte) { b[0] = 0 }},
		{"cut off", ".BTF", func(b []byte) { le.PutUint32(b[12:], 1<<31) }},
		{"of kind 31", ".BTF", func(b []byte) { b[24+7] = 31 }},
		{"BTF of version 1", ".BTF.ext", func(b []byte) { b[2] = 9 }},
		{"records have 2 bytes", ".BTF.ext", func(b []byte) { le.PutUint32(b[32:], 2) }},
		{"cut off", ".BTF.ext", func(b []byte) { le.PutUint32(b[40:], 1<<31) }},
		{"the manifest is damaged", ManifestSection, func(b []byte) { b[0] = 'x' }},
		{"made by a newer skep", ManifestSection, func(b []byte) { copy(b, bytes.Replace(b, []byte(`"version":1`), []byte(`"version":7`), 1)) }},
		{"does not fit its object: map @reads is kept in \"AT_rea_s\", which is not there, did you mean \"AT_reads\"?", ManifestSection, func(b []byte) {
			copy(b, bytes.Replace(b, []byte("AT_reads"), []byte("AT_rea_s"), 1))
		}},
		{"whose byte order is not the file's", ManifestSection, func(b []byte) { copy(b, bytes.Replace(b, []byte(`"amd64"`), []byte(`"s390x"`), 1)) }},
	}
	for _, test := range tests {
		data := brokenObject(t, test.section, test.change)
		if _, err := Unmarshal(data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

// TestDeepTypes reads types as deep as a file can have them.
func TestDeepTypes(t *testing.T) {
	le := binary.LittleEndian
	o := counterObject()
	o.Manifest, o.Maps, o.Funcs[0].Relocs = nil, nil, nil
	file, err := parseELF(marshal(t, o))
	if err != nil {
		t.Fatal(err)
	}
	// Type 1 is the function; all others are pointers to the next, the last
	// to the first.
	const count = maxTypes - 10
	for _, s := range file.sections {
		if s.name != sectionBTF {
			continue
		}
		strings := s.data[btfHeaderSize+le.Uint32(s.data[16:]):]
		name := le.Uint32(s.data[btfHeaderSize:])
		var types []byte
		add := func(words ...uint32) {
			for _, w := range words {
				types = le.AppendUint32(types, w)
			}
		}
		add(name, 12<<24|1, 2) // FUNC
		for id := uint32(2); id <= count; id++ {
			add(0, 2<<24, id%count+1) // PTR
		}
		raw := bytes.Clone(s.data[:btfHeaderSize])
		le.PutUint32(raw[12:], uint32(len(types)))
		le.PutUint32(raw[16:], uint32(len(types)))
		raw = append(append(raw, types...), strings...)
		start := time.Now()
		r := &reader{file: &elfFile{order: le, sections: []elfSection{{}, {name: sectionBTF, typ: elf.SHT_PROGBITS, data: raw}}}, o: &Object{}}
		if err := r.readTypes(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.typeByID(1); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d types in %v", count, time.Since(start))
	}
}

func TestManifestRoundTrip(t *testing.T) {
	m := counterObject().Manifest
	m.Events = []Event{{Kind: EventPrintf, Format: "<%d>\n\x00", Size: 24, Args: []Field{{Offset: 8, Type: Type{Kind: TypeInt, Size: 8}}}}}
	m.Facts = []Fact{{Kind: FactFormat, Name: "sched:sched_switch", Value: "abc"}}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		`{"version":1} {}`:           "after top-level value",
		`{"version":1,"fast":true}`:  `unknown field "fast"`,
		`{"version":0}`:              "no version",
		`{}`:                         "no version",
		`[1]`:                        "damaged",
		``:                           "damaged",
		`{"version":2,"fast":true}`:  "update skep",
		`{"version":1,"maps":"two"}`: "damaged",
	} {
		if _, err := ParseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// fullObject has a manifest with something of everything.
func fullObject() *Object {
	o := counterObject()
	o.Maps = append(
		o.Maps,
		&Map{Name: "events", Type: mapRingbuf, MaxEntries: 4096},
		&Map{Name: "stacks", Type: mapHash, KeySize: 8, ValueSize: 1016, MaxEntries: 10},
		&Map{Name: "AT_hist", Type: mapHash, KeySize: 16, ValueSize: uint32(8 * HistBuckets(0)), MaxEntries: 10},
	)
	o.Vars = []*Var{
		{Name: "losses", Section: ".bss", Type: &btf.Array{Index: typeU32, Type: typeU64, Nelems: 2}},
		{Name: "start", Section: ".data", Type: &btf.Array{Index: typeU32, Type: typeU64, Nelems: 2}},
	}
	m := o.Manifest
	m.RingBuffer, m.Counters, m.Stacks = "events", "losses", "stacks"
	m.Losses = []Loss{{Kind: LossEvent, Name: "printf"}, {Kind: LossMapFull, Name: "@"}}
	m.Facts = []Fact{{Kind: FactArch, Name: "arch", Value: "amd64"}}
	m.Maps = append(m.Maps, MapShow{Name: "@start", Var: "start", Value: Type{Kind: TypeInt, Size: 8}, Present: 8}, MapShow{
		Name: "@hist", Map: "AT_hist", KeySize: 16, Agg: AggHist, Present: -1,
		Keys: []Field{
			{Type: Type{Kind: TypeTuple, Size: 8, Fields: []Field{{Offset: 4, Bits: 3, BitOffset: 2, Type: Type{Kind: TypeInt, Size: 4}}}}},
			{Offset: 8, Type: Type{Kind: TypeString, Size: 8}},
		},
		Value: Type{Kind: TypeInt, Size: 8},
	})
	m.Events = []Event{
		{Kind: EventPrintf, Format: "%d", Size: 64, Args: []Field{
			{Offset: 8, Type: Type{Kind: TypeArray, Size: 16, Len: 4, Elem: &Type{Kind: TypeInt, Size: 4}}},
			{Offset: 24, Type: Type{Kind: TypeKstack, Size: StackSize}},
		}},
		{Kind: EventClear, Map: "@reads", Size: 8},
	}
	return o
}

// TestManifestCheck checks that a manifest that does not fit its object is
// refused, since what reads it trusts it.
func TestManifestCheck(t *testing.T) {
	if o := fullObject(); o.Manifest.Check(o) != nil {
		t.Fatal(o.Manifest.Check(o))
	}
	tests := []struct {
		want   string
		change func(m *Manifest)
	}{
		{"has probe 1 of 1", func(m *Manifest) { m.Programs[0].Probes = []int{1} }},
		{"has probe -1 of 1", func(m *Manifest) { m.Programs[0].Probes = []int{-1} }},
		{"no program", func(m *Manifest) { m.Programs[0].Name = "x" }},
		{"named twice", func(m *Manifest) { m.Programs = append(m.Programs, m.Programs[0]) }},
		{"unknown kind", func(m *Manifest) { m.Programs[0].Kind = "x" }},
		{"nothing to be attached to", func(m *Manifest) { m.Programs[0].Probes, m.Programs[0].Hook = nil, "" }},
		{"has no name", func(m *Manifest) { m.Probes[0].Name = "" }},
		{"not there", func(m *Manifest) { m.Maps[0].Map = "zzzzzz" }},
		{"that of another", func(m *Manifest) { m.Maps[2].Name = m.Maps[0].Name }},
		{"its keys have 4 bytes, not 8", func(m *Manifest) { m.Maps[0].KeySize = 8 }},
		{"keys have 16 bytes in place of an index", func(m *Manifest) { m.Maps[2].Keys = nil }},
		{"outside of 0 to 16", func(m *Manifest) { m.Maps[2].Keys[1].Offset = 9 }},
		{"outside of 0 to 16", func(m *Manifest) { m.Maps[2].Keys[1].Offset = -1 }},
		{"bit-field", func(m *Manifest) { m.Maps[2].Keys[0].Type.Fields[0].Bits = 31 }},
		{"bit-field", func(m *Manifest) { m.Maps[2].Keys[0].Type.Fields[0].BitOffset = -1 }},
		{"int of 3 bytes", func(m *Manifest) { m.Maps[0].Value.Size = 3 }},
		{"a type of -1 bytes", func(m *Manifest) { m.Maps[0].Value.Size = -1 }},
		{"its values have 528 bytes, and 1032 are shown", func(m *Manifest) { m.Maps[2].Bits = 1 }},
		{"hist with 60 bits", func(m *Manifest) { m.Maps[2].Bits = 60 }},
		{"lhist", func(m *Manifest) { m.Maps[2].Agg = AggLhist }},
		{"lhist", func(m *Manifest) { s := &m.Maps[2]; s.Agg, s.Min, s.Max, s.Step = AggLhist, -1<<63, 1<<63-1, 1 }},
		{"tseries", func(m *Manifest) { m.Maps[2].Agg = AggTseries }},
		{"summed up by", func(m *Manifest) { m.Maps[2].Agg = "x" }},
		{"whether it is set lies at 8 of 8", func(m *Manifest) { m.Maps[0].Present = 8 }},
		{"no ring buffer", func(m *Manifest) { m.RingBuffer = "" }},
		{"of another kind", func(m *Manifest) { m.RingBuffer = "stacks" }},
		{"variable \"loses\", which is not there, did you mean \"losses\"?", func(m *Manifest) { m.Counters = "loses" }},
		{"has 16 bytes, too few for 3", func(m *Manifest) { m.Losses = append(m.Losses, m.Losses[0]) }},
		{"variable \"stort\", which is not there, did you mean \"start\"?", func(m *Manifest) { m.Maps[1].Var = "stort" }},
		{"kept in a variable, and so has no key", func(m *Manifest) { m.Maps[1].Agg = AggSum }},
		{"whether it is set lies at 16 of 16", func(m *Manifest) { m.Maps[1].Present = 16 }},
		{"no table of them", func(m *Manifest) { m.Counters = "" }},
		{"of another kind", func(m *Manifest) { m.Stacks = "events" }},
		{"event 0: it is of unknown kind", func(m *Manifest) { m.Events[0].Kind = "x" }},
		{"event 0: its record has 4 bytes", func(m *Manifest) { m.Events[0].Size = 4 }},
		{"outside of 8 to 32", func(m *Manifest) { m.Events[0].Size = 32 }},
		{"outside of 8 to 64", func(m *Manifest) { m.Events[0].Args[0].Offset = 4 }},
		{"array of 4 elements of 8 bytes in 16", func(m *Manifest) { m.Events[0].Args[0].Type.Elem.Size = 8 }},
		{"array of 1073741824 elements", func(m *Manifest) { m.Events[0].Args[0].Type.Len = 1 << 30 }},
		{"without elements", func(m *Manifest) { m.Events[0].Args[0].Type.Elem = nil }},
		{"nested too deep", func(m *Manifest) {
			elem := m.Events[0].Args[0].Type.Elem
			for range 50 {
				elem = &Type{Kind: TypeArray, Size: 4, Len: 1, Elem: elem}
			}
			m.Events[0].Args[0].Type.Elem = elem
		}},
		{"kstack of 8 bytes", func(m *Manifest) { m.Events[0].Args[1].Type.Size = 8 }},
		{`clear of map "@read", which is not there, did you mean "@reads"?`, func(m *Manifest) { m.Events[1].Map = "@read" }},
		{`clear of map ""`, func(m *Manifest) { m.Events[1].Map = "" }},
		{"fact 0", func(m *Manifest) { m.Facts[0].Kind = "x" }},
		{"loss 0", func(m *Manifest) { m.Losses[0].Kind = "x" }},
	}
	for _, test := range tests {
		o := fullObject()
		test.change(o.Manifest)
		if err := o.Manifest.Check(o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

func TestDifferentFacts(t *testing.T) {
	m := &Manifest{Facts: []Fact{
		{Kind: FactArch, Name: "arch", Value: "amd64"},
		{Kind: FactFormat, Name: "sched:sched_switch", Value: "prev_pid:24:4"},
		{Kind: FactExists, Name: "vfs_read", Value: "yes"},
	}}
	diffs := m.DifferentFacts(func(f Fact) (string, error) {
		switch f.Kind {
		case FactArch:
			return "amd64", nil
		case FactFormat:
			return "prev_pid:28:4", nil
		}
		return "", errors.New("kallsyms is hidden")
	})
	var got []string
	for _, d := range diffs {
		got = append(got, d.String())
	}
	want := []string{
		"format sched:sched_switch: was prev_pid:24:4, is prev_pid:28:4 here",
		"exists vfs_read: was yes, and here: kallsyms is hidden",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, sample := range samples() {
		f.Add(marshal(f, sample()))
	}
	f.Add(marshal(f, fullObject()))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Unmarshal(data)
		if err != nil {
			return
		}
		for _, fn := range o.Funcs {
			if _, err := isa.Encode(nil, o.ByteOrder(), fn.Insns); err != nil {
				t.Fatalf("what was read cannot be encoded: %v", err)
			}
		}
		again, err := o.Marshal()
		if err != nil {
			return
		}
		if _, err := Unmarshal(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	o := fullObject()
	data, err := json.Marshal(o.Manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil || m.Check(o) != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		same, err := ParseManifest(again)
		if err != nil {
			t.Fatal(err)
		}
		if err := same.Check(o); err != nil {
			t.Fatal(err)
		}
	})
}
