package kernel

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// inNetNamespace runs f in a network namespace of its own, whose loopback
// interface is up. The thread that it runs on is not used again.
func inNetNamespace(t *testing.T, f func(t *testing.T, lo string)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace: %v", err)
			return
		}
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		var req struct {
			name  [16]byte
			flags uint16
			_     [22]byte
		}
		copy(req.name[:], "lo")
		req.flags = unix.IFF_UP | unix.IFF_RUNNING
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); errno != 0 {
			t.Error(errno)
			return
		}
		f(t, "lo")
	}()
	<-done
}

// send sends n datagrams to this host, on this thread, and tells whether they
// could be sent.
func send(n int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for range n {
		if err := unix.Sendto(s, []byte("x"), 0, &unix.SockaddrInet4{Port: 9999, Addr: [4]byte{127, 0, 0, 1}}); err != nil && err != unix.ECONNREFUSED {
			return err
		}
	}
	return nil
}

func TestNet(t *testing.T) {
	guest.Matrix(t, oneCPU, func(t *testing.T) {
		needKernel(t)
		for _, tt := range []struct {
			section, target string
			result          int32
			since           int // minor release of 6
			trigger         func() error
		}{
			{"xdp", "IFACE", 2, 0, func() error { return send(5) }},
			{"xdp.frags", "IFACE", 2, 0, func() error { return send(5) }},
			{"tcx/ingress", "IFACE", -1, 6, func() error { return send(5) }},
			{"tc/egress", "IFACE", -1, 6, func() error { return send(5) }},
			{"tc", "IFACE:egress", -1, 6, func() error { return send(5) }},
			{"socket", "IFACE", 0, 0, func() error { return send(5) }},
			{"netfilter", "ipv4:input:-100", 1, 4, func() error { return send(5) }},
			{"sk_lookup", "/proc/thread-self/ns/net", 1, 0, func() error { return send(5) }},
		} {
			t.Run(tt.section, func(t *testing.T) {
				inNetNamespace(t, func(t *testing.T, lo string) {
					l, err := New().Load(t.Context(), elfOf(t, newCounter().program("prog", tt.section, false, tt.result).o), machine.LoadOptions{})
					old := !liveTarget(t).Release().AtLeast(6, tt.since)
					if err != nil {
						if !old || !strings.Contains(err.Error(), "Linux has") {
							t.Error(err)
						}
						return
					}
					defer l.Close()
					target := strings.Replace(tt.target, "IFACE", interfaceNumber(lo), 1)
					links, errs := l.Attach(t.Context(), []machine.Attach{{Program: "prog", Target: target}})
					if old {
						if errs[0] == nil || !strings.Contains(errs[0].Error(), "Linux has") {
							t.Errorf("on an old kernel: %v", errs[0])
						}
						return
					}
					if errs[0] != nil {
						t.Error(errs[0])
						return
					}
					if err := tt.trigger(); err != nil {
						t.Error(err)
					}
					if err := links[0].Close(); err != nil {
						t.Error(err)
					}
					n := number(t, l, "hits")
					if n == 0 {
						t.Error("it did not run")
					}
					if err := tt.trigger(); err != nil {
						t.Error(err)
					}
					if number(t, l, "hits") != n {
						t.Error("it ran after it was detached")
					}
				})
			})
		}
	})
}

// interfaceNumber is the number of the loopback interface, which is 1 in every
// namespace. A single attachment is made by the goroutine that asks for it, and
// so in the namespace of its thread.
func interfaceNumber(string) string { return "1" }

// cgroupDir makes a cgroup and returns its path.
func cgroupDir(t *testing.T) string {
	t.Helper()
	root := cgroupRoot()
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		root = t.TempDir()
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("cgroup v2 cannot be mounted: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(root, 0) })
	}
	dir := filepath.Join(root, fmt.Sprintf("skep-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 {
			if err := os.Remove(dir); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s cannot be removed", dir)
	})
	return dir
}

func TestCgroup(t *testing.T) {
	guest.Matrix(t, oneCPU, func(t *testing.T) {
		needKernel(t)
		dir := cgroupDir(t)
		for _, tt := range []struct {
			section string
			result  int32
		}{
			{"cgroup/sock_create", 1}, {"cgroup/connect4", 1}, {"cgroup/dev", 1}, {"cgroup_skb/egress", 1}, {"sockops", 0}, // 1 would answer the kernel's questions, with 0
		} {
			t.Run(tt.section, func(t *testing.T) {
				l := loadObject(t, newCounter().program("prog", tt.section, false, tt.result).o, machine.LoadOptions{})
				link := attach(t, l, machine.Attach{Program: "prog", Target: dir})
				busy(t, dir)
				n := number(t, l, "hits")
				if n == 0 {
					t.Error("it did not run")
				}
				if err := link.Close(); err != nil {
					t.Error(err)
				}
				busy(t, dir)
				if number(t, l, "hits") != n {
					t.Error("it ran after it was detached")
				}
			})
		}
	})
}

// busy runs a process in a cgroup that opens a device and connects to a socket.
func busy(t *testing.T, dir string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	cmd := startHelper(t.Context(), "busy", nil, dir, ln.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func helperBusy() error {
	if err := os.WriteFile(os.Args[1]+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	f.Close()
	c, err := net.Dial("tcp4", os.Args[2])
	if err != nil {
		return err
	}
	return c.Close()
}

// A program of a map of sockets is attached where links for it exist and where
// they do not, and let go.
func TestSockMap(t *testing.T) {
	guest.Matrix(t, oneCPU, func(t *testing.T) {
		needKernel(t)
		c := newCounter().program("prog", "sk_msg", false, 1)
		c.o.Maps = []*object.Map{{Name: "socks", Type: uint32(abi.MapSockmap), KeySize: 4, ValueSize: 4, MaxEntries: 4}}
		l := loadObject(t, c.o, machine.LoadOptions{})
		link := attach(t, l, machine.Attach{Program: "prog", Target: "socks"})
		if err := link.Close(); err != nil {
			t.Error(err)
		}
		attach(t, l, machine.Attach{Program: "prog", Target: "socks"})
	})
}
