// Package codegen turns the compiler's middle form into an object: it chooses
// instructions, registers and stack slots, and writes down relocations, CO-RE
// records, line info and the types of functions.
//
// It must not import the verifier, any machine, or any source language: what
// it makes is judged by others. Start reading at [Generate]; the stages are
// legalisation (legalise.go), selection (select.go), constants in front of
// branches (hoist.go), allocation (alloc.go, split.go, reload.go), the frame
// (frame.go) and layout (layout.go), all on the form in machine.go.
package codegen
