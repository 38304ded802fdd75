package abi

import (
	"slices"
	"strconv"
	"strings"
)

// ContextValue is what a load from a context gives.
type ContextValue uint8

// The kinds of values in contexts.
const (
	ContextScalar       ContextValue = iota
	ContextPacket                    // start of the packet
	ContextPacketMeta                // start of its metadata
	ContextPacketEnd                 // its end
	ContextFlowKeys                  // struct bpf_flow_keys
	ContextSockCommon                // struct bpf_sock, what all sockets have, or null
	ContextSocket                    // struct bpf_sock
	ContextSocketOrNull              // struct bpf_sock, or null
	ContextTPBuffer                  // what a raw tracepoint lets programs write
)

// FlowKeysSize is the size of struct bpf_flow_keys.
const FlowKeysSize = 56

// fieldForm says with which sizes a field can be accessed. All accesses are
// aligned to their size.
type fieldForm uint8

const (
	formNarrow      fieldForm = iota // reads of 1, 2 and 4 bytes, writes of 4
	formWord                         // 4 bytes
	formLong                         // 8 bytes
	formNarrow8                      // reads of 1 to 8 bytes
	formNarrow2                      // reads of 1 and 2 bytes, or of 4
	formNarrow2Only                  // reads of 1 and 2 bytes
	formAny                          // any size
	formWide                         // as formNarrow, and 8 bytes
	formByte                         // 1 byte
	formAtLeast2                     // reads of 2 and 4 bytes
	formNarrowStart                  // as formNarrow, at the field's start only
	formNone                         // never
)

// A ContextField is a member of a context, or several that are alike.
type ContextField struct {
	Name     string
	Off, Len int // bytes
	Value    ContextValue
	form     fieldForm
}

// A Context is what programs see at the pointer they are given.
type Context struct {
	// Name is the C structure's, without "struct"; empty where there is none.
	Name   string
	Size   int // bytes
	Fields []ContextField
}

var values = map[string]ContextValue{
	"packet": ContextPacket, "meta": ContextPacketMeta, "end": ContextPacketEnd, "flow": ContextFlowKeys,
	"common": ContextSockCommon, "socket": ContextSocket, "socketornull": ContextSocketOrNull,
}

var forms = map[string]fieldForm{
	"narrow": formNarrow, "word": formWord, "long": formLong, "narrow8": formNarrow8, "narrow2": formNarrow2,
	"narrow2only": formNarrow2Only, "any": formAny, "wide": formWide, "byte": formByte, "atleast2": formAtLeast2,
	"start": formNarrowStart, "none": formNone,
}

// layout reads "name bytes form value", a field after the other; pointers and
// 64-bit numbers are aligned. What is left out is narrow, and a number.
func layout(name, text string) *Context {
	c := &Context{Name: name}
	for line := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		w := strings.Fields(line)
		f := ContextField{Name: w[0]}
		f.Len, _ = strconv.Atoi(w[1])
		for _, word := range w[2:] {
			if form, ok := forms[word]; ok {
				f.form = form
			} else {
				f.Value = values[word]
			}
		}
		if f.Len == 8 && f.form == formLong {
			c.Size = (c.Size + 7) &^ 7
		}
		f.Off = c.Size
		c.Size += f.Len
		c.Fields = append(c.Fields, f)
	}
	return c
}

