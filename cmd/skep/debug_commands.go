package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/vm"
)

// A debugCmd is a command of the debugger.
type debugCmd struct {
	names  []string // the first one is shown
	args   string
	help   string
	stops  bool // it takes a program that is stopped
	repeat bool // an empty line does it again
	// run does it; resume lets the program go on.
	run func(d *debugger, args []string) (resume bool, err error)
}

var debugCmds []debugCmd

func init() {
	debugCmds = []debugCmd{
		{names: []string{"step", "s"}, args: "[N]", help: "go on to the next source line, into functions", stops: true, repeat: true, run: stepLine(true)},
		{names: []string{"next", "n"}, args: "[N]", help: "go on to the next source line of this function", stops: true, repeat: true, run: stepLine(false)},
		{names: []string{"stepi", "si"}, args: "[N]", help: "do one instruction", stops: true, repeat: true, run: stepInsn(true)},
		{names: []string{"nexti", "ni"}, args: "[N]", help: "do one instruction, and functions that it calls as a whole", stops: true, repeat: true, run: stepInsn(false)},
		{names: []string{"finish"}, help: "go on until this function returns", stops: true, run: finish},
		{names: []string{"continue", "c"}, help: "go on to the next breakpoint, or to the end", stops: true, repeat: true, run: func(d *debugger, _ []string) (bool, error) {
			d.until = nil
			return true, nil
		}},
		{names: []string{"run"}, help: "begin again; maps stay as they are", run: func(d *debugger, _ []string) (bool, error) {
			if d.at != nil {
				return false, fmt.Errorf("the program runs: continue or finish it first")
			}
			return true, nil
		}},
		{names: []string{"break", "b"}, args: "FILE:LINE | LINE | FUNCTION | *INSN", help: "stop there", run: setBreak},
		{names: []string{"delete"}, args: "[N]", help: "remove a breakpoint, or all", run: deleteBreak},
		{names: []string{"breakpoints"}, help: "list breakpoints", run: listBreaks},
		{names: []string{"regs", "r"}, help: "registers, and what the verifier knows of them", stops: true, run: func(d *debugger, _ []string) (bool, error) {
			d.showRegs()
			return false, nil
		}},
		{names: []string{"stack"}, help: "the function's stack, and what the verifier knows of it", stops: true, run: func(d *debugger, _ []string) (bool, error) {
			d.showStack()
			return false, nil
		}},
		{names: []string{"backtrace", "bt"}, help: "the functions that wait for this one", stops: true, run: func(d *debugger, _ []string) (bool, error) {
			d.showFrames()
			return false, nil
		}},
		{names: []string{"print", "p"}, args: "rN | VARIABLE", help: "a register or a global variable", run: printValue},
		{names: []string{"x"}, args: "ADDRESS [N]", help: "N bytes of memory (64); an address is a number, or a register with an offset: r2+8", stops: true, run: printMemory},
		{names: []string{"packet"}, help: "the packet as it is now", stops: true, run: printPacket},
		{names: []string{"map"}, args: "[NAME]", help: "what is in a map; without a name, the maps", run: printMap},
		{names: []string{"set"}, args: "rN VALUE", help: "change a register", stops: true, run: setRegister},
		{names: []string{"list", "l"}, args: "[LINE]", help: "source lines around here", run: list},
		{names: []string{"disassemble", "dis"}, args: "[FUNCTION]", help: "instructions around here, or of a function", run: disassemble},
		{names: []string{"states"}, help: "all states that the verifier came here with", stops: true, run: func(d *debugger, _ []string) (bool, error) {
			d.showStates()
			return false, nil
		}},
		{names: []string{"help", "h"}, args: "[COMMAND]", help: "this list", run: debugHelp},
		{names: []string{"quit", "q"}, help: "leave; so does the end of input", run: func(d *debugger, _ []string) (bool, error) {
			d.quit = true
			return false, nil
		}},
	}
}

