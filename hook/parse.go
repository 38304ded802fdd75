package hook

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skep-bpf/skep/source"
)

// A provider is a kind with its names in the tracing language; the first one
// is canonical.
type provider struct {
	kind   Kind
	names  []string
	stable bool
	// what follows the provider, for messages
	usage string
}

var providers = []provider{
	{Begin, []string{"begin"}, true, ""},
	{End, []string{"end"}, true, ""},
	{Self, []string{"self"}, true, "signal:SIGUSR1"},
	{Test, []string{"test"}, true, "name"},
	{Bench, []string{"bench"}, true, "name"},
	{Kprobe, []string{"kprobe", "k"}, false, "[module:]function[+offset]"},
	{Kretprobe, []string{"kretprobe", "kr"}, false, "[module:]function"},
	{Fentry, []string{"fentry", "f", "kfunc"}, false, "[module:]function"},
	{Fexit, []string{"fexit", "fr", "kretfunc"}, false, "[module:]function"},
	{Tracepoint, []string{"tracepoint", "t"}, true, "subsystem:event"},
	{RawTracepoint, []string{"rawtracepoint", "rt"}, false, "[module:]event"},
	{Uprobe, []string{"uprobe", "u"}, false, "path:function[+offset]"},
	{Uretprobe, []string{"uretprobe", "ur"}, false, "path:function"},
	{USDT, []string{"usdt", "U"}, true, "path:[namespace:]probe"},
	{Profile, []string{"profile", "p"}, true, "hz:99"},
	{Interval, []string{"interval", "i"}, true, "s:1"},
	{Software, []string{"software", "s"}, true, "event[:count]"},
	{Hardware, []string{"hardware", "h"}, true, "event[:count]"},
	{Watchpoint, []string{"watchpoint", "w"}, true, "address:length:mode"},
	{AsyncWatchpoint, []string{"asyncwatchpoint", "aw"}, true, "address:length:mode"},
	{Iter, []string{"iter", "it"}, true, "name[:pin]"},
}

// providerOf finds a provider by name: as written first, because U and u
// differ, then without case.
func providerOf(name string) (provider, bool) {
	for _, n := range []string{name, strings.ToLower(name)} {
		for _, p := range providers {
			if slices.Contains(p.names, n) {
				return p, true
			}
		}
	}
	return provider{}, false
}

func providerNames() func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, p := range providers {
			if !yield(p.names[0]) {
				return
			}
		}
	}
}

func (k Kind) provider() (provider, bool) {
	for _, p := range providers {
		if p.kind == k {
			return p, true
		}
	}
	return provider{}, false
}

// Stable reports whether the kernel or the author of the traced program means
// to keep hooks of this kind as they are.
func (k Kind) Stable() bool {
	if p, ok := k.provider(); ok {
		return p.stable
	}
	switch k {
	case FmodRet, KprobeSession, UprobeSession, Freplace, StructOps:
		return false
	}
	return true
}

// String is the name of the kind: the provider of the tracing language, or
// how sections spell it.
func (k Kind) String() string {
	if p, ok := k.provider(); ok {
		return p.names[0]
	}
	for _, s := range sections {
		if s.kind == k {
			return s.prefix
		}
	}
	return "invalid"
}

// MarshalText makes kinds read as words in JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (k *Kind) UnmarshalText(text []byte) error {
	for c := Begin; c <= LircMode2; c++ {
		if c.String() == string(text) {
			*k = c
			return nil
		}
	}
	return fmt.Errorf("there is no kind of hook called %q", text)
}

var unitNames = map[Unit]string{Hz: "hz", Seconds: "s", Milliseconds: "ms", Microseconds: "us", Nanoseconds: "ns"}

func (u Unit) String() string { return unitNames[u] }

// MarshalText makes units read as words in JSON.
func (u Unit) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (u *Unit) UnmarshalText(text []byte) error {
	for unit, name := range unitNames {
		if name == string(text) {
			*u = unit
			return nil
		}
	}
	if len(text) == 0 {
		*u = NoUnit
		return nil
	}
	return fmt.Errorf("there is no unit called %q", text)
}

