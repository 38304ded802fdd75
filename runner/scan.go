package runner

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/skep-bpf/skep/object"
)

// Scan copies the values of an event, in order, to what dst point to; see
// [Value.Scan]. A single tuple or record may be scanned into as many
// destinations as it has fields: print((pid, comm)) into an int and a string.
func (e *Event) Scan(dst ...any) error {
	values := e.Values
	if len(values) == 1 && len(dst) != 1 && len(values[0].Elems) > 0 {
		values = values[0].Elems
	}
	return scanAll(values, dst)
}

// Scan copies the parts of an element's key and then its value to what dst
// point to; see [Value.Scan]. The value of an aggregation is its number.
func (e *Entry) Scan(dst ...any) error {
	value := e.Value
	if value.Type == nil {
		value = Value{Type: &object.Type{Kind: object.TypeInt, Size: 8, Signed: true}, Int: e.Agg.Number}
	}
	return scanAll(append(e.Key[:len(e.Key):len(e.Key)], value), dst)
}

func scanAll(values []Value, dst []any) error {
	if len(values) != len(dst) {
		return fmt.Errorf("there are %d values, and %d destinations for them", len(values), len(dst))
	}
	for i := range values {
		if err := values[i].Scan(dst[i]); err != nil {
			return fmt.Errorf("value %d: %w", i+1, err)
		}
	}
	return nil
}

// Scan copies a value to what dst points to:
//
//   - numbers, pointers and addresses to any integer that can hold them, and
//     to a bool where the value is one;
//   - every value to a string, which gets the text that is shown, unescaped;
//   - strings, buffers and hardware addresses to a []byte, or an array of
//     bytes of that length;
//   - network addresses to a [netip.Addr];
//   - arrays and tuples to slices, and arrays of that length;
//   - tuples and records to structs: a named field to the field of that name,
//     whatever its case, or with that name in its tag `bt:"name"`, and others in
//     order;
//   - every value to a [Value], which is a copy.
//
// What was scanned stays good when the event is not any more.
func (v *Value) Scan(dst any) error {
	if to, ok := dst.(*Value); ok {
		*to = v.Clone()
		return nil
	}
	p := reflect.ValueOf(dst)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("a value is scanned into what a pointer points to, not into a %T", dst)
	}
	return v.scan(p.Elem())
}

var (
	addrType  = reflect.TypeFor[netip.Addr]()
	valueType = reflect.TypeFor[Value]()
)

func (v *Value) scan(to reflect.Value) error {
	if v.Type == nil || v.short {
		return errors.New("there is no value to scan: its record was cut short")
	}
	switch to.Type() {
	case valueType:
		to.Set(reflect.ValueOf(v.Clone()))
		return nil
	case addrType:
		return v.scanAddr(to)
	}
	switch kind := to.Kind(); kind {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if !v.isNumber() || to.OverflowInt(v.Int) || v.Int < 0 && !v.Type.Signed {
			return v.unfit(to)
		}
		to.SetInt(v.Int)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if !v.isNumber() || to.OverflowUint(v.Uint()) || v.Int < 0 && v.Type.Signed {
			return v.unfit(to)
		}
		to.SetUint(v.Uint())
		return nil
	case reflect.Bool:
		if v.Type.Kind != object.TypeBool {
			return v.unfit(to)
		}
		to.SetBool(v.Int != 0)
		return nil
	case reflect.String:
		if v.Type.Kind == object.TypeString {
			to.SetString(string(v.Bytes))
		} else {
			to.SetString(string(v.Append(nil, nil)))
		}
		return nil
	case reflect.Slice, reflect.Array:
		return v.scanList(to)
	case reflect.Struct:
		return v.scanStruct(to)
	}
	return v.unfit(to)
}

// isNumber reports whether Int is what a value is.
func (v *Value) isNumber() bool {
	switch v.Type.Kind {
	case object.TypeNone, object.TypeString, object.TypeBuffer, object.TypeMAC, object.TypeInet,
		object.TypeArray, object.TypeTuple, object.TypeRecord:
		return false
	}
	return true
}

func (v *Value) unfit(to reflect.Value) error {
	if v.isNumber() && (to.CanInt() || to.CanUint()) {
		return fmt.Errorf("%s does not fit into a %s", v.String(), to.Type())
	}
	return fmt.Errorf("a value of type %s cannot be scanned into a %s", v.Type.Kind, to.Type())
}

func (v *Value) scanAddr(to reflect.Value) error {
	if v.Type.Kind != object.TypeInet {
		return v.unfit(to)
	}
	addr, err := netip.ParseAddr(v.String())
	if err != nil {
		return fmt.Errorf("a network address cannot be scanned: %w", err)
	}
	to.Set(reflect.ValueOf(addr))
	return nil
}

func (v *Value) scanList(to reflect.Value) error {
	var n int
	isBytes := false
	switch v.Type.Kind {
	case object.TypeString, object.TypeBuffer, object.TypeMAC:
		if isBytes = to.Type().Elem().Kind() == reflect.Uint8; !isBytes {
			return v.unfit(to)
		}
		n = len(v.Bytes)
	case object.TypeArray, object.TypeTuple:
		n = len(v.Elems)
	default:
		return v.unfit(to)
	}
	if to.Kind() == reflect.Slice {
		if isBytes {
			to.SetBytes(bytes.Clone(v.Bytes))
			return nil
		}
		to.Set(reflect.MakeSlice(to.Type(), n, n))
	} else if to.Len() != n {
		return fmt.Errorf("%d elements cannot be scanned into a %s", n, to.Type())
	}
	if isBytes {
		reflect.Copy(to, reflect.ValueOf(v.Bytes).Convert(reflect.SliceOf(to.Type().Elem())))
		return nil
	}
	for i := range v.Elems {
		if err := v.Elems[i].scan(to.Index(i)); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

func (v *Value) scanStruct(to reflect.Value) error {
	if v.Type.Kind != object.TypeTuple && v.Type.Kind != object.TypeRecord {
		return v.unfit(to)
	}
	for i := range v.Elems {
		name := v.Type.Fields[i].Name
		field, err := fieldFor(to, name, i)
		if err == nil {
			err = v.Elems[i].scan(field)
		}
		if err != nil {
			if name == "" {
				name = fmt.Sprint(i)
			}
			return fmt.Errorf("field %s: %w", name, err)
		}
	}
	return nil
}

// fieldFor is the field of a struct that gets a field of that name, or for ""
// the one of that number.
func fieldFor(to reflect.Value, name string, i int) (reflect.Value, error) {
	t := to.Type()
	if name == "" {
		if i >= t.NumField() || !t.Field(i).IsExported() {
			return reflect.Value{}, fmt.Errorf("%s has no exported field for it", t)
		}
		return to.Field(i), nil
	}
	for n := range t.NumField() {
		f := t.Field(n)
		tag, tagged := f.Tag.Lookup("bt")
		if f.IsExported() && (tag == name || !tagged && strings.EqualFold(f.Name, strings.ReplaceAll(name, "_", ""))) {
			return to.Field(n), nil
		}
	}
	return reflect.Value{}, fmt.Errorf("%s has no exported field of that name", t)
}
