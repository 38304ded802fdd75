package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/object"
)

// An executable that "skep build --exe" makes is a copy of skep, the object,
// and this trailer: the length of the object (8 bytes, little-endian) and the
// magic.
const (
	trailerMagic = "skep object here"
	trailerSize  = 8 + len(trailerMagic)
)

// embedded returns the object that is appended to the running executable, nil
// where there is none.
func embedded() (*skep.Object, error) {
	name, err := os.Executable()
	if err != nil {
		return nil, nil // cannot be known, so it is taken for plain skep
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil
	}
	elf, _, err := appended(f, st.Size())
	if elf == nil || err != nil {
		return nil, err
	}
	return skep.ReadObject(elf)
}

// appended returns the object behind an executable of size bytes, nil where
// there is none, and the size of the executable without it.
func appended(r io.ReaderAt, size int64) (elf []byte, bare int64, err error) {
	if size < int64(trailerSize) {
		return nil, size, nil
	}
	trailer := make([]byte, trailerSize)
	if _, err := r.ReadAt(trailer, size-int64(trailerSize)); err != nil {
		return nil, size, nil
	}
	if !bytes.Equal(trailer[8:], []byte(trailerMagic)) {
		return nil, size, nil
	}
	n := binary.LittleEndian.Uint64(trailer)
	if n == 0 || n > object.MaxFileSize || int64(n) > size-int64(trailerSize) {
		return nil, size, errors.New("the object inside this executable is damaged: build it again")
	}
	bare = size - int64(trailerSize) - int64(n)
	elf = make([]byte, n)
	if _, err := r.ReadAt(elf, bare); err != nil {
		return nil, size, fmt.Errorf("reading the object inside this executable: %w", err)
	}
	return elf, bare, nil
}

// writeExecutable writes a copy of the executable at base with an object in it.
func writeExecutable(w io.Writer, base string, elf []byte) error {
	f, err := os.Open(base)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	_, bare, err := appended(f, st.Size())
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, io.NewSectionReader(f, 0, bare)); err != nil {
		return err
	}
	trailer := append(binary.LittleEndian.AppendUint64(nil, uint64(len(elf))), trailerMagic...)
	_, err = w.Write(append(bytes.Clone(elf), trailer...))
	return err
}

// embeddedCommand is the command line of an executable with an object in it.
func (a *app) embeddedCommand(obj *skep.Object) *cobra.Command {
	var r runFlags
	what := "a program for the Linux kernel"
	if obj.Manifest != nil && obj.Manifest.Source.Name != "" {
		what = "runs " + obj.Manifest.Source.Name + " in the Linux kernel"
	}
	cmd := &cobra.Command{
		Use: a.name + " [flags] [ARGS...] [-- --NAME=VALUE...]", Short: what,
		Long:          what + " (built by skep). Arguments are the script's $1, $2, ...; without any it\nhas those that it was built with.",
		Example:       "  " + a.name + " --json",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var s scriptFlags
			if args = s.parameters(cmd, args); len(args) > 0 {
				r.args = args
			}
			r.named = s.named
			if err := r.check(a); err != nil {
				return err
			}
			return a.execute(cmd, &r, obj)
		},
	}
	r.add(cmd, a)
	cmd.Flags().BoolVar(&a.json, "json", false, "write results and diagnostics as JSON, one object a line")
	cmd.SetFlagErrorFunc(flagError)
	wrapArgs(cmd)
	return cmd
}
