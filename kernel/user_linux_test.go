package kernel

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/target"
)

// userProgram returns the path of testdata/usdt.c, compiled, and what brings it
// into a guest.
func userProgram(t *testing.T) (string, guest.Files) {
	t.Helper()
	const inGuest = "/skep-usdt"
	if testenv.InGuest() != "" {
		return inGuest, nil
	}
	path := filepath.Join(t.TempDir(), "usdt")
	cmd := exec.Command(testenv.NeedTool(t, "clang"), "-O2", "-o", path, "testdata/usdt.c")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	files := guest.Program(t, path)
	delete(files, path)
	files[inGuest] = path
	return path, files
}

// chat starts the program and returns what makes it go round once, and tells
// how many semaphores let it through.
func chat(t *testing.T, path string) (pid int, once func() (open int)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	return cmd.Process.Pid, func() (open int) {
		t.Helper()
		fmt.Fprintln(in, "go")
		line, err := lines.ReadString('\n')
		var twice int
		if _, err2 := fmt.Sscan(line, &open, &twice); err != nil || err2 != nil || twice != 2 {
			t.Fatalf("%q, %v, %v", line, err, err2)
		}
		return open
	}
}

// TestUserProgram attaches to functions and USDT probes of a program in C, one
// place at a time and by links of many, where the kernel has them.
func TestUserProgram(t *testing.T) {
	path, files := userProgram(t)
	cfg := oneCPU
	cfg.Files = files
	guest.Matrix(t, cfg, func(t *testing.T) {
		needKernel(t)
		pid, once := chat(t, path)
		for _, tt := range []struct {
			section, point string
			hits           uint64
			open           int
		}{
			{"uprobe", "uprobe:%s:twice", 1, 0},
			{"uretprobe", "uretprobe:%s:twice", 1, 0},
			{"uprobe.multi", "uprobe:%s:twice", 1, 0},
			{"uretprobe.multi", "uretprobe:%s:twice", 1, 0},
			{"uprobe.s", "uprobe:%s:twice", 1, 0},
			{"uprobe", "uprobe:%s:tw*e", 1, 0},
			{"usdt", "usdt:%s:skep:always", 1, 0},
			{"usdt", "usdt:%s:always", 1, 0},
			{"usdt", "usdt:%s:skep:guarded", 2, 2},
			{"usdt.s", "usdt:%s:skep:guarded", 2, 2},
			{"uprobe", "usdt:%s:skep:guarded", 2, 2},
		} {
			for _, p := range []int{0, pid} {
				t.Run(fmt.Sprintf("%s %s %v", tt.section, fmt.Sprintf(tt.point, ""), p != 0), func(t *testing.T) {
					l := loadObject(t, newCounter().program("prog", tt.section, true, 0).o, machine.LoadOptions{})
					link := attach(t, l, machine.Attach{
						Program: "prog", Points: []hook.Point{point(t, fmt.Sprintf(tt.point, path))}, Cookies: []uint64{99}, PID: p,
					})
					if open := once(); open != tt.open {
						t.Errorf("%d semaphores are open, want %d", open, tt.open)
					}
					if n := number(t, l, "hits"); n != tt.hits {
						t.Errorf("ran %d times, want %d", n, tt.hits)
					}
					if n := number(t, l, "cookie"); n != 99 {
						t.Errorf("cookie is %d, want 99", n)
					}
					if err := link.Close(); err != nil {
						t.Fatal(err)
					}
					if open := once(); open != 0 {
						t.Errorf("%d semaphores are left open", open)
					}
					if n := number(t, l, "hits"); n != tt.hits {
						t.Errorf("ran %d times after it was detached", n)
					}
				})
			}
		}
		// What the kernel lacks is done another way.
		if has := haveFeature(target.FeatureUprobeMulti); has != (testenv.InGuest() != "6.1") {
			t.Errorf("links of many uprobes: %v", has)
		}
	})
}
