//go:build linux

package main

import "strings"

// merge puts tables that were measured into the text that has those of
// before: each takes the place of the one with its title.
func merge(old, measured string) string {
	head, tables := sections(measured)
	_, all := sections(old)
	for _, t := range tables {
		found := false
		for i := range all {
			if title(all[i]) == title(t) {
				all[i], found = t, true
			}
		}
		if !found {
			all = append(all, t)
		}
	}
	return strings.Join(append([]string{head}, all...), "\n\n")
}

// sections cuts a text before its titles.
func sections(text string) (head string, tables []string) {
	parts := strings.Split("\n"+text, "\n### ")
	for _, p := range parts[1:] {
		tables = append(tables, "### "+strings.TrimSpace(p))
	}
	return strings.TrimSpace(parts[0]), tables
}

func title(table string) string {
	first, _, _ := strings.Cut(table, "\n")
	return first
}
