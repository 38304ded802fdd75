package symbol

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"iter"
	"math"
	"slices"
	"sort"
	"strconv"
)

// ErrKernelAddressesHidden is returned where kernel addresses are asked for
// and every address in kallsyms is zero: the kernel shows names to everybody
// but addresses only to readers it trusts (kernel/kallsyms.c, kallsyms_show_value).
var ErrKernelAddressesHidden = errors.New("kernel addresses are hidden: /proc/kallsyms shows only zeros; " +
	"run as root or with CAP_SYSLOG, and see the sysctl kernel.kptr_restrict")

// ErrTooLarge is returned where an input exceeds what this package is
// willing to hold in memory.
var ErrTooLarge = errors.New("input too large")

// A KernelSymbol is one line of /proc/kallsyms.
type KernelSymbol struct {
	Addr   uint64 // virtual address; 0 when hidden
	Type   byte   // as in nm(1): 'T' and 't' are functions, 'W' weak ones, 'D' data, 'A' absolute...
	Name   string
	Module string // "" for the kernel proper, "bpf" for programs
}

// IsFunc reports whether s lies in a text section.
func (s KernelSymbol) IsFunc() bool { return isText(s.Type) }

func isText(typ byte) bool { return typ == 'T' || typ == 't' || typ == 'W' || typ == 'w' }

// A KernelHit is the answer to a look-up by address: the symbol at or
// before the address and the distance from it in bytes.
type KernelHit struct {
	KernelSymbol
	Offset uint64
}

const (
	// maxKernelOffset is how far behind a symbol an address may lie and still
	// be called by it. kallsyms has no sizes; without a bound the last
	// function of a module would own the whole gap to the next module.
	maxKernelOffset = 1 << 20
	// Kernel addresses have the top bit set on every 64-bit architecture;
	// symbols below are per-CPU offsets and absolute values.
	minKernelAddr = 1 << 63
	// scanBuffer is the size of reads. The kernel hands out a page at a time.
	scanBuffer = 32 << 10
	// maxLine bounds one line of a symbol listing. KSYM_NAME_LEN is 512.
	maxLine = 16 << 10
)

