package bt

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

// A reader finds the files that a script includes and imports, and keeps their
// texts for the manifest.
type reader struct {
	opts  Options
	texts map[string]string // by the name they were asked for under
	files map[string]*source.File
}

// maxIncludeSize bounds an included file, in bytes.
const maxIncludeSize = 16 << 20

var errNoFiles = errors.New("no other file can be read here")

func (r *reader) read(name string) (*source.File, error) {
	name = path.Clean(name)
	if f := r.files[name]; f != nil {
		return f, nil
	}
	if r.opts.ReadFile == nil {
		return nil, errNoFiles
	}
	data, err := r.opts.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(data) > maxIncludeSize {
		return nil, errors.New("it is too large")
	}
	f := source.NewFile(name, string(data))
	r.files[name], r.texts[name] = f, string(data)
	return f, nil
}

// find looks for a file beside the one that names it, then in the directories
// given by -I.
func (r *reader) find(name string, from *source.File, beside bool) (*source.File, error) {
	var places []string
	switch {
	case path.IsAbs(name):
		places = []string{name}
	default:
		if beside {
			dir := ""
			if from != nil {
				dir = path.Dir(strings.ReplaceAll(from.Name, `\`, "/"))
			}
			places = append(places, path.Join(dir, name))
		}
		for _, dir := range r.opts.IncludeDirs {
			places = append(places, path.Join(dir, name))
		}
	}
	for _, p := range places {
		f, err := r.read(p)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fs.ErrNotExist
}

// Include implements [syntax.Includer]. Headers in angle brackets that are in
// none of the given directories are the system's, for which the kernel's own
// types stand in.
func (r *reader) Include(name string, angled bool, from *source.File) (*source.File, error) {
	f, err := r.find(name, from, !angled)
	switch {
	case err == nil:
		return f, nil
	case (angled || systemHeader(name)) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFiles)):
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is no such file; -I adds a directory to look in")
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("permission denied")
	}
	return nil, err
}

// systemHeader reports whether a header is one of the kernel's or the C
// library's, whose types targets know.
func systemHeader(name string) bool {
	dir, _, ok := strings.Cut(name, "/")
	if !ok {
		return false
	}
	switch dir {
	case "linux", "uapi", "asm", "asm-generic", "net", "sys", "bits", "netinet", "arpa", "kernel", "trace", "drm", "scsi", "rdma", "sound", "crypto":
		return true
	}
	return false
}

// maxImports bounds the scripts that are imported by one another.
const maxImports = 256

// parse reads a script and all that it imports into one program.
func (r *reader) parse(file *source.File) (*syntax.Program, source.List) {
	prog, diags := r.parseOne(file)
	if diags.HasErrors() || len(prog.Imports()) == 0 {
		return prog, diags
	}
	var decls []syntax.Decl
	var types []*syntax.CDecl
	seen := map[*source.File]bool{file: true}
	var add func(p *syntax.Program)
	add = func(p *syntax.Program) {
		for _, imp := range p.Imports() {
			name := imp.Path.Value
			if strings.HasSuffix(name, ".c") {
				diags.Add(source.Errorf(imp.Path.Loc, "unsupported", "C files cannot be imported yet"))
				continue
			}
			f, err := r.find(name, imp.Loc.File, true)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					err = errors.New("there is no such file")
				}
				diags.Add(source.Errorf(imp.Path.Loc, "import-not-found", "cannot import %s: %v", name, err))
				continue
			}
			if seen[f] || len(seen) > maxImports {
				continue
			}
			seen[f] = true
			if strings.HasSuffix(name, ".h") {
				header, list := r.parseHeader(f)
				diags = append(diags, list...)
				types = append(types, header.CDecls...)
				continue
			}
			other, list := r.parseOne(f)
			diags = append(diags, list...)
			if c := other.Config(); c != nil {
				diags.Add(source.Errorf(c.Keyword, "imported-config", "a script that is imported cannot have a config block"))
			}
			add(other)
			prog.Uses = append(prog.Uses, other.Uses...)
		}
		types = append(types, p.CDecls...)
		decls = append(decls, p.Decls...)
	}
	add(prog)
	prog.Decls, prog.CDecls = decls, types
	return prog, diags
}

func (r *reader) options() syntax.Options {
	return syntax.Options{Defines: []string{"BPFTRACE_HAVE_BTF"}, Includer: r, Include: r.opts.Include}
}

func (r *reader) parseOne(file *source.File) (*syntax.Program, source.List) {
	return syntax.Parse(file, r.options())
}

// parseHeader reads a file of C declarations.
func (r *reader) parseHeader(f *source.File) (*syntax.Program, source.List) {
	o := r.options()
	o.Include = append(o.Include[:len(o.Include):len(o.Include)], f.Name)
	r.files[path.Clean(f.Name)] = f
	return syntax.Parse(source.NewFile(f.Name, ""), o)
}
