package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/symbol"
)

// Objects that take USDT arguments by libbpf's usdt.bpf.h have a map that tells
// them where the arguments of each place are; the attach cookie is an index into
// it. The map is filled by the names of its fields, which have moved over time.
const usdtSpecs = "__bpf_usdt_specs"

// Kinds of arguments in that map (enum __bpf_usdt_arg_type).
const (
	usdtConst    = 0
	usdtRegister = 1
	usdtMemory   = 2
	usdtIndexed  = 3 // newer headers alone: they have idx_reg_off
)

// usdtCookie returns the cookie for a place: the one that is asked for, or in
// an object of libbpf's kind the number of what tells about the place.
func (l *loaded) usdtCookie(place userPlace, cookie uint64) (uint64, error) {
	m := l.maps[usdtSpecs]
	if m == nil || place.probe == nil {
		return cookie, nil
	}
	var spec *btf.Struct
	for _, om := range l.obj.Maps {
		if om.Name == usdtSpecs {
			spec, _ = bare(om.Value).(*btf.Struct)
		}
	}
	if spec == nil {
		return 0, fmt.Errorf("map %s has no type to be filled by", usdtSpecs)
	}
	value := make([]byte, m.valueSize)
	if err := fillUSDT(value, spec, place.probe, cookie); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.usdt[string(value)]
	if ok {
		return uint64(id), nil
	}
	id = len(l.usdt)
	if id >= m.maxEntries {
		return 0, fmt.Errorf("the object has room for %d different places of USDT probes: define BPF_USDT_MAX_SPEC_CNT larger", m.maxEntries)
	}
	key := make([]byte, m.keySize)
	put(key, uint64(id))
	if err := m.update(key, value); err != nil {
		return 0, fmt.Errorf("map %s cannot be filled: %w", usdtSpecs, named(err))
	}
	if l.usdt == nil {
		l.usdt = make(map[string]int)
	}
	l.usdt[string(value)] = id
	return uint64(id), nil
}

// fillUSDT writes a struct __bpf_usdt_spec.
func fillUSDT(value []byte, spec *btf.Struct, probe *symbol.USDTProbe, cookie uint64) error {
	if probe.ArgErr != nil {
		return fmt.Errorf("the arguments %q cannot be understood: %w", probe.ArgText, probe.ArgErr)
	}
	args, off, ok := findMember(spec, "args", 0)
	list, isArray := bare(args.Type).(*btf.Array)
	if !ok || !isArray {
		return fmt.Errorf("map %s has values without args", usdtSpecs)
	}
	if len(probe.Args) > int(list.Nelems) {
		return fmt.Errorf("the probe has %d arguments, and the object has room for %d", len(probe.Args), list.Nelems)
	}
	size, err := btf.Sizeof(list.Type)
	if err != nil {
		return fmt.Errorf("map %s has values without args", usdtSpecs)
	}
	for i := range probe.Args {
		at := value[int(off/8)+i*size:][:size]
		if err := fillUSDTArg(at, bare(list.Type), &probe.Args[i]); err != nil {
			return fmt.Errorf("argument %d: %w", i, err)
		}
	}
	return errors.Join(
		setField(value, spec, "usdt_cookie", cookie),
		setField(value, spec, "arg_cnt", uint64(len(probe.Args))))
}

func fillUSDTArg(b []byte, typ btf.Type, a *symbol.USDTArg) error {
	if a.Float || a.High {
		return errors.New("it is a floating-point number or half a register, for which the object has no word")
	}
	kind, reg, index := uint64(usdtConst), 0, 0
	var err error
	switch a.Kind {
	case symbol.ArgRegister:
		kind = usdtRegister
	case symbol.ArgMemory:
		kind = usdtMemory
	}
	if kind != usdtConst {
		if reg, err = userRegister(a.Reg); err != nil {
			return err
		}
	}
	if a.Index != "" {
		kind = usdtIndexed
		if index, err = userRegister(a.Index); err != nil {
			return err
		}
		shift := uint64(0)
		for n := a.Scale; n > 1; n >>= 1 {
			shift++
		}
		if err := errors.Join(setField(b, typ, "idx_reg_off", uint64(index)), setField(b, typ, "scale_bitshift", shift)); err != nil {
			return errors.New("it is in memory at a place with an index, which takes a newer usdt.bpf.h")
		}
	}
	return errors.Join(
		setField(b, typ, "val_off", uint64(a.Value)),
		setField(b, typ, "arg_type", kind),
		setField(b, typ, "reg_off", uint64(reg)),
		setField(b, typ, "arg_signed", boolValue(a.Signed)),
		setField(b, typ, "arg_bitshift", 64-8*uint64(a.Size)))
}

// userRegister is the offset of a register in struct pt_regs.
func userRegister(name string) (int, error) {
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if !ok {
		return 0, fmt.Errorf("the registers of %s are not known", runtime.GOARCH)
	}
	short := name
	switch runtime.GOARCH {
	case "amd64":
		if len(name) == 3 && name[0] == 'r' && (name[1] < '0' || name[1] > '9') {
			short = name[1:] // rax is ax
		}
	case "arm64":
		if strings.HasPrefix(name, "x") {
			short = "r" + name[1:]
		}
	}
	r, ok := arch.Registers().Lookup(short)
	if !ok {
		return 0, fmt.Errorf("register %q is not one that the kernel saves", name)
	}
	return r.Offset, nil
}

// setField writes a number into a field of a struct, or its bits.
func setField(b []byte, typ btf.Type, name string, value uint64) error {
	m, off, ok := findMember(typ, name, 0)
	if !ok {
		return fmt.Errorf("%s has no field %s", typ.TypeName(), name)
	}
	size, err := btf.Sizeof(m.Type)
	if err != nil || size > 8 {
		return fmt.Errorf("field %s of %s is no number", name, typ.TypeName())
	}
	if m.BitfieldSize == 0 {
		if int(off/8)+size > len(b) {
			return fmt.Errorf("field %s of %s is outside of it", name, typ.TypeName())
		}
		put(b[off/8:][:size], value)
		return nil
	}
	if hostBigEndian {
		return fmt.Errorf("field %s of %s is a bit-field, which is written on little-endian machines alone", name, typ.TypeName())
	}
	for i := range uint64(m.BitfieldSize) {
		at := off + i
		if int(at/8) >= len(b) {
			return fmt.Errorf("field %s of %s is outside of it", name, typ.TypeName())
		}
		b[at/8] = b[at/8]&^(1<<(at%8)) | byte(value>>i&1)<<(at%8)
	}
	return nil
}
