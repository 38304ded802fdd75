package skep

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// An includer finds included files in directories, or among texts that an
// object carries. What it cannot find of the system's headers is left to the
// types of the target.
type includer struct {
	dirs []string
	// texts are files by the name they were included by: those found so far,
	// or all there are when sealed.
	texts  map[string]string
	sealed bool
}

// maxIncludeSize bounds a header, in bytes.
const maxIncludeSize = 16 << 20

// Include implements syntax.Includer.
func (in *includer) Include(path string, angled bool, from *source.File) (*source.File, error) {
	if text, ok := in.texts[path]; ok {
		return source.NewFile(path, text), nil
	}
	if in.sealed {
		if angled || systemHeader(path) {
			return nil, nil
		}
		return nil, errors.New("the object does not carry it")
	}
	for _, name := range in.candidates(path, angled, from) {
		st, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() {
			continue
		}
		if err == nil && st.Size() > maxIncludeSize {
			return nil, errors.New("it is too large")
		}
		data, err := os.ReadFile(name)
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				err = errors.New("permission denied")
			}
			return nil, err
		}
		if in.texts == nil {
			in.texts = map[string]string{}
		}
		in.texts[path] = string(data)
		return source.NewFile(path, string(data)), nil
	}
	if angled || systemHeader(path) {
		return nil, nil
	}
	return nil, errors.New("there is no such file; -I adds a directory to look in")
}

func (in *includer) candidates(path string, angled bool, from *source.File) []string {
	if filepath.IsAbs(path) {
		return []string{path}
	}
	var names []string
	if !angled {
		dir := ""
		if from != nil {
			dir = filepath.Dir(from.Name)
		}
		names = append(names, filepath.Join(dir, path))
	}
	for _, dir := range in.dirs {
		names = append(names, filepath.Join(dir, path))
	}
	return names
}

// systemHeader reports whether a header is one of the kernel's or the C
// library's, whose types targets know.
func systemHeader(path string) bool {
	dir, _, ok := strings.Cut(path, "/")
	if !ok {
		return false
	}
	switch dir {
	case "linux", "uapi", "asm", "asm-generic", "net", "sys", "bits", "netinet", "arpa", "kernel", "trace", "drm", "scsi", "rdma", "sound", "crypto":
		return true
	}
	return false
}
