// Package object is the one interchange of skep: BPF programs, maps, types,
// relocations and line info as an ELF file of the kind that clang writes and
// libbpf loads, plus a [Manifest] in a section of its own that says what the
// object's source would have printed.
//
// It is pure and deterministic: no system calls, and equal input gives equal
// bytes. It must not import compilers, machines or user interfaces. Start
// reading at [Object], then [Manifest]; [Write] and [Read] go to ELF and back,
// [ToCollectionSpec] to what package ebpf loads.
package object
