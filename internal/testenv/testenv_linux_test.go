package testenv

import (
	"os"
	"testing"
)

func TestNeedTracefs(t *testing.T) {
	dir := NeedTracefs(t)
	if _, err := os.Stat(dir + "/events/sched/sched_switch/format"); err != nil {
		t.Error(err)
	}
	if again := NeedTracefs(t); again != dir {
		t.Errorf("second call says %s, first %s", again, dir)
	}
}