func period(u Unit, rate uint64) time.Duration {
	if rate == 0 {
		return 0
	}
	scale := map[Unit]time.Duration{Seconds: time.Second, Milliseconds: time.Millisecond, Microseconds: time.Microsecond, Nanoseconds: 1}[u]
	switch {
	case u == Hz:
		return time.Duration(uint64(time.Second) / rate)
	case scale == 0 || rate > uint64(1<<63-1)/uint64(scale):
		return 0
	}
	return time.Duration(rate) * scale
}

// A part is one of the pieces of an attach point between colons.
type part struct {
	text       string // unquoted
	start, end int    // in the text, with quotes
	quoted     bool
	// tail is what follows a closing quote, "+8" of "f"+8.
	tail string
}

type parser struct {
	text   string
	parts  []part
	ranges map[string][2]int
	usage  string
}

func (p *parser) fail(field string, pt part, code, format string, args ...any) *Error {
	return &Error{Field: field, Start: pt.start, End: pt.end, Code: code, Message: fmt.Sprintf(format, args...)}
}

// whole is the attach point as a part, for errors that concern all of it.
func (p *parser) whole() part { return part{start: 0, end: len(p.text)} }

func (p *parser) note(field string, pt part) { p.ranges[field] = [2]int{pt.start, pt.end} }

// split cuts a text at colons outside of quotes.
func (p *parser) split() *Error {
	for i := 0; ; {
		start := i
		var b strings.Builder
		var pt part
		if i < len(p.text) && p.text[i] == '"' {
			pt.quoted = true
			for i++; ; i++ {
				if i == len(p.text) {
					return p.fail(FieldProvider, part{start: start, end: i}, "unclosed-quote", "a quoted name does not end")
				}
				c := p.text[i]
				if c == '"' {
					break
				}
				if c == '\\' && i+1 < len(p.text) {
					i++
					c = p.text[i]
				}
				b.WriteByte(c)
			}
			i++
			rest := i
			for i < len(p.text) && p.text[i] != ':' {
				i++
			}
			pt.text, pt.tail = b.String(), p.text[rest:i]
		} else {
			for i < len(p.text) && p.text[i] != ':' {
				i++
			}
			pt.text = p.text[start:i]
		}
		pt.start, pt.end = start, i
		p.parts = append(p.parts, pt)
		if i == len(p.text) {
			return nil
		}
		i++
	}
}

func parse(text string) (Point, error) {
	p := &parser{text: text, ranges: make(map[string][2]int)}
	pt, err := p.parse()
	if err != nil {
		return Point{}, err
	}
	return pt, nil
}

func fieldRange(text, field string) (start, end int, ok bool) {
	p := &parser{text: text, ranges: make(map[string][2]int)}
	if _, err := p.parse(); err != nil {
		p = &parser{text: text, ranges: make(map[string][2]int)}
		if _, err := p.parseSection(); err != nil {
			return 0, 0, false
		}
	}
	r, ok := p.ranges[field]
	return r[0], r[1], ok
}

func (p *parser) parse() (Point, *Error) {
	// Ranges are relative to the text as it was given.
	lead := len(p.text) - len(strings.TrimLeft(p.text, " \t\r\n"))
	full := p.text
	p.text = strings.TrimRight(p.text, " \t\r\n")
	if lead >= len(p.text) {
		return Point{}, p.fail(FieldProvider, part{}, "empty-probe", "the attach point is empty")
	}
	p.text = p.text[lead:]
	pt, err := p.parseTrimmed()
	for f, r := range p.ranges {
		p.ranges[f] = [2]int{r[0] + lead, r[1] + lead}
	}
	if err != nil {
		err.Start, err.End = err.Start+lead, err.End+lead
		return Point{}, err
	}
	pt.Text = full
	return pt, nil
}

func (p *parser) parseTrimmed() (Point, *Error) {
	if strings.ContainsRune(p.text, 0) {
		return Point{}, p.fail(FieldProvider, p.whole(), "bad-character", "an attach point holds a zero byte")
	}
	if err := p.split(); err != nil {
		return Point{}, err
	}
	for _, pt := range p.parts {
		if pt.tail != "" && !strings.HasPrefix(pt.tail, "+") {
			return Point{}, p.fail(FieldProvider, pt, "bad-quote", "%q follows a quoted name; a colon or an offset (+8) can", pt.tail)
		}
	}
	head := p.parts[0]
	p.note(FieldProvider, head)
	prov, ok := providerOf(head.text)
	if !ok || head.quoted {
		err := p.fail(FieldProvider, head, "unknown-provider", "there is no probe type %q", head.text)
		err.Nearest = source.Nearest(head.text, providerNames())
		if err.Nearest == "" {
			err.Hint = "probe types are " + strings.Join(slices.Collect(providerNames()), ", ")
		}
		return Point{}, err
	}
	p.usage = prov.names[0]
	if prov.usage != "" {
		p.usage += ":" + prov.usage
	}
	pt := Point{Kind: prov.kind}
	args := p.parts[1:]
	return pt, p.fill(&pt, args)
}

