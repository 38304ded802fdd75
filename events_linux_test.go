package skep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
	"github.com/skep-bpf/skep/source"
	uijson "github.com/skep-bpf/skep/ui/json"
)

// compile compiles a script for this machine.
func compile(t *testing.T, script string) *skep.Object {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	obj, err := skep.Compile(source.NewFile(t.Name()+".bt", script), skep.CompileOptions{})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return obj
}

// tell makes a system call that scripts know by its first argument, and that
// does nothing.
func tell(what, n int) {
	syscall.RawSyscall(syscall.SYS_GETPRIORITY, uintptr(what), uintptr(n), 0)
}

// onCPU runs f on a thread that stays on a CPU.
func onCPU(wg *sync.WaitGroup, cpu int, f func()) {
	wg.Go(func() {
		// The thread ends with the goroutine, and its place with it.
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu % runtime.NumCPU())
		_ = unix.SchedSetaffinity(0, &set)
		f()
	})
}

// TestOrder hands a number around between threads on all CPUs, each of which
// prints it before it passes it on, while others print as fast as they can:
// every number comes, in order, and so does all that stands before exit().
func TestOrder(t *testing.T) {
	guest.Matrix(t, guest.Config{}, func(t *testing.T) {
		const (
			ball, noise, last = 901, 902, 903 // in the first argument
			rounds            = 5000
		)
		obj := compile(t, fmt.Sprintf(`config = { perf_rb_pages = 4096 }
			tracepoint:syscalls:sys_enter_getpriority /pid == %d/ {
				if (args.which == %d) { printf("ball %%d\n", args.who); }
				if (args.which == %d) { printf("noise %%d %%d\n", tid, args.who); @noise = count(); }
				if (args.which == %d) { printf("last\n"); exit(5); printf("never\n"); }
			}
			end { printf("end\n"); }`, os.Getpid(), ball, noise, last))
		var wg sync.WaitGroup
		var done atomic.Bool
		play := func(int) {
			players := max(2, runtime.NumCPU())
			turns := make([]chan int, players)
			for i := range turns {
				turns[i] = make(chan int, 1)
			}
			for i := range turns {
				onCPU(&wg, i, func() {
					for n := range turns[i] {
						tell(ball, n)
						if n == rounds {
							tell(last, 0)
							done.Store(true)
							for _, c := range turns {
								close(c)
							}
							return
						}
						turns[(i+1)%players] <- n + 1
					}
				})
				onCPU(&wg, i, func() {
					for n := 1; !done.Load(); n++ {
						tell(noise, n)
						if n%64 == 0 {
							time.Sleep(50 * time.Microsecond)
						}
					}
				})
			}
			turns[0] <- 1
		}
		var balls int64
		var trail []string
		seen := map[int64]int64{} // noise by thread
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		res, err := skep.Run(ctx, obj, skep.RunOptions{Ready: play, Events: func(e runner.Event) error {
			if e.Kind != object.EventPrintf {
				return nil
			}
			switch text, _, _ := strings.Cut(e.Message(), " "); text {
			case "ball":
				if n := e.Values[0].Int; n != balls+1 {
					return fmt.Errorf("number %d comes after %d", n, balls)
				}
				balls++
			case "noise":
				tid, n := e.Values[0].Int, e.Values[1].Int
				if n != seen[tid]+1 {
					return fmt.Errorf("thread %d printed %d after %d", tid, n, seen[tid])
				}
				seen[tid] = n
			default:
				trail = append(trail, fmt.Sprintf("%s after %d", strings.TrimSpace(text), balls))
			}
			return nil
		}})
		done.Store(true)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Losses) > 0 {
			t.Fatalf("losses: %+v", res.Losses)
		}
		want := []string{fmt.Sprintf("last after %d", rounds), fmt.Sprintf("end after %d", rounds)}
		if !res.Exited || res.Code != 5 || !slices.Equal(trail, want) || len(seen) < 2 {
			t.Errorf("%+v, %q, want %q; noise of %d threads", res, trail, want, len(seen))
		}
	})
}

