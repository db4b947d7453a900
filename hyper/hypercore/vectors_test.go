package hypercore

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// hexBytes is a byte string that JSON files carry as hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(*s)
	return err
}

func load(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("load vectors: %v", err)
	}
}

func key32(b []byte) (k [32]byte) { copy(k[:], b); return k }

func memoryStore(t testing.TB) *storage.Store {
	t.Helper()
	s, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keyPairN is the key pair of the vectors' seed n.
func keyPairN(n byte) KeyPair {
	return NewKeyPair([32]byte(bytes.Repeat([]byte{n}, 32)))
}

type jsonSigner struct{ Namespace, PublicKey hexBytes }

type jsonManifest struct {
	Version    int
	AllowPatch bool
	Quorum     uint64
	Signers    []jsonSigner
	Prologue   *struct {
		Hash   hexBytes
		Length uint64
	}
	Linked   []hexBytes
	UserData *hexBytes
}

func (j *jsonManifest) manifest() *Manifest {
	m := &Manifest{Version: j.Version, AllowPatch: j.AllowPatch, Quorum: j.Quorum}
	for _, s := range j.Signers {
		m.Signers = append(m.Signers, Signer{key32(s.Namespace), Key(key32(s.PublicKey))})
	}
	if j.Prologue != nil {
		m.Prologue = &merkle.Prologue{Hash: merkle.Hash(key32(j.Prologue.Hash)), Length: j.Prologue.Length}
	}
	for _, k := range j.Linked {
		m.Linked = append(m.Linked, Key(key32(k)))
	}
	if j.UserData != nil {
		m.UserData = *j.UserData
	}
	return m
}

func TestCryptoVectors(t *testing.T) {
	var f struct {
		KeyPairs  []struct{ Seed, PublicKey hexBytes }
		Discovery []struct {
			Key, DiscoveryKey hexBytes
			ID                string
		}
		Leaf []struct {
			DataHex hexBytes
			Fill    struct{ Byte, Length int } // when it is long
			Hash    hexBytes
		}
		Manifests []struct {
			Name         string
			Manifest     jsonManifest
			Encoded, Key hexBytes
			DiscoveryKey hexBytes
			ID           string
		}
		ReplicateCapability []struct {
			IsInitiator                    bool
			Key, HandshakeHash, Capability hexBytes
		}
	}
	raw := map[string]json.RawMessage{}
	load(t, "crypto.json", &raw)
	var namespaces map[string]struct {
		IDs    []int
		Values []hexBytes
	}
	if err := json.Unmarshal(raw["namespaces"], &namespaces); err != nil {
		t.Fatal(err)
	}
	for name, ns := range namespaces {
		for i, id := range ns.IDs {
			if got := Namespace(name, byte(id)); !bytes.Equal(got[:], ns.Values[i]) {
				t.Errorf("namespace %s %d: got %x, want %x", name, id, got, ns.Values[i])
			}
		}
	}
	for field, dst := range map[string]any{"keyPairs": &f.KeyPairs, "discovery": &f.Discovery, "leaf": &f.Leaf, "manifests": &f.Manifests, "replicateCapability": &f.ReplicateCapability} {
		if err := json.Unmarshal(raw[field], dst); err != nil {
			t.Fatal(field, err)
		}
	}
	for _, v := range f.KeyPairs {
		if got := NewKeyPair(key32(v.Seed)).Public; !bytes.Equal(got[:], v.PublicKey) {
			t.Errorf("key pair of %x: %x", v.Seed, got)
		}
	}
	for _, v := range f.Discovery {
		k := Key(key32(v.Key))
		if d := k.Discovery(); !bytes.Equal(d[:], v.DiscoveryKey) {
			t.Errorf("discovery key of %x: %x", v.Key, d)
		}
		if k.String() != v.ID {
			t.Errorf("id of %x: %s, want %s", v.Key, k, v.ID)
		}
	}
	for _, v := range f.Leaf {
		data := append(v.DataHex, bytes.Repeat([]byte{byte(v.Fill.Byte)}, v.Fill.Length)...)
		if h := merkle.LeafHash(data); !bytes.Equal(h[:], v.Hash) {
			t.Errorf("leaf of %d bytes: %x, want %x", len(data), h, v.Hash)
		}
	}
	for _, v := range f.Manifests {
		m := v.Manifest.manifest()
		if got := m.Encode(); !bytes.Equal(got, v.Encoded) {
			t.Errorf("%s: encoded\n got %x\nwant %x", v.Name, got, v.Encoded)
		}
		if got := m.Key(); !bytes.Equal(got[:], v.Key) {
			t.Errorf("%s: key %x, want %x", v.Name, got, v.Key)
		}
		decoded, err := DecodeManifest(v.Encoded)
		if err != nil {
			t.Errorf("%s: decode: %v", v.Name, err)
		} else if got := decoded.Encode(); !bytes.Equal(got, v.Encoded) {
			t.Errorf("%s: decoded and encoded again\n got %x\nwant %x", v.Name, got, v.Encoded)
		}
	}
	for _, v := range f.ReplicateCapability {
		if got := Key(key32(v.Key)).Capability(v.IsInitiator, v.HandshakeHash); !bytes.Equal(got[:], v.Capability) {
			t.Errorf("capability: %x, want %x", got, v.Capability)
		}
	}
}

func TestSignatureVectors(t *testing.T) {
	var f struct {
		Signatures struct {
			V1DefaultSigner, Compat, V0 struct {
				Key, Raw, Wire hexBytes
			}
			Multisig2of3 struct {
				Key, Wire hexBytes
				Partials  []hexBytes
			}
			MultisigWithPatch struct{ Wire hexBytes }
		}
	}
	load(t, "crypto.json", &f)
	// The tree of the vectors has a hash of all 0b, which no roots have: sign the
	// same bytes by hand.
	kp := keyPairN(1)
	message := func(context []byte) []byte {
		b := append([]byte(nil), nsTree[:]...)
		b = append(b, context...)
		b = append(b, bytes.Repeat([]byte{11}, 32)...)
		b = append(b, 5, 0, 0, 0, 0, 0, 0, 0)
		return append(b, 2, 0, 0, 0, 0, 0, 0, 0)
	}
	v1 := f.Signatures.V1DefaultSigner
	if got := SingleSigner(kp.Public).Key(); !bytes.Equal(got[:], v1.Key) {
		t.Errorf("key %x, want %x", got, v1.Key)
	}
	raw := kp.Sign(message(v1.Key))
	if !bytes.Equal(raw, v1.Raw) {
		t.Errorf("signature %x, want %x", raw, v1.Raw)
	}
	v, err := NewVerifier(Key(key32(v1.Key)), SingleSigner(kp.Public))
	if err != nil {
		t.Fatal(err)
	}
	wire, err := v.Assemble([]PartialSignature{{Signature: [64]byte(raw)}})
	if err != nil || !bytes.Equal(wire, v1.Wire) {
		t.Errorf("assembled %x, %v, want %x", wire, err, v1.Wire)
	}
	if got := kp.Sign(message(nil)); !bytes.Equal(got, f.Signatures.Compat.Wire) {
		t.Errorf("compat signature %x", got)
	}
	if got := kp.Sign(message(DefaultNamespace[:])); !bytes.Equal(got, f.Signatures.V0.Wire) {
		t.Errorf("v0 signature %x", got)
	}
	multi := f.Signatures.Multisig2of3
	m := &Manifest{Version: 1, Quorum: 2}
	for n := byte(1); n <= 3; n++ {
		m.Signers = append(m.Signers, Signer{DefaultNamespace, keyPairN(n).Public})
	}
	if got := m.Key(); !bytes.Equal(got[:], multi.Key) {
		t.Errorf("multisig key %x, want %x", got, multi.Key)
	}
	vm, err := NewVerifier(m.Key(), m)
	if err != nil {
		t.Fatal(err)
	}
	d := compact.NewDecoder(multi.Wire)
	first := d.Uint()
	parts, _, err := vm.inflate(multi.Wire)
	if err != nil || first != 2 || len(parts) != 2 {
		t.Fatalf("inflate: %v, %v", parts, err)
	}
	for i, p := range parts {
		if !bytes.Equal(p.Signature[:], multi.Partials[i]) {
			t.Errorf("part %d: %x, want %x", i, p.Signature, multi.Partials[i])
		}
		if got := keyPairN(byte(p.Signer + 1)).Sign(message(multi.Key)); !bytes.Equal(got, multi.Partials[i]) {
			t.Errorf("signature of signer %d: %x", p.Signer, got)
		}
	}
	if got, err := vm.Assemble(parts); err != nil || !bytes.Equal(got, multi.Wire) {
		t.Errorf("assembled %x, %v, want %x", got, err, multi.Wire)
	}
	patched := f.Signatures.MultisigWithPatch.Wire
	parts, nodes, err := vm.inflate(patched)
	if err != nil {
		t.Fatal(err)
	}
	parts[1].Nodes = nodes // whoever brings them
	if got, err := vm.Assemble(parts); err != nil || !bytes.Equal(got, patched) {
		t.Errorf("with a patch: %x, %v, want %x", got, err, patched)
	}
}

func TestTreeSignatureVectors(t *testing.T) {
	type run struct {
		Key     hexBytes
		Compat  bool
		Lengths []struct {
			Length, ByteLength  uint64
			TreeHash, Signature hexBytes
		}
		Truncate struct {
			Length, Fork        uint64
			TreeHash, Signature hexBytes
			Appended            struct {
				Blocks              []hexBytes
				TreeHash, Signature hexBytes
			}
		}
	}
	var f struct {
		Blocks     []hexBytes
		V1, Compat run
	}
	load(t, "tree.json", &f)
	kp := keyPairN(1)
	ctx := context.Background()
	for name, want := range map[string]run{"v1": f.V1, "compat": f.Compat} {
		l, err := Open(memoryStore(t), Options{KeyPair: &kp, Compat: want.Compat})
		if err != nil {
			t.Fatal(err)
		}
		if k := l.Key(); !bytes.Equal(k[:], want.Key) {
			t.Errorf("%s: key %x, want %x", name, k, want.Key)
		}
		check := func(what string, treeHash, signature hexBytes) {
			t.Helper()
			h := l.Head()
			if got := h.Hash(); !bytes.Equal(got[:], treeHash) {
				t.Errorf("%s: %s: tree hash %x, want %x", name, what, got, treeHash)
			}
			if !bytes.Equal(h.Signature, signature) {
				t.Errorf("%s: %s: signature %x, want %x", name, what, h.Signature, signature)
			}
		}
		for i, v := range want.Lengths[1:] {
			if _, err := l.Append(ctx, f.Blocks[i]); err != nil {
				t.Fatal(err)
			}
			check("append", v.TreeHash, v.Signature)
			if l.ByteLength() != v.ByteLength {
				t.Errorf("%s: byte length %d, want %d", name, l.ByteLength(), v.ByteLength)
			}
		}
		if err := l.Truncate(ctx, want.Truncate.Length, TruncateOptions{}); err != nil {
			t.Fatal(err)
		}
		check("truncate", want.Truncate.TreeHash, want.Truncate.Signature)
		var blocks [][]byte
		for _, b := range want.Truncate.Appended.Blocks {
			blocks = append(blocks, b)
		}
		if _, err := l.Append(ctx, blocks...); err != nil {
			t.Fatal(err)
		}
		check("append after truncate", want.Truncate.Appended.TreeHash, want.Truncate.Appended.Signature)
		for p, err := range l.Audit(ctx) {
			t.Errorf("%s: audit: %v, %v", name, p, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEncryptionVectors(t *testing.T) {
	var f struct {
		EncryptionKey, HypercoreKey, BlockEncryptionKey hexBytes
		Derive                                          map[string]struct{ Block, Blinding hexBytes }
		Cases                                           []struct {
			Mode          string
			Index, Fork   uint64
			Plain, Stored hexBytes
		}
		EndToEnd struct {
			Blocks, Stored        []hexBytes
			TreeHash              hexBytes
			ByteLengthSansPadding uint64
			AfterTruncate         struct{ Stored hexBytes }
		}
	}
	load(t, "encryption.json", &f)
	key, secret := Key(key32(f.HypercoreKey)), key32(f.EncryptionKey)
	ciphers := map[string]*blockCipher{
		"default":  newBlockCipher(key, secret, false),
		"compat":   newBlockCipher(key, secret, true),
		"blockKey": newBlockKeyCipher(secret),
	}
	for mode, want := range f.Derive {
		c := ciphers[mode]
		if !bytes.Equal(c.block[:], want.Block) || !bytes.Equal(c.blinding[:], want.Blinding) {
			t.Errorf("%s: keys %x %x, want %x %x", mode, c.block, c.blinding, want.Block, want.Blinding)
		}
	}
	if got := BlockEncryptionKey(key, secret); !bytes.Equal(got[:], f.BlockEncryptionKey) {
		t.Errorf("block encryption key %x, want %x", got, f.BlockEncryptionKey)
	}
	for _, v := range f.Cases {
		c := ciphers[v.Mode]
		if got := c.seal(nil, v.Index, v.Fork, v.Plain); !bytes.Equal(got, v.Stored) {
			t.Errorf("%s block %d fork %d: sealed %x, want %x", v.Mode, v.Index, v.Fork, got, v.Stored)
		}
		got, err := c.open(v.Index, bytes.Clone(v.Stored))
		if err != nil || !bytes.Equal(got, v.Plain) {
			t.Errorf("%s block %d: opened %x, %v, want %x", v.Mode, v.Index, got, err, v.Plain)
		}
	}
	kp, ctx := keyPairN(1), context.Background()
	l, err := Open(memoryStore(t), Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: &secret}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i, block := range f.EndToEnd.Blocks {
		if _, err := l.Append(ctx, block); err != nil {
			t.Fatal(err)
		}
		stored, err := l.Stored(ctx, uint64(i))
		if err != nil || !bytes.Equal(stored, f.EndToEnd.Stored[i]) {
			t.Errorf("stored block %d: %x, %v, want %x", i, stored, err, f.EndToEnd.Stored[i])
		}
		if got, err := l.Get(ctx, uint64(i)); err != nil || !bytes.Equal(got, block) {
			t.Errorf("block %d: %q, %v", i, got, err)
		}
	}
	if got := l.Head().Hash(); !bytes.Equal(got[:], f.EndToEnd.TreeHash) || l.ByteLength() != f.EndToEnd.ByteLengthSansPadding {
		t.Errorf("tree hash %x, %d bytes", got, l.ByteLength())
	}
	if err := l.Truncate(ctx, 1, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ctx, []byte("two again")); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Stored(ctx, 1); err != nil || !bytes.Equal(got, f.EndToEnd.AfterTruncate.Stored) {
		t.Errorf("after truncate: stored %x, %v, want %x", got, err, f.EndToEnd.AfterTruncate.Stored)
	}
}

// TestProofMessageVectors makes the reference's proofs from a log of our own,
// to the byte, and lets an empty log read them.
func TestProofMessageVectors(t *testing.T) {
	var tree struct{ Blocks []hexBytes }
	load(t, "tree.json", &tree)
	var f struct {
		Length uint64
		Cases  []struct {
			Name    string
			Request struct {
				Block, Hash *merkle.NodeRequest
				Seek        *merkle.SeekRequest
				Upgrade     *merkle.UpgradeRequest
				Manifest    bool
			}
			DataHex hexBytes
		}
	}
	load(t, "proofs.json", &f)
	ctx, kp := context.Background(), keyPairN(1)
	l, err := Open(memoryStore(t), Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, b := range tree.Blocks[:f.Length] {
		if _, err := l.Append(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	compared := 0
	for _, c := range f.Cases {
		if c.DataHex == nil {
			continue // refused, or the generator failed: see merkle's test
		}
		compared++
		p, err := l.Prove(ctx, merkle.Request{Block: c.Request.Block, Hash: c.Request.Hash, Seek: c.Request.Seek, Upgrade: c.Request.Upgrade}, c.Request.Manifest)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if got := p.AppendData(nil, 1); !bytes.Equal(got, c.DataHex) {
			t.Errorf("%s:\n got %x\nwant %x", c.Name, got, c.DataHex)
		}
		read, request, err := ReadData(c.DataHex)
		if err != nil || request != 1 || !bytes.Equal(read.AppendData(nil, 1), c.DataHex) {
			t.Errorf("%s: read: %v", c.Name, err)
		}
		if u := c.Request.Upgrade; u != nil && u.Start == 0 {
			key := l.Key()
			r, err := Open(memoryStore(t), Options{Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			read.Manifest = l.Manifest()
			errs, err := r.Apply(ctx, Durable, read)
			if err != nil || errs[0] != nil {
				t.Errorf("%s: apply: %v, %v", c.Name, errs[0], err)
			}
			if r.Length() != f.Length || !bytes.Equal(r.Head().Signature, l.Head().Signature) {
				t.Errorf("%s: the reader has %d blocks", c.Name, r.Length())
			}
			r.Close()
		}
	}
	if compared < 30 {
		t.Errorf("%d proofs compared", compared)
	}
}
