package facts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// Values that stand for no value.
const (
	Unknown = "unknown" // the target could not be asked; differs from nothing
	None    = "none"    // the thing is not there
)

// A Difference is a fact that does not hold.
type Difference struct {
	object.Fact        // as it was when the object was compiled
	Here        string // as it is here
}

func (d Difference) String() string {
	what := d.Name
	switch d.Kind {
	case object.FactFormat:
		what = "the field " + d.Name + " of a tracepoint"
	case object.FactArgs:
		what = "the argument " + d.Name
	case object.FactSyscall:
		what = "the argument " + d.Name + " of a system call"
	case object.FactMatch:
		what = "what " + d.Name + " matches"
	case object.FactLayout:
		what = "the layout of " + d.Name
	case object.FactFile:
		what = "the file " + d.Name
	case object.FactFeature:
		what = "the kernel feature " + d.Name
	case object.FactArch:
		what = "the architecture"
	case object.FactParam:
		what = "the parameter " + d.Name
	case object.FactMachine:
		what = "the machine's " + d.Name
	case object.FactExists:
		what = "whether there is " + d.Name
	}
	return fmt.Sprintf("%s was %q where the object was compiled and is %q here", what, d.Value, d.Here)
}

// Differences compares the facts of a manifest with a target. pid is the
// process through whose file system user binaries are looked up, 0 for the
// machine's.
func Differences(t target.Target, list []object.Fact, pid int) []Difference {
	var out []Difference
	for _, f := range list {
		if f.Value == Unknown || f.Kind == object.FactParam || f.Kind == object.FactRunner {
			continue
		}
		here, err := Value(t, f, pid)
		if err != nil {
			here = Unknown
		}
		if here != Unknown && here != f.Value {
			out = append(out, Difference{f, here})
		}
	}
	return out
}

// Value is what a target says about a fact; only the Kind and Name of f count.
// Names are, by kind:
//
//	format   "sched:sched_switch:prev_comm": a field of a tracepoint's record
//	args     "fentry:vfs_read:file", "fentry:vfs_read:" for what is returned,
//	         "rawtracepoint:sched_switch:prev"
//	syscall  "sys_enter_openat:filename"
//	match    an attach point with wildcards
//	exists   an attach point, "symbol NAME", "struct NAME", "func NAME", "builtin NAME"
//	         for a tracepoint of the kernel itself, not of a module
//	layout   "struct NAME" for its size, "struct NAME.member.member" for where and
//	         what a member is, "struct NAME {}" for all of them, "enum NAME" for
//	         its constants, "enumerator NAME" for one, "gfp_flags"
//	file     the absolute path of a user binary
//	feature  a target.FeatureName
//	machine  "cpus", "kernel" for its release, "release X.Y" for whether it is as
//	         new as that
//
// The error says why the target cannot tell.
func Value(t target.Target, f object.Fact, pid int) (string, error) {
	switch f.Kind {
	case object.FactArch:
		return t.Arch(), nil
	case object.FactFeature:
		feature := t.Feature(target.FeatureName(f.Name))
		return yes(feature.Have), nil
	case object.FactFormat, object.FactSyscall:
		return field(t, f)
	case object.FactArgs:
		return argument(t, f.Name)
	case object.FactMatch:
		return match(t, f.Name, pid)
	case object.FactExists:
		return exists(t, f.Name, pid)
	case object.FactLayout:
		if f.Name == "gfp_flags" {
			return gfpFlags(t)
		}
		return layout(t, f.Name)
	case object.FactFile:
		return file(t, f.Name, pid)
	case object.FactMachine:
		return machine(t, f.Name)
	}
	return "", fmt.Errorf("facts of the kind %q cannot be compared", f.Kind)
}

