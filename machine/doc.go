// Package machine is the one interface to the two machines that run objects:
// the Linux kernel and the engine inside skep.
//
// It holds no code that runs anything and must not import either machine.
// Start reading at [Machine].
package machine
