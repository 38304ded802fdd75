package kernel

import (
	"bufio"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

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

// Libbpf's programs find the arguments of USDT probes by a map that the loader
// fills.
func TestUSDTArguments(t *testing.T) {
	b := built(t)
	matrix(t, func(t *testing.T) {
		needKernel(t)
		elf, err := os.ReadFile(b.usdtArgs)
		if err != nil {
			t.Fatal(err)
		}
		l, err := New().Load(t.Context(), elf, machine.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, once := chat(t, b.usdt)
		attach(t, l, machine.Attach{
			Program: "prog", Points: []hook.Point{point(t, "usdt:"+b.usdt+":skep:always"), point(t, "usdt:"+b.usdt+":skep:guarded")},
			Cookies: []uint64{100, 1000},
		})
		if open := once(); open != 2 {
			t.Errorf("%d semaphores are open, want 2", open)
		}
		for name, want := range map[string]uint64{"hits": 3, "sum": 7 + 11 + 12, "cookies": 100 + 1000 + 1000} {
			if n := number(t, l, name); n != want {
				t.Errorf("%s is %d, want %d", name, n, want)
			}
		}
	})
}

func TestFillUSDTArg(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the registers are those of amd64")
	}
	u16, u64 := &btf.Int{Name: "short", Size: 2}, &btf.Int{Name: "long", Size: 8}
	u32, u8 := &btf.Int{Name: "int", Size: 4}, &btf.Int{Name: "char", Size: 1}
	// As newer headers have it.
	typ := &btf.Struct{Name: "arg", Size: 16, Members: []btf.Member{
		{Name: "val_off", Type: u64},
		{Name: "arg_type", Type: u32, Offset: 64, BitfieldSize: 8},
		{Name: "idx_reg_off", Type: u16, Offset: 72, BitfieldSize: 12},
		{Name: "scale_bitshift", Type: u16, Offset: 84, BitfieldSize: 4},
		{Name: "reg_off", Type: u16, Offset: 96},
		{Name: "arg_signed", Type: u8, Offset: 112},
		{Name: "arg_bitshift", Type: u8, Offset: 120},
	}}
	if _, err := symbol.ParseUSDTArgs("-4@$-9 8@%rbx 2@-12(%rbp) 1@8(%rax,%r9,4) 8@nobody", elf.EM_X86_64); err == nil {
		t.Fatal("nonsense was understood")
	}
	args, err := symbol.ParseUSDTArgs("-4@$-9 8@%rbx 2@-12(%rbp) 1@8(%rax,%r9,4)", elf.EM_X86_64)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"f7ffffffffffffff" + "00000000" + "0000" + "01" + "20",
		"0000000000000000" + "01000000" + "2800" + "00" + "00",
		"f4ffffffffffffff" + "02000000" + "2000" + "00" + "30",
		"0800000000000000" + "03402000" + "5000" + "00" + "38",
	} {
		b := make([]byte, 16)
		if err := fillUSDTArg(b, typ, &args[i]); err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%v: %x, %v, want %s", args[i], b, err, want)
		}
	}
	old := &btf.Struct{Name: "arg", Size: 16, Members: append(typ.Members[:2:2], typ.Members[4:]...)}
	if err := fillUSDTArg(make([]byte, 16), old, &args[3]); err == nil || !strings.Contains(err.Error(), "newer usdt.bpf.h") {
		t.Errorf("an index with an old header: %v", err)
	}
	if err := fillUSDTArg(make([]byte, 16), typ, &symbol.USDTArg{Kind: symbol.ArgRegister, Reg: "xmm0", Size: 8, Float: true}); err == nil {
		t.Error("a floating-point number was taken")
	}
}

// TestUserProgram attaches to functions and USDT probes of a program in C, one
// place at a time and by links of many, where the kernel has them.
func TestUserProgram(t *testing.T) {
	path := built(t).usdt
	matrix(t, func(t *testing.T) {
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
