package target

import (
	"bytes"
	"testing"
)

// Sections of any content under a sound header, which mutated files hardly
// ever have.
func FuzzSections(f *testing.F) {
	facts := []byte(`{"name":"x","arch":"amd64","release":"6.1","cpus":2,"page_size":4096,"features":[{"name":"btf","have":true}]}`)
	f.Add(facts, []byte{0x9f, 0xeb}, []byte("\x03a:b\x08name: b\n"), []byte("a:b\n"), []byte("0 T f\t[m]\n"), 3)
	f.Add(facts, []byte(nil), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), []byte("a:b\n"), []byte("0 T"), 0)
	f.Fuzz(func(t *testing.T, facts, btf, formats, events, symbols []byte, lie int) {
		s := &saver{}
		s.add(sectionFacts, facts, nil)
		s.add(sectionBTF+"vmlinux", btf, nil)
		s.add(sectionBTF+"m", btf, nil)
		s.add(sectionFormats, formats, nil)
		s.add(sectionEvents, events, nil)
		s.add(sectionFunctions, events, ErrUnknown)
		s.add(sectionSymbols, symbols, nil)
		s.sections += lie % 3
		var file bytes.Buffer
		if err := s.write(&file); err != nil {
			return
		}
		m, err := Load(&file)
		if err != nil {
			return
		}
		if lie%3 != 0 {
			t.Error("a wrong number of sections is not noticed")
		}
		all, err := m.Events()
		if err != nil {
			t.Error(err)
		}
		for _, e := range all {
			_, _ = m.Format(e.Subsystem, e.Name)
		}
		_, _ = m.Functions()
		_, _ = m.Symbol("f")
		_, _ = m.RawTracepoints()
		_, _ = m.Iterators()
		_ = m.Feature(FeatureBTF)
	})
}
