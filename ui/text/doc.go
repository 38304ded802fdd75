// Package text shows the events of a run as text, in the form of bpftrace
// where scripts could parse it.
//
// It decides nothing; it must not import compilers or machines. Start reading
// at [Printer].
package text