// count checks the number of parts after the provider.
func (p *parser) count(args []part, least, most int) *Error {
	at := p.whole()
	field := FieldProvider
	switch {
	case len(args) < least:
		err := p.fail(field, at, "missing-field", "%q is too short", p.text)
		err.Hint = "it is written " + p.usage
		return err
	case len(args) > most:
		at.start = args[most].start
		err := p.fail(field, at, "extra-field", "%q is too much", p.text[at.start:])
		err.Hint = "it is written " + p.usage
		return err
	}
	return nil
}

// name takes a part as a name, which must not be empty.
func (p *parser) name(field string, pt part, dst *string) *Error {
	p.note(field, pt)
	if pt.tail != "" {
		return p.fail(field, pt, "unexpected-offset", "a %s has no offset", field)
	}
	if pt.text == "" {
		err := p.fail(field, pt, "empty-field", "the %s is empty", field)
		err.Hint = "it is written " + p.usage
		return err
	}
	*dst = pt.text
	return nil
}

func (p *parser) number(field string, pt part, dst *uint64) *Error {
	p.note(field, pt)
	n, ok := parseNumber(pt.text)
	if !ok || pt.tail != "" || pt.quoted {
		return p.fail(field, pt, "bad-number", "the %s %q is no number", field, p.text[pt.start:pt.end])
	}
	*dst = n
	return nil
}

// parseNumber reads decimal, 0x and 0 octal numbers, with _ between digits,
// and exponents as in 1e6.
func parseNumber(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return n, true
	}
	mantissa, exponent, ok := strings.Cut(strings.ToLower(s), "e")
	if !ok {
		return 0, false
	}
	n, err1 := strconv.ParseUint(mantissa, 10, 64)
	e, err2 := strconv.ParseUint(exponent, 10, 8)
	if err1 != nil || err2 != nil || e > 19 {
		return 0, false
	}
	for range e {
		if n > (1<<64-1)/10 {
			return 0, false
		}
		n *= 10
	}
	return n, true
}

func (p *parser) fill(pt *Point, args []part) *Error {
	switch pt.Kind {
	case Begin, End:
		return p.count(args, 0, 0)
	case Self:
		return p.fillSelf(pt, args)
	case Test, Bench:
		if err := p.count(args, 0, 1); err != nil || len(args) == 0 {
			return err
		}
		p.note(FieldEvent, args[0])
		pt.Event = args[0].text
		return nil
	case Kprobe, Kretprobe:
		if err := p.count(args, 1, 2); err != nil {
			return err
		}
		if len(args) == 2 {
			if err := p.name(FieldModule, args[0], &pt.Module); err != nil {
				return err
			}
			args = args[1:]
		}
		return p.function(pt, args[0], pt.Kind == Kprobe)
	case Fentry, Fexit:
		return p.fillFentry(pt, args)
	case Tracepoint:
		if err := p.count(args, 2, 2); err != nil {
			return err
		}
		if err := p.name(FieldSubsystem, args[0], &pt.Subsystem); err != nil {
			return err
		}
		return p.name(FieldEvent, args[1], &pt.Event)
	case RawTracepoint:
		if err := p.count(args, 1, 2); err != nil {
			return err
		}
		if len(args) == 2 {
			if err := p.name(FieldModule, args[0], &pt.Module); err != nil {
				return err
			}
			args = args[1:]
		}
		return p.name(FieldEvent, args[0], &pt.Event)
	case Uprobe, Uretprobe:
		return p.fillUprobe(pt, args)
	case USDT:
		if err := p.count(args, 2, 3); err != nil {
			return err
		}
		if err := p.name(FieldPath, args[0], &pt.Path); err != nil {
			return err
		}
		if len(args) == 3 {
			if err := p.name(FieldNamespace, args[1], &pt.Namespace); err != nil {
				return err
			}
			args = args[1:]
		}
		return p.usdt(pt, args[1])
	case Profile, Interval:
		return p.fillTimer(pt, args)
	case Software, Hardware:
		if err := p.count(args, 1, 2); err != nil {
			return err
		}
		if err := p.name(FieldEvent, args[0], &pt.Event); err != nil {
			return err
		}
		if len(args) == 1 {
			return nil
		}
		if err := p.number(FieldCount, args[1], &pt.Count); err != nil {
			return err
		}
		if pt.Count == 0 {
			return p.fail(FieldCount, args[1], "bad-number", "the count is 0: an event every how many?")
		}
		return nil
	case Watchpoint, AsyncWatchpoint:
		return p.fillWatchpoint(pt, args)
	case Iter:
		if err := p.count(args, 1, 2); err != nil {
			return err
		}
		if err := p.name(FieldEvent, args[0], &pt.Event); err != nil || len(args) == 1 {
			return err
		}
		return p.name(FieldPin, args[1], &pt.Pin)
	}
	return p.fail(FieldProvider, p.whole(), "unknown-provider", "the probe type %s has no spelling here", pt.Kind)
}

