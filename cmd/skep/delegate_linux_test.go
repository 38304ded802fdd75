package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// delegate is a program for scripts: "delegate DIR PROGS CMD..." runs a command
// in a user namespace of its own, whose capabilities count for nothing outside
// of it, with a bpf file system at DIR that delegates programs of the types
// PROGS ("any", "socket_filter") and everything else. With "-" for PROGS it
// delegates nothing.
func delegate() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: delegate DIR PROGS CMD [ARGS...]")
		os.Exit(2)
	}
	run := delegator
	if os.Getenv(delegated) != "" {
		run = delegatee
	}
	err := run(os.Args[1], os.Args[2], os.Args[3:])
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		os.Exit(e.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "delegate:", err)
		os.Exit(2)
	}
}

// delegated marks, in the environment, the process inside of the namespace.
const delegated = "SKEP_TEST_DELEGATED"

// delegator starts itself in the namespaces, and says for the file system that
// was opened there what it delegates, which only the outer root may.
func delegator(dir, progs string, args []string) error {
	self, err := exec.LookPath("delegate")
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "mine"), os.NewFile(uintptr(pair[1]), "theirs")
	defer mine.Close()
	defer theirs.Close()
	cmd := exec.Command(self, append([]string{dir, progs}, args...)...)
	cmd.Env = append(os.Environ(), delegated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = configure(pair[0], progs)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	return errors.Join(err, cmd.Wait())
}

func configure(socket int, progs string) error {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return fmt.Errorf("no file system came: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	if progs != "-" {
		for _, o := range [][2]string{{"delegate_cmds", "any"}, {"delegate_maps", "any"}, {"delegate_progs", progs}, {"delegate_attachs", "any"}} {
			if err := unix.FsconfigSetString(fds[0], o[0], o[1]); err != nil {
				return fmt.Errorf("%s: %w", o[0], err)
			}
		}
	}
	if err := unix.FsconfigCreate(fds[0]); err != nil {
		return err
	}
	_, err = unix.Write(socket, []byte("x"))
	return err
}

// delegatee mounts the file system and becomes the command.
func delegatee(dir, _ string, args []string) error {
	os.Unsetenv(delegated)
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte("x"), unix.UnixRights(fs), nil, 0); err != nil {
		return err
	}
	if _, err := unix.Read(3, make([]byte, 1)); err != nil {
		return err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting at %s: %w", dir, err)
	}
	unix.CloseOnExec(3)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
