package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skep-bpf/skep/source"
)

// Limits of what a manifest may ask for.
const (
	maxManifest  = 16 << 20 // bytes of JSON
	maxValue     = 1 << 24  // bytes of a value or record
	maxTypeNest  = 32
	maxBuckets   = 1 << 20
	recordHeader = 8 // of an event: its index, padded
)

// ParseManifest reads the JSON form of a manifest. It refuses versions that
// this code does not know and fields that its version does not have. What it
// returns is to be checked against its object before use, see [Manifest.Check];
// [Read] does both.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("the manifest has %d bytes, more than %d", len(data), maxManifest)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("the manifest is damaged: %w", err)
	}
	switch {
	case head.Version > ManifestVersion:
		return nil, fmt.Errorf("the object was made by a newer skep (its manifest is of version %d, this skep knows up to %d): update skep, or build the object again with this one", head.Version, ManifestVersion)
	case head.Version < 1:
		return nil, errors.New("the manifest is damaged: it has no version")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	m := new(Manifest)
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("the manifest is damaged: %w", err)
	}
	return m, nil
}

// Check reports the first thing in m that its object o does not bear out: a
// program or map that is not there, an index out of range, an offset outside
// of its value. What passes can be shown without further checks of the manifest.
func (m *Manifest) Check(o *Object) error {
	c := &checker{m: m, o: o, maps: make(map[string]*Map), vars: make(map[string]int), shown: make(map[string]*MapShow)}
	for _, mp := range o.Maps {
		c.maps[mp.Name] = mp
	}
	for _, v := range o.Vars {
		c.vars[v.Name] = v.Size()
	}
	for _, step := range []func() error{c.programs, c.mapShows, c.events, c.special, c.facts} {
		if err := step(); err != nil {
			return fmt.Errorf("the manifest does not fit its object: %w", err)
		}
	}
	return nil
}

type checker struct {
	m     *Manifest
	o     *Object
	maps  map[string]*Map
	vars  map[string]int // sizes in bytes
	shown map[string]*MapShow
}

func (c *checker) programs() error {
	funcs := make(map[string]bool)
	for _, f := range c.o.Funcs {
		if f.Section != "" {
			funcs[f.Name] = true
		}
	}
	seen := make(map[string]bool)
	for _, p := range c.m.Programs {
		if !funcs[p.Name] {
			return fmt.Errorf("there is no program %q%s", p.Name, nearest(p.Name, funcs))
		}
		if seen[p.Name] {
			return fmt.Errorf("program %q is named twice", p.Name)
		}
		seen[p.Name] = true
		if !slices.Contains(programKinds, p.Kind) {
			return fmt.Errorf("program %q is of unknown kind %q", p.Name, p.Kind)
		}
		for _, i := range p.Probes {
			if i < 0 || i >= len(c.m.Probes) {
				return fmt.Errorf("program %q has probe %d of %d", p.Name, i, len(c.m.Probes))
			}
		}
		if len(p.Probes) == 0 && p.Hook == "" && p.Kind == KindAttach {
			return fmt.Errorf("program %q has nothing to be attached to", p.Name)
		}
		if p.Line < 0 {
			return fmt.Errorf("program %q is at line %d", p.Name, p.Line)
		}
	}
	for i, p := range c.m.Probes {
		if p.Name == "" {
			return fmt.Errorf("probe %d has no name", i)
		}
	}
	return nil
}

