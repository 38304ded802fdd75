package runner

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// A Snapshot is what a map held at one moment, sorted as it is shown.
type Snapshot struct {
	Show    *object.MapShow
	Entries []Entry
	// Div divides the numbers that are shown; at least 1.
	Div int64
}

// An Entry is one element of a map.
type Entry struct {
	Key   []Value // empty for scalars
	Value Value   // of maps that are no aggregation
	Agg   Aggregate
}

// An Aggregate is an aggregation summed up over all CPUs.
type Aggregate struct {
	// Number is the count, sum, minimum, maximum or average; unsigned unless
	// MapShow.Value.Signed.
	Number int64
	// Count and Total are those of avg and stats.
	Count uint64
	Total int64
	// Buckets are those of hist and lhist.
	Buckets []uint64
	// Series are the intervals of a tseries, oldest first.
	Series []Point
}

// A Point is one interval of a time series.
type Point struct {
	Time  time.Time // when it began
	Value int64
	Set   bool // false where the interval has no value

	epoch uint64
}

// Divided is a number of the map as it is shown: divided by Div.
func (s *Snapshot) Divided(n int64) int64 {
	if s.Div <= 1 {
		return n
	}
	if s.Show.Value.Signed {
		return n / s.Div
	}
	return int64(uint64(n) / uint64(s.Div))
}

// compareEntries is the order in which a map is shown: numbers ascend,
// histograms ascend by how much they count, everything else by key.
func compareEntries(m *object.MapShow, a, b *Entry) int {
	c := 0
	switch m.Agg {
	case object.AggNone:
		switch m.Value.Kind {
		case object.TypeInt, object.TypeBool, object.TypeEnum, object.TypePointer:
			c = compareNumbers(m.Value.Signed, a.Value.Int, b.Value.Int)
		}
	case object.AggHist, object.AggLhist:
		c = cmp.Compare(total(a.Agg.Buckets), total(b.Agg.Buckets))
	case object.AggTseries:
	default:
		c = compareNumbers(m.Value.Signed, a.Agg.Number, b.Agg.Number)
	}
	if c != 0 {
		return c
	}
	return compareKeys(a.Key, b.Key)
}

func total(buckets []uint64) uint64 {
	n := uint64(0)
	for _, b := range buckets {
		n += b
	}
	return n
}

func compareNumbers(signed bool, a, b int64) int {
	if signed {
		return cmp.Compare(a, b)
	}
	return cmp.Compare(uint64(a), uint64(b))
}

