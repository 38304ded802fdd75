// Command bench measures skep side by side with bpftrace, and its code side by
// side with clang's, and prints tables in Markdown, each with the scripts that
// were run; with -write it puts them into CONFORMANCE.md, between its markers.
//
// It is for those who work on skep: no room may import it, and it knows
// nothing of skep but its command line. Start reading at main.
package main
