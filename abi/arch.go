package abi

import "fmt"

// Arch is a processor architecture.
type Arch uint8

// The architectures skep compiles for, and I386, whose processes run on AMD64
// kernels with system call numbers of their own.
const (
	AMD64 Arch = iota
	ARM64
	RISCV64
	I386
)

var archNames = [...]string{"amd64", "arm64", "riscv64", "386"}

// String returns Go's name of the architecture.
func (a Arch) String() string {
	if int(a) < len(archNames) {
		return archNames[a]
	}
	return fmt.Sprintf("Arch(%d)", uint8(a))
}

// ParseArch returns the architecture with Go's name or the kernel's.
func ParseArch(name string) (Arch, bool) {
	switch name {
	case "amd64", "x86_64", "x86":
		return AMD64, true
	case "arm64", "aarch64":
		return ARM64, true
	case "riscv64", "riscv":
		return RISCV64, true
	case "386", "i386", "i686":
		return I386, true
	}
	return 0, false
}
