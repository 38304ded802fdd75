//go:build !(armbe || arm64be || mips || mips64 || mips64p32 || ppc64 || s390 || s390x || sparc || sparc64)

package firewall

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/testenv"
)

// TestKernel holds the engine against the kernel, over the same packets.
func TestKernel(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	spec, err := loadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	engine, err := skep.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	net := firewallNetwork{Bits: 31, Addr: [4]uint8{10, 0, 0, 4}}
	if err := kernel.Maps[firewallMapBlocked].Put(net, uint8(1)); err != nil {
		t.Fatal(err)
	}
	if err := engine.Maps[firewallMapBlocked].Put(net, uint8(1)); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "255.255.255.255"} {
		in := packet(source)
		want, wantOut, err := kernel.Programs[firewallProgFirewall].Test(in)
		if err != nil {
			t.Fatal(err)
		}
		got, out, err := engine.Programs[firewallProgFirewall].Test(in)
		if got != want || string(out) != string(wantOut) || err != nil {
			t.Errorf("%s: %d and %x, %v; the kernel says %d and %x", source, got, out, err, want, wantOut)
		}
	}
}
