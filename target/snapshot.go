package target

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
)

// snapshotMagic starts a snapshot; the number is the version of the format:
//
//	magic, then the number of sections as a uvarint, then of each section
//	  length and bytes of its name, a status byte,
//	  uvarints of its plain and its deflated length, CRC-32 of the plain bytes
//	then the CRC-32 of all that so far
//	then the deflated bytes of all sections in that order.
//
// A section whose status is not statusOK holds the error instead, in words.
const snapshotMagic = "skep target snapshot 1\n"

const (
	statusOK = iota
	statusUnknown
	statusNotFound
	statusFailed
)

// Bounds of what Load accepts. BTF of distribution kernels takes 5 to 15 MiB.
const (
	maxSections   = 4096
	maxSection    = 256 << 20
	maxSnapshot   = 1 << 30
	maxName       = 256
	maxInflation  = 1100 // deflate's limit is 1032 to 1
	snapshotLevel = flate.DefaultCompression
)

const (
	sectionFacts     = "facts"
	sectionEvents    = "events"
	sectionFormats   = "formats"
	sectionFunctions = "functions"
	sectionSymbols   = "symbols"
	sectionBTF       = "btf/" // and the module; "vmlinux" for the kernel's
)

// snapshotFacts is the section of scalars, in JSON.
type snapshotFacts struct {
	Facts
	HZ       int       `json:"hz"`
	Features []Feature `json:"features"`
}

// Save writes everything that t knows, so that Load gives a target of the same
// answers elsewhere; name is what that target will be called. Left out are the
// addresses of symbols, which the next boot changes, symbols of BPF programs,
// and user files. What could not be read is saved as that. The same target
// gives the same bytes.
func Save(w io.Writer, t Target, name string) error {
	m, ok := t.(*machine)
	if !ok {
		return fmt.Errorf("a target of type %T cannot be saved", t)
	}
	facts := snapshotFacts{Facts: m.facts, HZ: m.HZ()}
	facts.Name = name
	for _, f := range features {
		facts.Features = append(facts.Features, m.Feature(f.Name))
	}
	scalars, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	s := &saver{}
	s.add(sectionFacts, scalars, nil)
	raw, err := m.src.BTF("")
	s.add(sectionBTF+"vmlinux", raw, err)
	if err == nil {
		modules, err := m.src.BTFModules()
		if err != nil {
			return err
		}
		slices.Sort(modules)
		for _, module := range modules {
			raw, err := m.src.BTF(module)
			s.add(sectionBTF+module, raw, err)
		}
	}
	events, err := m.src.Events()
	s.add(sectionEvents, events, err)
	if err == nil {
		formats, err := m.saveFormats()
		s.add(sectionFormats, formats, err)
	}
	functions, err := m.src.Functions()
	s.add(sectionFunctions, functions, err)
	symbols, err := m.symbols()
	s.add(sectionSymbols, plainSymbols(symbols), err)
	return s.write(w)
}

