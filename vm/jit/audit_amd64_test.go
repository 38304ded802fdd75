//go:build linux

package jit

var auditedNative = audited(x86Generate, auditX86)

var trapBytes = []byte{trapFill}
