package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Records are the lines of a kernel's summary: words parted by tabs, the first
// of which says what it is.
type records []string

func (r *records) add(words ...any) {
	parts := make([]string, len(words))
	for n, w := range words {
		parts[n] = fmt.Sprint(w)
	}
	*r = append(*r, strings.Join(parts, "\t"))
}

var (
	protoRE   = regexp.MustCompile(`const struct bpf_func_proto (\w+)\s*(?:__weak)?\s*=\s*\{`)
	fieldRE   = regexp.MustCompile(`(?s)^\.(\w+)\s*=\s*(.*)$`)
	funcRE    = regexp.MustCompile(`(\w+)\s*\(\s*enum bpf_func_id \w+(?:,\s*const struct bpf_prog \*prog\s*)?\)\s*\{`)
	getterRE  = regexp.MustCompile(`const struct bpf_func_proto \*\s*(?:__weak\s+)?(\w+)\((?:void)?\)\s*\{`)
	opsRE     = regexp.MustCompile(`const struct bpf_verifier_ops (\w+)_verifier_ops\s*=\s*\{`)
	getFuncRE = regexp.MustCompile(`\.get_func_proto\s*=\s*(\w+)`)
	caseRE    = regexp.MustCompile(`(?m)^\t(?:case BPF_FUNC_(\w+):|default:)`)
	addressRE = regexp.MustCompile(`&(\w+_proto\w*)`)
	callRE    = regexp.MustCompile(`\b(\w+_proto)\(`)
	forwardRE = regexp.MustCompile(`\b(\w+)\(\s*func_id(?:,\s*prog)?\s*\)`)
	typeRE    = regexp.MustCompile(`BPF_PROG_TYPE\((\w+),\s*(\w+),\s*([^,]+),\s*([^)]+)\)`)
	capRE     = regexp.MustCompile(`!\s*(?:bpf_token_capable\([^;]*?(CAP_BPF|CAP_PERFMON)\)|(bpf_capable|perfmon_capable)\(\))`)
)

// sourceDirs hold the kernel's helpers, kernel functions and program types.
var sourceDirs = []string{"kernel", "net", "fs", "mm", "security", "drivers/media/rc", "drivers/hid/bpf", "crypto", "block", "lib"}

// allowed is one way in which a program may call a helper.
type allowed struct {
	protos    []string
	condition bool   // only some programs of the type
	cap       string // capability beyond what loads the type
}

// helperSource collects what the kernel says of its helpers.
type helperSource struct {
	protos  map[string]map[string]string // initialisers
	getters map[string]string            // functions that return one prototype
	funcs   map[string]string            // *_func_proto bodies
	ops     map[string]string            // program type's short name to function
	ids     map[string]string            // BTF id lists to the type they hold
	memo    map[string]map[string]allowed
}

func (t tree) helpers() (*helperSource, error) {
	h := &helperSource{
		protos: map[string]map[string]string{}, getters: map[string]string{},
		funcs: map[string]string{}, ops: map[string]string{}, ids: map[string]string{}, memo: map[string]map[string]allowed{},
	}
	err := t.each(sourceDirs, "bpf_func_proto", func(_, text string) {
		for _, m := range protoRE.FindAllStringSubmatchIndex(text, -1) {
			body, _ := block(text, m[0], '{', '}')
			fields := map[string]string{}
			for _, f := range split(directives.ReplaceAllString(body, "")) {
				if fm := fieldRE.FindStringSubmatch(f); fm != nil {
					fields[fm[1]] = squeeze(fm[2])
				}
			}
			if len(fields) > 0 {
				h.protos[text[m[2]:m[3]]] = fields
			}
		}
		for _, m := range funcRE.FindAllStringSubmatchIndex(text, -1) {
			body, _ := block(text, m[1]-1, '{', '}')
			// The stubs of a kernel without BPF events return NULL.
			if name := text[m[2]:m[3]]; len(body) > len(h.funcs[name]) {
				h.funcs[name] = directives.ReplaceAllString(body, "")
			}
		}
		for _, m := range getterRE.FindAllStringSubmatchIndex(text, -1) {
			body, _ := block(text, m[1]-1, '{', '}')
			if p := addressRE.FindStringSubmatch(body); p != nil {
				h.getters[text[m[2]:m[3]]] = p[1]
			}
		}
		for _, m := range opsRE.FindAllStringSubmatchIndex(text, -1) {
			body, _ := block(text, m[0], '{', '}')
			if g := getFuncRE.FindStringSubmatch(body); g != nil {
				h.ops[text[m[2]:m[3]]] = g[1]
			}
		}
	})
	if err != nil {
		return nil, err
	}
	err = t.each(sourceDirs, "BTF_ID_LIST", func(_, text string) {
		for _, m := range idListRE.FindAllStringSubmatch(text, -1) {
			h.ids[m[1]] = m[2]
			for n, id := range structRE.FindAllStringSubmatch(m[4], -1) {
				if n == 0 {
					h.ids[m[3]] = id[1]
				}
				h.ids[fmt.Sprintf("%s[%d]", m[3], n)] = id[1]
			}
		}
	})
	return h, err
}

