package rootless

import (
	"fmt"
	"sync"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/target"
)

// Target is what scripts are compiled for that run without privileges on the
// machine base: its types and files, and the events that there are without
// privilege. Their formats are those of this package, so that no file of tracefs
// is read.
func Target(base target.Target) (target.Target, error) {
	arch, ok := abi.ParseArch(base.Arch())
	if !ok {
		return nil, fmt.Errorf("the system calls of %s are not known", base.Arch())
	}
	return &userTarget{Target: base, arch: arch, events: sync.OnceValue(func() []target.Event { return events(arch) })}, nil
}

type userTarget struct {
	target.Target
	arch   abi.Arch
	events func() []target.Event
	parsed sync.Map // target.Event to *target.Format
}

func (t *userTarget) Events() ([]target.Event, error) { return t.events(), nil }

func (t *userTarget) Format(subsystem, event string) (*target.Format, error) {
	key := target.Event{Subsystem: subsystem, Name: event}
	if f, ok := t.parsed.Load(key); ok {
		return f.(*target.Format), nil
	}
	text, ok := formatText(t.arch, key)
	if !ok {
		return nil, unavailable("tracepoint:" + key.String())
	}
	f, err := target.ParseFormat(subsystem, []byte(text))
	if err != nil {
		return nil, err
	}
	t.parsed.Store(key, f)
	return f, nil
}

// unavailable says that a hook takes the kernel.
func unavailable(hook string) error {
	return target.Unknownf("%s takes the kernel: run with --engine kernel as root, or with CAP_BPF and CAP_PERFMON", hook)
}

func (t *userTarget) RawTracepoint(name string) (*target.RawTracepoint, error) {
	return nil, unavailable("rawtracepoint:" + name)
}

func (t *userTarget) Iterators() ([]string, error) { return nil, nil }

// engineFeatures are those that the embedded engine has; it lacks all others.
var engineFeatures = map[target.FeatureName]bool{
	target.FeatureBTF: true, target.FeatureTracepoint: true,
	target.FeatureRingBuf: true, target.FeatureLoop: true, target.FeatureForEachMapElem: true,
	target.FeatureProbeReadKernel: true, target.FeatureKtimeBoot: true, target.FeatureKtimeTAI: true,
	target.FeatureSnprintf: true, target.FeatureStrncmp: true,
	target.FeatureLargePrograms: true, target.FeatureBoundedLoops: true, target.FeatureAtomics: true,
	target.FeatureV3ISA: true, target.FeatureV4ISA: true,
	// Processes are numbered as skep sees them, whatever namespace that is.
	target.FeatureInitialPIDNS: true,
}

func (t *userTarget) Feature(name target.FeatureName) target.Feature {
	f := target.Feature{Name: name, Known: true, Have: engineFeatures[name]}
	if name == target.FeatureBTF {
		return t.Target.Feature(name)
	}
	if !f.Have {
		f.Why = "this is the embedded engine; --engine kernel runs scripts in the kernel, which takes CAP_BPF and CAP_PERFMON"
	}
	return f
}

// Unwrap returns the machine's own target.
func (t *userTarget) Unwrap() target.Target { return t.Target }

func (t *userTarget) String() string { return fmt.Sprintf("%s, without privileges", t.Name()) }
