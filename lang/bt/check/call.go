package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

// A Function is a function of the language.
type Function struct {
	Name string
	// Min and Max bound the number of arguments; Max -1 is no bound.
	Min, Max int
	// Unsafe functions change the system.
	Unsafe bool
	// check returns the type of a call whose arguments have types args.
	// Arguments are already checked unless raw is set.
	check func(c *checker, e *syntax.Call, args []*Type) *Type
	raw   bool
}

var functions map[string]*Function

func init() {
	list := []*Function{
		{Name: "printf", Min: 1, Max: -1, check: checkFormat},
		{Name: "errorf", Min: 1, Max: -1, check: checkFormat},
		{Name: "warnf", Min: 1, Max: -1, check: checkFormat},
		{Name: "print", Min: 1, Max: 3, check: checkPrint, raw: true},
		{Name: "clear", Min: 1, Max: 1, check: checkWholeMap, raw: true},
		{Name: "zero", Min: 1, Max: 1, check: checkWholeMap, raw: true},
		{Name: "delete", Min: 1, Max: 2, check: checkDelete, raw: true},
		{Name: "has_key", Min: 2, Max: 2, check: checkHasKey, raw: true},
		{Name: "exit", Min: 0, Max: 1, check: checkExit},
		{Name: "count", Min: 0, Max: 0, check: checkAgg(Count)},
		{Name: "sum", Min: 1, Max: 1, check: checkAgg(Sum)},
		{Name: "min", Min: 1, Max: 1, check: checkAgg(Min)},
		{Name: "max", Min: 1, Max: 1, check: checkAgg(Max)},
		{Name: "avg", Min: 1, Max: 1, check: checkAgg(Avg)},
		{Name: "stats", Min: 1, Max: 1, check: checkAgg(Stats)},
		{Name: "hist", Min: 1, Max: 2, check: checkAgg(Hist)},
		{Name: "lhist", Min: 4, Max: 4, check: checkAgg(Lhist)},
		{Name: "str", Min: 1, Max: 2, check: checkStr},
		{Name: "kstack", Min: 0, Max: 2, check: checkStack},
		{Name: "ustack", Min: 0, Max: 2, check: checkStack},
		{Name: "ksym", Min: 1, Max: 1, check: checkSym},
		{Name: "usym", Min: 1, Max: 1, check: checkSym},
		{Name: "time", Min: 0, Max: 1, check: checkTime},
		{Name: "strftime", Min: 2, Max: 2, check: checkStrftime},
		{Name: "nsecs", Min: 0, Max: 1, check: func(*checker, *syntax.Call, []*Type) *Type { return tUint64 }},
		{Name: "kptr", Min: 1, Max: 1, check: checkSpace(KernelSpace)},
		{Name: "uptr", Min: 1, Max: 1, check: checkSpace(UserSpace)},
	}
	register(list...)
}

func (c *checker) call(e *syntax.Call) *Type {
	f := functions[e.Func.Text]
	if u := c.funcs[e.Func.Text]; f == nil && u != nil {
		return c.callUser(e, u)
	}
	if f == nil {
		for _, a := range e.Args {
			c.expr(a)
		}
		c.errorf(e.Func.Loc, "unknown-function", "there is no function %q", e.Func.Text).
			Suggest(source.Nearest(e.Func.Text, slices.Values(slices.Sorted(maps.Keys(functions)))))
		return tInvalid
	}
	c.info.Calls[e] = f
	switch f.Name {
	case "kstack", "ustack", "usym", "reg", "override", "uaddr", "skboutput", "kfunc_allowed":
		if c.inFunction(e.Func.Loc, f.Name) {
			return tInvalid
		}
	}
	if f.Unsafe && !c.opts.Unsafe {
		c.errorf(e.Func.Loc, "unsafe", "%s changes the system and is only allowed with --unsafe", f.Name)
	}
	var args []*Type
	if !f.raw {
		for _, a := range e.Args {
			args = append(args, c.expr(a))
		}
	}
	if n := len(e.Args); n < f.Min || f.Max >= 0 && n > f.Max {
		c.errorf(e.Parens, "wrong-argument-count", "%s takes %s, here are %d", f.Name, argCount(f), n)
		return tInvalid
	}
	return f.check(c, e, args)
}

