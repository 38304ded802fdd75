//go:build linux && (amd64 || arm64)

package jit

import (
	"encoding/hex"
	"fmt"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/jit/internal/audit"
)

var stateLayout = audit.Layout{
	Size: engine.OffsetScratch + 16, FP: engine.OffsetRegs + 8*int(isa.R10), Base: engine.OffsetBase,
	SP: engine.OffsetSP, HostSP: engine.OffsetHostSP, FrameSize: engine.FrameSize,
}

func auditX86(out *output) error {
	return audit.AMD64(audit.Code{Text: out.code, Entries: append(out.starts, out.funcs...), State: stateLayout})
}

// audited returns a generator whose code is audited before anything runs.
func audited(generate generator, check func(*output) error) generator {
	return func(p *engine.Program, o options, k *keys) (*output, error) {
		out, err := generate(p, o, k)
		if err == nil {
			if err := check(out); err != nil {
				return nil, fmt.Errorf("audit: %w\n%s\n%s", err, listing(p), hex.EncodeToString(out.code))
			}
		}
		return out, err
	}
}

var generators = map[string]generator{"amd64": x86Generate, "arm64": a64Generate}
