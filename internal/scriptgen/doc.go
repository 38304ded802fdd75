// Package scriptgen writes random scripts of the tracing language that are
// well-typed by construction, for tests that compile them and load them into
// kernels.
//
// It is for tests only and imports nothing of the product: what it knows of
// the language is an independent reading of it. Start reading at [Script].
package scriptgen
