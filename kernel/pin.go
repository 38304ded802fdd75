package kernel

import (
	"os"
	"path/filepath"
)

// Directories below the one that an object is pinned to.
const (
	pinMaps  = "maps"
	pinProgs = "progs"
	pinLinks = "links"
)

// PinnedLinks returns the paths of the links of the object that is pinned below
// a directory: it runs as long as they are there.
func PinnedLinks(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, pinLinks))
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		list = append(list, filepath.Join(dir, pinLinks, e.Name()))
	}
	return list
}
