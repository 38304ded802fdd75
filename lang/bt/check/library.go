package check

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

func register(list ...*Function) {
	if functions == nil {
		functions = map[string]*Function{}
	}
	for _, f := range list {
		functions[f.Name] = f
	}
}

// result is the check of a function that takes scalars.
func result(t *Type) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		for i, a := range args {
			c.wantInt(e, i, a)
		}
		return t
	}
}

func init() {
	register(
		&Function{Name: "tseries", Min: 3, Max: 4, check: checkAgg(Tseries)},
		&Function{Name: "cat", Min: 1, Max: -1, check: checkFormat},
		&Function{Name: "system", Min: 1, Max: -1, Unsafe: true, check: checkFormat},
		&Function{Name: "fail", Min: 1, Max: -1, check: checkFail},
		&Function{Name: "assert", Min: 2, Max: 2, check: checkAssert},
		&Function{Name: "static_assert", Min: 2, Max: 2, check: checkStaticAssert},
		&Function{Name: "join", Min: 1, Max: 2, check: checkJoin},
		&Function{Name: "buf", Min: 1, Max: 2, check: checkBuf},
		&Function{Name: "strlen", Min: 1, Max: 1, check: checkStrings(tUint64, 1)},
		&Function{Name: "strcap", Min: 1, Max: 1, check: checkStrcap},
		&Function{Name: "strncmp", Min: 3, Max: 3, check: checkStrings(tInt64, 2)},
		&Function{Name: "strcontains", Min: 2, Max: 2, check: checkStrings(tBool, 2)},
		&Function{Name: "strstr", Min: 2, Max: 2, check: checkStrings(tInt64, 2)},
		&Function{Name: "memcmp", Min: 3, Max: 3, check: checkMemcmp},
		&Function{Name: "strerror", Min: 1, Max: 1, check: result(tErrno)},
		&Function{Name: "signal_name", Min: 1, Max: 1, check: result(tSignal)},
		&Function{Name: "syscall_name", Min: 1, Max: 1, check: result(tSyscall)},
		&Function{Name: "len", Min: 1, Max: 1, check: checkLen, raw: true},
		&Function{Name: "find", Min: 3, Max: 3, check: checkFind, raw: true},
		&Function{Name: "bswap", Min: 1, Max: 1, check: checkBswap},
		&Function{Name: "ntop", Min: 1, Max: 2, check: checkNtop},
		&Function{Name: "pton", Min: 1, Max: 1, check: checkPton},
		&Function{Name: "macaddr", Min: 1, Max: 1, check: checkMacaddr},
		&Function{Name: "cgroup_path", Min: 1, Max: 2, check: checkCgroupPath},
		&Function{Name: "kaddr", Min: 1, Max: 1, check: checkKaddr},
		&Function{Name: "percpu_kaddr", Min: 1, Max: 2, check: checkKaddr},
		&Function{Name: "reg", Min: 1, Max: 1, check: checkReg},
		&Function{Name: "signal", Min: 1, Max: 1, Unsafe: true, check: checkSignal},
		&Function{Name: "signal_thread", Min: 1, Max: 1, Unsafe: true, check: checkSignal},
		&Function{Name: "override", Min: 1, Max: 1, Unsafe: true, check: checkOverride},
		&Function{Name: "write_user", Min: 3, Max: 3, Unsafe: true, check: checkWriteUser},
		&Function{Name: "path", Min: 1, Max: 2, check: checkPath},
		&Function{Name: "socket_cookie", Min: 1, Max: 1, check: result(tUint64)},
		&Function{Name: "unwatch", Min: 1, Max: 1, check: result(tNone)},
		&Function{Name: "getopt", Min: 1, Max: 3, check: checkGetopt},
		&Function{Name: "is_err", Min: 1, Max: 1, check: result(tBool)},
		&Function{Name: "kfunc_exist", Min: 1, Max: 1, check: checkKfuncExist},
		&Function{Name: "is_ptr", Min: 1, Max: 1, check: isKind(func(t *Type) bool { return t.Kind == Pointer })},
		&Function{Name: "is_str", Min: 1, Max: 1, check: isKind(func(t *Type) bool { return t.Kind == String })},
		&Function{Name: "is_integer", Min: 1, Max: 1, check: isKind(func(t *Type) bool { return t.Kind == Int })},
		&Function{Name: "is_unsigned_integer", Min: 1, Max: 1, check: isKind(func(t *Type) bool { return t.Kind == Int && !t.Signed })},
		&Function{Name: "is_array", Min: 1, Max: 1, check: isKind(func(t *Type) bool { return t.Kind == Array })},
		&Function{Name: "is_literal", Min: 1, Max: 1, check: checkIsLiteral},
		&Function{Name: "pid", Min: 0, Max: 1, check: checkPID},
		&Function{Name: "tid", Min: 0, Max: 1, check: checkPID},
		&Function{Name: "ppid", Min: 1, Max: 1, check: checkTask(tUint32)},
		&Function{Name: "pcomm", Min: 1, Max: 1, check: checkTask(stringType(16))},
	)
}

