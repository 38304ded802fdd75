package skep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/target"
)

// Health says how a check of [Doctor] came out.
type Health string

// The ways a check comes out.
const (
	Works   Health = "works"   // as it should
	Missing Health = "missing" // does not work here
	Unknown Health = "unknown" // could not be found out
	Note    Health = "note"    // works, and is worth knowing
)

// A Check is one line of the report of [Doctor].
type Check struct {
	Group  string `json:"group"` // "machine", "privileges", "hooks", "features", "hardening"
	Name   string `json:"name"`
	Health Health `json:"health"`
	// Detail says what was found, or why it does not work; Remedy what to do.
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// hookFeatures are the features that are kinds of hooks; Doctor shows them
// apart.
var hookFeatures = map[target.FeatureName]bool{
	target.FeatureKprobe: true, target.FeatureKprobeMulti: true, target.FeatureKprobeSession: true,
	target.FeatureUprobe: true, target.FeatureUprobeMulti: true, target.FeatureUprobeSession: true,
	target.FeatureUSDTSemaphore: true, target.FeatureTracepoint: true, target.FeatureRawTracepoint: true,
	target.FeatureTypedRawTP: true, target.FeatureFentry: true, target.FeatureLSM: true, target.FeatureIter: true,
}

// instead tells by what hooks that are refused can often be replaced.
var instead = map[target.FeatureName]string{
	target.FeatureFentry: "tracepoints, raw tracepoints and kprobes show much of the same",
	target.FeatureLSM:    "tracepoints and raw tracepoints can look on, if not forbid",
}

// Doctor finds out what works on this machine, what does not and why. Nothing
// stays changed. The probing of features needs privileges: without them
// answers are guesses from the kernel's release, and said to be.
func Doctor() []Check {
	var list []Check
	add := func(group, name string, h Health, detail, remedy string) {
		list = append(list, Check{group, name, h, detail, remedy})
	}
	if runtime.GOOS != "linux" {
		add("machine", "kernel", Missing, "this is "+runtime.GOOS, "scripts compile here for a snapshot (--target), but run only on Linux")
		return list
	}
	t, err := kernel.Target()
	if err != nil {
		add("machine", "kernel", Unknown, err.Error(), "")
		return list
	}
	if t.Release().AtLeast(6, 1) {
		add("machine", "kernel", Works, t.Release().Text+" on "+t.Arch(), "")
	} else {
		add("machine", "kernel", Note, t.Release().Text+" is older than 6.1, the oldest that skep is tested on", "")
	}
	if _, err := t.Types(); err != nil {
		add("machine", "types (BTF)", Missing, err.Error(), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; without it kernel structs, fentry and typed raw tracepoints cannot be used")
	} else {
		add("machine", "types (BTF)", Works, "", "")
	}
	if fs, err := kernel.OpenTraceFS(); err != nil {
		add("machine", "tracefs", Missing, err.Error(), "mount -t tracefs tracefs /sys/kernel/tracing")
	} else if !fs.Mounted() {
		add("machine", "tracefs", Works, "not mounted; skep uses a private mount of its own", "")
	} else {
		add("machine", "tracefs", Works, "", "")
	}
	if kernel.BPFFS() {
		add("machine", "bpffs", Works, "", "")
	} else {
		add("machine", "bpffs", Missing, "no bpffs at /sys/fs/bpf, so --pin has no usual place", "mount -t bpf bpf /sys/fs/bpf")
	}
	privileges(add)
	for info := range target.Features() {
		if info.Name == target.FeatureBTF {
			continue // above
		}
		group := "features"
		if hookFeatures[info.Name] {
			group = "hooks"
		}
		f := t.Feature(info.Name)
		what, _, _ := strings.Cut(info.What, ": ")
		switch {
		case f.Known && f.Have:
			add(group, string(info.Name), Works, what, "")
		case f.Known:
			detail, remedy := f.Why, ""
			switch {
			case detail != "":
			case info.Since.IsZero() || t.Release().Compare(info.Since) < 0:
				detail = fmt.Sprintf("the kernel has no %s", strings.TrimPrefix(info.What, "the "))
			default:
				detail = fmt.Sprintf("the kernel has no %s, which its release could have: it was built without", strings.TrimPrefix(info.What, "the "))
			}
			switch {
			case !info.Since.IsZero() && t.Release().Compare(info.Since) < 0:
				remedy = "Linux " + info.Since.String() + " has it"
			case f.Why == "" && info.Config != "":
				remedy = "use a kernel built with " + info.Config + "=y"
			case f.Refused:
				remedy = "ask who runs this machine: lockdown, a security module, a container's seccomp filter or a host of virtual machines forbids it, and dmesg may tell which; " + instead[info.Name]
			}
			add(group, string(info.Name), Missing, detail, remedy)
		default:
			add(group, string(info.Name), Unknown, f.Why, "run skep doctor as root")
		}
	}
	for _, s := range kernel.Settings() {
		list = append(list, judge(s))
	}
	return list
}

func privileges(add func(group, name string, h Health, detail, remedy string)) {
	if kernel.InUserNamespace() {
		add("privileges", "user namespace", Note, "this process is in one, and its capabilities below do not count for the kernel as a whole",
			"run outside of it, or ask whoever runs it for a bpf file system that delegates (skep run --token)")
	}
	caps, ok := kernel.Capabilities()
	if !ok {
		add("privileges", "capabilities", Unknown, "/proc/self/status cannot be read", "mount proc")
		return
	}
	have := map[string]bool{}
	for _, c := range caps {
		have[c.Name] = c.Have
	}
	for _, c := range caps {
		switch {
		case c.Have:
			add("privileges", c.Name, Works, "", "")
		case have["CAP_SYS_ADMIN"]:
			add("privileges", c.Name, Works, "CAP_SYS_ADMIN stands in", "")
		default:
			add("privileges", c.Name, Missing, "it takes this "+c.What,
				"run as root, or give the binary capabilities: setcap "+setcap(c.Name)+"+ep skep")
		}
	}
}

// setcap lists what it takes for everything, and one capability more.
func setcap(name string) string {
	list := "cap_bpf,cap_perfmon"
	if name = strings.ToLower(name); !strings.Contains(list, name) {
		list += "," + name
	}
	return list
}

// judge says what the value of a setting means.
func judge(s kernel.Setting) Check {
	c := Check{Group: "hardening", Name: s.Name, Health: Note, Detail: s.Value}
	if s.Err != nil {
		c.Health, c.Detail = Unknown, "cannot be read"
		switch {
		case errors.Is(s.Err, fs.ErrNotExist) && strings.HasPrefix(s.Path, "/sys/kernel/security/") && !kernel.SecurityFS():
			c.Detail = "securityfs is not mounted, so it cannot be told"
			c.Remedy = "mount -t securityfs securityfs /sys/kernel/security"
		case errors.Is(s.Err, fs.ErrNotExist):
			c.Health, c.Detail = Note, "the kernel does not have it"
		case errors.Is(s.Err, fs.ErrPermission):
			c.Remedy = "run skep doctor as root"
		default:
			var path *os.PathError
			if errors.As(s.Err, &path) {
				c.Detail += ": " + path.Err.Error()
			}
		}
		return c
	}
	means, ok := meanings[s.Name][s.Value]
	switch {
	case ok:
		c.Health, c.Detail, c.Remedy = means.health, s.Value+": "+means.text, means.remedy
	case s.Name == "lockdown":
		for part := range strings.FieldsSeq(s.Value) {
			if mode, found := strings.CutPrefix(part, "["); found {
				mode = strings.TrimSuffix(mode, "]")
				m := meanings["lockdown"][mode]
				c.Health, c.Detail, c.Remedy = m.health, mode+": "+m.text, m.remedy
			}
		}
	case s.Name == "lsm":
		c.Detail = s.Value
		if !strings.Contains(","+s.Value+",", ",bpf,") {
			c.Detail += ": LSM programs load, but never run"
			c.Remedy = "add bpf to lsm= on the kernel's command line"
		}
	case strings.HasPrefix(s.Value, "Vulnerable"):
		c.Remedy = "without this mitigation unprivileged BPF should stay off"
	case strings.HasPrefix(s.Value, "Mitigation"), s.Value == "Not affected":
		c.Health = Works
	}
	return c
}

type meaning struct {
	health Health
	text   string
	remedy string
}

// meanings tell what values of settings mean (Documentation/admin-guide/sysctl).
var meanings = map[string]map[string]meaning{
	"bpf_jit_enable": {
		"0": {Note, "programs are interpreted, several times slower", "sysctl net.core.bpf_jit_enable=1"},
		"1": {Works, "programs are compiled", ""},
		"2": {Note, "programs are compiled, and each is written to the kernel's log", "sysctl net.core.bpf_jit_enable=1"},
	},
	"bpf_jit_harden": {
		"0": {Works, "no blinding of constants", ""},
		"1": {Works, "constants of unprivileged programs are blinded", ""},
		"2": {Note, "constants of all programs are blinded, which costs speed", ""},
	},
	"unprivileged_bpf_disabled": {
		"0": {Note, "anyone may load some kinds of programs", "sysctl kernel.unprivileged_bpf_disabled=2"},
		"1": {Works, "only the privileged may use BPF, until the next boot", ""},
		"2": {Works, "only the privileged may use BPF", ""},
	},
	"kptr_restrict": {
		"0": {Works, "kernel addresses are shown to those with CAP_SYSLOG", ""},
		"1": {Works, "kernel addresses are shown to those with CAP_SYSLOG", ""},
		"2": {Note, "kernel addresses are hidden from everyone, so kernel stacks and ksym have no names", "sysctl kernel.kptr_restrict=1"},
	},
	"perf_event_paranoid": {
		"-1": {Works, "everyone may count and sample everything", ""},
		"0":  {Works, "everyone may sample CPUs", ""},
		"1":  {Works, "everyone may sample the kernel", ""},
		"2":  {Works, "sampling the kernel takes CAP_PERFMON", ""},
		"3":  {Works, "any sampling takes CAP_PERFMON", ""},
		"4":  {Works, "any sampling takes CAP_PERFMON", ""},
	},
	"lockdown": {
		"none":            {Works, "off", ""},
		"integrity":       {Note, "programs cannot write to user memory", ""},
		"confidentiality": {Note, "programs cannot read kernel memory: tracing is refused", "boot with lockdown=integrity, or none"},
	},
}
