package verifier

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
)

// Objects of the program's own types, and the lists and trees that they are in.
// What was put into one is lent: it can be used until the lock is released, and
// is not to be given back.

// graphFuncs are the functions that may be called while a lock is held.
var graphFuncs = map[string]bool{
	"bpf_list_push_front_impl": true, "bpf_list_push_back_impl": true, "bpf_list_pop_front": true, "bpf_list_pop_back": true,
	"bpf_rbtree_add_impl": true, "bpf_rbtree_remove": true, "bpf_rbtree_first": true, "bpf_refcount_acquire_impl": true,
	"bpf_list_front": true, "bpf_list_back": true, "bpf_rbtree_root": true, "bpf_rbtree_left": true, "bpf_rbtree_right": true,
}

func insertsNode(name string) bool {
	return name == "bpf_list_push_front_impl" || name == "bpf_list_push_back_impl" || name == "bpf_rbtree_add_impl"
}

func popsNode(name string) bool {
	return name == "bpf_list_pop_front" || name == "bpf_list_pop_back" || name == "bpf_rbtree_remove"
}

func borrowsNode(name string) bool { return name == "bpf_rbtree_first" }

// borrow makes r a pointer to what is in a list or a tree (ref_set_non_owning).
func (v *verifier) borrow(r *reg) {
	r.flags |= nonOwning
	if fieldOf(v.objectFields(r.obj), fieldRefcount) != nil {
		r.flags |= rcu
	}
}

// lend gives up a reference whose object stays where it was put
// (ref_convert_owning_non_owning).
func (v *verifier) lend(ref uint32) {
	v.st.regsDo(func(r *reg) {
		if r.ref == ref {
			r.ref = 0
			v.borrow(r)
		}
	})
	v.st.releaseRef(ref)
}

// graphNode is a pointer to a node that is in a list or a tree
// (mark_reg_graph_node).
func (v *verifier) graphNode(root *mapField) reg {
	r := pointer(ptrBTF, alloc, v.typeIndex(root.to))
	r.off = int32(root.nodeOff)
	return r
}

// rootArgument checks a list or a tree (__process_kf_arg_ptr_to_graph_root).
func (v *verifier) rootArgument(c *kfuncCall, r *reg, at int, k fieldKind) *Error {
	if err := v.ownedObject(c, r, at, true); err != nil {
		return err
	}
	if !r.IsConst() {
		return v.fail("field-offset", at, "the %s in r%d must be at a constant offset", k, at)
	}
	off := int64(r.off) + int64(r.Bits.Value)
	f := fieldExactly(v.fieldsAt(r), off, k)
	if f != nil && f.to == nil {
		return v.unsupported("a %s of whose contents nothing is known", k)
	}
	if f == nil {
		return v.fail("graph-field", at, "there is no %s at offset %d of what r%d points to", k, off, at)
	}
	held := false
	for i := range v.st.refs {
		l := &v.st.refs[i]
		held = held || l.kind == refLock && l.obj == lockObject(r) && l.id == r.id
	}
	if !held {
		return v.fail("graph-lock", at, "%s is called without the bpf_spin_lock that is beside the %s", c.k.Name, k)
	}
	c.root = f
	return nil
}

