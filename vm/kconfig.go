package vm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// kconfigOffset returns where a variable of the kernel's configuration lies in
// the map .kconfig.
func (l *linker) kconfigOffset(name string) (uint32, bool) {
	ds := l.kconfigSection()
	if ds == nil {
		return 0, false
	}
	for _, v := range ds.Vars {
		if v.Type.TypeName() == name {
			return v.Offset, true
		}
	}
	return 0, false
}

func (l *linker) kconfigSection() *btf.Datasec {
	if l.spec.Types == nil {
		return nil
	}
	var ds *btf.Datasec
	if l.spec.Types.TypeByName(".kconfig", &ds) != nil {
		return nil
	}
	return ds
}

// kconfigMap makes the map of the kernel's configuration.
func (l *linker) kconfigMap() (*Map, error) {
	if l.kconfig != nil {
		return l.kconfig, nil
	}
	ds := l.kconfigSection()
	data := make([]byte, ds.Size)
	for _, v := range ds.Vars {
		variable, ok := v.Type.(*btf.Var)
		if !ok || int(v.Offset)+int(v.Size) > len(data) {
			return nil, fmt.Errorf("section .kconfig is damaged: %s lies outside", v.Type)
		}
		text, given := l.o.Kconfig[variable.Name]
		if !given {
			switch variable.Name {
			case "LINUX_KERNEL_VERSION":
				text = strconv.Itoa(6<<16 | 18<<8)
			case "LINUX_HAS_SYSCALL_WRAPPER", "LINUX_HAS_BPF_COOKIE":
				text = "1"
			default:
				// The option is not set; libbpf leaves weak ones at 0.
				continue
			}
		}
		if err := putConfig(data[v.Offset:][:v.Size], btf.UnderlyingType(variable.Type), text); err != nil {
			return nil, fmt.Errorf("configuration %s=%s: %w", variable.Name, text, err)
		}
	}
	m, err := l.vm.newMap(&ebpf.MapSpec{Name: ".kconfig", Type: ebpf.Array, KeySize: 4, ValueSize: ds.Size, MaxEntries: 1, Flags: mapReadOnlyProg})
	if err != nil {
		return nil, err
	}
	if err := m.updateBytes(make([]byte, 4), data, 0); err != nil {
		return nil, err
	}
	m.frozen.Store(true)
	l.kconfig = m
	return m, nil
}

// putConfig writes a value of the kernel's configuration as libbpf does: y, n
// and m into bool, char and enum libbpf_tristate, numbers and strings.
func putConfig(to []byte, t btf.Type, text string) error {
	if s, ok := strings.CutPrefix(text, `"`); ok {
		if _, ok := t.(*btf.Array); !ok {
			return fmt.Errorf("a string does not fit a %v", t)
		}
		s = strings.TrimSuffix(s, `"`)
		copy(to[:len(to)-1], s)
		return nil
	}
	n := uint64(0)
	switch text {
	case "n":
	case "y", "m":
		n = 1
		if e, ok := t.(*btf.Enum); ok && e.Name == "libbpf_tristate" {
			n = map[string]uint64{"y": 1, "m": 2}[text]
		} else if i, ok := t.(*btf.Int); ok && i.Encoding == btf.Char {
			n = uint64(text[0])
		} else if text == "m" {
			return fmt.Errorf("m does not fit a %v: declare it enum libbpf_tristate", t)
		}
	default:
		var err error
		if n, err = strconv.ParseUint(text, 0, 64); err != nil {
			i, err := strconv.ParseInt(text, 0, 64)
			if err != nil {
				return fmt.Errorf("it is no number, no string in quotes, and not y, n or m")
			}
			n = uint64(i)
		}
	}
	switch len(to) {
	case 1:
		to[0] = byte(n)
	case 2:
		native.PutUint16(to, uint16(n))
	case 4:
		native.PutUint32(to, uint32(n))
	case 8:
		native.PutUint64(to, n)
	default:
		return fmt.Errorf("a number does not fit %d bytes", len(to))
	}
	return nil
}