func argCount(f *Function) string {
	switch {
	case f.Max < 0:
		return "at least " + counted(f.Min, "argument")
	case f.Min == f.Max:
		return counted(f.Min, "argument")
	case f.Min == 0:
		return "at most " + counted(f.Max, "argument")
	}
	return itoa(f.Min) + " to " + counted(f.Max, "argument")
}

// wantInt reports an argument that is no integer.
func (c *checker) wantInt(e *syntax.Call, i int, t *Type) bool {
	if t.IsScalar() {
		return true
	}
	c.errorf(e.Args[i].Span(), "type-mismatch", "%s needs an integer here, this is %s", e.Func.Text, describe(t))
	return false
}

// wantConst returns the constant integer that an argument must be.
func (c *checker) wantConst(e *syntax.Call, i int) (int64, bool) {
	k, ok := c.info.Consts[e.Args[i]]
	if !ok && c.info.Types[e.Args[i]].Kind == Invalid {
		return 0, false
	}
	if !ok || k.IsString {
		c.errorf(e.Args[i].Span(), "not-constant", "%s needs a constant integer here", e.Func.Text)
		return 0, false
	}
	return k.Int, true
}

// wantString returns the constant string that an argument must be.
func (c *checker) wantString(e *syntax.Call, i int) (string, bool) {
	k, ok := c.info.Consts[e.Args[i]]
	if !ok && c.info.Types[e.Args[i]].Kind == Invalid {
		return "", false
	}
	if !ok || !k.IsString {
		c.errorf(e.Args[i].Span(), "not-constant", "%s needs a string literal here", e.Func.Text)
		return "", false
	}
	return k.Str, true
}

func checkAgg(kind AggKind) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		t := &Type{Kind: Agg, Size: 8, Agg: kind}
		if len(args) > 0 {
			if !c.wantInt(e, 0, args[0]) {
				return tInvalid
			}
			t.Signed = args[0].Signed
		}
		switch kind {
		case Tseries:
			return c.tseries(e, t)
		case Hist:
			if len(args) == 2 {
				k, ok := c.wantConst(e, 1)
				if !ok {
					return tInvalid
				}
				if k < 0 || k > 5 {
					c.errorf(e.Args[1].Span(), "bad-argument", "the resolution of hist must be between 0 and 5, it is %d", k)
					return tInvalid
				}
				t.Params = []int64{k}
			} else {
				t.Params = []int64{0}
			}
		case Lhist:
			var n [3]int64
			for i := range n {
				v, ok := c.wantConst(e, i+1)
				if !ok {
					return tInvalid
				}
				n[i] = v
			}
			switch lo, hi, step := n[0], n[1], n[2]; {
			case step <= 0:
				c.errorf(e.Args[3].Span(), "bad-argument", "the step of lhist must be positive")
				return tInvalid
			case lo < 0:
				c.errorf(e.Args[1].Span(), "bad-argument", "the lower bound of lhist must not be negative")
				return tInvalid
			case lo >= hi:
				c.errorf(e.Args[2].Span(), "bad-argument", "the upper bound of lhist must be above the lower one")
				return tInvalid
			case (hi-lo)/step > 1000:
				c.errorf(e.Func.Loc, "bad-argument", "lhist can have 1000 buckets, this makes %d", (hi-lo)/step).
					Notef("use a larger step")
				return tInvalid
			case (hi-lo)%step != 0:
				c.errorf(e.Args[3].Span(), "bad-argument", "the step of lhist must divide the range evenly")
				return tInvalid
			}
			t.Params = n[:]
		}
		return t
	}
}

