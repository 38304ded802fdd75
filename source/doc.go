// Package source holds what every language in skep shares about text: files,
// spans, diagnostics and their rendering with a caret under the very token.
//
// It imports nothing else of skep and knows no language. Start reading at
// [Diagnostic].
package source