// structOps returns what struct_ops programs may call: the base helpers, and
// for some structures more, of which TCP congestion control has the most.
func (h *helperSource) structOps() map[string]allowed {
	m := maps.Clone(h.resolve("bpf_base_func_proto"))
	for helper, a := range h.resolve("bpf_tcp_ca_get_func_proto") {
		if _, ok := m[helper]; !ok {
			a.condition = true
			m[helper] = a
		}
	}
	return m
}

// resolve returns what the function named lets programs call.
func (h *helperSource) resolve(name string) map[string]allowed {
	if m, ok := h.memo[name]; ok {
		return m
	}
	m := map[string]allowed{}
	h.memo[name] = m // ends recursion
	body, ok := h.funcs[name]
	if !ok {
		return m
	}
	capAt := func(pos int) string {
		c := ""
		for _, x := range capRE.FindAllStringSubmatchIndex(body, -1) {
			if x[0] > pos {
				break
			}
			switch word := body[x[0]:x[1]]; {
			case strings.Contains(strings.ToLower(word), "perfmon"):
				c = "CAP_PERFMON"
			default:
				c = "CAP_BPF"
			}
		}
		return c
	}
	cases := caseRE.FindAllStringSubmatchIndex(body, -1)
	var names []string
	for n, c := range cases {
		end := len(body)
		if n+1 < len(cases) {
			end = cases[n+1][0]
		}
		code := body[c[1]:end]
		if c[2] < 0 { // default
			names = nil
			continue
		}
		names = append(names, body[c[2]:c[3]])
		if strings.TrimSpace(code) == "" {
			continue // falls into the next label
		}
		// Code after the last statement of a switch belongs to the function.
		if n+1 == len(cases) || strings.Contains(code, "\n\t}\n") {
			code, _, _ = strings.Cut(code, "\n\t}\n")
		}
		a := allowed{cap: capAt(c[0])}
		for _, p := range addressRE.FindAllStringSubmatch(code, -1) {
			a.protos = append(a.protos, p[1])
		}
		for _, p := range callRE.FindAllStringSubmatch(code, -1) {
			if to, ok := h.getters[p[1]]; ok {
				a.protos = append(a.protos, to)
			}
		}
		for _, f := range forwardRE.FindAllStringSubmatch(code, -1) {
			if to, ok := h.resolve(f[1])[names[0]]; ok {
				a.protos = append(a.protos, to.protos...)
			}
		}
		a.condition = strings.Contains(code, "NULL") || strings.Contains(code, "if (") && !strings.Contains(code, "else")
		for _, name := range names {
			if _, ok := m[name]; !ok && len(a.protos) > 0 {
				m[name] = a
			}
		}
		names = nil
	}
	for _, f := range forwardRE.FindAllStringSubmatch(body, -1) {
		for helper, a := range h.resolve(f[1]) {
			if _, ok := m[helper]; !ok {
				m[helper] = a
			}
		}
	}
	return m
}

// summary adds prototypes, program types and what these may call.
func (h *helperSource) summary(t tree, out *records) error {
	bpf := newScope()
	bpf.header(t.read("include/vdso/bits.h"))
	bpf.funcs["BIT"] = function{"nr", "(1 << (nr))"}
	bpf.header(t.read("include/linux/bpf.h"))
	var types []namedType
	for _, prefix := range []string{"ARG_", "RET_", "PTR_", "MEM_", "OBJ_", "DYNPTR_TYPE_", "NON_OWN_REF"} {
		for _, name := range bpf.order {
			if v, ok := bpf.value(name); ok && strings.HasPrefix(name, prefix) && typeFlag(name, v) {
				out.add("typeflag", name, v)
				types = append(types, namedType{name, v})
			}
		}
	}
	used := map[string]bool{}
	for _, m := range typeRE.FindAllStringSubmatch(t.read("include/linux/bpf_types.h"), -1) {
		typ := strings.TrimPrefix(m[1], "BPF_PROG_TYPE_")
		out.add("progtype", typ, squeeze(m[3]), squeeze(m[4]))
		calls := h.resolve(h.ops[m[2]])
		if typ == "STRUCT_OPS" {
			calls = h.structOps()
		}
		for _, helper := range sortedKeys(calls) {
			a := calls[helper]
			a.protos = slices.Compact(slices.Clone(a.protos))
			if helper == "override_return" {
				a.condition = true // CONFIG_BPF_KPROBE_OVERRIDE
			}
			condition := "-"
			if a.condition {
				condition = "some"
			}
			c := a.cap
			if c == "" {
				c = "-"
			}
			out.add("allow", typ, helper, strings.Join(a.protos, ","), condition, c)
			for _, p := range a.protos {
				used[p] = true
			}
		}
	}
	for _, name := range sortedKeys(used) {
		p, ok := h.protos[name]
		if !ok {
			return fmt.Errorf("no initialiser of %s", name)
		}
		line := []any{"proto", name}
		eval := func(field string) error {
			expr, ok := p[field]
			if !ok {
				line = append(line, "-")
				return nil
			}
			v, err := bpf.eval(expr)
			if err != nil {
				return fmt.Errorf("%s.%s = %s: %w", name, field, expr, err)
			}
			line = append(line, typeText(v, field == "ret_type", types))
			return nil
		}
		properties := ""
		for _, f := range []string{"gpl_only", "might_sleep", "pkt_access", "allow_fastcall"} {
			if p[f] == "true" {
				properties += "," + f
			}
		}
		line = append(line, strings.Trim(properties, ","))
		for _, f := range []string{"ret_type", "arg1_type", "arg2_type", "arg3_type", "arg4_type", "arg5_type"} {
			if err := eval(f); err != nil {
				return err
			}
		}
		extra := ""
		for _, f := range []string{"ret", "arg1", "arg2", "arg3", "arg4", "arg5"} {
			if x, ok := p[f+"_btf_id"]; ok {
				typ, err := h.btfName(x)
				if err != nil {
					return err
				}
				extra += " " + f + "=" + typ
			}
			if x, ok := p[f+"_size"]; ok {
				extra += " " + f + "=" + x
			}
		}
		line = append(line, strings.TrimSpace(extra))
		out.add(line...)
	}
	return nil
}

