// Package interp executes linked BPF programs by interpretation, on every
// system.
//
// It imports only the contract (vm/engine), the memory (vm/cage) and isa. Start
// reading at [Engine.Run]; decode.go turns instructions into what it runs on.
package interp
