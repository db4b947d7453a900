// Package salsa encrypts with XSalsa20 as golang.org/x/crypto/salsa20 does, but
// what is long several times as fast where the processor has wide vectors: many
// blocks of the key stream are made side by side.
//
//	salsa.XORKeyStream(out, in, &nonce, &key)
package salsa

import "golang.org/x/crypto/salsa20"

// XORKeyStream writes to out what is in, encrypted or decrypted. They must be the
// same bytes or have none in common, and out must be at least as long.
func XORKeyStream(out, in []byte, nonce *[24]byte, key *[32]byte) {
	if len(in) < minVectors || !xorVectors(out[:len(in)], in, nonce, key) {
		salsa20.XORKeyStream(out, in, nonce[:], key)
	}
}
