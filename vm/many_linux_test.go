package vm_test

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// A process holds 200 vms at once, each with a small program and a map, and they
// take at most a megabyte each beyond the memory of their maps. Of all that is
// mapped meanwhile, nothing is both writable and executable, and no memory is
// mapped a second time where it is executable.
func TestManyVMs(t *testing.T) {
	const n = 200
	const perMap = 10_000 * 8
	run := func(v *vm.VM, i int) {
		m := newMap(t, v, ebpf.MapSpec{Name: "array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 10_000})
		p := program(t, v, map[int32]*vm.Map{3: m}, isa.StoreImm(isa.Word, isa.R10, -4, 9),
			isa.LoadMapFD(isa.R1, 3), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -4), isa.Call(1),
			isa.JumpIfImm(isa.Eq, isa.R0, 0, 2), isa.StoreImm(isa.Double, isa.R0, 0, int32(i)), isa.Mov64Imm(isa.R0, int32(i)), isa.Exit())
		if got, err := p.Call(t.Context(), nil); err != nil || got != uint32(i) {
			t.Fatal(got, err)
		}
		var value uint64
		if err := m.Lookup(uint32(9), &value); err != nil || value != uint64(i) {
			t.Fatalf("vm %d: the map has %d, %v", i, value, err)
		}
		for key := range uint32(10_000) { // all of the map is in memory then
			if err := m.Put(key, uint64(1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(newVM(t, vm.Options{}), 0) // what is set up once
	before := resident(t)
	for i := range n {
		run(newVM(t, vm.Options{}), i)
	}
	perVM := (resident(t) - before) / n
	t.Logf("%d KiB each, of which the map is %d KiB", perVM>>10, perMap>>10)
	if perVM > perMap+1<<20 {
		t.Errorf("a vm takes %d bytes beyond its map", perVM-perMap)
	}
	checkMappings(t)
}

// resident is how much memory the process has, without what Go would give back.
func resident(t *testing.T) int64 {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int64
	if _, err := fmt.Sscan(string(data), &total, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// checkMappings reads the memory map of the process.
func checkMappings(t *testing.T) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	executable := map[string]bool{} // by device, inode: files of which a part is
	lines := map[string]string{}    // writable and shared ones
	for scan := bufio.NewScanner(f); scan.Scan(); {
		// address perms offset dev inode path
		fields := strings.Fields(scan.Text())
		perms, file := fields[1], fields[3]+" "+fields[4]
		write, exec, shared := perms[1] == 'w', perms[2] == 'x', perms[3] == 's'
		if write && exec {
			t.Errorf("writable and executable: %s", scan.Text())
		}
		if file == "00:00 0" {
			if shared {
				t.Errorf("anonymous memory is shared: %s", scan.Text())
			}
			continue // private memory has one mapping
		}
		if exec {
			executable[file] = true
		}
		if write && shared {
			lines[file] = scan.Text()
		}
	}
	for file, line := range lines {
		if executable[file] {
			t.Errorf("executable elsewhere: %s", line)
		}
	}
	if len(executable) == 0 || len(lines) == 0 {
		t.Errorf("%d executable files and %d shared ones: the map was not understood", len(executable), len(lines))
	}
}