// textual reports whether a value can be read as a string.
func (c *checker) textual(t *Type) bool {
	switch t.Kind {
	case String, Invalid:
		return true
	case Array:
		return c.charArray(t)
	case Pointer:
		return t.Elem != nil && t.Elem.isInt() && t.Elem.Size == 1
	}
	return false
}

// checkStrings is the check of a function whose first n arguments are strings.
func checkStrings(t *Type, n int) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		for i, a := range args {
			if i >= n {
				c.wantInt(e, i, a)
			} else if !c.textual(a) {
				c.errorf(e.Args[i].Span(), "type-mismatch", "%s needs a string here, this is %s", e.Func.Text, describe(a))
				return tInvalid
			}
		}
		return t
	}
}

func checkStrcap(c *checker, e *syntax.Call, args []*Type) *Type {
	switch t := args[0]; {
	case t.Kind == String:
		n := t.Size
		if k, ok := c.info.Consts[e.Args[0]]; ok {
			n = len(k.Str)
		}
		return c.literal(e, int64(n), false)
	case t.Kind == Array && c.charArray(t):
		return c.literal(e, int64(t.Len), false)
	case c.textual(t):
		return c.literal(e, int64(c.res.Config.MaxStrlen), false)
	}
	c.errorf(e.Args[0].Span(), "type-mismatch", "strcap needs a string, this is %s", describe(args[0]))
	return tInvalid
}

func checkMemcmp(c *checker, e *syntax.Call, args []*Type) *Type {
	for i, a := range args[:2] {
		switch a.Kind {
		case String, Array, Buffer, Struct, Tuple, Record, Pointer, Invalid:
		default:
			c.errorf(e.Args[i].Span(), "type-mismatch", "memcmp needs memory here, this is %s", describe(a))
			return tInvalid
		}
	}
	n, ok := c.wantConst(e, 2)
	if !ok {
		return tInvalid
	}
	for i, a := range args[:2] {
		if a.Kind != Pointer && a.Kind != Invalid && n > int64(a.Size) {
			c.errorf(e.Args[i].Span(), "bad-argument", "memcmp cannot compare %d bytes, this has %d", n, a.Size)
			return tInvalid
		}
	}
	if n < 0 || n > int64(c.res.Config.MaxStrlen) {
		c.errorf(e.Args[2].Span(), "bad-argument", "the number of bytes must be between 0 and %d", c.res.Config.MaxStrlen).
			Notef("the setting max_strlen raises the limit")
		return tInvalid
	}
	return tInt64
}

func checkAssert(c *checker, e *syntax.Call, args []*Type) *Type {
	c.wantInt(e, 0, args[0])
	c.wantString(e, 1)
	return tNone
}

func checkStaticAssert(c *checker, e *syntax.Call, args []*Type) *Type {
	k, ok := c.wantConst(e, 0)
	text, okText := c.wantString(e, 1)
	if ok && okText && k == 0 {
		c.errorf(e.Args[0].Span(), "static-assert", "%s", text)
	}
	return tNone
}

