// Package targettest holds made-up machines for tests of the rooms that look
// at a target.
//
// It is for tests only and must not import anything but target. Start reading
// at the functions that return a target.Target.
package targettest
