//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/guest"
)

// BenchmarkHooksOfGuests measures in guests what an event of each kind of hook
// costs. The table of hooks runs it.
func BenchmarkHooksOfGuests(b *testing.B) {
	for _, k := range guest.Kernels {
		b.Run(k.String(), func(b *testing.B) {
			dir := os.Getenv(toolsEnv)
			if dir == "" {
				dir = b.TempDir()
				if err := build(dir); err != nil {
					b.Fatal(err)
				}
			}
			files := guest.Files{}
			for _, name := range []string{"skep", loadName, "bench"} {
				files["/bench/"+name] = filepath.Join(dir, name)
			}
			const limit = 5 * time.Minute
			for b.Loop() {
				r := guest.Run(b, k, guest.Config{Files: files}, guest.Cmd{
					Args:    []string{"/bench/bench", "-tools", "/bench", "-hook-costs", strings.Join(hookNames(false), ",")},
					Timeout: limit,
				})
				costs := map[string]float64{}
				if err := json.Unmarshal(r.Stdout, &costs); err != nil || r.Code != 0 {
					b.Fatalf("%s: exit code %d, %v\n%s%s", k, r.Code, err, r.Stdout, r.Stderr)
				}
				for name, ns := range costs {
					b.ReportMetric(ns, strings.ReplaceAll(name, " ", "-")+"-ns")
				}
			}
		})
	}
}
