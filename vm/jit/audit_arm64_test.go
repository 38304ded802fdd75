//go:build linux

package jit

var auditedNative generator = a64Generate

var trapBytes = []byte{trapFill}
