// Package hook holds attach points as data: what a probe of the tracing
// language or the section of an object attaches to, in both spellings, with
// wildcards and their expansion over a target, and listing.
//
// It must not attach anything and knows neither a language's grammar nor the
// bpf system call. Start reading at [Point] and [Parse].
package hook