func checkPrint(c *checker, e *syntax.Call, _ []*Type) *Type {
	whole := false
	switch x := e.Args[0].(type) {
	case *syntax.Map:
		m := c.mapNamed(x)
		c.info.Maps[x] = m
		whole = true
		if m.Value != nil {
			c.info.Types[x] = m.Value
		}
	case *syntax.MapIndex:
		m := c.mapNamed(x.Map)
		c.info.Maps[x.Map] = m
		c.mapKey(m, x.Loc, x.Keys)
		if m.Value != nil {
			c.info.Types[x] = m.Value
		}
	default:
		t := c.expr(x)
		if id, ok := x.(*syntax.Ident); ok && t.Kind == Args {
			t = c.printedArgs(id, t)
			c.info.Types[x] = t
		}
		switch t.Kind {
		case None, Agg, Mode, Args:
			c.errorf(x.Span(), "type-mismatch", "%s cannot be printed", describe(t))
		}
	}
	for i := 1; i < len(e.Args); i++ {
		t := c.expr(e.Args[i])
		if !whole {
			c.errorf(e.Args[i].Span(), "wrong-argument-count", "only whole maps are printed with a limit or divisor")
			return tNone
		}
		c.wantInt(e, i, t)
	}
	return tNone
}

func checkWholeMap(c *checker, e *syntax.Call, _ []*Type) *Type {
	x, ok := e.Args[0].(*syntax.Map)
	if !ok {
		c.expr(e.Args[0])
		c.errorf(e.Args[0].Span(), "type-mismatch", "%s needs a whole map, such as @name", e.Func.Text)
		return tNone
	}
	c.info.Maps[x] = c.mapNamed(x)
	return tNone
}

// deleteKeys returns the map and keys of delete(@m[k]), delete(@m, k) and
// has_key(@m, k).
func deleteKeys(e *syntax.Call) (*syntax.Map, []syntax.Expr) {
	switch x := e.Args[0].(type) {
	case *syntax.MapIndex:
		if len(e.Args) == 1 {
			return x.Map, x.Keys
		}
	case *syntax.Map:
		if len(e.Args) == 1 {
			return x, nil
		}
		if t, ok := e.Args[1].(*syntax.Tuple); ok {
			return x, t.Elems
		}
		return x, e.Args[1:]
	}
	return nil, nil
}

// MapKeys returns the map and the parts of the key that a call of delete or
// has_key is about.
func MapKeys(e *syntax.Call) (*syntax.Map, []syntax.Expr) { return deleteKeys(e) }

func checkDelete(c *checker, e *syntax.Call, _ []*Type) *Type {
	x, keys := deleteKeys(e)
	if x == nil {
		c.errorf(e.Args[0].Span(), "type-mismatch", "delete needs a map and a key: delete(@name, key)")
		return tNone
	}
	m := c.mapNamed(x)
	c.info.Maps[x] = m
	c.mapKey(m, e.Loc, keys)
	return tBool
}

func checkHasKey(c *checker, e *syntax.Call, _ []*Type) *Type {
	x, keys := deleteKeys(e)
	if x == nil {
		c.errorf(e.Args[0].Span(), "type-mismatch", "has_key needs a map and a key: has_key(@name, key)")
		return tNone
	}
	m := c.mapNamed(x)
	c.info.Maps[x] = m
	c.mapKey(m, e.Loc, keys)
	return tBool
}

func checkExit(c *checker, e *syntax.Call, args []*Type) *Type {
	if len(args) == 1 {
		c.wantInt(e, 0, args[0])
	}
	return tNone
}

func checkStr(c *checker, e *syntax.Call, args []*Type) *Type {
	size := c.res.Config.MaxStrlen
	if len(args) == 2 {
		if k, ok := c.info.Consts[e.Args[1]]; ok && !k.IsString {
			if k.Int < 1 {
				c.errorf(e.Args[1].Span(), "bad-argument", "the length of a string must be positive")
				return tInvalid
			}
			size = int(min(int64(size)-1, k.Int)) + 1
		} else {
			c.wantInt(e, 1, args[1])
		}
	}
	switch t := args[0]; {
	case t.Kind == Invalid:
		return t
	case t.Kind == String:
		if k, ok := c.info.Consts[e.Args[0]]; ok {
			return c.str(e, k.Str)
		}
		return t
	case t.isInt():
		// str($1) is the text of the parameter, number or not.
		if p, ok := e.Args[0].(*syntax.Param); ok {
			return c.str(e, c.paramText(p))
		}
		if b, ok := e.Args[0].(*syntax.Binary); ok {
			if text, ok := c.paramTail(b); ok {
				return c.str(e, text)
			}
		}
	case t.Kind == Pointer, c.charArray(t):
	default:
		c.errorf(e.Args[0].Span(), "type-mismatch", "str needs a pointer or an array of char, this is %s", describe(t))
		return tInvalid
	}
	return stringType(size)
}

