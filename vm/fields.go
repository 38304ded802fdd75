package vm

import (
	"github.com/skep-bpf/skep/abi"
)

// A ContextField is a field of a program type's context.
type ContextField struct {
	Name         string
	Offset, Size int // in bytes
	Count        int // of an array, else 1
}

// ContextFields returns the fields of a program type's context (those of
// include/uapi/linux/bpf.h), or nil for types whose context is as the hook has
// it: a record, registers, an array of arguments.
func ContextFields(t abi.ProgType) []ContextField { return contextFields[t.Context()] }

var contextFields = map[string][]ContextField{
	"xdp_md": fieldsOf("data data_end data_meta ingress_ifindex rx_queue_index egress_ifindex"),
	"__sk_buff": append(fieldsOf("len pkt_type mark queue_mapping protocol vlan_present vlan_tci vlan_proto priority ingress_ifindex ifindex tc_index"),
		ContextField{"cb", skbCB, 4, 5}, ContextField{"hash", skbHash, 4, 1}, ContextField{"tc_classid", skbClassid, 4, 1},
		ContextField{"data", skbData, 4, 1}, ContextField{"data_end", skbDataEnd, 4, 1}, ContextField{"napi_id", 84, 4, 1},
		ContextField{"data_meta", skbDataMeta, 4, 1}, ContextField{"tstamp", skbTstamp, 8, 1}, ContextField{"wire_len", skbWireLen, 4, 1},
		ContextField{"gso_segs", skbGSOSegs, 4, 1}, ContextField{"gso_size", skbGSOSize, 4, 1}, ContextField{"hwtstamp", skbHwtstamp, 8, 1}),
}

// fieldsOf lays out 32-bit fields one after the other.
func fieldsOf(names string) []ContextField {
	var list []ContextField
	start := 0
	for i := 0; i <= len(names); i++ {
		if i == len(names) || names[i] == ' ' {
			list = append(list, ContextField{names[start:i], 4 * len(list), 4, 1})
			start = i + 1
		}
	}
	return list
}
