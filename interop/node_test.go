package interop_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// node is a running interop/node/peer.js.
type node struct {
	t *testing.T
	p *nodepeer.Process
}

type args = map[string]any

// startNode starts the peer, and ends it with the test.
func startNode(t *testing.T) node {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), "peer.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return node{t, p}
}

// call is a call that must go well.
func call[T any](n node, method string, params args) T {
	n.t.Helper()
	var result T
	if err := n.p.Call(n.t.Context(), method, params, &result); err != nil {
		n.t.Fatal(err)
	}
	return result
}

// refused is the error code of a call that must not go well.
func refused(n node, method string, params args) string {
	n.t.Helper()
	var result json.RawMessage
	err := n.p.Call(n.t.Context(), method, params, &result)
	if err == nil {
		n.t.Errorf("%s %v answered %s, want an error", method, params, result)
	}
	return nodepeer.Code(err)
}

// These are what the peer's methods answer, with binary values in hex.
type (
	opened struct {
		Key, DiscoveryKey string
		ManifestHex       *string
		Length, Fork      uint64
		Writable, Compat  bool
	}
	head struct {
		Length, Fork, ByteLength uint64
		TreeHash                 string
		Signature                *string
	}
	treeNode struct {
		Index, Size uint64
		Hash        string
	}
	upgrade struct {
		Start  uint64 `json:"start"`
		Length uint64 `json:"length"`
	}
	proof struct {
		Request    json.RawMessage
		RequestHex string
		Proof      json.RawMessage
		DataHex    string
	}
	reorg struct {
		Finished  bool
		Want      *struct{ Start, End, Nodes uint64 }
		Ancestors uint64
	}
	applied struct {
		Applied      bool
		Length, Fork uint64
		reorg
	}
)

// seed is 32 times the same byte in hex, the key seeds of the vectors.
func seed(b byte) string { return strings.Repeat(fmt.Sprintf("%02x", b), 32) }

// v1 is a manifest of version 1 with these signers, all of which must sign a quorum.
func v1(quorum int, publicKeys ...string) args {
	signers := make([]args, len(publicKeys))
	for i, key := range publicKeys {
		signers[i] = args{"publicKey": key}
	}
	return args{"version": 1, "quorum": quorum, "signers": signers}
}

// treeVectors is testdata/tree.json, written by hypercore 11.
type treeVectors struct {
	KeyPair struct{ Seed, PublicKey string }
	Blocks  []string
	V1      treeOfKind
	Compat  treeOfKind
}

type treeOfKind struct {
	Key     string
	Compat  bool
	Lengths []struct {
		Length, ByteLength uint64
		Roots              []treeNode
		TreeHash           string
		Signature          *string
	}
	Nodes    []treeNode
	Truncate struct {
		Length, Fork        uint64
		TreeHash, Signature string
		Appended            struct {
			Blocks              []string
			Length, Fork        uint64
			TreeHash, Signature string
		}
	}
}

