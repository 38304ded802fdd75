package skep

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/verifier"
)

// VerifyOptions say whose rules [Verify] applies.
type VerifyOptions struct {
	// Program is the one to verify; empty is all of the object.
	Program string
	// Kernel is the release: 6.1, 6.12 or 6.18, which 0 stands for.
	Kernel abi.Version
	Caps   verifier.Caps
	// Types is the kernel's BTF; nil where the object should need none.
	Types *btf.Spec
}

// A Verified is what [Verify] says of one program.
type Verified struct {
	Program *verifier.Program
	*verifier.Result
	Time time.Duration
}

// Verify says of the programs of an object what the kernel would say, without
// loading them.
func Verify(o *Object, opts VerifyOptions) ([]Verified, error) {
	programs, err := verifier.Programs(o.Object, opts.Types)
	if err != nil {
		return nil, err
	}
	var out []Verified
	for _, p := range programs {
		if opts.Program != "" && p.Name != opts.Program {
			continue
		}
		start := time.Now()
		r := verifier.Verify(p, verifier.Config{Kernel: opts.Kernel, Caps: opts.Caps, Types: opts.Types})
		out = append(out, Verified{Program: p, Result: r, Time: time.Since(start)})
	}
	if opts.Program != "" && len(out) == 0 {
		return nil, fmt.Errorf("the object has no program %q", opts.Program)
	}
	return out, nil
}
