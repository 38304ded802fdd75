package main

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier"
)

// showPlace says where the program is.
func (d *debugger) showPlace(p place) {
	if p.program == nil {
		d.printf("%s, instruction %d\n", d.at.Program().Name(), p.insn)
		return
	}
	d.printf("%s", p.program.Func(p.slot()))
	if l, ok := p.line(); ok {
		d.printf(" at %s:%d\n", path.Clean(l.File), l.Row)
		d.printf("%6d | %s\n", l.Row, strings.TrimRight(l.Text, " \t\n"))
	} else {
		d.printf("\n")
	}
	d.printf("%6d: %s\n", p.slot(), p.program.text(p.insn))
}

// text is an instruction with the names of what it refers to.
func (p *debugProgram) text(i int) string {
	printer := isa.Printer{
		Symbol: func(slot int, in isa.Instruction) string {
			switch {
			case in.IsCall() && in.Src == isa.CallHelper:
				if h := abi.HelperByID(int32(in.Imm)); h != nil {
					return h.Name
				}
			case in.IsCall() && in.Src == isa.CallPseudo:
				return p.Func(slot + 1 + int(in.Imm))
			case in.IsCall():
				if n := -1 - int(in.Imm); n >= 0 && n < len(p.Kfuncs) {
					return p.Kfuncs[n].Name
				}
			case in.IsWide() && in.Src == isa.PseudoFunc:
				return p.Func(slot + 1 + int(in.Low()))
			case in.IsWide() && (in.Src == isa.PseudoMapFD || in.Src == isa.PseudoMapValue):
				if n := int(in.Low()); n >= 0 && n < len(p.Maps) {
					name := p.Maps[n].Name
					if in.Src == isa.PseudoMapValue {
						name += fmt.Sprintf("+%d", in.High())
					}
					return name
				}
			}
			return ""
		},
		Label: func(slot int) string { return strconv.Itoa(slot) },
	}
	return printer.Instruction(p.slots[i], p.Insns[i])
}

// view is what the verifier knows where the program is stopped: of several
// states the one that fits the registers best.
func (d *debugger) view() *verifier.View {
	p := d.current()
	if p == nil {
		return nil
	}
	views := p.trace.At(d.currentSlot())
	depth := len(d.at.Frames()) - 1
	var best *verifier.View
	least := 1 << 30
	for i := range views {
		v := &views[i]
		wrong := 0
		if d.at.Callbacks() == 0 && v.Depth != depth {
			wrong += 1000
		}
		for k := range v.Regs {
			if r := &v.Regs[k]; r.What != "" && !r.Holds(d.at.Regs()[k]) {
				wrong++
				if r.Precise {
					wrong += 100
				}
			}
		}
		if wrong < least {
			best, least = v, wrong
		}
	}
	return best
}

func (d *debugger) showRegs() {
	v := d.view()
	if v == nil {
		d.printf("the verifier did not come here\n")
	}
	for i := range 11 {
		d.showReg(i, v)
	}
}

func (d *debugger) showReg(i int, v *verifier.View) {
	n := d.at.Regs()[i]
	mark, what, meaning := " ", "", d.meaning(n)
	if meaning == "fp" && i != 10 && (v == nil || v.Regs[i].What != "fp") {
		meaning = strconv.FormatInt(int64(n), 10) // what lies behind the stack
	}
	if v != nil {
		r := &v.Regs[i]
		switch {
		case r.What == "":
			what = "not written"
		case r.Holds(n):
			what = r.What
		case !r.Precise, d.current().trace.Full(d.currentSlot()):
			mark, what = "~", r.What
		default:
			mark, what = "!", r.What
		}
		if r.What != "" && !r.Precise {
			what += ", imprecise"
		}
	}
	d.printf("%s\n", strings.TrimRight(fmt.Sprintf("  %-3s %#-18x %-14s %s %s", fmt.Sprintf("r%d", i), n, meaning, mark, what), " "))
}

// meaning says what a value is: a number, or where it leads.
func (d *debugger) meaning(n uint64) string {
	if m := d.at.Map(n); m != nil {
		return "map " + m.Name()
	}
	for i, f := range d.at.Frames() {
		if off := int64(n - f.FP); off <= 0 && off >= -512 {
			text := "fp"
			if off != 0 {
				text += strconv.FormatInt(off, 10)
			}
			if i > 0 {
				text += fmt.Sprintf(" of #%d", i)
			}
			return text
		}
	}
	if b, addr := d.at.Packet(); b != nil && n >= addr && n <= addr+uint64(len(b)) {
		return fmt.Sprintf("packet+%d", n-addr)
	}
	return strconv.FormatInt(int64(n), 10)
}

// showStack shows the slots that the verifier knows something of, and those
// that hold something.
func (d *debugger) showStack() {
	known := map[string]string{}
	if v := d.view(); v != nil {
		for _, k := range v.Stack {
			known[k.Place] = k.What
		}
	}
	fp := d.at.Regs()[10]
	any := false
	for off := 8; off <= 512; off += 8 {
		b, ok := d.at.Memory(fp-uint64(off), 8)
		if !ok {
			break
		}
		place := fmt.Sprintf("fp-%d", off)
		if n := nativeOrder().Uint64(b); known[place] != "" {
			any = true
			d.printf("  %-7s %#-18x %-14s   %s\n", place, n, d.meaning(n), stackWords(known[place]))
		}
	}
	if !any {
		d.printf("nothing was written to it here\n")
	}
}

