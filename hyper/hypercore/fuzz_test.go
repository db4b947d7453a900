package hypercore

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// dataVectors returns the data messages that the reference makes of its log.
func dataVectors(t testing.TB) (out [][]byte) {
	t.Helper()
	var f struct{ Cases []struct{ DataHex hexBytes } }
	load(t, "proofs.json", &f)
	for _, c := range f.Cases {
		if c.DataHex != nil {
			out = append(out, c.DataHex)
		}
	}
	if len(out) < 30 {
		t.Fatalf("%d messages", len(out))
	}
	return out
}

// vectorLog returns the log that the messages are of.
func vectorLog(t testing.TB) *Log {
	t.Helper()
	var tree struct{ Blocks []hexBytes }
	var f struct{ Length int }
	load(t, "tree.json", &tree)
	load(t, "proofs.json", &f)
	kp := keyPairN(1)
	l := testLog(t, Options{KeyPair: &kp})
	for _, b := range tree.Blocks[:f.Length] {
		appendTo(t, l, string(b))
	}
	return l
}

// FuzzReadData reads any bytes as a data message: what is read, written and
// read again is the same.
func FuzzReadData(f *testing.F) {
	for _, b := range dataVectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, request, err := ReadData(b)
		if err != nil {
			return
		}
		again, n, err := ReadData(p.AppendData(nil, request))
		if err != nil || n != request || !reflect.DeepEqual(p, again) {
			t.Errorf("read again: %v\n%+v\n%+v", err, p, again)
		}
	})
}

// FuzzDecodeManifest does the same with manifests, which have one key.
func FuzzDecodeManifest(f *testing.F) {
	var v struct{ Manifests []struct{ Encoded hexBytes } }
	load(f, "crypto.json", &v)
	for _, m := range v.Manifests {
		f.Add([]byte(m.Encoded))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := DecodeManifest(m.Encode())
		if err != nil || !reflect.DeepEqual(m, again) || m.Key() != again.Key() {
			t.Errorf("read again: %v\n%+v\n%+v", err, m, again)
		}
		if _, err := NewVerifier(m.Key(), m); err != nil {
			t.Errorf("verifier: %v", err)
		}
		_ = m.Validate()
	})
}

// FuzzVerify takes any bytes as a signature: only what the signers signed holds.
func FuzzVerify(f *testing.F) {
	var raw struct {
		Signatures struct {
			V1DefaultSigner, Compat, V0, Multisig2of3, MultisigWithPatch struct{ Wire hexBytes }
		}
	}
	load(f, "crypto.json", &raw)
	s := raw.Signatures
	for _, wire := range []hexBytes{s.V1DefaultSigner.Wire, s.Compat.Wire, s.V0.Wire, s.Multisig2of3.Wire, s.MultisigWithPatch.Wire} {
		for which := range uint8(5) {
			f.Add(which, []byte(wire))
		}
	}
	b := merkle.Tree{}.Batch()
	for _, block := range []string{"a", "b", "c"} {
		b.Append([]byte(block))
	}
	manifests := []*Manifest{SingleSigner(keyPairN(1).Public), multisig(1, false, 2, 1, 2, 3), multisig(0, false, 2, 1, 2, 3), multisig(1, true, 2, 1, 2, 3), multisig(0, true, 1, 1, 2)}
	var verifiers []*Verifier
	signed := make([]map[Signer][64]byte, len(manifests))
	for i, m := range manifests {
		verifier, err := NewVerifier(m.Key(), m)
		if err != nil {
			f.Fatal(err)
		}
		verifiers = append(verifiers, verifier)
		var parts []PartialSignature
		for k := range m.Signers {
			parts = append(parts, PartialSignature{Signer: uint64(k), Signature: [64]byte(keyPairN(byte(k + 1)).Sign(verifier.Signable(b.Tree, k)))})
		}
		wire, err := verifier.Assemble(parts[:m.Quorum])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), wire)
		if err := verifier.Verify(b, wire); err != nil {
			f.Fatal(err)
		}
		signed[i] = map[Signer][64]byte{}
		for k, p := range parts {
			signed[i][m.Signers[k]] = p.Signature
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, signature []byte) {
		i := int(which) % len(verifiers)
		if verifiers[i].Verify(b, signature) != nil {
			return
		}
		parts, _, err := verifiers[i].inflate(signature)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts[:manifests[i].Quorum] {
			if signed[i][manifests[i].Signers[p.Signer]] != p.Signature {
				t.Errorf("accepted a signature of nobody: %x", signature)
			}
		}
	})
}

