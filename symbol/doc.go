// Package symbol turns addresses into names and names into addresses: kernel
// symbols, ELF symbol tables, Go's function table, DWARF, USDT notes, perf
// maps of JIT compilers, and whole processes from their memory maps.
//
// It imports nothing else of skep and never touches a live kernel: it is
// given readers, bytes or file systems ([io/fs.FS]), so the same code serves
// the running machine, a saved snapshot, and systems that are not Linux.
// Whatever it reads may come from a hostile process: every size is checked
// against the input before memory is allocated for it.
//
// Start reading at [Kallsyms] for the kernel, at [Binary] for one ELF file,
// and at [Symbolizer] for processes.
package symbol
