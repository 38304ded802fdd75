// Package runner runs an object on a machine: it attaches programs, turns
// records of the ring buffer into typed events, takes snapshots of maps,
// counts losses, and ends everything in order.
//
// It draws nothing and must not import compilers, machines or user
// interfaces. Start reading at [Run].
package runner
