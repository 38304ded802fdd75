package skep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// IsObject reports whether data begins as an ELF file does, and so is an
// object rather than a script.
func IsObject(data []byte) bool { return bytes.HasPrefix(data, []byte("\x7fELF")) }

// ReadObject reads a BPF object: one of skep's, or any that libbpf could load.
func ReadObject(data []byte) (*Object, error) {
	if !IsObject(data) {
		return nil, errors.New("this is no ELF file, and so no BPF object")
	}
	o, err := object.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	return &Object{Object: o, ELF: data}, nil
}

// Target returns what is known of the machine that this process runs on.
func Target() (target.Target, error) { return kernel.Target() }

// LoadTarget reads a snapshot that [SaveTarget] wrote.
func LoadTarget(r io.Reader) (target.Target, error) { return target.Load(r) }

// SaveTarget writes everything that scripts are compiled and checked with, so
// that they can be compiled for this machine elsewhere. name is what the
// snapshot will be called in messages.
func SaveTarget(w io.Writer, t target.Target, name string) error { return target.Save(w, t, name) }

// List finds the hooks of a target (nil is this machine) that match a pattern
// such as "tracepoint:sched:*". With details their arguments and types are
// filled in.
func List(t target.Target, pattern string, details bool, o hook.Options) iter.Seq2[hook.Entry, error] {
	if t == nil {
		var err error
		if t, err = kernel.Target(); err != nil {
			return func(yield func(hook.Entry, error) bool) { yield(hook.Entry{}, err) }
		}
	}
	return hook.List(t, pattern, details, o)
}

// LanguageReference is a page about what scripts of the tracing language may
// say: probes, builtins, functions with their arguments, settings.
func LanguageReference() string { return check.Reference() }

// Format lays out a script of the tracing language. Errors are a
// [source.List]; the text is then not to be used.
func Format(file *source.File) (string, error) {
	text, diags := syntax.Format(file)
	if diags.HasErrors() {
		return "", diags
	}
	return text, nil
}

// Portable makes of an object one that any loader gets right on another machine, or
// does not load: it adds a program that the kernel refuses where a field or type
// is not what it was (see [facts.Guard]). What that cannot hold together, the list
// says: the facts that CO-RE, kernel symbols and read-only data cannot express,
// and variables that only skep fills in.
func Portable(o *Object) (*Object, source.List) {
	if o.Manifest == nil {
		return o, nil
	}
	obj := *o.Object
	obj.Funcs = slices.DeleteFunc(slices.Clone(o.Funcs), func(f *object.Func) bool { return f.Name == facts.GuardName })
	guard, open := facts.Guard(o.target, &obj)
	if list := notPortable(o.Manifest, open); len(list) > 0 {
		return nil, list
	}
	if guard == nil {
		return o, nil
	}
	obj.Funcs = append(obj.Funcs, guard)
	elf, err := obj.Marshal()
	if err != nil {
		return nil, source.List{{Code: "not-portable", Message: fmt.Sprintf("the object cannot be written: %v", err)}}
	}
	return &Object{Object: &obj, ELF: elf, Warnings: o.Warnings, target: o.target}, nil
}

// notPortable explains facts that other loaders cannot see to.
func notPortable(m *object.Manifest, open []object.Fact) source.List {
	var list source.List
	file := source.NewFile(m.Source.Name, m.Source.Text)
	for _, f := range open {
		message := fmt.Sprintf("this depends on %s of the machine it was compiled on (%s), and other loaders could not adjust it", factWords(f.Kind), f.Name)
		note := ""
		switch {
		case f.Kind == object.FactFeature && f.Name == string(target.FeatureInitialPIDNS):
			message = "this counts processes as the PID namespace of skep does, which other loaders do not know"
			note = "pid(init) and tid(init) are the same everywhere"
		case f.Kind == object.FactFeature && f.Value == "yes":
			continue // a kernel without it does not load the programs
		case f.Kind == object.FactSyscall:
			continue // the registers of a system call are the same in each kernel of an architecture
		case f.Kind == object.FactRunner:
			message = f.Name + " is filled in by skep before it loads the programs, and other loaders would leave it 0"
		}
		d := &source.Diagnostic{Code: "not-portable", Message: message}
		if text := file.Line(f.Line); f.Line > 0 && text != "" {
			start := lineStart(file, f.Line)
			d.Span = source.Span{File: file, Start: start, End: start + len(text)}
		}
		if note != "" {
			d.Notef("%s", note)
		}
		list.Add(d)
	}
	return list
}

// lineStart is the offset of a line, from 1.
func lineStart(f *source.File, line int) int {
	at := 0
	for range line - 1 {
		i := strings.IndexByte(f.Text[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	return at
}

// factWords names a kind of fact for people.
func factWords(k object.FactKind) string {
	switch k {
	case object.FactFormat:
		return "the format of a tracepoint"
	case object.FactArgs:
		return "where a function or raw tracepoint has its arguments"
	case object.FactMatch:
		return "what a wildcard matched"
	case object.FactLayout:
		return "a type"
	case object.FactFile:
		return "the contents of a file"
	case object.FactParam:
		return "a parameter that shapes code"
	case object.FactFeature:
		return "a feature of the kernel"
	case object.FactArch:
		return "the architecture"
	case object.FactExists:
		return "whether a hook, symbol or function exists"
	case object.FactMachine:
		return "a property"
	}
	return "a property (" + string(k) + ")"
}
