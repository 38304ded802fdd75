package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// A Handle reaches into a run from other goroutines. Its methods work from
// Config.Started on until the run ends.
type Handle struct{ r *run }

// ErrEnded is returned when a run is asked for something after its end.
var ErrEnded = errors.New("the run has ended")

// Snapshot reads a map of the object by its name, "@reads", as it is now. The
// result stays good after the run.
func (h *Handle) Snapshot(ctx context.Context, name string) (*Snapshot, error) {
	m, err := h.r.mapNamed(name)
	if err != nil {
		return nil, fmt.Errorf("the object has no map %q", name)
	}
	var s *Snapshot
	err = h.call(ctx, func() error {
		var err error
		if s, err = h.r.snapshot(m); err == nil {
			s = Event{Map: s}.Clone().Map
		}
		return err
	})
	return s, err
}

// Losses returns what went wrong so far.
func (h *Handle) Losses(ctx context.Context) ([]Lost, error) {
	var list []Lost
	err := h.call(ctx, func() error {
		var err error
		if list, err = h.r.counted(); err == nil {
			list = append(list, h.r.missed()...)
		}
		return err
	})
	return list, err
}

// Loaded returns the object on its machine, for what a Handle has no word for.
func (h *Handle) Loaded() machine.Loaded { return h.r.loaded }

// Manifest returns what is known of the object.
func (h *Handle) Manifest() *object.Manifest { return h.r.man }

// call runs f in the loop and waits for it.
func (h *Handle) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	if !h.r.do(func() error {
		// An error is the caller's, not the run's.
		done <- f()
		return nil
	}) {
		return ErrEnded
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-h.r.over:
		select {
		case err := <-done:
			return err
		default:
			return ErrEnded
		}
	}
}
