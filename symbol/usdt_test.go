package symbol

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestUSDTArgs(t *testing.T) {
	for _, c := range []struct {
		machine elf.Machine
		in      string
		want    string // args joined by "; ", or "error: part of the message"
	}{
		{elf.EM_X86_64, "", ""},
		{elf.EM_X86_64, "-4@%eax 8@-16(%rbp) 8@(%rax,%rbx,4) 8@$5", "s4 rax; u8 [rbp-16]; u8 [rax+rbx*4]; u8 5"},
		{elf.EM_X86_64, "1@%al 1@%ah 2@%ax 4@%r9d 1@%r10b 2@%r15w 8@%r8 1@%sil", "u1 rax; u1 rax[8:16]; u2 rax; u4 r9; u1 r10; u2 r15; u8 r8; u1 rsi"},
		{elf.EM_X86_64, "-8@$-1 4@$0xff 8@$18446744073709551615", "s8 -1; u4 255; u8 -1"},
		{elf.EM_X86_64, "8@(,%rcx,8) 8@24(%rsp) 8@0x10(%rsp,%rcx)", "u8 [+rcx*8]; u8 [rsp+24]; u8 [rsp+rcx*1+16]"},
		{elf.EM_X86_64, "-4@counter+4(%rip) 4@counter(%rip)", "s4 [rip+4]; u4 [rip]"},
		{elf.EM_X86_64, "8f@%xmm0 4f@-8(%rbp)", "f8 xmm0; f4 [rbp-8]"},
		{elf.EM_X86_64, "%rdi", "u8 rdi"},
		{elf.EM_X86_64, "3@%rax", "error: size"},
		{elf.EM_X86_64, "8@%rzx", "error: register"},
		{elf.EM_X86_64, "8@%eip", "error: register"},
		{elf.EM_X86_64, "8@%r16", "error: register"},
		{elf.EM_X86_64, "8@8(%rax,%rbx,3)", "error: scale"},
		{elf.EM_X86_64, "8@8(%eax)", "error: address register"},
		{elf.EM_X86_64, "8@8(%rip)", "error: no symbol"},
		{elf.EM_X86_64, "8@8()", "error: no register"},
		{elf.EM_X86_64, "8@foo", "error: not understood"},
		{elf.EM_X86_64, "8@$", "error: not a number"},
		{elf.EM_X86_64, strings.Repeat("8@%rax ", 13), "error: more than 12"},
		{elf.EM_AARCH64, "-4@w0 8@x29 8@[sp, 16] 8@[x0] 4@[x1, -8] 8@5 -4@-3 8@sp", "s4 x0; u8 x29; u8 [sp+16]; u8 [x0]; u4 [x1-8]; u8 5; s4 -3; u8 sp"},
		{elf.EM_AARCH64, "8@[x0, x1] 8@[x0, x1, lsl 3] 8@[x0,#24] 8f@d0 8@lr", "u8 [x0+x1*1]; u8 [x0+x1*8]; u8 [x0+24]; f8 v0; u8 x30"},
		{elf.EM_AARCH64, "8@[w0]", "error: address register"},
		{elf.EM_AARCH64, "8@x31", "error: not understood"},
		{elf.EM_AARCH64, "8@[x0, x1, lsl 9]", "error: shift"},
		{elf.EM_AARCH64, "8@[x0", "error: not understood"},
		{elf.EM_AARCH64, "8@[]", "error: address register"},
		{elf.EM_RISCV, "-4@a0 8@-24(s0) 8@5 8@x10 8@(sp) 8@fp 8f@fa0", "s4 a0; u8 [s0-24]; u8 5; u8 a0; u8 [sp]; u8 s0; f8 fa0"},
		{elf.EM_RISCV, "8@q0", "error: not understood"},
		{elf.EM_RISCV, "8@8(q0)", "error: not understood"},
		{elf.EM_386, "4@%eax", "error: not understood on"},
	} {
		args, err := ParseUSDTArgs(c.in, c.machine)
		var parts []string
		for _, a := range args {
			parts = append(parts, a.String())
		}
		got := strings.Join(parts, "; ")
		if want, isErr := strings.CutPrefix(c.want, "error: "); isErr {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %q, %v; want an error with %q", c.in, got, err, want)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func FuzzUSDTArgs(f *testing.F) {
	for _, s := range []string{"-4@%eax 8@-16(%rbp) 8@(%rax,%rbx,4) 8@$5", "8@[x0, x1, lsl 3] 8@5", "-4@a0 8@-24(s0)", "8@a+4-b(%rip)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64, elf.EM_RISCV} {
			args, err := ParseUSDTArgs(text, m)
			if err != nil && args != nil {
				t.Error("arguments beside an error")
			}
			for _, a := range args {
				if a.String() == "" || !slices.Contains([]uint8{1, 2, 4, 8}, a.Size) || (a.Index != "") != (a.Scale != 0) {
					t.Errorf("%q: %+v", text, a)
				}
				if a.Kind == ArgMemory && a.Reg == "" && a.Index == "" || a.Kind == ArgRegister && a.Reg == "" {
					t.Errorf("%q: nothing to read in %+v", text, a)
				}
			}
		}
	})
}

func TestUSDT(t *testing.T) {
	for name, flags := range variants {
		t.Run(name, func(t *testing.T) {
			file := compile(t, "gcc", "probes.c", flags...)
			b := open(t, file)
			if b.Machine() != elf.EM_X86_64 {
				t.Skip("the program has amd64 operands")
			}
			notes := output(t, tool(t, "readelf"), "-n", "-W", file)
			probes, err := b.MatchUSDT("skep", "*")
			if err != nil || len(probes) != 2 {
				t.Fatalf("probes %+v, %v", probes, err)
			}
			table, err := b.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			p := probes[0]
			if p.Semaphore != table.Lookup("my_semaphore")[0].Addr {
				t.Errorf("semaphore at %#x", p.Semaphore)
			}
			if off, ok := b.FileOffset(p.Semaphore); !ok || off == 0 {
				t.Errorf("semaphore's offset %#x, %v", off, ok)
			}
			if fn, _, ok := table.Resolve(p.Addr); !ok || fn.Name != "main" || !b.IsExecutable(p.Addr) {
				t.Errorf("the probe is in %v", fn)
			}
			for _, p := range probes {
				if want := fmt.Sprintf("Location: 0x%016x", p.Addr); !strings.Contains(notes, want) {
					t.Errorf("%s: readelf has no %s\n%s", p.Name, want, notes)
				}
			}
			if got := fmt.Sprint(p.Args); got != "[s4 rdi u8 rsi u8 5]" {
				t.Errorf("arguments %s", got)
			}
			second := probes[1]
			if len(second.Args) != 2 || second.Args[0].Symbol != "counter" || second.Args[0].Value != int64(table.Lookup("counter")[0].Addr)+4 {
				t.Errorf("second: %+v", second)
			}
			if all, err := b.MatchUSDT("", "start"); err != nil || len(all) != 2 {
				t.Errorf("start of any provider: %+v, %v", all, err)
			}
			var missing *NotFoundError
			if _, err := b.MatchUSDT("skep", "nothing"); !errors.As(err, &missing) {
				t.Errorf("missing probe: %v", err)
			}
		})
	}
}
