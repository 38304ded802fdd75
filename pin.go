package skep

import (
	"maps"
	"slices"

	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// pinOptions are the options of loading with what is asked for of pins.
func pinOptions(man *object.Manifest, opts RunOptions) (machine.LoadOptions, error) {
	load := opts.Load
	switch {
	case opts.Pin != "" && opts.Replace:
		load.Replace = opts.Pin
	case opts.Pin != "":
		if links := kernel.PinnedLinks(opts.Pin); len(links) > 0 {
			d := &source.Diagnostic{Code: "pinned", Message: "an object is pinned below " + opts.Pin + " already, and runs"}
			return load, d.Notef("--replace takes its place and keeps its maps; removing the directory (rm -r) ends it")
		}
	}
	if len(opts.Maps) == 0 {
		return load, nil
	}
	load.Maps = maps.Clone(load.Maps)
	if load.Maps == nil {
		load.Maps = map[string]machine.MapOptions{}
	}
	for name, path := range opts.Maps {
		i := slices.IndexFunc(man.Maps, func(m object.MapShow) bool { return m.Name == name || m.Map == name })
		if i >= 0 && man.Maps[i].Map == "" {
			d := &source.Diagnostic{Code: "unknown-map", Message: name + " is a plain variable, which has no pin of its own"}
			return load, d.Notef("--replace takes over all of an object's variables; a map with keys can be taken alone")
		}
		if i < 0 {
			d := &source.Diagnostic{Code: "unknown-map", Message: "the object has no map " + name}
			if near := source.Nearest(name, mapNames(man)); near != "" {
				d.Notef("did you mean %q?", near)
			}
			return load, d
		}
		m := load.Maps[man.Maps[i].Map]
		m.Pinned = path
		load.Maps[man.Maps[i].Map] = m
	}
	return load, nil
}

// mapNames are the names of an object's maps.
func mapNames(man *object.Manifest) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, m := range man.Maps {
			if m.Map != "" && !yield(m.Name) {
				return
			}
		}
	}
}
