// Package skep programs the Linux kernel from Go: it compiles scripts of the
// tracing language to portable BPF objects, runs them or any other object in
// the kernel, and delivers typed events. It also runs any object inside this
// process, verified first and with no privilege, for tests and for programs that
// extend a server.
//
// It must not import user interfaces, which are built on it. Start reading at
// [Compile] and [Run]; for the engine inside the process at [NewCollection], which
// takes what ebpf.NewCollection does, and at [Hook].
package skep
