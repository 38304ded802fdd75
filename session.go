package skep

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/skep-bpf/skep/runner"
)

// A Session is a run whose events are taken as they are wanted. Its methods
// may be called from several goroutines.
type Session struct {
	events chan runner.Event
	ready  chan struct{}
	done   chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	handle *runner.Handle
	result runner.Result
	err    error
}

// Start runs an object as [Run] does, until it ends by itself, Stop is called
// or ctx is cancelled. Its events have to be taken, by [Session.Events] or
// [Session.C], or the run stands still; opts.Events gets them first, where it
// is set.
func Start(ctx context.Context, o *Object, opts RunOptions) *Session {
	ctx, cancel := context.WithCancel(ctx)
	s := &Session{
		events: make(chan runner.Event, 64),
		ready:  make(chan struct{}), done: make(chan struct{}), cancel: cancel,
	}
	first, ready, started := opts.Events, opts.Ready, opts.Started
	opts.Events = func(e runner.Event) error {
		if first != nil {
			if err := first(e); err != nil {
				return err
			}
		}
		s.events <- e.Clone()
		return nil
	}
	opts.Ready = func(n int) {
		close(s.ready)
		if ready != nil {
			ready(n)
		}
	}
	opts.Started = func(h *runner.Handle) {
		s.mu.Lock()
		s.handle = h
		s.mu.Unlock()
		if started != nil {
			started(h)
		}
	}
	go func() {
		res, err := Run(ctx, o, opts)
		s.mu.Lock()
		s.result, s.err = res, err
		s.mu.Unlock()
		cancel()
		close(s.done)
		close(s.events)
	}()
	return s
}

// Ready is closed once everything is attached. A run that ends before, with an
// error or by exit() in a begin probe, never closes it: see [Session.Done].
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Done is closed when the run has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// C returns the channel of the run's events, which is closed at its end.
func (s *Session) C() <-chan runner.Event { return s.events }

// Events returns the run's events in order, and at last the error that ended
// it, if any. Leaving the loop ends the run.
func (s *Session) Events() iter.Seq2[runner.Event, error] {
	return func(yield func(runner.Event, error) bool) {
		for e := range s.events {
			if !yield(e, nil) {
				s.Close()
				return
			}
		}
		if _, err := s.Wait(); err != nil {
			yield(runner.Event{}, err)
		}
	}
}

// Snapshot reads a map by its name, "@reads", as it is now. Events must be
// taken meanwhile.
func (s *Session) Snapshot(ctx context.Context, name string) (*runner.Snapshot, error) {
	h, err := s.running()
	if err != nil {
		return nil, err
	}
	return h.Snapshot(ctx, name)
}

// Losses returns what went wrong so far.
func (s *Session) Losses(ctx context.Context) ([]runner.Lost, error) {
	h, err := s.running()
	if err != nil {
		return nil, err
	}
	return h.Losses(ctx)
}

func (s *Session) running() (*runner.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle == nil {
		return nil, errors.New("the run has not begun")
	}
	return s.handle, nil
}

// Stop ends the run as Ctrl-C would: end probes run, and maps are shown.
func (s *Session) Stop() { s.cancel() }

// Close ends the run and drops the events that were not taken.
func (s *Session) Close() error {
	s.cancel()
	for range s.events {
	}
	_, err := s.Wait()
	return err
}

// Wait waits for the end of the run and tells how it ended. Events have to be
// taken meanwhile.
func (s *Session) Wait() (runner.Result, error) {
	<-s.done
	return s.result, s.err
}
