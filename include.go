package skep

import (
	"io/fs"
	"strings"
)

// carried returns what reads the files that a source included when it was
// compiled, by the names they had then; directories that were given by -I may
// be missing from the name that is asked for.
func carried(texts map[string]string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := texts[name]; ok {
			return []byte(text), nil
		}
		found := ""
		for path := range texts {
			if strings.HasSuffix(path, "/"+name) && (found == "" || path < found) {
				found = path
			}
		}
		if found == "" {
			return nil, fs.ErrNotExist
		}
		return []byte(texts[found]), nil
	}
}
