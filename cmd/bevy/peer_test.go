package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// serveStore serves the store of an environment from this process, and returns
// its address and the key of its log "a".
func serveStore(t *testing.T, env []string) (addr, key string) {
	addr, key = serveStoreBy(t, env, "--tcp", "127.0.0.1:0")
	addr, ok := strings.CutPrefix(addr, "listening ")
	if !ok {
		t.Fatalf("serve said %q", addr)
	}
	return addr, key
}

// newNetwork begins a network of peers on this machine, and returns the address
// of its first node.
func newNetwork(t *testing.T) string {
	t.Helper()
	d, err := hyperdht.Open(hyperdht.Options{
		Bind: netip.MustParseAddr("127.0.0.1"), Port: -1, Bootstrap: []string{}, Open: true, Node: true,
		Public: netip.MustParseAddrPort("127.0.0.1:0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.Node().ServerSocket().LocalAddr().String()
}

// serveStoreBy serves with other flags, and returns the first line that it says.
func serveStoreBy(t *testing.T, env []string, flags ...string) (said, key string) {
	t.Helper()
	var talk bytes.Buffer
	listing, exit := command(t, env, nil, &talk, "hyper", "core", "ls", "--full")
	if exit != 0 {
		t.Fatalf("ls: exit code %d\n%s", exit, &talk)
	}
	key = regexp.MustCompile(`[a-z0-9]{52}`).FindString(listing)
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"hyper", "serve"}, flags...), nil, in, &screen{}, env)
		in.Close()
	}()
	t.Cleanup(func() {
		stop()
		if exit := <-done; exit != 0 {
			t.Errorf("serve: got exit code %d, want 0", exit)
		}
	})
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil {
		t.Fatalf("serve said nothing: %v", err)
	}
	go io.Copy(io.Discard, out)
	return strings.TrimSuffix(string(line[:n]), "\n"), key
}

func TestDownloadShowsProgress(t *testing.T) {
	addr, key := serveStore(t, newStore(t))
	env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	var s screen
	if _, exit := command(t, env, nil, &s, "hyper", "core", "download", key, "--peer", addr); exit != 0 {
		t.Fatalf("got exit code %d, want 0\n%s", exit, &s)
	}
	for _, want := range []string{" 0 of 3 blocks  0 B  [0:00] 0%", eraseLine + "fetched 3 blocks (11 B)", "3 of 3 blocks are here\n"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("got %q, want %q in it", &s, want)
		}
	}
}