// paramTail is what $1 + n means as text: the parameter without its first n
// bytes.
func (c *checker) paramTail(e *syntax.Binary) (string, bool) {
	p, isParam := e.X.(*syntax.Param)
	n, isConst := c.info.Consts[e.Y]
	if !isParam || !isConst || n.IsString || e.Op != syntax.OpAdd {
		return "", false
	}
	text := c.paramText(p)
	if n.Int < 0 || n.Int > int64(len(text)) {
		return "", false
	}
	return text[n.Int:], true
}

func (c *checker) paramText(p *syntax.Param) string {
	if p.N <= len(c.opts.Args) {
		return c.opts.Args[p.N-1]
	}
	return ""
}

func checkStack(c *checker, e *syntax.Call, args []*Type) *Type { return c.stackType(e.Func.Text, e) }

// stackType is the type of kstack and ustack with the arguments of e, which
// is nil for the bare word.
func (c *checker) stackType(name string, e *syntax.Call) *Type {
	t := &Type{Kind: Kstack, Size: stackSize, Len: 127, Mode: c.res.Config.StackMode}
	if name == "ustack" {
		t.Kind = Ustack
	} else if t.Mode == "build_id" {
		t.Mode = "raw" // the kernel's own stacks have none
	}
	if e == nil {
		return t
	}
	for i, a := range e.Args {
		if at := c.info.Types[a]; at.Kind == Mode {
			switch at.Mode {
			case "build_id":
				if name == "kstack" {
					c.errorf(a.Span(), "bad-argument", "the kernel's own stacks have no build IDs; there are bpftrace, perf and raw")
					return tInvalid
				}
				t.Mode = at.Mode
				continue
			case "bpftrace", "perf", "raw":
				t.Mode = at.Mode
				continue
			}
			c.errorf(a.Span(), "bad-argument", "%q is no way to show a stack; there are bpftrace, perf, raw and build_id", at.Mode)
			return tInvalid
		}
		n, ok := c.wantConst(e, i)
		if !ok {
			return tInvalid
		}
		if n < 1 || n > 1024 {
			c.errorf(a.Span(), "bad-argument", "the number of frames must be between 1 and 1024")
			return tInvalid
		}
		t.Len = int(min(n, 127))
	}
	return t
}

func checkSym(c *checker, e *syntax.Call, args []*Type) *Type {
	if !args[0].IsScalar() {
		c.errorf(e.Args[0].Span(), "type-mismatch", "%s needs an address, this is %s", e.Func.Text, describe(args[0]))
		return tInvalid
	}
	if e.Func.Text == "ksym" {
		return tKsym
	}
	return tUsym
}

func checkTime(c *checker, e *syntax.Call, args []*Type) *Type {
	if len(args) == 1 {
		c.wantString(e, 0)
	}
	return tNone
}

func checkStrftime(c *checker, e *syntax.Call, args []*Type) *Type {
	format, ok := c.wantString(e, 0)
	if !ok || !c.wantInt(e, 1, args[1]) {
		return tInvalid
	}
	return &Type{Kind: Timestamp, Size: 16, Mode: format}
}

func checkSpace(space Space) func(*checker, *syntax.Call, []*Type) *Type {
	return func(c *checker, e *syntax.Call, args []*Type) *Type {
		t := args[0]
		if t.Kind == Pointer {
			n := *t
			n.Space = space
			return &n
		}
		if !c.wantInt(e, 0, t) {
			return tInvalid
		}
		return &Type{Kind: Pointer, Size: 8, Space: space}
	}
}

