package hook

import (
	"iter"
	"time"

	"github.com/skep-bpf/skep/target"
)

func parse(text string) (Point, error)                            { return Point{}, &Error{Message: "not yet"} }
func parseSection(name string) (Point, error)                     { return Point{}, &Error{Message: "not yet"} }
func (p Point) format() string                                    { return p.Text }
func (p Point) section() (string, bool)                           { return "", false }
func (p Point) hasWildcard() bool                                 { return false }
func fieldRange(text, field string) (int, int, bool)              { return 0, 0, false }
func period(u Unit, rate uint64) time.Duration                    { return 0 }
func expand(t target.Target, p Point, o Options) ([]Point, error) { return nil, nil }
func list(t target.Target, pattern string, details bool, o Options) iter.Seq2[Entry, error] {
	return nil
}
