// Command bench measures skep side by side with bpftrace, and its code side by
// side with clang's, and prints tables in Markdown, each with the scripts that
// were run; with -write it puts them into CONFORMANCE.md, between its markers.
// What is traced is a load written in C; hooks that this machine may lack are
// measured in guests.
//
// It is for those who work on skep: no room may import it, and it imports
// nothing of skep but the guests of its tests: it knows the command line and
// objects. Start reading at main.
package main
