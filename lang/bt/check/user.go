package check

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// A userBinary is an ELF file that probes name.
type userBinary struct {
	file *symbol.Binary
	info *symbol.DebugInfo
	err  error // of info
}

var errNoFunction = fmt.Errorf("there is no such function: %w", target.ErrNotFound)

// binary opens a user binary once.
func (c *checker) binary(path string) (*userBinary, error) {
	if b, ok := c.binaries[path]; ok {
		return b, nil
	}
	files, err := c.target.Files(c.opts.PID)
	if err != nil {
		return nil, err
	}
	f, err := files.OpenFile(path)
	if err != nil {
		return nil, err
	}
	file, err := symbol.NewBinary(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	b := &userBinary{file: file}
	if c.binaries == nil {
		c.binaries = map[string]*userBinary{}
	}
	c.binaries[path] = b
	return b, nil
}

// closeBinaries closes what binary opened.
func (c *checker) closeBinaries() {
	for _, b := range c.binaries {
		b.file.Close()
	}
}

// debugInfo reads the DWARF of a binary, from its debug file when it has none
// itself.
func (c *checker) debugInfo(path string) (*symbol.DebugInfo, error) {
	b, err := c.binary(path)
	if err != nil {
		return nil, err
	}
	if b.info != nil || b.err != nil {
		return b.info, b.err
	}
	if b.info, b.err = b.file.DebugInfo(); b.err == nil {
		return b.info, nil
	}
	files, err := c.target.Files(c.opts.PID)
	if err != nil {
		return nil, b.err
	}
	if debug, err := b.file.DebugFile(files, path); err == nil {
		b.info, b.err = debug.DebugInfo()
	}
	return b.info, b.err
}

// userArgs are the arguments of a function of a user binary, by its DWARF.
func (c *checker) userArgs(pt hook.Point) (*Type, error) {
	if pt.Offset != 0 {
		return nil, errors.New("arguments are where the function begins, this is in the middle of it")
	}
	if pt.HasAddress {
		return nil, errors.New("an address has no signature")
	}
	info, err := c.debugInfo(pt.Path)
	if err != nil {
		return nil, fmt.Errorf("%s has no debug information: %w", pt.Path, err)
	}
	fn, err := info.Function(pt.Func)
	if err != nil {
		return nil, err
	}
	proto, ok := btf.UnderlyingType(fn.Type).(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("the signature of %s is not known", pt.Func)
	}
	t := &Type{Kind: Args, Space: CtxSpace, Size: 8 * len(proto.Params)}
	for i, p := range proto.Params {
		t.Fields = append(t.Fields, Field{
			Name: p.Name, Type: fromBTF(p.Type, UserSpace, true), Offset: 8 * i, Arg: &Arg{Index: i, Type: p.Type},
		})
	}
	return t, nil
}

// usdt are the places of a USDT probe: all of its name, or the one at the
// point's address.
func (c *checker) usdt(pt hook.Point) ([]symbol.USDTProbe, error) {
	b, err := c.binary(pt.Path)
	if err != nil {
		return nil, err
	}
	list, err := b.file.MatchUSDT(pt.Namespace, pt.Event)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(p symbol.USDTProbe) bool { return pt.HasAddress && p.Addr != pt.Address }), nil
}

// locations splits a USDT probe into its places, when they have the arguments
// that are used in different places, or when it matters where they are.
func (c *checker) locations(pt hook.Point, u use) []hook.Point {
	if pt.Kind != hook.USDT || !u.numbered && !u.place || pt.HasAddress {
		return []hook.Point{pt}
	}
	list, err := c.usdt(pt)
	if err != nil || len(list) < 2 {
		return []hook.Point{pt}
	}
	first := specKey(list[:1])
	if !u.place && !slices.ContainsFunc(list, func(p symbol.USDTProbe) bool { return specKey([]symbol.USDTProbe{p}) != first }) {
		return []hook.Point{pt}
	}
	var points []hook.Point
	for _, p := range list {
		q := pt
		q.HasAddress, q.Address = true, p.Addr
		points = append(points, q)
	}
	return points
}

// demangled finds the functions whose C++ or Rust names match those of points.
func (c *checker) demangled(points []hook.Point) ([]hook.Point, error) {
	var out []hook.Point
	for _, pt := range points {
		b, err := c.binary(pt.Path)
		if err != nil {
			return nil, &hook.Error{Field: hook.FieldPath, Code: "unreadable-file", Message: err.Error(), Err: err}
		}
		places, err := b.file.Functions(pt.Func, true)
		if err != nil {
			e := &hook.Error{Field: hook.FieldFunc, Code: "unknown-probe", Message: err.Error(), Err: err}
			var nf *symbol.NotFoundError
			if errors.As(err, &nf) {
				e.Err = errNoFunction
			}
			e.Start, e.End, _ = pt.FieldRange(hook.FieldFunc)
			return nil, e
		}
		seen := map[string]bool{}
		for _, p := range places {
			if !seen[p.Symbol.Name] {
				seen[p.Symbol.Name] = true
				q := pt
				q.Func, q.Demangled = p.Symbol.Name, false
				out = append(out, q)
			}
		}
	}
	return out, nil
}
