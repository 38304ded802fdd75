// Command hello prints addresses of its own functions.
package main

import (
	"fmt"
	"os"
	"reflect"
)

type shape struct{ w, h int }

//go:noinline
func (s *shape) Area() int { return s.w * s.h }

//go:noinline
func plain(x int) int { return x + len(os.Args) }

func main() {
	fmt.Printf("main.plain %#x\n", reflect.ValueOf(plain).Pointer())
	fmt.Printf("main.(*shape).Area %#x\n", reflect.ValueOf((*shape).Area).Pointer())
	_ = plain((&shape{1, 2}).Area())
}
