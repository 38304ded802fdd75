package runner

import (
	"cmp"
	"errors"
	"slices"

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
	// Number is the count, sum, minimum, maximum or average.
	Number int64
	// Count and Total are those of avg and stats.
	Count uint64
	Total int64
	// Buckets are those of hist and lhist.
	Buckets []uint64
}

// sortKey is what entries are sorted by.
func (e *Entry) sortKey(m *object.MapShow) int64 {
	switch m.Agg {
	case object.AggNone:
		return e.Value.Int
	case object.AggHist, object.AggLhist:
		n := uint64(0)
		for _, b := range e.Agg.Buckets {
			n += b
		}
		return int64(n)
	case object.AggStats:
		return e.Agg.Total
	}
	return e.Agg.Number
}

// showMap takes a snapshot of a map and delivers it; args are top and div.
func (r *run) showMap(m *object.MapShow, args []Value) error {
	s, err := r.snapshot(m)
	if err != nil {
		return err
	}
	s.Div = 1
	if len(args) > 1 && args[1].Int > 0 {
		s.Div = args[1].Int
	}
	if len(args) > 0 && args[0].Int > 0 && int(args[0].Int) < len(s.Entries) {
		s.Entries = s.Entries[len(s.Entries)-int(args[0].Int):]
	}
	return r.Events(Event{Kind: object.EventPrintMap, Map: s})
}

func (r *run) snapshot(m *object.MapShow) (*Snapshot, error) {
	s := &Snapshot{Show: m}
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
		s.Entries = []Entry{{Value: r.decode(&m.Value, data)}}
		return s, nil
	}
	mm, err := r.loaded.Map(m.Map)
	if err != nil {
		return nil, err
	}
	err = mm.All(func(key, value []byte) bool {
		e := Entry{}
		if len(m.Keys) > 0 {
			e.Key = r.decodeFields(m.Keys, key)
		}
		if m.Agg != object.AggNone {
			e.Agg = r.aggregate(m, mm, value)
		} else {
			e.Value = r.decode(&m.Value, value)
		}
		s.Entries = append(s.Entries, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.sortKey(m), b.sortKey(m)), compareKeys(a.Key, b.Key))
	})
	return s, nil
}

func compareKeys(a, b []Value) int {
	for i := range a {
		if i >= len(b) {
			return 1
		}
		if c := cmp.Or(cmp.Compare(a[i].Int, b[i].Int), slices.Compare(a[i].Bytes, b[i].Bytes), compareKeys(a[i].Elems, b[i].Elems)); c != 0 {
			return c
		}
	}
	return 0
}

// aggregate sums up the values of all CPUs.
func (r *run) aggregate(m *object.MapShow, mm machine.Map, data []byte) Aggregate {
	var a Aggregate
	size := (mm.ValueSize() + 7) / 8 * 8
	set := false
	for at := 0; size > 0 && at+size <= len(data); at += size {
		v := data[at : at+size]
		word := func(i int) int64 {
			if 8*i+8 > len(v) {
				return 0
			}
			return int64(r.order.Uint64(v[8*i:]))
		}
		switch m.Agg {
		case object.AggCount, object.AggSum:
			a.Number += word(0)
		case object.AggMin, object.AggMax:
			if word(1) == 0 {
				continue
			}
			n := word(0)
			less := n < a.Number
			if !m.Value.Signed {
				less = uint64(n) < uint64(a.Number)
			}
			if !set || less == (m.Agg == object.AggMin) {
				a.Number = n
			}
			set = true
		case object.AggAvg, object.AggStats:
			a.Total += word(0)
			a.Count += uint64(word(1))
		case object.AggHist, object.AggLhist:
			if a.Buckets == nil {
				a.Buckets = make([]uint64, mm.ValueSize()/8)
			}
			for i := range a.Buckets {
				a.Buckets[i] += uint64(word(i))
			}
		}
	}
	if a.Count > 0 {
		if m.Value.Signed {
			a.Number = a.Total / int64(a.Count)
		} else {
			a.Number = int64(uint64(a.Total) / a.Count)
		}
	}
	return a
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
	if err := mm.All(func(key, value []byte) bool {
		keys, size = append(keys, key), len(value)
		return true
	}); err != nil {
		return err
	}
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
