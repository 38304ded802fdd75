package runner

import (
	"bufio"
	"encoding/binary"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/symbol"
)

// names gives the text of values that only a look at the machine can name:
// symbols, stacks, users, times. Everything is looked up when it is first shown
// and kept.
type names struct {
	man   *object.Manifest
	order binary.ByteOrder
	root  fs.FS
	// frames returns the kept frames of a stack, zero terminated.
	frames func(id uint64) []uint64
	// clocks returns what has to be added to a time of a clock to get the
	// time since 1970.
	clocks func(Clock) int64

	arch abi.Arch

	stacks    map[uint64][]uint64
	kernel    map[uint64]symbol.KernelHit
	misses    int  // passes over kallsyms so far
	hidden    bool // kallsyms hides the addresses from this process
	table     *symbol.Kallsyms
	symbols   *symbol.Symbolizer
	processes processes
	buildIDs  map[string]string
	users     map[uint64]string
	groups    map[string]map[uint64]string
	offsets   [clockCount]int64
	haveClock [clockCount]bool
}

func newNames(man *object.Manifest, order binary.ByteOrder, root fs.FS) *names {
	n := &names{
		man: man, order: order, root: root, clocks: clockOffset,
		frames: func(uint64) []uint64 { return nil },
		stacks: map[uint64][]uint64{}, kernel: map[uint64]symbol.KernelHit{},
		buildIDs: map[string]string{},
	}
	n.arch, _ = abi.ParseArch(man.Target.Arch)
	n.symbols = symbol.NewSymbolizer(symbol.Options{
		Files: symbol.ProcFiles(root), DebugFiles: root,
		Mangled: isOff(man.Settings["cpp_demangle"]),
	})
	n.processes = processes{root: root, symbols: n.symbols}
	return n
}

func isOff(setting string) bool { return setting == "false" || setting == "0" }

func (n *names) Close() error { return n.symbols.Close() }

// seen notes that addresses of a process will be named: it may be gone later.
func (n *names) seen(pid int) {
	if n != nil {
		n.processes.capture(pid)
	}
}

// trailer is what stands after strings that were cut.
func (n *names) trailer() string {
	if n != nil {
		if s, ok := n.man.Settings["str_trunc_trailer"]; ok {
			return s
		}
	}
	return ".."
}

// append appends the text of a value that has a name.
func (n *names) append(dst []byte, v *Value, esc Escape, indent int) []byte {
	if n == nil {
		return strconv.AppendUint(append(dst, "0x"...), uint64(v.Int), 16)
	}
	switch v.Type.Kind {
	case object.TypeProbe:
		if i := v.Int; i >= 0 && i < int64(len(n.man.Probes)) {
			return append(dst, n.man.Probes[i].Name...)
		}
		return v.appendNumber(dst)
	case object.TypeUsername:
		return esc.appendString(dst, n.user(v.Uint()))
	case object.TypeErrno:
		return append(dst, abi.Strerror(int(int32(v.Int)))...)
	case object.TypeSignal:
		if s := abi.SignalName(int(int32(v.Int))); s != "" {
			return append(dst, s...)
		}
		return v.appendNumber(dst)
	case object.TypeSyscall:
		if s := abi.SyscallByNumber(n.arch, int(int32(v.Int))); s != nil {
			return append(dst, s.Name...)
		}
		return v.appendNumber(dst)
	case object.TypeTimestamp:
		format := v.Type.Name
		if format == "" && v.index < len(n.man.Strings) {
			format = n.man.Strings[v.index]
		}
		return appendTime(dst, format, n.time(v.Int, v.Mode))
	case object.TypeCgroup:
		filter := ""
		if v.index < len(n.man.Strings) {
			filter = n.man.Strings[v.index]
		}
		return esc.appendString(dst, n.cgroup(uint64(v.Int), filter))
	case object.TypeKsym:
		if hit := n.ksym(uint64(v.Int)); hit.Name != "" {
			return esc.appendString(dst, hit.Name)
		}
		return appendAddress(dst, uint64(v.Int))
	case object.TypeUsym:
		// The function that a probe is on is known even after its process.
		if i := v.index; v.Type.Name == "func" && i < len(n.man.Probes) && n.man.Probes[i].Func != "" {
			name := n.man.Probes[i].Func
			if !isOff(n.man.Settings["cpp_demangle"]) {
				name = symbol.Demangle(name, false)
			}
			return esc.appendString(dst, name)
		}
		if f := n.usym(v.PID, uint64(v.Int), false); f.Name != "" {
			return esc.appendString(dst, f.Name)
		}
		return appendAddress(dst, uint64(v.Int))
	case object.TypeKstack, object.TypeUstack:
		return n.stack(dst, v, esc, indent)
	}
	return strconv.AppendInt(dst, v.Int, 10)
}

