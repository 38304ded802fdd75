// Command skep compiles, runs and explains BPF programs.
//
// It must not import anything but the root package and the user interfaces:
// what it can do, a Go program can do too. Start reading at run in main.go.
package main
