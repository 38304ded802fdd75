// Package json shows the events of a run as lines of JSON, in the form of
// bpftrace's: {"type": ..., "data": ...}.
//
// It decides nothing; it must not import compilers or machines. Start reading
// at [Printer].
package json
