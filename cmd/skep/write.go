package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// writeFile writes a file in one piece: it appears whole, or not at all. What
// is no regular file (a device, a pipe) is written as it is; "-" is standard
// output.
func (a *app) writeFile(name string, mode os.FileMode, write func(io.Writer) error) error {
	if name == "-" {
		return write(a.stdout)
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return named(errors.Join(write(f), f.Close()), name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			path.Path = name
		}
		return err
	}
	temp := f.Name()
	err = errors.Join(write(f), f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return named(err, name)
}

// named puts the name that the user gave into an error about a file.
func named(err error, name string) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return &os.PathError{Op: path.Op, Path: name, Err: path.Err}
	}
	return err
}
