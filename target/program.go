package target

// A Program is a BPF program that the kernel of a target has now, to which
// others can attach (fentry:bpf, fexit:bpf).
type Program struct {
	ID   uint32
	Name string // of its function, in full
}

// Programs lists the BPF programs of t that have type information, in the order
// in which they were loaded. The error wraps ErrUnknown where t cannot tell: a
// snapshot has none.
func Programs(t Target) ([]Program, error) {
	if m, ok := Underlying(t).(*machine); ok {
		if src, ok := m.src.(interface{ Programs() ([]Program, error) }); ok {
			return src.Programs()
		}
	}
	return nil, Unknownf("the BPF programs of %s are not known", t.Name())
}
