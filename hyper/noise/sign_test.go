package noise

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

func TestKeyPairSignsAsEd25519Does(t *testing.T) {
	for i := range byte(20) {
		seed := [32]byte{i, 1}
		keys := NewKeyPair(seed)
		message := bytes.Repeat([]byte{i}, int(i)*13)
		want := ed25519.Sign(ed25519.NewKeyFromSeed(seed[:]), message)
		if got := keys.Sign(message); !bytes.Equal(got, want) {
			t.Fatalf("signature of %x by seed %x is %x, want %x", message, seed, got, want)
		}
	}
}
