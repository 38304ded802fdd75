package verifier

import (
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// A typeTable numbers the kernel's types that pointers lead to.
type typeTable struct {
	list  []btf.Type
	index map[btf.Type]uint32
}

// typeIndex returns the number of a type.
func (v *verifier) typeIndex(t btf.Type) uint32 {
	i, ok := v.types.index[t]
	if !ok {
		if v.types.index == nil {
			v.types.index = map[btf.Type]uint32{}
		}
		i = uint32(len(v.types.list))
		v.types.list = append(v.types.list, t)
		v.types.index[t] = i
	}
	return i
}

func (v *verifier) btfName(t uint32) string { return v.types.list[t].TypeName() }

// kernelType returns the number of the kernel's structure of a name.
func (v *verifier) kernelType(name string) (uint32, *Error) {
	if v.cfg.Types == nil {
		return 0, v.unsupported("kernel objects without the kernel's types (%s)", name)
	}
	var s *btf.Struct
	if err := v.cfg.Types.TypeByName(name, &s); err != nil {
		return 0, v.unsupported("kernel objects of type %s, which the kernel's types do not have", name)
	}
	return v.typeIndex(s), nil
}

// typedContext reports whether the program's context is an array of typed
// arguments.
func (v *verifier) typedContext() bool {
	switch v.prog.Type {
	case abi.ProgTracing, abi.ProgLSM:
		return true
	}
	return false
}

// resolveTarget finds the signature of what a program with BTF attaches to.
func (v *verifier) resolveTarget() *Error {
	p := v.prog
	v.insn = -1
	if v.cfg.Types == nil {
		return v.unsupported("programs of type %s without the kernel's types", p.Type)
	}
	name := p.AttachTo
	switch {
	case p.Target != nil:
		v.target, _ = p.Target.Type.(*btf.FuncProto)
	case p.Attach == abi.AttachTraceRawTp:
		var t *btf.Typedef
		if err := v.cfg.Types.TypeByName("btf_trace_"+name, &t); err == nil {
			if ptr, ok := btf.UnderlyingType(t).(*btf.Pointer); ok {
				v.target, _ = btf.UnderlyingType(ptr.Target).(*btf.FuncProto)
			}
		}
	default:
		switch {
		case p.Type == abi.ProgLSM:
			name = "bpf_lsm_" + name
		case p.Attach == abi.AttachTraceIter:
			name = "bpf_iter_" + name
		}
		var f *btf.Func
		if err := v.cfg.Types.TypeByName(name, &f); err == nil {
			v.target, _ = f.Type.(*btf.FuncProto)
		}
	}
	if p.Type == abi.ProgTracing && p.Attach == abi.AttachTraceIter && !iterKnown(p.AttachTo) {
		return v.unsupported("iterators over %s", p.AttachTo)
	}
	if p.Attach == abi.AttachModifyReturn {
		return v.unsupported("which functions' results may be modified")
	}
	if v.target == nil {
		return v.unsupported("programs that attach to %s, of which the kernel's types know nothing", name)
	}
	v.params = v.target.Params
	if p.Attach == abi.AttachTraceRawTp && len(v.params) > 0 {
		v.params = v.params[1:] // what the tracepoint keeps for its callee
	}
	return nil
}

// argsTrusted reports whether pointers in the context are trusted
// (prog_args_trusted).
func (v *verifier) argsTrusted() bool {
	switch v.prog.Type {
	case abi.ProgTracing:
		return v.prog.Attach == abi.AttachTraceRawTp || v.prog.Attach == abi.AttachTraceIter
	case abi.ProgLSM:
		return !strings.HasSuffix(v.prog.AttachTo, "_free_security") && v.prog.AttachTo != "task_free" && v.prog.AttachTo != "inode_free_security"
	}
	return false
}

// iterArgs are what an iterator's programs are given beyond what BTF says:
// objects that may be null (ctx_arg_info of each iterator).
var iterArgs = map[string]map[string]flags{
	"task":         {"task": maybeNull | trusted},
	"task_file":    {"task": maybeNull, "file": maybeNull},
	"task_vma":     {"task": maybeNull, "vma": maybeNull},
	"bpf_map":      {"map": maybeNull | trusted},
	"bpf_prog":     {"prog": maybeNull},
	"bpf_link":     {"link": maybeNull},
	"cgroup":       {"cgroup": maybeNull | trusted},
	"bpf_map_elem": {"map": maybeNull | trusted},
	"tcp":          {"sk_common": maybeNull | trusted},
	"udp":          {"udp_sk": maybeNull | trusted},
	"unix":         {"unix_sk": maybeNull | trusted},
	"netlink":      {"sk": maybeNull | trusted},
	"ipv6_route":   {"rt": maybeNull},
	"ksym":         {"ksym": maybeNull},
}

// iterKnown reports whether all that an iterator's programs are given is known
// here: the elements of maps and sockets' storage come as buffers.
func iterKnown(name string) bool { return iterArgs[name] != nil && name != "bpf_map_elem" }

// typedCtxAccess checks a read of an argument (btf_ctx_access).
func (v *verifier) typedCtxAccess(at, off, size int, write bool) (reg, *Error) {
	unknown := scalarReg(domain.Unknown)
	bad := func(format string, args ...any) (reg, *Error) {
		return unknown, v.fail("context-access", at, format, args...)
	}
	switch {
	case write:
		return bad("the arguments of %s can be read only", v.prog.AttachTo)
	case off < 0 || off >= 96 || off%size != 0:
		return bad("%d bytes at offset %d of the arguments", size, off)
	case off%8 != 0:
		return bad("offset %d of the arguments is no multiple of 8", off)
	}
	n := off / 8
	var t btf.Type
	name := ""
	switch {
	case n < len(v.params):
		t, name = v.params[n].Type, v.params[n].Name
	case n == len(v.params) && (v.prog.Type == abi.ProgLSM || v.prog.Attach == abi.AttachTraceFexit):
		t = v.target.Return
	case n == len(v.params) && v.prog.Attach == abi.AttachModifyReturn:
		t = v.target.Return
	default:
		return bad("%s has %d arguments, and argument %d is read", v.prog.AttachTo, len(v.params), n+1)
	}
	u := btf.UnderlyingType(t)
	switch u := u.(type) {
	case *btf.Int:
		if u.Size <= 8 {
			return unknown, nil
		}
		return bad("argument %d of %s is too large a number", n+1, v.prog.AttachTo)
	case *btf.Enum, *btf.Struct, *btf.Union:
		return unknown, nil
	}
	ptr, ok := u.(*btf.Pointer)
	if !ok {
		return bad("argument %d of %s can neither be read as a number nor as a pointer", n+1, v.prog.AttachTo)
	}
	if size != 8 {
		return bad("argument %d of %s is a pointer, and %d bytes of it are read", n+1, v.prog.AttachTo, size)
	}
	to := btf.UnderlyingType(ptr.Target)
	switch to.(type) {
	case *btf.Void, *btf.Int:
		return unknown, nil
	}
	var f flags
	if v.argsTrusted() {
		f |= trusted
	}
	if strings.HasSuffix(name, "__nullable") {
		f |= maybeNull
	}
	if v.prog.Type == abi.ProgTracing && v.prog.Attach == abi.AttachTraceIter {
		if given, ok := iterArgs[v.prog.AttachTo][name]; ok {
			f = given
		}
	}
	if v.prog.Attach == abi.AttachTraceRawTp && v.cfg.Kernel >= linux6_12 {
		mask := abi.RawTracepointNulls[v.prog.AttachTo] >> (4 * n)
		if mask&2 != 0 {
			return unknown, nil
		}
		if mask&1 != 0 {
			f |= maybeNull
		}
	}
	if tag, ok := skipQualifiers(ptr.Target).(*btf.TypeTag); ok {
		switch tag.Value {
		case "user":
			f |= userMem
		case "percpu":
			f |= percpu
		}
	}
	s := asStruct(to)
	if s == nil {
		return bad("argument %d of %s points to something that is no structure", n+1, v.prog.AttachTo)
	}
	r := pointer(ptrBTF, f, v.typeIndex(s))
	if f&maybeNull != 0 {
		v.ids++
		r.id = v.ids
	}
	return r, nil
}

// skipQualifiers removes typedefs, const and volatile, but no tags.
func skipQualifiers(t btf.Type) btf.Type {
	for range 64 {
		switch q := t.(type) {
		case *btf.Typedef:
			t = q.Type
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		default:
			return t
		}
	}
	return t
}

// asStruct returns t if it is a structure or a union.
func asStruct(t btf.Type) btf.Type {
	switch t.(type) {
	case *btf.Struct, *btf.Union:
		return t
	}
	return nil
}

// inRCU reports whether the code runs inside an RCU read-side critical section
// (in_rcu_cs).
func (v *verifier) inRCU() bool {
	return v.st.rcu > 0 || v.st.preempt > 0 || v.st.activeLocks > 0 || !v.mayBeAsleep()
}

// isTrusted reports whether a pointer to a kernel object is known to be good
// (is_trusted_reg).
func isTrusted(r *reg) bool {
	if r.ref != 0 {
		return true
	}
	const unsafe = maybeNull | untrusted | userMem | percpu | rcu | nonOwning
	switch r.typ {
	case ptrSocket, ptrSockCommon, ptrTCPSock, constPtrMap:
		return r.flags&unsafe == 0
	}
	return r.has(trusted|alloc) && r.flags&unsafe == 0
}

// Fields that lead from trusted objects to objects that are good too: under
// RCU, or as they are, and perhaps null (BTF_TYPE_SAFE_* in verifier.c).
var (
	safeRCU = map[string]string{
		"task_struct": "cpus_ptr cgroups real_parent group_leader", "cgroup": "kn", "css_set": "dfl_cgrp", "cgroup_subsys_state": "cgroup",
	}
	safeRCUOrNull = map[string]string{"mm_struct": "exe_file", "sk_buff": "sk", "request_sock": "sk"}
	safeTrusted   = map[string]string{
		"bpf_iter_meta": "seq", "bpf_iter__task": "meta task", "linux_binprm": "file", "file": "f_inode",
	}
	safeTrustedOrNull = map[string]string{"socket": "sk", "dentry": "d_inode", "vm_area_struct": "vm_mm vm_file"}
)

func listed(table map[string]string, s, field string) bool {
	for f := range strings.FieldsSeq(table[s]) {
		if f == field {
			return true
		}
	}
	return false
}

// btfAccess checks a load from a kernel object, and says what it gives
// (check_ptr_to_btf_access).
func (v *verifier) btfAccess(p *reg, at, off, size int, write, loads bool) (reg, *Error) {
	unknown := scalarReg(domain.Unknown)
	t := v.types.list[p.obj]
	name := t.TypeName()
	switch {
	case !v.cfg.Caps.perfmon():
		return unknown, v.fail("object-needs-cap", at, "reading a struct %s needs CAP_PERFMON", name)
	case !gplCompatible(v.prog.License) && !p.has(alloc):
		return unknown, v.fail("object-gpl", at, "a struct %s can be read by programs under a GPL-compatible licence only, and this one's is %q", name, v.prog.License)
	case off < 0:
		return unknown, v.fail("object-out-of-bounds", at, "offset %d of struct %s", off, name)
	case !p.IsConst() || p.Bits.Value != 0:
		return unknown, v.fail("object-variable-offset", at, "a struct %s is accessed at an offset that is not constant", name)
	case p.has(userMem):
		return unknown, v.fail("object-elsewhere", at, "a struct %s in user memory is accessed directly; use bpf_probe_read_user", name)
	case p.has(percpu):
		return unknown, v.fail("object-elsewhere", at, "a struct %s of each processor is accessed directly; use bpf_per_cpu_ptr", name)
	case write && !p.has(alloc):
		return unknown, v.fail("object-read-only", at, "a struct %s can be read only", name)
	}
	if p.has(alloc) {
		for _, f := range v.objectFields(p.obj) {
			if off < int(f.off+f.size) && int(f.off) < off+size {
				return unknown, v.fail("special-field", at, "the %s at offset %d of struct %s cannot be read or written by instructions", f.kind, f.off, name)
			}
		}
	}
	w, err := v.walk(t, at, off, size)
	if err != nil || w.to == nil || p.has(alloc) {
		return unknown, err // what objects of the program hold are numbers
	}
	f := w.flags
	switch {
	case p.has(untrusted):
		f = untrusted
	case isTrusted(p) || p.has(rcu):
		switch {
		case listed(safeTrusted, name, w.field):
			f |= trusted
		case listed(safeTrustedOrNull, name, w.field):
			f |= trusted | maybeNull
		case v.inRCU() && !p.has(maybeNull):
			switch {
			case listed(safeRCU, name, w.field):
				f |= rcu
			case f&rcu != 0, listed(safeRCUOrNull, name, w.field):
				f |= rcu | maybeNull
				if listed(safeRCUOrNull, name, w.field) {
					f &^= untrusted
				}
			case f&(percpu|userMem) != 0:
			default:
				f &^= trusted | alloc | rcu
			}
		default:
			f = untrusted
		}
	default:
		f &^= trusted | alloc | rcu
	}
	r := pointer(ptrBTF, f, v.typeIndex(w.to))
	if f&maybeNull != 0 {
		v.ids++
		r.id = v.ids
	}
	return r, nil
}

// walked is where a load from a structure arrives.
type walked struct {
	to    btf.Type // the structure a pointer leads to; nil for a number
	flags flags
	field string
}

// walk finds the member at off (btf_struct_walk).
func (v *verifier) walk(t btf.Type, at, off, size int) (walked, *Error) {
	outer := t.TypeName()
	var f flags
	for range 32 {
		var members []btf.Member
		var length int
		switch s := t.(type) {
		case *btf.Struct:
			members, length = s.Members, int(s.Size)
		case *btf.Union:
			members, length = s.Members, int(s.Size)
			if len(members) != 1 { // as __bpf_md_ptr has it
				f |= untrusted
			}
		}
		if off+size > length {
			// A flexible array at the end may be read.
			last, arr := flexible(members)
			if arr == nil || off < int(last.Offset.Bytes()) {
				return walked{}, v.fail("object-out-of-bounds", at, "%d bytes at offset %d of struct %s, which has %d", size, off, outer, length)
			}
			elem := btf.UnderlyingType(arr.Type)
			esize, err := btf.Sizeof(elem)
			if err != nil || asStruct(elem) == nil || esize == 0 {
				return walked{}, nil
			}
			off = (off - int(last.Offset.Bytes())) % esize
			t = elem
			continue
		}
		next, w, done, err := v.member(members, at, off, size, outer)
		if err != nil {
			return walked{}, err
		}
		if done {
			w.flags |= f
			return w, nil
		}
		if next.t == nil {
			return walked{}, v.fail("object-out-of-bounds", at, "struct %s has nothing at offset %d", outer, off)
		}
		t, off = next.t, next.off
	}
	return walked{}, nil
}

func flexible(members []btf.Member) (btf.Member, *btf.Array) {
	if len(members) == 0 {
		return btf.Member{}, nil
	}
	last := members[len(members)-1]
	arr, ok := btf.UnderlyingType(last.Type).(*btf.Array)
	if !ok || arr.Nelems != 0 {
		return last, nil
	}
	return last, arr
}

type deeper struct {
	t   btf.Type
	off int
}

// member looks one level down.
func (v *verifier) member(members []btf.Member, at, off, size int, outer string) (deeper, walked, bool, *Error) {
	for _, m := range members {
		if m.BitfieldSize > 0 {
			lo, hi := int(m.Offset)/8, (int(m.Offset)+int(m.BitfieldSize)+7)/8
			if off+size <= lo || off >= hi && off >= lo+8 {
				continue
			}
			if off >= lo&^7 && off < hi {
				return deeper{}, walked{}, true, nil
			}
			continue
		}
		mo := int(m.Offset.Bytes())
		if off+size <= mo {
			break
		}
		mt := btf.UnderlyingType(m.Type)
		ms, err := btf.Sizeof(mt)
		if err != nil {
			continue
		}
		if off >= mo+ms {
			continue
		}
		if arr, ok := mt.(*btf.Array); ok {
			elem := btf.UnderlyingType(arr.Type)
			for {
				a, ok := elem.(*btf.Array)
				if !ok {
					break
				}
				elem = btf.UnderlyingType(a.Type)
			}
			es, err := btf.Sizeof(elem)
			if err != nil || es == 0 {
				continue
			}
			mo += (off - mo) / es * es
			mt, ms = elem, es
		}
		switch mt := mt.(type) {
		case *btf.Struct, *btf.Union:
			return deeper{mt, off - mo}, walked{}, false, nil
		case *btf.Pointer:
			if size != ms || off != mo {
				return deeper{}, walked{}, false, v.fail("object-field", at, "%d bytes at offset %d of struct %s are a part of pointer %s, which can be read as a whole only", size, off, outer, m.Name)
			}
			w := walked{field: m.Name}
			if tag, ok := skipQualifiers(mt.Target).(*btf.TypeTag); ok {
				switch tag.Value {
				case "user":
					w.flags |= userMem
				case "percpu":
					w.flags |= percpu
				case "rcu":
					w.flags |= rcu
				}
			}
			w.to = asStruct(btf.UnderlyingType(mt.Target))
			return deeper{}, w, true, nil
		}
		if off+size > mo+ms {
			return deeper{}, walked{}, false, v.fail("object-field", at, "%d bytes at offset %d of struct %s reach beyond member %s", size, off, outer, m.Name)
		}
		return deeper{}, walked{field: m.Name}, true, nil
	}
	return deeper{}, walked{}, false, nil
}

// matches reports whether a pointer to have, moved by off, points to a want
// (btf_struct_ids_match).
func matches(have, want btf.Type, off int, strict bool) bool {
	for range 16 {
		if off == 0 && sameType(have, want) {
			return true
		}
		if strict {
			return false
		}
		var members []btf.Member
		switch s := have.(type) {
		case *btf.Struct:
			members = s.Members
		case *btf.Union:
			members = s.Members
		}
		found := false
		for _, m := range members {
			mt := btf.UnderlyingType(m.Type)
			ms, err := btf.Sizeof(mt)
			mo := int(m.Offset.Bytes())
			if err != nil || m.BitfieldSize > 0 || off < mo || off >= mo+ms {
				continue
			}
			if asStruct(mt) != nil {
				have, off, found = mt, off-mo, true
			}
			break
		}
		if !found {
			return false
		}
	}
	return false
}

func sameType(a, b btf.Type) bool {
	if a == b {
		return true
	}
	_, sa := a.(*btf.Struct)
	_, sb := b.(*btf.Struct)
	return sa == sb && a.TypeName() != "" && a.TypeName() == b.TypeName()
}

// btfArgument checks a kernel object that a helper is given (the second half of
// check_reg_type).
func (v *verifier) btfArgument(r *reg, at int, t abi.ArgType, meta *callMeta) *Error {
	name := meta.helper.Name
	if t.Base() == abi.ArgPtrToMem || t.Base() == abi.ArgPtrToMapKey || t.Base() == abi.ArgPtrToMapValue {
		if !t.Has(abi.MemRdonly) {
			return v.fail("object-read-only", at, "%s may write to r%d (%s), which can be read only", name, at, v.typeName(r))
		}
		return nil
	}
	if r.flags&percpu != 0 && t.Base() == abi.ArgPtrToPercpuBTFID {
		return nil
	}
	switch meta.helper.ID {
	case helperSpinLock, helperSpinUnlock:
		return nil // an object of the program, whose lock is looked up later
	case helperKptrXchg:
		if r.has(alloc) {
			if at == 1 {
				return nil
			}
			return v.kptrMatches(meta.field, r, at)
		}
	}
	if r.has(alloc) {
		return v.fail("argument-type", at, "%s takes a kernel object in r%d, and it holds one of the program's (struct %s)", name, at, v.btfName(r.obj))
	}
	if r.has(maybeNull) && (!t.Has(abi.PtrMaybeNull) || t.Has(abi.ObjRelease)) {
		return v.fail("argument-null", at, "r%d (%s) may be null, which %s does not take", at, v.typeName(r), name)
	}
	if meta.helper.ID == helperKptrXchg {
		return v.kptrMatches(meta.field, r, at)
	}
	want := meta.proto.BTFTypes[at]
	if t.Base() == abi.ArgPtrToBTFIDSockCommon {
		want = "sock_common"
	}
	if want == "" || want == "*" {
		return v.unsupported("the kernel object that %s takes", name)
	}
	strict := t.Has(abi.ObjRelease) && name != "bpf_sk_release"
	idx, err := v.kernelType(want)
	if err != nil {
		return err
	}
	if !matches(v.types.list[r.obj], v.types.list[idx], int(r.off), strict) {
		return v.fail("object-type", at, "%s takes a struct %s in r%d, and it holds a struct %s", name, want, at, v.btfName(r.obj))
	}
	return nil
}

// btfResult is a kernel object that a helper returns.
func (v *verifier) btfResult(meta *callMeta, r *reg, f flags) *Error {
	if meta.proto.Return.Base() == abi.RetPtrToMemOrBTFID {
		t := btf.UnderlyingType(v.types.list[meta.retType])
		if asStruct(t) != nil {
			*r = pointer(ptrBTF, f&^rdonly, v.typeIndex(t))
			return nil
		}
		size, err := btf.Sizeof(t)
		if err != nil {
			return v.fail("object-type", 0, "the size of what %s returns is not known", meta.helper.Name)
		}
		*r = pointer(ptrMem, f, uint32(size))
		return nil
	}
	name := meta.proto.BTFTypes[0]
	if meta.helper.ID == helperKptrXchg {
		if meta.field == nil {
			return v.unsupported("what bpf_kptr_xchg returns")
		}
		idx, local, err := v.kptrTarget(meta.field)
		if err != nil {
			return err
		}
		if local {
			f |= alloc
			if meta.field.kind == fieldKptrPercpu {
				f |= percpu
			}
		}
		*r = pointer(ptrBTF, f, idx)
		return nil
	}
	if name == "" || name == "*" {
		return v.unsupported("the kernel object that %s returns", meta.helper.Name)
	}
	idx, err := v.kernelType(name)
	if err != nil {
		return err
	}
	*r = pointer(ptrBTF, f, idx)
	return nil
}

// loadKsym loads the address of a variable of the kernel (check_pseudo_btf_id).
func (v *verifier) loadKsym(op isa.Instruction, dst *reg) *Error {
	n := -1 - int(op.Low())
	if n < 0 || n >= len(v.prog.Ksyms) {
		return v.unsupported("kernel variables by BTF id")
	}
	k := &v.prog.Ksyms[n]
	if v.cfg.Types == nil {
		return v.unsupported("kernel variables without the kernel's types")
	}
	var vr *btf.Var
	if err := v.cfg.Types.TypeByName(k.Name, &vr); err != nil {
		if k.Weak {
			v.setConst(dst, 0)
			return nil
		}
		return v.unsupported("the kernel variable %s, which the kernel's types do not have", k.Name)
	}
	t := btf.UnderlyingType(vr.Type)
	isPercpu := false
	var sec *btf.Datasec
	if err := v.cfg.Types.TypeByName(".data..percpu", &sec); err == nil {
		for _, s := range sec.Vars {
			if s.Type == btf.Type(vr) {
				isPercpu = true
			}
		}
	}
	switch {
	case isPercpu:
		*dst = pointer(ptrBTF, percpu, v.typeIndex(t))
	case asStruct(t) != nil:
		*dst = pointer(ptrBTF, 0, v.typeIndex(t))
	default:
		size, err := btf.Sizeof(t)
		if err != nil {
			return v.unsupported("the kernel variable %s, whose size is not known", k.Name)
		}
		*dst = pointer(ptrMem, rdonly, uint32(size))
	}
	return nil
}

// mapStructs are the kernel's structures of maps, by type; that of most is
// bpf_array.
var mapStructs = map[abi.MapType]string{
	abi.MapHash: "bpf_htab", abi.MapPercpuHash: "bpf_htab", abi.MapLRUHash: "bpf_htab", abi.MapLRUPercpuHash: "bpf_htab",
	abi.MapHashOfMaps: "bpf_htab", abi.MapArray: "bpf_array", abi.MapPercpuArray: "bpf_array", abi.MapArrayOfMaps: "bpf_array",
	abi.MapProgArray: "bpf_array", abi.MapPerfEventArray: "bpf_array", abi.MapCgroupArray: "bpf_array", abi.MapLPMTrie: "lpm_trie",
	abi.MapRingbuf: "bpf_ringbuf_map", abi.MapUserRingbuf: "bpf_ringbuf_map", abi.MapQueue: "bpf_queue_stack",
	abi.MapStack: "bpf_queue_stack", abi.MapBloomFilter: "bpf_bloom_filter", abi.MapStackTrace: "bpf_stack_map",
}

// mapStructAccess checks a read of a map's own structure in the kernel
// (check_ptr_to_map_access).
func (v *verifier) mapStructAccess(p *reg, at, off, size int, write bool) (reg, *Error) {
	unknown := scalarReg(domain.Unknown)
	m := v.maps[p.obj]
	name, ok := mapStructs[m.Type]
	switch {
	case !ok:
		return unknown, v.unsupported("reading the structure of a map of type %s", m.Type)
	case !v.cfg.Caps.perfmon():
		return unknown, v.fail("object-needs-cap", at, "reading the structure of a map needs CAP_PERFMON")
	case off < 0:
		return unknown, v.fail("object-out-of-bounds", at, "offset %d of struct %s", off, name)
	case write:
		return unknown, v.fail("object-read-only", at, "struct %s, which map %s is for the kernel, can be read only", name, m.Name)
	}
	t, err := v.kernelType(name)
	if err != nil {
		return unknown, err
	}
	w, err := v.walk(v.types.list[t], at, off, size)
	if err != nil || w.to == nil {
		return unknown, err
	}
	return pointer(ptrBTF, w.flags&^(trusted|rcu), v.typeIndex(w.to)), nil
}
