// Package house holds the rules of the whole tree as tests: who may import
// whom, what every room has, what no file may contain.
//
// It has no code outside its tests, so nothing can import it; the tests import
// no room, they read the sources. Start reading at policy in imports_test.go.
package house
