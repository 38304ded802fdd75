//go:build amd64 || arm64

package rootless

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// specOf reads an object for the engine, with what a run changes in it.
func specOf(elf []byte, o machine.LoadOptions) (*ebpf.CollectionSpec, error) {
	spec, err := object.ReadSpec(elf)
	if err != nil {
		return nil, err
	}
	for _, name := range o.Skip {
		delete(spec.Programs, name)
	}
	for name, value := range o.Vars {
		v := spec.Variables[name]
		if v == nil {
			continue
		}
		if len(value) != int(v.Size()) {
			return nil, fmt.Errorf("variable %s has %d bytes, not %d", name, v.Size(), len(value))
		}
		if err := v.Set(value); err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
	}
	for name, m := range o.Maps {
		switch s := spec.Maps[name]; {
		case m.Pinned != "":
			return nil, fmt.Errorf("map %s is to be the one pinned at %s, and pins are the kernel's: they take --engine kernel", name, m.Pinned)
		case s != nil && m.MaxEntries != 0:
			s.MaxEntries = m.MaxEntries
		}
	}
	return spec, nil
}

// kernelHelpers read what only the kernel has, or act on it.
var kernelHelpers = map[string]string{
	"bpf_get_current_task":     "reads the kernel's structure of the task",
	"bpf_get_current_task_btf": "reads the kernel's structure of the task",
	"bpf_probe_write_user":     "writes into programs",
	"bpf_get_func_ip":          "asks where it is attached",
}

// refuse says what in an object takes the kernel, beside its hooks.
func refuse(o *object.Object, skip []string) error {
	for _, f := range o.Funcs {
		if slices.Contains(skip, f.Name) {
			continue
		}
		for _, r := range f.Relocs {
			if x, ok := r.Symbol.(*object.Extern); ok && x.Kind != object.ExternKconfig {
				return fmt.Errorf("%s uses %s of the kernel, which takes --engine kernel, with CAP_BPF and CAP_PERFMON", f.Name, x.Name)
			}
		}
		for _, in := range f.Insns {
			if !in.IsCall() || in.Src != isa.CallHelper {
				continue
			}
			h := abi.HelperByID(int32(in.Imm))
			if h == nil {
				continue
			}
			if why := kernelHelpers[h.Name]; why != "" {
				return fmt.Errorf("%s %s (%s), which takes --engine kernel, with CAP_BPF and CAP_PERFMON", where(o, f), why, h.Name)
			}
			if h.Name == "bpf_get_numa_node_id" && severalNodes() {
				return fmt.Errorf("%s asks for the memory node of the processor, which takes --engine kernel", where(o, f))
			}
		}
	}
	if m := o.Manifest; m != nil && m.Shows(object.TypeKstack) {
		return fmt.Errorf("stacks of the kernel take --engine kernel, with CAP_BPF and CAP_PERFMON: use ustack here")
	}
	return nil
}

// where names a program by its probe.
func where(o *object.Object, f *object.Func) string {
	if o.Manifest != nil {
		for i := range o.Manifest.Programs {
			p := &o.Manifest.Programs[i]
			if p.Name == f.Name && len(p.Probes) > 0 && p.Probes[0] >= 0 && p.Probes[0] < len(o.Manifest.Probes) {
				return o.Manifest.Probes[p.Probes[0]].Name
			}
		}
	}
	return "program " + f.Name
}

// severalNodes reports whether the machine may have more than one memory node.
func severalNodes() bool {
	text, err := os.ReadFile("/sys/devices/system/node/online")
	return err == nil && strings.TrimSpace(string(text)) != "0"
}
