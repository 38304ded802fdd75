package check

import (
	"fmt"

	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// declareByUse makes a variable whose first value is given without let.
func (c *checker) declareByUse(n *syntax.Var) *Var {
	if !c.hoist[c.hoistKey(n.Name)] {
		if c.depth() > 1 {
			c.inner[n.Name] = true
		}
		return c.declare(n)
	}
	here := c.scope
	for c.scope.outer != nil {
		c.scope = c.scope.outer
	}
	v := c.declare(n)
	v.Hoisted = true
	c.scope = here
	c.warnf(n.Loc, "hoisted-variable", "$%s gets its first value in an inner block but is used outside of it", plainName(n.Name)).
		Notef("declare it before: let $%s", plainName(n.Name))
	return v
}

func (c *checker) hoistKey(name string) string { return fmt.Sprint(c.instNo, ".", name) }

// depth is how many blocks are around; a probe's body is the first.
func (c *checker) depth() int {
	n := 0
	for s := c.scope.outer; s != nil; s = s.outer {
		n++
	}
	return n
}

// hoisted makes a variable that was first assigned in an inner block, which is
// over, live in the whole program from the next round on.
func (c *checker) hoisted(n *syntax.Var) bool {
	if !c.inner[n.Name] {
		return false
	}
	c.hoist[c.hoistKey(n.Name)] = true
	c.changed = true
	return true
}
