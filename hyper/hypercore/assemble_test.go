package hypercore

import (
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// What other signers send is theirs to get wrong.
func TestAssembleTakesAnyParts(t *testing.T) {
	a, b := keyPairN(1), keyPairN(2)
	m := &Manifest{Version: 0, AllowPatch: true, Quorum: 2, Signers: []Signer{{DefaultNamespace, a.Public}, {DefaultNamespace, b.Public}}}
	v, err := NewVerifier(m.Key(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Assemble([]PartialSignature{{Patch: 1}, {Signer: 1}}); !errors.Is(err, ErrSignature) {
		t.Errorf("a patch without nodes: %v", err)
	}
	// Two nodes of one number: version 0 keeps both, as the reference does, and later versions the first.
	parts := []PartialSignature{
		{Patch: 1, Nodes: []merkle.Node{{Index: 4, Size: 1}}},
		{Signer: 1, Patch: 1, Nodes: []merkle.Node{{Index: 4, Size: 2}}},
	}
	for version, want := range []int{2, 1} {
		m.Version = version
		signature, err := v.Assemble(parts)
		if err != nil {
			t.Fatal(err)
		}
		if _, nodes, err := v.inflate(signature); err != nil || len(nodes) != want {
			t.Errorf("version %d: %d nodes, %v, want %d", version, len(nodes), err, want)
		}
	}
}
