// Package opt makes better code of ir by passes that stand in one table, each
// with what it needs and why.
//
// It must not import any source language, nor anything that knows BPF
// registers or instructions. Start reading at the table of passes in opt.go.
//
// # What the verifier needs
//
// Code that is equal to people is not equal to the kernel's verifier. Every
// pass keeps to these rules:
//
//   - A bound is checked on the very value that is used. A value that a
//     comparison looks at is never computed away into what it came from, and a
//     value is merged with an equal one only in all its uses at once, the
//     comparisons included. A value is not compared before it is widened when
//     the wide one is used for anything else.
//   - A null check stays a branch on the pointer itself. Comparisons of
//     pointers with null are folded for addresses that the program itself
//     made, never because of a type; OpNonNull stays behind its branch.
//   - Conditions made by "and" and "or" become branches, since the verifier
//     learns from branches only.
//   - Pointer comparisons and arithmetic stay on pointers. Pointers moved by
//     constants are written from one base, which is how the verifier relates
//     them; a pointer moved by a variable is computed once.
//   - Masks are dropped when the bits of what they mask show that they do
//     nothing, never because of a branch.
//   - Plain loads are not moved up: a check may be in front of them. Reads of
//     kernel and user memory go by helper, cannot fail loudly, and may move.
//   - Loops keep one entry, and no pass makes a loop.
//   - Operations with volatile effects stay and keep their order; what
//     finds a key in a map is merged with what found the same before.
//   - The truth of a comparison is computed without a branch only where it is
//     added to a sum: otherwise the verifier walks both ways, and knows on each
//     what was compared.
//
// Memory that others may write too (map values, kernel memory) is taken to
// hold what it held a moment ago, as C does for what is not volatile: a value
// that was read is not read again, a key that was looked up is not looked up
// again, until the program itself writes there.
package opt