// prompt reads commands until one lets the program go on. It returns false to
// leave.
func (d *debugger) prompt() bool {
	for {
		if d.ask {
			d.printf("(skep) ")
		}
		if !d.in.Scan() {
			d.quit = true
			return false
		}
		line := strings.TrimSpace(d.in.Text())
		if line == "" {
			line = d.last
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		c, err := findDebugCmd(words[0])
		if err == nil && c.stops && d.at == nil {
			err = fmt.Errorf("the program does not run: \"run\" begins again")
		}
		resume := false
		if err == nil {
			d.last = ""
			if c.repeat {
				d.last = line
			}
			resume, err = c.run(d, words[1:])
		}
		if err != nil {
			d.printf("%v\n", err)
		}
		if d.quit {
			return false
		}
		if resume {
			return true
		}
	}
}

func findDebugCmd(name string) (*debugCmd, error) {
	var names []string
	var begins []*debugCmd
	for i := range debugCmds {
		c := &debugCmds[i]
		if slices.Contains(c.names, name) {
			return c, nil
		}
		names = append(names, c.names...)
		if strings.HasPrefix(c.names[0], name) {
			begins = append(begins, c)
		}
	}
	switch {
	case len(begins) == 1:
		return begins[0], nil
	case len(begins) > 1:
		var list []string
		for _, c := range begins {
			list = append(list, c.names[0])
		}
		return nil, fmt.Errorf("%s may be %s", name, strings.Join(list, " or "))
	}
	if near := source.Nearest(name, slices.Values(names)); near != "" {
		return nil, fmt.Errorf("there is no command %s: did you mean %s?", name, near)
	}
	return nil, fmt.Errorf("there is no command %s: help lists them", name)
}

func debugHelp(d *debugger, args []string) (bool, error) {
	if len(args) > 0 {
		c, err := findDebugCmd(args[0])
		if err != nil {
			return false, err
		}
		d.printf("%s: %s\n", strings.TrimSpace(strings.Join(c.names, ", ")+" "+c.args), c.help)
		return false, nil
	}
	d.printf("%s\n", debugCmdList())
	return false, nil
}

// count is the number of times in a command.
func count(args []string) (int, error) {
	if len(args) == 0 {
		return 1, nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s is no number of times", args[0])
	}
	return n, nil
}

// stepLine goes to where a line begins, n times.
func stepLine(into bool) func(*debugger, []string) (bool, error) {
	return func(d *debugger, args []string) (bool, error) {
		n, err := count(args)
		if err != nil {
			return false, err
		}
		from := d.place(d.at)
		last := from
		d.until = func(s *vm.Step) bool {
			now := d.place(s)
			back := now.insn <= last.insn && now.depth == last.depth
			last = now
			if now.depth > from.depth && !into {
				return false
			}
			if _, ok := now.line(); !ok {
				return false
			}
			if now.sameLine(from) && !back {
				return false
			}
			from = now
			n--
			return n == 0
		}
		return true, nil
	}
}

func stepInsn(into bool) func(*debugger, []string) (bool, error) {
	return func(d *debugger, args []string) (bool, error) {
		n, err := count(args)
		if err != nil {
			return false, err
		}
		depth := d.place(d.at).depth
		d.until = func(s *vm.Step) bool {
			now := d.place(s).depth
			if !into && now > depth {
				return false
			}
			depth = now
			n--
			return n == 0
		}
		return true, nil
	}
}

func finish(d *debugger, _ []string) (bool, error) {
	depth := d.place(d.at).depth
	d.until = func(s *vm.Step) bool { return d.place(s).depth < depth }
	return true, nil
}

func setBreak(d *debugger, args []string) (bool, error) {
	if len(args) != 1 {
		return false, fmt.Errorf("break takes FILE:LINE, LINE, FUNCTION or *INSN")
	}
	b, err := d.parseBreak(args[0])
	if err != nil {
		return false, err
	}
	d.nextID++
	b.id = d.nextID
	d.breaks = append(d.breaks, b)
	d.printf("breakpoint %d at %s\n", b.id, b.text)
	return false, nil
}

func deleteBreak(d *debugger, args []string) (bool, error) {
	if len(args) == 0 {
		d.breaks = nil
		return false, nil
	}
	id, err := strconv.Atoi(args[0])
	i := slices.IndexFunc(d.breaks, func(b *breakpoint) bool { return b.id == id })
	if err != nil || i < 0 {
		return false, fmt.Errorf("there is no breakpoint %s", args[0])
	}
	d.breaks = slices.Delete(d.breaks, i, i+1)
	return false, nil
}

func listBreaks(d *debugger, _ []string) (bool, error) {
	if len(d.breaks) == 0 {
		d.printf("there are none\n")
	}
	for _, b := range d.breaks {
		d.printf("%d: %s, hit %d times\n", b.id, b.text, b.hits)
	}
	return false, nil
}

// register is the number of a register.
func register(text string) (int, bool) {
	n, ok := strings.CutPrefix(text, "r")
	i, err := strconv.Atoi(n)
	return i, ok && err == nil && i >= 0 && i <= 10
}

func printValue(d *debugger, args []string) (bool, error) {
	if len(args) != 1 {
		return false, fmt.Errorf("print takes a register or the name of a variable")
	}
	if i, ok := register(args[0]); ok {
		if d.at == nil {
			return false, fmt.Errorf("the program does not run: \"run\" begins again")
		}
		d.showReg(i, d.view())
		return false, nil
	}
	v := d.coll.Variables[args[0]]
	if v == nil {
		names := slices.Sorted(maps.Keys(d.coll.Variables))
		if near := source.Nearest(args[0], slices.Values(names)); near != "" {
			return false, fmt.Errorf("there is no variable %s: did you mean %s?", args[0], near)
		}
		return false, fmt.Errorf("there is no variable %s; the object has: %s", args[0], strings.Join(names, ", "))
	}
	var b []byte
	if err := v.Get(&b); err != nil {
		return false, err
	}
	d.printf("%s = %s\n", args[0], execText(show(v.Type(), b)))
	return false, nil
}

// address is a number, or a register with an offset.
func (d *debugger) address(text string) (uint64, error) {
	base, off := text, int64(0)
	if i := strings.LastIndexAny(text, "+-"); i > 0 {
		n, err := strconv.ParseInt(text[i:], 0, 64)
		if err != nil {
			return 0, fmt.Errorf("%s is no offset", text[i:])
		}
		base, off = text[:i], n
	}
	if base == "fp" {
		base = "r10"
	}
	if i, ok := register(base); ok {
		return d.at.Regs()[i] + uint64(off), nil
	}
	n, err := strconv.ParseUint(base, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is no address: give a number, or a register with an offset like r2+8", text)
	}
	return n + uint64(off), nil
}

func printMemory(d *debugger, args []string) (bool, error) {
	if len(args) < 1 || len(args) > 2 {
		return false, fmt.Errorf("x takes an address, and how many bytes")
	}
	addr, err := d.address(args[0])
	if err != nil {
		return false, err
	}
	n := 64
	if len(args) == 2 {
		if n, err = strconv.Atoi(args[1]); err != nil || n < 1 || n > 1<<16 {
			return false, fmt.Errorf("%s is no number of bytes from 1 to 65536", args[1])
		}
	}
	b, ok := d.at.Memory(addr, n)
	if !ok {
		return false, fmt.Errorf("%#x is no address of this program", addr)
	}
	d.dump(addr, b)
	return false, nil
}

func printPacket(d *debugger, _ []string) (bool, error) {
	b, addr := d.at.Packet()
	if b == nil {
		return false, fmt.Errorf("programs of type %s have no packet", d.at.Program().Type())
	}
	d.dump(addr, b)
	return false, nil
}

func printMap(d *debugger, args []string) (bool, error) {
	names := slices.Sorted(maps.Keys(d.coll.Maps))
	if len(args) == 0 {
		for _, name := range names {
			m := d.coll.Maps[name]
			d.printf("%s: %s, key %d bytes, value %d bytes, %d entries\n", name, m.Type(), m.KeySize(), m.ValueSize(), m.MaxEntries())
		}
		return false, nil
	}
	m := d.coll.Maps[args[0]]
	if m == nil {
		if near := source.Nearest(args[0], slices.Values(names)); near != "" {
			return false, fmt.Errorf("there is no map %s: did you mean %s?", args[0], near)
		}
		return false, fmt.Errorf("there is no map %s; the object has: %s", args[0], strings.Join(names, ", "))
	}
	list := showMap(m)
	d.printf("%s: %d elements\n", args[0], len(list))
	for _, e := range list {
		d.printf("  %s: %s\n", execText(e.Key), execText(e.Value))
	}
	return false, nil
}

func setRegister(d *debugger, args []string) (bool, error) {
	if len(args) != 2 {
		return false, fmt.Errorf("set takes a register and a number")
	}
	i, ok := register(args[0])
	if !ok || i == 10 {
		return false, fmt.Errorf("%s cannot be set: give r0 to r9", args[0])
	}
	n, err := strconv.ParseUint(args[1], 0, 64)
	if err != nil {
		signed, err := strconv.ParseInt(args[1], 0, 64)
		if err != nil {
			return false, fmt.Errorf("%s is no 64-bit number", args[1])
		}
		n = uint64(signed)
	}
	d.at.Regs()[i] = n
	return false, nil
}
