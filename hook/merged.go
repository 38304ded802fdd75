package hook

import (
	"path"
	"strings"
)

// mergedLibraries are those whose functions glibc has in libc itself since its
// version 2.34 (its NEWS). Empty files of their names may still be there.
var mergedLibraries = map[string]bool{"pthread": true, "dl": true, "util": true, "anl": true, "rt": true}

// Merged returns p in libc where p is in a library that glibc has merged into
// it: "uprobe:libpthread:pthread_create" is "uprobe:libc:pthread_create" since
// glibc 2.34.
func (p Point) Merged() (Point, bool) {
	switch p.Kind {
	case Uprobe, Uretprobe, USDT:
	default:
		return p, false
	}
	name := path.Base(p.Path)
	if i := strings.Index(name, ".so"); i >= 0 {
		name = name[:i]
	}
	short, isLib := strings.CutPrefix(name, "lib")
	if !mergedLibraries[short] || !isLib && strings.Contains(p.Path, "/") {
		return p, false
	}
	p.Path, p.Text = "libc", ""
	return p, true
}
