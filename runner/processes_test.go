package runner

import (
	"testing"
	"testing/fstest"

	"github.com/skep-bpf/skep/symbol"
)

func TestProcessesThatAreGone(t *testing.T) {
	root := fstest.MapFS{"proc/10/maps": {Data: []byte("1000-3000 r-xp 00000000 08:01 5 /bin/sh\n")}}
	symbols := symbol.NewSymbolizer(symbol.Options{Files: symbol.ProcFiles(root)})
	defer symbols.Close()
	p := processes{root: root, symbols: symbols}
	paths := func(pid int) string {
		s := ""
		if proc := p.process(pid); proc != nil {
			for _, m := range proc.Mappings() {
				s += m.Path + " "
			}
		}
		return s
	}
	if got := paths(99); got != "" {
		t.Errorf("a process nobody knows has %s", got)
	}
	// A child of a living process has what its parent has, until it runs
	// another program.
	p.note(ProcessEvent{PID: 99, Parent: 10})
	if got := paths(99); got != "/bin/sh " {
		t.Errorf("after a fork the child has %s", got)
	}
	p.note(ProcessEvent{PID: 99, Exec: true})
	p.note(ProcessEvent{PID: 99, Map: &symbol.Mapping{Start: 0x5000, End: 0x6000, Inode: 1, Path: "/lib/b"}})
	p.note(ProcessEvent{PID: 99, Map: &symbol.Mapping{Start: 0x1000, End: 0x2000, Inode: 2, Path: "/lib/a"}})
	p.note(ProcessEvent{PID: 99, Map: &symbol.Mapping{Start: 0x5000, End: 0x5800, Inode: 3, Path: "/lib/c"}})
	p.note(ProcessEvent{PID: 99, Parent: 10}) // late news of the fork
	if got := paths(99); got != "/lib/a /lib/c " {
		t.Errorf("after exec it has %s", got)
	}
	if got := paths(10); got != "/bin/sh " {
		t.Errorf("the parent has %s", got)
	}
	// What a process had mapped before it was watched stays known.
	p.note(ProcessEvent{PID: 10, Map: &symbol.Mapping{Start: 0x7000, End: 0x8000, Inode: 1, Path: "/lib/d"}})
	delete(root, "proc/10/maps")
	if got := paths(10); got != "/bin/sh /lib/d " {
		t.Errorf("a process that ran before has %s", got)
	}
	root["proc/11/maps"] = &fstest.MapFile{Data: []byte("1000-3000 r-xp 00000000 08:01 5 /bin/ls\n")}
	p.seed(11)
	delete(root, "proc/11/maps")
	if got := paths(11); got != "/bin/ls " {
		t.Errorf("a process that was there from the start has %s", got)
	}
}
