package kernel

import "testing"

func TestParseCapabilities(t *testing.T) {
	for _, tt := range []struct {
		status string
		have   []string
		ok     bool
	}{
		{"Name:\tx\nCapEff:\t000001ffffffffff\n", []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_SYS_PTRACE"}, true},
		{"CapEff:\t000000c000000000\n", []string{"CAP_BPF", "CAP_PERFMON"}, true},
		{"CapEff:\t0000000000000000", nil, true},
		{"CapEff:\tzz\n", nil, false},
		{"", nil, false},
	} {
		list, ok := parseCapabilities(tt.status)
		if ok != tt.ok {
			t.Errorf("%q: ok is %v", tt.status, ok)
		}
		var have []string
		for _, c := range list {
			if c.Have {
				have = append(have, c.Name)
			}
		}
		if len(have) != len(tt.have) {
			t.Errorf("%q: %q, want %q", tt.status, have, tt.have)
			continue
		}
		for i := range have {
			if have[i] != tt.have[i] {
				t.Errorf("%q: %q, want %q", tt.status, have, tt.have)
			}
		}
	}
}
