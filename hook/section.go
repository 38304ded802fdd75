package hook

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// What follows the slash of a section name.
type rest uint8

const (
	restNone  rest = iota // nothing that matters
	restFunc              // [module:]function[+offset]
	restTP                // subsystem/event
	restEvent             // a name
	restUser              // path:function[+offset]
	restUSDT              // path:namespace:name
)

type flags uint8

const (
	flagSleepable flags = 1 << iota
	flagMulti
	flagFrags
	flagTyped
	flagWritable
	flagReturn // Point.Attach is "return"
)

type sectionDef struct {
	prefix string
	kind   Kind
	attach string
	flags  flags
	rest   rest
}

// sections are the names that libbpf and its users give to sections. Of two
// that fit, the longer one counts. Of two spellings of one hook, Section
// gives the first.
var sections = []sectionDef{
	{"kprobe", Kprobe, "", 0, restFunc},
	{"kprobe.multi", Kprobe, "", flagMulti, restFunc},
	{"kretprobe", Kretprobe, "", 0, restFunc},
	{"kretprobe.multi", Kretprobe, "", flagMulti, restFunc},
	{"kprobe.session", KprobeSession, "", flagMulti, restFunc},
	{"ksyscall", Ksyscall, "", 0, restEvent},
	{"kretsyscall", Kretsyscall, "", 0, restEvent},
	{"uprobe", Uprobe, "", 0, restUser},
	{"uprobe.s", Uprobe, "", flagSleepable, restUser},
	{"uprobe.multi", Uprobe, "", flagMulti, restUser},
	{"uprobe.multi.s", Uprobe, "", flagMulti | flagSleepable, restUser},
	{"uretprobe", Uretprobe, "", 0, restUser},
	{"uretprobe.s", Uretprobe, "", flagSleepable, restUser},
	{"uretprobe.multi", Uretprobe, "", flagMulti, restUser},
	{"uretprobe.multi.s", Uretprobe, "", flagMulti | flagSleepable, restUser},
	{"uprobe.session", UprobeSession, "", flagMulti, restUser},
	{"uprobe.session.s", UprobeSession, "", flagMulti | flagSleepable, restUser},
	{"usdt", USDT, "", 0, restUSDT},
	{"usdt.s", USDT, "", flagSleepable, restUSDT},
	{"tp", Tracepoint, "", 0, restTP},
	{"tracepoint", Tracepoint, "", 0, restTP},
	{"raw_tp", RawTracepoint, "", 0, restEvent},
	{"raw_tracepoint", RawTracepoint, "", 0, restEvent},
	{"raw_tp.w", RawTracepoint, "", flagWritable, restEvent},
	{"raw_tracepoint.w", RawTracepoint, "", flagWritable, restEvent},
	{"tp_btf", RawTracepoint, "", flagTyped, restEvent},
	{"fentry", Fentry, "", 0, restFunc},
	{"fentry.s", Fentry, "", flagSleepable, restFunc},
	{"fexit", Fexit, "", 0, restFunc},
	{"fexit.s", Fexit, "", flagSleepable, restFunc},
	{"fmod_ret", FmodRet, "", 0, restFunc},
	{"fmod_ret.s", FmodRet, "", flagSleepable, restFunc},
	{"freplace", Freplace, "", 0, restFunc},
	{"lsm", LSM, "", 0, restEvent},
	{"lsm.s", LSM, "", flagSleepable, restEvent},
	{"lsm_cgroup", LSMCgroup, "", 0, restEvent},
	{"iter", Iter, "", 0, restEvent},
	{"iter.s", Iter, "", flagSleepable, restEvent},
	{"struct_ops", StructOps, "", 0, restEvent},
	{"struct_ops.s", StructOps, "", flagSleepable, restEvent},
	{"perf_event", PerfEvent, "", 0, restNone},
	{"syscall", Syscall, "", 0, restNone},

	{"xdp", XDP, "", 0, restNone},
	{"xdp.frags", XDP, "", flagFrags, restNone},
	{"xdp/devmap", XDP, "devmap", 0, restNone},
	{"xdp.frags/devmap", XDP, "devmap", flagFrags, restNone},
	{"xdp/cpumap", XDP, "cpumap", 0, restNone},
	{"xdp.frags/cpumap", XDP, "cpumap", flagFrags, restNone},
	{"tc", TC, "", 0, restNone},
	{"classifier", TC, "", 0, restNone},
	{"tcx/ingress", TC, "ingress", 0, restNone},
	{"tcx/egress", TC, "egress", 0, restNone},
	{"tc/ingress", TC, "ingress", 0, restNone},
	{"tc/egress", TC, "egress", 0, restNone},
	{"action", TCAction, "", 0, restNone},
	{"netkit/primary", Netkit, "primary", 0, restNone},
	{"netkit/peer", Netkit, "peer", 0, restNone},
	{"socket", SocketFilter, "", 0, restNone},
	{"sk_reuseport", SocketReuseport, "", 0, restNone},
	{"sk_reuseport/migrate", SocketReuseport, "migrate", 0, restNone},
	{"sk_lookup", SKLookup, "", 0, restNone},
	{"sk_msg", SKMsg, "", 0, restNone},
	{"sk_skb", SKSkb, "", 0, restNone},
	{"sk_skb/stream_parser", SKSkb, "stream_parser", 0, restNone},
	{"sk_skb/stream_verdict", SKSkb, "stream_verdict", 0, restNone},
	{"sk_skb/verdict", SKSkb, "verdict", 0, restNone},
	{"sockops", SockOps, "", 0, restNone},
	{"flow_dissector", FlowDissector, "", 0, restNone},
	{"netfilter", Netfilter, "", 0, restNone},
	{"lwt_in", LWT, "in", 0, restNone},
	{"lwt_out", LWT, "out", 0, restNone},
	{"lwt_xmit", LWT, "xmit", 0, restNone},
	{"lwt_seg6local", LWT, "seg6local", 0, restNone},
	{"lirc_mode2", LircMode2, "", 0, restNone},
	{"cgroup_skb/ingress", Cgroup, "skb_ingress", 0, restNone},
	{"cgroup_skb/egress", Cgroup, "skb_egress", 0, restNone},
	{"cgroup/skb", Cgroup, "skb", 0, restNone},
	{"cgroup/sock", Cgroup, "sock_create", 0, restNone},
	{"cgroup/sock_create", Cgroup, "sock_create", 0, restNone},
	{"cgroup/sock_release", Cgroup, "sock_release", 0, restNone},
	{"cgroup/post_bind4", Cgroup, "post_bind4", 0, restNone},
	{"cgroup/post_bind6", Cgroup, "post_bind6", 0, restNone},
	{"cgroup/bind4", Cgroup, "bind4", 0, restNone},
	{"cgroup/bind6", Cgroup, "bind6", 0, restNone},
	{"cgroup/connect4", Cgroup, "connect4", 0, restNone},
	{"cgroup/connect6", Cgroup, "connect6", 0, restNone},
	{"cgroup/connect_unix", Cgroup, "connect_unix", 0, restNone},
	{"cgroup/sendmsg4", Cgroup, "sendmsg4", 0, restNone},
	{"cgroup/sendmsg6", Cgroup, "sendmsg6", 0, restNone},
	{"cgroup/sendmsg_unix", Cgroup, "sendmsg_unix", 0, restNone},
	{"cgroup/recvmsg4", Cgroup, "recvmsg4", 0, restNone},
	{"cgroup/recvmsg6", Cgroup, "recvmsg6", 0, restNone},
	{"cgroup/recvmsg_unix", Cgroup, "recvmsg_unix", 0, restNone},
	{"cgroup/getpeername4", Cgroup, "getpeername4", 0, restNone},
	{"cgroup/getpeername6", Cgroup, "getpeername6", 0, restNone},
	{"cgroup/getpeername_unix", Cgroup, "getpeername_unix", 0, restNone},
	{"cgroup/getsockname4", Cgroup, "getsockname4", 0, restNone},
	{"cgroup/getsockname6", Cgroup, "getsockname6", 0, restNone},
	{"cgroup/getsockname_unix", Cgroup, "getsockname_unix", 0, restNone},
	{"cgroup/sysctl", Cgroup, "sysctl", 0, restNone},
	{"cgroup/getsockopt", Cgroup, "getsockopt", 0, restNone},
	{"cgroup/setsockopt", Cgroup, "setsockopt", 0, restNone},
	{"cgroup/dev", Cgroup, "dev", 0, restNone},
}