func checkFormat(c *checker, e *syntax.Call, args []*Type) *Type {
	format, ok := c.wantString(e, 0)
	if !ok {
		return tNone
	}
	verbs, problem := Verbs(format)
	if problem != "" {
		c.errorf(e.Args[0].Span(), "bad-format", "%s", problem)
		return tNone
	}
	want := 0
	for _, v := range verbs {
		want += v.Args()
	}
	if want != len(args)-1 {
		c.errorf(e.Args[0].Span(), "wrong-argument-count", "the format takes %s, here are %d", counted(want, "value"), len(args)-1)
		return tNone
	}
	i := 1
	for _, v := range verbs {
		if v.Star {
			c.wantInt(e, i, args[i])
			i++
		}
		if v.Verb == '%' {
			continue
		}
		t := args[i]
		if v.Verb == 'g' {
			c.gfpFlags(e, i)
		}
		if !fits(v.Verb, t) {
			c.errorf(e.Args[i].Span(), "type-mismatch", "%%%s cannot show %s", v.Spec, describe(t)).
				Notef("%s", verbHint(t))
		}
		i++
	}
	return tNone
}

// fits reports whether a verb can show a value of type t.
func fits(verb byte, t *Type) bool {
	switch t.Kind {
	case Invalid:
		return true
	case None, Agg, Mode, Args:
		return false
	}
	switch verb {
	case 'd', 'i', 'u', 'o', 'x', 'X':
		return t.IsScalar()
	case 'c':
		return t.isInt()
	case 'p':
		return t.Kind == Pointer || t.isInt() || t.Kind == Ksym
	case 'r':
		return t.Kind == Buffer || t.Kind == Array
	}
	return true // %s shows everything in its own way
}

func verbHint(t *Type) string {
	switch {
	case t.IsScalar():
		return "%d shows it as a number, %x in hexadecimal"
	case t.Kind == Buffer:
		return "%r shows buffers"
	}
	return "%s shows it"
}

// A Verb is a conversion of a format string.
type Verb struct {
	// Text is what stands before the verb, literally.
	Spec string // flags, width, precision and length as written, with the verb
	Star bool   // the width is an argument
	Verb byte   // d i u o x X c s p r g %
}

// Args is the number of values the verb takes.
func (v Verb) Args() int {
	n := 1
	if v.Verb == '%' {
		n = 0
	}
	if v.Star {
		n++
	}
	return n
}

// VerbOf is the conversion that shows argument i after the format, '*' when it
// is a width.
func VerbOf(verbs []Verb, i int) byte {
	for _, v := range verbs {
		if v.Star {
			if i == 0 {
				return '*'
			}
			i--
		}
		if v.Verb != '%' {
			if i == 0 {
				return v.Verb
			}
			i--
		}
	}
	return 0
}

// Verbs returns the conversions of a format string, or says what is wrong
// with it.
func Verbs(format string) ([]Verb, string) {
	var verbs []Verb
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		start := i + 1
		i++
		v := Verb{}
		for i < len(format) && strings.IndexByte("-+ #0", format[i]) >= 0 {
			i++
		}
		if i < len(format) && format[i] == '*' {
			v.Star = true
			i++
		}
		for i < len(format) && (format[i] >= '0' && format[i] <= '9' || format[i] == '.') {
			i++
		}
		for i < len(format) && strings.IndexByte("hljzt", format[i]) >= 0 {
			i++
		}
		if i >= len(format) {
			return nil, "the format ends in the middle of a conversion; %% prints a percent sign"
		}
		v.Verb = format[i]
		gfp := strings.HasPrefix(format[i:], "gr")
		if strings.IndexByte("diuoxXcspr%", v.Verb) < 0 && !gfp {
			spec := format[start : i+1]
			if v.Verb < ' ' || v.Verb > '~' {
				return nil, "the conversion %" + spec[:len(spec)-1] + " has no letter; %% prints a percent sign"
			}
			return nil, "there is no conversion %" + spec + "; %% prints a percent sign"
		}
		if v.Verb == 'r' && i+1 < len(format) && (format[i+1] == 'x' || format[i+1] == 'h') {
			i++
		}
		if gfp {
			i++
		}
		v.Spec = format[start : i+1]
		verbs = append(verbs, v)
	}
	return verbs, ""
}

// counted is a number of things for people: "1 argument", "2 arguments".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return itoa(n) + " " + what + "s"
}

func itoa(n int) string {
	if n == 0 {
		return "no"
	}
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// FunctionNames lists the functions of the language.
func FunctionNames() []string { return slices.Sorted(maps.Keys(functions)) }
