package target

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// A Format is the format file of a tracepoint: where its fields lie in the
// record that a program gets, and how the kernel would print them.
type Format struct {
	Subsystem, Name string
	// ID is the event's number; it differs between boots.
	ID uint32
	// Fields stand in the order of the file, the common ones first.
	Fields []Field
	// Print is the text after "print fmt:", or "".
	Print string
}

// Args returns the fields of the event itself, without the common ones.
func (f *Format) Args() []Field {
	for i := range f.Fields {
		if !f.Fields[i].Common {
			return f.Fields[i:]
		}
	}
	return nil
}

// Field returns the field of that name.
func (f *Format) Field(name string) (Field, bool) {
	for _, field := range f.Fields {
		if field.Name == name {
			return field, true
		}
	}
	return Field{}, false
}

// Size is the number of bytes that the fields span.
func (f *Format) Size() int {
	size := 0
	for _, field := range f.Fields {
		size = max(size, field.Offset+field.Size)
	}
	return size
}

// FieldKind says what lies at a field's offset.
type FieldKind uint8

// Kinds of fields.
const (
	FieldScalar  FieldKind = iota // an integer or enum of Size bytes
	FieldPointer                  // a pointer; Size is 8 even for 4-byte ones of syscalls
	FieldArray                    // Len elements of CType, in the record
	FieldString                   // char[Len] in the record
	FieldStruct                   // a struct or union by value
	// FieldDataLoc is a __data_loc word of 4 bytes: the low half is the
	// offset of the data in the record, the high half its length in bytes.
	FieldDataLoc
	// FieldRelLoc is like FieldDataLoc, but its offset counts from the end of
	// the word itself.
	FieldRelLoc
)

func (k FieldKind) String() string {
	return [...]string{"scalar", "pointer", "array", "string", "struct", "data_loc", "rel_loc"}[k]
}

// A Field is one field of a Format.
type Field struct {
	Name string
	// CType is the type as C text. Of arrays and of data that the record
	// points to it is the type of an element: "char" of "__data_loc char[] msg".
	CType  string
	Kind   FieldKind
	Offset int // in bytes, from the start of the record
	Size   int // in bytes, of what lies at Offset
	Signed bool
	Common bool // one of common_type, common_flags, common_preempt_count, common_pid
	// Len is the number of elements of an array; 0 when the record decides.
	Len int
	// Dynamic tells a "char[]" behind FieldDataLoc or FieldRelLoc, which is a
	// string or an array of any length, from a single element such as
	// "__data_loc cpumask_t".
	Dynamic bool
}

// IsString reports whether the field holds text: char[N], or char[] that the
// record points to. Pointers to char are none: they lead out of the record.
func (f Field) IsString() bool {
	return f.Kind == FieldString || (f.Kind == FieldDataLoc || f.Kind == FieldRelLoc) && f.Dynamic && f.CType == "char"
}

// Decl is the field as a C declaration.
func (f Field) Decl() string { return declare(f) }

// FieldType returns the type of what a field holds: the integer, pointer,
// enum, struct or array; of a FieldDataLoc or FieldRelLoc the array of
// unknown length (Nelems 0) that it leads to, or the element when it is not
// Dynamic. Named types are looked up in the target's BTF; without BTF, or
// when a name is not there, an integer of the field's size and sign stands in.
func FieldType(t Target, f Field) (btf.Type, error) { return fieldType(t, f) }

// Text is the type of the field as C text without its name: "char[16]",
// "__data_loc char[]".
func (f Field) Text() string {
	switch f.Kind {
	case FieldDataLoc, FieldRelLoc:
		f.Name = ""
		return strings.TrimSuffix(declare(f), " ")
	case FieldArray, FieldString:
		if f.Len == 0 {
			return f.CType + "[]"
		}
		return fmt.Sprintf("%s[%d]", f.CType, f.Len)
	}
	return f.CType
}
