package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
)

// helperToken runs in a user namespace of its own. It has the bpf file system
// that the parent prepares, by way of descriptor 3, and with its token loads
// and attaches the object of standard input.
func helperToken() error {
	elf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	if err := unix.Sendmsg(3, []byte("x"), unix.UnixRights(fs), nil, 0); err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	if _, err := unix.Read(3, make([]byte, 1)); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	if _, err := New().Load(context.Background(), elf, machine.LoadOptions{}); err == nil {
		return errors.New("it was loaded without a token")
	}
	l, err := New().Load(context.Background(), elf, machine.LoadOptions{TokenPath: fmt.Sprintf("/proc/self/fd/%d", mount)})
	if err != nil {
		return err
	}
	defer l.Close()
	if _, errs := l.Attach(context.Background(), []machine.Attach{{Program: "prog"}}); errs[0] != nil {
		return errs[0]
	}
	getpid(1)
	v, err := l.Var("hits")
	if err != nil {
		return err
	}
	if b, err := v.Get(); err != nil || b[0]|b[1] == 0 {
		return fmt.Errorf("it did not run: %v", err)
	}
	fmt.Println("it ran")
	return nil
}

// TestToken has a process of another user namespace, whose capabilities do not
// count, load programs by a BPF token that it was delegated, or be told what
// the token does not allow.
func TestToken(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		if r := liveTarget(t).Release(); !r.AtLeast(6, 9) {
			if _, err := createToken("/sys/fs/bpf"); err == nil || !strings.Contains(err.Error(), "BPF token") {
				t.Errorf("on an old kernel: %v", err)
			}
			return
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		exe = readableCopy(t, exe)
		elf := elfOf(t, newCounter().program("prog", "raw_tp/sys_enter", false, 0).o)
		for _, tt := range []struct{ programs, want string }{
			{"any", "it ran"},
			{"socket_filter", "the BPF token does not allow it"},
		} {
			out, err := delegated(t, exe, elf, tt.programs)
			if errors.Is(err, errNoUserNamespace) {
				testenv.Skip(t, testenv.Root, "%v", err)
			}
			if err != nil || !strings.Contains(out, tt.want) {
				t.Errorf("with programs %s: %v, %s, want %q", tt.programs, err, out, tt.want)
			}
		}
	})
}

var errNoUserNamespace = errors.New("user namespaces cannot be made here")

// delegated runs the helper and prepares its file system with delegation.
func delegated(t *testing.T, exe string, elf []byte, programs string) (string, error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "mine"), os.NewFile(uintptr(pair[1]), "theirs")
	defer mine.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := startHelper(ctx, "token", elf)
	cmd.Path = exe
	cmd.ExtraFiles = []*os.File{theirs}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%w: %w", errNoUserNamespace, err)
	}
	theirs.Close()
	prepare := func() error {
		data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(pair[0], data, rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return fmt.Errorf("the helper sent no file system (%v)", err)
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
		for key, value := range map[string]string{
			"delegate_cmds": "any", "delegate_maps": "any", "delegate_progs": programs, "delegate_attachs": "any",
		} {
			if err := unix.FsconfigSetString(fds[0], key, value); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		if err := unix.FsconfigCreate(fds[0]); err != nil {
			return err
		}
		_, err = unix.Write(pair[0], []byte("x"))
		return err
	}
	err = prepare()
	if err != nil {
		cmd.Process.Kill()
	}
	cmd.Wait() // what it says tells
	return out.String(), err
}
