package verifier

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// kfuncCall is what is found out about a call while its arguments are checked.
type kfuncCall struct {
	k     *abi.Kfunc
	proto *btf.FuncProto
	ref   uint32
	// release is the register whose reference goes, or 0.
	release   int
	iter      *slot
	iterFrame int
	iterSlot  int
	iterSize  int
	destroyed *slot
	// constant is the one argument that is known.
	constant uint64
	subprog  int
	// root is the list or tree, object the type of the object among the
	// arguments, and owned says that the program owns that.
	root   *mapField
	object uint32
	owned  bool
	dynptr reg // that was among the arguments
	m      int // map, or -1
	uid    int32
	// The size of memory that is returned, where an argument says it.
	bufSize   uint32
	bufRdonly bool
}

// socketTypes are the types that sockets' views are (reg2btf_ids).
var socketTypes = map[kind]string{ptrSocket: "sock", ptrSockCommon: "sock_common", ptrTCPSock: "tcp_sock", constPtrMap: "bpf_map"}

// kfuncArgument checks an argument by its type and its name (check_kfunc_args).
// pair says that the next argument is its size, and was checked with it.
func (v *verifier) kfuncArgument(c *kfuncCall, i int) (pair bool, err *Error) {
	at := i + 1
	p := c.proto.Params[i]
	r := &v.regs()[at]
	name := p.Name
	if strings.HasSuffix(name, "__ign") || strings.HasSuffix(name, "__prog") {
		return false, nil
	}
	if strings.HasSuffix(name, "__irq_flag") {
		return false, v.unsupported("saved interrupt flags (%s)", c.k.Name)
	}
	ptr, ok := btf.UnderlyingType(p.Type).(*btf.Pointer)
	if !ok {
		return false, v.kfuncNumber(c, r, at, name)
	}
	trustedArgs, rcuArgs := c.k.Flags&(abi.KfuncTrustedArgs|abi.KfuncRelease) != 0, c.k.Flags&abi.KfuncRCU != 0
	nullable := strings.HasSuffix(name, "__nullable") || strings.HasSuffix(name, "__opt")
	if (trustedArgs || rcuArgs) && (r.isNull() || r.has(maybeNull)) && !strings.HasSuffix(name, "__nullable") {
		return false, v.fail("argument-null", at, "r%d may be null, which %s does not take", at, c.k.Name)
	}
	release := c.k.Flags&abi.KfuncRelease != 0
	if r.ref != 0 {
		c.ref = r.ref
		if release {
			c.release = at
		}
	}
	// The dynptr, the iterator, the list and so on by what the argument is.
	target := btf.UnderlyingType(ptr.Target)
	to := asStruct(target)
	tname := ""
	if to != nil {
		tname = to.TypeName()
	}
	offsets := abi.ArgType(abi.ArgDontcare)
	if release && r.ref != 0 {
		offsets |= abi.ObjRelease
	}
	offset := func() *Error { return v.argumentOffset(r, at, offsets) }
	switch {
	case c.k.Name == "bpf_cast_to_kern_ctx", i == 0 && tname != "" && (tname == v.prog.Type.Context() || tname == v.kernelContext()):
		if err := offset(); err != nil {
			return false, err
		}
		if r.typ != ptrCtx {
			return false, v.fail("function-argument", at, "%s takes the context in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
	case strings.HasSuffix(name, "__nullable") && r.isNull():
	case strings.HasSuffix(name, "__alloc"):
		if err := offset(); err != nil {
			return false, err
		}
		return false, v.ownedObject(c, r, at, false)
	case strings.HasSuffix(name, "__refcounted_kptr"):
		if err := offset(); err != nil {
			return false, err
		}
		if r.typ != ptrBTF || !r.has(alloc) || r.has(percpu|untrusted|maybeNull) {
			return false, v.fail("object-kind", at, "%s takes an object of the program in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		c.owned = !r.has(nonOwning) && r.ref != 0
		if fieldOf(v.objectFields(r.obj), fieldRefcount) == nil {
			return false, v.fail("object-kind", at, "struct %s has no bpf_refcount", v.btfName(r.obj))
		}
		c.object = r.obj
	case tname == "bpf_dynptr" || tname == "bpf_dynptr_kern":
		return false, v.kfuncDynptr(c, r, at, name)
	case i == 0 && strings.HasPrefix(tname, "bpf_iter_") && strings.HasPrefix(c.k.Name, "bpf_iter_"):
		return false, v.iterArgument(c, r, at, to)
	case tname == "bpf_list_head":
		return false, v.rootArgument(c, r, at, fieldListHead)
	case tname == "bpf_rb_root":
		return false, v.rootArgument(c, r, at, fieldTreeRoot)
	case tname == "bpf_list_node":
		return false, v.nodeArgument(c, r, at, fieldListNode)
	case tname == "bpf_rb_node":
		return false, v.nodeArgument(c, r, at, fieldTreeNode)
	case strings.HasSuffix(name, "__str"):
		if r.typ != ptrMapValue {
			return false, v.fail("string-not-constant", at, "%s takes a string in r%d that is known when the program is loaded, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		return false, v.constString(r, at)
	case strings.HasSuffix(name, "__map"):
		if r.typ != constPtrMap {
			return false, v.fail("argument-type", at, "%s takes a map in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		c.m, c.uid = int(r.obj), r.aux
	case r.typ == ptrBTF || socketTypes[r.typ] != "":
		if to == nil {
			return false, v.fail("argument-type", at, "%s takes no object in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		return false, v.kfuncObject(c, r, at, to, trustedArgs, rcuArgs, offsets)
	case isFuncPointer(target):
		if r.typ != ptrFunc {
			return false, v.fail("argument-function", at, "%s takes a function in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		c.subprog = int(r.obj)
	default:
		return v.kfuncMemory(c, i, target, nullable)
	}
	return false, nil
}

func isFuncPointer(t btf.Type) bool {
	_, ok := t.(*btf.FuncProto)
	return ok
}

// kfuncNumber checks an argument that is a number.
func (v *verifier) kfuncNumber(c *kfuncCall, r *reg, at int, name string) *Error {
	if err := v.read(isa.Register(at)); err != nil && r.typ == notInit {
		return v.notNumber(c, r, at)
	}
	if r.typ != scalar {
		return v.notNumber(c, r, at)
	}
	constant := strings.HasSuffix(name, "__k")
	if name != "rdonly_buf_size" && name != "rdwr_buf_size" && !constant {
		return nil
	}
	if !r.IsConst() {
		return v.fail("argument-constant", at, "%s takes a constant in r%d", c.k.Name, at)
	}
	if constant {
		c.constant = r.Bits.Value
	} else {
		c.bufSize, c.bufRdonly = uint32(r.Bits.Value), name == "rdonly_buf_size"
	}
	return v.precise(isa.Register(at))
}

func (v *verifier) notNumber(c *kfuncCall, r *reg, at int) *Error {
	return v.fail("function-argument", at, "%s takes a number in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
}

// kfuncObject checks a kernel object.
func (v *verifier) kfuncObject(c *kfuncCall, r *reg, at int, to btf.Type, trustedArgs, rcuArgs bool, offsets abi.ArgType) *Error {
	if (trustedArgs || rcuArgs) && !isTrusted(r) && !(rcuArgs && r.has(rcu)) {
		return v.fail("argument-untrusted", at, "%s takes pointers that are known to be good, and r%d (%s) is not", c.k.Name, at, v.typeName(r))
	}
	if err := v.argumentOffset(r, at, offsets); err != nil {
		return err
	}
	have := btf.Type(nil)
	if name, ok := socketTypes[r.typ]; ok {
		t, err := v.kernelType(name)
		if err != nil {
			return err
		}
		have = v.types.list[t]
	} else {
		if r.flags&^(alloc|trusted|nonOwning|maybeNull) != 0 && !r.has(rcu) {
			return v.fail("argument-untrusted", at, "%s takes pointers that are known to be good, and r%d (%s) is not", c.k.Name, at, v.typeName(r))
		}
		have = v.types.list[r.obj]
	}
	strict := offsets.Has(abi.ObjRelease) || nocastAlias(have.TypeName(), to.TypeName())
	off := int(r.off)
	if !matches(have, to, off, strict) || r.has(alloc) {
		return v.fail("argument-type", at, "%s takes a struct %s in r%d, and it holds a struct %s", c.k.Name, to.TypeName(), at, have.TypeName())
	}
	return nil
}

// nocastAlias reports whether one type is what can be made of the other by an
// initialisation that the other lacks (btf_type_ids_nocast_alias).
func nocastAlias(a, b string) bool { return a == b+"___init" || b == a+"___init" }

// kfuncDynptr checks a dynptr, or makes one.
func (v *verifier) kfuncDynptr(c *kfuncCall, r *reg, at int, name string) *Error {
	if r.typ != ptrStack && r.typ != constPtrDynptr {
		return v.fail("object-uninitialised", at, "%s takes a dynptr in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
	}
	t := abi.ArgPtrToDynptr
	if r.typ == constPtrDynptr {
		t |= abi.MemRdonly
	}
	if strings.HasSuffix(name, "__uninit") {
		t |= abi.MemUninit
		switch c.k.Name {
		case "bpf_dynptr_from_skb":
			t |= abi.DynptrTypeSkb
		case "bpf_dynptr_from_xdp":
			t |= abi.DynptrTypeXDP
		case "bpf_dynptr_clone":
			switch c.dynptr.aux {
			case dynptrLocal:
				t |= abi.DynptrTypeLocal
			case dynptrRingbuf:
				t |= abi.DynptrTypeRingbuf
			case dynptrSkbData:
				t |= abi.DynptrTypeSkb
			case dynptrXDPData:
				t |= abi.DynptrTypeXDP
			}
		default:
			return v.unsupported("dynptrs made by %s", c.k.Name)
		}
	}
	meta := callMeta{helper: &abi.Helper{Name: c.k.Name}, m: -1, cloned: c.dynptr.ref}
	if err := v.dynptrArgument(r, at, t, &meta); err != nil {
		return err
	}
	if !t.Has(abi.MemUninit) {
		c.dynptr = reg{id: meta.dynptr, aux: meta.dynptrType, ref: meta.dynptrRef}
	}
	return nil
}

// kfuncMemory checks memory of a size that its type or the next argument says.
func (v *verifier) kfuncMemory(c *kfuncCall, i int, target btf.Type, nullable bool) (pair bool, err *Error) {
	at := i + 1
	r := &v.regs()[at]
	sized, constant := false, false
	if i+1 < len(c.proto.Params) && v.regs()[at+1].typ == scalar {
		next := c.proto.Params[i+1].Name
		constant = strings.HasSuffix(next, "__szk")
		sized = constant || strings.HasSuffix(next, "__sz")
	}
	if !scalarType(target, 0) && !(sized && isVoid(target)) {
		return false, v.fail("argument-type", at, "%s takes an object in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
	}
	if err := v.argumentOffset(r, at, abi.ArgDontcare); err != nil {
		return false, err
	}
	if !sized {
		size, e := btf.Sizeof(target)
		if e != nil {
			return false, v.unsupported("argument %d of %s", at, c.k.Name)
		}
		return false, v.memoryArgument(r, at, int64(size))
	}
	n := &v.regs()[at+1]
	if !(r.isNull() && nullable) {
		meta := callMeta{helper: &abi.Helper{Name: c.k.Name}, m: -1}
		saved := *r
		r.flags &^= maybeNull
		for _, write := range []bool{false, true} {
			if err := v.memSize(n, at+1, write, true, &meta); err != nil {
				if saved.has(maybeNull) {
					*r = saved
				}
				return false, err
			}
		}
		if saved.has(maybeNull) {
			*r = saved
		}
	}
	if constant {
		if !n.IsConst() {
			return false, v.fail("argument-constant", at+1, "%s takes a constant in r%d", c.k.Name, at+1)
		}
		c.constant = n.Bits.Value
	}
	return true, nil
}

// memoryArgument checks size bytes of memory that are read and written
// (check_mem_reg).
func (v *verifier) memoryArgument(r *reg, at int, size int64) *Error {
	if r.isNull() {
		return nil
	}
	saved := *r
	r.flags &^= maybeNull
	err := v.helperMem(at, size, false, true, nil)
	if err == nil {
		err = v.helperMem(at, size, true, true, nil)
	}
	if saved.has(maybeNull) {
		*r = saved
	}
	return err
}

// scalarType reports whether a type is a number, or a structure of numbers
// (__btf_type_is_scalar_struct).
func scalarType(t btf.Type, depth int) bool {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int, *btf.Enum:
		return true
	case *btf.Struct:
		return depth < 4 && !slices.ContainsFunc(t.Members, func(m btf.Member) bool {
			mt := btf.UnderlyingType(m.Type)
			if a, ok := mt.(*btf.Array); ok {
				mt = btf.UnderlyingType(a.Type)
				if _, ok := mt.(*btf.Struct); ok {
					return true
				}
			}
			return !scalarType(mt, depth+1)
		})
	}
	return false
}
