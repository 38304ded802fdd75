package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Programs whose events scripts know.

// packet sends "hello" over the loopback device of a network namespace of its own.
func packet() {
	runtime.LockOSThread()
	if err := sendPacket(); err != nil {
		fmt.Fprintln(os.Stderr, "packet:", err)
		os.Exit(1)
	}
}

func sendPacket() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return err
	}
	// Somebody listens, so that no error comes back.
	addr := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, addr); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("hello"), 0, addr)
}

// pidns runs a command as the first process of a PID namespace, with a /proc and a
// /sys/fs/bpf of its own.
func pidns() {
	const again = "SKEP_TEST_PIDNS"
	if os.Getenv(again) != "" {
		os.Unsetenv(again)
		err := unix.Mount("proc", "/proc", "proc", 0, "")
		if err == nil {
			err = unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "")
		}
		if err == nil {
			var path string
			if path, err = exec.LookPath(os.Args[1]); err == nil {
				err = syscall.Exec(path, os.Args[1:], os.Environ())
			}
		}
		fmt.Fprintln(os.Stderr, "pidns:", err)
		os.Exit(2)
	}
	self, err := exec.LookPath("pidns")
	if err != nil {
		fmt.Fprintln(os.Stderr, "pidns:", err)
		os.Exit(2)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), again+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	err = cmd.Run()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		os.Exit(e.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pidns:", err)
		os.Exit(2)
	}
}

// signalled waits for signals and says which came: "signalled" once it waits,
// calling getpgid again and again, and ends with the first.
func signalled() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1, unix.SIGUSR2)
	for range 5000 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
		select {
		case s := <-c:
			fmt.Println("got", unix.SignalName(s.(syscall.Signal)))
			return
		case <-time.After(time.Millisecond):
		}
	}
	fmt.Println("got nothing")
}

// written looks at memory that it hands to the kernel in a system call, and says
// what is there after it.
func written() {
	text := []byte("unchanged\x00")
	for range 5000 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_FACCESSAT, ^uintptr(99), uintptr(unsafe.Pointer(&text[0])), 0)
		if text[0] != 'u' {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Printf("%s\n", text[:len(text)-1])
}

// showCapture is "skep-capture FILE": it prints the packets of a capture.
func showCapture() {
	data, err := os.ReadFile(os.Args[1])
	if err != nil || len(data) < 24 {
		fmt.Fprintln(os.Stderr, "skep-capture: no capture:", err)
		os.Exit(1)
	}
	link := "link type " + strconv.Itoa(int(binary.LittleEndian.Uint32(data[20:])))
	if link == "link type 101" {
		link = "raw IP"
	}
	for data = data[24:]; len(data) >= 16; {
		n := int(binary.LittleEndian.Uint32(data[8:]))
		fmt.Printf("%s, %d bytes: % x\n", link, n, data[16:16+n])
		data = data[16+n:]
	}
}
