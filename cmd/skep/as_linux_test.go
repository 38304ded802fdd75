package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// as is a program for scripts: "as nobody skep ..." runs the rest as an
// ordinary user, "as cap_bpf,cap_perfmon skep ..." as root with these
// capabilities and no others.
func as() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: as {nobody | none | CAPABILITY,...} skep ...")
		os.Exit(2)
	}
	runtime.LockOSThread()
	if err := become(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "as:", err)
		os.Exit(2)
	}
	// By this path the binary is reached even where its directory is closed to
	// the user.
	err := syscall.Exec("/proc/self/exe", os.Args[2:], os.Environ())
	fmt.Fprintln(os.Stderr, "as:", err)
	os.Exit(2)
}

func become(who string) error {
	if who == "nobody" {
		const nobody = 65534
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := syscall.Setgid(nobody); err != nil {
			return err
		}
		return syscall.Setuid(nobody)
	}
	keep := map[int]bool{}
	for name := range strings.SplitSeq(who, ",") {
		switch name {
		case "none":
		case "cap_bpf":
			keep[unix.CAP_BPF] = true
		case "cap_perfmon":
			keep[unix.CAP_PERFMON] = true
		case "cap_sys_admin":
			keep[unix.CAP_SYS_ADMIN] = true
		default:
			return fmt.Errorf("unknown capability %q", name)
		}
	}
	// A program that root executes gets the bounding set.
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}