// checkFail reports what the script says when the place of the call can be
// reached.
func checkFail(c *checker, e *syntax.Call, args []*Type) *Type {
	format, ok := c.wantString(e, 0)
	if !ok {
		return tNone
	}
	verbs, problem := Verbs(format)
	if problem != "" {
		c.errorf(e.Args[0].Span(), "bad-format", "%s", problem)
		return tNone
	}
	next := 1
	for _, v := range verbs {
		text := "%"
		if v.Verb != '%' {
			if next >= len(e.Args) {
				c.errorf(e.Args[0].Span(), "wrong-argument-count", "the format takes more values than the %d given", len(e.Args)-1)
				return tNone
			}
			k, ok := c.info.Consts[e.Args[next]]
			if !ok {
				c.errorf(e.Args[next].Span(), "not-constant", "fail needs constants")
				return tNone
			}
			if text = k.Str; !k.IsString {
				text = strconv.FormatInt(k.Int, 10)
			}
			next++
		}
		format = strings.Replace(format, "%"+v.Spec, text, 1)
	}
	c.errorf(e.Loc, "fail", "%s", format)
	return tNone
}

func checkJoin(c *checker, e *syntax.Call, args []*Type) *Type {
	if len(args) == 2 {
		c.wantString(e, 1)
	}
	t := args[0]
	pointers := (t.Kind == Pointer || t.Kind == Array) && t.Elem != nil && t.Elem.Kind == Pointer
	if !pointers && !t.isInt() && t.Kind != Invalid {
		c.errorf(e.Args[0].Span(), "type-mismatch", "join needs an array of strings (char **), this is %s", describe(t))
	}
	return tNone
}

func checkBuf(c *checker, e *syntax.Call, args []*Type) *Type {
	limit := c.res.Config.MaxStrlen
	n := limit
	t := args[0]
	switch {
	case t.Kind == Invalid:
		return t
	case t.Kind == Array, t.Kind == String, t.Kind == Struct:
		n = t.Size
	case t.Kind == Pointer, t.isInt():
		if len(args) < 2 {
			c.errorf(e.Parens, "wrong-argument-count", "buf needs a length here: how much is behind the pointer is not known")
			return tInvalid
		}
	default:
		c.errorf(e.Args[0].Span(), "type-mismatch", "buf needs a pointer or an array, this is %s", describe(t))
		return tInvalid
	}
	if len(args) == 2 {
		if k, ok := c.info.Consts[e.Args[1]]; ok && !k.IsString {
			if k.Int < 0 {
				c.errorf(e.Args[1].Span(), "bad-argument", "the length of a buffer cannot be negative")
				return tInvalid
			}
			if k.Int > int64(limit) {
				c.warnf(e.Args[1].Span(), "string-limit", "the buffer is cut to %d bytes", limit).
					Notef("the setting max_strlen raises the limit")
			}
			n = int(min(k.Int, int64(limit)))
		} else {
			c.wantInt(e, 1, args[1])
		}
	}
	return &Type{Kind: Buffer, Size: min(n, limit) + 4}
}

func checkLen(c *checker, e *syntax.Call, _ []*Type) *Type {
	if x, ok := e.Args[0].(*syntax.Map); ok {
		m := c.mapNamed(x)
		c.info.Maps[x] = m
		if !m.noKey && (m.Value == nil || m.Key != nil) {
			return tInt64
		}
		delete(c.info.Maps, x)
	}
	t := c.expr(e.Args[0])
	switch t.Kind {
	case Kstack, Ustack, Invalid:
		return tInt64
	case String:
		return tInt64
	case Array:
		return c.literal(e, int64(t.Len), false)
	case Tuple, Record:
		return c.literal(e, int64(len(t.Fields)), false)
	}
	c.errorf(e.Args[0].Span(), "type-mismatch", "len needs a map with keys or a stack, this is %s", describe(t))
	return tInvalid
}