// The contexts, as include/uapi/linux/bpf.h has them, with the sizes that the
// kernel's is_valid_access functions (net/core/filter.c, kernel/bpf/cgroup.c)
// let through.
var contexts = []*Context{
	layout("__sk_buff", `len 4, pkt_type 4, mark 4, queue_mapping 4, protocol 4, vlan_present 4, vlan_tci 4,
		vlan_proto 4, priority 4, ingress_ifindex 4, ifindex 4, tc_index 4, cb 20 any, hash 4, tc_classid 4,
		data 4 word packet, data_end 4 word end, napi_id 4, family 4, remote_ip4 4 word, local_ip4 4 word,
		remote_ip6 16 word, local_ip6 16 word, remote_port 4, local_port 4, data_meta 4 word meta,
		flow_keys 8 long flow, tstamp 8 long, wire_len 4, gso_segs 4, sk 8 long common, gso_size 4,
		tstamp_type 1 byte, padding 3 none, hwtstamp 8 long`),
	layout("xdp_md", `data 4 word packet, data_end 4 word end, data_meta 4 word meta, ingress_ifindex 4 word,
		rx_queue_index 4 word, egress_ifindex 4 word`),
	layout("bpf_sock", `bound_dev_if 4 word, family 4 start, type 4 start, protocol 4 start, mark 4 word, priority 4 word, src_ip4 4,
		src_ip6 16, src_port 4 start, dst_port 2 narrow2, padding 2 none, dst_ip4 4, dst_ip6 16, state 4 start, rx_queue_mapping 4 start`),
	layout("bpf_sock_common", `bound_dev_if 4 word, family 4 start, none 16 none, src_ip4 4, src_ip6 16, src_port 4 start, dst_port 2 narrow2,
		padding 2 none, dst_ip4 4, dst_ip6 16, state 4 start, rx_queue_mapping 4 start`),
	layout("bpf_tcp_sock", `words 80 word, bytes_received 8 long, bytes_acked 8 long, dsack_dups 4 word, delivered 4 word,
		delivered_ce 4 word, icsk_retransmits 4 word`),
	layout("bpf_xdp_sock", `queue_id 4 word`),
	layout("sk_msg_md", `data 8 long packet, data_end 8 long end, family 4 word, remote_ip4 4 word, local_ip4 4 word,
		remote_ip6 16 word, local_ip6 16 word, remote_port 4 word, local_port 4 word, size 4 word, sk 8 long socket`),
	layout("sk_reuseport_md", `data 8 long packet, data_end 8 long end, len 4, eth_protocol 4 atleast2, ip_protocol 4, bind_inany 4,
		hash 4 word, sk 8 long socket, migrating_sk 8 long common`),
	layout("bpf_sock_addr", `user_family 4 word, user_ip4 4, user_ip6 16 wide, user_port 4, family 4 word, type 4 word,
		protocol 4 word, msg_src_ip4 4, msg_src_ip6 16 wide, sk 8 long socket`),
	layout("bpf_sock_ops", `op 4 word, reply 4 word, args 12 word, family 4 word, remote_ip4 4 word, local_ip4 4 word,
		remote_ip6 16 word, local_ip6 16 word, remote_port 4 word, local_port 4 word, words 92 word, sk_txhash 4 word,
		bytes_received 8 long, bytes_acked 8 long, sk 8 long socketornull, skb_data 8 long packet, skb_data_end 8 long end,
		skb_len 4 word, skb_tcp_flags 4 start, skb_hwtstamp 8 long`),
	layout("bpf_cgroup_dev_ctx", `access_type 4, major 4 word, minor 4 word`),
	layout("bpf_sysctl", `write 4, file_pos 4`),
	layout("bpf_sockopt", `sk 8 long socket, optval 8 long packet, optval_end 8 long end, level 4 word, optname 4 word,
		optlen 4 word, retval 4 word`),
	layout("bpf_sk_lookup", `sk 8 long socketornull, family 4, protocol 4, remote_ip4 4, remote_ip6 16, remote_port 2 narrow2,
		padding 2 narrow2only, local_ip4 4, local_ip6 16, local_port 4, ingress_ifindex 4`),
	layout("bpf_perf_event_data", `regs 168 long, sample_period 8 narrow8, addr 8 narrow8`),
	layout("pt_regs", `regs 168 any`),
	// Sixteen is what no tracepoint has more arguments than (MAX_BPF_FUNC_ARGS is 12).
	layout("bpf_raw_tracepoint_args", `args 96 any`),
	layout("tracepoint", `common 8 none, record 8184 any`),
	layout("syscall", `args 65535 any`),
}

