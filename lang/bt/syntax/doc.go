// Package syntax reads and writes the text of the tracing language: lexer, C
// preprocessor, parser, syntax tree, printer and formatter.
//
// It imports only source, and knows no probe, no builtin, no type and no
// machine: what a name means is decided elsewhere. Start reading at [Parse]
// and [Program]; the tree is in ast.go and cast.go, the grammar in parse*.go.
package syntax
