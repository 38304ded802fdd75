// Package rootless runs objects on the embedded engine over events that take no
// privilege: the system calls of a process tree, followed by ptrace.
//
// It must not import the kernel room, compilers or anything that shows results.
// Start reading at [New]; [Target] is what scripts are compiled for, tracer is
// what follows processes.
package rootless