// ContextByName returns a context, or another structure whose fields are checked
// alike ("bpf_sock", "bpf_tcp_sock"), or nil.
func ContextByName(name string) *Context {
	for _, c := range contexts {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ContextOf returns the context of programs of type t, or nil where it has no
// fixed form.
func ContextOf(t ProgType) *Context {
	switch t {
	case ProgTracepoint:
		return ContextByName("tracepoint")
	case ProgSyscall:
		return ContextByName("syscall")
	}
	if name := t.Context(); name != "" {
		return ContextByName(name)
	}
	return nil
}

// access says which fields of a context programs of one type may not touch,
// and which ones they may write.
type access struct {
	denied, written string // names, separated by spaces
}

var accesses = map[ProgType]access{
	ProgSocketFilter: {"tc_classid data data_meta data_end family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port flow_keys tstamp wire_len tstamp_type hwtstamp", "cb"},
	ProgSchedCls:     {"family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port flow_keys", "mark tc_index priority tc_classid cb tstamp queue_mapping"},
	ProgSchedAct:     {"family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port flow_keys", "mark tc_index priority tc_classid cb tstamp queue_mapping"},
	ProgCgroupSkb:    {"tc_classid data_meta flow_keys wire_len tstamp_type", "mark priority cb tstamp"},
	ProgLWTIn:        {lwtDenied, "mark priority cb"},
	ProgLWTOut:       {lwtDenied, "mark priority cb"},
	ProgLWTXmit:      {lwtDenied, "mark priority cb"},
	ProgLWTSeg6local: {lwtDenied, "mark priority cb"},
	ProgSkSkb:        {"tc_classid data_meta flow_keys tstamp wire_len tstamp_type hwtstamp mark", "tc_index priority"},
	ProgFlowDissector: {"len pkt_type mark queue_mapping protocol vlan_present vlan_tci vlan_proto priority ingress_ifindex ifindex tc_index cb hash " +
		"tc_classid napi_id family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port data_meta tstamp wire_len gso_segs sk gso_size " +
		"tstamp_type hwtstamp", ""},
	ProgSockOps:        {"", "reply sk_txhash"},
	ProgCgroupSysctl:   {"", "file_pos"},
	ProgSyscall:        {"", "args"},
	ProgCgroupSockAddr: {"", "user_ip4 user_ip6 user_port msg_src_ip4 msg_src_ip6"},
}

const lwtDenied = "tc_classid family remote_ip4 local_ip4 remote_ip6 local_ip6 remote_port local_port data_meta flow_keys tstamp wire_len tstamp_type hwtstamp"

func listed(names, name string) bool {
	for n := range strings.FieldsSeq(names) {
		if n == name {
			return true
		}
	}
	return false
}

// narrowed are attach types that a field is for; other fields are for all.
var narrowed = map[ProgType]map[string][]AttachType{
	ProgCgroupSockAddr: {
		"user_ip4":    {AttachCgroupInet4Bind, AttachCgroupInet4Connect, AttachCgroupInet4Getpeername, AttachCgroupInet4Getsockname, AttachCgroupUDP4Sendmsg, AttachCgroupUDP4Recvmsg},
		"user_ip6":    {AttachCgroupInet6Bind, AttachCgroupInet6Connect, AttachCgroupInet6Getpeername, AttachCgroupInet6Getsockname, AttachCgroupUDP6Sendmsg, AttachCgroupUDP6Recvmsg},
		"msg_src_ip4": {AttachCgroupUDP4Sendmsg},
		"msg_src_ip6": {AttachCgroupUDP6Sendmsg},
	},
	ProgCgroupSock: {
		"bound_dev_if": {AttachCgroupInetSockCreate, AttachCgroupInetSockRelease},
		"mark":         {AttachCgroupInetSockCreate, AttachCgroupInetSockRelease},
		"priority":     {AttachCgroupInetSockCreate, AttachCgroupInetSockRelease},
		"src_ip4":      {AttachCgroupInet4PostBind},
		"src_ip6":      {AttachCgroupInet6PostBind},
		"src_port":     {AttachCgroupInet4PostBind, AttachCgroupInet6PostBind},
	},
	ProgCgroupSockopt: {"retval": {AttachCgroupGetsockopt}},
	ProgXDP:           {"egress_ifindex": {AttachXDPDevmap}},
}

// writable reports whether programs of type t may write a field.
func writable(t ProgType, a AttachType, field string) bool {
	switch t {
	case ProgCgroupSockopt:
		switch field {
		case "retval":
			return a == AttachCgroupGetsockopt
		case "optname", "level":
			return a == AttachCgroupSetsockopt
		}
		return field == "optlen"
	case ProgCgroupSock:
		return field == "bound_dev_if" || field == "mark" || field == "priority"
	}
	return listed(accesses[t].written, field)
}

// Access says what a load of size bytes at off gives programs of type t, or
// that they may store there; ok is false where they may not. A program type of
// 0 stands for a pointer to the structure rather than a context.
func (c *Context) Access(k Version, t ProgType, a AttachType, off, size int, write bool) (value ContextValue, ok bool) {
	if c != nil && c.Name == "tracepoint" && off < 0 && off%size == 0 {
		// The kernel compares the offset with a size, as unsigned numbers: what
		// lies before the record can be read.
		return ContextScalar, !write
	}
	if c == nil || off < 0 || off >= c.Size || off%size != 0 {
		return 0, false
	}
	if c.Name == "syscall" {
		return ContextScalar, true
	}
	n, _ := slices.BinarySearchFunc(c.Fields, off+1, func(f ContextField, at int) int { return f.Off + f.Len - at })
	if n == len(c.Fields) || c.Fields[n].Off > off {
		return 0, false
	}
	f := &c.Fields[n]
	if t == 0 {
		return f.Value, !write && f.fits(off, size, false)
	}
	if listed(accesses[t].denied, f.Name) {
		return 0, false
	}
	if only := narrowed[t][f.Name]; only != nil && !slices.Contains(only, a) {
		return 0, false
	}
	if t == ProgRawTracepointWritable && off == 0 {
		return ContextTPBuffer, size == 8 && !write
	}
	if write && !writable(t, a, f.Name) {
		return 0, false
	}
	return f.Value, f.fits(off, size, write)
}

func (f *ContextField) fits(off, size int, write bool) bool {
	switch f.form {
	case formNarrow:
		return size == 4 || size < 4 && !write
	case formWord:
		return size == 4
	case formLong:
		return size == 8
	case formNarrow8:
		return true
	case formNarrow2:
		return size <= 2 || size == 4
	case formNarrow2Only:
		return size <= 2
	case formAny:
		return off+size <= f.Off+f.Len || f.Len > 4096
	case formWide:
		return size == 4 || size < 4 && !write || size == 8 && off+8 <= f.Off+f.Len
	case formNarrowStart:
		return off == f.Off && (size == 4 || size < 4 && !write)
	case formByte:
		return size == 1
	case formAtLeast2:
		return size == 2 || size == 4
	}
	return false
}