func (m *machine) saveFormats() ([]byte, error) {
	events, err := m.events()
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, e := range events {
		raw, err := m.src.Format(e.Subsystem, e.Name)
		if errors.Is(err, ErrNotFound) {
			continue // its module has gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		b = appendBytes(b, e.String())
		b = appendBytes(b, raw)
	}
	return b, nil
}

func appendBytes[T string | []byte](b []byte, data T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// plainSymbols rewrites kallsyms without addresses and BPF programs.
func plainSymbols(text []byte) []byte {
	out := make([]byte, 0, len(text)*2/3)
	for s := range symbolLines(text) {
		if s.Module == "bpf" {
			continue
		}
		out = append(out, '0', ' ', s.Type, ' ')
		out = append(out, s.Name...)
		if s.Module != "" {
			out = append(append(append(out, "\t["...), s.Module...), ']')
		}
		out = append(out, '\n')
	}
	return out
}

type saver struct {
	header, body bytes.Buffer
	sections     int
	err          error
}

func (s *saver) add(name string, data []byte, err error) {
	status := byte(statusOK)
	if err != nil {
		data = []byte(err.Error())
		switch {
		case errors.Is(err, ErrUnknown):
			status = statusUnknown
		case errors.Is(err, ErrNotFound):
			status = statusNotFound
		default:
			status = statusFailed
		}
	}
	if len(data) > maxSection || len(name) > maxName {
		s.err = errors.Join(s.err, fmt.Errorf("section %s of the snapshot is too large: %d bytes", name, len(data)))
		return
	}
	before := s.body.Len()
	deflate, err := flate.NewWriter(&s.body, snapshotLevel)
	if err == nil {
		_, err = deflate.Write(data)
		err = errors.Join(err, deflate.Close())
	}
	s.err = errors.Join(s.err, err)
	h := appendBytes(nil, name)
	h = append(h, status)
	h = binary.AppendUvarint(h, uint64(len(data)))
	h = binary.AppendUvarint(h, uint64(s.body.Len()-before))
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(data))
	s.header.Write(h)
	s.sections++
}

func (s *saver) write(w io.Writer) error {
	if s.err != nil {
		return s.err
	}
	head := binary.AppendUvarint([]byte(snapshotMagic), uint64(s.sections))
	head = append(head, s.header.Bytes()...)
	head = binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(head))
	for _, part := range [][]byte{head, s.body.Bytes()} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Load reads a snapshot that Save has written. Sections are inflated when they
// are first needed.
func Load(r io.Reader) (Target, error) {
	s, err := readSnapshot(&summed{r: bufio.NewReader(r)})
	if err != nil {
		return nil, fmt.Errorf("not a usable target snapshot: %w", err)
	}
	return New(s)
}

// A snapshot is the Source over a saved file.
type snapshot struct {
	sections map[string]*section
	modules  []string
	facts    snapshotFacts
	formats  func() (map[Event][]byte, error)
}

type section struct {
	name    string
	status  byte
	size    int
	sum     uint32
	packed  []byte
	inflate func() ([]byte, error)
}

var errTruncated = errors.New("the file ends early")

// summed reads bytes and keeps their CRC-32.
type summed struct {
	r   *bufio.Reader
	sum uint32
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum = crc32.Update(s.sum, crc32.IEEETable, p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(s, b[:])
	return b[0], err
}

func readSnapshot(r *summed) (*snapshot, error) {
	head := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, short(err)
	}
	if string(head) != snapshotMagic {
		if bytes.HasPrefix(head, []byte("skep target snapshot")) {
			return nil, errors.New("another version of skep wrote it")
		}
		return nil, errors.New("the file is no snapshot")
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, short(err)
	}
	if n > maxSections {
		return nil, fmt.Errorf("it claims to have %d sections", n)
	}
	s := &snapshot{sections: make(map[string]*section)}
	var order []*section
	var lengths []int64
	total := uint64(0)
	for range n {
		sec, packed, err := readSectionHeader(r)
		if err != nil {
			return nil, err
		}
		if s.sections[sec.name] != nil {
			return nil, fmt.Errorf("it has two sections %q", sec.name)
		}
		if total += uint64(sec.size); total > maxSnapshot {
			return nil, errors.New("it is too large")
		}
		s.sections[sec.name] = sec
		order, lengths = append(order, sec), append(lengths, packed)
		if module, ok := strings.CutPrefix(sec.name, sectionBTF); ok && module != "vmlinux" && module != "" {
			s.modules = append(s.modules, module)
		}
	}
	want := r.sum
	var sum [4]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return nil, short(err)
	}
	if binary.LittleEndian.Uint32(sum[:]) != want {
		return nil, errors.New("the file is damaged")
	}
	for i, sec := range order {
		// A buffer grows with what is there, not with what is claimed.
		var b bytes.Buffer
		if _, err := io.CopyN(&b, r, lengths[i]); err != nil {
			return nil, short(err)
		}
		sec.packed = b.Bytes()
		sec.inflate = sync.OnceValues(sec.unpack)
	}
	raw, err := s.section(sectionFacts)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &s.facts); err != nil {
		return nil, fmt.Errorf("its facts cannot be read: %w", err)
	}
	s.formats = sync.OnceValues(s.loadFormats)
	return s, nil
}

