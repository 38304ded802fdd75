package skep

import (
	"fmt"
	"sync"

	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/rootless"
	"github.com/skep-bpf/skep/target"
)

// An EngineName says what runs objects.
type EngineName string

// The engines.
const (
	// EngineKernel is the Linux kernel.
	EngineKernel EngineName = "kernel"
	// EngineUser is the engine inside skep, over the events of one command or
	// one process, which takes no privilege.
	EngineUser EngineName = "user"
	// EngineAuto is the kernel where this process may use it, else EngineUser.
	EngineAuto EngineName = "auto"
)

// Choose decides what EngineAuto is here; "" is EngineKernel. why says in words
// why it is not the kernel, "" where it is or where the engine was named.
func (e EngineName) Choose() (chosen EngineName, why string, err error) {
	switch e {
	case "", EngineKernel:
		return EngineKernel, "", nil
	case EngineUser:
		return EngineUser, "", nil
	case EngineAuto:
		if err := kernel.MayTrace(); err != nil {
			return EngineUser, err.Error(), nil
		}
		return EngineKernel, "", nil
	}
	return "", "", fmt.Errorf("there is no engine %q: it is auto, kernel or user", e)
}

// UserTarget returns what scripts are compiled for that run by EngineUser on the
// machine of this process.
func UserTarget() (target.Target, error) { return userTarget() }

var userTarget = sync.OnceValues(func() (target.Target, error) {
	base, err := kernel.Target()
	if err != nil {
		return nil, err
	}
	return rootless.Target(base)
})

// machineFor returns the machine of an engine that was chosen, and what objects
// have to fit to run on it.
func machineFor(e EngineName, o rootless.Options) (machine.Machine, target.Target, error) {
	if e == EngineUser {
		t, err := userTarget()
		if err != nil {
			return nil, nil, err
		}
		m, err := rootless.New(o)
		return m, t, err
	}
	t, err := kernel.Target()
	return kernel.New(), t, err
}
