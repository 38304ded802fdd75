// Package testenv tells a test what its surroundings offer, and skips it with
// a reason where they do not. Under CI=true a skip that hides a failure is a
// failure: see [Skip].
//
// It is for tests only: no room of the product may import it, and it imports
// none of them. Start reading at [Skip].
package testenv
