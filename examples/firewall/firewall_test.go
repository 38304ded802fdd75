//go:build !(armbe || arm64be || mips || mips64 || mips64p32 || ppc64 || s390 || s390x || sparc || sparc64)

package firewall

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep"
)

// load loads the program as the project does, with a clock that the test holds.
// In the kernel it would be
//
//	coll, err := ebpf.NewCollection(spec)
//
// and nothing else in these tests would be different.
func load(t *testing.T, now *uint64) *skep.Collection {
	t.Helper()
	spec, err := loadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Variables[firewallVarPacketsPerSecond].Set(uint64(3)); err != nil {
		t.Fatal(err)
	}
	coll, err := skep.NewCollectionWithOptions(spec, skep.CollectionOptions{
		NewEngine: skep.EngineOptions{Host: skep.Host{Monotonic: func() uint64 { return *now }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := coll.Close(); err != nil {
			t.Error(err)
		}
	})
	return coll
}

// packet is an Ethernet frame with an IPv4 header from an address.
func packet(source string) []byte {
	b := make([]byte, 14+20)
	b[12], b[13] = 0x08, 0x00
	b[14] = 0x45
	copy(b[14+12:], netip.MustParseAddr(source).AsSlice())
	return b
}

const (
	drop = 1
	pass = 2
)

func verdict(t *testing.T, p *skep.Program, b []byte) uint32 {
	t.Helper()
	got, out, err := p.Test(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != string(b) {
		t.Errorf("the packet was changed: %x", out)
	}
	return got
}

func TestBlocked(t *testing.T) {
	now := uint64(time.Second)
	coll := load(t, &now)
	fw, blocked := coll.Programs[firewallProgFirewall], coll.Maps[firewallMapBlocked]
	drops, err := skep.NewRingReader(coll.Maps[firewallMapDrops])
	if err != nil {
		t.Fatal(err)
	}
	defer drops.Close()
	net := firewallNetwork{Bits: 24, Addr: [4]uint8{10, 1, 2}}
	if err := blocked.Put(net, uint8(1)); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]uint32{"10.1.2.3": drop, "10.1.2.255": drop, "10.1.3.3": pass, "192.168.0.1": pass} {
		if got := verdict(t, fw, packet(source)); got != want {
			t.Errorf("%s: %d, want %d", source, got, want)
		}
	}
	drops.SetDeadline(time.Now().Add(-time.Second)) // what is there, without waiting
	seen := map[[4]byte]firewallReason{}
	for {
		rec, err := drops.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[[4]byte(rec.RawSample[:4])] = firewallReason(rec.RawSample[4])
	}
	if len(seen) != 2 || seen[[4]byte{10, 1, 2, 255}] != firewallReasonBLOCKED {
		t.Errorf("told of %v", seen)
	}
	if err := blocked.Delete(net); err != nil {
		t.Fatal(err)
	}
	if err := blocked.Delete(net); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("deleting twice: %v", err)
	}
	if got := verdict(t, fw, packet("10.1.2.3")); got != pass {
		t.Errorf("no longer blocked: %d", got)
	}
}

func TestTooMany(t *testing.T) {
	now := uint64(5 * time.Second)
	coll := load(t, &now)
	fw := coll.Programs[firewallProgFirewall]
	for i, want := range []uint32{pass, pass, pass, drop, drop} {
		if got := verdict(t, fw, packet("10.0.0.1")); got != want {
			t.Errorf("packet %d: %d, want %d", i, got, want)
		}
	}
	if got := verdict(t, fw, packet("10.0.0.2")); got != pass {
		t.Errorf("another source: %d", got)
	}
	now += uint64(time.Second)
	if got := verdict(t, fw, packet("10.0.0.1")); got != pass {
		t.Errorf("a second later: %d", got)
	}
	// Each processor counts for itself.
	var each []uint64
	total := uint64(0)
	if err := coll.Maps[firewallMapVerdicts].Lookup(uint32(pass), &each); err != nil {
		t.Fatal(err)
	}
	for _, n := range each {
		total += n
	}
	if total != 5 || len(each) != coll.Engine().CPUs() {
		t.Errorf("%d passed, on %d processors", total, len(each))
	}
}

func TestNotIP(t *testing.T) {
	now := uint64(0)
	coll := load(t, &now)
	arp := make([]byte, 60)
	arp[12], arp[13] = 0x08, 0x06
	if got := verdict(t, coll.Programs[firewallProgFirewall], arp); got != pass {
		t.Errorf("ARP: %d", got)
	}
	var n uint64
	if err := coll.Variables[firewallVarNotIp].Get(&n); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if err := coll.Variables[firewallVarPacketsPerSecond].Set(uint64(7)); !errors.Is(err, ebpf.ErrReadOnly) {
		t.Errorf("a constant was changed: %v", err)
	}
}