func parseSection(name string) (Point, error) {
	p := &parser{text: name, ranges: make(map[string][2]int)}
	pt, err := p.parseSection()
	if err != nil {
		return Point{}, err
	}
	return pt, nil
}

func (p *parser) parseSection() (Point, *Error) {
	name, lead := p.text, 0
	pt := Point{Text: name}
	if strings.HasPrefix(name, "?") {
		pt.Manual, name, lead = true, name[1:], 1
	}
	var def *sectionDef
	for i := range sections {
		d := &sections[i]
		if (name == d.prefix || strings.HasPrefix(name, d.prefix+"/")) && (def == nil || len(d.prefix) > len(def.prefix)) {
			def = d
		}
	}
	if def == nil {
		head, _, _ := strings.Cut(name, "/")
		err := p.fail(FieldProvider, part{start: lead, end: lead + len(head)}, "unknown-section", "the section %q is of no kind of program that is known", name)
		err.Nearest = source.Nearest(name, func(yield func(string) bool) {
			for _, d := range sections {
				if !yield(d.prefix) {
					return
				}
			}
		})
		return Point{}, err
	}
	p.note(FieldProvider, part{start: lead, end: lead + len(def.prefix)})
	pt.Kind, pt.Attach = def.kind, def.attach
	pt.Sleepable = def.flags&flagSleepable != 0
	pt.Multi = def.flags&flagMulti != 0
	pt.Frags = def.flags&flagFrags != 0
	pt.Typed = def.flags&flagTyped != 0
	pt.Writable = def.flags&flagWritable != 0
	if len(name) <= len(def.prefix)+1 || def.rest == restNone {
		return pt, nil // to be attached by hand, or a label that only tells sections apart
	}
	at := lead + len(def.prefix) + 1
	text := p.text[at:]
	piece := func(from, to int) part {
		return part{text: text[from:to], start: at + from, end: at + to}
	}
	all := piece(0, len(text))
	switch def.rest {
	case restEvent:
		return pt, p.name(FieldEvent, all, &pt.Event)
	case restTP:
		p.usage = "tp/subsystem/event"
		i := strings.IndexAny(text, "/:")
		if i < 0 {
			err := p.fail(FieldEvent, all, "missing-field", "the section %q names no event", name)
			err.Hint = "it is written " + p.usage
			return Point{}, err
		}
		if err := p.name(FieldSubsystem, piece(0, i), &pt.Subsystem); err != nil {
			return Point{}, err
		}
		return pt, p.name(FieldEvent, piece(i+1, len(text)), &pt.Event)
	case restFunc:
		p.usage = def.prefix + "/function"
		if i := strings.IndexByte(text, ':'); i >= 0 {
			if err := p.name(FieldModule, piece(0, i), &pt.Module); err != nil {
				return Point{}, err
			}
			all = piece(i+1, len(text))
		}
		return pt, p.sectionFunc(&pt, all)
	case restUser:
		p.usage = def.prefix + "/path:function"
		i := strings.LastIndexByte(text, ':')
		if i < 0 {
			err := p.fail(FieldFunc, all, "missing-field", "the section %q names no function", name)
			err.Hint = "it is written " + p.usage
			return Point{}, err
		}
		if err := p.name(FieldPath, piece(0, i), &pt.Path); err != nil {
			return Point{}, err
		}
		return pt, p.sectionFunc(&pt, piece(i+1, len(text)))
	}
	p.usage = def.prefix + "/path:namespace:name"
	j := strings.LastIndexByte(text, ':')
	i := -1
	if j >= 0 {
		i = strings.LastIndexByte(text[:j], ':')
	}
	if i < 0 {
		err := p.fail(FieldEvent, all, "missing-field", "the section %q names no probe", name)
		err.Hint = "it is written " + p.usage
		return Point{}, err
	}
	if err := p.name(FieldPath, piece(0, i), &pt.Path); err != nil {
		return Point{}, err
	}
	if err := p.name(FieldNamespace, piece(i+1, j), &pt.Namespace); err != nil {
		return Point{}, err
	}
	return pt, p.name(FieldEvent, piece(j+1, len(text)), &pt.Event)
}

