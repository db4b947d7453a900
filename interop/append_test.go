package interop_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// The same random appends and truncations give the same log on both sides, whatever sort of log it is.
func TestLogIsTheirsByteForByte(t *testing.T) {
	n := startNode(t)
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			n := node{t, n.p}
			rng := random(t, 1)
			l := k.open(t, n, k.name, nil)
			sameHead(t, "empty", l, call[head](n, "info", args{"handle": k.name}))
			longest, appends, truncations, refusals := uint64(0), 0, 0, 0
			if k.prologue != nil {
				// Less than the prologue, and another beginning of its length, are refused by both.
				other := append([][]byte{[]byte("another")}, k.prologue[1:]...)
				if _, err := l.Append(t.Context(), k.prologue[:2]...); !errors.Is(err, hypercore.ErrLength) {
					t.Errorf("append less than the prologue: %v", err)
				}
				if code := refused(n, "append", args{"handle": k.name, "blocks": hexes(k.prologue[:2])}); code != "INVALID_OPERATION" {
					t.Errorf("Node: append less than the prologue: code %q", code)
				}
				sig := append([]byte{1, 0}, make([]byte, 66)...)
				if _, err := l.AppendWith(t.Context(), hypercore.AppendOptions{Signature: sig}, other...); !errors.Is(err, hypercore.ErrSignature) {
					t.Errorf("append another prologue: %v", err)
				}
				params := args{"handle": k.name, "blocks": hexes(other), "signature": hex.EncodeToString(sig)}
				if code := refused(n, "appendSigned", params); code != "INVALID_SIGNATURE" {
					t.Errorf("Node: append another prologue: code %q", code)
				}
				appendBoth(t, n, k.name, l, k.prologue...)
			}
			for step := range 40 * long(20) {
				switch rng.IntN(4) {
				case 0:
					length := rng.Uint64N(l.Length() + 1)
					if rng.IntN(2) == 0 {
						length = max(l.Length(), 3) - 3
					}
					if length < uint64(len(k.prologue)) {
						if err := l.Truncate(t.Context(), length, hypercore.TruncateOptions{}); !errors.Is(err, hypercore.ErrLength) {
							t.Fatalf("truncate into the prologue: %v", err)
						}
						if code := refused(n, "truncate", args{"handle": k.name, "length": length}); code != "INVALID_OPERATION" {
							t.Errorf("Node: truncate into the prologue: code %q", code)
						}
						refusals++
						continue
					}
					truncateBoth(t, n, k.name, l, length)
					truncations++
				default:
					blocks := randomBlocks(rng)
					if step == 7 {
						blocks = append(blocks, randomBytes(rng, 1<<20))
					}
					appendBoth(t, n, k.name, l, blocks...)
					appends++
					longest = max(longest, l.Length())
					i := rng.IntN(len(blocks))
					at := l.Length() - uint64(len(blocks)) + uint64(i)
					if got, err := l.Get(t.Context(), at); err != nil || !bytes.Equal(got, blocks[i]) {
						t.Fatalf("our block %d: %d bytes, %v, want %d", at, len(got), err, len(blocks[i]))
					}
					value := call[struct{ Value string }](n, "get", args{"handle": k.name, "index": at}).Value
					if value != hex.EncodeToString(blocks[i]) {
						t.Fatalf("Node's block %d is %d bytes, want %d", at, len(value)/2, len(blocks[i]))
					}
					if k.padding > 0 {
						sameCipher(t, n, k, l, at, blocks[i])
					}
				}
			}
			appendBoth(t, n, k.name, l, randomBlocks(rng)...)
			longest = max(longest, l.Length())
			// What was longer once and was cut must be gone on both sides, too.
			nodes, blocks := sameDump(t, "at the end", dumpOurs(t, l, longest+2), dumpNode(n, k.name, longest+2))
			if uint64(blocks) != l.Length() || nodes == 0 || appends < 10 || truncations < 2 || k.prologue != nil && refusals == 0 {
				t.Errorf("%d appends, %d truncations, %d refusals, %d nodes and %d blocks compared, length %d", appends, truncations, refusals, nodes, blocks, l.Length())
			}
			for p, err := range l.Audit(t.Context()) {
				t.Errorf("audit: %v, %v", p, err)
			}
		})
	}
}

// sameCipher compares a stored block with what the package's static functions make of it. They are right where a reader
// of the package is not, which learns too late that an encrypted log is of the old kind.
func sameCipher(t *testing.T, n node, k kind, l *hypercore.Log, index uint64, block []byte) {
	t.Helper()
	stored, err := l.Stored(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	key := l.Key()
	want := call[struct{ Value string }](n, "encrypt", args{
		"key": hex.EncodeToString(key[:]), "encryptionKey": k.node["encryptionKey"], "compat": k.ours.Compat, "blockKey": k.node["blockKey"],
		"index": index, "fork": l.Fork(), "value": hex.EncodeToString(block),
	}).Value
	if got := hex.EncodeToString(stored); got != want {
		t.Fatalf("block %d of fork %d is stored as %.100s, Node encrypts it to %.100s", index, l.Fork(), got, want)
	}
}
