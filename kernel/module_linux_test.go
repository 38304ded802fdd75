package kernel

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/typeindex"
)

// openTun enters the module tun.
func openTun(t *testing.T) {
	const path = "/tmp/skep-tun"
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Functions, tracepoints and types of modules. The live kernel has no modules.
func TestModules(t *testing.T) {
	guest.Each(t, guestConfig(t), func(t *testing.T) {
		needKernel(t)
		for _, tt := range []struct {
			section, point string
			trigger        func(*testing.T)
		}{
			{"kprobe", "kprobe:tun_chr_open", openTun},
			{"kprobe", "kprobe:tun:tun_chr_open", openTun},
			{"kretprobe", "kretprobe:tun:tun_chr_open", openTun},
			{"kprobe.multi/tun_chr_open", "", openTun},
			{"fentry/tun_chr_open", "", openTun},
			{"fentry/tun:tun_chr_open", "", openTun},
			{"fexit", "fexit:tun:tun_chr_open", openTun},
			{"tp/bridge/br_fdb_add", "", nil},
			{"raw_tp/br_fdb_add", "", nil},
			{"tp_btf/br_fdb_add", "", nil},
		} {
			t.Run(tt.section+" "+tt.point, func(t *testing.T) {
				l := loadObject(t, newCounter().program("prog", tt.section, false, 0).o, machine.LoadOptions{})
				r := machine.Attach{Program: "prog"}
				if tt.point != "" {
					r.Points = []hook.Point{point(t, tt.point)}
				}
				link := attach(t, l, r)
				if tt.trigger != nil {
					tt.trigger(t)
					if n := number(t, l, "hits"); n != 1 {
						t.Errorf("ran %d times, want once", n)
					}
				}
				if err := link.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		t.Run("types", func(t *testing.T) {
			types := needTypes(t)
			tun, err := types.FindIn("tun", typeindex.KindStruct, "tun_file")
			if err != nil {
				t.Fatal(err)
			}
			want := tun.(*btf.Struct)
			// The size of a type of a module, and the offset of a field in it.
			local := &btf.Struct{Name: "tun_file", Size: 8, Members: []btf.Member{{Name: "ifindex", Type: typeInt}}}
			field, ok := uint32(0), false
			if m, off, found := findMember(want, "ifindex", 0); found {
				field, ok = uint32(off/8), m.Name == "ifindex"
			}
			if !ok {
				t.Fatal("struct tun_file has no field ifindex")
			}
			o := &object.Object{License: "GPL", Funcs: []*object.Func{{
				Name: "prog", Section: "raw_tp",
				Insns: []isa.Instruction{
					isa.Mov64Imm(isa.R0, 8), isa.Mov64Imm(isa.R1, 0), isa.ALU64Imm(isa.Mul, isa.R0, 65536),
					isa.ALU64(isa.Add, isa.R0, isa.R1), isa.Exit(),
				},
				CORE: []object.CORE{
					{Insn: 0, Kind: object.CORETypeSize, Type: local, Access: "0"},
					{Insn: 1, Kind: object.COREFieldOffset, Type: local, Access: "0:0"},
				},
			}}}
			l := loadObject(t, o, machine.LoadOptions{})
			if r, err := l.Run("prog"); err != nil || r != want.Size<<16+field {
				t.Errorf("size and offset are %#x, %v, want %#x and %#x", r, err, want.Size, field)
			}
		})
		if testenv.InGuest() == "" {
			t.Error("this ran on the live kernel")
		}
	})
}