func readTreeVectors(t *testing.T) (v treeVectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/tree.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// filled is a core of n blocks of different sizes.
func (n node) filled(handle string, blocks int, open args) opened {
	n.t.Helper()
	params := args{"handle": handle}
	for k, v := range open {
		params[k] = v
	}
	o := call[opened](n, "open", params)
	call[head](n, "append", args{"handle": handle, "blocks": someBlocks(0, blocks)})
	return o
}

func someBlocks(from, to int) []string {
	blocks := []string{}
	for i := from; i < to; i++ {
		blocks = append(blocks, hex.EncodeToString([]byte(fmt.Sprintf("block %d%s", i, strings.Repeat(".", i*7%23)))))
	}
	return blocks
}

func TestNodeReproducesTheTreeVectors(t *testing.T) {
	n := startNode(t)
	v := readTreeVectors(t)
	for name, tree := range map[string]treeOfKind{"v1": v.V1, "compat": v.Compat} {
		t.Run(name, func(t *testing.T) {
			n := node{t, n.p}
			params := args{"handle": name, "seed": v.KeyPair.Seed, "compat": tree.Compat}
			if !tree.Compat {
				params["manifest"] = v1(1, v.KeyPair.PublicKey)
			}
			o := call[opened](n, "open", params)
			if o.Key != tree.Key || !o.Writable || o.Compat != tree.Compat || o.ManifestHex == nil {
				t.Fatalf("open = %+v, want key %s", o, tree.Key)
			}
			for _, want := range tree.Lengths {
				if want.Length > 0 {
					call[head](n, "append", args{"handle": name, "blocks": v.Blocks[want.Length-1 : want.Length]})
				}
				got := call[struct {
					head
					Roots []treeNode
				}](n, "info", args{"handle": name})
				if got.Length != want.Length || got.Fork != 0 || got.ByteLength != want.ByteLength || got.TreeHash != want.TreeHash {
					t.Errorf("length %d: head = %+v, want %+v", want.Length, got.head, want)
				}
				if !reflect.DeepEqual(got.Signature, want.Signature) {
					t.Errorf("length %d: signature %v, want %v", want.Length, deref(got.Signature), deref(want.Signature))
				}
				if !reflect.DeepEqual(got.Roots, want.Roots) {
					t.Errorf("length %d: roots %v, want %v", want.Length, got.Roots, want.Roots)
				}
			}
			for _, want := range tree.Nodes {
				got := call[struct{ Nodes []treeNode }](n, "nodes", args{"handle": name, "indices": []uint64{want.Index}})
				if got.Nodes[0] != want {
					t.Errorf("node %v, want %v", got.Nodes[0], want)
				}
			}
			cut := tree.Truncate
			got := call[head](n, "truncate", args{"handle": name, "length": cut.Length})
			if want := (head{cut.Length, cut.Fork, got.ByteLength, cut.TreeHash, &cut.Signature}); !reflect.DeepEqual(got, want) {
				t.Errorf("truncated: %+v, want %+v", got, want)
			}
			more := cut.Appended
			got = call[head](n, "append", args{"handle": name, "blocks": more.Blocks})
			if want := (head{more.Length, more.Fork, got.ByteLength, more.TreeHash, &more.Signature}); !reflect.DeepEqual(got, want) {
				t.Errorf("appended: %+v, want %+v", got, want)
			}
		})
	}
}

func deref(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// Versions 10 and 11 of the package hand proofs to each other, block by block, as their replicators would.
func TestNodePeersAcceptEachOthersProofs(t *testing.T) {
	n := startNode(t)
	for _, c := range []struct{ writer, reader string }{{"11", "11"}, {"11", "10"}, {"10", "11"}, {"10", "10"}} {
		for _, compat := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to %s, compat %v", c.writer, c.reader, compat), func(t *testing.T) {
				n := node{t, n.p}
				w, r := t.Name()+" w", t.Name()+" r"
				const blocks = 23
				key := n.filled(w, blocks, args{"package": c.writer, "seed": seed(1), "compat": compat}).Key
				call[opened](n, "open", args{"handle": r, "package": c.reader, "key": key, "compat": compat})

				p := call[proof](n, "proof", args{"handle": w, "upgrade": upgrade{0, blocks}, "manifest": true})
				if got := call[applied](n, "applyProof", args{"handle": r, "dataHex": p.DataHex}); !got.Applied || got.Length != blocks {
					t.Fatalf("upgrade: %+v", got)
				}
				for i := range blocks {
					missing := call[struct{ Nodes uint64 }](n, "missingNodes", args{"handle": r, "index": i})
					p := call[proof](n, "proof", args{"handle": w, "block": args{"index": i, "nodes": missing.Nodes}})
					if got := call[applied](n, "applyProof", args{"handle": r, "dataHex": p.DataHex}); !got.Applied {
						t.Fatalf("block %d: %+v", i, got)
					}
					value := call[struct{ Value string }](n, "get", args{"handle": r, "index": i}).Value
					if want := someBlocks(i, i+1)[0]; value != want {
						t.Errorf("block %d = %s, want %s", i, value, want)
					}
				}
				if a, b := call[head](n, "info", args{"handle": w}), call[head](n, "info", args{"handle": r}); !reflect.DeepEqual(a, b) {
					t.Errorf("heads differ:\nwriter %+v\nreader %+v", a, b)
				}
			})
		}
	}
}

