package skep

import (
	"errors"
	"io/fs"
	"testing"
)

func TestCarried(t *testing.T) {
	read := carried(map[string]string{"inc/a.h": "A", "b.h": "B", "other/deep/a.h": "A2"})
	for name, want := range map[string]string{"b.h": "B", "inc/a.h": "A", "a.h": "A", "deep/a.h": "A2"} {
		if got, err := read(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"c.h", ".h", "nc/a.h"} {
		if _, err := read(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
