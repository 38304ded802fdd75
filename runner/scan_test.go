package runner

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/object"
)

var (
	scanInt   = &object.Type{Kind: object.TypeInt, Size: 8, Signed: true}
	scanUint  = &object.Type{Kind: object.TypeInt, Size: 8}
	scanText  = &object.Type{Kind: object.TypeString, Size: 16}
	scanBytes = &object.Type{Kind: object.TypeBuffer, Size: 16}
)

func number(n int64) Value  { return Value{Type: scanInt, Int: n} }
func phrase(s string) Value { return Value{Type: scanText, Bytes: []byte(s)} }

func TestScan(t *testing.T) {
	type open struct {
		PID  int32
		Path string `bt:"file_name"`
	}
	opened := Value{
		Type:  &object.Type{Kind: object.TypeTuple, Fields: []object.Field{{Name: "pid", Type: *scanInt}, {Name: "file_name", Type: *scanText}}},
		Elems: []Value{number(7), phrase("/etc")},
	}
	plain := Value{
		Type:  &object.Type{Kind: object.TypeTuple, Fields: []object.Field{{Type: *scanInt}, {Type: *scanText}}},
		Elems: opened.Elems,
	}
	list := Value{Type: &object.Type{Kind: object.TypeArray, Elem: scanInt, Len: 2}, Elems: []Value{number(1), number(-2)}}
	inet := Value{Type: &object.Type{Kind: object.TypeInet}, Int: 2, Bytes: []byte{127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	for _, test := range []struct {
		value Value
		want  any // of the type that is scanned into
	}{
		{number(-5), -5},
		{number(5), uint8(5)},
		{Value{Type: scanUint, Int: -1}, uint64(1<<64 - 1)},
		{number(-5), "-5"},
		{Value{Type: &object.Type{Kind: object.TypeBool}, Int: 1}, true},
		{phrase("a\x1b"), "a\x1b"},
		{phrase("abc"), []byte("abc")},
		{Value{Type: scanBytes, Bytes: []byte("abc")}, [3]byte{'a', 'b', 'c'}},
		{inet, netip.MustParseAddr("127.0.0.1")},
		{inet, "127.0.0.1"},
		{list, []int64{1, -2}},
		{list, [2]int16{1, -2}},
		{opened, open{7, "/etc"}},
		{plain, open{7, "/etc"}},
		{plain, []string{"7", "/etc"}},
	} {
		got := reflect.New(reflect.TypeOf(test.want))
		if err := test.value.Scan(got.Interface()); err != nil || !reflect.DeepEqual(got.Elem().Interface(), test.want) {
			t.Errorf("%v into a %T: %v, %v", test.value, test.want, got.Elem(), err)
		}
	}
	var n int8
	var u uint32
	var b bool
	var s []int
	var fields struct{ PID int }
	for _, test := range []struct {
		value Value
		dst   any
		want  string
	}{
		{number(300), &n, "300 does not fit into a int8"},
		{number(-1), &u, "-1 does not fit into a uint32"},
		{Value{Type: scanUint, Int: -1}, new(int64), "18446744073709551615 does not fit into a int64"},
		{number(1), &b, "a value of type int cannot be scanned into a bool"},
		{phrase("1"), &n, "a value of type string cannot be scanned into a int8"},
		{number(1), &s, "a value of type int cannot be scanned into a []int"},
		{list, new([3]int), "2 elements cannot be scanned into a [3]int"},
		{opened, &fields, "field file_name: struct { PID int } has no exported field of that name"},
		{number(1), n, "a value is scanned into what a pointer points to, not into a int8"},
		{number(1), (*int)(nil), "a value is scanned into what a pointer points to, not into a *int"},
		{Value{}, &n, "there is no value to scan: its record was cut short"},
	} {
		if err := test.value.Scan(test.dst); err == nil || err.Error() != test.want {
			t.Errorf("%v into a %T: %v, want %s", test.value, test.dst, err, test.want)
		}
	}
}

func TestScanAll(t *testing.T) {
	var pid int
	var path string
	pair := Value{Type: &object.Type{Kind: object.TypeTuple}, Elems: []Value{number(7), phrase("/etc")}}
	for _, e := range []Event{{Values: []Value{number(7), phrase("/etc")}}, {Values: []Value{pair}}} {
		pid, path = 0, ""
		if err := e.Scan(&pid, &path); err != nil || pid != 7 || path != "/etc" {
			t.Errorf("%d, %q, %v", pid, path, err)
		}
	}
	e := Event{Values: []Value{pair}}
	if err := e.Scan(&pid, &path, &path); err == nil || err.Error() != "there are 2 values, and 3 destinations for them" {
		t.Error(err)
	}
	var comm string
	var count uint64
	entry := Entry{Key: []Value{phrase("cat"), number(7)}, Agg: Aggregate{Number: 3}}
	if err := entry.Scan(&comm, &pid, &count); err != nil || !cmp.Equal([]any{comm, pid, count}, []any{"cat", 7, uint64(3)}) {
		t.Errorf("%q, %d, %d, %v", comm, pid, count, err)
	}
	if err := entry.Scan(&comm, &comm, &pid, &pid); err == nil {
		t.Error("a key of two parts was scanned into three")
	}
	// What was scanned outlives the record.
	record := []byte("first")
	var text []byte
	v := Value{Type: scanText, Bytes: record}
	if err := v.Scan(&text); err != nil {
		t.Fatal(err)
	}
	copy(record, "xxxxx")
	if string(text) != "first" {
		t.Errorf("%q", text)
	}
}
