package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/typeindex"
)

// Tables of functions that programs implement for the kernel (struct_ops) are
// variables of the object. The kernel's own struct may have other members at
// other places; they are matched by name.

const flagLink = 1 << 13 // BPF_F_LINK, of maps: registered by a link

// opsOf returns the variable that a program is a member of, and the member.
func (l *loaded) opsOf(f *object.Func) (v *object.Var, member string, err error) {
	for _, v := range l.obj.Vars {
		if !strings.HasPrefix(v.Section, ".struct_ops") || v.Type == nil {
			continue
		}
		for _, p := range v.Pointers {
			if p.Func != f {
				continue
			}
			for _, m := range membersOf(bare(v.Type)) {
				if int(m.Offset/8) == p.Offset {
					return v, m.Name, nil
				}
			}
		}
	}
	return nil, "", fmt.Errorf("program %s is in no variable of section .struct_ops", f.Name)
}

// opsStruct finds the kernel's struct of that name, and the one around it that
// a map holds.
func (l *loaded) opsStruct(name string) (ops, value *btf.Struct, err error) {
	types, err := kernelTypes()
	if err != nil {
		return nil, nil, err
	}
	typ, err := types.Find(typeindex.KindStruct, name)
	if errors.Is(err, typeindex.ErrNotFound) {
		return nil, nil, noSuch(types, typeindex.KindStruct, "", "struct", "", name)
	}
	if err != nil {
		return nil, nil, err
	}
	module, _, _ := types.ID(typ)
	around, err := types.FindIn(module, typeindex.KindStruct, "bpf_struct_ops_"+name)
	if err != nil {
		return nil, nil, fmt.Errorf("the kernel lets no programs implement struct %s", name)
	}
	return typ.(*btf.Struct), around.(*btf.Struct), nil
}

// opsKey says which member of which struct a program implements.
func (l *loaded) opsKey(p *program) (variantKey, error) {
	v, member, err := l.opsOf(p.fn)
	if err != nil {
		return variantKey{}, err
	}
	name := essentialName(bare(v.Type).TypeName())
	ops, _, err := l.opsStruct(name)
	if err != nil {
		return variantKey{}, err
	}
	for i, m := range ops.Members {
		if m.Name == member {
			return variantKey{attach: abi.AttachType(i), function: name}, nil
		}
	}
	return variantKey{}, fmt.Errorf("the kernel's struct %s has no member %s", name, member)
}

// structOps registers the variable that a program is a member of, once for all
// its members.
func (l *loaded) structOps(p *program, pt hook.Point) (*fdLink, error) {
	v, _, err := l.opsOf(p.fn)
	if err != nil {
		return nil, err
	}
	l.opsMu.Lock()
	defer l.opsMu.Unlock()
	if l.registered[v] {
		return newLink(l, p, pt, -1), nil // the link of another member serves this one
	}
	name := essentialName(bare(v.Type).TypeName())
	ops, around, err := l.opsStruct(name)
	if err != nil {
		return nil, err
	}
	types, err := kernelTypes()
	if err != nil {
		return nil, err
	}
	if t, err := Target(); err == nil && !t.Release().AtLeast(6, 4) {
		return nil, fmt.Errorf("the kernel has no links of struct_ops (Linux has them since 6.4); without one, %s would stay registered when skep dies, so skep does not", v.Name)
	}
	_, off, ok := findMember(around, "data", 0)
	if !ok {
		return nil, fmt.Errorf("the kernel's struct %s holds no data", around.Name)
	}
	value := make([]byte, around.Size)
	if err := l.fillOps(value[off/8:], ops, v); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	module, id, _ := types.ID(around)
	fd, err := l.moduleFD(module)
	if err != nil {
		return nil, err
	}
	km := &kernelMap{name: v.Name, fd: -1, typ: abi.MapStructOps, keySize: 4, valueSize: int(around.Size), maxEntries: 1, flags: flagLink}
	attr := &attrMapCreate{
		typ: uint32(km.typ), keySize: 4, valueSize: around.Size, maxEntries: 1, flags: flagLink,
		vmlinuxType: uint32(id), name: objName(v.Name),
	}
	if module != "" {
		attr.flags |= 1 << 15 // BPF_F_VTYPE_BTF_OBJ_FD
		attr.valueTypeObjFD = int32(fd)
	}
	if l.types.fd >= 0 {
		attr.btfFD = uint32(l.types.fd) // the kernel wants one, and looks at no type in it
	}
	if err := l.sendMap(km, attr); err != nil {
		return nil, err
	}
	fail := func(err error) (*fdLink, error) {
		km.close()
		return nil, err
	}
	if err := km.update(make([]byte, 4), value); err != nil {
		return fail(fmt.Errorf("the kernel refuses struct %s as %s fills it in: %w", name, v.Name, attachRefused(err, p)))
	}
	link, err := create(&attrLink{prog: uint32(km.fd), typ: uint32(abi.AttachStructOps)})
	switch {
	case errors.Is(err, unix.EEXIST):
		return fail(fmt.Errorf("a struct %s of that name is registered already: %w", name, named(err)))
	case err != nil:
		return fail(fmt.Errorf("registering %s failed: %w", v.Name, attachRefused(err, p)))
	}
	if l.registered == nil {
		l.registered = make(map[*object.Var]bool)
	}
	l.registered[v] = true
	k := newLink(l, p, pt, link)
	k.other = km.fd
	k.after = func() {
		l.opsMu.Lock()
		defer l.opsMu.Unlock()
		delete(l.registered, v)
	}
	return k, nil
}

// fillOps writes a variable in the form of the kernel's struct, with
// descriptors of programs for functions.
func (l *loaded) fillOps(value []byte, ops *btf.Struct, v *object.Var) error {
	init := make([]byte, v.Size())
	copy(init, v.Init)
	for _, m := range membersOf(bare(v.Type)) {
		size, err := btf.Sizeof(m.Type)
		if err != nil || m.BitfieldSize != 0 {
			return fmt.Errorf("member %s is a bit-field or has no size", m.Name)
		}
		at := int(m.Offset / 8)
		var f *object.Func
		for _, p := range v.Pointers {
			if p.Offset == at {
				f = p.Func
			}
		}
		from := init[at : at+size]
		to, off, ok := findMember(ops, m.Name, 0)
		if !ok {
			if f == nil && strings.Trim(string(from), "\x00") == "" {
				continue
			}
			return fmt.Errorf("the kernel's struct %s has no member %s", ops.Name, m.Name)
		}
		n, err := btf.Sizeof(to.Type)
		if err != nil || n != size || int(off/8)+n > len(value) {
			return fmt.Errorf("member %s has %d bytes, and %d in the kernel", m.Name, size, n)
		}
		if f == nil {
			copy(value[off/8:], from)
			continue
		}
		if l.progs[f.Name] == nil {
			continue // was not to be loaded
		}
		_, variant, err := l.anyVariant(f.Name)
		if err != nil {
			return err
		}
		put(value[off/8:off/8+8], uint64(variant.fd))
	}
	return nil
}
