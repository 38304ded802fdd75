package testenv

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestAllowed(t *testing.T) {
	for _, tt := range []struct {
		feature  Feature
		guest    string
		onMatrix bool
		want     bool
	}{
		{Root, "", false, false},
		{Tool, "", true, false},
		{Guest, "", false, false},
		{Kprobe, "", false, false},
		{Kprobe, "", true, true},
		{Kprobe, "6.1", false, false},
		{KprobeMulti, "6.1", false, true},
		{KprobeMulti, "6.12", false, false},
		{KprobeMulti, "", true, true},
		{HardwareCounters, "", false, true},
		{HardwareCounters, "6.12", false, true},
		{"no such feature", "", true, false},
	} {
		if got := Allowed(tt.feature, tt.guest, tt.onMatrix); got != tt.want {
			t.Errorf("Allowed(%q, %q, %v) = %v, want %v", tt.feature, tt.guest, tt.onMatrix, got, tt.want)
		}
	}
}

// recorder notes how a helper ends a test.
type recorder struct {
	testing.TB
	name, skipped, failed string
}

type ended struct{}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return r.name }
func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	panic(ended{})
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(ended{})
}

func record(name string, f func(testing.TB)) (r *recorder) {
	r = &recorder{name: name}
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(ended); !ok {
				panic(e)
			}
		}
	}()
	f(r)
	return r
}

func TestSkip(t *testing.T) {
	skip := func(f Feature) func(testing.TB) {
		return func(tb testing.TB) { Skip(tb, f, "because of %s", "weather") }
	}
	t.Setenv(GuestEnv, "")
	t.Setenv("CI", "")
	if r := record("TestA", skip(Kprobe)); r.skipped != SkipMark+"kprobe: because of weather" {
		t.Errorf("outside CI: skipped with %q", r.skipped)
	}
	t.Setenv("CI", "true")
	if r := record("TestA", skip(Kprobe)); !strings.Contains(r.failed, "weather") {
		t.Errorf("in CI: failed with %q, skipped with %q", r.failed, r.skipped)
	}
	OnMatrix(&recorder{name: "TestA/live"})
	if r := record("TestA/live/sub", skip(Kprobe)); r.skipped == "" {
		t.Errorf("in CI on the matrix: failed with %q", r.failed)
	}
	t.Setenv(GuestEnv, "6.12")
	if r := record("TestA/live", skip(Kprobe)); r.failed == "" {
		t.Errorf("in CI on a guest that has it: skipped with %q", r.skipped)
	}
}

func TestNeedTool(t *testing.T) {
	t.Setenv("CI", "")
	if r := record("TestA", func(tb testing.TB) { NeedTool(tb, "qemu-system-x86_64-not-here") }); !strings.Contains(r.skipped, "apt-get install") {
		t.Errorf("missing tool: skipped with %q", r.skipped)
	}
	if runtime.GOOS != "linux" {
		return
	}
	if r := record("TestA", func(tb testing.TB) { NeedTool(tb, "sh") }); r.skipped != "" {
		t.Errorf("sh: skipped with %q", r.skipped)
	}
}
