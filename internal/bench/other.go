//go:build !linux

package main

import "fmt"

func main() { fmt.Println("bench: there is nothing to measure but on Linux") }
