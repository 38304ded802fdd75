package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/typeindex"
)

// objectTypes are an object's types as the kernel takes them: what its
// functions, maps and variables are, and no more.
type objectTypes struct {
	fd      int // -1 when the kernel did not take them
	err     error
	builder *btf.Builder
	funcs   map[*object.Func]btf.TypeID
	ids     map[btf.Type]btf.TypeID
	strings map[string]uint32 // offsets of what was added for line info
	added   []byte
	base    uint32 // length of the strings without what was added
	raw     []byte
}

func newObjectTypes() *objectTypes {
	return &objectTypes{
		fd: -1, builder: new(btf.Builder),
		funcs: make(map[*object.Func]btf.TypeID), ids: make(map[btf.Type]btf.TypeID),
		strings: make(map[string]uint32),
	}
}

var typeInt = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}

// add returns the number of a type in what the kernel is given.
func (t *objectTypes) add(typ btf.Type) (btf.TypeID, error) {
	if t.raw != nil {
		id, ok := t.ids[typ]
		if !ok {
			return 0, fmt.Errorf("type %s was not given to the kernel", typ.TypeName())
		}
		return id, nil
	}
	id, err := t.builder.Add(typ)
	if err == nil {
		t.ids[typ] = id
	}
	return id, err
}

// addFunc adds the signature of a function.
func (t *objectTypes) addFunc(f *object.Func) error {
	proto := &btf.FuncProto{Return: typeInt}
	switch {
	case f.Type != nil:
		p, ok := f.Type.Type.(*btf.FuncProto)
		if !ok {
			return fmt.Errorf("function %s has a type that is no function's", f.Name)
		}
		proto = p
	case f.Section != "" || f.Global:
		proto.Params = []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}
	}
	// The kernel wants a name for each parameter.
	for i, p := range proto.Params {
		if p.Name == "" {
			named := *proto
			named.Params = slices.Clone(proto.Params)
			for j := i; j < len(named.Params); j++ {
				if named.Params[j].Name == "" {
					named.Params[j].Name = fmt.Sprintf("arg%d", j)
				}
			}
			proto = &named
			break
		}
	}
	linkage := btf.StaticFunc
	if f.Section != "" || f.Global {
		linkage = btf.GlobalFunc
	}
	fn := &btf.Func{Name: f.Name, Type: proto, Linkage: linkage}
	if f.Type != nil {
		fn.Tags = f.Type.Tags
		fn.ParamTags = f.Type.ParamTags
	}
	id, err := t.add(fn)
	t.funcs[f] = id
	return err
}

// finish writes the types. Strings for line info may be added afterwards, until
// load.
func (t *objectTypes) finish() error {
	raw, err := t.builder.Marshal(nil, &btf.MarshalOptions{Order: binary.NativeEndian, PreventNoTypeFound: true})
	if err != nil {
		return fmt.Errorf("the object's types cannot be written: %w", err)
	}
	t.raw = raw
	t.base = binary.NativeEndian.Uint32(raw[20:]) // btf_header.str_len
	return nil
}

// text returns the offset of a string.
func (t *objectTypes) text(s string) uint32 {
	if s == "" {
		return 0
	}
	if off, ok := t.strings[s]; ok {
		return off
	}
	off := t.base + uint32(len(t.added))
	t.added = append(append(t.added, s...), 0)
	t.strings[s] = off
	return off
}

// load gives the types to the kernel.
func (t *objectTypes) load(token int) error {
	raw := append(t.raw, t.added...)
	binary.NativeEndian.PutUint32(raw[20:], t.base+uint32(len(t.added)))
	attr := &attrBTFLoad{btf: ptr(raw), size: uint32(len(raw))}
	if token >= 0 {
		attr.flags, attr.tokenFD = flagTokenFD, int32(token)
	}
	fd, err := sysBPF(cmdBTFLoad, attr)
	if err == nil {
		t.fd = fd
		return nil
	}
	log := make([]byte, 64<<10)
	attr.log, attr.logSize, attr.logLevel = ptr(log), uint32(len(log)), 1
	if fd, err2 := sysBPF(cmdBTFLoad, attr); err2 == nil {
		t.fd = fd
		return nil
	}
	_, said := verdict(cut(log))
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, said[len(said)-1])
}

// A piece is a function with everything filled in but the distances of calls,
// which depend on what it is linked with.
type piece struct {
	insns []isa.Instruction
	notes map[int]string // by instruction: why it was poisoned
	calls []object.Reloc
	// kmods are the modules whose kernel functions are called: the offset of
	// the call is an index into it plus one.
	kmods []string
}

// An image is a program as the kernel takes it.
type image struct {
	code     []byte
	funcs    []*object.Func
	start    []int // slot of each function
	funcInfo []byte
	lineInfo []byte
	fdArray  []int32
	pieces   []*piece
}

const (
	funcInfoSize = 8
	lineInfoSize = 16
)

