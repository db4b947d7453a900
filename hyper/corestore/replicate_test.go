package corestore

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// memoryStore returns a store in memory.
func memoryStore(t testing.TB, seed byte) *Store {
	t.Helper()
	s, err := Open(storage.NewMemory(), Options{PrimaryKey: &[32]byte{seed}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect replicates two stores until the test ends, or stop is called.
func connect(t testing.TB, a, b *Store, oa, ob ReplicateOptions) (stop func()) {
	t.Helper()
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	run := func(s *Store, conn transport.Conn, seed byte, o ReplicateOptions, start func(context.Context, transport.Conn, secretstream.Options) (*secretstream.Stream, error)) {
		stream, err := start(ctx, conn, secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{seed}), KeepAlive: -1})
		if err == nil {
			err = s.Replicate(ctx, stream, o)
		}
		done <- err
	}
	go run(a, x, 1, oa, func(ctx context.Context, c transport.Conn, o secretstream.Options) (*secretstream.Stream, error) {
		return secretstream.Client(ctx, c, o)
	})
	go run(b, y, 2, ob, func(ctx context.Context, c transport.Conn, o secretstream.Options) (*secretstream.Stream, error) {
		return secretstream.Server(ctx, c, o)
	})
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

func block(i int) []byte { return fmt.Appendf(nil, "block %d", i) }

func TestReplicate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, b := memoryStore(t, 1), memoryStore(t, 2)
	w, err := a.Get(LogOptions{Name: "log"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var blocks [][]byte
	for i := range 1000 {
		blocks = append(blocks, block(i))
	}
	if _, err := w.Append(ctx, blocks...); err != nil {
		t.Fatal(err)
	}
	stop := connect(t, a, b, ReplicateOptions{}, ReplicateOptions{})
	defer stop()
	key := w.Key()
	r, err := b.Get(LogOptions{Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for len(b.Peers()) == 0 {
		time.Sleep(time.Millisecond)
	}
	got, err := r.Get(ctx, 7)
	if err != nil || !bytes.Equal(got, block(7)) {
		t.Fatalf("%q, %v", got, err)
	}
	if err := r.Download(ctx, hypercore.DownloadRange{}); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if got, err := r.Get(ctx, uint64(i)); err != nil || !bytes.Equal(got, block(i)) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := w.Append(ctx, []byte("more")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Get(ctx, 1000); err != nil || string(got) != "more" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := w.Truncate(ctx, 500, hypercore.TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(ctx, []byte("other")); err != nil {
		t.Fatal(err)
	}
	for r.Fork() != 1 || r.Length() != 501 {
		time.Sleep(time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("fork %d length %d: %+v", r.Fork(), r.Length(), b.Peers())
		}
	}
	if got, err := r.Get(ctx, 500); err != nil || string(got) != "other" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, p := range b.Peers() {
		t.Logf("%+v", p)
	}
}
