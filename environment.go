package skep

import (
	"strings"

	"github.com/skep-bpf/skep/lang/bt/check"
)

// EnvironmentSettings returns the settings that an environment (of
// "NAME=value") gives by BPFTRACE_NAME, old names included. Variables of that
// prefix that are no settings are left out.
func EnvironmentSettings(environ []string) map[string]string {
	settings := map[string]string{}
	for _, entry := range environ {
		rest, ok := strings.CutPrefix(entry, "BPFTRACE_")
		if !ok {
			continue
		}
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			continue
		}
		name = strings.ToLower(name)
		switch name {
		case "no_cpp_demangle":
			name, value = "cpp_demangle", opposite(value)
		case "no_user_symbols":
			if opposite(value) == "1" {
				continue
			}
			name, value = "cache_user_symbols", "NONE"
		}
		if known, ok := check.SettingName(name); ok {
			settings[known] = value
		}
	}
	return settings
}

// opposite turns a truth value around; other values stay, to be refused later.
func opposite(value string) string {
	switch strings.ToLower(value) {
	case "1", "true":
		return "0"
	case "0", "false":
		return "1"
	}
	return value
}