// A reader of the old fork finds the common ancestor by asking for hashes.
func TestNodePeersReorg(t *testing.T) {
	n := startNode(t)
	for _, pkg := range []string{"11", "10"} {
		w, r := "w"+pkg, "r"+pkg
		key := n.filled(w, 32, args{"package": pkg, "seed": seed(2)}).Key
		call[opened](n, "open", args{"handle": r, "package": pkg, "key": key})
		p := call[proof](n, "proof", args{"handle": w, "upgrade": upgrade{0, 32}, "manifest": true})
		call[applied](n, "applyProof", args{"handle": r, "dataHex": p.DataHex})
		for i := range 32 {
			missing := call[struct{ Nodes uint64 }](n, "missingNodes", args{"handle": r, "index": i})
			p := call[proof](n, "proof", args{"handle": w, "block": args{"index": i, "nodes": missing.Nodes}})
			call[applied](n, "applyProof", args{"handle": r, "dataHex": p.DataHex})
		}

		call[head](n, "truncate", args{"handle": w, "length": 21})
		want := call[head](n, "append", args{"handle": w, "blocks": someBlocks(100, 119)})
		p = call[proof](n, "proof", args{"handle": w, "upgrade": upgrade{0, want.Length}})
		state := call[applied](n, "applyProof", args{"handle": r, "dataHex": p.DataHex})
		steps := 0
		for ; !state.Finished && !state.Applied && steps < 20; steps++ {
			ask := args{"index": 2 * state.Want.Start, "nodes": state.Want.Nodes}
			p := call[proof](n, "proof", args{"handle": w, "hash": ask})
			state.reorg = call[reorg](n, "reorgUpdate", args{"handle": r, "dataHex": p.DataHex})
		}
		if steps == 0 {
			t.Errorf("package %s: finished without asking for a hash", pkg)
		}
		if state.Ancestors != 21 {
			t.Errorf("package %s: common ancestor %d, want 21", pkg, state.Ancestors)
		}
		done := call[applied](n, "reorgCommit", args{"handle": r})
		if got := call[head](n, "info", args{"handle": r}); !done.Applied || !reflect.DeepEqual(got, want) {
			t.Errorf("package %s: after the reorg %+v (%+v), want %+v", pkg, got, done, want)
		}
		for index, want := range map[int]bool{20: true, 21: false} {
			if got := call[struct{ Has bool }](n, "has", args{"handle": r, "index": index}).Has; got != want {
				t.Errorf("package %s: has block %d = %v, want %v", pkg, index, got, want)
			}
		}
	}
}

func TestNodeMultisig(t *testing.T) {
	n := startNode(t)
	const signers = 3
	keys := make([]string, signers)
	for i := range signers {
		handle := fmt.Sprint("signer", i)
		n.filled(handle, 2+i, args{"seed": seed(byte(10 + i))})
		keys[i] = call[struct{ PublicKey string }](n, "sign", args{"seed": seed(byte(10 + i)), "messageHex": "00"}).PublicKey
	}
	manifest := v1(2, keys...)
	manifest["allowPatch"] = true
	key := call[struct{ Key string }](n, "manifestKey", args{"manifest": manifest}).Key
	o := call[opened](n, "open", args{"handle": "all", "manifest": manifest})
	if o.Key != key {
		t.Fatalf("opened %s, manifestKey says %s", o.Key, key)
	}

	// The second signer is one block ahead, so its signature needs a patch from length 2.
	inputs := []json.RawMessage{}
	for i := range 2 {
		handle := fmt.Sprint("signer", i)
		signable := call[struct{ Signable string }](n, "signable", args{"handle": handle, "key": key, "manifest": manifest})
		signed := call[struct{ Signature string }](n, "sign", args{"seed": seed(byte(10 + i)), "messageHex": signable.Signable})
		params := args{"handle": handle, "signer": i, "from": 2, "signature": signed.Signature}
		inputs = append(inputs, call[json.RawMessage](n, "partialSignature", params))
	}
	signature := call[struct{ Signature string }](n, "assemble", args{"inputs": inputs}).Signature
	alone := call[struct{ Signature string }](n, "assemble", args{"inputs": inputs[:1]}).Signature
	params := args{"handle": "all", "blocks": someBlocks(0, 2), "signature": alone}
	if code := refused(n, "appendSigned", params); code != "INVALID_SIGNATURE" {
		t.Errorf("one signature of two: code %q", code)
	}
	params["signature"] = signature
	if got := call[head](n, "appendSigned", params); got.Length != 2 || deref(got.Signature) != signature {
		t.Errorf("appended with two signatures: %+v", got)
	}
	if !call[struct{ Valid bool }](n, "verifyBatch", args{"handle": "all"}).Valid {
		t.Error("the head does not verify")
	}
	if call[struct{ Valid bool }](n, "verifyBatch", args{"handle": "all", "fork": 1}).Valid {
		t.Error("the head verifies for another fork")
	}
}

