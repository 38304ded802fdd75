package vm

import (
	"fmt"

	"github.com/skep-bpf/skep/abi"
)

// Fields of struct bpf_sockopt (include/uapi/linux/bpf.h).
const (
	sockoptVal    = 8
	sockoptEnd    = 16
	sockoptLen    = 32
	sockoptRetval = 36
	sockoptSize   = 40
)

// cgroupHelpers are those of the programs that decide for control groups.
var cgroupHelpers = map[int32]helperFunc{
	25:  perfOutput(nil),
	186: func(r *run) uint64 { return uint64(int64(r.retval)) },
	187: func(r *run) uint64 {
		v := int32(r.arg(1))
		if v > 0 || v < -4095 {
			return EINVAL.result()
		}
		r.retval = v
		return 0
	},
}

// prepareSockopt puts RunOptions.Data where the option's value is expected:
// optval to optval_end. Of the context, level, optname, optlen and retval can be
// given; optlen is the length of Data otherwise.
func prepareSockopt(r *run, p *Program, in *input) (uint64, error) {
	if len(in.context) > sockoptSize {
		return 0, fmt.Errorf("a struct bpf_sockopt has %d bytes, and the context %d: %w", sockoptSize, len(in.context), EINVAL)
	}
	if err := r.putPacket(in.data, 0, 64); err != nil {
		return 0, err
	}
	b := r.contextBytes(sockoptSize)
	clear(b[copy(b, in.context):])
	k := &r.packet
	native.PutUint64(b[sockoptVal:], uint64(k.buf))
	native.PutUint64(b[sockoptEnd:], uint64(k.buf)+uint64(len(in.data)))
	if native.Uint32(b[sockoptLen:]) == 0 {
		native.PutUint32(b[sockoptLen:], uint32(len(in.data)))
	}
	r.retval = int32(native.Uint32(b[sockoptRetval:]))
	return uint64(r.context), nil
}

func finishSockopt(r *run, in *input, res *Result) {
	res.Context = append([]byte(nil), r.contextBytes(sockoptSize)...)
	clear(res.Context[:24]) // addresses
	// A length that the program made up does not go beyond what there is.
	n := min(int(native.Uint32(res.Context[sockoptLen:])), len(in.data))
	res.Data = append([]byte(nil), r.bytesOf(0, max(0, n))...)
}

func init() {
	fixed := func(size int) *progKind {
		return &progKind{prepare: prepareBytes(size, size), finish: finishBytes, helpers: cgroupHelpers, plain: true}
	}
	progKinds[abi.ProgCgroupDevice] = fixed(12)
	progKinds[abi.ProgCgroupSysctl] = fixed(8)
	progKinds[abi.ProgCgroupSockAddr] = fixed(72)
	progKinds[abi.ProgSkLookup] = fixed(72)
	progKinds[abi.ProgCgroupSockopt] = &progKind{prepare: prepareSockopt, finish: finishSockopt, helpers: cgroupHelpers}

	u32 := func(name string, off, count int) ContextField { return ContextField{name, off, 4, count} }
	contextFields["bpf_cgroup_dev_ctx"] = fieldsOf("access_type major minor")
	contextFields["bpf_sysctl"] = fieldsOf("write file_pos")
	contextFields["bpf_sock_addr"] = []ContextField{
		u32("user_family", 0, 1), u32("user_ip4", 4, 1), u32("user_ip6", 8, 4), u32("user_port", 24, 1), u32("family", 28, 1),
		u32("type", 32, 1), u32("protocol", 36, 1), u32("msg_src_ip4", 40, 1), u32("msg_src_ip6", 44, 4),
		{"sk", 64, 8, 1},
	}
	contextFields["bpf_sockopt"] = []ContextField{u32("level", 24, 1), u32("optname", 28, 1), u32("optlen", sockoptLen, 1), u32("retval", sockoptRetval, 1)}
	contextFields["bpf_sk_lookup"] = []ContextField{
		{"sk", 0, 8, 1},
		u32("family", 8, 1), u32("protocol", 12, 1), u32("remote_ip4", 16, 1), u32("remote_ip6", 20, 4), u32("remote_port", 36, 1),
		u32("local_ip4", 40, 1), u32("local_ip6", 44, 4), u32("local_port", 60, 1), u32("ingress_ifindex", 64, 1),
	}
}
