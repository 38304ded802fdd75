// Package typeindex finds types in the kernel's BTF without decoding all of
// it: a look-up is one scan over the raw type section, and only what was
// asked for becomes [btf.Type] values.
//
// It must not import any other package of skep. Start reading at [Types].
package typeindex
