package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/vm"
)

// execFlags are the flags of "skep exec".
type execFlags struct {
	program       string
	packet        string
	pcap, write   string
	context       string
	repeat        int
	raw, mem, asm string
	cpus          int
	memory        int64
	interpret     bool
	verify        bool
}

func (a *app) execCommand() *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] {OBJECT | --raw HEX | --asm FILE}",
		Short: "run a program of an object in the embedded engine",
		Long: `Exec runs a program of any BPF object inside skep: no kernel and no privilege is
needed. It prints what the program returned, the packet and the context as the
program left them, its events, and the maps.

The input is a packet (--packet), each packet of a capture (--pcap), or a context
(--context), which also goes along with packets. A context is JSON: an object with
the fields of the program type's context (those of struct __sk_buff or xdp_md, for
example) or of the structure that the program's parameter points to; an array of
numbers, which are the arguments of a tracepoint or a function; or a string of
bytes in hex.

--raw and --asm run code that belongs to no program type, over the bytes of --mem
(r1 is their address and r2 their number), and print r0 in hex.

Programs are not verified unless --verify asks for it: whatever they do, they
cannot leave the memory that is theirs.

With --json, the object that is printed has at least "program", "retval", "runs",
"ns_per_run" and "engine" (jit or interp).`,
		Example: `  skep exec filter.o --packet 'ffffffffffff0200000000010806' --program arp
  skep exec filter.o --pcap trace.pcap --write out.pcap
  skep exec mark.o --packet @arp.hex --context '{"mark": 7, "cb": [1, 2]}'
  skep exec tp.o --context '[1, 2, 3]' --repeat 1000 --json
  skep exec --raw b700000005000000 9500000000000000
  skep exec --asm add.s --mem 01020304`,
		ValidArgsFunction: completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			switch {
			case e.raw != "" || e.asm != "":
				return a.execRaw(ctx, &e, args)
			case len(args) != 1:
				return usagef("give one object file")
			}
			return a.execObject(ctx, &e, args[0])
		},
	}
	f := cmd.Flags()
	e.inputFlags(cmd)
	f.StringVar(&e.pcap, "pcap", "", "a `FILE` of captured packets, one run for each")
	f.StringVar(&e.write, "write", "", "write the packets as the program left them to the pcap `FILE`")
	f.IntVarP(&e.repeat, "repeat", "n", 1, "run `N` times, and say how long one run took")
	f.StringVar(&e.raw, "raw", "", "run bytecode in `HEX`")
	f.StringVar(&e.mem, "mem", "", "memory for --raw and --asm, in `HEX`")
	f.StringVar(&e.asm, "asm", "", "run the assembly text in `FILE`, as the kernel's log has it")
	f.IntVar(&e.cpus, "cpus", 0, "number of virtual processors; 0 is those of the machine")
	f.Int64Var(&e.memory, "memory", 0, "memory limit in `BYTES`; 0 is 64 MiB")
	f.BoolVar(&e.verify, "verify", false, "refuse an object whose programs the kernel's verifier would not accept")
	f.BoolVar(&e.interpret, "interpret", false, "do not compile to native code")
	cmd.MarkFlagsMutuallyExclusive("raw", "asm", "packet")
	cmd.MarkFlagsMutuallyExclusive("packet", "pcap")
	cmd.MarkFlagsMutuallyExclusive("verify", "raw", "asm")
	_ = cmd.RegisterFlagCompletionFunc("program", completePrograms)
	return cmd
}

func (a *app) execRaw(ctx context.Context, e *execFlags, args []string) error {
	var insns []isa.Instruction
	switch {
	case e.asm != "":
		if len(args) > 0 {
			return usagef("--asm takes no object")
		}
		text, err := os.ReadFile(e.asm)
		if e.asm == "-" {
			text, err = io.ReadAll(a.stdin)
		}
		if err != nil {
			return err
		}
		parser := isa.Parser{Helper: func(name string) (int32, bool) {
			h := abi.HelperByName(name)
			if h == nil {
				return 0, false
			}
			return h.ID, true
		}}
		if insns, err = parser.Parse(string(text)); err != nil {
			return &source.Diagnostic{Code: "assembly", Message: fmt.Sprintf("%s: %v", e.asm, err)}
		}
	default:
		text := e.raw + strings.Join(args, "") // a shell may have split it
		if e.raw == "-" {
			all, err := io.ReadAll(a.stdin)
			if err != nil {
				return err
			}
			text = string(all)
		}
		code, err := unhex("--raw", text)
		if err != nil {
			return err
		}
		if insns, err = isa.Decode(code, nativeOrder()); err != nil {
			return &source.Diagnostic{Code: "bytecode", Message: err.Error()}
		}
	}
	mem, err := unhex("--mem", e.mem)
	if err != nil {
		return err
	}
	engine, err := e.vm(a)
	if err != nil {
		return err
	}
	defer engine.Close()
	p, err := engine.NewProgramFromCode(vm.Code{Name: "raw", Insns: insns}, nil)
	if err != nil {
		return &source.Diagnostic{Code: "bytecode", Message: err.Error()}
	}
	res, err := p.RunContext(ctx, &vm.RunOptions{Context: mem, Repeat: uint32(e.repeat)})
	if err != nil {
		return &source.Diagnostic{Code: "run", Message: err.Error()}
	}
	if a.json {
		return a.printJSON(struct {
			execResult
			R0 string `json:"r0"`
		}{newExecResult("raw", engine, res), fmt.Sprintf("%x", res.R0)})
	}
	_, err = fmt.Fprintf(a.stdout, "%x\n", res.R0)
	return err
}

