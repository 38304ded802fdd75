// Command picture runs a command and draws what it prints as a terminal, in
// SVG: the picture of the README is made of real output.
//
// It is for those who work on skep: no room may import it, and it imports none.
// Start reading at main.
package main