// gfpFlags is a digest of the names of page allocation flags.
func gfpFlags(t target.Target) (string, error) {
	flags, err := target.GFPFlags(t)
	if err != nil {
		return missing(err)
	}
	h := sha256.New()
	for _, f := range flags {
		fmt.Fprintln(h, f.Name, f.Bits)
	}
	return fmt.Sprintf("%d flags, %s", len(flags), hex.EncodeToString(h.Sum(nil)[:8])), nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// missing is the value of what is not there.
func missing(err error) (string, error) {
	if errors.Is(err, target.ErrNotFound) {
		return None, nil
	}
	return "", err
}

func field(t target.Target, f object.Fact) (string, error) {
	name := f.Name
	if f.Kind == object.FactSyscall {
		name = "syscalls:" + name
	}
	parts := strings.SplitN(name, ":", 3)
	if len(parts) != 3 {
		return "", fmt.Errorf("%q does not name a field", f.Name)
	}
	format, err := t.Format(parts[0], parts[1])
	if err != nil {
		return missing(err)
	}
	fd, ok := format.Field(parts[2])
	if !ok {
		return None, nil
	}
	if fd.IsString() {
		// Whether char has a sign is up to the kernel's compiler, and text has none.
		return fmt.Sprintf("%s; offset %d; size %d", fd.Decl(), fd.Offset, fd.Size), nil
	}
	return fmt.Sprintf("%s; offset %d; size %d; signed %t", fd.Decl(), fd.Offset, fd.Size, fd.Signed), nil
}

func argument(t target.Target, name string) (string, error) {
	kind, rest, _ := strings.Cut(name, ":")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return "", fmt.Errorf("%q does not name an argument", name)
	}
	fn, arg := rest[:i], rest[i+1:]
	var params []btf.FuncParam
	if kind == "rawtracepoint" {
		rt, err := t.RawTracepoint(fn)
		if err != nil {
			return missing(err)
		}
		params = rt.Args
	} else {
		types, err := t.Types()
		if err != nil {
			return "", err
		}
		module, function, ok := strings.Cut(fn, ":")
		var found btf.Type
		if ok {
			found, err = types.FindIn(module, typeindex.KindFunc, function)
		} else {
			found, err = types.Func(fn)
		}
		if err != nil {
			return missing(err)
		}
		proto, ok := btf.UnderlyingType(found.(*btf.Func).Type).(*btf.FuncProto)
		if !ok {
			return None, nil
		}
		params = proto.Params
		if arg == "" {
			return fmt.Sprintf("%d: %s", len(params), target.Declare(proto.Return, "")), nil
		}
	}
	slot := 0
	for _, p := range params {
		if p.Name == arg {
			return fmt.Sprintf("%d: %s", slot, target.Declare(p.Type, arg)), nil
		}
		n := 1
		if size, err := btf.Sizeof(p.Type); err == nil && size > 8 {
			n = (size + 7) / 8
		}
		slot += n
	}
	return None, nil
}

// match is the number of hooks that a pattern stands for, and a digest of them.
func match(t target.Target, pattern string, pid int) (string, error) {
	pt, err := hook.Parse(pattern)
	if err != nil {
		return "", err
	}
	points, err := hook.Expand(t, pt, hook.Options{PID: pid})
	if err != nil {
		return missing(err)
	}
	h := sha256.New()
	for _, p := range points {
		fmt.Fprintln(h, p.String())
	}
	return fmt.Sprintf("%d hooks, %s", len(points), hex.EncodeToString(h.Sum(nil)[:8])), nil
}

func exists(t target.Target, name string, pid int) (string, error) {
	have := func(err error) (string, error) {
		if err == nil || errors.Is(err, target.ErrNotFound) {
			return yes(err == nil), nil
		}
		return "", err
	}
	if kind, rest, ok := strings.Cut(name, " "); ok {
		if kind == "symbol" {
			_, err := t.Symbol(rest)
			return have(err)
		}
		if kind == "builtin" {
			rt, err := t.RawTracepoint(rest)
			if err == nil && rt.Module != "" {
				return yes(false), nil
			}
			return have(err)
		}
		_, err := typeOf(t, name)
		return have(err)
	}
	pt, err := hook.Parse(name)
	if err != nil {
		return "", err
	}
	_, err = hook.Expand(t, pt, hook.Options{PID: pid})
	return have(err)
}

func typeOf(t target.Target, name string) (btf.Type, error) {
	kind, rest, _ := strings.Cut(name, " ")
	types, err := t.Types()
	if err != nil {
		return nil, err
	}
	switch kind {
	case "struct":
		return types.Struct(rest)
	case "union":
		return types.Union(rest)
	case "enum":
		return types.Enum(rest)
	case "func":
		return types.Func(rest)
	}
	return types.Named(rest)
}

// machine is a number of the machine itself.
func machine(t target.Target, name string) (string, error) {
	switch name {
	case "cpus":
		return strconv.Itoa(t.CPUs()), nil
	case "kernel":
		return t.Release().Text, nil
	}
	var major, minor int
	if n, err := fmt.Sscanf(name, "release %d.%d", &major, &minor); n != 2 || err != nil {
		return "", fmt.Errorf("%q is no number of a machine", name)
	}
	return yes(t.Release().AtLeast(major, minor)), nil
}

// file is the build-id of a user binary, or a digest of one that has none.
func file(t target.Target, path string, pid int) (string, error) {
	files, err := t.Files(pid)
	if err != nil {
		return "", err
	}
	f, err := files.OpenFile(path)
	if err != nil {
		return missing(err)
	}
	defer f.Close()
	if b, err := symbol.NewBinary(f); err == nil {
		if id := b.BuildID(); id != "" {
			return "build-id " + id, nil
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return "sha256 " + hex.EncodeToString(h.Sum(nil)[:16]), nil
}