// scanLines calls f with each line of r, without its end, until f returns
// false. The slice is only valid during the call. Lines longer than maxLine
// are dropped.
func scanLines(r io.Reader, f func(line []byte) bool) error {
	buf := make([]byte, scanBuffer)
	n := 0
	drop := false // inside an overlong line
	for {
		m, err := r.Read(buf[n:])
		if m < 0 || m > len(buf)-n {
			return errors.New("reader returned an impossible count")
		}
		rest := buf[:n+m]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if !drop && i <= maxLine && !f(rest[:i]) {
				return nil
			}
			drop = false
			rest = rest[i+1:]
		}
		if len(rest) > maxLine {
			drop, rest = true, rest[:0]
		}
		n = copy(buf, rest)
		if err == io.EOF {
			if n > 0 && !drop {
				f(buf[:n])
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parseHex reads hexadecimal digits from the start of b and returns their
// value and how many there were; 0 when there are none or more than 16.
func parseHex(b []byte) (v uint64, n int) {
	for n < len(b) {
		c := b[n]
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c-'a' <= 5:
			c -= 'a' - 10
		case c-'A' <= 5:
			c -= 'A' - 10
		default:
			return v, n
		}
		if n == 16 {
			return 0, 0
		}
		v = v<<4 | uint64(c)
		n++
	}
	return v, n
}

// splitKallsyms cuts "ADDRESS T NAME[\t[MODULE]]" without decoding the address.
func splitKallsyms(line []byte) (addr []byte, typ byte, name, module []byte, ok bool) {
	i := 16 // all 64-bit kernels print 16 digits
	if len(line) < 20 || line[16] != ' ' {
		if i = bytes.IndexByte(line, ' '); i <= 0 {
			return
		}
	}
	if i+4 > len(line) || line[i+2] != ' ' {
		return
	}
	addr, typ, name = line[:i], line[i+1], line[i+3:]
	if name[len(name)-1] == ']' {
		if t := bytes.IndexByte(name, '\t'); t > 0 && t+2 < len(name) && name[t+1] == '[' {
			name, module = name[:t], name[t+2:len(name)-1]
		}
	}
	return addr, typ, name, module, len(name) > 0
}

func isZeros(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}

// ScanKallsyms calls f with every symbol of r, text in the form of
// /proc/kallsyms, in its order, until f returns false. name and module are
// only valid during the call. Lines of another form are skipped. It returns
// an error of r, nothing else; hidden addresses are passed on as zeros.
func ScanKallsyms(r io.Reader, f func(addr uint64, typ byte, name, module []byte) bool) error {
	return scanLines(r, func(line []byte) bool {
		digits, typ, name, module, ok := splitKallsyms(line)
		if !ok {
			return true
		}
		addr, n := parseHex(digits)
		if n != len(digits) {
			return true
		}
		return f(addr, typ, name, module)
	})
}

// LookupKallsyms returns the symbols of r (text in the form of
// /proc/kallsyms) that have one of the given names, by name, in the order of
// the file; static functions share names, so there may be several. It builds
// no table. When all addresses are hidden the symbols come with address 0
// beside [ErrKernelAddressesHidden].
func LookupKallsyms(r io.Reader, names ...string) (map[string][]KernelSymbol, error) {
	found := make(map[string][]KernelSymbol, len(names))
	wanted := make(map[string]bool, len(names))
	// The filter turns away nearly every line for less than a map look-up.
	var filter [1 << 10]bool
	hash := func(n int, first, last byte) int { return (n*67 ^ int(first) ^ int(last)<<3) & (len(filter) - 1) }
	for _, name := range names {
		if name != "" {
			wanted[name] = true
			filter[hash(len(name), name[0], name[len(name)-1])] = true
		}
	}
	seen, visible := false, false
	err := scanLines(r, func(line []byte) bool {
		digits, typ, name, module, ok := splitKallsyms(line)
		if !ok {
			return true
		}
		if seen = true; !visible {
			visible = !isZeros(digits)
		}
		if !filter[hash(len(name), name[0], name[len(name)-1])] || !wanted[string(name)] {
			return true
		}
		if addr, n := parseHex(digits); n == len(digits) {
			s := KernelSymbol{Addr: addr, Type: typ, Name: string(name), Module: string(module)}
			found[s.Name] = append(found[s.Name], s)
		}
		return true
	})
	if err == nil && seen && !visible {
		err = ErrKernelAddressesHidden
	}
	return found, err
}

// ResolveKallsyms looks each address up in r (text in the form of
// /proc/kallsyms) and returns a hit for each, in the order of addrs; a hit
// without a name was not found. It builds no table: memory is proportional
// to len(addrs). Among symbols of one address the first of the file wins,
// as in the kernel's own look-up. The error is that of r or
// [ErrKernelAddressesHidden].
func ResolveKallsyms(r io.Reader, addrs []uint64) ([]KernelHit, error) {
	hits := make([]KernelHit, len(addrs))
	sorted := slices.Clone(addrs)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	// best[i] is the nearest symbol credited to sorted[i]: each symbol is
	// credited to the first address at or above it.
	type candidate struct {
		addr         uint64
		typ          byte
		set          bool
		name, module []byte
	}
	best := make([]candidate, len(sorted))
	seen, visible := false, false
	lo, hi, at := uint64(1), uint64(0), 0 // symbols in (lo, hi] belong to sorted[at]
	err := ScanKallsyms(r, func(addr uint64, typ byte, name, module []byte) bool {
		seen = true
		if addr == 0 {
			return true
		}
		visible = true
		if addr < minKernelAddr || len(sorted) == 0 {
			return true
		}
		if addr <= lo || addr > hi {
			at, _ = slices.BinarySearch(sorted, addr)
			lo, hi = 0, math.MaxUint64
			if at > 0 {
				lo = sorted[at-1]
			}
			if at < len(sorted) {
				hi = sorted[at]
			}
		}
		if at == len(sorted) {
			return true
		}
		c := &best[at]
		if hi-addr > maxKernelOffset || c.set && addr <= c.addr {
			return true
		}
		c.addr, c.typ, c.set = addr, typ, true
		c.name = append(c.name[:0], name...)
		c.module = append(c.module[:0], module...)
		return true
	})
	if err == nil && seen && !visible {
		err = ErrKernelAddressesHidden
	}
	// An address that was credited nothing of its own takes its predecessor's.
	for i := 1; i < len(best); i++ {
		if !best[i].set {
			best[i] = best[i-1]
		}
	}
	for i, addr := range addrs {
		at, _ := slices.BinarySearch(sorted, addr)
		c := &best[at]
		if c.set && addr >= c.addr && addr-c.addr <= maxKernelOffset {
			hits[i] = KernelHit{
				KernelSymbol{c.addr, c.typ, string(c.name), string(c.module)},
				addr - c.addr,
			}
		}
	}
	return hits, err
}

// Kallsyms is the kernel's symbol table, immutable and safe for concurrent
// use. It keeps one blob of names and 13 bytes a symbol, about 35 bytes
// in all for each, and needs no index to look up names: they are found in
// the blob.
//
// Most runs need few names or addresses; [LookupKallsyms] and
// [ResolveKallsyms] answer those without a table.
type Kallsyms struct {
	// text holds, in the order of the file, '\n', the type and the name of
	// every symbol, and a final '\n'.
	text    []byte
	addrs   []uint64     // ascending; equal ones in the order of the file
	places  []uint32     // of the same symbols: offset of the '\n' in text
	modules []moduleSpan // ascending by place: names from place on belong to name
	hidden  bool
}

type moduleSpan struct {
	place uint32
	name  string
}

// ParseKallsyms reads text in the form of /proc/kallsyms. Hidden addresses
// are no error here, since the names alone are useful: see [Kallsyms.Hidden].
func ParseKallsyms(r io.Reader) (*Kallsyms, error) {
	k := &Kallsyms{}
	module := ""
	sorted, visible, tooLarge := true, false, false
	err := ScanKallsyms(r, func(addr uint64, typ byte, name, mod []byte) bool {
		if len(k.text)+len(name)+3 > math.MaxUint32 {
			tooLarge = true
			return false
		}
		visible = visible || addr != 0
		if string(mod) != module {
			module = string(mod)
			k.modules = append(k.modules, moduleSpan{uint32(len(k.text)), module})
		}
		n := len(k.addrs)
		sorted = sorted && (n == 0 || addr >= k.addrs[n-1])
		if n == 1<<10 {
			// A whole kernel, not a sample: room for all of a common one avoids
			// copies, and costs no memory until it is written.
			k.text = slices.Grow(k.text, 4<<20)
			k.addrs = slices.Grow(k.addrs, 192<<10)
			k.places = slices.Grow(k.places, 192<<10)
		}
		k.addrs = append(k.addrs, addr)
		k.places = append(k.places, uint32(len(k.text)))
		k.text = append(append(k.text, '\n', typ), name...)
		return true
	})
	if err != nil {
		return nil, err
	}
	if tooLarge {
		return nil, ErrTooLarge
	}
	k.text = append(k.text, '\n')
	k.hidden = len(k.addrs) > 0 && !visible
	if !sorted {
		sort.Stable(byAddr{k})
	}
	return k, nil
}

type byAddr struct{ *Kallsyms }

func (k byAddr) Len() int           { return len(k.addrs) }
func (k byAddr) Less(i, j int) bool { return k.addrs[i] < k.addrs[j] }
func (k byAddr) Swap(i, j int) {
	k.addrs[i], k.addrs[j] = k.addrs[j], k.addrs[i]
	k.places[i], k.places[j] = k.places[j], k.places[i]
}

// Len returns the number of symbols.
func (k *Kallsyms) Len() int { return len(k.addrs) }

// Hidden reports whether the kernel hid all addresses from the reader.
func (k *Kallsyms) Hidden() bool { return k.hidden }

// at returns the symbol whose '\n' is at place.
func (k *Kallsyms) at(place uint32, addr uint64) KernelSymbol {
	rest := k.text[place+2:]
	return KernelSymbol{
		Addr:   addr,
		Type:   k.text[place+1],
		Name:   string(rest[:bytes.IndexByte(rest, '\n')]),
		Module: k.moduleAt(place),
	}
}

func (k *Kallsyms) moduleAt(place uint32) string {
	i, found := slices.BinarySearchFunc(k.modules, place, func(m moduleSpan, p uint32) int { return cmp.Compare(m.place, p) })
	if found {
		return k.modules[i].name
	}
	if i == 0 {
		return ""
	}
	return k.modules[i-1].name
}

// All returns every symbol in ascending order of addresses.
func (k *Kallsyms) All() iter.Seq[KernelSymbol] {
	return func(yield func(KernelSymbol) bool) {
		for i, addr := range k.addrs {
			if !yield(k.at(k.places[i], addr)) {
				return
			}
		}
	}
}

// Resolve returns the symbol at or before addr, or false when there is none
// within a mebibyte. Among symbols of one address the first of the file wins.
// The error, if any, is [ErrKernelAddressesHidden].
func (k *Kallsyms) Resolve(addr uint64) (KernelHit, bool, error) {
	if k.hidden {
		return KernelHit{}, false, ErrKernelAddressesHidden
	}
	i, found := slices.BinarySearch(k.addrs, addr)
	if !found {
		if i == 0 {
			return KernelHit{}, false, nil
		}
		i, _ = slices.BinarySearch(k.addrs[:i], k.addrs[i-1])
	}
	start := k.addrs[i]
	if start < minKernelAddr || addr-start > maxKernelOffset {
		return KernelHit{}, false, nil
	}
	return KernelHit{k.at(k.places[i], start), addr - start}, true, nil
}

// Lookup returns the symbols called name in ascending order of addresses.
// The error, if any, is [ErrKernelAddressesHidden]; the symbols are then
// returned with address 0.
func (k *Kallsyms) Lookup(name string) ([]KernelSymbol, error) {
	needle := []byte(name)
	if len(needle) == 0 || bytes.IndexByte(needle, '\n') >= 0 {
		return nil, nil
	}
	var places []uint32
	for from := 0; ; {
		i := bytes.Index(k.text[from:], needle)
		if i < 0 {
			break
		}
		start := from + i
		end := start + len(needle)
		if start >= 2 && k.text[start-2] == '\n' && k.text[end] == '\n' {
			places = append(places, uint32(start-2))
		}
		from = start + 1
	}
	return k.locate(places), k.hiddenErr()
}

func (k *Kallsyms) hiddenErr() error {
	if k.hidden {
		return ErrKernelAddressesHidden
	}
	return nil
}

// locate finds the addresses of the symbols at places, which ascend.
func (k *Kallsyms) locate(places []uint32) []KernelSymbol {
	if len(places) == 0 {
		return nil
	}
	found := make([]KernelSymbol, 0, len(places))
	for i, place := range k.places {
		if _, ok := slices.BinarySearch(places, place); ok {
			if found = append(found, k.at(place, k.addrs[i])); len(found) == len(places) {
				break
			}
		}
	}
	return found
}

// Match returns the symbols whose names match p in ascending order of
// addresses (of the file, when hidden). A caller that wants functions asks
// [KernelSymbol.IsFunc].
func (k *Kallsyms) Match(p *Pattern) []KernelSymbol {
	var places []uint32
	for from := 0; from < len(k.text)-1; {
		// Jump to the next place where the pattern's longest part occurs.
		i := bytes.Index(k.text[from+1:], p.key)
		if i < 0 {
			break
		}
		hit := from + 1 + i
		start := bytes.LastIndexByte(k.text[:min(hit+1, len(k.text)-1)], '\n')
		end := start + 1 + bytes.IndexByte(k.text[start+1:], '\n')
		// The key may have matched the type letter too; Match decides.
		if start >= from && end > start+2 && p.Match(string(k.text[start+2:end])) {
			places = append(places, uint32(start))
		}
		from = end
	}
	return k.locate(places)
}

// Modules returns the names of the modules that have symbols, sorted.
func (k *Kallsyms) Modules() []string {
	var names []string
	for _, m := range k.modules {
		if m.name != "" {
			names = append(names, m.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s KernelSymbol) String() string {
	if s.Module != "" {
		return s.Name + " [" + s.Module + "]"
	}
	return s.Name
}

func (h KernelHit) String() string {
	s := h.Name
	if h.Offset != 0 {
		s += "+" + strconv.FormatUint(h.Offset, 10)
	}
	if h.Module != "" {
		s += " [" + h.Module + "]"
	}
	return s
}