var selfSignals = []string{"SIGUSR1", "SIGUSR2", "SIGHUP"}

func (p *parser) fillSelf(pt *Point, args []part) *Error {
	if err := p.count(args, 2, 2); err != nil {
		return err
	}
	if args[0].text != "signal" {
		err := p.fail(FieldSubsystem, args[0], "unknown-event", "self has no event %q", args[0].text)
		err.Nearest = "signal"
		return err
	}
	if err := p.name(FieldSignal, args[1], &pt.Event); err != nil {
		return err
	}
	if !slices.Contains(selfSignals, pt.Event) {
		err := p.fail(FieldSignal, args[1], "unknown-signal", "a probe cannot wait for the signal %q", pt.Event)
		err.Nearest = source.Nearest(pt.Event, slices.Values(selfSignals))
		err.Hint = "it can for " + strings.Join(selfSignals, ", ")
		return err
	}
	return nil
}

func (p *parser) fillFentry(pt *Point, args []part) *Error {
	if err := p.count(args, 1, 3); err != nil {
		return err
	}
	if len(args) > 1 && args[0].text == "bpf" && !args[0].quoted {
		pt.BPF = true
		p.note(FieldModule, args[0])
		if len(args) == 3 {
			var id uint64
			if args[1].text != "*" {
				if err := p.number(FieldProgramID, args[1], &id); err != nil {
					return err
				}
			}
			if id > 1<<32-1 {
				return p.fail(FieldProgramID, args[1], "bad-number", "the program id %d is too large", id)
			}
			pt.ProgramID = uint32(id)
		}
		return p.name(FieldProgram, args[len(args)-1], &pt.Func)
	}
	if err := p.count(args, 1, 2); err != nil {
		return err
	}
	if len(args) == 2 {
		if err := p.name(FieldModule, args[0], &pt.Module); err != nil {
			return err
		}
		args = args[1:]
	}
	return p.function(pt, args[0], false)
}

// function takes a part as "name", "name+offset" or an address.
func (p *parser) function(pt *Point, a part, offsets bool) *Error {
	if a.text == "" && a.tail == "" {
		p.note(FieldFunc, a)
		err := p.fail(FieldFunc, a, "empty-field", "the function is empty")
		err.Hint = "it is written " + p.usage
		return err
	}
	if !a.quoted && a.text[0] >= '0' && a.text[0] <= '9' {
		if !offsets {
			return p.fail(FieldAddress, a, "unexpected-address", "%s takes the name of a function, not an address", pt.Kind)
		}
		pt.HasAddress = true
		return p.number(FieldAddress, a, &pt.Address)
	}
	name, offset := a, part{}
	if a.quoted {
		if a.tail != "" {
			offset = part{text: a.tail[1:], start: a.end - len(a.tail) + 1, end: a.end}
			name.tail, name.end = "", a.end-len(a.tail)
		}
	} else if i := strings.LastIndexByte(a.text, '+'); i >= 0 {
		offset = part{text: a.text[i+1:], start: a.start + i + 1, end: a.end}
		name.text, name.end = a.text[:i], a.start+i
	}
	if offset.start > 0 {
		if !offsets {
			return p.fail(FieldOffset, offset, "unexpected-offset", "%s attaches where a function begins or returns: it has no offset", pt.Kind)
		}
		if err := p.number(FieldOffset, offset, &pt.Offset); err != nil {
			return err
		}
	}
	return p.name(FieldFunc, name, &pt.Func)
}

