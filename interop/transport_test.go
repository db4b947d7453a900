package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// overWebSocket connects to Node over a WebSocket, as the side that is asked
// for, and calls f with our end of a stream over it. Node's end has the handle
// "s" and keys of seed 2.
func overWebSocket(t *testing.T, client bool, params args, f func(n node, s *secretstream.Stream)) {
	t.Helper()
	n := startScript(t, "transport.js")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	params["handle"], params["seed"] = "s", seed(2)
	o := secretstream.Options{KeyPair: peerKeys(1), KeepAlive: -1}
	var s *secretstream.Stream
	if client {
		port := call[struct{ Port int }](n, "listen", params).Port
		conn, err := transport.Dial(ctx, fmt.Sprintf("ws://127.0.0.1:%d/", port), transport.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err = secretstream.Client(ctx, conn, o); err != nil {
			t.Fatal(err)
		}
	} else {
		listener, err := transport.Listen(ctx, "ws://127.0.0.1:0/", transport.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		params["url"] = listener.Addr()
		call[any](n, "connect", params)
		conn, err := listener.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = secretstream.Server(ctx, conn, o); err != nil {
			t.Fatal(err)
		}
	}
	defer s.Close()
	f(n, s)
}

func TestWebSocketWithNodeCarriesEverySizeBothWays(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		overWebSocket(t, client, args{}, func(n node, s *secretstream.Stream) {
			for i, size := range streamSizes {
				write := s.WriteMessage
				if i%2 == 0 {
					write = s.Queue
				}
				if err := write(bytes.Repeat([]byte{byte(size)}, size)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			state := call[streamState](n, "until", args{"handle": "s", "received": len(streamSizes)})
			for i, size := range streamSizes {
				if got := state.Received[i]; got.Length != size || got.SHA256 != sum(bytes.Repeat([]byte{byte(size)}, size)) {
					t.Errorf("Node received %d bytes as message %d, want %d", got.Length, i, size)
				}
			}
			if hash := s.HandshakeHash(); state.HandshakeHash != hex.EncodeToString(hash[:]) || s.RemoteKey() != peerKeys(2).Public {
				t.Errorf("the sides disagree on who they are: %+v", state)
			}
			takesSizes(t, n, s)
		})
	})
}

func TestWebSocketWithNodeEchoesAndAnswersPings(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		rng := random(t, 6)
		overWebSocket(t, client, args{"echo": true}, func(n node, s *secretstream.Stream) {
			for i := range 300 {
				want := randomBytes(rng, rng.IntN(1000))
				if rng.IntN(20) == 0 {
					want = randomBytes(rng, rng.IntN(200_000))
				}
				if err := s.WriteMessage(want); err != nil {
					t.Fatal(err)
				}
				if got, err := s.Next(); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came back as %d, %v", len(want), len(got), err)
				}
				if i%100 != 0 {
					continue
				}
				read := make(chan error, 1)
				go func() { // pings are seen by who reads
					_, err := s.Next()
					read <- err
				}()
				text := fmt.Sprint("ping ", i)
				if got := call[struct{ Text string }](n, "ping", args{"handle": "s", "text": text}).Text; got != text {
					t.Errorf("Node's ping %q came back as %q", text, got)
				}
				call[any](n, "send", args{"handle": "s", "sizes": []int{1}})
				if err := <-read; err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

func TestWebSocketWithNodeEndsInOrder(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 1<<20)
	bothRoles(t, func(t *testing.T, client bool) {
		// We end, with much on its way. Both directions end then.
		overWebSocket(t, client, args{}, func(n node, s *secretstream.Stream) {
			call[any](n, "send", args{"handle": "s", "sizes": []int{5, 300_000}})
			if err := errors.Join(s.WriteMessage(large), s.WriteMessage([]byte("bye")), s.Close()); err != nil {
				t.Fatal(err)
			}
			state := call[streamState](n, "until", args{"handle": "s", "received": 2, "ended": true})
			if len(state.Received) != 2 || !state.Ended || state.Error != nil {
				t.Errorf("Node after our end: %+v, error %s", state, deref(state.Error))
			}
		})
		// Half an end is refused, and changes nothing.
		overWebSocket(t, client, args{"echo": true}, func(_ node, s *secretstream.Stream) {
			if err := s.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("CloseWrite: %v", err)
			}
			if err := s.WriteMessage(large); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Next(); err != nil || !bytes.Equal(got, large) {
				t.Errorf("after CloseWrite %d bytes came back, %v", len(got), err)
			}
		})
		// Node ends, after what it has to say.
		overWebSocket(t, client, args{}, func(n node, s *secretstream.Stream) {
			if err := errors.Join(s.WriteMessage(large), s.WriteMessage([]byte("bye"))); err != nil {
				t.Fatal(err)
			}
			call[streamState](n, "until", args{"handle": "s", "received": 2})
			call[any](n, "send", args{"handle": "s", "sizes": []int{5, 300_000}})
			call[any](n, "end", args{"handle": "s"})
			for _, size := range []int{5, 300_000} {
				if got, err := s.Next(); err != nil || len(got) != size {
					t.Fatalf("before Node's end: %d bytes, %v", len(got), err)
				}
			}
			if _, err := s.Next(); err != io.EOF {
				t.Fatalf("after Node's end: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			state := call[streamState](n, "until", args{"handle": "s", "received": 2, "closed": true})
			if len(state.Received) != 2 || !state.Closed || state.Error != nil {
				t.Errorf("Node after both ends: %+v, error %s", state, deref(state.Error))
			}
		})
	})
}
