package target_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/skep-bpf/skep/target"
)

func TestWithFunctions(t *testing.T) {
	var base target.Target // nothing else of it is asked for
	w := target.WithFunctions(base, "vfs_write\nvfs_read\next4_read [ext4]\n")
	all, err := w.Functions()
	if got := fmt.Sprint(all); err != nil || got != "[ext4:ext4_read vfs_read vfs_write]" {
		t.Errorf("%s, %v", got, err)
	}
	for _, tt := range []struct {
		module, name string
		found        bool
	}{
		{"", "vfs_read", true},
		{"vmlinux", "vfs_read", true},
		{"", "ext4_read", true},
		{"ext4", "ext4_read", true},
		{"xfs", "ext4_read", false},
		{"", "vfs_open", false},
	} {
		list, err := w.Function(tt.module, tt.name)
		if tt.found != (len(list) == 1) || !tt.found && !errors.Is(err, target.ErrNotFound) {
			t.Errorf("%s:%s: %v, %v", tt.module, tt.name, list, err)
		}
	}
	if target.Underlying(w) != base {
		t.Error("the target below is another one")
	}
}
