package jit

import (
	crand "crypto/rand"
	"math/rand/v2"
)

// keys are the random numbers of one compilation: a fresh one for each constant
// that is blinded, and where code starts.
type keys struct{ rand *rand.ChaCha8 }

func newKeys() *keys {
	var seed [32]byte
	crand.Read(seed[:]) // which never fails
	return &keys{rand.NewChaCha8(seed)}
}

func (k *keys) next() int32 { return int32(k.rand.Uint64()) }

// below returns a number below n.
func (k *keys) below(n int) int { return int(k.rand.Uint64() % uint64(n)) }
