// Package domain is arithmetic on what may be known of a number: single bits
// ([Tnum]) and ranges in 64 and 32 bits, signed and unsigned ([Scalar]).
//
// It must not import anything of skep: it knows no registers, no instructions
// and no programs. Every operator is sound (what it says of a result holds for
// the result of every number it was told of) and computes exactly as much as
// Linux 6.18's kernel/bpf/tnum.c and verifier.c do, since a domain that knew
// more would accept what the kernel refuses. Start reading at [Scalar].
package domain
