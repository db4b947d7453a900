package interop_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// startScript starts a script of interop/node other than peer.js.
func startScript(t *testing.T, script string) node {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return node{t, p}
}

// streamState is what interop/node/secretstream.js knows of a stream.
type streamState struct {
	Connected, Ended, Closed                  bool
	Error                                     *string
	PublicKey, RemotePublicKey, HandshakeHash string
	Received                                  []struct {
		Length int
		SHA256 string
	}
}

func peerKeys(b byte) noise.KeyPair { return noise.NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32))) }

// withNode connects to Node over TCP on loopback, as the side that is asked
// for, and calls f with our end. Node's end has the handle "s" and keys of
// seed 2.
func withNode(t *testing.T, n node, client bool, o secretstream.Options, params args, f func(s *secretstream.Stream)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o.KeyPair = peerKeys(1)
	params["seed"] = seed(2)
	var s *secretstream.Stream
	if client {
		port := call[struct{ Port int }](n, "listen", params).Port
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if s, err = secretstream.Client(ctx, conn, o); err != nil {
			t.Fatal(err)
		}
	} else {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		params["port"] = listener.Addr().(*net.TCPAddr).Port
		call[any](n, "connect", params)
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if s, err = secretstream.Server(ctx, conn, o); err != nil {
			t.Fatal(err)
		}
	}
	defer s.Close()
	f(s)
}

// bothRoles runs f as the client and as the server of Node.
func bothRoles(t *testing.T, f func(t *testing.T, client bool)) {
	for name, client := range map[string]bool{"client of Node": true, "server of Node": false} {
		t.Run(name, func(t *testing.T) { f(t, client) })
	}
}

// streamSizes are around the borders of what a cipher and a socket like.
var streamSizes = []int{0, 1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023, 1024, 1031, 4096, 65535, 65536, 65537, 262144, 1<<20 - 1, 1 << 20}

func sum(p []byte) string {
	h := sha256.Sum256(p)
	return hex.EncodeToString(h[:])
}

func TestSecretStreamWithNodeCarriesEverySizeBothWays(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		n := startScript(t, "secretstream.js")
		withNode(t, n, client, secretstream.Options{KeepAlive: -1, Check: secretstream.Only(peerKeys(2).Public)}, args{"handle": "s"}, func(s *secretstream.Stream) {
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
			hash := s.HandshakeHash()
			local, remote := s.LocalKey(), s.RemoteKey()
			if state.HandshakeHash != hex.EncodeToString(hash[:]) || state.RemotePublicKey != hex.EncodeToString(local[:]) ||
				state.PublicKey != hex.EncodeToString(remote[:]) || remote != peerKeys(2).Public || s.Initiator() != client {
				t.Errorf("the sides disagree on who they are: %+v", state)
			}
			takesSizes(t, n, s)
		})
	})
}

// takesSizes lets Node send a message of each size, and reads them.
func takesSizes(t *testing.T, n node, s *secretstream.Stream) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- n.p.Call(t.Context(), "send", args{"handle": "s", "sizes": streamSizes}, nil) }()
	for i, size := range streamSizes {
		got, err := s.Next()
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, size)) {
			t.Fatalf("message %d: %d bytes, %v, want %d", i, len(got), err, size)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestSecretStreamWithNodeEchoes(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		n := startScript(t, "secretstream.js")
		rng := random(t, 3)
		withNode(t, n, client, secretstream.Options{KeepAlive: -1}, args{"handle": "s", "echo": true}, func(s *secretstream.Stream) {
			for range 300 {
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
			}
		})
	})
}

