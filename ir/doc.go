// Package ir is the compiler's middle: typed SSA with block arguments, made
// for several source languages and shaped by none of them.
//
// A [Module] holds functions, maps, global variables and the types they speak
// of. A [Func] is a list of blocks; a block has parameters instead of phis,
// values in order, and one terminator. Every [Value] has a type, a position
// in the source, and explicit memory effects ([Value.Effects]).
//
// The type of a pointer carries the [Space] it points into and whether it may
// be null; the space alone decides how a load through it is lowered. Aggregates
// live in memory and are spoken of with BTF types (cilium/ebpf's btf package).
//
// The package must not import any source language, nor anything that knows
// BPF registers or instructions. Start reading at [Value], then [Op].
package ir
