// Package check resolves names and types of the tracing language.
//
// A probe whose body means different things at different attach points (its
// args differ) is checked once for each of them: the result is a list of
// [Instance], each with tables from syntax nodes to what they mean. Maps are
// shared by all instances and their types are found by iterating until nothing
// changes.
//
// It must not import ir, object or anything that knows BPF instructions.
// Start reading at [Program], then [Result].
package check
