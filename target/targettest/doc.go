// Package targettest is a small made-up machine for tests: a target whose
// facts stand in Go, so that tests run everywhere and see the same kernel.
//
// It must not be imported by anything but tests. Start reading at [Kernel].
package targettest
