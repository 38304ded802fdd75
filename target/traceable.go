package target

import (
	"fmt"
	"slices"
)

// WithFunctions returns t with other functions that can be traced than those
// it lists itself. text has a function a line, as tracefs'
// available_filter_functions: "name", or "name [module]".
func WithFunctions(t Target, text string) Target {
	return &traceable{t, sortFunctions(parseFunctions(text))}
}

// Underlying returns the target that t was made of by [WithFunctions], or t.
func Underlying(t Target) Target {
	if w, ok := t.(*traceable); ok {
		return w.Target
	}
	return t
}

type traceable struct {
	Target
	functions []Function
}

func (t *traceable) Functions() ([]Function, error) { return t.functions, nil }

func (t *traceable) Function(module, name string) ([]Function, error) {
	var found []Function
	for _, f := range t.functions {
		if f.Name == name && (module == "" || f.Module == module || module == "vmlinux" && f.Module == "") {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("kernel function %q: %w", Function{name, module}, ErrNotFound)
	}
	return slices.Clip(found), nil
}