// ownedObject checks that r is an object of the program that it owns, or, with
// value, a map's value.
func (v *verifier) ownedObject(c *kfuncCall, r *reg, at int, value bool) *Error {
	switch {
	case value && r.typ == ptrMapValue && r.flags == 0:
		return nil
	case r.typ != ptrBTF || r.flags != alloc:
		return v.fail("object-kind", at, "%s takes an object of the program that it owns in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
	case r.ref == 0:
		return v.fail("object-kind", at, "%s takes an object that the program owns in r%d, and this one it does not", c.k.Name, at)
	}
	return nil
}

// nodeArgument checks a node of a list or a tree
// (__process_kf_arg_ptr_to_graph_node).
func (v *verifier) nodeArgument(c *kfuncCall, r *reg, at int, k fieldKind) *Error {
	if c.k.Name == "bpf_rbtree_remove" {
		switch {
		case !r.has(nonOwning) && (r.ref == 0 || v.cfg.Kernel < linux6_18) || r.typ != ptrBTF:
			return v.fail("object-kind", at, "%s takes a node that is in the tree in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		case v.st.frame().callback == callbackTreeLess:
			return v.fail("object-kind", at, "%s is called by the function that compares nodes of the tree", c.k.Name)
		}
	} else if err := v.ownedObject(c, r, at, false); err != nil {
		return err
	}
	if !r.IsConst() {
		return v.fail("field-offset", at, "the %s in r%d must be at a constant offset", k, at)
	}
	off := int64(r.off) + int64(r.Bits.Value)
	if fieldExactly(v.fieldsAt(r), off, k) == nil {
		return v.fail("graph-field", at, "there is no %s at offset %d of struct %s", k, off, v.btfName(r.obj))
	}
	if !sameType(v.types.list[r.obj], c.root.to) {
		return v.fail("graph-field", at, "r%d is a node in struct %s, and the list or tree holds struct %s", at, v.btfName(r.obj), c.root.to.TypeName())
	}
	if off != int64(c.root.nodeOff) {
		return v.fail("graph-field", at, "r%d is the node at offset %d of struct %s, and the list or tree holds the one at %d", at, off, v.btfName(r.obj), c.root.nodeOff)
	}
	return nil
}

// specialResult is the result of functions whose signature does not say it; ok
// is false for others.
func (v *verifier) specialResult(c *kfuncCall, r0 *reg) (ok bool, err *Error) {
	switch c.k.Name {
	case "bpf_obj_new_impl":
		if c.constant>>32 != 0 {
			return false, v.fail("local-type", 1, "the id of a type has 32 bits")
		}
		t := v.prog.Locals[uint32(c.constant)]
		s, isStruct := t.(*btf.Struct)
		if !isStruct {
			return false, v.fail("local-type", 1, "bpf_obj_new is given %d, which is not the id of a structure of the program", c.constant)
		}
		*r0 = pointer(ptrBTF, alloc, v.typeIndex(s))
	case "bpf_refcount_acquire_impl":
		*r0 = pointer(ptrBTF, alloc, c.object)
	case "bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove", "bpf_rbtree_first":
		*r0 = v.graphNode(c.root)
	case "bpf_rdonly_cast":
		if c.constant == 0 {
			return false, v.unsupported("bpf_rdonly_cast to void")
		}
		t, e := v.cfg.Types.TypeByID(btf.TypeID(c.constant))
		if e != nil || asStruct(t) == nil {
			return false, v.fail("local-type", 2, "bpf_rdonly_cast is given %d, which is not the id of a structure of the kernel", c.constant)
		}
		*r0 = pointer(ptrBTF, untrusted, v.typeIndex(t))
	case "bpf_cast_to_kern_ctx":
		name := v.kernelContext()
		if name == "" {
			return false, v.unsupported("bpf_cast_to_kern_ctx in programs of type %s", v.prog.Type)
		}
		t, e := v.kernelType(name)
		if e != nil {
			return false, e
		}
		*r0 = pointer(ptrBTF, trusted, t)
	case "bpf_dynptr_slice", "bpf_dynptr_slice_rdwr":
		var f flags
		switch c.dynptr.aux {
		case dynptrSkbData:
			f = dynptrSkb
		case dynptrXDPData:
			f = dynptrXDP
		case dynptrRingbuf:
		}
		if c.k.Name == "bpf_dynptr_slice" {
			f |= rdonly
		} else if !v.packetAccessible(true, nil) {
			return false, v.fail("packet-read-only", -1, "programs of type %s cannot write into packets", v.prog.Type)
		}
		*r0 = pointer(ptrMem, f, uint32(c.constant))
		r0.dynptr = c.dynptr.id
	default:
		return false, nil
	}
	return true, nil
}

// kernelContexts are the kernel's own structures behind those that programs see
// as their contexts (linux/bpf_types.h).
var kernelContexts = map[string]string{
	"__sk_buff": "sk_buff", "xdp_md": "xdp_buff", "bpf_sock": "sock", "bpf_sock_addr": "bpf_sock_addr_kern", "bpf_sock_ops": "bpf_sock_ops_kern",
	"sk_msg_md": "sk_msg", "bpf_perf_event_data": "bpf_perf_event_data_kern", "bpf_sysctl": "bpf_sysctl_kern",
	"bpf_sockopt": "bpf_sockopt_kern", "sk_reuseport_md": "sk_reuseport_kern", "bpf_sk_lookup": "bpf_sk_lookup_kern",
}

// kernelContext is the kernel's structure behind the program's context, or "".
func (v *verifier) kernelContext() string {
	if v.prog.Type == abi.ProgFlowDissector {
		return "bpf_flow_dissector"
	}
	return kernelContexts[v.prog.Type.Context()]
}