// sectionFunc reads "name", "name+offset" or, of user binaries, an address.
func (p *parser) sectionFunc(pt *Point, a part) *Error {
	offsets := pt.Kind == Kprobe || pt.Kind == Uprobe
	return p.function(pt, a, offsets)
}

func (p Point) section() (name string, ok bool) {
	want := flags(0)
	for flag, set := range map[flags]bool{
		flagSleepable: p.Sleepable, flagMulti: p.Multi, flagFrags: p.Frags, flagTyped: p.Typed, flagWritable: p.Writable,
	} {
		if set {
			want |= flag
		}
	}
	kind := p.Kind
	switch kind {
	case Begin, End, Self, Test, Bench, Invalid:
		return "", false
	case Profile, Interval, Software, Hardware, Watchpoint, AsyncWatchpoint:
		kind = PerfEvent
	}
	var def *sectionDef
	for i := range sections {
		if d := &sections[i]; d.kind == kind && d.flags == want && d.attach == p.Attach {
			def = d
			break
		}
	}
	if def == nil {
		return "", false
	}
	name = def.prefix
	if p.Manual {
		name = "?" + name
	}
	rest := p.sectionRest(def)
	if rest != "" {
		name += "/" + rest
	}
	return name, true
}

// sectionRest is what follows the slash, or "" where libbpf would not
// understand it or attach to something else.
func (p Point) sectionRest(def *sectionDef) string {
	function := p.Func
	if p.Offset != 0 {
		function += "+" + strconv.FormatUint(p.Offset, 10)
	}
	wild := p.HasWildcard()
	switch def.rest {
	case restEvent:
		if p.Event == "" || wild || p.Kind == RawTracepoint && p.Module != "" {
			return ""
		}
		return p.Event
	case restTP:
		if p.Event == "" || wild {
			return ""
		}
		return p.Subsystem + "/" + p.Event
	case restFunc:
		if p.Func == "" || p.HasAddress || p.BPF || wild && !p.Multi {
			return ""
		}
		if p.Module != "" {
			// libbpf takes a module of fentry and its kin alone.
			if p.Kind == Kprobe || p.Kind == Kretprobe || p.Kind == KprobeSession {
				return ""
			}
			return p.Module + ":" + function
		}
		return function
	case restUser:
		if p.Func == "" || p.HasAddress || p.Demangled || wild && (!p.Multi || isWild(p.Path)) {
			return ""
		}
		return p.Path + ":" + function
	case restUSDT:
		if p.Namespace == "" || wild {
			return ""
		}
		return fmt.Sprintf("%s:%s:%s", p.Path, p.Namespace, p.Event)
	}
	return ""
}