// appendAddress appends an address that has no name, as C++ shows a pointer:
// without 0x if it is null.
func appendAddress(dst []byte, addr uint64) []byte {
	if addr == 0 {
		return append(dst, '0')
	}
	return strconv.AppendUint(append(dst, "0x"...), addr, 16)
}

// Stack returns the frames of a stack that are shown, the innermost first.
func (n *names) stackFrames(v *Value) []uint64 {
	id := uint64(v.Int)
	if id == 0 {
		return nil
	}
	frames, ok := n.stacks[id]
	if !ok {
		frames = n.frames(id)
		n.stacks[id] = frames
	}
	for i, f := range frames {
		if f == 0 {
			frames = frames[:i]
			break
		}
	}
	if v.Frames > 0 && v.Frames < len(frames) {
		frames = frames[:v.Frames]
	}
	return frames
}

// stack appends a stack: an empty line's end, then one frame a line.
func (n *names) stack(dst []byte, v *Value, esc Escape, indent int) []byte {
	frames := n.stackFrames(v)
	mode := v.Type.Name
	kernel := v.Type.Kind == object.TypeKstack
	if kernel && mode != "raw" {
		n.resolve(frames)
	}
	dst = append(dst, '\n')
	spaces := func() {
		for range indent {
			dst = append(dst, ' ')
		}
	}
	for i, addr := range frames {
		switch {
		case mode == "raw":
			spaces()
			dst = append(strconv.AppendUint(dst, addr, 16), '\n')
			continue
		case mode == "build_id" && !kernel:
			spaces()
			dst = append(n.buildID(dst, v.PID, addr), '\n')
			continue
		case mode == "perf":
			dst = append(dst, '\t')
			dst = append(strconv.AppendUint(dst, addr, 16), ' ')
		default:
			spaces()
		}
		if kernel {
			hit := n.ksym(addr)
			if hit.Name == "" {
				dst = appendAddress(dst, addr)
			} else {
				dst = esc.appendString(dst, hit.Name)
				dst = strconv.AppendUint(append(dst, '+'), hit.Offset, 10)
			}
		} else {
			f := n.usym(v.PID, addr, i > 0)
			if f.Name == "" {
				dst = appendAddress(dst, addr)
			} else {
				dst = esc.appendString(dst, f.Name)
				dst = strconv.AppendUint(append(dst, '+'), f.Offset, 10)
			}
			if mode == "perf" {
				module := f.Module
				if module == "" {
					module = "[unknown]"
				}
				dst = append(dst, " ("...)
				dst = append(esc.appendString(dst, module), ')')
			}
		}
		dst = append(dst, '\n')
	}
	return dst
}

// ksym names one address of the kernel. The first addresses are looked up by
// passes over kallsyms; a run that asks for more gets a table.
func (n *names) ksym(addr uint64) symbol.KernelHit {
	if hit, ok := n.kernel[addr]; ok {
		return hit
	}
	n.resolve([]uint64{addr})
	return n.kernel[addr]
}

// passes is how many times kallsyms are read before a table is made.
const passes = 2

// kallsymsHidden tells whether kallsyms shows nothing but zeros for addresses,
// as it does to those without CAP_SYSLOG, or to everyone by
// kernel.kptr_restrict. Addresses per CPU begin at zero in any case.
func (n *names) kallsymsHidden() bool {
	f, err := n.root.Open("proc/kallsyms")
	if err != nil {
		return false
	}
	defer f.Close()
	start := make([]byte, 4096)
	size, _ := io.ReadFull(f, start)
	lines := 0
	for line := range strings.Lines(string(start[:size])) {
		addr, _, ok := strings.Cut(line, " ")
		if ok && strings.Trim(addr, "0") != "" {
			return false
		}
		lines++
	}
	return lines > 1
}

