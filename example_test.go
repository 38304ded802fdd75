package skep_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/ui/text"
)

// Run delivers events to a function; here a printer shows them.
func ExampleRun() {
	if os.Geteuid() != 0 {
		fmt.Println("6 * 7 = 42\n@sum: 3") // loading takes privilege
		return
	}
	script := source.NewFile("example", `BEGIN { printf("6 * 7 = %d\n", 6 * 7); @sum = sum(1); @sum = sum(2); exit(); }`)
	obj, err := skep.Compile(script, skep.CompileOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p := text.New(os.Stdout, os.Stderr, false)
	if _, err := skep.Run(context.Background(), obj, skep.RunOptions{Events: p.Event, Flush: p.Flush}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 6 * 7 = 42
	// @sum: 3
}

// A session is a run whose events are taken in a loop, with their values as
// the types they have.
func ExampleSession_Events() {
	if os.Geteuid() != 0 {
		fmt.Println("got 1 and two") // loading takes privilege
		return
	}
	script := source.NewFile("example", `BEGIN { print((1, "two")); exit(); }`)
	obj, err := skep.Compile(script, skep.CompileOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range skep.Start(context.Background(), obj, skep.RunOptions{}).Events() {
		if err != nil {
			fmt.Println(err)
			return
		}
		if e.Kind == object.EventPrint {
			tuple := e.Values[0].Elems
			fmt.Printf("got %d and %s\n", tuple[0].Int, tuple[1].Bytes)
		}
	}
	// Output: got 1 and two
}

// An agent: records and the elements of maps as Go values, under a context
// that ends it.
func Example_agent() {
	if os.Geteuid() != 0 {
		fmt.Println("openat of /no/such/file by this process: true\n1 opened by this process") // loading takes privilege
		return
	}
	script := source.NewFile("opens.bt", `
		tracepoint:syscalls:sys_enter_openat /pid == $1 && str(args.filename) == "/no/such/file"/ {
			@opens[pid] = count();
			print((pid=pid, name=str(args.filename)));
		}`)
	var compile skep.CompileOptions
	compile.Args = []string{strconv.Itoa(os.Getpid())}
	obj, err := skep.Compile(script, compile)
	for _, d := range skep.Explain(err) {
		fmt.Println(d) // with the line, what is wrong, and what was meant
	}
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := skep.Start(ctx, obj, skep.RunOptions{})
	go func() {
		<-s.Ready()
		_, _ = os.Open("/no/such/file")
	}()
	for e, err := range s.Events() {
		if err != nil {
			fmt.Println(err)
			return
		}
		switch e.Kind {
		case object.EventPrint:
			var open struct {
				PID  int
				Name string
			}
			if err := e.Scan(&open); err != nil {
				fmt.Println(err)
				return
			}
			fmt.Printf("openat of %s by this process: %v\n", open.Name, open.PID == os.Getpid())
			s.Stop()
		case object.EventPrintMap: // at the end, or when the script prints one
			for _, entry := range e.Map.Entries {
				var pid, count int
				if err := entry.Scan(&pid, &count); err != nil {
					fmt.Println(err)
				}
				fmt.Println(count, "opened by this process")
			}
		case runner.EventLost:
			fmt.Println(runner.Describe(e.Loss, e.Count))
		}
	}
	// Output:
	// openat of /no/such/file by this process: true
	// 1 opened by this process
}

// Maps can be read while a session runs.
func ExampleSession_Snapshot() {
	if os.Geteuid() != 0 {
		fmt.Println("@ticks is 7") // loading takes privilege
		return
	}
	script := source.NewFile("example", `BEGIN { @ticks = 7; } interval:s:100 { @ticks++; }`)
	obj, err := skep.Compile(script, skep.CompileOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	s := skep.Start(ctx, obj, skep.RunOptions{})
	go func() {
		for e := range s.C() {
			_ = e // an agent would do something here
		}
	}()
	<-s.Ready()
	snap, err := s.Snapshot(ctx, "@ticks")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("@ticks is", snap.Entries[0].Value)
	s.Stop()
	if _, err := s.Wait(); err != nil {
		fmt.Println(err)
	}
	// Output: @ticks is 7
}

// What went wrong is counted, and can be asked for while a session runs.
func ExampleSession_Losses() {
	const want = "1 update of @a failed because the map was full (raise max_map_keys) (line 1)"
	if os.Geteuid() != 0 {
		fmt.Println(want) // loading takes privilege
		return
	}
	script := source.NewFile("example", `config = { max_map_keys = 1 } BEGIN { @a[1] = 1; @a[2] = 2; } interval:s:100 { exit(); }`)
	obj, err := skep.Compile(script, skep.CompileOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	s := skep.Start(ctx, obj, skep.RunOptions{})
	defer s.Close()
	go func() {
		for e := range s.C() {
			_ = e
		}
	}()
	<-s.Ready()
	losses, err := s.Losses(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range losses {
		fmt.Println(runner.Describe(l.Loss, l.Count))
	}
	// Output: 1 update of @a failed because the map was full (raise max_map_keys) (line 1)
}

// Mistakes are data: where they are, what is wrong, and what was meant.
func ExampleExplain() {
	script := source.NewFile("opens.bt", `BEGIN { printf("%d\n", pidd); }`)
	_, err := skep.Compile(script, skep.CompileOptions{})
	for _, d := range skep.Explain(err) {
		at := d.Span.Pos()
		fmt.Printf("%d:%d: %s; %s\n", at.Line, at.Column, d.Message, d.Fix.Message)
	}
	// Output: 1:24: "pidd" is neither a builtin nor a constant; did you mean "pid"?
}
