package target

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// A Release is a kernel version. Text is as uname -r prints it; comparisons
// look at the numbers alone.
type Release struct {
	Major, Minor, Patch int
	Text                string
}

// ParseRelease reads the numbers at the start of what uname -r prints.
// Missing numbers are 0.
func ParseRelease(text string) (Release, error) {
	r := Release{Text: text}
	rest := text
	for i, dst := range []*int{&r.Major, &r.Minor, &r.Patch} {
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		if n == 0 {
			if i == 0 {
				return Release{}, fmt.Errorf("kernel release %q does not start with a number", text)
			}
			break
		}
		v, err := strconv.Atoi(rest[:n])
		if err != nil || v > 1<<16 {
			return Release{}, fmt.Errorf("kernel release %q has a number that is too large", text)
		}
		*dst = v
		rest = rest[n:]
		if !strings.HasPrefix(rest, ".") {
			break
		}
		rest = rest[1:]
	}
	return r, nil
}

// V is the release major.minor, for comparisons.
func V(major, minor int) Release { return Release{Major: major, Minor: minor} }

// Compare orders releases by their numbers.
func (r Release) Compare(o Release) int {
	return cmp.Or(cmp.Compare(r.Major, o.Major), cmp.Compare(r.Minor, o.Minor), cmp.Compare(r.Patch, o.Patch))
}

// AtLeast reports whether r is major.minor or newer.
func (r Release) AtLeast(major, minor int) bool { return r.Compare(V(major, minor)) >= 0 }

// Code is LINUX_VERSION_CODE, as old kernels want it of kprobe programs.
func (r Release) Code() uint32 {
	return uint32(r.Major)<<16 | uint32(r.Minor&0xff)<<8 | uint32(min(r.Patch, 255))
}

// IsZero reports whether r is unset.
func (r Release) IsZero() bool { return r == Release{} }

// String is Text, or the numbers when there is none.
func (r Release) String() string {
	switch {
	case r.Text != "":
		return r.Text
	case r.Patch == 0:
		return fmt.Sprintf("%d.%d", r.Major, r.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", r.Major, r.Minor, r.Patch)
}

// MarshalJSON writes the text of the release.
func (r Release) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON parses the text of a release.
func (r *Release) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	parsed, err := ParseRelease(text)
	if err == nil {
		*r = parsed
	}
	return err
}

// Facts are the scalars of a machine.
type Facts struct {
	Name     string  `json:"name"`
	Arch     string  `json:"arch"` // GOARCH
	Release  Release `json:"release"`
	CPUs     int     `json:"cpus"`
	PageSize int     `json:"page_size"`
}

// A Source hands out the raw facts of a machine. [New] asks for each at most
// once, and only when a method of [Target] needs it. Errors should say in
// words what to do; those that mean "there is no such thing" wrap ErrNotFound,
// those that mean "this cannot be read" wrap ErrUnknown.
type Source interface {
	Facts() (Facts, error)
	// HZ is the kernel's tick rate, 0 when it is not known.
	HZ() int
	// BTF returns the raw BTF of a module, or of the kernel for "".
	// The bytes stay valid and unchanged for the life of the process.
	BTF(module string) ([]byte, error)
	// BTFModules lists the modules that have BTF.
	BTFModules() ([]string, error)
	// Events returns lines "subsystem:event", as tracefs' available_events.
	Events() ([]byte, error)
	// Format returns the format file of one event.
	Format(subsystem, event string) ([]byte, error)
	// Functions returns lines "name" or "name [module]", as tracefs'
	// available_filter_functions.
	Functions() ([]byte, error)
	// Symbols returns the text of /proc/kallsyms.
	Symbols() ([]byte, error)
	// Feature probes for one feature.
	Feature(FeatureName) Feature
	// Files is the file system as seen by a process, or of the machine for 0.
	Files(pid int) (Files, error)
}

// A File is an open file of a target.
type File interface {
	fs.File
	io.ReaderAt
}

// Files is a file system as one process sees it. Names given to Open follow
// [fs.ValidPath]; those given to the other methods are absolute paths.
// Symbolic links, absolute ones too, are resolved inside it.
type Files interface {
	fs.FS
	// OpenFile opens the regular file at an absolute path.
	OpenFile(path string) (File, error)
	// HostPath is the path by which this process, and so the kernel on its
	// behalf, reaches the file that is at path in this view.
	HostPath(path string) (string, error)
}
