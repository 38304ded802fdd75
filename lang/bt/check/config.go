package check

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

// Config are the settings of a script: defaults, overridden by its config
// block, overridden by the caller's (BPFTRACE_* in the environment).
type Config struct {
	MaxStrlen        int // bytes of a string, the terminating zero included
	MaxMapKeys       int
	MaxProbes        int
	MaxPrograms      int
	MaxCatBytes      int
	OnStackLimit     int
	PerfRingPages    int
	LogSize          int
	PrintMapsOnExit  bool
	CacheUserSymbols string // "PER_PID", "PER_PROGRAM", "NONE"
	CppDemangle      bool
	LazySymbols      bool
	ShowDebugInfo    bool
	License          string
	MissingProbes    string // "error", "warn", "ignore"
	StackMode        string // "bpftrace", "perf", "raw", "build_id"
	StrTruncTrailer  string
}

// DefaultConfig returns the settings of a script that says nothing.
func DefaultConfig() Config {
	return Config{
		MaxStrlen: 1024, MaxMapKeys: 4096, MaxProbes: 1024, MaxPrograms: 1024, MaxCatBytes: 10240,
		OnStackLimit: 32, PerfRingPages: 64, LogSize: 1000000, PrintMapsOnExit: true,
		CacheUserSymbols: "PER_PROGRAM", CppDemangle: true, ShowDebugInfo: true, License: "GPL",
		MissingProbes: "error", StackMode: "bpftrace", StrTruncTrailer: "..",
	}
}

// A setting reads one entry of the configuration.
type setting struct {
	set func(c *Config, value string) string // returns what is wrong, or ""
}

func number(field func(*Config) *int, low, high int) setting {
	return setting{func(c *Config, value string) string {
		n, err := strconv.ParseInt(value, 0, 64)
		if err != nil {
			return "must be a number"
		}
		if n < int64(low) || n > int64(high) {
			return "must be between " + strconv.Itoa(low) + " and " + strconv.Itoa(high)
		}
		*field(c) = int(n)
		return ""
	}}
}

func truth(field func(*Config) *bool) setting {
	return setting{func(c *Config, value string) string {
		switch strings.ToLower(value) {
		case "1", "true":
			*field(c) = true
		case "0", "false":
			*field(c) = false
		default:
			return "must be true or false"
		}
		return ""
	}}
}

func word(field func(*Config) *string, allowed ...string) setting {
	return setting{func(c *Config, value string) string {
		for _, a := range allowed {
			if strings.EqualFold(a, value) {
				*field(c) = a
				return ""
			}
		}
		if len(allowed) > 0 {
			return "must be one of " + strings.Join(allowed, ", ")
		}
		*field(c) = value
		return ""
	}}
}

var settings = map[string]setting{
	"max_strlen":      number(func(c *Config) *int { return &c.MaxStrlen }, 1, 1<<16),
	"max_map_keys":    number(func(c *Config) *int { return &c.MaxMapKeys }, 1, 1<<26),
	"max_probes":      number(func(c *Config) *int { return &c.MaxProbes }, 1, 1<<20),
	"max_bpf_progs":   number(func(c *Config) *int { return &c.MaxPrograms }, 1, 1<<20),
	"max_cat_bytes":   number(func(c *Config) *int { return &c.MaxCatBytes }, 0, 1<<30),
	"on_stack_limit":  number(func(c *Config) *int { return &c.OnStackLimit }, 0, 512),
	"perf_rb_pages":   number(func(c *Config) *int { return &c.PerfRingPages }, 1, 1<<20),
	"log_size":        number(func(c *Config) *int { return &c.LogSize }, 1, 1<<30),
	"show_debug_info": truth(func(c *Config) *bool { return &c.ShowDebugInfo }),
	"cpp_demangle":    truth(func(c *Config) *bool { return &c.CppDemangle }),
	"lazy_symbolication": truth(func(c *Config) *bool {
		return &c.LazySymbols
	}),
	"print_maps_on_exit": truth(func(c *Config) *bool { return &c.PrintMapsOnExit }),
	"cache_user_symbols": word(func(c *Config) *string { return &c.CacheUserSymbols }, "PER_PID", "PER_PROGRAM", "NONE"),
	"license":            word(func(c *Config) *string { return &c.License }),
	"missing_probes":     word(func(c *Config) *string { return &c.MissingProbes }, "error", "warn", "ignore"),
	"stack_mode":         word(func(c *Config) *string { return &c.StackMode }, "bpftrace", "perf", "raw", "build_id"),
	"str_trunc_trailer":  word(func(c *Config) *string { return &c.StrTruncTrailer }),
}

// oldSettings are names of settings as environment variables had them.
var oldSettings = map[string]string{
	"strlen": "max_strlen", "map_keys_max": "max_map_keys", "no_cpp_demangle": "cpp_demangle",
	"cat_bytes_max": "max_cat_bytes", "log_size_max": "log_size", "max_progs": "max_bpf_progs",
}

// Set changes one setting by its name, and says in words what is wrong with
// the name or the value, or "".
func (c *Config) Set(name, value string) string {
	name = strings.ToLower(strings.TrimPrefix(strings.ToLower(name), "bpftrace_"))
	if n, ok := oldSettings[name]; ok {
		name = n
	}
	s, ok := settings[name]
	if !ok {
		return "there is no such setting"
	}
	return s.set(c, value)
}

func (c *checker) config(block *syntax.Config) {
	if block == nil {
		return
	}
	for _, e := range block.Entries {
		var value string
		switch v := e.Value.(type) {
		case *syntax.IntLit:
			value = strconv.FormatUint(v.Value, 10)
		case *syntax.StringLit:
			value = v.Value
		case *syntax.BoolLit:
			value = strconv.FormatBool(v.Value)
		case *syntax.Ident:
			value = v.Name
		default:
			value = e.Value.Span().Text()
		}
		name := strings.ToLower(strings.TrimPrefix(strings.ToLower(e.Name.Text), "bpftrace_"))
		if _, ok := settings[name]; !ok && oldSettings[name] == "" {
			c.errorf(e.Name.Loc, "unknown-setting", "there is no setting %q", e.Name.Text).
				Suggest(source.Nearest(name, slices.Values(slices.Sorted(maps.Keys(settings)))))
			continue
		}
		if problem := c.res.Config.Set(name, value); problem != "" {
			c.errorf(e.Value.Span(), "bad-setting", "%s %s", e.Name.Text, problem)
		}
	}
}