// piece fills in a function, once.
func (l *loaded) piece(f *object.Func) (*piece, error) {
	if p, ok := l.pieces[f]; ok {
		return p, nil
	}
	p := &piece{insns: slices.Clone(f.Insns), notes: make(map[int]string)}
	fail := func(i int, err error) error {
		for j := len(f.Lines) - 1; j >= 0; j-- {
			if where := f.Lines[j].Where(); f.Lines[j].Insn <= i && where.Row > 0 {
				return fmt.Errorf("%s:%d: %w", where.File, where.Row, err)
			}
		}
		return fmt.Errorf("function %s: %w", f.Name, err)
	}
	for i := range f.CORE {
		c := &f.CORE[i]
		fix, err := l.core.resolve(c)
		if err == nil {
			err = fix.apply(&p.insns[c.Insn])
		}
		if err != nil {
			return nil, fail(c.Insn, err)
		}
		if fix.poison != "" {
			p.notes[c.Insn] = fix.poison
		}
	}
	for _, r := range f.Relocs {
		ins := &p.insns[r.Insn]
		switch sym := r.Symbol.(type) {
		case *object.Map:
			m, ok := l.mapOf[sym]
			if !ok {
				return nil, fail(r.Insn, fmt.Errorf("map %s is not there", sym.Name))
			}
			*ins = isa.LoadMapFD(ins.Dst, int32(m.fd))
		case *object.Var:
			place, ok := l.vars[sym]
			if !ok {
				return nil, fail(r.Insn, fmt.Errorf("variable %s is not there", sym.Name))
			}
			off := uint32(ins.High())
			if ins.Src != isa.PseudoMapValue {
				off = uint32(ins.Imm)
			}
			*ins = isa.LoadMapValue(ins.Dst, int32(place.data.m.fd), uint32(place.offset)+off)
		case *object.Func:
			p.calls = append(p.calls, r)
		case *object.Extern:
			if err := l.extern(p, ins, sym); err != nil {
				return nil, fail(r.Insn, err)
			}
		}
	}
	l.pieces[f] = p
	return p, nil
}

// extern fills in what the kernel provides by name.
func (l *loaded) extern(p *piece, ins *isa.Instruction, x *object.Extern) error {
	switch x.Kind {
	case object.ExternKconfig:
		off, ok := l.kconfig.offsets[x]
		if !ok {
			return fmt.Errorf("configuration value %s is not there", x.Name)
		}
		*ins = isa.LoadMapValue(ins.Dst, int32(l.kconfig.m.fd), uint32(off)+uint32(ins.Imm))
		return nil
	case object.ExternKfunc:
		return l.kfunc(p, ins, x)
	}
	if x.Type != nil {
		if _, void := bare(x.Type).(*btf.Void); !void {
			return l.typedSymbol(ins, x)
		}
	}
	addr, err := l.symbolAddr(x.Name)
	if err != nil && !x.Weak {
		return err
	}
	*ins = isa.LoadImm64(ins.Dst, int64(addr))
	return nil
}

// kfunc fills in a call of a kernel function, or its address.
func (l *loaded) kfunc(p *piece, ins *isa.Instruction, x *object.Extern) error {
	module, id, typ, err := l.kernelType(typeindex.KindFunc, essentialName(x.Name))
	if errors.Is(err, typeindex.ErrNotFound) || errors.Is(err, errNoTypes) {
		if !x.Weak {
			return fmt.Errorf("the kernel has no function %s that programs may call", x.Name)
		}
		if ins.IsWide() {
			*ins = isa.LoadImm64(ins.Dst, 0)
		} else {
			poison(ins)
		}
		return nil
	}
	if err != nil {
		return err
	}
	want, ok1 := x.Type.(*btf.Func)
	have, ok2 := typ.(*btf.Func)
	if ok1 && ok2 && !l.core.compatible(want.Type, have.Type, 0) {
		return fmt.Errorf("the kernel's function %s takes other arguments than the program gives it", x.Name)
	}
	index := 0
	if module != "" {
		if i := slices.Index(p.kmods, module); i >= 0 {
			index = i + 1
		} else {
			p.kmods = append(p.kmods, module)
			index = len(p.kmods)
		}
	}
	if ins.IsWide() {
		fd, err := l.moduleFD(module)
		if err != nil {
			return err
		}
		*ins = isa.LoadBTFID(ins.Dst, int32(id), int32(fd))
		return nil
	}
	*ins = isa.CallKfunc(int32(id), int16(index))
	return nil
}

// typedSymbol fills in the address of a kernel variable that has a type, for
// which the verifier then knows it.
func (l *loaded) typedSymbol(ins *isa.Instruction, x *object.Extern) error {
	module, id, _, err := l.kernelType(typeindex.KindVar, x.Name)
	if errors.Is(err, typeindex.ErrNotFound) || errors.Is(err, errNoTypes) {
		if !x.Weak {
			return fmt.Errorf("the kernel has no variable %s with a type", x.Name)
		}
		*ins = isa.LoadImm64(ins.Dst, 0)
		return nil
	}
	if err != nil {
		return err
	}
	fd := 0
	if module != "" {
		if fd, err = l.moduleFD(module); err != nil {
			return err
		}
	}
	*ins = isa.LoadBTFID(ins.Dst, int32(id), int32(fd))
	return nil
}