// resolve names addresses of the kernel together.
func (n *names) resolve(addrs []uint64) {
	var missing []uint64
	for _, a := range addrs {
		if _, ok := n.kernel[a]; !ok {
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 || n.root == nil {
		return
	}
	if n.table == nil {
		f, err := n.root.Open("proc/kallsyms")
		if err == nil {
			defer f.Close()
			if n.misses++; n.misses <= passes {
				n.hidden = n.hidden || n.misses == 1 && n.kallsymsHidden()
				hits, err := symbol.ResolveKallsyms(f, missing)
				for i, a := range missing {
					if err != nil || i >= len(hits) {
						n.kernel[a] = symbol.KernelHit{}
					} else {
						n.kernel[a] = hits[i]
					}
				}
				return
			}
			n.table, _ = symbol.ParseKallsyms(f)
		}
	}
	for _, a := range missing {
		hit := symbol.KernelHit{}
		if n.table != nil {
			hit, _, _ = n.table.Resolve(a)
		}
		n.kernel[a] = hit
	}
}

// usym names one address of a process.
func (n *names) usym(pid int, addr uint64, isReturn bool) symbol.Frame {
	p := n.processes.process(pid)
	if p == nil {
		return symbol.Frame{Addr: addr}
	}
	if isReturn {
		return p.ResolveReturn(addr)
	}
	return p.Resolve(addr)
}

// buildID appends the build-id of the file that holds an address, and the
// offset in it; the bare address where there is none.
func (n *names) buildID(dst []byte, pid int, addr uint64) []byte {
	f := n.usym(pid, addr, false)
	if !strings.HasPrefix(f.Module, "/") || n.root == nil {
		return appendAddress(dst, addr)
	}
	id, ok := n.buildIDs[f.Module]
	if !ok {
		if b, err := symbol.OpenBinary(n.root, f.Module); err == nil {
			id = b.BuildID()
			b.Close()
		}
		n.buildIDs[f.Module] = id
	}
	if id == "" {
		return appendAddress(dst, addr)
	}
	return appendAddress(append(append(dst, id...), ' '), f.ModuleOffset)
}

// user names a user by /etc/passwd, else by number.
func (n *names) user(uid uint64) string {
	if n.users == nil {
		n.users = map[uint64]string{}
		if n.root != nil {
			if f, err := n.root.Open("etc/passwd"); err == nil {
				defer f.Close()
				s := bufio.NewScanner(f)
				for s.Scan() {
					part := strings.SplitN(s.Text(), ":", 4)
					if len(part) < 4 {
						continue
					}
					id, err := strconv.ParseUint(part[2], 10, 32)
					if _, have := n.users[id]; err == nil && !have {
						n.users[id] = part[0]
					}
				}
			}
		}
	}
	if s, ok := n.users[uid]; ok {
		return s
	}
	return strconv.FormatUint(uid, 10)
}

// time is the wall time of a time of a clock.
func (n *names) time(ns int64, c Clock) time.Time {
	if c >= clockCount {
		c = ClockBoot
	}
	if !n.haveClock[c] {
		n.offsets[c], n.haveClock[c] = n.clocks(c), true
	}
	return time.Unix(0, ns+n.offsets[c])
}

// cgroup returns the paths of a control group, "unified:/user.slice", those of
// several hierarchies with commas between. filter is a pattern that the
// hierarchy's name must match, "" for all.
func (n *names) cgroup(id uint64, filter string) string {
	const base = "sys/fs/cgroup"
	if n.groups == nil || !n.haveGroup(id) {
		n.groups = map[string]map[uint64]string{}
		if n.root != nil {
			if _, err := fs.Stat(n.root, base+"/cgroup.controllers"); err == nil {
				n.groups["unified"] = cgroupTree(n.root, base)
			} else if list, err := fs.ReadDir(n.root, base); err == nil {
				for _, d := range list {
					if d.IsDir() {
						n.groups[d.Name()] = cgroupTree(n.root, base+"/"+d.Name())
					}
				}
			}
		}
	}
	var found []string
	for _, name := range sortedKeys(n.groups) {
		if ok, err := path.Match(filter, name); filter != "" && (err != nil || !ok) {
			continue
		}
		if p, ok := n.groups[name][id]; ok {
			found = append(found, name+":"+p)
		}
	}
	return strings.Join(found, ",")
}

func (n *names) haveGroup(id uint64) bool {
	for _, tree := range n.groups {
		if _, ok := tree[id]; ok {
			return true
		}
	}
	return false
}

// cgroupTree maps the inode numbers of a hierarchy to its paths.
func cgroupTree(root fs.FS, base string) map[uint64]string {
	tree := map[uint64]string{}
	// A group that goes while we look is no error.
	_ = fs.WalkDir(root, base, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if ino := inode(info); ino != 0 {
				tree[ino] = "/" + strings.TrimPrefix(strings.TrimPrefix(p, base), "/")
			}
		}
		return nil
	})
	return tree
}
