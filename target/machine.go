package target

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target/typeindex"
)

// New returns the target that a source describes. Only the facts are read now.
func New(src Source) (Target, error) {
	facts, err := src.Facts()
	if err != nil {
		return nil, err
	}
	if facts.CPUs < 1 || facts.PageSize < 1 {
		return nil, fmt.Errorf("%s claims to have %d CPUs and pages of %d bytes", facts.Name, facts.CPUs, facts.PageSize)
	}
	m := &machine{src: src, facts: facts}
	m.hz = sync.OnceValue(src.HZ)
	m.types = sync.OnceValues(m.loadTypes)
	m.events = sync.OnceValues(m.loadEvents)
	m.rawTracepoints = sync.OnceValues(m.loadRawTracepoints)
	m.functions = sync.OnceValues(m.loadFunctions)
	m.symbols = sync.OnceValues(src.Symbols)
	return m, nil
}

// machine is the one Target: it parses what a Source hands out, and keeps it.
type machine struct {
	src   Source
	facts Facts

	hz             func() int
	types          func() (*typeindex.Types, error)
	events         func() ([]Event, error)
	rawTracepoints func() ([]RawTracepoint, error)
	functions      func() ([]Function, error)
	symbols        func() ([]byte, error)

	formats  sync.Map // Event to *Format
	features sync.Map // FeatureName to Feature
}

func (m *machine) Name() string                             { return m.facts.Name }
func (m *machine) Arch() string                             { return m.facts.Arch }
func (m *machine) ByteOrder() binary.ByteOrder              { return byteOrder(m.facts.Arch) }
func (m *machine) Release() Release                         { return m.facts.Release }
func (m *machine) CPUs() int                                { return m.facts.CPUs }
func (m *machine) PageSize() int                            { return m.facts.PageSize }
func (m *machine) HZ() int                                  { return m.hz() }
func (m *machine) Types() (*typeindex.Types, error)         { return m.types() }
func (m *machine) Events() ([]Event, error)                 { return m.events() }
func (m *machine) Functions() ([]Function, error)           { return m.functions() }
func (m *machine) Files(pid int) (Files, error)             { return m.src.Files(pid) }
func (m *machine) RawTracepoints() ([]RawTracepoint, error) { return m.rawTracepoints() }

func byteOrder(arch string) binary.ByteOrder {
	switch arch {
	case "s390x", "ppc64", "mips", "mips64", "ppc":
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (m *machine) loadTypes() (*typeindex.Types, error) {
	raw, err := m.src.BTF("")
	if err != nil {
		return nil, err
	}
	names, err := m.src.BTFModules()
	if err != nil {
		return nil, err
	}
	modules := make([]typeindex.Module, len(names))
	for i, name := range names {
		modules[i] = typeindex.Module{Name: name, Load: func() ([]byte, error) { return m.src.BTF(name) }}
	}
	return typeindex.New(raw, modules)
}

func (m *machine) Modules() ([]string, error) {
	types, err := m.types()
	if err != nil {
		return nil, err
	}
	return types.Modules(), nil
}

// loadEvents cuts all names out of one string: thousands of them cost two
// allocations.
func (m *machine) loadEvents() ([]Event, error) {
	raw, err := m.src.Events()
	if err != nil {
		return nil, err
	}
	text := string(raw)
	events := make([]Event, 0, strings.Count(text, "\n")+1)
	for line := range strings.Lines(text) {
		if subsystem, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); ok && subsystem != "" && name != "" {
			events = append(events, Event{subsystem, name})
		}
	}
	slices.SortFunc(events, compareEvents)
	return slices.Compact(events), nil
}

func compareEvents(a, b Event) int {
	return cmp.Or(cmp.Compare(a.Subsystem, b.Subsystem), cmp.Compare(a.Name, b.Name))
}

func (m *machine) Format(subsystem, event string) (*Format, error) {
	key := Event{subsystem, event}
	if f, ok := m.formats.Load(key); ok {
		return f.(*Format), nil
	}
	if !validEventName(subsystem) || !validEventName(event) {
		return nil, fmt.Errorf("tracepoint %s: %w", key, ErrNotFound)
	}
	raw, err := m.src.Format(subsystem, event)
	if err != nil {
		return nil, err
	}
	f, err := ParseFormat(subsystem, raw)
	if err != nil {
		return nil, err
	}
	if f.Name != event {
		return nil, fmt.Errorf("the format of tracepoint %s calls itself %q", key, f.Name)
	}
	kept, _ := m.formats.LoadOrStore(key, f)
	return kept.(*Format), nil
}

// validEventName keeps names from leaving the directory of events.
func validEventName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00:\n")
}

const (
	rawPrefix  = "btf_trace_"
	iterPrefix = "bpf_iter_"
)