func nearest[V any](name string, among map[string]V) string {
	if near := source.Nearest(name, maps.Keys(among)); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

func (c *checker) mapShows() error {
	for i := range c.m.Maps {
		s := &c.m.Maps[i]
		if s.Name == "" || c.shown[s.Name] != nil {
			return fmt.Errorf("map %d has no name, or that of another: %q", i, s.Name)
		}
		c.shown[s.Name] = s
		if s.Var != "" {
			if s.Map != "" || len(s.Keys) > 0 || s.Agg != AggNone {
				return fmt.Errorf("map %s is kept in a variable, and so has no key, no map and no aggregation", s.Name)
			}
			size, ok := c.vars[s.Var]
			if !ok {
				return fmt.Errorf("map %s is kept in variable %q, which is not there%s", s.Name, s.Var, nearest(s.Var, c.vars))
			}
			if err := checkShow(s, 0, size); err != nil {
				return fmt.Errorf("map %s: %w", s.Name, err)
			}
			continue
		}
		m := c.maps[s.Map]
		if m == nil {
			return fmt.Errorf("map %s is kept in %q, which is not there%s", s.Name, s.Map, nearest(s.Map, c.maps))
		}
		keySize, valueSize := m.Sizes()
		if len(s.Keys) == 0 && keySize != 4 {
			return fmt.Errorf("map %s has no key, and its keys have %d bytes in place of an index of 4", s.Name, keySize)
		}
		if err := checkShow(s, keySize, valueSize); err != nil {
			return fmt.Errorf("map %s: %w", s.Name, err)
		}
	}
	return nil
}

func checkShow(s *MapShow, keySize, valueSize int) error {
	switch {
	case len(s.Keys) > 0 && s.KeySize != keySize:
		return fmt.Errorf("its keys have %d bytes, not %d", keySize, s.KeySize)
	case s.Line < 0:
		return fmt.Errorf("it is at line %d", s.Line)
	}
	if err := checkFields(s.Keys, 0, s.KeySize, 0); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if err := checkType(&s.Value, 0); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	need, err := s.valueSize()
	if err != nil {
		return err
	}
	if need > int64(valueSize) {
		return fmt.Errorf("its values have %d bytes, and %d are shown", valueSize, need)
	}
	if s.Present < -1 || s.Present >= valueSize {
		return fmt.Errorf("the byte that tells whether it is set lies at %d of %d", s.Present, valueSize)
	}
	return nil
}

// valueSize returns the bytes that a value has at least.
func (s *MapShow) valueSize() (int64, error) {
	switch s.Agg {
	case AggNone:
		return int64(s.Value.Size), nil
	case AggCount, AggSum:
		return 8, nil
	case AggMin, AggMax, AggAvg, AggStats:
		return 16, nil
	case AggHist:
		if s.Bits < 0 || s.Bits > 5 {
			return 0, fmt.Errorf("hist with %d bits, must be 0 to 5", s.Bits)
		}
		return 8 * int64(HistBuckets(s.Bits)), nil
	case AggLhist:
		// In unsigned arithmetic, where no difference overflows.
		if s.Step <= 0 || s.Max <= s.Min || (uint64(s.Max)-uint64(s.Min))/uint64(s.Step) > maxBuckets {
			return 0, fmt.Errorf("lhist from %d to %d in steps of %d", s.Min, s.Max, s.Step)
		}
		return 8 * (2 + int64((uint64(s.Max)-uint64(s.Min))/uint64(s.Step))), nil
	case AggTseries:
		if s.Interval == 0 || s.Buckets < 1 || s.Buckets > maxBuckets {
			return 0, fmt.Errorf("tseries of %d buckets each %d ns long", s.Buckets, s.Interval)
		}
		if !slices.Contains([]Agg{AggNone, AggCount, AggSum, AggMin, AggMax, AggAvg, AggStats}, s.Inner) {
			return 0, fmt.Errorf("tseries of %q", s.Inner)
		}
		return TseriesSlot * int64(s.Buckets), nil
	}
	return 0, fmt.Errorf("it is summed up by %q, which is not known", s.Agg)
}

// typeSizes are the sizes that values of a kind may have; kinds that are not
// here have any, or have rules of their own.
var typeSizes = map[TypeKind][]int{
	TypeNone: {0}, TypeInt: {1, 2, 4, 8}, TypeBool: {1}, TypePointer: {8}, TypeEnum: {1, 2, 4, 8}, TypeFlags: {1, 2, 4, 8},
	TypeInet: {24}, TypeMAC: {6}, TypeUsername: {4, 8}, TypeKsym: {8}, TypeUsym: {16},
	TypeKstack: {StackSize}, TypeUstack: {StackSize}, TypeTimestamp: {16}, TypeCgroup: {16},
	TypeProbe: {4, 8}, TypeErrno: {8}, TypeSignal: {8}, TypeSyscall: {8},
}

func checkType(t *Type, nest int) error {
	if nest > maxTypeNest {
		return errors.New("a type is nested too deep")
	}
	if t.Size < 0 || t.Size > maxValue {
		return fmt.Errorf("a type of %d bytes", t.Size)
	}
	if sizes, ok := typeSizes[t.Kind]; ok {
		if !slices.Contains(sizes, t.Size) {
			return fmt.Errorf("%s of %d bytes", t.Kind, t.Size)
		}
		return nil
	}
	switch t.Kind {
	case TypeString:
		return nil
	case TypeBuffer:
		if t.Size < 4 {
			return fmt.Errorf("buffer of %d bytes", t.Size)
		}
		return nil
	case TypeArray:
		if t.Elem == nil || t.Len < 0 {
			return errors.New("an array without elements")
		}
		if err := checkType(t.Elem, nest+1); err != nil {
			return err
		}
		if t.Len > 0 && (t.Elem.Size == 0 || t.Len > t.Size/t.Elem.Size) {
			return fmt.Errorf("array of %d elements of %d bytes in %d", t.Len, t.Elem.Size, t.Size)
		}
		return nil
	case TypeTuple, TypeRecord:
		return checkFields(t.Fields, 0, t.Size, nest+1)
	}
	return fmt.Errorf("type of unknown kind %q", t.Kind)
}

// checkFields checks that fields lie in bytes from to size.
func checkFields(fields []Field, from, size, nest int) error {
	for i := range fields {
		f := &fields[i]
		if err := checkType(&f.Type, nest); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
		if f.Offset < from || f.Offset > size || f.Type.Size > size-f.Offset {
			return fmt.Errorf("part %d lies at %d, %d bytes long, outside of %d to %d", i, f.Offset, f.Type.Size, from, size)
		}
		if f.Bits == 0 && f.BitOffset == 0 {
			continue
		}
		if f.Type.Kind != TypeInt && f.Type.Kind != TypeEnum && f.Type.Kind != TypeBool {
			return fmt.Errorf("part %d is a bit-field of kind %s", i, f.Type.Kind)
		}
		if f.Bits < 1 || f.BitOffset < 0 || f.BitOffset > 64 || f.Bits > 8*f.Type.Size-f.BitOffset {
			return fmt.Errorf("part %d is a bit-field of bits %d to %d in %d bytes", i, f.BitOffset, f.BitOffset+f.Bits, f.Type.Size)
		}
	}
	return nil
}

func (c *checker) events() error {
	if len(c.m.Events) > 0 && c.m.RingBuffer == "" {
		return errors.New("there are events, but no ring buffer for them")
	}
	for i := range c.m.Events {
		if err := c.event(&c.m.Events[i]); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return nil
}

func (c *checker) event(e *Event) error {
	if !slices.Contains(eventKinds, e.Kind) {
		return fmt.Errorf("it is of unknown kind %q", e.Kind)
	}
	if e.Size < recordHeader || e.Size > maxValue {
		return fmt.Errorf("its record has %d bytes", e.Size)
	}
	if e.Line < 0 || e.Col < 0 {
		return fmt.Errorf("it is at line %d, column %d", e.Line, e.Col)
	}
	needsMap := e.Kind == EventPrintMap || e.Kind == EventPrintElem || e.Kind == EventClear || e.Kind == EventZero
	if e.Map == "" && needsMap || e.Map != "" && c.shown[e.Map] == nil {
		return fmt.Errorf("%s of map %q, which is not there%s", e.Kind, e.Map, nearest(e.Map, c.shown))
	}
	return checkFields(e.Args, recordHeader, e.Size, 0)
}

// special checks the maps that skep itself reads.
func (c *checker) special() error {
	get := func(what, name string, fits func(m *Map) bool) error {
		if name == "" {
			return nil
		}
		m := c.maps[name]
		if m == nil {
			return fmt.Errorf("its %s is map %q, which is not there%s", what, name, nearest(name, c.maps))
		}
		if !fits(m) {
			return fmt.Errorf("its %s is map %q, which is of another kind or size", what, name)
		}
		return nil
	}
	if err := get("ring buffer", c.m.RingBuffer, func(m *Map) bool {
		return m.Type == bpfMapTypeRingbuf || m.Type == bpfMapTypePerfEventArray
	}); err != nil {
		return err
	}
	if name := c.m.Counters; name != "" {
		size, ok := c.vars[name]
		if !ok {
			return fmt.Errorf("its table of losses is variable %q, which is not there%s", name, nearest(name, c.vars))
		}
		if size/8 < len(c.m.Losses) {
			return fmt.Errorf("its table of losses has %d bytes, too few for %d", size, len(c.m.Losses))
		}
	}
	if err := get("table of stacks", c.m.Stacks, func(m *Map) bool {
		key, value := m.Sizes()
		return key == 8 && value > 0 && value%8 == 0
	}); err != nil {
		return err
	}
	if len(c.m.Losses) > 0 && c.m.Counters == "" {
		return errors.New("there are losses to be counted, but no table of them")
	}
	for i, l := range c.m.Losses {
		if !slices.Contains(lossKinds, l.Kind) || l.Line < 0 {
			return fmt.Errorf("loss %d is of unknown kind %q, or at line %d", i, l.Kind, l.Line)
		}
	}
	return nil
}

func (c *checker) facts() error {
	for i, f := range c.m.Facts {
		if !slices.Contains(factKinds, f.Kind) || f.Name == "" || f.Line < 0 {
			return fmt.Errorf("fact %d is of unknown kind %q, has no name, or is at line %d", i, f.Kind, f.Line)
		}
	}
	return nil
}

// A FactDiff is a fact that is otherwise on the machine at hand.
type FactDiff struct {
	Fact
	// Got is the value there, when Err is nil.
	Got string
	// Err says why the value cannot be had: the event is not there, say.
	Err error
}

func (d FactDiff) String() string {
	if d.Err != nil {
		return fmt.Sprintf("%s %s: was %s, and here: %v", d.Kind, d.Name, d.Value, d.Err)
	}
	return fmt.Sprintf("%s %s: was %s, is %s here", d.Kind, d.Name, d.Value, d.Got)
}

// DifferentFacts compares the facts of m with what value says of them on the
// machine at hand, and returns those that differ, in their order.
func (m *Manifest) DifferentFacts(value func(Fact) (string, error)) []FactDiff {
	var diffs []FactDiff
	for _, f := range m.Facts {
		got, err := value(f)
		if err != nil || got != f.Value {
			diffs = append(diffs, FactDiff{f, got, err})
		}
	}
	return diffs
}
