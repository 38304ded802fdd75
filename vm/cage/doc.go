// Package cage is the memory of one vm: the only bytes that its programs can
// name, and an allocator whose own state lies elsewhere.
//
// It imports nothing of skep and knows neither programs nor maps. Start reading
// at [Cage]; [New] says how the memory is laid out.
package cage
