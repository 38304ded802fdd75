package skep_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/skep-bpf/skep"
)

// An object of clang is loaded and run over a packet, with no privilege.
func ExampleLoadCollection() {
	coll, err := skep.LoadCollection("examples/firewall/firewall_bpfel.o")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer coll.Close()
	// Whatever comes from 10.0.0.0/8 is dropped: a length in bits, and an address.
	key := []byte{8, 0, 0, 0, 10, 0, 0, 0}
	if err := coll.Maps["blocked"].Put(key, uint8(1)); err != nil {
		fmt.Println(err)
		return
	}
	packet, _ := hex.DecodeString("000000000000" + "000000000000" + "0800" + "4500000000000000" + "00000000" + "0a010203" + "00000000")
	verdict, _, err := coll.Programs["firewall"].Test(packet)
	fmt.Println("verdict", verdict, err)

	drops, err := skep.NewRingReader(coll.Maps["drops"])
	if err != nil {
		fmt.Println(err)
		return
	}
	defer drops.Close()
	drops.SetDeadline(time.Now().Add(time.Second))
	rec, err := drops.Read()
	fmt.Println("dropped from", rec.RawSample[:4], "reason", rec.RawSample[4], err)
	drops.SetDeadline(time.Now())
	_, err = drops.Read()
	fmt.Println("no more:", errors.Is(err, os.ErrDeadlineExceeded))
	// Output:
	// verdict 1 <nil>
	// dropped from [10 1 2 3] reason 1 <nil>
	// no more: true
}

// The fields of a struct are filled in as package ebpf does it, and a clock of
// the test's own makes the program deterministic.
func ExampleLoadAndAssign() {
	spec, err := ebpf.LoadCollectionSpec("examples/firewall/firewall_bpfel.o")
	if err != nil {
		fmt.Println(err)
		return
	}
	var objs struct {
		Firewall *skep.Program  `ebpf:"firewall"`
		Sources  *skep.Map      `ebpf:"sources"`
		NotIP    *skep.Variable `ebpf:"not_ip"`
	}
	now := 7 * time.Second
	coll, err := skep.LoadAndAssign(spec, &objs, &skep.CollectionOptions{
		NewEngine: skep.EngineOptions{Host: skep.Host{Monotonic: func() uint64 { return uint64(now) }}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer coll.Close()
	if _, _, err := objs.Firewall.Test(make([]byte, 64)); err != nil {
		fmt.Println(err)
	}
	var n uint64
	err = objs.NotIP.Get(&n)
	fmt.Println(n, err)
	var bucket struct{ Second, Packets uint64 }
	err = objs.Sources.Lookup(uint32(1), &bucket)
	fmt.Println(errors.Is(err, ebpf.ErrKeyNotExist))
	// Output:
	// 1 <nil>
	// true
}

// A program that the verifier does not accept is refused, with the reason.
func ExampleRejectedError() {
	_, err := skep.NewCollection(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"peek": {Name: "peek", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // xdp_md.data
			asm.LoadMem(asm.R0, asm.R2, 0, asm.Byte),
			asm.Return(),
		}},
	}})
	var rejected *skep.RejectedError
	if errors.As(err, &rejected) {
		v := rejected.Programs[0]
		fmt.Println(v.Program.Name, v.Verdict, v.Err.Category, "at", v.Err.Insn)
	}
	// Output: peek rejected bounds at 1
}

// A server lets programs decide over its requests, and replaces them while it
// serves.
func ExampleNewHook() {
	type request struct {
		Bytes    uint32
		Priority uint32
	}
	hook, err := skep.NewHook[request]("request")
	if err != nil {
		fmt.Println(err)
		return
	}
	// priority returns a program that gives all requests one.
	program := func(name string, priority int64) *ebpf.ProgramSpec {
		return &ebpf.ProgramSpec{Name: name, Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
			asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord),
			asm.Mov.Imm(asm.R0, int32(priority)),
			asm.Return(),
		}}
	}
	coll, err := skep.NewCollection(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"low": program("low", 1), "high": program("high", 9),
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer coll.Close()
	link, err := hook.Attach(coll.Programs["low"])
	if err != nil {
		fmt.Println(err)
		return
	}
	r := request{Bytes: 100}
	fmt.Println(hook.Fire(context.Background(), &r))
	fmt.Println(link.Replace(coll.Programs["high"]))
	fmt.Println(hook.Fire(context.Background(), &r))
	fmt.Println(link.Close())
	fmt.Println(hook.Fire(context.Background(), &r)) // nobody is asked
	// Output:
	// 1 <nil>
	// <nil>
	// 9 <nil>
	// <nil>
	// 0 <nil>
}