func (m *machine) loadRawTracepoints() ([]RawTracepoint, error) {
	types, err := m.types()
	if err == nil {
		var all []RawTracepoint
		for e := range types.Names(typeindex.KindTypedef, rawPrefix) {
			all = append(all, RawTracepoint{Name: e.Name[len(rawPrefix):], Module: e.Module})
		}
		slices.SortFunc(all, func(a, b RawTracepoint) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Module, b.Module))
		})
		return slices.CompactFunc(all, func(a, b RawTracepoint) bool {
			return a.Name == b.Name && a.Module == b.Module
		}), nil
	}
	// Without BTF: nearly every event is a tracepoint of the same name, but
	// those of system calls, which share two.
	events, eventsErr := m.events()
	if eventsErr != nil {
		return nil, errors.Join(err, eventsErr)
	}
	var all []RawTracepoint
	for _, e := range events {
		if e.Subsystem != "syscalls" {
			all = append(all, RawTracepoint{Name: e.Name})
		}
	}
	all = append(all, RawTracepoint{Name: "sys_enter"}, RawTracepoint{Name: "sys_exit"})
	slices.SortFunc(all, func(a, b RawTracepoint) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b RawTracepoint) bool { return a.Name == b.Name }), nil
}

func (m *machine) RawTracepoint(name string) (*RawTracepoint, error) {
	types, err := m.types()
	if err != nil {
		return nil, err
	}
	td, err := types.Typedef(rawPrefix + name)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("raw tracepoint %q: %w", name, ErrNotFound)
		}
		return nil, err
	}
	ptr, ok := td.Type.(*btf.Pointer)
	if !ok {
		return nil, fmt.Errorf("raw tracepoint %q: %s%s is no pointer to a function", name, rawPrefix, name)
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return nil, fmt.Errorf("raw tracepoint %q: %s%s is no pointer to a function", name, rawPrefix, name)
	}
	module, _, _ := types.ID(td)
	rt := &RawTracepoint{Name: name, Module: module, Typedef: td, Args: slices.Clone(proto.Params[1:])}
	// The typedef has no parameter names. These functions have the same
	// parameters with them: the probe stub since 6.3, the iterator since 5.10.
	for _, prefix := range []string{"__probestub_", "__traceiter_", "__bpf_trace_"} {
		named, err := types.FindIn(module, typeindex.KindFunc, prefix+name)
		if err != nil {
			continue
		}
		p, ok := named.(*btf.Func).Type.(*btf.FuncProto)
		if !ok || len(p.Params) != len(proto.Params) {
			continue
		}
		for i := range rt.Args {
			if rt.Args[i].Name == "" {
				rt.Args[i].Name = p.Params[i+1].Name
			}
		}
	}
	for i := range rt.Args {
		if rt.Args[i].Name == "" {
			rt.Args[i].Name = "arg" + strconv.Itoa(i)
		}
	}
	return rt, nil
}

func (m *machine) Iterators() ([]string, error) {
	types, err := m.types()
	if err != nil {
		return nil, err
	}
	// An iterator X has a function bpf_iter_X, which names its program's
	// type, and a context struct bpf_iter__X. Neither alone makes one.
	funcs := make(map[string]bool)
	for e := range types.Names(typeindex.KindFunc, iterPrefix) {
		funcs[e.Name[len(iterPrefix):]] = true
	}
	var names []string
	for e := range types.Names(typeindex.KindStruct, iterPrefix+"_") {
		if name := e.Name[len(iterPrefix)+1:]; funcs[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (m *machine) loadFunctions() ([]Function, error) {
	raw, err := m.src.Functions()
	if err == nil {
		return sortFunctions(parseFunctions(string(raw))), nil
	}
	if !errors.Is(err, ErrUnknown) {
		return nil, err
	}
	// The list may not be read: code symbols that also have a type are a
	// close guess, too large by what is marked notrace.
	types, typesErr := m.types()
	if typesErr != nil {
		return nil, errors.Join(err, typesErr)
	}
	var all []Function
	for e := range types.Names(typeindex.KindFunc, "") {
		all = append(all, Function{e.Name, e.Module})
	}
	all = sortFunctions(all)
	symbols, symbolsErr := m.symbols()
	if symbolsErr != nil {
		return all, nil
	}
	first := make(map[string]int32, len(all))
	for i := len(all) - 1; i >= 0; i-- {
		first[all[i].Name] = int32(i)
	}
	code := make([]bool, len(all))
	for line := range bytes.Lines(symbols) {
		s, name, module := splitSymbol(bytes.TrimSuffix(line, []byte("\n")))
		if s.Type != 't' && s.Type != 'T' && s.Type != 'w' && s.Type != 'W' {
			continue
		}
		i, ok := first[string(name)]
		for ; ok && int(i) < len(all) && all[i].Name == string(name); i++ {
			code[i] = code[i] || all[i].Module == string(module)
		}
	}
	kept := all[:0]
	for i, f := range all {
		if code[i] {
			kept = append(kept, f)
		}
	}
	return kept, nil
}

func parseFunctions(text string) []Function {
	all := make([]Function, 0, strings.Count(text, "\n")+1)
	for line := range strings.Lines(text) {
		name, module, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		module, _, _ = strings.Cut(strings.TrimPrefix(module, "["), "]")
		// __ftrace_invalid_address___N stands for a function that is gone.
		if name != "" && !strings.HasPrefix(name, "__ftrace_invalid_address__") {
			all = append(all, Function{name, module})
		}
	}
	return all
}

func compareFunctions(a, b Function) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Module, b.Module))
}