// stackWords says what is known of a slot's bytes, which the verifier writes as
// a letter each.
func stackWords(what string) string {
	if len(what) != 8 || strings.Trim(what, "?rm0dif") != "" {
		return what
	}
	if what == "mmmmmmmm" {
		return "unknown bytes"
	}
	return "bytes " + what + " (m unknown, 0 zero, ? not written)"
}

func (d *debugger) showFrames() {
	for i, f := range d.at.Frames() {
		p := d.programs[f.Program.Name()]
		if p == nil {
			d.printf("#%d %s, instruction %d\n", i, f.Program.Name(), f.Insn)
			continue
		}
		slot := p.slots[f.Insn]
		d.printf("#%d %s, instruction %d", i, p.Func(slot), slot)
		if l, ok := p.LineOf(slot); ok {
			d.printf(" at %s:%d", path.Clean(l.File), l.Row)
		}
		d.printf("\n")
	}
	if n := d.at.Callbacks(); n > 0 {
		d.printf("called by a helper\n")
	}
}

func (d *debugger) showStates() {
	p := d.current()
	if p == nil {
		return
	}
	views := p.trace.At(d.currentSlot())
	if len(views) == 0 {
		d.printf("the verifier did not come here\n")
	}
	for i, v := range views {
		d.printf("state %d:\n", i+1)
		for k, r := range v.Regs {
			if r.What == "" {
				continue
			}
			mark := ""
			if !r.Precise {
				mark = ", imprecise"
			}
			d.printf("  %-3s %s%s\n", fmt.Sprintf("r%d", k), r.What, mark)
		}
		for _, s := range v.Stack {
			d.printf("  %-7s %s\n", s.Place, stackWords(s.What))
		}
	}
	if p.trace.Full(d.currentSlot()) {
		d.printf("and more that were not kept\n")
	}
}

// dump writes bytes as hexdump -C does.
func (d *debugger) dump(addr uint64, b []byte) {
	for at := 0; at < len(b); at += 16 {
		line := b[at:min(at+16, len(b))]
		text := []byte(string(line))
		for i, c := range text {
			if c < ' ' || c > '~' {
				text[i] = '.'
			}
		}
		d.printf("  %08x  %-47s  %s\n", addr+uint64(at), fmt.Sprintf("% x", line), text)
	}
}

// list shows lines of the source: from the file where it is still there, and
// otherwise those that the object has.
func list(d *debugger, args []string) (bool, error) {
	p := d.current()
	l, ok := p.LineOf(d.currentSlot())
	if !ok {
		return false, fmt.Errorf("the object does not say which source this comes from: build it with -g")
	}
	middle := l.Row
	if len(args) > 0 {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return false, fmt.Errorf("%s is no line", args[0])
		}
		middle = n
	}
	lines := map[int]string{}
	if text, err := os.ReadFile(l.File); err == nil {
		for i, s := range strings.Split(string(text), "\n") {
			lines[i+1] = s
		}
	}
	for _, x := range p.Lines {
		if x.File == l.File {
			lines[x.Row] = strings.TrimRight(x.Text, "\n") // what it was compiled from
		}
	}
	for row := middle - 5; row <= middle+5; row++ {
		text, ok := lines[row]
		if !ok {
			continue
		}
		mark := " "
		if row == l.Row && d.at != nil {
			mark = ">"
		}
		d.printf("%s%5d | %s\n", mark, row, strings.TrimRight(text, " \t"))
	}
	return false, nil
}

// disassemble shows instructions, each line of the source before its own.
func disassemble(d *debugger, args []string) (bool, error) {
	p := d.current()
	here := -1
	if d.at != nil {
		here = d.at.Insn()
	}
	from, to := max(0, here-10), min(len(p.Insns), max(here, 0)+11)
	if len(args) > 0 {
		from = -1
		for i, f := range p.Funcs {
			if f.Name != args[0] {
				continue
			}
			from, to = p.index[f.Start], len(p.Insns)
			if i+1 < len(p.Funcs) {
				to = p.index[p.Funcs[i+1].Start]
			}
		}
		if from < 0 {
			var names []string
			for _, f := range p.Funcs {
				names = append(names, f.Name)
			}
			return false, fmt.Errorf("%s has no function %s; it has %s", p.Name, args[0], strings.Join(names, ", "))
		}
	}
	shown := verifier.Line{}
	for i := from; i < to; i++ {
		slot := p.slots[i]
		for _, f := range p.Funcs {
			if f.Start == slot {
				d.printf("%s:\n", f.Name)
			}
		}
		if l, ok := p.LineOf(slot); ok && (l.Row != shown.Row || l.File != shown.File) {
			d.printf("         ; %d: %s\n", l.Row, strings.TrimSpace(l.Text))
			shown = l
		}
		mark := " "
		if i == here {
			mark = ">"
		}
		d.printf("%s%6d: %s\n", mark, slot, p.text(i))
	}
	return false, nil
}
