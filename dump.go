package skep

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/opt"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// DumpOptions choose what [Dump] and [DumpScript] write. Without IR and
// Assembly it is both, each beneath its line of the source.
type DumpOptions struct {
	// IR and Assembly ask for that form alone, as it stands.
	IR, Assembly bool
	// Passes writes functions after passes: a comma-separated list of FUNC,
	// FUNC:PASS or :PASS, where either may be *.
	Passes string
}

// DumpScript compiles a script and writes it as source, IR and instructions.
func DumpScript(w io.Writer, file *source.File, o CompileOptions, d DumpOptions) error {
	t := o.Target
	if t == nil {
		var err error
		if t, err = kernel.Target(); err != nil {
			return err
		}
	}
	o.files()
	unit, diags := bt.Compile(file, t, o.Options)
	if unit == nil {
		return diags
	}
	gen := codegen.Options{Arch: t.Arch()}
	if d.Passes != "" {
		dump, err := opt.Dumper(w, d.Passes)
		if err != nil {
			return err
		}
		gen.Optimiser.Dump = dump
	}
	obj, err := codegen.Generate(unit.Module, gen)
	if err != nil {
		return err
	}
	if d.Passes != "" {
		return nil
	}
	if d.IR {
		_, err := io.WriteString(w, ir.PrintShort(unit.Module))
		return err
	}
	return dump(w, obj, unit.Module, d)
}

// Dump writes the programs of an object beneath their lines of the source
// where the object knows them.
func Dump(w io.Writer, o *Object, d DumpOptions) error {
	if d.IR || d.Passes != "" {
		m := o.Manifest
		if m == nil || m.Source.Text == "" {
			return fmt.Errorf("the object does not hold its source, so there is no IR to show")
		}
		return DumpScript(w, source.NewFile(m.Source.Name, m.Source.Text), CompileOptions{Options: sourceOptions(&m.Source)}, d)
	}
	return dump(w, o.Object, nil, d)
}

func dump(w io.Writer, o *object.Object, m *ir.Module, d DumpOptions) error {
	var b strings.Builder
	for _, mp := range o.Maps {
		key, value := mp.Sizes()
		fmt.Fprintf(&b, "map %s: %s, key %d bytes, value %d bytes, %d entries\n", mp.Name, abi.MapType(mp.Type), key, value, mp.MaxEntries)
	}
	for _, v := range o.Vars {
		if !v.Static {
			fmt.Fprintf(&b, "variable %s: %d bytes in %s\n", v.Name, v.Size(), v.Section)
		}
	}
	for _, f := range o.Funcs {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		kind := "function"
		if f.Section != "" {
			kind = "program"
		}
		fmt.Fprintf(&b, "%s %s", kind, f.Name)
		if f.Section != "" {
			fmt.Fprintf(&b, " (%s)", f.Section)
		}
		fmt.Fprintf(&b, ": %d instructions\n", isa.Slots(f.Insns))
		var irf *ir.Func
		if m != nil && !d.Assembly {
			if i := slices.IndexFunc(m.Funcs, func(x *ir.Func) bool { return x.Name == f.Name }); i >= 0 {
				irf = m.Funcs[i]
			}
		}
		dumpFunc(&b, f, irf, !d.Assembly)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// dumpFunc writes the instructions of f. With lines each run of instructions
// stands beneath its source line, the IR of that line between them.
func dumpFunc(b *strings.Builder, f *object.Func, irf *ir.Func, lines bool) {
	slots := make([]int, len(f.Insns)+1)
	for i, in := range f.Insns {
		slots[i+1] = slots[i] + isa.Slots([]isa.Instruction{in})
	}
	index := map[int]int{}
	for i, s := range slots {
		index[s] = i
	}
	relocs := map[int]object.Reloc{}
	for _, r := range f.Relocs {
		relocs[r.Insn] = r
	}
	core := map[int]object.CORE{}
	for _, c := range f.CORE {
		core[c.Insn] = c
	}
	labels := jumpLabels(f, slots)
	p := isa.Printer{
		Symbol: func(slot int, in isa.Instruction) string {
			if r, ok := relocs[index[slot]]; ok {
				return symbolName(r)
			}
			if in.IsCall() && in.Src == 0 {
				if h := abi.HelperByID(int32(in.Imm)); h != nil {
					return h.Name
				}
			}
			return ""
		},
		Label: func(slot int) string { return labels[slot] },
	}
	values := valuesByLine(irf)
	shown := map[int]bool{}
	last := object.Place{}
	line := 0
	for i, in := range f.Insns {
		for line < len(f.Lines) && f.Lines[line].Insn <= i {
			if where := f.Lines[line].Where(); lines && where != last && where.Row > 0 {
				if where.Row != last.Row || where.File != last.File {
					fmt.Fprintf(b, "\n  %s:%d  %s\n", where.File, where.Row, strings.TrimSpace(where.Text))
					if !shown[where.Row] {
						shown[where.Row] = true
						for _, v := range values[where.Row] {
							fmt.Fprintf(b, "        | %s\n", v)
						}
					}
				}
				last = where
			}
			line++
		}
		if l := labels[slots[i]]; l != "" {
			fmt.Fprintf(b, "    %s:\n", l)
		}
		text := p.Instruction(slots[i], in)
		if c, ok := core[i]; ok {
			text += "  ; " + coreText(c)
		}
		fmt.Fprintf(b, "%8d: %s\n", slots[i], text)
	}
}

// valuesByLine are the values of a function by the line they come from.
func valuesByLine(f *ir.Func) map[int][]string {
	byLine := map[int][]string{}
	if f == nil {
		return byLine
	}
	for _, blk := range f.Blocks {
		for _, v := range blk.Values {
			if v.Pos.IsValid() {
				row := v.Pos.Pos().Line
				byLine[row] = append(byLine[row], strings.TrimSpace(v.String()))
			}
		}
	}
	return byLine
}

// jumpLabels names the targets of jumps by their slots, L1 the first.
func jumpLabels(f *object.Func, slots []int) map[int]string {
	var targets []int
	for i, in := range f.Insns {
		if d, ok := in.Jump(); ok {
			targets = append(targets, slots[i+1]+d)
		}
	}
	slices.SortFunc(targets, cmp.Compare[int])
	labels := map[int]string{}
	for i, t := range slices.Compact(targets) {
		labels[t] = "L" + strconv.Itoa(i+1)
	}
	return labels
}

func symbolName(r object.Reloc) string {
	switch s := r.Symbol.(type) {
	case *object.Map:
		return "map " + s.Name
	case *object.Var:
		return "&" + s.Name
	case *object.Func:
		return s.Name
	case *object.Extern:
		return s.Name
	}
	return ""
}

func coreText(c object.CORE) string {
	name := "?"
	if c.Type != nil {
		name = c.Type.TypeName()
	}
	return fmt.Sprintf("CO-RE %s of %s, path %s", coreWords[c.Kind], name, c.Access)
}

var coreWords = map[object.COREKind]string{
	object.COREFieldOffset: "offset", object.COREFieldSize: "size", object.COREFieldExists: "existence",
	object.COREFieldSigned: "signedness", object.COREFieldLShift: "left shift", object.COREFieldRShift: "right shift",
	object.CORETypeLocal: "local type", object.CORETypeTarget: "type", object.CORETypeExists: "existence of type",
	object.CORETypeSize: "size of type", object.COREEnumExists: "existence of enumerator", object.COREEnumValue: "value of enumerator",
	object.CORETypeMatches: "match of type",
}
