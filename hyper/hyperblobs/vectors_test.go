package hyperblobs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

type vectors struct {
	BlockMaps []struct {
		Blocks []struct {
			Index, ByteLength uint64
		}
		Encoded []string
	}
	Drive, EncryptedDrive struct {
		EncryptionKey string
		Blobs         []struct {
			Path string
			ID   ID
		}
		BlobBlocks []struct {
			Size     int
			LeafHash string
			Hex      string
		}
	}
}

func loadVectors(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/hyperblobs.json")
	must(t, err)
	must(t, json.Unmarshal(data, &v))
	return v
}

func TestBlockMapsAreThoseOfTheReference(t *testing.T) {
	v := loadVectors(t)
	if len(v.BlockMaps) == 0 {
		t.Fatal("there are no vectors")
	}
	for _, m := range v.BlockMaps {
		var chunks, read []Chunk
		for _, b := range m.Blocks {
			chunks = append(chunks, Chunk{b.Index, b.ByteLength})
		}
		var encoded []string
		for _, block := range AppendMap(nil, chunks) {
			encoded = append(encoded, hex.EncodeToString(block))
			var err error
			read, err = ReadMap(read, block, 1<<20)
			must(t, err)
		}
		if !reflect.DeepEqual(encoded, m.Encoded) || !reflect.DeepEqual(read, chunks) {
			t.Errorf("map %v is %v and read as %v, want %v", chunks, encoded, read, m.Encoded)
		}
	}
}

// What a drive of the reference wrote is written again, and the ids and blocks
// must be the same.
func TestBlobsAreThoseOfTheReference(t *testing.T) {
	v := loadVectors(t)
	for _, encrypted := range []bool{false, true} {
		want := v.Drive
		var session hypercore.SessionOptions
		if encrypted {
			want = v.EncryptedDrive
			session.EncryptionKey = new([32]byte)
			_, err := hex.Decode(session.EncryptionKey[:], []byte(want.EncryptionKey))
			must(t, err)
		}
		log := newLog(t, session)
		b := New(log, Options{})
		ids := map[string]ID{}
		for _, put := range []struct {
			path string
			data []byte
		}{
			{"/old", []byte("hello world")},
			{"/dir/a.bin", bytes.Repeat([]byte{5}, 70000)},
			{"/dir/run.sh", []byte("#!/bin/sh\n")},
			{"/empty", nil},
			{"/hello.txt", []byte("hello again")},
		} {
			id, err := b.Put(t.Context(), put.data)
			must(t, err)
			ids[put.path] = id
		}
		if !encrypted {
			w := b.NewWriter(t.Context(), WriteOptions{Dedup: true, Chunks: true})
			for _, fill := range []byte{1, 2, 1} {
				_, err := w.Write(bytes.Repeat([]byte{fill}, 100))
				must(t, err)
			}
			must(t, w.Close())
			ids["/dedup.bin"] = w.ID()
		}
		for _, blob := range want.Blobs {
			if got := ids[blob.Path]; got != blob.ID {
				t.Errorf("encrypted %v: %s is %+v, want %+v", encrypted, blob.Path, got, blob.ID)
			}
		}
		if n := log.Length(); n != uint64(len(want.BlobBlocks)) {
			t.Errorf("encrypted %v: %d blocks, want %d", encrypted, n, len(want.BlobBlocks))
		}
		for i, block := range want.BlobBlocks {
			got, err := log.Stored(t.Context(), uint64(i))
			if err != nil || len(got) != block.Size {
				t.Errorf("encrypted %v: block %d has %d bytes (%v), want %d", encrypted, i, len(got), err, block.Size)
			}
			if block.Hex != "" && !encrypted && hex.EncodeToString(got) != block.Hex {
				t.Errorf("block %d is %x, want %s", i, got, block.Hex)
			}
			leaf, err := log.Node(2 * uint64(i))
			must(t, err)
			if !encrypted && hex.EncodeToString(leaf.Hash[:]) != block.LeafHash {
				t.Errorf("the leaf of block %d is %x, want %s", i, leaf.Hash, block.LeafHash)
			}
		}
	}
}
