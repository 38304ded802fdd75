// Package skep programs the Linux kernel from Go: it compiles scripts of the
// tracing language to portable BPF objects, runs them or any other object in
// the kernel, and delivers typed events.
//
// It must not import user interfaces, which are built on it. Start reading at [Compile] and [Run].
package skep
