// Package bt compiles the tracing language: a checked script becomes an IR
// module and a manifest that says where its programs attach and how their
// events and maps are shown.
//
// It knows no BPF instructions and calls no kernel. Start reading at
// [Compile], then the generator in gen.go.
package bt
