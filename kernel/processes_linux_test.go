package kernel

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/testenv"
)

func TestWatchProcesses(t *testing.T) {
	testenv.NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	events := map[int][]ProcessEvent{}
	done := make(chan error, 1)
	go func() {
		done <- WatchProcesses(ctx, func(e ProcessEvent) {
			mu.Lock()
			defer mu.Unlock()
			events[e.PID] = append(events[e.PID], e)
		})
	}()
	// A process that lives shorter than anybody could look at it. The first
	// ones may start before the watch does.
	seen := func() bool {
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		run, mapped := false, false
		for _, e := range events[cmd.Process.Pid] {
			run = run || e.Exec
			mapped = mapped || e.Map != nil && e.Map.Path[0] == '/' && e.Map.End > e.Map.Start
		}
		return run && mapped
	}
	for !seen() {
		if ctx.Err() != nil {
			t.Fatal("no process was seen to start and to map its program")
		}
		select {
		case err := <-done:
			t.Fatalf("the watch ended: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// No record may be read past its end.
func FuzzProcessEvent(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 0, 0, 80, 0, 1, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, rec []byte) { processEvent(rec) })
}
