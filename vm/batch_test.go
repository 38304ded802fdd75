package vm

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func TestBatches(t *testing.T) {
	v, err := New(Options{CPUs: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m, err := v.NewMap(&ebpf.MapSpec{Name: "m", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 10})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.BatchUpdate([]uint32{1, 2, 3, 4, 5}, []uint64{10, 20, 30, 40, 50}, nil); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := m.BatchUpdate([]uint32{6, 1}, []uint64{60, 0}, &ebpf.BatchOptions{ElemFlags: uint64(ebpf.UpdateNoExist)}); n != 1 || !errors.Is(err, ebpf.ErrKeyExist) {
		t.Errorf("%d updated, %v; want 1 and ErrKeyExist", n, err)
	}
	var cursor MapBatchCursor
	got := map[uint32]uint64{}
	keys, values := make([]uint32, 4), make([]uint64, 4)
	var ns []int
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		ns = append(ns, n)
		for i := range n {
			got[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(ns, []int{4, 2}) || len(got) != 6 || got[6] != 60 || got[1] != 10 {
		t.Errorf("got %v in %v", got, ns)
	}
	if n, err := m.BatchDelete([]uint32{1, 2, 9, 3}, nil); n != 2 || !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("%d deleted, %v", n, err)
	}
	cursor = MapBatchCursor{}
	if n, err := m.BatchLookupAndDelete(&cursor, keys, values, nil); n != 4 || err != nil {
		t.Errorf("%d taken, %v", n, err)
	}
	if m.Iterate().Next(&keys[0], &values[0]) {
		t.Error("something is left")
	}

	p, err := v.NewMap(&ebpf.MapSpec{Name: "p", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.BatchUpdate([]uint32{0, 1}, []uint32{1, 2, 3, 4}, nil); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	small, each := make([]uint32, 2), make([]uint32, 4)
	var at MapBatchCursor
	if n, err := p.BatchLookup(&at, small, each, nil); n != 2 || err != nil || !slices.Equal(each, []uint32{1, 2, 3, 4}) {
		t.Errorf("%d: %v, %v", n, each, err)
	}
	if _, err := p.BatchLookup(&cursor, small, each, nil); err == nil {
		t.Error("a cursor of another map was taken")
	}
	if _, err := p.BatchLookupAndDelete(&at, small, each, nil); !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("%v, want ErrNotSupported", err)
	}
	q, err := v.NewMap(&ebpf.MapSpec{Name: "q", Type: ebpf.Queue, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.BatchUpdate([]uint32{}, []uint32{}, nil); !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("%v, want ErrNotSupported", err)
	}
}
