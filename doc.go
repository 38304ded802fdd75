// Package skep programs the Linux kernel from Go: it compiles scripts of the
// tracing language to portable BPF objects, runs them or any other object in
// the kernel, and delivers typed events.
//
// Start reading at [Compile] and [Run].
package skep