// A command that reads a log shares that log with its peers, and no other.
func TestReaderSharesWhatItReadsAlone(t *testing.T) {
	env := newStore(t)
	var talk bytes.Buffer
	listing, exit := command(t, env, nil, &talk, "hyper", "core", "ls", "--full")
	if exit != 0 {
		t.Fatalf("ls: exit code %d\n%s", exit, &talk)
	}
	secret, err := hypercore.ParseKey(regexp.MustCompile(`[a-z0-9]{52}`).FindString(listing))
	if err != nil {
		t.Fatal(err)
	}

	// The peer has a log to read, and knows the key of the reader's own.
	peer, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := peer.Get(corestore.LogOptions{Name: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shared.Append(t.Context(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(t.Context(), "tcp://127.0.0.1:0", transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept(ctx)
		if err != nil {
			ended <- err
			return
		}
		stream, err := secretstream.Server(ctx, conn, secretstream.Options{KeyPair: storeKeys(peer)})
		if err == nil {
			err = peer.Replicate(ctx, stream, corestore.ReplicateOptions{})
		}
		ended <- err
	}()

	out, said := io.Pipe()
	done := make(chan int, 1)
	reading, interrupt := context.WithCancel(context.Background())
	go func() {
		done <- run(reading, []string{"hyper", "core", "cat", shared.Key().String(), "--live", "--peer", l.Addr()}, nil, said, &screen{}, env)
		said.Close()
	}()
	hello := make([]byte, 5)
	if _, err := io.ReadFull(out, hello); err != nil || string(hello) != "hello" {
		t.Fatalf("got %q, %v, want hello", hello, err)
	}
	stolen, err := peer.Get(corestore.LogOptions{Key: &secret})
	if err != nil {
		t.Fatal(err)
	}
	if err := stolen.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := stolen.Length(); n != 0 {
		t.Errorf("the peer got a head of %d blocks of a log that was not read from it", n)
	}
	interrupt()
	if exit := <-done; exit != 0 {
		t.Errorf("got exit code %d, want 0", exit)
	}
	stop()
	<-ended
	for _, err := range []error{stolen.Close(), shared.Close(), peer.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
}

// runOn runs the command with a clock that a test moves on until it is done.
func runOn(t *testing.T, env []string, stderr io.Writer, args ...string) (exit int) {
	t.Helper()
	fake := clock.NewFake(time.UnixMilli(0))
	a := newApp(nil, io.Discard, stderr, env)
	a.clock = fake
	done := make(chan int, 1)
	go func() { done <- a.run(t.Context(), args) }()
	for {
		select {
		case exit := <-done:
			return exit
		default:
			fake.Advance(10 * time.Millisecond)
			runtime.Gosched()
		}
	}
}

func TestPeersThatAreNone(t *testing.T) {
	const key = "u5rhzkt8b5dn7q1enmr8gh36ghh9dfbbxi1at4oaktd4rikrn3cy"
	for _, c := range []struct {
		what  string
		serve func(net.Conn)
		cause string
	}{
		{"says nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, "no answer within 10s"},
		{"hangs up", func(c net.Conn) {}, ""},
		{"says something else", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }, ""},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				c.serve(conn)
				conn.Close()
			}
		}()
		var talk bytes.Buffer
		env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
		exit := runOn(t, env, &talk, "hyper", "core", "cat", key, "--peer", "tcp://"+l.Addr().String())
		if exit != int(codeOffline) || !strings.Contains(talk.String(), c.cause) {
			t.Errorf("one that %s: got exit code %d, want %d, and cause %q\n%s", c.what, exit, codeOffline, c.cause, &talk)
		}
		l.Close()
		<-done
	}
}

// An interrupt ends the attempt to reach a peer at once, and is no failure of
// the peer.
func TestConnectingCanBeInterrupted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		interrupt()
		io.Copy(io.Discard, conn) // until it is closed
	}()
	var talk bytes.Buffer
	env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	addr := "tcp://" + l.Addr().String()
	exit := run(ctx, []string{"hyper", "core", "cat", "u5rhzkt8b5dn7q1enmr8gh36ghh9dfbbxi1at4oaktd4rikrn3cy", "--peer", addr}, nil, io.Discard, &talk, env)
	if exit != int(codeFailed) || !strings.Contains(talk.String(), "it was interrupted") {
		t.Errorf("got exit code %d, want %d and a word about it\n%s", exit, codeFailed, &talk)
	}
}

// A peer whose connection ends before it has said whether it has a log is asked
// again, once it is connected again.
func TestPeersAreAskedAgain(t *testing.T) {
	peer, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	shared, err := peer.Get(corestore.LogOptions{Name: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	if _, err := shared.Append(t.Context(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(t.Context(), "tcp://127.0.0.1:0", transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for first := true; ; first = false {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			stream, err := secretstream.Server(context.Background(), conn, secretstream.Options{KeyPair: storeKeys(peer)})
			switch {
			case err != nil:
				t.Error(err)
			case first:
				stream.Close()
			default:
				serving.Go(func() { peer.Replicate(context.Background(), stream, corestore.ReplicateOptions{}) })
			}
		}
	})
	var talk bytes.Buffer
	env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	out, exit := command(t, env, nil, &talk, "hyper", "core", "cat", shared.Key().String(), "--peer", l.Addr())
	if exit != 0 || out != "hello" || !strings.Contains(talk.String(), "trying again") {
		t.Errorf("got %q and exit code %d, want hello, after a second connection\n%s", out, exit, &talk)
	}
	l.Close()
	serving.Wait()
}
