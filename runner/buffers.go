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

// packetHead is the size of what stands before a packet; see object.Buffer.
const packetHead = 32

// packet writes what skboutput handed over to its file.
func (r *run) packet(data []byte) error {
	if len(data) < packetHead {
		return nil
	}
	head := func(at int) uint64 { return r.order.Uint64(data[at:]) }
	index := int(r.order.Uint32(data))
	if index < 0 || index >= len(r.man.Events) {
		return nil
	}
	spec := &r.man.Events[index]
	packet := data[packetHead:]
	packet = packet[:min(head(24), uint64(len(packet)))]
	packet = packet[min(head(16), uint64(len(packet))):]
	if err := r.files.write(spec.Format, r.names.time(int64(head(8)), ClockBoot), packet); err != nil {
		return r.warn(&Event{Spec: spec}, "the packet could not be written to %s: %s", spec.Format, reason(err))
	}
	return nil
}

// foreign delivers a record of a buffer: as the type that has its size, else
// as bytes.
func (r *run) foreign(b *object.Buffer, data []byte) error {
	if b.Packets {
		return r.packet(data)
	}
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
