package runner

import (
	"bytes"
	"context"
	"sync"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// openBuffers reads the buffers that the manifest does not describe by
// events, and what programs print with bpf_printk. They belong to objects that
// other compilers made.
func (r *run) openBuffers(ctx context.Context) (func(), error) {
	var open []machine.Records
	var wg sync.WaitGroup
	closeAll := func() {
		for _, rec := range open {
			rec.SetDeadline(past)
			rec.Close()
		}
		wg.Wait()
	}
	read := func(rec machine.Records, deliver func(data []byte) error) {
		open = append(open, rec)
		wg.Go(func() {
			for ctx.Err() == nil {
				data, err := rec.Read()
				if err != nil {
					return
				}
				data = bytes.Clone(data)
				if !r.do(func() error { return deliver(data) }) {
					return
				}
			}
		})
	}
	for i := range r.man.Buffers {
		b := &r.man.Buffers[i]
		rec, err := r.loaded.Records(b.Map)
		if err != nil {
			closeAll()
			return nil, err
		}
		read(rec, func(data []byte) error { return r.foreign(b, data) })
	}
	if p, ok := r.loaded.(interface {
		Prints() (machine.Records, error)
	}); ok && r.man.Prints {
		rec, err := p.Prints()
		if err != nil {
			return closeAll, r.warn(nil, "%v", err)
		}
		read(rec, func(data []byte) error {
			return r.Events(Event{Kind: object.EventJoin, Text: string(data)})
		})
	}
	return closeAll, nil
}

// foreign delivers a record of a buffer: as the type that has its size, else
// as bytes.
func (r *run) foreign(b *object.Buffer, data []byte) error {
	e := Event{Kind: EventRecord, Text: b.Map, Values: make([]Value, 1)}
	for i := range b.Types {
		if t := &b.Types[i]; t.Size == len(data) || len(b.Types) == 1 && t.Size <= len(data) {
			r.dec.decode(&e.Values[0], t, data)
			return r.Events(e)
		}
	}
	e.Values[0] = Value{Type: &object.Type{Kind: object.TypeBuffer}, Bytes: data}
	return r.Events(e)
}