func (p *parser) fillUprobe(pt *Point, args []part) *Error {
	if err := p.count(args, 2, 3); err != nil {
		return err
	}
	if err := p.name(FieldPath, args[0], &pt.Path); err != nil {
		return err
	}
	if len(args) == 3 {
		if args[1].text != "cpp" {
			err := p.fail(FieldFunc, args[1], "unknown-language", "there is no language %q", args[1].text)
			err.Nearest = "cpp"
			err.Hint = "a name that holds colons is quoted"
			return err
		}
		pt.Demangled = true
		args = args[1:]
	}
	err := p.function(pt, args[1], pt.Kind == Uprobe)
	if err == nil && pt.Demangled && pt.HasAddress {
		return p.fail(FieldFunc, args[1], "unexpected-address", "cpp takes the name of a function, not an address")
	}
	return err
}

// usdt takes a part as the name of a USDT probe, and "name+address" as the
// one place of several that is at an address of the file.
func (p *parser) usdt(pt *Point, a part) *Error {
	i := strings.LastIndexByte(a.text, '+')
	if a.quoted || i <= 0 {
		return p.name(FieldEvent, a, &pt.Event)
	}
	address := part{text: a.text[i+1:], start: a.start + i + 1, end: a.end}
	pt.HasAddress = true
	if err := p.number(FieldAddress, address, &pt.Address); err != nil {
		return err
	}
	a.text, a.end = a.text[:i], a.start+i
	return p.name(FieldEvent, a, &pt.Event)
}

func (p *parser) fillTimer(pt *Point, args []part) *Error {
	if err := p.count(args, 1, 2); err != nil {
		return err
	}
	unit, rate := part{}, args[0]
	if len(args) == 2 {
		unit, rate = args[0], args[1]
	} else {
		// "5ms", or nanoseconds without a unit.
		digits := len(rate.text)
		for digits > 0 && (rate.text[digits-1] < '0' || rate.text[digits-1] > '9') {
			digits--
		}
		unit = part{text: rate.text[digits:], start: rate.start + digits, end: rate.end}
		rate.text, rate.end = rate.text[:digits], rate.start+digits
		if unit.text == "" {
			unit.text = "ns"
		}
	}
	p.note(FieldUnit, unit)
	if err := pt.Unit.UnmarshalText([]byte(strings.ToLower(unit.text))); err != nil || pt.Unit == NoUnit {
		e := p.fail(FieldUnit, unit, "unknown-unit", "there is no unit %q", unit.text)
		e.Nearest = source.Nearest(unit.text, maps.Values(unitNames))
		e.Hint = "units are hz, s, ms, us"
		return e
	}
	if err := p.number(FieldRate, rate, &pt.Rate); err != nil {
		return err
	}
	if period(pt.Unit, pt.Rate) <= 0 {
		return p.fail(FieldRate, rate, "bad-rate", "%s %s cannot be kept: it is nothing or too much", rate.text, unit.text)
	}
	return nil
}

func (p *parser) fillWatchpoint(pt *Point, args []part) *Error {
	if err := p.count(args, 3, 3); err != nil {
		return err
	}
	a := args[0]
	if a.text != "" && a.text[0] >= '0' && a.text[0] <= '9' {
		pt.HasAddress = true
		if err := p.number(FieldAddress, a, &pt.Address); err != nil {
			return err
		}
	} else {
		i := strings.LastIndex(a.text, "+arg")
		n, err := 0, error(nil)
		if i > 0 {
			n, err = strconv.Atoi(a.text[i+len("+arg"):])
		}
		if i <= 0 || err != nil || n < 0 || n > 255 {
			e := p.fail(FieldAddress, a, "bad-address", "%q is neither an address nor function+argN", a.text)
			e.Hint = "it is written " + p.usage
			return e
		}
		pt.Func, pt.Arg = a.text[:i], n
		p.note(FieldFunc, part{start: a.start, end: a.start + i})
	}
	var length uint64
	if err := p.number(FieldLength, args[1], &length); err != nil {
		return err
	}
	if length != 1 && length != 2 && length != 4 && length != 8 {
		return p.fail(FieldLength, args[1], "bad-length", "a watchpoint watches 1, 2, 4 or 8 bytes, not %d", length)
	}
	pt.Length = int(length)
	if err := p.name(FieldMode, args[2], &pt.Mode); err != nil {
		return err
	}
	mode := []byte(pt.Mode)
	slices.Sort(mode)
	pt.Mode = string(mode)
	switch pt.Mode {
	case "r", "w", "x", "rw":
		return nil
	}
	e := p.fail(FieldMode, args[2], "bad-mode", "a watchpoint has no mode %q", args[2].text)
	e.Hint = "modes are r, w, rw, x"
	return e
}