func TestSecretStreamWithNodeIsKeptAlive(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		n := startScript(t, "secretstream.js")
		// A listener that sends nothing by itself sees Node's empty messages.
		withNode(t, n, client, secretstream.Options{KeepAlive: -1, Timeout: 10 * time.Second}, args{"handle": "s", "keepAlive": 20}, func(s *secretstream.Stream) {
			for range 3 {
				if got, err := s.Next(); err != nil || len(got) != 0 {
					t.Fatalf("got %q, %v, want an empty message", got, err)
				}
			}
		})
		// Node without keep-alive sees ours.
		withNode(t, n, client, secretstream.Options{KeepAlive: 20 * time.Millisecond}, args{"handle": "t"}, func(s *secretstream.Stream) {
			for _, m := range call[streamState](n, "until", args{"handle": "t", "received": 3}).Received {
				if m.Length != 0 {
					t.Errorf("Node received %d bytes", m.Length)
				}
			}
		})
		// With it on both sides nobody sees any.
		withNode(t, n, client, secretstream.Options{KeepAlive: 10 * time.Millisecond}, args{"handle": "u", "keepAlive": 10}, func(s *secretstream.Stream) {
			read := make(chan []byte, 1)
			go func() {
				p, _ := s.ReadMessage(nil)
				read <- p
			}()
			time.Sleep(100 * time.Millisecond) // some ten of them
			if err := s.WriteMessage([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if got := call[streamState](n, "until", args{"handle": "u", "received": 1}).Received; len(got) != 1 || got[0].Length != 1 {
				t.Errorf("Node received %v", got)
			}
			call[any](n, "send", args{"handle": "u", "sizes": []int{1}})
			if got := <-read; !bytes.Equal(got, []byte{1}) {
				t.Errorf("read %x", got)
			}
		})
	})
}

func TestSecretStreamWithNodeEndsInOrder(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		n := startScript(t, "secretstream.js")
		// We end our half first, Node still talks.
		withNode(t, n, client, secretstream.Options{}, args{"handle": "s"}, func(s *secretstream.Stream) {
			if err := s.Queue([]byte("last")); err != nil {
				t.Fatal(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			state := call[streamState](n, "until", args{"handle": "s", "received": 1, "ended": true})
			if len(state.Received) != 1 || !state.Ended || state.Closed || state.Error != nil {
				t.Errorf("Node after our end: %+v", state)
			}
			call[any](n, "send", args{"handle": "s", "sizes": []int{5}})
			call[any](n, "end", args{"handle": "s"})
			if got, err := s.Next(); err != nil || len(got) != 5 {
				t.Errorf("after our end: %x, %v", got, err)
			}
			if _, err := s.Next(); err != io.EOF {
				t.Errorf("after both ends: %v", err)
			}
			if state := call[streamState](n, "until", args{"handle": "s", "closed": true}); state.Error != nil {
				t.Errorf("Node closed with %s", *state.Error)
			}
		})
		// Node ends first.
		withNode(t, n, client, secretstream.Options{}, args{"handle": "t"}, func(s *secretstream.Stream) {
			call[any](n, "send", args{"handle": "t", "sizes": []int{5}})
			call[any](n, "end", args{"handle": "t"})
			if got, err := s.Next(); err != nil || len(got) != 5 {
				t.Errorf("before Node's end: %x, %v", got, err)
			}
			if _, err := s.Next(); err != io.EOF {
				t.Errorf("after Node's end: %v", err)
			}
			if err := errors.Join(s.WriteMessage([]byte("bye")), s.CloseWrite()); err != nil {
				t.Error(err)
			}
			state := call[streamState](n, "until", args{"handle": "t", "received": 1, "closed": true})
			if len(state.Received) != 1 || state.Error != nil {
				t.Errorf("Node after both ends: %+v", state)
			}
		})
	})
}