// checkFind is find(@m, key, $out).
func checkFind(c *checker, e *syntax.Call, _ []*Type) *Type {
	x, ok := e.Args[0].(*syntax.Map)
	if !ok {
		c.errorf(e.Args[0].Span(), "type-mismatch", "find needs a map, a key and a variable: find(@name, key, $value)")
		return tInvalid
	}
	m := c.mapNamed(x)
	c.info.Maps[x] = m
	c.mapKey(m, e.Loc, findKeys(e))
	out, ok := e.Args[2].(*syntax.Var)
	if !ok {
		c.errorf(e.Args[2].Span(), "type-mismatch", "find puts the value into a variable, this is none")
		return tInvalid
	}
	v := c.scope.find(out.Name)
	if v == nil {
		v = c.declareByUse(out)
	}
	c.info.Vars[out] = v
	if t := c.readMap(m, e.Loc); t.Kind != Invalid {
		c.assignVar(v, e.Args[2], t)
	}
	return tBool
}

func findKeys(e *syntax.Call) []syntax.Expr {
	if t, ok := e.Args[1].(*syntax.Tuple); ok {
		return t.Elems
	}
	return e.Args[1:2]
}

// FindKeys returns the parts of the key that a call of find is about.
func FindKeys(e *syntax.Call) []syntax.Expr { return findKeys(e) }

func checkBswap(c *checker, e *syntax.Call, args []*Type) *Type {
	t := args[0]
	if t.Kind == Invalid {
		return t
	}
	if !t.isInt() {
		c.errorf(e.Args[0].Span(), "type-mismatch", "bswap needs an integer, this is %s", describe(t))
		return tInvalid
	}
	return intType(t.Size, false)
}

func checkNtop(c *checker, e *syntax.Call, args []*Type) *Type {
	if len(args) == 2 {
		c.wantInt(e, 0, args[0])
	}
	i := len(args) - 1
	switch t := args[i]; {
	case t.IsScalar():
	case (t.Kind == Array || t.Kind == String) && (t.Size == 4 || t.Size == 16):
	default:
		c.errorf(e.Args[i].Span(), "type-mismatch", "ntop needs an integer or 4 or 16 bytes, this is %s", describe(t))
		return tInvalid
	}
	return tInet
}

func checkPton(c *checker, e *syntax.Call, args []*Type) *Type {
	text, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		c.errorf(e.Args[0].Span(), "bad-argument", "%q is no IPv4 or IPv6 address", text)
		return tInvalid
	}
	n := len(addr.AsSlice())
	c.info.Consts[e] = Const{IsString: true, Str: string(addr.AsSlice())}
	return &Type{Kind: Array, Elem: tUint8, Len: n, Size: n, Space: OwnSpace}
}

func checkMacaddr(c *checker, e *syntax.Call, args []*Type) *Type {
	switch t := args[0]; {
	case t.IsScalar(), (t.Kind == Array || t.Kind == String) && t.Size == 6:
		return tMAC
	}
	c.errorf(e.Args[0].Span(), "type-mismatch", "macaddr needs 6 bytes or a pointer to them, this is %s", describe(args[0]))
	return tInvalid
}

func checkCgroupPath(c *checker, e *syntax.Call, args []*Type) *Type {
	c.wantInt(e, 0, args[0])
	if len(args) == 2 {
		c.wantString(e, 1)
	}
	return tCgroup
}

// checkKaddr is for kaddr and percpu_kaddr.
func checkKaddr(c *checker, e *syntax.Call, args []*Type) *Type {
	name, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	if len(args) == 2 {
		c.wantInt(e, 1, args[1])
	}
	if syms, err := c.target.Symbol(name); err != nil || len(syms) == 0 {
		d := c.errorf(e.Args[0].Span(), "unknown-symbol", "the kernel has no symbol %q", name)
		if err != nil && !isNotFound(err) {
			d.Notef("%v", err)
		}
		return tInvalid
	}
	if e.Func.Text == "percpu_kaddr" {
		return &Type{Kind: Pointer, Size: 8, Space: KernelSpace, Elem: tUint64}
	}
	return tUint64
}

