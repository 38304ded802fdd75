package target

import "github.com/cilium/ebpf/btf"

// New returns the target that a source describes.
func New(src Source) (Target, error) { return nil, ErrUnknown }

func declare(f Field) string { return f.CType + " " + f.Name }

func fieldType(t Target, f Field) (btf.Type, error) { return nil, ErrUnknown }