func compareKeys(a, b []Value) int {
	for i := range a {
		if i >= len(b) {
			return 1
		}
		signed := a[i].Type != nil && a[i].Type.Signed
		if c := cmp.Or(compareNumbers(signed, a[i].Int, b[i].Int), bytes.Compare(a[i].Bytes, b[i].Bytes),
			compareKeys(a[i].Elems, b[i].Elems)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// showMap takes a snapshot of a map and delivers it; args are top and div.
func (r *run) showMap(e *Event, m *object.MapShow, args []Value) error {
	s, err := r.snapshot(m)
	if err != nil {
		return err
	}
	if len(args) > 1 && args[1].Int > 0 {
		s.Div = args[1].Int
	}
	if len(args) > 0 && args[0].Int > 0 && args[0].Int < int64(len(s.Entries)) {
		s.Entries = s.Entries[len(s.Entries)-int(args[0].Int):]
	}
	e.Kind, e.Map, e.Values = object.EventPrintMap, s, nil
	return r.Events(*e)
}

// snapshot reads a map as it is now.
func (r *run) snapshot(m *object.MapShow) (*Snapshot, error) {
	s := &Snapshot{Show: m, Div: 1}
	d := decoder{order: r.order, names: r.names}
	if m.Var != "" {
		v, err := r.loaded.Var(m.Var)
		if err != nil {
			return nil, err
		}
		data, err := v.Get()
		if err != nil {
			return nil, err
		}
		if m.Present >= 0 && m.Present < len(data) && data[m.Present] == 0 {
			return s, nil
		}
		s.Entries = make([]Entry, 1)
		d.decode(&s.Entries[0].Value, &m.Value, data)
		return s, nil
	}
	mm, err := r.loaded.Map(m.Map)
	if err != nil {
		return nil, err
	}
	slot := (mm.ValueSize() + 7) / 8 * 8
	err = mm.All(func(key, value []byte) bool {
		e := Entry{}
		if len(m.Keys) > 0 {
			e.Key = d.decodeFields(nil, m.Keys, bytes.Clone(key))
		}
		switch {
		case m.Agg != object.AggNone:
			var set bool
			e.Agg, set = r.aggregate(m, slot, value)
			if !set {
				return true
			}
		case mm.PerCPU() && m.Value.Kind == object.TypeInt:
			d.decode(&e.Value, &m.Value, value)
			e.Value.Int = 0
			for at := 0; slot > 0 && at+slot <= len(value); at += slot {
				var v Value
				d.decode(&v, &m.Value, value[at:])
				e.Value.Int += v.Int
			}
		default:
			d.decode(&e.Value, &m.Value, bytes.Clone(value))
		}
		s.Entries = append(s.Entries, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	if m.Agg == object.AggTseries {
		alignSeries(s.Entries, m, r.names)
	}
	slices.SortStableFunc(s.Entries, func(a, b Entry) int { return compareEntries(m, &a, &b) })
	r.resolveAll(s)
	r.cut += d.cut
	return s, nil
}

// resolveAll names all addresses of the kernel in a snapshot at once, since a
// look-up reads the whole list of symbols.
func (r *run) resolveAll(s *Snapshot) {
	var addrs []uint64
	var visit func(list []Value)
	visit = func(list []Value) {
		for i := range list {
			v := &list[i]
			if v.Type == nil {
				continue
			}
			switch {
			case v.Type.Kind == object.TypeKsym:
				addrs = append(addrs, uint64(v.Int))
			case v.Type.Kind == object.TypeKstack && v.Type.Name != "raw":
				addrs = append(addrs, r.names.stackFrames(v)...)
			}
			visit(v.Elems)
		}
	}
	for i := range s.Entries {
		visit(s.Entries[i].Key)
		visit([]Value{s.Entries[i].Value})
	}
	if len(addrs) > 0 {
		slices.Sort(addrs)
		r.names.resolve(slices.Compact(addrs))
	}
}

// aggregate sums up the values of all CPUs, each slot bytes long. set is false
// for elements that no program gave a value, such as the one of an array.
func (r *run) aggregate(m *object.MapShow, slot int, data []byte) (a Aggregate, set bool) {
	series := map[uint64]*tslot{}
	for at := 0; slot > 0 && at+slot <= len(data); at += slot {
		v := data[at : at+slot]
		word := func(i int) int64 {
			if 8*i+8 > len(v) {
				return 0
			}
			return int64(r.order.Uint64(v[8*i:]))
		}
		switch m.Agg {
		case object.AggCount, object.AggSum:
			a.Number += word(0)
			set = set || word(0) != 0 || word(1) != 0
		case object.AggMin, object.AggMax:
			if word(1) == 0 {
				continue
			}
			if n := word(0); !set || compareNumbers(m.Value.Signed, n, a.Number) < 0 == (m.Agg == object.AggMin) {
				a.Number = n
			}
			set = true
		case object.AggAvg, object.AggStats:
			a.Total += word(0)
			a.Count += uint64(word(1))
			set = set || a.Count > 0
		case object.AggHist, object.AggLhist:
			if a.Buckets == nil {
				a.Buckets = make([]uint64, slot/8)
			}
			for i := range a.Buckets {
				a.Buckets[i] += uint64(word(i))
				set = set || a.Buckets[i] > 0
			}
		case object.AggTseries:
			for i := range m.Buckets {
				if e := uint64(word(3 * i)); e > 0 {
					set = true
					series[e-1] = series[e-1].add(m, word(3*i+1), uint64(word(3*i+2)))
				}
			}
		}
	}
	// The element of a map without keys is always there, even if no program
	// gave it a value.
	if len(m.Keys) > 0 && m.Agg != object.AggTseries || r.zeroed[m.Name] {
		set = true
	}
	if a.Count > 0 {
		if m.Value.Signed {
			a.Number = a.Total / int64(a.Count)
		} else {
			a.Number = int64(uint64(a.Total) / a.Count)
		}
	}
	for epoch, s := range series {
		a.Series = append(a.Series, Point{Value: s.result(m), Set: true, epoch: epoch})
	}
	return a, set
}

// A tslot is one interval of a time series while CPUs are put together.
type tslot struct {
	value int64
	count uint64
}

func (s *tslot) add(m *object.MapShow, value int64, count uint64) *tslot {
	if s == nil {
		return &tslot{value, count}
	}
	less := compareNumbers(m.Value.Signed, value, s.value) < 0
	switch m.Inner {
	case object.AggSum, object.AggCount:
		s.value += value
	case object.AggMin:
		if less {
			s.value = value
		}
	case object.AggMax:
		if !less {
			s.value = value
		}
	case object.AggAvg, object.AggStats:
		s.value += value
		s.count += count
	default:
		if count >= s.count {
			s.value, s.count = value, count
		}
	}
	return s
}

func (s *tslot) result(m *object.MapShow) int64 {
	if (m.Inner == object.AggAvg || m.Inner == object.AggStats) && s.count > 0 {
		if m.Value.Signed {
			return s.value / int64(s.count)
		}
		return int64(uint64(s.value) / s.count)
	}
	return s.value
}

// alignSeries makes all series of a map end with the same interval, drops what
// is older than it shows, and fills gaps.
func alignSeries(entries []Entry, m *object.MapShow, names *names) {
	last := uint64(0)
	for _, e := range entries {
		for _, p := range e.Agg.Series {
			last = max(last, p.epoch)
		}
	}
	for i := range entries {
		values := map[uint64]int64{}
		first := last
		for _, p := range entries[i].Agg.Series {
			if last-p.epoch < uint64(m.Buckets) {
				values[p.epoch] = p.Value
				first = min(first, p.epoch)
			}
		}
		var list []Point
		for epoch := first; len(values) > 0 && epoch <= last; epoch++ {
			v, ok := values[epoch]
			list = append(list, Point{names.time(int64(epoch*m.Interval), ClockTAI), v, ok, epoch})
		}
		entries[i].Agg.Series = list
	}
}

// wipe empties a map, or sets all its values to zero.
func (r *run) wipe(m *object.MapShow, zero bool) error {
	if m.Var != "" {
		v, err := r.loaded.Var(m.Var)
		if err != nil {
			return err
		}
		data, err := v.Get()
		if err != nil {
			return err
		}
		present := byte(0)
		if zero && m.Present >= 0 && m.Present < len(data) {
			present = data[m.Present]
		}
		clear(data)
		if m.Present >= 0 && m.Present < len(data) {
			data[m.Present] = present
		}
		return v.Set(data)
	}
	mm, err := r.loaded.Map(m.Map)
	if err != nil {
		return err
	}
	var keys [][]byte
	var size int
	zeroed := false
	if err := mm.All(func(key, value []byte) bool {
		keys, size = append(keys, bytes.Clone(key)), len(value)
		if zero && len(m.Keys) == 0 {
			_, zeroed = r.aggregate(m, (mm.ValueSize()+7)/8*8, value)
		}
		return true
	}); err != nil {
		return err
	}
	if r.zeroed == nil {
		r.zeroed = map[string]bool{}
	}
	r.zeroed[m.Name] = zeroed
	for _, k := range keys {
		if zero || len(m.Keys) == 0 {
			err = mm.Update(k, make([]byte, size))
		} else {
			err = mm.Delete(k)
		}
		if err != nil && !errors.Is(err, machine.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