// quote puts a field in quotes where it could not be read back without.
func quote(s string, function bool) string {
	plain := s != "" && !strings.ContainsAny(s, "\":,;{}() \t\r\n\\")
	if function && plain {
		plain = !strings.Contains(s, "+") && (s[0] < '0' || s[0] > '9')
	}
	if plain {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func (p Point) format() string {
	prov, ok := p.Kind.provider()
	if !ok {
		name, _ := p.section()
		return name
	}
	out := []string{prov.names[0]}
	add := func(s string, function bool) { out = append(out, quote(s, function)) }
	function := func() {
		f := quote(p.Func, true)
		switch {
		case p.HasAddress:
			f = fmt.Sprintf("%#x", p.Address)
		case p.Offset != 0:
			f += fmt.Sprintf("+%d", p.Offset)
		}
		out = append(out, f)
	}
	switch p.Kind {
	case Begin, End:
	case Self:
		out = append(out, "signal", p.Event)
	case Test, Bench:
		if p.Event != "" {
			add(p.Event, false)
		}
	case Kprobe, Kretprobe, Fentry, Fexit:
		switch {
		case p.BPF && p.ProgramID != 0:
			out = append(out, "bpf", strconv.FormatUint(uint64(p.ProgramID), 10))
			add(p.Func, true)
			return strings.Join(out, ":")
		case p.BPF:
			out = append(out, "bpf")
			add(p.Func, true)
			return strings.Join(out, ":")
		case p.Module == "bpf" && p.Kind >= Fentry:
			out = append(out, `"bpf"`)
		case p.Module != "":
			add(p.Module, false)
		}
		function()
	case Tracepoint:
		add(p.Subsystem, false)
		add(p.Event, false)
	case RawTracepoint:
		if p.Module != "" {
			add(p.Module, false)
		}
		add(p.Event, false)
	case Uprobe, Uretprobe:
		add(p.Path, false)
		if p.Demangled {
			out = append(out, "cpp")
		}
		function()
	case USDT:
		add(p.Path, false)
		if p.Namespace != "" {
			add(p.Namespace, false)
		}
		event := quote(p.Event, true)
		if p.HasAddress {
			event = fmt.Sprintf("%s+%#x", p.Event, p.Address)
		}
		out = append(out, event)
	case Profile, Interval:
		out = append(out, p.Unit.String(), strconv.FormatUint(p.Rate, 10))
	case Software, Hardware:
		add(p.Event, false)
		if p.Count != 0 {
			out = append(out, strconv.FormatUint(p.Count, 10))
		}
	case Watchpoint, AsyncWatchpoint:
		if p.HasAddress {
			out = append(out, fmt.Sprintf("%#x", p.Address))
		} else {
			out = append(out, quote(fmt.Sprintf("%s+arg%d", p.Func, p.Arg), false))
		}
		out = append(out, strconv.Itoa(p.Length), p.Mode)
	case Iter:
		add(p.Event, false)
		if p.Pin != "" {
			add(p.Pin, false)
		}
	}
	return strings.Join(out, ":")
}

// A Spelling is how a kind of attach point is written in the tracing language.
type Spelling struct {
	Kind  Kind
	Names []string // of the provider, the canonical one first
	// Usage is what follows the name and a colon, or "".
	Usage string
}

// Spellings returns those of all kinds that the tracing language has.
func Spellings() []Spelling {
	list := make([]Spelling, 0, len(providers))
	for _, p := range providers {
		list = append(list, Spelling{p.kind, slices.Clone(p.names), p.usage})
	}
	return list
}
