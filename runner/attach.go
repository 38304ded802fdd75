package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// attach attaches all programs and returns how many probes there are now.
func (r *run) attach(ctx context.Context) (int, error) {
	var requests []machine.Attach
	var programs []*object.Program
	attached := 0
	for i := range r.man.Programs {
		p := &r.man.Programs[i]
		if p.Kind != object.KindAttach {
			attached += len(p.Probes)
			continue
		}
		req := machine.Attach{Program: p.Name, PID: r.PID, Target: r.Targets[p.Name]}
		if p.Hook != "" {
			pt, err := hook.Parse(p.Hook)
			if err != nil {
				return 0, err
			}
			req.Points = []hook.Point{pt}
		} else {
			for _, i := range p.Probes {
				pt, err := r.point(i)
				if err != nil {
					return 0, err
				}
				req.Points = append(req.Points, pt)
				req.Cookies = append(req.Cookies, uint64(i))
			}
		}
		requests, programs = append(requests, req), append(programs, p)
	}
	if len(requests) == 0 {
		return attached, nil
	}
	links, errs := r.loaded.Attach(ctx, requests)
	missing := r.man.Settings["missing_probes"]
	groups := map[int]*group{}
	groupOf := func(p *object.Program) *group {
		if p.Group != 0 && groups[p.Group] == nil {
			groups[p.Group] = &group{}
		}
		return groups[p.Group]
	}
	for i, req := range requests {
		if errs[i] == nil {
			r.links = append(r.links, held{links[i], req.Points})
			attached += max(len(programs[i].Probes), 1)
			if g := groupOf(programs[i]); g != nil {
				g.attached = true
			}
			continue
		}
		n, err := r.attachSome(ctx, req)
		attached += n
		g := groupOf(programs[i])
		switch {
		case err == nil:
		case g != nil:
			g.attached = g.attached || n > 0
			g.errs = append(g.errs, err)
		case missing == "ignore":
		case missing == "warn":
			if err := r.warn(nil, "%v", err); err != nil {
				return attached, err
			}
		default:
			return attached, err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(groups)) {
		if g := groups[n]; !g.attached && missing != "ignore" {
			err := errors.Join(g.errs...)
			if missing != "warn" {
				return attached, err
			}
			if err := r.warn(nil, "%v", err); err != nil {
				return attached, err
			}
		}
	}
	if attached == 0 {
		return 0, errors.Join(errs...)
	}
	return attached, nil
}

// warnPinned says which probes do not go on when the run has ended.
func (r *run) warnPinned() error {
	for i := range r.man.Programs {
		switch p := &r.man.Programs[i]; p.Kind {
		case object.KindInterval, object.KindSignal:
			if err := r.warn(nil, "%s is run by skep itself, and so not any more after its end", r.probeName(*p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// A group is what became of probes that are alternatives of one another.
type group struct {
	attached bool
	errs     []error
}

// attachSome attaches the points of a request that failed as a whole one by one.
func (r *run) attachSome(ctx context.Context, req machine.Attach) (int, error) {
	var each []machine.Attach
	for i, pt := range req.Points {
		one := req
		one.Points = []hook.Point{pt}
		if i < len(req.Cookies) {
			one.Cookies = req.Cookies[i : i+1]
		}
		each = append(each, one)
	}
	links, errs := r.loaded.Attach(ctx, each)
	n := 0
	for i, l := range links {
		if errs[i] == nil && l != nil {
			r.links = append(r.links, held{l, each[i].Points})
			n++
		}
	}
	return n, errors.Join(errs...)
}

// signals runs programs when skep gets signals. The function that is returned
// ends that.
func (r *run) signals() (stop func(), err error) {
	programs := map[os.Signal][]string{}
	var list []os.Signal
	for _, p := range r.man.Programs {
		if p.Kind != object.KindSignal {
			continue
		}
		for _, i := range p.Probes {
			pt, err := r.point(i)
			if err != nil {
				return nil, err
			}
			name := strings.TrimPrefix(pt.Event, "signal:")
			n, ok := abi.SignalByName(name)
			sig := osSignal(n)
			if !ok || sig == nil {
				return nil, fmt.Errorf("%s: there is no signal %q here", pt, name)
			}
			if programs[sig] == nil {
				list = append(list, sig)
			}
			programs[sig] = append(programs[sig], p.Name)
		}
	}
	if len(list) == 0 {
		return func() {}, nil
	}
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, list...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range ch {
			for _, p := range programs[sig] {
				r.do(func() error {
					_, err := r.loaded.Run(p)
					return err
				})
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}, nil
}

// iterate runs the iterators among the links once. all is set when there is
// nothing else to wait for.
func (r *run) iterate() (all bool, err error) {
	n := 0
	for _, l := range r.links {
		it, ok := l.Link.(machine.Iterator)
		if !ok {
			continue
		}
		n++
		out, err := it.Open()
		if err != nil {
			return false, fmt.Errorf("the iterator cannot be run: %w", err)
		}
		data, err := io.ReadAll(out)
		out.Close()
		if err != nil {
			return false, fmt.Errorf("the iterator cannot be run: %w", err)
		}
		if len(data) > 0 {
			if err := r.Events(Event{Kind: object.EventCat, Text: string(data)}); err != nil {
				return false, err
			}
		}
		if err := r.drain(false); err != nil {
			return true, err
		}
	}
	if n == 0 || n < len(r.links) {
		return false, nil
	}
	for _, p := range r.man.Programs {
		switch p.Kind {
		case object.KindInterval, object.KindSignal:
			return false, nil
		}
	}
	return true, nil
}
