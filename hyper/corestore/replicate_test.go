package corestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
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

// Logs go from one store to the other, with what is appended and truncated later.
func TestStoresReplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
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
		stop := connect(t, a, b, ReplicateOptions{}, ReplicateOptions{Name: "the writer"})
		defer stop()
		key := w.Key()
		r, err := b.Get(LogOptions{Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		synctest.Wait() // connected
		if got, err := r.Get(ctx, 7); err != nil || !bytes.Equal(got, block(7)) {
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
		synctest.Wait()
		if r.Fork() != 1 || r.Length() != 501 {
			t.Fatalf("fork %d length %d: %+v", r.Fork(), r.Length(), b.Peers())
		}
		if got, err := r.Get(ctx, 500); err != nil || string(got) != "other" {
			t.Fatalf("%q, %v", got, err)
		}
		for _, p := range b.Peers() {
			if p.Name != "the writer" || p.Log != key || !p.Open || p.Lies+p.Violations > 0 || p.Dropped != nil {
				t.Errorf("%+v", p)
			}
		}
	})
}

// Who may not have a log is told no, and hears nothing of it.
func TestTheGateKeepsLogsFromPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memoryStore(t, 1), memoryStore(t, 2)
		logs := map[string]*hypercore.Log{}
		for _, name := range []string{"open", "closed"} {
			w, err := a.Get(LogOptions{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if _, err := w.Append(t.Context(), []byte(name)); err != nil {
				t.Fatal(err)
			}
			key := w.Key()
			if logs[name], err = b.Get(LogOptions{Key: &key}); err != nil {
				t.Fatal(err)
			}
			defer logs[name].Close()
		}
		secret := logs["closed"].Key()
		stop := connect(t, a, b, ReplicateOptions{Allow: func(_ noise.Key, log hypercore.Key) replicate.Access {
			if log == secret {
				return replicate.Access{}
			}
			return replicate.Full
		}}, ReplicateOptions{})
		defer stop()
		synctest.Wait()
		for name, log := range logs {
			if err := log.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			if want := map[string]uint64{"open": 1}[name]; log.Length() != want {
				t.Errorf("%s: length %d, want %d", name, log.Length(), want)
			}
		}
	})
}

// A peer that asks for ten thousand logs that are not here makes nothing be opened,
// and nothing be kept.
func TestTenThousandStrangeChannelsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := memoryStore(t, 1)
		w, err := a.Get(LogOptions{Name: "log"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		x, y := transport.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() {
			stream, err := secretstream.Server(ctx, y, secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1})
			if err == nil {
				err = a.Replicate(ctx, stream, ReplicateOptions{})
			}
			done <- err
		}()
		stream, err := secretstream.Client(ctx, x, secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1})
		if err != nil {
			t.Fatal(err)
		}
		m := protomux.New(protomux.Options{MaxChannels: 1 << 16})
		go func() { done <- m.Serve(ctx, stream) }()
		rejected := 0
		for i := range 10000 {
			id := make([]byte, 32)
			binary.BigEndian.PutUint64(id, uint64(i))
			if i%100 == 99 {
				id = id[:8] // not a discovery key
			}
			_, err := m.Open(protomux.ChannelOptions{Protocol: replicate.Protocols[i%2], ID: id, Handshake: make([]byte, 33),
				OnClose: func(_ *protomux.Channel, reason error) {
					if errors.Is(reason, protomux.ErrRejected) {
						rejected++
					}
				}})
			if err != nil {
				t.Fatal(err)
			}
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		m.Dispatch()
		if rejected != 10000 {
			t.Errorf("%d of 10000 channels are rejected; the stream: %v", rejected, m.Err())
		}
		a.mu.Lock()
		open := len(a.open)
		a.mu.Unlock()
		if open != 1 {
			t.Errorf("%d logs are open", open)
		}
		cancel()
		<-done
		<-done
	})
}

// Who wants to know of a log's replicator hears of it once, whenever it comes.
func TestReplicatorsAreToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memoryStore(t, 1), memoryStore(t, 2)
		w, err := a.Get(LogOptions{Name: "log"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		var told []string
		hear := func(name string) (stop func()) {
			stop, err := a.OnReplicator(w.Key(), func(r *replicate.Replicator) {
				if r == nil {
					t.Error("told of nothing")
				}
				told = append(told, name)
			})
			if err != nil {
				t.Fatal(err)
			}
			return stop
		}
		before, never := hear("before"), hear("never")
		never()
		never()
		if len(told) > 0 {
			t.Errorf("%q before there is a connection", told)
		}
		for range 2 {
			stop := connect(t, a, b, ReplicateOptions{}, ReplicateOptions{})
			synctest.Wait()
			stop()
		}
		after := hear("after")
		if got := fmt.Sprint(told); got != "[before after]" {
			t.Errorf("told were %s", got)
		}
		before()
		after()
		if _, err := a.OnReplicator(hypercore.Key{1}, func(*replicate.Replicator) { t.Error("told") }); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("a log that is not open: %v", err)
		}
	})
}
