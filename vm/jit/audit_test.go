//go:build linux && (amd64 || arm64)

package jit

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/jit/internal/audit"
)

var stateLayout = audit.Layout{
	Size: engine.OffsetScratch + 16, FP: engine.OffsetRegs + 8*int(isa.R10), Base: engine.OffsetBase,
	SP: engine.OffsetSP, HostSP: engine.OffsetHostSP, Target: engine.OffsetTarget, FrameSize: engine.FrameSize,
}

func auditX86(out *output) error {
	return audit.AMD64(audit.Code{Text: out.code, Starts: out.starts, Entries: out.funcs, State: stateLayout})
}

func auditA64(out *output) error {
	return audit.ARM64(audit.Code{Text: out.code, Starts: out.starts, Entries: out.funcs, State: stateLayout})
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

var audits = map[string]func(*output) error{"amd64": auditX86, "arm64": auditA64}

// TestAudit audits the code of random programs for both machines.
func TestAudit(t *testing.T) {
	for name, generate := range generators {
		t.Run(name, func(t *testing.T) {
			check := audited(generate, audits[name])
			for n := range 1000 {
				g := &progGen{rand.New(rand.NewPCG(rand.Uint64(), 0))}
				o := options{Options: engine.Options{Blind: n%2 == 0, DirectTailCalls: n%8 < 4}, bmi2: n%4 < 2}
				if _, err := check(g.program(t), o, newKeys()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestAuditRefuses patches code so that it does what it must not: the auditor has
// to see each patch. What stands before it leaves what a register holds unknown.
func TestAuditRefuses(t *testing.T) {
	ret := map[string][]byte{"amd64": {0xc3}, "arm64": {0xc0, 0x03, 0x5f, 0xd6}}
	for name, patches := range map[string]map[string]string{
		"amd64": {
			"syscall":                        "0f05",
			"int 0x80":                       "cd80",
			"hlt":                            "f4",
			"rdmsr":                          "0f32",
			"indirect jump":                  "ffe0",
			"jump to any register":           "41ffe3", // jmp r11
			"indirect call":                  "ffd0",
			"jump into an instruction":       "eb01b800000000",
			"jump far outside":               "e900000070",
			"unconfined load":                "498b040c",             // mov rax, [r12+rcx]
			"unconfined store":               "4989040c",             // mov [r12+rcx], rax
			"confined, but offset too large": "89c8498b840400000100", // mov eax, ecx; mov rax, [r12+rax+0x10000]
			"host memory":                    "488b01",               // mov rax, [rcx]
			"the State beyond its fields":    "498b8200100000",       // mov rax, [r10+0x1000]
			"below the State":                "498b42f8",             // mov rax, [r10-8]
			"the stack below its top":        "488b4424f8",           // mov rax, [rsp-8]
			"data in the code":               "488b0500000000",       // mov rax, [rip]
			"writes the cage's base":         "4989c4",               // mov r12, rax
			"writes the State's address":     "4989c2",               // mov r10, rax
			"writes the stack pointer":       "4889c4",               // mov rsp, rax
			"writes the frame pointer":       "4889c5",               // mov rbp, rax
			"unlocked add to memory":         "4d010424",             // add [r12], r8
			"return with words left":         "50c3",                 // push rax; ret
			"trap":                           "cc",
			"gs segment":                     "65488b042500000000",
		},
		"arm64": {
			"svc":                         "010000d4",
			"hlt":                         "000040d4",
			"mrs":                         "004238d5",
			"indirect jump":               "40001fd6", // br x2
			"indirect call":               "40003fd6", // blr x2
			"branch far outside":          "00000010" + "ffffff15",
			"host memory":                 "400040f9", // ldr x0, [x2]
			"unconfined":                  "006b62f8", // ldr x0, [x24, x2]
			"the State beyond its fields": "200350f9", // ldr x0, [x25, #8192]
			"writes the goroutine":        "fc0302aa", // mov x28, x2
			"writes the cage's base":      "f80302aa", // mov x24, x2
			"writes the platform's x18":   "f20302aa", // mov x18, x2
			"moves the frame pointer":     "f70302aa", // mov x23, x2
			"unconfined exclusive":        "40fc5f88", // ldaxr w0, [x2]
			"return with words left":      "e08d1ff8" + "c0035fd6",
			"returns to what bl left":     "01000094" + "c0035fd6",
			"stack pointer":               "e00340f9", // ldr x0, [sp]
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := program(t, isa.Exit())
			out, err := generators[name](p, options{}, newKeys())
			if err != nil {
				t.Fatal(err)
			}
			if err := audits[name](out); err != nil {
				t.Fatalf("untouched: %v", err)
			}
			for what, text := range patches {
				patch, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				bad := *out
				at := len(out.code)
				bad.code = slices.Concat(out.code, patch, ret[name])
				bad.starts = append([]int{at}, out.starts...)
				if err := audits[name](&bad); err == nil {
					t.Errorf("%s: % x passes", what, patch)
				} else {
					t.Logf("%s: %v", what, err)
				}
			}
		})
	}
}
