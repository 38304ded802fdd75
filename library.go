package skep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/kernel"
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

// Format lays out a script of the tracing language. Errors are a
// [source.List]; the text is then not to be used.
func Format(file *source.File) (string, error) {
	text, diags := syntax.Format(file)
	if diags.HasErrors() {
		return "", diags
	}
	return text, nil
}

// NotPortable says what in an object other loaders than skep could get wrong
// on another machine: the facts that CO-RE, kernel symbols and read-only data
// cannot express. It is empty when any loader gets it right, or fails.
func NotPortable(o *Object) source.List {
	if o.Manifest == nil {
		return nil
	}
	var list source.List
	file := source.NewFile(o.Manifest.Source.Name, o.Manifest.Source.Text)
	for _, f := range o.Manifest.Facts {
		d := &source.Diagnostic{Code: "not-portable", Message: fmt.Sprintf("this depends on %s of the machine it was compiled on (%s), and other loaders could not adjust it", factWords(f.Kind), f.Name)}
		if text := file.Line(f.Line); f.Line > 0 && text != "" {
			start := lineStart(file, f.Line)
			d.Span = source.Span{File: file, Start: start, End: start + len(text)}
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
	case object.FactSyscall:
		return "the number and arguments of a system call"
	case object.FactMatch:
		return "what a wildcard matched"
	case object.FactLayout:
		return "the size of a type"
	case object.FactFile:
		return "the contents of a file"
	case object.FactParam:
		return "a parameter that shapes code"
	case object.FactFeature:
		return "a feature of the kernel"
	case object.FactArch:
		return "the architecture"
	case object.FactExists:
		return "whether a symbol or type exists"
	}
	return "a property (" + string(k) + ")"
}