// link puts a program together with all functions that it refers to.
func (l *loaded) link(main *object.Func) (*image, error) {
	img := &image{funcs: []*object.Func{main}}
	index := map[*object.Func]int{main: 0}
	slot := 0
	for i := 0; i < len(img.funcs); i++ {
		p, err := l.piece(img.funcs[i])
		if err != nil {
			return nil, err
		}
		img.pieces = append(img.pieces, p)
		img.start = append(img.start, slot)
		slot += isa.Slots(p.insns)
		for _, r := range p.calls {
			callee := r.Symbol.(*object.Func)
			if _, seen := index[callee]; !seen {
				index[callee] = len(img.funcs)
				img.funcs = append(img.funcs, callee)
			}
		}
	}
	// The kernel wants a line for the first instruction of each function, or
	// no lines at all.
	withLines := !slices.ContainsFunc(img.funcs, func(f *object.Func) bool {
		return len(f.Lines) == 0 || f.Lines[0].Insn != 0
	})
	var modules []string
	for i, p := range img.pieces {
		insns := p.insns
		slots := make([]int, len(insns)+1)
		slots[0] = img.start[i]
		for j := range insns {
			slots[j+1] = slots[j] + insns[j].Size()
		}
		if len(p.calls) > 0 || len(p.kmods) > 0 {
			insns = slices.Clone(insns)
		}
		for _, r := range p.calls {
			distance := int32(img.start[index[r.Symbol.(*object.Func)]] - slots[r.Insn] - 1)
			if r.Kind == object.RelocCall {
				insns[r.Insn] = isa.CallLocal(distance)
			} else {
				insns[r.Insn] = isa.LoadFunc(insns[r.Insn].Dst, distance)
			}
		}
		if len(p.kmods) > 0 {
			renumber(insns, p.kmods, &modules)
		}
		var err error
		if img.code, err = isa.Encode(img.code, binary.NativeEndian, insns); err != nil {
			return nil, fmt.Errorf("function %s: %w", img.funcs[i].Name, err)
		}
		l.info(img, i, slots, withLines)
	}
	for _, m := range modules {
		fd, err := l.moduleFD(m)
		if err != nil {
			return nil, err
		}
		if img.fdArray == nil {
			img.fdArray = []int32{0}
		}
		img.fdArray = append(img.fdArray, int32(fd))
	}
	return img, nil
}

// renumber makes the indices of modules in a function's calls those of the
// whole program.
func renumber(insns []isa.Instruction, kmods []string, modules *[]string) {
	for i := range insns {
		ins := &insns[i]
		if !ins.IsCall() || ins.Src != isa.CallKernel || ins.Off == 0 {
			continue
		}
		name := kmods[ins.Off-1]
		at := slices.Index(*modules, name)
		if at < 0 {
			at = len(*modules)
			*modules = append(*modules, name)
		}
		ins.Off = int16(at + 1)
	}
}

// info adds the records that tell the kernel the type and lines of function i
// (struct bpf_func_info, struct bpf_line_info).
func (l *loaded) info(img *image, i int, slots []int, withLines bool) {
	order := binary.NativeEndian
	f := img.funcs[i]
	img.funcInfo = order.AppendUint32(img.funcInfo, uint32(img.start[i]))
	img.funcInfo = order.AppendUint32(img.funcInfo, uint32(l.types.funcs[f]))
	if !withLines {
		return
	}
	last := -1
	for _, line := range f.Lines {
		if line.Insn <= last || line.Insn >= len(f.Insns) {
			continue
		}
		last = line.Insn
		where := line.Where()
		img.lineInfo = order.AppendUint32(img.lineInfo, uint32(slots[line.Insn]))
		img.lineInfo = order.AppendUint32(img.lineInfo, l.types.text(where.File))
		img.lineInfo = order.AppendUint32(img.lineInfo, l.types.text(where.Text))
		img.lineInfo = order.AppendUint32(img.lineInfo, uint32(where.Row)<<10|uint32(min(where.Col, 1<<10-1)))
	}
}

// locate finds the function and the index in it of a slot.
func (img *image) locate(slot int) (f *object.Func, insn int, note string) {
	for i := len(img.funcs) - 1; i >= 0; i-- {
		if slot < img.start[i] {
			continue
		}
		at := img.start[i]
		for j := range img.pieces[i].insns {
			size := img.pieces[i].insns[j].Size()
			if slot < at+size {
				return img.funcs[i], j, img.pieces[i].notes[j]
			}
			at += size
		}
		break
	}
	return nil, 0, ""
}

// cut is the text before the first zero byte.
func cut(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