// FuzzApply gives any data message to a reader who has some of a log. It must
// never hold a block or a hash that is not the writer's.
func FuzzApply(f *testing.F) {
	messages := dataVectors(f)
	for i, m := range messages {
		f.Add(uint8(i), m, messages[(i*7)%len(messages)])
	}
	w := vectorLog(f)
	for i := range w.Length() {
		p := prove(f, w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * i}})
		p.Hash.Nodes[0].Size++
		f.Add(uint8(i), p.AppendData(nil, 1), messages[0])
	}
	key, manifest := w.Key(), w.Manifest()
	f.Fuzz(func(t *testing.T, have uint8, first, second []byte) {
		l := testLog(t, Options{Key: &key, Manifest: manifest})
		length := uint64(have) % (w.Length() + 1)
		if length > 0 {
			at, err := w.Checkout(length)
			if err != nil {
				t.Fatal(err)
			}
			defer at.Close()
			mustApply(t, l, proveUnsigned(t, w, at))
			if have > 128 {
				mustApply(t, l, prove(t, w, blockRequest(t, l, uint64(have)%length)))
			}
		}
		var proofs []*Proof
		for _, m := range [][]byte{first, second} {
			if p, _, err := ReadData(m); err == nil {
				proofs = append(proofs, p)
			}
		}
		if _, err := l.Apply(context.Background(), Durable, proofs...); err != nil {
			t.Fatal(err)
		}
		for _, p := range proofs {
			frozen, err := l.CheckConflict(context.Background(), p)
			if frozen || err != nil && !errors.Is(err, merkle.ErrNoNode) {
				t.Errorf("frozen %v, %v", frozen, err)
			}
			if r, err := l.StartReorg(p); err == nil {
				t.Errorf("reorg to fork %d of %d blocks", p.Fork, r.r.Batch.Tree.Length)
			}
		}
		holdsOnly(t, l, w)
	})
}

// proveUnsigned proves a checkout of a log with a signature made for it.
func proveUnsigned(t testing.TB, w, at *Log) *Proof {
	t.Helper()
	h := at.Head()
	p, err := h.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: h.Length}}, nil, at.reader())
	if err != nil {
		t.Fatal(err)
	}
	if p.Upgrade.Signature, err = w.Verifier().Sign(h.Tree, keyPairN(1)); err != nil {
		t.Fatal(err)
	}
	return &Proof{Proof: *p}
}

// FuzzConflict reads any bytes as evidence that was stored.
func FuzzConflict(f *testing.F) {
	f.Add([]byte{conflictVersion})
	f.Add(encodeConflict(&Conflict{Fork: 3, Ours: SignedTree{9, merkle.Hash{1}, []byte("ours")}, Theirs: SignedTree{7, merkle.Hash{2}, []byte("theirs")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := decodeConflict(b)
		if (c == nil) != (len(b) == 0) {
			t.Fatalf("%x is %+v", b, c)
		}
		if c != nil && !reflect.DeepEqual(decodeConflict(encodeConflict(c)), c) {
			t.Errorf("%+v is read again as another", c)
		}
	})
}

// FuzzBlockSet makes any changes to a set and to a bitmap.
func FuzzBlockSet(f *testing.F) {
	f.Add([]byte{0, 3, 5, 9, 1, 4, 6, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s blockSet
		var bits [128]bool
		stored := map[uint64]uint64{}
		for op := range slices.Chunk(ops, 2) {
			if len(op) < 2 {
				break
			}
			r := Range{Start: uint64(op[0] % 128), End: uint64(op[1] % 128)}
			change, add := s.drop, op[0] < 128
			if add {
				change = s.add
			}
			for _, c := range change(r) {
				if stored[c.Start] = c.End; c.Len() == 0 {
					delete(stored, c.Start)
				}
			}
			for i := r.Start; i < r.End; i++ {
				bits[i] = add
			}
		}
		var runs []storage.Range
		for start, end := range stored {
			runs = append(runs, Range{Start: start, End: end})
		}
		again := newBlockSet(runs, s.Last())
		if a, b := slices.Collect(s.All()), slices.Collect(again.All()); !slices.Equal(a, b) {
			t.Errorf("%v, stored as %v", a, b)
		}
		for i, want := range bits {
			if s.Has(uint64(i)) != want {
				t.Errorf("has %d: %v", i, !want)
			}
		}
	})
}

// A message that claims more than it holds is refused at once.
func TestReadDataRefusesBadInput(t *testing.T) {
	good := dataVectors(t)[0]
	for n := range good {
		if p, _, err := ReadData(good[:n]); err == nil && bytes.Equal(p.AppendData(nil, 1), good) {
			t.Errorf("the first %d bytes are the whole message", n)
		}
	}
	huge := append([]byte{dataHash, 1, 0, 0}, 0xff, 255, 255, 255, 255, 255, 255, 255, 255)
	if _, _, err := ReadData(huge); err == nil {
		t.Error("2^64 nodes are read")
	}
}
