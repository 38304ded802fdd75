//go:build !linux

package runner

import (
	"context"
	"errors"
	"os"
)

var errNoChildren = errors.New("commands are only run on Linux")

func osSignal(int) os.Signal { return nil }

type child struct{}

func startChild([]string) (*child, error) { return nil, errNoChildren }

func (c *child) PID() int            { return 0 }
func (c *child) Resume(func()) error { return nil }
func (c *child) End() int            { return -1 }
func (c *child) Kill()               {}

func watchProcess(int, context.CancelFunc) (func(), error) { return func() {}, nil }

func system(string, <-chan struct{}) (string, error) { return "", errNoChildren }
