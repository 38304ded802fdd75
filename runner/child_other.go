//go:build !linux

package runner

import (
	"context"
	"errors"
	"os"
)

var errNoChildren = errors.New("commands are only run on Linux")

func osSignal(int) os.Signal { return nil }

type child struct{ pid int }

func startChild([]string) (*child, error) { return nil, errNoChildren }

func (c *child) resume(func()) error { return nil }
func (c *child) end() int            { return -1 }
func (c *child) kill()               {}

func watchProcess(int, context.CancelFunc) (func(), error) { return func() {}, nil }

func system(string, <-chan struct{}) (string, error) { return "", errNoChildren }