// TestLiveLosses provokes losses in a run that has no events of its own and
// ends only after they were told in JSON.
func TestLiveLosses(t *testing.T) {
	const what = 904
	obj := compile(t, fmt.Sprintf(`let @full = hash(1);
		rawtracepoint:sys_enter, rawtracepoint:local_timer_entry, rawtracepoint:hrtimer_expire_entry, rawtracepoint:softirq_entry {
			if (pid == %d && tid != pid && @n < 20) { @n++; for $i : 0..1000000 { } }
		}
		tracepoint:syscalls:sys_enter_getpriority /pid == %d && args.which == %d/ {
			@full[args.who] = count();
		}`, os.Getpid(), os.Getpid(), what))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	p := uijson.New(&out)
	want := map[object.LossKind]bool{object.LossMapFull: true, runner.LossMissed: true}
	ended := false
	var wg sync.WaitGroup
	res, err := skep.Run(ctx, obj, skep.RunOptions{
		LiveLosses: true,
		Ready: func(int) {
			onCPU(&wg, 0, func() {
				for n := range 10 {
					tell(what, n)
				}
			})
		},
		Events: func(e runner.Event) error {
			switch e.Kind {
			case runner.EventFinal:
				ended = true
			case runner.EventLost:
				if !ended {
					if delete(want, e.Loss.Kind); len(want) == 0 {
						cancel()
					}
				}
			}
			return p.Event(e)
		},
		Flush: p.Flush,
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Fatalf("%v were not told while the run lasted: %+v", want, res.Losses)
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	for _, text := range []string{`"kind": "map_full", "name": "@full", "count": 9,`, `"kind": "missed", "name": "rawtracepoint:sys_enter", "count": `} {
		if n := strings.Count(out.String(), text); n == 0 {
			t.Errorf("no %s in\n%s", text, out.String())
		}
	}
}

// TestStacksLost leaves no room for a second stack.
func TestStacksLost(t *testing.T) {
	obj := compile(t, fmt.Sprintf(`rawtracepoint:sys_enter /pid == %d/ { @[kstack] = count(); }
		rawtracepoint:sys_exit /pid == %d/ { @[kstack] = count(); }`, os.Getpid(), os.Getpid()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	opts := skep.RunOptions{
		Ready: func(int) {
			tell(905, 0)
			cancel()
		},
		Events: func(runner.Event) error { return nil },
	}
	opts.Load.Maps = map[string]machine.MapOptions{obj.Manifest.Stacks: {MaxEntries: 1}}
	res, err := skep.Run(ctx, obj, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(res.Losses, func(l runner.Lost) bool { return l.Loss.Kind == object.LossStack && l.Count > 0 }) {
		t.Errorf("no stack was lost: %+v", res.Losses)
	}
}

//go:noinline
func probed(n int) { probedWith = n }

var probedWith int

// TestScratchLost takes all scratch memory away from a program that may meet
// itself, as other runs of it would.
func TestScratchLost(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	obj := compile(t, fmt.Sprintf(`uprobe:%q:"github.com/skep-bpf/skep_test.probed" /pid == %d/ { @[str(reg("ax"))] = count(); }`, exe, os.Getpid()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var handle *runner.Handle
	res, err := skep.Run(ctx, obj, skep.RunOptions{
		Started: func(h *runner.Handle) { handle = h },
		Ready: func(int) {
			m, err := handle.Loaded().Map("skep_scratch")
			if err != nil {
				t.Errorf("the script needs no scratch memory: %v", err)
				cancel()
				return
			}
			// Values of all CPUs, each of which begins with the word that says
			// that it is taken.
			err = m.All(func(key, value []byte) bool {
				for i := 0; i < len(value); i += (m.ValueSize() + 7) &^ 7 {
					value[i] = 1
				}
				if err := m.Update(key, value); err != nil {
					t.Error(err)
				}
				return true
			})
			if err != nil {
				t.Error(err)
			}
			probed(1)
			probed(2)
			cancel()
		},
		Events: func(runner.Event) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(res.Losses, func(l runner.Lost) bool { return l.Loss.Kind == object.LossScratch }); i < 0 || res.Losses[i].Count != 2 {
		t.Errorf("losses are %+v, want two runs without scratch memory", res.Losses)
	}
}
