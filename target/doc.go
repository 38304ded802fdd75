// Package target holds what is known of a machine that programs are compiled
// and checked for: its types, event formats, functions, symbols, files and
// features; live, or from a snapshot that was saved elsewhere.
//
// It must not attach anything, and makes no system call of its own: raw facts
// come from a [Source], of which the live one is in the room kernel, and another
// reads what [Save] wrote. Everything is read when it is first asked for and not
// before.
//
// Start reading at [Target]; types are in [typeindex].
package target
