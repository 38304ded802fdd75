package verifier

import (
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// gplCompatible reports whether a licence lets a program call what is for GPL
// programs only (license_is_gpl_compatible).
func gplCompatible(license string) bool {
	return slices.Contains([]string{
		"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
	}, license)
}

var netAdminTypes = []abi.ProgType{
	abi.ProgSchedCls, abi.ProgSchedAct, abi.ProgXDP, abi.ProgLWTIn, abi.ProgLWTOut, abi.ProgLWTXmit, abi.ProgLWTSeg6local, abi.ProgSkSkb,
	abi.ProgSkMsg, abi.ProgFlowDissector, abi.ProgCgroupDevice, abi.ProgCgroupSock, abi.ProgCgroupSockAddr, abi.ProgCgroupSockopt,
	abi.ProgCgroupSysctl, abi.ProgSockOps, abi.ProgExt, abi.ProgNetfilter,
}

var perfmonTypes = []abi.ProgType{
	abi.ProgKprobe, abi.ProgTracepoint, abi.ProgPerfEvent, abi.ProgRawTracepoint, abi.ProgRawTracepointWritable, abi.ProgTracing, abi.ProgLSM,
	abi.ProgStructOps, abi.ProgExt,
}

// checkLoad checks what the kernel does before it looks at instructions
// (bpf_prog_load), and sets up what programs of the type have.
func (v *verifier) checkLoad() *Error {
	t := v.prog.Type
	if t == abi.ProgUnspec {
		v.insn = -1
		return v.unsupported("programs of a type that their section does not tell")
	}
	if t.Since() == 0 || t.Since() > v.cfg.Kernel {
		return v.failAt(-1, "program-type", "Linux %s has no programs of type %s", v.cfg.Kernel, t)
	}
	need := ""
	switch {
	case !v.cfg.Caps.bpf() && t != abi.ProgSocketFilter && t != abi.ProgCgroupSkb:
		need = "CAP_BPF"
	case v.cfg.Caps != CapsAll && slices.Contains(netAdminTypes, t):
		need = "CAP_NET_ADMIN"
	case !v.cfg.Caps.perfmon() && slices.Contains(perfmonTypes, t):
		need = "CAP_PERFMON"
	}
	if need != "" {
		return v.failAt(-1, "program-needs-cap", "loading programs of type %s needs %s", t, need)
	}
	switch t {
	case abi.ProgExt, abi.ProgStructOps:
		v.insn = -1
		return v.unsupported("programs of type %s", t)
	}
	v.ctx = abi.ContextOf(t)
	if v.ctx == nil && !v.typedContext() {
		v.insn = -1
		return v.unsupported("the context of programs of type %s", t)
	}
	if v.typedContext() {
		if err := v.resolveTarget(); err != nil {
			return err
		}
	}
	for _, m := range v.maps {
		if err := v.prepareMap(m); err != nil {
			return err
		}
	}
	return nil
}

// checkForms checks instructions that no path has to reach
// (resolve_pseudo_ldimm64, bpf_opcode_in_insntable), and maps that the program
// cannot use.
func (v *verifier) checkForms() *Error {
	seen := map[int32]bool{}
	for i := range v.insns {
		op := v.insns[i].op
		if op.Op == 0 {
			continue
		}
		if err := op.Check(); err != nil {
			return v.failAt(i, "invalid-instruction", "%v", err)
		}
		if v.cfg.unknownOpcode(op) {
			return v.failAt(i, "invalid-instruction", "Linux %s does not have this instruction", v.cfg.Kernel)
		}
		if !op.IsWide() {
			continue
		}
		switch op.Src {
		case isa.PseudoMapFD, isa.PseudoMapValue, isa.PseudoMapIndex, isa.PseudoMapIndexValue:
		default:
			continue
		}
		n := op.Low()
		if n < 0 || int(n) >= len(v.maps) {
			return v.failAt(i, "invalid-map", "map %d does not exist", n)
		}
		m := v.maps[n]
		if op.Src == isa.PseudoMapValue || op.Src == isa.PseudoMapIndexValue {
			switch {
			case m.Type != abi.MapArray && m.Type != abi.MapArena || m.Type == abi.MapArray && m.MaxEntries != 1:
				return v.failAt(i, "map-value-address", "the address of a value can be taken in arrays with one entry only, and map %s is none", m.Name)
			case uint32(op.High()) >= m.ValueSize || op.High() < 0 || op.High() >= maxOffset:
				return v.failAt(i, "map-value-offset", "offset %d is outside of the value of map %s, which has %d bytes", op.High(), m.Name, m.ValueSize)
			}
		}
		if !seen[n] {
			seen[n] = true
			if err := v.mapUsable(i, m); err != nil {
				return err
			}
		}
	}
	return nil
}

var tracingTypes = []abi.ProgType{abi.ProgKprobe, abi.ProgTracepoint, abi.ProgPerfEvent, abi.ProgRawTracepoint, abi.ProgRawTracepointWritable}

// sleepableMaps are the maps that programs that sleep may use.
var sleepableMaps = []abi.MapType{
	abi.MapHash, abi.MapLRUHash, abi.MapArray, abi.MapPercpuHash, abi.MapPercpuArray, abi.MapLRUPercpuHash, abi.MapArrayOfMaps,
	abi.MapHashOfMaps, abi.MapRingbuf, abi.MapUserRingbuf, abi.MapInodeStorage, abi.MapSkStorage, abi.MapTaskStorage, abi.MapCgrpStorage,
	abi.MapQueue, abi.MapStack, abi.MapArena,
}

// mapUsable checks that programs of the type may use a map
// (check_map_prog_compatibility).
func (v *verifier) mapUsable(at int, m *Map) *Error {
	t := v.prog.Type
	tracing := slices.Contains(tracingTypes, t)
	bad := func(what string) *Error {
		return v.failAt(at, "map-not-usable", "programs of type %s cannot use a map (%s) with %s", t, m.Name, what)
	}
	for i := range m.fields {
		switch k := m.fields[i].kind; {
		case k == fieldSpinLock && (tracing || t == abi.ProgSocketFilter), (k == fieldTimer || k == fieldWorkqueue || k.isRoot()) && tracing:
			return bad(k.String())
		}
	}
	if m.Type == abi.MapStructOps {
		return v.failAt(at, "map-not-usable", "a map of type struct_ops (%s) cannot be used in programs", m.Name)
	}
	if v.prog.Sleepable && !slices.Contains(sleepableMaps, m.Type) {
		return v.failAt(at, "map-not-usable", "a program that may sleep cannot use a map of type %s (%s)", m.Type, m.Name)
	}
	return nil
}

// mapIndex returns the number of a map, which is added if it is new.
func (v *verifier) mapIndex(m *Map) uint32 {
	for i, have := range v.maps {
		if have == m {
			return uint32(i)
		}
	}
	v.maps = append(v.maps, m)
	_ = v.prepareMap(m)
	return uint32(len(v.maps) - 1)
}

// The map types whose pointers are something else once they are not null.
const (
	mapXskMap   = abi.MapXskmap
	mapSockMap  = abi.MapSockmap
	mapSockHash = abi.MapSockhash
	mapArena    = abi.MapArena
)

// conditionalHelper checks helpers that not every program of a type may call.
// What depends on how the kernel was built or locked down is taken to be there.
func (v *verifier) conditionalHelper(h *abi.Helper) *Error {
	p := v.prog
	trampoline := p.Type == abi.ProgTracing &&
		(p.Attach == abi.AttachTraceFentry || p.Attach == abi.AttachTraceFexit || p.Attach == abi.AttachModifyReturn) ||
		p.Type == abi.ProgLSM && p.Attach == abi.AttachLSMMac
	allowed := true
	switch strings.TrimPrefix(h.Name, "bpf_") {
	case "probe_read", "probe_read_str", "probe_read_kernel", "probe_read_kernel_str", "probe_write_user", "trace_printk",
		"task_storage_get", "task_storage_delete":
	case "get_attach_cookie", "get_func_ip":
		allowed = p.Type == abi.ProgKprobe || trampoline
	case "get_func_arg", "get_func_arg_cnt":
		allowed = trampoline
	case "get_func_ret":
		allowed = trampoline && p.Attach != abi.AttachTraceFentry
	case "seq_printf", "seq_write", "seq_printf_btf":
		allowed = p.Type == abi.ProgTracing && p.Attach == abi.AttachTraceIter
	case "setsockopt", "getsockopt":
		if p.Type != abi.ProgCgroupSockAddr {
			return v.unsupported("%s in programs of type %s", h.Name, p.Type)
		}
		allowed = !slices.Contains(unixAddresses, p.Attach)
	case "bind":
		allowed = p.Attach == abi.AttachCgroupInet4Connect || p.Attach == abi.AttachCgroupInet6Connect
	case "get_retval", "set_retval":
		allowed = p.Type != abi.ProgCgroupSkb && p.Type != abi.ProgSockOps && !slices.Contains(withoutResult, p.Attach)
	default:
		return v.unsupported("%s, which depends on more than the program's type", h.Name)
	}
	if !allowed {
		return v.fail("helper-not-allowed", -1, "programs of type %s with this attach type cannot call %s", p.Type, h.Name)
	}
	return nil
}

var unixAddresses = []abi.AttachType{
	abi.AttachCgroupUnixConnect, abi.AttachCgroupUnixSendmsg, abi.AttachCgroupUnixRecvmsg, abi.AttachCgroupUnixGetpeername,
	abi.AttachCgroupUnixGetsockname,
}

// withoutResult are the attach types whose programs give no result to the
// caller.
var withoutResult = []abi.AttachType{
	abi.AttachCgroupUDP4Recvmsg, abi.AttachCgroupUDP6Recvmsg, abi.AttachCgroupUnixRecvmsg,
	abi.AttachCgroupInet4Getpeername, abi.AttachCgroupInet6Getpeername, abi.AttachCgroupUnixGetpeername,
	abi.AttachCgroupInet4Getsockname, abi.AttachCgroupInet6Getsockname, abi.AttachCgroupUnixGetsockname,
}
