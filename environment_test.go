package skep

import (
	"maps"
	"testing"
)

func TestEnvironmentSettings(t *testing.T) {
	got := EnvironmentSettings([]string{
		"PATH=/bin", "BPFTRACE_MAX_STRLEN=99", "BPFTRACE_MAP_KEYS_MAX=7", "BPFTRACE_NO_CPP_DEMANGLE=1",
		"BPFTRACE_COLOR=never", "BPFTRACE_MISSING_PROBES=warn", "BPFTRACE_", "BPFTRACE_NO_USER_SYMBOLS=0",
	})
	want := map[string]string{
		"max_strlen": "99", "max_map_keys": "7", "cpp_demangle": "0", "missing_probes": "warn",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
