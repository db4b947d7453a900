package hyperdrive

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// vectors is testdata/hyperdrive.json, written by hyperdrive 13.
type vectors struct {
	Drive, EncryptedDrive vectorDrive
	PathNormalisation     []struct{ In, Out string }
}

type vectorDrive struct {
	Key, ContentKey, EncryptionKey string
	Ops                            []struct {
		Op, Path, Target string
		Data             json.RawMessage
		Chunks           []string
		Metadata         json.RawMessage
		Opts             *struct {
			Executable bool
			Metadata   json.RawMessage
		}
	}
	MetadataBlocks, BlobBlocks      []struct{ Hex string }
	MetadataTreeHash, BlobsTreeHash string
	List                            []struct {
		Seq   uint64
		Key   string
		Value json.RawMessage
	}
	Readdir []string
	Version uint64
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/hyperdrive.json")
	must(t, err)
	must(t, json.Unmarshal(raw, &v))
	return v
}

func TestPathsAreCleanedAsByHyperdrive(t *testing.T) {
	for _, c := range readVectors(t).PathNormalisation {
		if got, err := CleanPath(c.In); err != nil || got != c.Out {
			t.Errorf("%q: got %q and error %v, want %q", c.In, got, err, c.Out)
		}
	}
}

func TestBlocksAreThoseOfHyperdrive(t *testing.T) {
	v := readVectors(t)
	t.Run("plain", func(t *testing.T) { replay(t, v.Drive) })
	t.Run("encrypted", func(t *testing.T) { replay(t, v.EncryptedDrive) })
}

func replay(t *testing.T, v vectorDrive) {
	ctx := t.Context()
	o := Options{}
	if v.EncryptionKey != "" {
		key, err := hex.DecodeString(v.EncryptionKey)
		must(t, err)
		o.EncryptionKey = (*[32]byte)(key)
	}
	d := newDrive(t, o)
	key := d.Key()
	if got := hex.EncodeToString(key[:]); got != v.Key {
		t.Fatalf("got key %s, want %s", got, v.Key)
	}
	for _, op := range v.Ops {
		var po PutOptions
		if op.Opts != nil {
			po = PutOptions{op.Opts.Executable, op.Opts.Metadata}
		}
		switch op.Op {
		case "put":
			must(t, d.Put(ctx, op.Path, contents(t, op.Data), po))
		case "symlink":
			must(t, d.Symlink(ctx, op.Path, op.Target, nil))
		case "putEntry":
			must(t, d.PutEntry(ctx, Entry{Path: op.Path, Metadata: op.Metadata}))
		case "del":
			must(t, d.Delete(ctx, op.Path))
		case "writeStream dedup":
			// The caller's chunks are the pieces, so this is one of blobs.
			blobs, err := d.Blobs(ctx)
			must(t, err)
			w := blobs.NewWriter(ctx, hyperblobs.WriteOptions{Chunks: true, Dedup: true})
			for _, c := range op.Chunks {
				var n int
				var fill byte
				if _, err := fmt.Sscanf(c, "%d x %x", &n, &fill); err != nil {
					t.Fatal(err)
				}
				_, err := w.Write(bytes.Repeat([]byte{fill}, n))
				must(t, err)
			}
			must(t, w.Close())
			id := w.ID()
			must(t, d.PutEntry(ctx, Entry{Path: op.Path, Blob: &id}))
		default:
			t.Fatalf("unknown operation %q", op.Op)
		}
	}
	blobs, err := d.Blobs(ctx)
	must(t, err)
	content := blobs.Log().Key()
	if got := hex.EncodeToString(content[:]); got != v.ContentKey {
		t.Errorf("got content key %s, want %s", got, v.ContentKey)
	}
	same := func(what string, log *hypercore.Log, blocks []struct{ Hex string }, treeHash string) {
		if log.Length() != uint64(len(blocks)) {
			t.Errorf("%s: got %d blocks, want %d", what, log.Length(), len(blocks))
		}
		for i := range min(log.Length(), uint64(len(blocks))) {
			got, err := log.Stored(ctx, i)
			must(t, err)
			if want := blocks[i].Hex; want != "" && hex.EncodeToString(got) != want {
				t.Errorf("%s: block %d: got\n%q, want\n%s", what, i, got, want)
			}
		}
		if got, err := log.TreeHash(log.Length()); err != nil || hex.EncodeToString(got[:]) != treeHash {
			t.Errorf("%s: got tree hash %x and error %v, want %s", what, got, err, treeHash)
		}
	}
	same("entries", d.Tree().Log(), v.MetadataBlocks, v.MetadataTreeHash)
	same("contents", blobs.Log(), v.BlobBlocks, v.BlobsTreeHash)
	if d.Version() != v.Version {
		t.Errorf("got version %d, want %d", d.Version(), v.Version)
	}
	i := 0
	for e, err := range d.List(ctx, "/", ListOptions{}) {
		must(t, err)
		value, err := e.append(nil)
		must(t, err)
		w := v.List[i]
		var want bytes.Buffer
		must(t, json.Compact(&want, w.Value))
		if e.Path != w.Key || e.Seq != w.Seq || string(value) != want.String() {
			t.Errorf("entry %d: got %s at %d: %s, want %s at %d: %s", i, e.Path, e.Seq, value, w.Key, w.Seq, &want)
		}
		i++
	}
	var names []string
	for e, err := range d.ReadDir(ctx, "/") {
		must(t, err)
		names = append(names, e.Name)
	}
	if i != len(v.List) || !slices.Equal(names, v.Readdir) {
		t.Errorf("got %d entries and the names %q, want %d and %q", i, names, len(v.List), v.Readdir)
	}
}

// contents are hex, or {fill, length}.
func contents(t *testing.T, raw json.RawMessage) []byte {
	t.Helper()
	var s string
	if json.Unmarshal(raw, &s) == nil {
		b, err := hex.DecodeString(s)
		must(t, err)
		return b
	}
	var filled struct {
		Fill   byte
		Length int
	}
	must(t, json.Unmarshal(raw, &filled))
	return bytes.Repeat([]byte{filled.Fill}, filled.Length)
}