func checkSignal(c *checker, e *syntax.Call, args []*Type) *Type {
	if k, ok := c.info.Consts[e.Args[0]]; ok && k.IsString {
		n, ok := abi.SignalByName(strings.ToUpper(k.Str))
		if !ok {
			c.errorf(e.Args[0].Span(), "bad-argument", "there is no signal %q", k.Str).
				Suggest(source.Nearest(strings.ToUpper(k.Str), func(yield func(string) bool) {
					for n := 1; n <= 64 && yield(abi.SignalName(n)); n++ {
					}
				}))
			return tNone
		}
		c.info.Consts[e.Args[0]] = Const{Int: int64(n)}
		c.info.Types[e.Args[0]] = tInt64
		return tNone
	}
	if k, ok := c.info.Consts[e.Args[0]]; ok && (k.Int < 1 || k.Int > 64) {
		c.errorf(e.Args[0].Span(), "bad-argument", "signals have numbers from 1 to 64, this is %d", k.Int)
		return tNone
	}
	c.wantInt(e, 0, args[0])
	return tNone
}

func checkOverride(c *checker, e *syntax.Call, args []*Type) *Type {
	if c.inst.Ctx.Kind != hook.Kprobe {
		c.errorf(e.Func.Loc, "bad-probe-kind", "override is only there in kprobes, this is %s", probeKind(c.inst))
	}
	c.wantInt(e, 0, args[0])
	return tNone
}

func checkPath(c *checker, e *syntax.Call, args []*Type) *Type {
	t := args[0]
	if t.Kind == Struct && structName(t.BTF) == "struct path" || t.Kind == Pointer && t.Elem != nil && t.Elem.Kind == Struct && structName(t.Elem.BTF) == "struct path" {
		size := c.res.Config.MaxStrlen
		if len(args) == 2 {
			n, ok := c.wantConst(e, 1)
			if !ok {
				return tInvalid
			}
			if n < 1 {
				c.errorf(e.Args[1].Span(), "bad-argument", "the length of a path must be positive")
				return tInvalid
			}
			size = int(min(n, int64(size)))
		}
		switch c.inst.Ctx.Kind {
		case hook.Fentry, hook.Fexit, hook.Iter:
		default:
			c.errorf(e.Func.Loc, "bad-probe-kind", "path is only there in fentry, fexit and iter probes, this is %s", probeKind(c.inst))
			return tInvalid
		}
		return stringType(size)
	}
	if t.Kind != Invalid {
		c.errorf(e.Args[0].Span(), "type-mismatch", "path needs a struct path *, this is %s", describe(t))
	}
	return tInvalid
}

// checkGetopt gives a named parameter as a constant of the type of its default.
func checkGetopt(c *checker, e *syntax.Call, args []*Type) *Type {
	name, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	if len(args) == 3 {
		c.wantString(e, 2)
	}
	if c.asked == nil {
		c.asked = map[string]bool{}
	}
	c.asked[name] = true
	given, has := c.opts.Named[name]
	if len(args) == 1 || args[1].Kind == Bool {
		value := int64(0)
		if len(args) > 1 {
			k, ok := c.info.Consts[e.Args[1]]
			if !ok {
				c.errorf(e.Args[1].Span(), "not-constant", "the default must be a literal")
				return tInvalid
			}
			value = k.Int
		}
		if has {
			switch strings.ToLower(given) {
			case "", "1", "true":
				value = 1
			case "0", "false":
				value = 0
			default:
				c.errorf(e.Loc, "bad-parameter", "--%s must be true or false, it is %q", name, given)
				return tInvalid
			}
		}
		return c.constant(e, value, tBool)
	}
	k, ok := c.info.Consts[e.Args[1]]
	if !ok {
		c.errorf(e.Args[1].Span(), "not-constant", "the default must be a literal")
		return tInvalid
	}
	if k.IsString {
		if has {
			return c.str(e, given)
		}
		return c.str(e, k.Str)
	}
	if has {
		n, err := strconv.ParseInt(given, 0, 64)
		if err != nil {
			c.errorf(e.Loc, "bad-parameter", "--%s must be a number, it is %q", name, given)
			return tInvalid
		}
		return c.constant(e, n, tInt64)
	}
	return c.constant(e, k.Int, tInt64)
}

