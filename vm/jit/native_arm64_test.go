//go:build linux

package jit

var auditedNative = audited(a64Generate, auditA64)

var trapBytes = []byte{trapFill}