func (e *execFlags) vm(a *app) (*vm.VM, error) {
	if e.repeat < 1 || e.repeat > math.MaxInt32 {
		return nil, usagef("--repeat is at least 1")
	}
	v, err := vm.New(vm.Options{CPUs: e.cpus, MemoryLimit: e.memory, Interpret: e.interpret, Host: vm.Host{
		Print: func(text string) { fmt.Fprint(a.stderr, text) },
	}})
	if err != nil {
		return nil, &source.Diagnostic{Code: "engine", Message: err.Error()}
	}
	return v, nil
}

// An execResult is what "skep exec --json" says of a program.
type execResult struct {
	Type     string  `json:"type"`
	Program  string  `json:"program"`
	Retval   uint32  `json:"retval"`
	Runs     int     `json:"runs"`
	NsPerRun float64 `json:"ns_per_run"`
	Engine   string  `json:"engine"`

	Packet   string         `json:"packet,omitempty"`
	Context  any            `json:"context,omitempty"`
	Redirect *execRedirect  `json:"redirect,omitempty"`
	Retvals  map[string]int `json:"retvals,omitempty"` // of a capture: how often
	Maps     map[string]any `json:"maps,omitempty"`
	Events   []execEvent    `json:"events,omitempty"`
}

type execRedirect struct {
	Kind    string `json:"kind"`
	Ifindex uint32 `json:"ifindex,omitempty"`
	Map     string `json:"map,omitempty"`
	Key     uint32 `json:"key"`
}

func newExecResult(program string, v *vm.VM, res vm.Result) execResult {
	return execResult{
		Type: "exec", Program: program, Retval: res.Return, Runs: res.Runs,
		NsPerRun: float64(res.Duration) / float64(time.Nanosecond), Engine: v.EngineName(),
	}
}

func (a *app) execObject(ctx context.Context, e *execFlags, name string) error {
	name, data, err := a.readFile(name)
	if err != nil {
		return err
	}
	spec, err := object.ReadSpec(data)
	if err != nil {
		return &source.Diagnostic{Code: "load", Message: fmt.Sprintf("%s: %v", name, err)}
	}
	v, err := e.vm(a)
	if err != nil {
		return err
	}
	defer v.Close()
	c, err := skep.NewCollectionWithOptions(spec, skep.CollectionOptions{Engine: v, Trusted: !e.verify})
	var rejected *skep.RejectedError
	if errors.As(err, &rejected) {
		return err
	}
	if err != nil {
		return &source.Diagnostic{Code: "load", Message: fmt.Sprintf("%s: %v", name, err)}
	}
	p, err := e.choose(c)
	if err != nil {
		return err
	}
	events, err := readEvents(c)
	if err != nil {
		return err
	}
	defer events.close()
	opts, err := a.input(e, spec, p)
	if err != nil {
		return err
	}
	opts.Repeat = uint32(e.repeat)
	var out execResult
	if e.pcap != "" {
		out, err = e.runCapture(ctx, v, p, opts)
	} else {
		var res vm.Result
		if res, err = p.RunContext(ctx, &opts); err == nil {
			out = newExecResult(p.Name(), v, res)
			out.Packet = hex.EncodeToString(res.Data)
			if e.context != "" || len(res.Data) == 0 {
				out.Context = contextOf(spec, p).decode(res.Context)
			}
			if r := res.Redirect; r.Kind != "" {
				out.Redirect = &execRedirect{Kind: r.Kind, Ifindex: r.Ifindex, Key: r.Key}
				if r.Map != nil {
					out.Redirect.Map = r.Map.Name()
				}
			}
			if e.write != "" {
				err = writePcap(e.write, []capturedPacket{{data: res.Data}})
			}
		}
	}
	if err != nil {
		return &source.Diagnostic{Code: "run", Message: err.Error()}
	}
	out.Events = events.all()
	out.Maps = showMaps(c)
	if a.json {
		return a.printJSON(out)
	}
	return a.printExec(&out, c)
}

func (e *execFlags) choose(c *skep.Collection) (*vm.Program, error) {
	names := slices.Sorted(maps.Keys(c.Programs))
	switch p := c.Programs[e.program]; {
	case p != nil:
		return p, nil
	case e.program != "":
		return nil, unknown("program", e.program, slices.Values(names), "the object has "+strings.Join(names, ", "))
	case len(names) == 0:
		return nil, &source.Diagnostic{Code: "load", Message: "the object has no programs"}
	case len(names) > 1:
		return nil, usagef("the object has several programs: choose one with --program: %s", strings.Join(names, ", "))
	}
	return c.Programs[names[0]], nil
}

// runCapture runs a program over each packet of a capture.
func (e *execFlags) runCapture(ctx context.Context, v *vm.VM, p *vm.Program, opts vm.RunOptions) (execResult, error) {
	packets, err := readPcap(e.pcap)
	if err != nil {
		return execResult{}, err
	}
	out := newExecResult(p.Name(), v, vm.Result{})
	out.Retvals = map[string]int{}
	var total time.Duration
	for i := range packets {
		opts.Data = packets[i].data
		res, err := p.RunContext(ctx, &opts)
		if err != nil {
			return out, fmt.Errorf("packet %d: %w", i+1, err)
		}
		packets[i].data = res.Data
		out.Retval = res.Return
		out.Retvals[strconv.FormatUint(uint64(res.Return), 10)]++
		out.Runs += res.Runs
		total += res.Duration * time.Duration(res.Runs)
	}
	if out.Runs > 0 {
		out.NsPerRun = float64(total) / float64(out.Runs)
	}
	if e.write != "" {
		err = writePcap(e.write, packets)
	}
	return out, err
}
