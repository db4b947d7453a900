package hypercore

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// ErrSignature: a tree is not signed by those who may.
var ErrSignature = errors.New("invalid signature")

// A Verifier checks and makes the signatures of one log (hypercore
// lib/verifier.js). It is immutable.
type Verifier struct {
	key      Key
	manifest *Manifest
	compat   bool // the log's key is its writer's
}

// NewVerifier returns the verifier of a log. The manifest must be the one that
// the key is made from, or, for a log of the old kind, name the key as its only
// signer.
func NewVerifier(key Key, m *Manifest) (*Verifier, error) {
	compat := m.isCompat(key)
	if !compat && m.Key() != key {
		return nil, fmt.Errorf("%w: it is not that of log %s", ErrManifest, key)
	}
	return &Verifier{key, m, compat}, nil
}

// prologue returns the prologue that holds, if any: none while there is no
// verifier.
func (v *Verifier) prologue() *merkle.Prologue {
	if v == nil || v.compat {
		return nil
	}
	return v.manifest.Prologue
}

// raw reports whether signatures are 64 plain bytes.
func (v *Verifier) raw() bool {
	return v.compat || v.manifest.Version == 0 && !v.manifest.AllowPatch && len(v.manifest.Signers) == 1
}

// Signable returns the bytes that a signer signs for a tree.
func (v *Verifier) Signable(t merkle.Tree, signer int) []byte {
	return v.signable(t, t.Hash(), signer)
}

func (v *Verifier) signable(t merkle.Tree, hash merkle.Hash, signer int) []byte {
	b := make([]byte, 0, 112)
	b = append(b, nsTree[:]...)
	switch {
	case v.compat:
	case v.manifest.Version == 0:
		b = append(b, v.manifest.Signers[signer].Namespace[:]...)
	default:
		b = append(b, v.key[:]...)
	}
	b = append(b, hash[:]...)
	b = binary.LittleEndian.AppendUint64(b, t.Length)
	return binary.LittleEndian.AppendUint64(b, t.Fork)
}

// Sign signs a tree with the key pair of one signer. Where the log has several,
// the result is that signer's part (see Assemble).
func (v *Verifier) Sign(t merkle.Tree, kp KeyPair) ([]byte, error) {
	return v.sign(t, t.Hash(), kp)
}

func (v *Verifier) sign(t merkle.Tree, hash merkle.Hash, kp KeyPair) ([]byte, error) {
	if !kp.CanSign() {
		return nil, fmt.Errorf("sign: %w", ErrNotWritable)
	}
	for i, s := range v.manifest.Signers {
		if s.PublicKey != kp.Public {
			continue
		}
		signature := kp.Sign(v.signable(t, hash, i))
		if v.raw() || len(v.manifest.Signers) > 1 {
			return signature, nil
		}
		return v.Assemble([]PartialSignature{{Signer: uint64(i), Signature: [64]byte(signature)}})
	}
	return nil, fmt.Errorf("sign: key %s is none of the log's signers: %w", kp.Public, ErrNotWritable)
}

// A PartialSignature is what one signer of several adds.
type PartialSignature struct {
	Signer    uint64 // number among the manifest's signers
	Signature [64]byte
	// Patch is how many blocks longer than the log's the signed tree is, and Nodes
	// the nodes between the two. Only with AllowPatch.
	Patch uint64
	Nodes []merkle.Node
}

// Partial makes a signer's part of the signature of a tree of length blocks,
// from what that signer signed for its own, longer tree.
func (l *Log) Partial(signer uint64, signature [64]byte, length uint64) (PartialSignature, error) {
	c := l.c
	t := l.tree()
	p := PartialSignature{Signer: signer, Signature: signature}
	if t.Length == length {
		return p, nil
	}
	if length > t.Length {
		return p, fmt.Errorf("partial signature of %d blocks: the log has %d", length, t.Length)
	}
	proof, err := t.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: length, Length: t.Length - length}}, nil, c.reader())
	if err != nil {
		return p, fmt.Errorf("partial signature: %w", err)
	}
	p.Patch, p.Nodes = t.Length-length, proof.Upgrade.Nodes
	return p, nil
}

// Assemble joins the parts of a quorum to the log's signature (hypercore
// lib/multisig.js).
func (v *Verifier) Assemble(parts []PartialSignature) ([]byte, error) {
	if v.raw() {
		if len(parts) != 1 {
			return nil, fmt.Errorf("assemble: %w: one signer signs alone", ErrSignature)
		}
		return parts[0].Signature[:], nil
	}
	var patch []merkle.Node
	var place map[merkle.Node]int
	keep := func(n merkle.Node) uint64 {
		id := n
		if v.manifest.Version > 0 {
			id = merkle.Node{Index: n.Index} // the first of that number, whatever it is
		}
		i, ok := place[id]
		if !ok {
			i = len(patch)
			if place == nil {
				place = map[merkle.Node]int{}
			}
			place[id] = i
			patch = append(patch, n)
		}
		return uint64(i)
	}
	b := compact.AppendUint(make([]byte, 0, 68*len(parts)), uint64(len(parts)))
	for i := range parts {
		p := &parts[i]
		if v.manifest.Version > 0 {
			b = compact.AppendUint(b, p.Signer)
			b = append(b, p.Signature[:]...)
			b = compact.AppendUint(b, p.Patch)
			for _, n := range p.Nodes {
				keep(n)
			}
			continue
		}
		flags := uint64(0)
		if p.Patch > 0 {
			flags = 1
		}
		b = compact.AppendUint(b, flags)
		b = compact.AppendUint(b, p.Signer)
		b = append(b, p.Signature[:]...)
		if p.Patch > 0 {
			if len(p.Nodes) == 0 {
				return nil, fmt.Errorf("assemble: %w: the patch of signer %d has no nodes", ErrSignature, p.Signer)
			}
			last := p.Nodes[len(p.Nodes)-1]
			b = compact.AppendUint(b, merkle.RightSpan(last.Index)/2+1)
			b = compact.AppendUint(b, p.Patch)
			b = compact.AppendUint(b, uint64(len(p.Nodes)))
			for _, n := range p.Nodes {
				b = compact.AppendUint(b, keep(n))
			}
		}
	}
	return AppendNodes(b, patch), nil
}

