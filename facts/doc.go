// Package facts computes what an object relies on of a machine, in the same
// way where it is compiled and where it is loaded, so that the two can be
// compared.
//
// It must not import a compiler or a machine. Start reading at [Value].
package facts