func sortFunctions(all []Function) []Function {
	slices.SortFunc(all, compareFunctions)
	return slices.Compact(all)
}

func (m *machine) Function(module, name string) ([]Function, error) {
	notFound := fmt.Errorf("kernel function %q: %w", Function{name, module}, ErrNotFound)
	if name == "" {
		return nil, notFound
	}
	// The kernel's list takes tens of milliseconds to read, the types one.
	// They list what can be traced and a little more.
	types, err := m.types()
	if err == nil {
		var found []Function
		modules := []string{module}
		switch module {
		case "":
			modules = append(modules, types.Modules()...)
		case "vmlinux":
			modules = []string{""}
		}
		for _, mod := range modules {
			if _, err := types.FindIn(mod, typeindex.KindFunc, name); err == nil {
				found = append(found, Function{name, mod})
			}
		}
		if found != nil {
			return found, nil
		}
	}
	// Not every function has a type: assembly and optimised ones do not.
	all, err := m.functions()
	if err != nil {
		return nil, err
	}
	i, _ := slices.BinarySearchFunc(all, Function{name, ""}, compareFunctions)
	var found []Function
	for ; i < len(all) && all[i].Name == name; i++ {
		if module == "" || all[i].Module == module || module == "vmlinux" && all[i].Module == "" {
			found = append(found, all[i])
		}
	}
	if found == nil {
		return nil, notFound
	}
	return found, nil
}

func (m *machine) Symbol(name string) ([]Symbol, error) {
	text, err := m.symbols()
	if err != nil {
		return nil, err
	}
	if name == "" || strings.ContainsAny(name, " \t\n") {
		return nil, fmt.Errorf("kernel symbol %q: %w", name, ErrNotFound)
	}
	var found []Symbol
	key := []byte(" " + name)
	for at := 0; ; {
		i := bytes.Index(text[at:], key)
		if i < 0 {
			break
		}
		i += at
		at = i + len(key)
		if at < len(text) && text[at] != '\n' && text[at] != '\t' {
			continue
		}
		start := bytes.LastIndexByte(text[:i], '\n') + 1
		end := len(text)
		if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n
		}
		if s, ok := parseSymbol(text[start:end]); ok && s.Name == name {
			found = append(found, s)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("kernel symbol %q: %w", name, ErrNotFound)
	}
	return found, nil
}

// parseSymbol reads "ffffffff81000000 T name" with "\t[module]" after it.
func parseSymbol(line []byte) (Symbol, bool) {
	s, name, module := splitSymbol(line)
	s.Name, s.Module = string(name), string(module)
	return s, s.Type != 0 && s.Name != ""
}

// splitSymbol is parseSymbol without copies; the type of a bad line is 0.
func splitSymbol(line []byte) (s Symbol, name, module []byte) {
	addr, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(rest) < 3 || rest[1] != ' ' || len(addr) > 16 {
		return Symbol{}, nil, nil
	}
	for _, c := range addr {
		switch {
		case c >= '0' && c <= '9':
			s.Addr = s.Addr<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			s.Addr = s.Addr<<4 | uint64(c-'a'+10)
		default:
			return Symbol{}, nil, nil
		}
	}
	s.Type = rest[0]
	name, module, _ = bytes.Cut(rest[2:], []byte("\t"))
	module, _, _ = bytes.Cut(bytes.TrimPrefix(module, []byte("[")), []byte("]"))
	return s, name, module
}

func symbolLines(text []byte) iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		for line := range bytes.Lines(text) {
			if s, ok := parseSymbol(bytes.TrimSuffix(line, []byte("\n"))); ok && !yield(s) {
				return
			}
		}
	}
}

func (m *machine) Feature(name FeatureName) Feature {
	if f, ok := m.features.Load(name); ok {
		return f.(Feature)
	}
	f := m.src.Feature(name)
	f.Name = name
	if !f.Known && f.Why == "" {
		f.Why = "it was not asked"
	}
	kept, _ := m.features.LoadOrStore(name, f)
	return kept.(Feature)
}
