package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/guest"
)

// TestLockdown locks a kernel down further and further. What is then refused
// is said to be refused by that, although root asks for it.
func TestLockdown(t *testing.T) {
	k := guest.Kernels[len(guest.Kernels)-1]
	guest.Test(t, k, guest.Config{CPUs: 1, Cmdline: "lsm=lockdown,capability,bpf"}, func(t *testing.T) {
		const security = "/sys/kernel/security"
		run := func(args ...string) string {
			out, _ := exec.Command("skep", args...).CombinedOutput()
			return string(out)
		}
		if _, err := os.Stat(security + "/lockdown"); err != nil {
			if out := run("doctor"); !strings.Contains(out, "mount -t securityfs") {
				t.Errorf("securityfs is not mounted, and doctor says:\n%s", out)
			}
			if err := unix.Mount("securityfs", security, "securityfs", 0, ""); err != nil {
				t.Fatal(err)
			}
		}
		mode := func(name string) {
			if err := os.WriteFile(security+"/lockdown", []byte(name), 0); err != nil {
				t.Fatal(err)
			}
		}
		const reads = `BEGIN { printf("comm %s\n", comm); @ = ((struct task_struct *)curtask)->pid; exit(); }`
		if out := run("run", "-e", reads); !strings.Contains(out, "comm skep\n") {
			t.Fatalf("without lockdown: %s", out)
		}
		mode("integrity")
		if out := run("run", "-e", reads); !strings.Contains(out, "comm skep\n") {
			t.Errorf("with integrity: %s", out)
		}
		if out := run("doctor"); !strings.Contains(out, "integrity: programs cannot write to user memory") {
			t.Errorf("doctor says:\n%s", out)
		}
		mode("confidentiality")
		out := run("run", "-e", `BEGIN { printf("%s\n", str(kptr(curtask))); exit(); }`)
		if !strings.Contains(out, "lockdown=confidentiality") || strings.Contains(out, "errno") {
			t.Errorf("with confidentiality: %s", out)
		}
		if out := run("doctor"); !strings.Contains(out, "confidentiality: programs cannot read kernel memory") || !strings.Contains(out, "boot with lockdown=integrity") {
			t.Errorf("doctor says:\n%s", out)
		}
	})
}
