package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/hook"
)

// maxCompletions is how many names a shell is offered at once.
const maxCompletions = 2000

// completeProbes completes the attach point at the end of a word, part by part:
// "tracepoint:sy" to "tracepoint:syscalls:".
func completeProbes(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	// Of a script, the attach point being written is behind the last body or comma.
	start := strings.LastIndexAny(word, "}, ") + 1
	before, point := word[:start], word[start:]
	if strings.ContainsAny(point, "{/") && !strings.Contains(point, ":/") {
		return nil, directive // inside a body or a filter
	}
	colons := strings.Count(point, ":")
	seen := map[string]bool{}
	var names []string
	offer := func(name string) bool {
		if !strings.HasPrefix(name, point) || seen[name] {
			return true
		}
		seen[name] = true
		names = append(names, before+name)
		return len(names) < maxCompletions
	}
	if colons == 0 {
		for _, p := range providers {
			offer(p)
		}
		return names, directive
	}
	for e, err := range skep.List(nil, point+"*", false, hook.Options{}) {
		if err != nil {
			break
		}
		if !offer(upTo(e.Point.String(), colons+1)) {
			break
		}
	}
	return names, directive
}

// providers begin attach points.
var providers = []string{
	"begin", "end", "fentry:", "fexit:", "hardware:", "interval:", "iter:", "kprobe:", "kretprobe:", "profile:",
	"rawtracepoint:", "self:signal:", "software:", "tracepoint:", "uprobe:", "uretprobe:", "usdt:", "watchpoint:",
}

// upTo cuts an attach point behind its n-th colon.
func upTo(point string, n int) string {
	at := 0
	for range n {
		i := strings.IndexByte(point[at:], ':')
		if i < 0 {
			return point
		}
		at += i + 1
	}
	return point[:at]
}
