// Command skep compiles, runs and explains BPF programs.
//
// It must not import anything but the root package, the types that it deals
// in and the user interfaces: what it can do, a Go program can do too. Start
// reading at run in main.go; each command has a file of its own.
package main
