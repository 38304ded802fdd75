package runner

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// openBuffers reads the buffers that the manifest does not describe by
// events, and what programs print with bpf_printk. They belong to objects that
// other compilers made.
func (r *run) openBuffers() (func(), error) {
	closeAll := func() {
		r.stopReaders()
		for _, b := range r.buffers {
			b.Close()
		}
	}
	read := func(rec machine.Records, deliver func(data []byte) error) {
		r.buffers = append(r.buffers, buffer{rec, deliver})
		r.readers.Go(func() {
			for {
				data, err := rec.Read()
				if err != nil {
					return
				}
				data = bytes.Clone(data)
				r.later(func() error { return deliver(data) })
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

// A buffer is one that another compiler's object has, and what takes its records.
type buffer struct {
	machine.Records
	deliver func(data []byte) error
}

// stopReaders ends the reading of buffers side by side with the run.
func (r *run) stopReaders() {
	for _, b := range r.buffers {
		b.SetDeadline(past)
	}
	r.readers.Wait()
}

// drainBuffers delivers what buffers still hold once nothing is attached.
func (r *run) drainBuffers() error {
	r.stopReaders()
	if err := r.work(); err != nil {
		return err
	}
	for _, b := range r.buffers {
		for b.Pending() > 0 {
			b.SetDeadline(time.Now().Add(100 * time.Millisecond))
			data, err := b.Read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if err := b.deliver(data); err != nil {
				return err
			}
		}
	}
	return nil
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