func readSectionHeader(r *summed) (*section, int64, error) {
	nameLen, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, 0, short(err)
	}
	if nameLen == 0 || nameLen > maxName {
		return nil, 0, errors.New("a section has a wrong name")
	}
	name := make([]byte, nameLen)
	if _, err := io.ReadFull(r, name); err != nil {
		return nil, 0, short(err)
	}
	sec := &section{name: string(name)}
	if sec.status, err = r.ReadByte(); err != nil {
		return nil, 0, short(err)
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, 0, short(err)
	}
	packed, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, 0, short(err)
	}
	if sec.status > statusFailed || size > maxSection || packed > maxSection || size > packed*maxInflation {
		return nil, 0, fmt.Errorf("section %q claims impossible things", sec.name)
	}
	sec.size = int(size)
	var sum [4]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return nil, 0, short(err)
	}
	sec.sum = binary.LittleEndian.Uint32(sum[:])
	return sec, int64(packed), nil
}

func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}

func (s *section) unpack() ([]byte, error) {
	damaged := fmt.Errorf("section %q of the snapshot is damaged", s.name)
	r := flate.NewReader(bytes.NewReader(s.packed))
	data, err := io.ReadAll(io.LimitReader(r, int64(s.size)+1))
	if err != nil || len(data) != s.size || crc32.ChecksumIEEE(data) != s.sum {
		return nil, damaged
	}
	s.packed = nil
	switch s.status {
	case statusUnknown:
		return nil, &fault{string(data), ErrUnknown}
	case statusNotFound:
		return nil, &fault{string(data), ErrNotFound}
	case statusFailed:
		return nil, &fault{string(data), nil}
	}
	return data, nil
}

func (s *snapshot) section(name string) ([]byte, error) {
	sec := s.sections[name]
	if sec == nil {
		return nil, Unknownf("the snapshot %q has no %s", s.facts.Name, name)
	}
	return sec.inflate()
}

func (s *snapshot) Facts() (Facts, error)         { return s.facts.Facts, nil }
func (s *snapshot) HZ() int                       { return s.facts.HZ }
func (s *snapshot) BTFModules() ([]string, error) { return slices.Clone(s.modules), nil }
func (s *snapshot) Events() ([]byte, error)       { return s.section(sectionEvents) }
func (s *snapshot) Functions() ([]byte, error)    { return s.section(sectionFunctions) }
func (s *snapshot) Symbols() ([]byte, error)      { return s.section(sectionSymbols) }

func (s *snapshot) BTF(module string) ([]byte, error) {
	if module == "" {
		module = "vmlinux"
	}
	return s.section(sectionBTF + module)
}

func (s *snapshot) loadFormats() (map[Event][]byte, error) {
	data, err := s.section(sectionFormats)
	if err != nil {
		return nil, err
	}
	formats := make(map[Event][]byte)
	next := func() ([]byte, bool) {
		n, used := binary.Uvarint(data)
		if used <= 0 || n > uint64(len(data)-used) {
			return nil, false
		}
		part := data[used : used+int(n)]
		data = data[used+int(n):]
		return part, true
	}
	for len(data) > 0 {
		name, ok1 := next()
		text, ok2 := next()
		subsystem, event, ok3 := strings.Cut(string(name), ":")
		if !ok1 || !ok2 || !ok3 {
			return nil, errors.New("section \"formats\" of the snapshot is damaged")
		}
		formats[Event{subsystem, event}] = text
	}
	return formats, nil
}

func (s *snapshot) Format(subsystem, event string) ([]byte, error) {
	formats, err := s.formats()
	if err != nil {
		return nil, err
	}
	key := Event{subsystem, event}
	text, ok := formats[key]
	if !ok {
		return nil, fmt.Errorf("tracepoint %s: %w", key, ErrNotFound)
	}
	return text, nil
}

func (s *snapshot) Feature(name FeatureName) Feature {
	for _, f := range s.facts.Features {
		if f.Name == name {
			return f
		}
	}
	return name.Guess(s.facts.Release, "the snapshot does not say")
}

func (s *snapshot) Files(int) (Files, error) {
	return nil, Unknownf("the snapshot %q holds no user files", s.facts.Name)
}
