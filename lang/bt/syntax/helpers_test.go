package syntax

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

var spanType = reflect.TypeFor[source.Span]()

// dump writes a tree as nested lists, without spans: (Binary + (Ident "a") ...).
func dump(v any) string {
	var b strings.Builder
	dumpValue(&b, reflect.ValueOf(v))
	return b.String()
}

func dumpValue(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		dumpValue(b, v.Elem())
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(' ')
			}
			dumpValue(b, v.Index(i))
		}
		b.WriteByte(']')
	case reflect.Struct:
		b.WriteByte('(')
		b.WriteString(v.Type().Name())
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Type == spanType || !f.IsExported() {
				continue
			}
			if f.Type.Kind() == reflect.Bool {
				if v.Field(i).Bool() {
					b.WriteString(" " + f.Name)
				}
				continue
			}
			b.WriteByte(' ')
			dumpValue(b, v.Field(i))
		}
		b.WriteByte(')')
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	default:
		if op, ok := v.Interface().(Op); ok {
			b.WriteString(op.String())
			return
		}
		fmt.Fprint(b, v.Interface())
	}
}

// render draws diagnostics as a user sees them.
func render(l source.List) string {
	var b strings.Builder
	_ = source.RenderAll(&b, l, source.Style{})
	return b.String()
}

// parseOK parses text that must be right.
func parseOK(t *testing.T, text string, opts Options) *Program {
	t.Helper()
	p, diags := Parse(source.NewFile("test.bt", text), opts)
	if len(diags) > 0 {
		t.Fatalf("%s\nparsing:\n%s", render(diags), text)
	}
	return p
}

// checkSpans reports nodes whose span lies outside the file or outside their
// parent's.
func checkSpans(p *Program) error {
	var stack []Node
	var check func(n Node) error
	check = func(n Node) error {
		loc := n.Span()
		if loc.File != p.File || loc.Start < 0 || loc.End < loc.Start || loc.End > len(p.File.Text) {
			return fmt.Errorf("%T has the impossible span [%d,%d)", n, loc.Start, loc.End)
		}
		if len(stack) > 0 {
			outer := stack[len(stack)-1].Span()
			if loc.Start < outer.Start || loc.End > outer.End {
				return fmt.Errorf("%T %q [%d,%d) is not within its %T %q [%d,%d)", n, loc.Text(), loc.Start, loc.End,
					stack[len(stack)-1], outer.Text(), outer.Start, outer.End)
			}
		}
		if _, ok := n.(*Declarator); ok {
			return nil // its type starts before it, at the declaration's base
		}
		stack = append(stack, n)
		defer func() { stack = stack[:len(stack)-1] }()
		var err error
		Walk(n, func(c Node) bool {
			if c == n {
				return true
			}
			if err == nil {
				err = check(c)
			}
			return false
		})
		return err
	}
	return check(p)
}

// checkRoundTrip reports where p, printed and read again, is not p.
func checkRoundTrip(p *Program) error {
	text := Print(p)
	again, diags := Parse(source.NewFile("printed.bt", text), Options{})
	if diags.HasErrors() {
		return fmt.Errorf("what was printed has errors:\n%s\n%s", render(diags), text)
	}
	if a, b := dump(p.Decls), dump(again.Decls); a != b {
		return fmt.Errorf("what was printed reads otherwise:\n%s\n was %s\n  is %s", text, a, b)
	}
	return nil
}

// checkFormat reports what is wrong with the formatted form of text, if it
// can be formatted.
func checkFormat(text string) error {
	once, diags := Format(source.NewFile("test.bt", text))
	for _, d := range diags {
		if d.Code == "format-unsafe" {
			return fmt.Errorf("the formatter would change what the text says")
		}
	}
	if diags.HasErrors() {
		return nil
	}
	twice, diags := Format(source.NewFile("formatted.bt", once))
	if diags.HasErrors() {
		return fmt.Errorf("formatted text has errors:\n%s", render(diags))
	}
	if once != twice {
		return fmt.Errorf("formatting again changes:\n%s\n---\n%s", once, twice)
	}
	return nil
}