// The points that libsodium takes for keys, and what it makes of them, are ours.
func TestNoiseKeysAreAcceptedAndRefusedAsByNode(t *testing.T) {
	n := startScript(t, "secretstream.js")
	rng := random(t, 4)
	var keys []string
	for i := range 200 {
		k := randomBytes(rng, 32) // half of them are points, an eighth of those in the subgroup
		if i%4 == 0 {
			pair := noise.NewKeyPair([32]byte(k))
			k = pair.Public[:]
		}
		keys = append(keys, hex.EncodeToString(k))
	}
	for _, y := range []byte{0, 1, 2, 3, 4, 5, 6} {
		for _, sign := range []byte{0, 0x80} {
			low, high := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
			low[0], low[31] = y, sign
			high[0], high[31] = 0xec+y, 0x7f|sign
			keys = append(keys, hex.EncodeToString(low), hex.EncodeToString(high))
		}
	}
	outputs := call[struct{ Outputs []*string }](n, "dh", args{"seed": seed(2), "publicKeys": keys}).Outputs
	accepted, refused := 0, 0
	for i, key := range keys {
		raw, _ := hex.DecodeString(key)
		// A responder computes with the ephemeral key of the first message
		// before it answers.
		h, err := noise.New(noise.Config{Pattern: noise.XX, Static: peerKeys(2)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.ReadMessage(raw); err != nil {
			t.Fatal(err)
		}
		_, err = h.WriteMessage(nil, nil)
		if (err == nil) != (outputs[i] != nil) {
			t.Errorf("key %s: we say %v, libsodium makes %v of it", key, err, outputs[i])
		}
		if err == nil {
			accepted++
			continue
		}
		refused++
	}
	if accepted < 50 || refused < 50 {
		t.Errorf("%d keys accepted, %d refused: not much of a test", accepted, refused)
	}
}

func TestDatagramsAreThoseOfNode(t *testing.T) {
	n := startScript(t, "secretstream.js")
	rng := random(t, 5)
	for i := range 20 {
		session := noise.Session{Initiator: i%2 == 0, Hash: [64]byte(randomBytes(rng, 64))}
		counter := randomBytes(rng, 8)
		if i == 0 {
			counter = bytes.Repeat([]byte{0xff}, 8)
		}
		plain := randomBytes(rng, rng.IntN(100))
		box, err := secretstream.NewBox(session, bytes.NewReader(counter))
		if err != nil {
			t.Fatal(err)
		}
		got, err := box.Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		want := call[struct{ Envelope string }](n, "box", args{
			"hash": hex.EncodeToString(session.Hash[:]), "initiator": session.Initiator,
			"counter": hex.EncodeToString(counter), "plain": hex.EncodeToString(plain),
		}).Envelope
		if hex.EncodeToString(got) != want {
			t.Errorf("counter after %d: got %x, want %s", binary.LittleEndian.Uint64(counter), got, want)
		}
	}
}

// Random messages with random keys, around the rollover of the counter, are sealed as by libsodium.
func TestSealedMessagesAreThoseOfNode(t *testing.T) {
	n := startScript(t, "secretstream.js")
	rng := random(t, 6)
	for range 5 * long(20) {
		key, header := [32]byte(randomBytes(rng, 32)), randomBytes(rng, 24)
		push, _, err := secretstream.NewPush(key, bytes.NewReader(header))
		if err != nil {
			t.Fatal(err)
		}
		var messages []args
		var ours []string
		for range 30 {
			plain := randomBytes(rng, rng.IntN(2000))
			tag := rng.IntN(4)
			messages = append(messages, args{"plain": hex.EncodeToString(plain), "tag": []string{"MESSAGE", "PUSH", "REKEY", "FINAL"}[tag]})
			ours = append(ours, hex.EncodeToString(push.Seal(nil, plain, secretstream.Tag(tag))))
		}
		params := args{"key": hex.EncodeToString(key[:]), "header": hex.EncodeToString(header), "messages": messages}
		for i, theirs := range call[struct{ Ciphers []string }](n, "seal", params).Ciphers {
			if ours[i] != theirs {
				t.Fatalf("message %d: got %s, want %s", i, ours[i], theirs)
			}
		}
		params["ciphers"] = ours
		for i, plain := range call[struct{ Plains []string }](n, "open", params).Plains {
			if plain != messages[i]["plain"] {
				t.Fatalf("Node opened message %d as %s", i, plain)
			}
		}
	}
}