func checkKfuncExist(c *checker, e *syntax.Call, _ []*Type) *Type {
	name, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	n := int64(0)
	types, err := c.target.Types()
	if err == nil {
		if _, err = types.Func(name); err == nil {
			n = 1
		}
	}
	if err != nil && !isNotFound(err) {
		c.errorf(e.Loc, "no-types", "the kernel's types cannot be read: %v", errors.Unwrap(err))
		return tInvalid
	}
	c.rely("exists", "func "+name, e.Loc)
	return c.constant(e, n, tBool)
}

func isKind(is func(*Type) bool) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		n := int64(0)
		if is(args[0]) {
			n = 1
		}
		return c.constant(e, n, tBool)
	}
}

func checkIsLiteral(c *checker, e *syntax.Call, _ []*Type) *Type {
	n := int64(0)
	switch e.Args[0].(type) {
	case *syntax.IntLit, *syntax.StringLit, *syntax.BoolLit:
		n = 1
	}
	return c.constant(e, n, tBool)
}

func checkPID(c *checker, e *syntax.Call, args []*Type) *Type {
	if len(args) == 1 && !c.pidMode(e, args[0]) {
		return tInvalid
	}
	return tUint32
}

func checkTask(t *Type) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		a := args[0]
		if a.Kind != Invalid && !(a.Kind == Pointer && a.Elem != nil && a.Elem.Kind == Struct && structName(a.Elem.BTF) == "struct task_struct") {
			c.errorf(e.Args[0].Span(), "type-mismatch", "%s needs a struct task_struct *, this is %s", e.Func.Text, describe(a))
			return tInvalid
		}
		return t
	}
}

// checkWriteUser is write_user(dst, src, len).
func checkWriteUser(c *checker, e *syntax.Call, args []*Type) *Type {
	c.wantInt(e, 0, args[0])
	if n, ok := c.wantConst(e, 2); ok && (n < 1 || n > int64(c.res.Config.MaxStrlen)) {
		c.errorf(e.Args[2].Span(), "bad-argument", "the number of bytes must be between 1 and %d", c.res.Config.MaxStrlen)
	}
	return tBool
}

// maxIntervals bounds the intervals of a time series.
const maxIntervals = 1000

// tseries checks the constants of a time series; Mode is how the values of one
// interval sum up.
func (c *checker) tseries(e *syntax.Call, t *Type) *Type {
	interval, ok := c.wantConst(e, 1)
	n, okN := c.wantConst(e, 2)
	if !ok || !okN {
		return tInvalid
	}
	if interval <= 0 {
		c.errorf(e.Args[1].Span(), "bad-argument", "the interval of tseries must be positive, in nanoseconds").Notef("durations can be written as 100ms or 1s")
		return tInvalid
	}
	if n < 1 || n > maxIntervals {
		c.errorf(e.Args[2].Span(), "bad-argument", "the number of intervals must be between 1 and %d", maxIntervals)
		return tInvalid
	}
	if len(e.Args) == 4 {
		inner, ok := c.wantString(e, 3)
		if !ok {
			return tInvalid
		}
		kinds := []string{"avg", "max", "min", "sum"}
		if !slices.Contains(kinds, inner) {
			c.errorf(e.Args[3].Span(), "bad-argument", "values of an interval sum up by avg, max, min or sum, not by %q", inner).
				Suggest(source.Nearest(inner, slices.Values(kinds)))
			return tInvalid
		}
		t.Mode = inner
	}
	t.Params = []int64{interval, n}
	return t
}
