// Package irtest serves tests of code that makes or changes ir: a small
// machine that runs functions, and a generator of random well-formed modules.
//
// It must not import anything but ir and what that imports. Start reading at
// [Machine] and [Random].
package irtest