func TestNodeRandomProofsAreRepeatable(t *testing.T) {
	n := startNode(t)
	type proofs struct {
		Proofs       []proof
		Unverifiable int
		Refused      []struct{ RequestHex, Code string }
	}
	for _, pkg := range []string{"11", "10"} {
		n.filled(pkg, 37, args{"package": pkg, "seed": seed(3)})
		ask := args{"handle": pkg, "count": 100, "seed": 7, "refused": true}
		a, b := call[proofs](n, "randomProofs", ask), call[proofs](n, "randomProofs", ask)
		if !reflect.DeepEqual(a, b) || len(a.Proofs) != 100 || len(a.Refused) == 0 || a.Unverifiable != 0 {
			t.Errorf("package %s: %d and %d proofs, %d refused, %d unverifiable", pkg, len(a.Proofs), len(b.Proofs), len(a.Refused), a.Unverifiable)
		}
		for _, p := range a.Proofs[:10] {
			if again := call[proof](n, "proof", args{"handle": pkg, "requestHex": p.RequestHex}); again.DataHex != p.DataHex {
				t.Errorf("package %s: request %s answered %s, then %s", pkg, p.RequestHex, p.DataHex, again.DataHex)
			}
		}
		for _, r := range a.Refused[:10] {
			if code := refused(n, "proof", args{"handle": pkg, "requestHex": r.RequestHex}); code != r.Code {
				t.Errorf("package %s: request %s refused with %s, then %s", pkg, r.RequestHex, r.Code, code)
			}
		}
	}
}

func TestNodeEncryptedCoresAndClearedBlocks(t *testing.T) {
	n := startNode(t)
	for _, pkg := range []string{"11", "10"} {
		n.filled(pkg, 5, args{"package": pkg, "seed": seed(4), "encryptionKey": seed(9)})
		plain := call[struct{ Value string }](n, "get", args{"handle": pkg, "index": 3}).Value
		raw := call[struct{ Value string }](n, "get", args{"handle": pkg, "index": 3, "raw": true}).Value
		if want := someBlocks(3, 4)[0]; plain != want || len(raw) != len(want)+16 || strings.Contains(raw, want) {
			t.Errorf("package %s: block %s, raw %s, want %s", pkg, plain, raw, want)
		}
		at := call[struct {
			Found struct{ Index, Offset uint64 }
		}](n, "seek", args{"handle": pkg, "bytes": 9}).Found
		if at.Index != 1 || at.Offset != 2 {
			t.Errorf("package %s: byte 9 found at %+v, want block 1, byte 2", pkg, at)
		}
		call[any](n, "clear", args{"handle": pkg, "start": 1, "end": 3})
		if code := refused(n, "proof", args{"handle": pkg, "block": args{"index": 2}}); code != "NO_DATA" {
			t.Errorf("package %s: proof of a cleared block: code %q", pkg, code)
		}
		if value := call[struct{ Value *string }](n, "get", args{"handle": pkg, "index": 2}).Value; value != nil {
			t.Errorf("package %s: cleared block = %s", pkg, *value)
		}
		call[any](n, "close", args{"handle": pkg})
		if code := refused(n, "info", args{"handle": pkg}); code != "BAD_ARGUMENT" {
			t.Errorf("package %s: info after close: code %q", pkg, code)
		}
	}
}

func TestNodeDerivesCorestoreKeys(t *testing.T) {
	n := startNode(t)
	type keys struct{ PublicKey, SecretKey, Key, DiscoveryKey, ManifestHex string }
	got := call[keys](n, "corestore", args{"primaryKey": seed(88), "namespaces": []any{"x", "y"}, "name": "db"})
	if want := "f3d6bd34c0a126a35dbe0306830bb4302b6e65633d47a814209b7892988fd856"; got.Key != want {
		t.Errorf("key %s, want %s", got.Key, want)
	}
	if again := call[keys](n, "manifestKey", args{"manifest": got.ManifestHex}); again.Key != got.Key || again.DiscoveryKey != got.DiscoveryKey {
		t.Errorf("manifestKey of its manifest = %+v", again)
	}
	v2 := call[keys](n, "corestore", args{"primaryKey": seed(88), "namespaces": []any{"x", "y"}, "name": "db", "manifestVersion": 2})
	if v2.PublicKey != got.PublicKey || v2.Key == got.Key {
		t.Errorf("manifest version 2: %+v", v2)
	}
	raw := call[keys](n, "corestore", args{"primaryKey": seed(88), "namespaces": []any{args{"hex": "78"}, "y"}, "name": "db"})
	if raw != got {
		t.Errorf("a namespace of bytes: %+v, want %+v", raw, got)
	}
}
