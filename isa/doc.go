// Package isa is one BPF instruction: its fields, and how it is encoded,
// decoded, printed and parsed, as RFC 9669 and Linux 6.18 define it.
//
// It imports nothing else of skep and knows neither types nor maps. Start
// reading at [Instruction]; [Decode] and [Encode] deal with bytes, [Printer]
// and [Parser] with text.
package isa