// AppendNodes appends tree nodes as messages carry them.
func AppendNodes(b []byte, nodes []merkle.Node) []byte {
	return compact.AppendArray(b, nodes, func(b []byte, n merkle.Node) []byte {
		b = compact.AppendUint(b, n.Index)
		b = compact.AppendUint(b, n.Size)
		return append(b, n.Hash[:]...)
	})
}

// ReadNodes reads up to max tree nodes from a message.
func ReadNodes(d *compact.Decoder, max int) []merkle.Node {
	return compact.DecodeArray(d, max, func(d *compact.Decoder) merkle.Node {
		return merkle.Node{Index: d.Uint(), Size: d.Uint(), Hash: d.Fixed32()}
	})
}

// maxPatch bounds the nodes of a multisig's patches.
const maxPatch = 1 << 12

func (v *Verifier) inflate(signature []byte) ([]PartialSignature, []merkle.Node, error) {
	d := compact.NewDecoder(signature)
	parts := compact.DecodeArray(&d, maxSigners, func(d *compact.Decoder) PartialSignature {
		if v.manifest.Version > 0 {
			return PartialSignature{Signer: d.Uint(), Signature: d.Fixed64(), Patch: d.Uint()}
		}
		flags := d.Uint()
		p := PartialSignature{Signer: d.Uint(), Signature: d.Fixed64()}
		if flags&1 != 0 {
			d.Uint() // start
			p.Patch = d.Uint()
			compact.DecodeArray(d, maxPatch, (*compact.Decoder).Uint)
		}
		return p
	})
	patch := ReadNodes(&d, maxPatch)
	return parts, patch, d.Err()
}

// Verify checks the signature of a batch's tree.
func (v *Verifier) Verify(b *merkle.Batch, signature []byte) error {
	if v.raw() {
		if !verifyRaw(v.manifest.Signers[0].PublicKey, v.Signable(b.Tree, 0), signature) {
			return fmt.Errorf("tree of %d blocks: %w", b.Tree.Length, ErrSignature)
		}
		return nil
	}
	if p := v.prologue(); p != nil && v.manifest.Version > 0 && b.Tree.Length <= p.Length {
		if b.Tree.Length != p.Length || b.Tree.Hash() != p.Hash {
			return fmt.Errorf("tree of %d blocks is not the prologue: %w", b.Tree.Length, ErrSignature)
		}
		return nil
	}
	if err := v.verifyQuorum(b, signature); err != nil {
		return fmt.Errorf("tree of %d blocks: %w", b.Tree.Length, err)
	}
	return nil
}

func (v *Verifier) verifyQuorum(b *merkle.Batch, signature []byte) error {
	if v.manifest.Quorum == 0 || len(signature) == 0 {
		return ErrSignature
	}
	parts, patch, err := v.inflate(signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if uint64(len(parts)) < v.manifest.Quorum {
		return fmt.Errorf("%w: %d of %d signers", ErrSignature, len(parts), v.manifest.Quorum)
	}
	signed := make([]bool, len(v.manifest.Signers))
	for i := range parts[:v.manifest.Quorum] {
		p := &parts[i]
		t := b.Tree
		if p.Patch > 0 && v.manifest.AllowPatch {
			upgrade := patchUpgrade(patch, b.Tree.Length, p.Patch)
			longer, err := b.VerifyUpgrade(upgrade)
			if err != nil {
				return fmt.Errorf("%w: patch: %w", ErrSignature, err)
			}
			t = longer.Tree
		}
		if p.Signer >= uint64(len(signed)) || signed[p.Signer] {
			return fmt.Errorf("%w: signer %d", ErrSignature, p.Signer)
		}
		signed[p.Signer] = true
		if !verifyRaw(v.manifest.Signers[p.Signer].PublicKey, v.Signable(t, int(p.Signer)), p.Signature[:]) {
			return fmt.Errorf("%w: of signer %d", ErrSignature, p.Signer)
		}
	}
	return nil
}

func verifyRaw(public Key, message, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize && ed25519.Verify(public[:], message, signature)
}

// patchUpgrade picks from the patch the nodes that grow a tree of start blocks
// by length.
func patchUpgrade(patch []merkle.Node, start, length uint64) *merkle.UpgradeProof {
	nodes := make(patchNodes, len(patch))
	for _, n := range patch {
		nodes[n.Index] = n
	}
	u := &merkle.UpgradeProof{Start: start, Length: length}
	if length > merkle.MaxSize || start > merkle.MaxSize-length {
		return u
	}
	t := merkle.Tree{Length: start + length}
	proof, err := t.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: start, Length: length}}, nil, nodes)
	if err == nil {
		u.Nodes = proof.Upgrade.Nodes
	}
	return u // without nodes it does not verify
}

type patchNodes map[uint64]merkle.Node

func (p patchNodes) Node(index uint64) (merkle.Node, error) {
	n, ok := p[index]
	if !ok {
		return n, merkle.ErrNoNode
	}
	return n, nil
}
