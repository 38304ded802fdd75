package source

import (
	"iter"
	"strings"
)

// Nearest returns the candidate that name was most likely meant to be, or ""
// when none is close: at most a third of name's characters differ, by edits
// and swaps of neighbours. Case does not count. Of equals one that only has
// characters that name lacks wins, then the first.
func Nearest(name string, candidates iter.Seq[string]) string {
	limit := max(1, (len(name)+1)/3)
	if len(name) < 2 {
		limit = 0
	}
	best, bestDistance := "", limit+1
	lower := strings.ToLower(name)
	var rows [3][]int
	for c := range candidates {
		if c == name {
			continue
		}
		lc := strings.ToLower(c)
		d := distance(lower, lc, min(bestDistance, limit)+1, &rows)
		if d < bestDistance || d == bestDistance && best != "" && within(lower, lc) && !within(lower, strings.ToLower(best)) {
			best, bestDistance = c, d
			if d == 0 {
				break
			}
		}
	}
	return best
}

// within reports whether b has the characters of a, in their order.
func within(a, b string) bool {
	for i := 0; i < len(a); i++ {
		at := strings.IndexByte(b, a[i])
		if at < 0 {
			return false
		}
		b = b[at+1:]
	}
	return true
}

// distance is the optimal string alignment distance of a and b, or limit
// when it is not below it.
func distance(a, b string, limit int, rows *[3][]int) int {
	if diff := len(a) - len(b); diff >= limit || -diff >= limit {
		return limit
	}
	for i := range rows {
		if cap(rows[i]) <= len(b) {
			rows[i] = make([]int, len(b)+1, 2*len(b)+16)
		}
		rows[i] = rows[i][:len(b)+1]
	}
	before, prev, cur := rows[0], rows[1], rows[2]
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			cur[j] = d
			least = min(least, d)
		}
		if least >= limit {
			return limit
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}