// namedType is a base type or a flag of bpf_arg_type and its like.
type namedType struct {
	name  string
	value int64
}

// typeText spells a bpf_arg_type or bpf_return_type with the names of its base
// and its flags, whose bits differ between kernels.
func typeText(v int64, ret bool, types []namedType) string {
	prefix := "ARG_"
	if ret {
		prefix = "RET_"
	}
	var parts []string
	for _, f := range types {
		if strings.HasPrefix(f.name, prefix) && f.value == v&255 {
			parts = append(parts, f.name)
			break
		}
	}
	for _, f := range types {
		if f.value >= 256 && v&f.value == f.value {
			parts = append(parts, f.name)
		}
	}
	return strings.Join(parts, "|")
}

// typeFlag tells base types and flags from ranges, masks and aliases.
func typeFlag(name string, v int64) bool {
	switch {
	case strings.HasPrefix(name, "__"), strings.HasSuffix(name, "_MAX"), strings.HasSuffix(name, "_LIMIT"):
		return false
	case strings.HasPrefix(name, "ARG_"), strings.HasPrefix(name, "RET_"):
		return v < 256
	case strings.HasPrefix(name, "PTR_TO_"):
		return false
	}
	return v >= 256 && v < 1<<32
}

var tracingTypes = map[string]string{
	"btf_tracing_idsBTF_TRACING_TYPE_TASK": "task_struct", "btf_tracing_idsBTF_TRACING_TYPE_FILE": "file", "btf_tracing_idsBTF_TRACING_TYPE_VMA": "vm_area_struct",
	"btf_sock_idsBTF_SOCK_TYPE_SOCK_COMMON": "sock_common", "btf_sock_idsBTF_SOCK_TYPE_SOCK": "sock", "btf_sock_idsBTF_SOCK_TYPE_TCP": "tcp_sock",
	"btf_sock_idsBTF_SOCK_TYPE_TCP6": "tcp6_sock", "btf_sock_idsBTF_SOCK_TYPE_TCP_REQ": "tcp_request_sock", "btf_sock_idsBTF_SOCK_TYPE_TCP_TW": "tcp_timewait_sock",
	"btf_sock_idsBTF_SOCK_TYPE_UDP6": "udp6_sock", "btf_sock_idsBTF_SOCK_TYPE_UNIX": "unix_sock", "btf_sock_idsBTF_SOCK_TYPE_MPTCP": "mptcp_sock",
	"btf_sock_idsBTF_SOCK_TYPE_SOCKET": "socket",
	"tcp_sock_id":                      "tcp_sock", // looked up at run time
}

var (
	btfIDRE  = regexp.MustCompile(`^&(\w+)(?:\[(\w+)\])?$`)
	idListRE = regexp.MustCompile(`BTF_ID_LIST(?:_GLOBAL)?_SINGLE\((\w+),\s*struct,\s*(\w+)\)|BTF_ID_LIST\((\w+)\)((?:\s*BTF_ID\(struct,\s*\w+\))+)`)
	structRE = regexp.MustCompile(`BTF_ID\(struct,\s*(\w+)\)`)
)

// btfName turns an address of a BTF id list into the name of the type; one that
// depends on the call (BPF_PTR_POISON) has none.
func (h *helperSource) btfName(x string) (string, error) {
	if x == "BPF_PTR_POISON" {
		return "*", nil
	}
	if m := btfIDRE.FindStringSubmatch(x); m != nil {
		if t, ok := tracingTypes[m[1]+m[2]]; ok {
			return t, nil
		}
		if t, ok := h.ids[x[1:]]; ok {
			return t, nil
		}
		if t, ok := h.ids[m[1]]; ok && (m[2] == "" || m[2] == "0") {
			return t, nil
		}
	}
	return "", fmt.Errorf("no type for the BTF id %s", x)
}
