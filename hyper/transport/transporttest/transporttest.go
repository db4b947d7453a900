// Package transporttest holds what every connection of hyper/transport is
// tested with, and what another kind of connection has to pass to carry
// streams.
//
//	func TestMine(t *testing.T) {
//		transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
//			return mine.Pair(t)
//		})
//	}
package transporttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

const (
	// patience is how long a part of the suite may take.
	patience = 60 * time.Second

	// mostInFlight is how much may be written that the other side has not read:
	// all buffers of two sockets, and of a proxy between them.
	mostInFlight = 64 << 20
)

// A Lack is something that a kind of connection says it can't do.
type Lack string

// NoHalfClose is for connections that end in both directions at once. Their
// CloseWrite has to fail with [errors.ErrUnsupported].
const NoHalfClose Lack = "half close"

// Run runs the suite, without what the connection lacks. Open returns both ends
// of a new connection; Run closes them.
func Run(t *testing.T, open func(t *testing.T) (a, b transport.Conn), lacks ...Lack) {
	parts := []part{
		{"bytes arrive in order both ways at once", bothWays},
		{"small writes are not held back", smallWrites},
		{"a read takes what there is", partialReads},
		{"close ends what waits", closeUnblocks},
		{"the other side's close ends what waits", remoteCloseUnblocks},
		{"close loses nothing that was written", closeLosesNothing},
		{"an answer of the last moment arrives", lastAnswer},
		{"both sides close with much on the way", bothClose},
		{"after close everything fails", afterClose},
		{"calls race with close", closeRaces},
		{"a slow reader stops the writer", backpressure},
		{"a stream with channels works over it", stream},
	}
	if slices.Contains(lacks, NoHalfClose) {
		parts = append(parts, part{"half a close is refused and changes nothing", noHalfClose})
	} else {
		parts = append(parts,
			part{"the end is read after all bytes", end},
			part{"one direction ends, the other goes on", halfClose},
			part{"both sides end with much on the way", bothEnd},
		)
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			a, b := open(t)
			both := [][2]transport.Conn{{a, b}}
			c, d := open(t)
			both = append(both, [2]transport.Conn{d, c})
			for i, ends := range both {
				p := &pair{t, ends[0], ends[1]}
				name := [...]string{"forth", "back"}[i]
				t.Run(name, func(t *testing.T) {
					p.T = t
					// What hangs is ended, so that the test fails with what it waited for.
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					stop := context.AfterFunc(ctx, func() {
						p.Error("the test takes too long")
						p.a.Close()
						p.b.Close()
					})
					defer stop()
					part.test(t, p)
					p.a.Close()
					p.b.Close()
				})
			}
		})
	}
}

type part struct {
	name string
	test func(t *testing.T, p *pair)
}

// A pair is both ends of a connection under test.
type pair struct {
	*testing.T
	a, b transport.Conn
}

// bytesOf returns n bytes that are the same for the same seed.
func bytesOf(seed byte, n int) []byte {
	key := sha256.Sum256([]byte{seed})
	p := make([]byte, 0, n+len(key))
	for len(p) < n {
		p = append(p, key[:]...)
		key = sha256.Sum256(key[:])
	}
	return p[:n]
}

// sizes are of chunks, repeated for as long as needed: around the borders that
// frames and buffers have.
var sizes = []int{1, 2, 7, 125, 126, 127, 128, 1000, 4095, 4096, 4097, 65521, 65522, 65523, 65535, 65536, 65537, 131072, 3, 300_000}

// writeChunks writes data in chunks.
func writeChunks(w io.Writer, data []byte) error {
	for i := 0; len(data) > 0; i++ {
		n := min(sizes[i*7%len(sizes)], len(data))
		if wrote, err := w.Write(data[:n]); wrote != n || err != nil {
			return fmt.Errorf("write of %d bytes: %d, %w", n, wrote, err)
		}
		data = data[n:]
	}
	return nil
}

// readChunks reads n bytes with buffers of many sizes.
func readChunks(r io.Reader, n int) ([]byte, error) {
	out := make([]byte, 0, n)
	buf := make([]byte, 300_000)
	for i := 0; len(out) < n; i++ {
		got, err := r.Read(buf[:min(sizes[i*3%len(sizes)], n-len(out))])
		out = append(out, buf[:got]...)
		if err != nil {
			return out, fmt.Errorf("read after %d bytes: %w", len(out), err)
		}
	}
	return out, nil
}

// wants reports an error unless exactly data can be read, without what follows.
func wants(r io.Reader, data []byte) error {
	got, err := readChunks(r, len(data))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("read other bytes than were written")
	}
	return nil
}

// wantsEnd reports an error unless the end is read, again and again.
func wantsEnd(r io.Reader) error {
	for range 3 {
		if n, err := r.Read(make([]byte, 100)); n != 0 || err != io.EOF {
			return fmt.Errorf("read at the end: %d, %v, want EOF", n, err)
		}
	}
	return nil
}

// together runs functions at once and returns what went wrong.
func together(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func bothWays(t *testing.T, p *pair) {
	forth, back := bytesOf(1, 5<<20), bytesOf(2, 5<<20)
	p.must(together(
		func() error { return writeChunks(p.a, forth) },
		func() error { return writeChunks(p.b, back) },
		func() error { return wants(p.a, back) },
		func() error { return wants(p.b, forth) },
	))
	if p.a.Remote() == "" || p.b.Remote() == "" {
		t.Error("an end does not say who the other is")
	}
}

func smallWrites(t *testing.T, p *pair) {
	// If an answer of one byte waited for company, this would take minutes.
	const rounds = 2000
	one := make([]byte, 1)
	p.must(together(
		func() error {
			for i := range rounds {
				if _, err := p.a.Write([]byte{byte(i)}); err != nil {
					return err
				}
				if err := wants(p.a, []byte{byte(i)}); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			for range rounds {
				if _, err := io.ReadFull(p.b, one); err != nil {
					return err
				}
				if _, err := p.b.Write(one); err != nil {
					return err
				}
			}
			return nil
		},
	))
	// Many of them at once arrive too.
	data := bytesOf(3, 10_000)
	p.must(together(
		func() error {
			for i := range data {
				if _, err := p.a.Write(data[i : i+1]); err != nil {
					return err
				}
			}
			return nil
		},
		func() error { return wants(p.b, data) },
	))
}

func partialReads(t *testing.T, p *pair) {
	if n, err := p.b.Read(nil); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
	if n, err := p.a.Write(nil); n != 0 || err != nil {
		t.Errorf("write of nothing: %d, %v", n, err)
	}
	p.must(writeChunks(p.a, []byte("hello")))
	buf := make([]byte, 1<<20)
	got := 0
	for got < 5 { // it may come in parts, but doesn't wait for more
		n, err := p.b.Read(buf[got:])
		p.must(err)
		got += n
	}
	if string(buf[:got]) != "hello" {
		t.Errorf("read %q", buf[:got])
	}
}

func end(t *testing.T, p *pair) {
	data := bytesOf(4, 3<<20)
	p.must(together(
		func() error { return errors.Join(writeChunks(p.a, data), p.a.CloseWrite(), p.a.CloseWrite()) },
		func() error { return errors.Join(wants(p.b, data), wantsEnd(p.b)) },
	))
	if n, err := p.a.Write([]byte("more")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: %d, %v, want %v", n, err, net.ErrClosed)
	}
}

func halfClose(t *testing.T, p *pair) {
	data := bytesOf(5, 3<<20)
	p.must(p.a.CloseWrite())
	p.must(wantsEnd(p.b))
	p.must(together( // b still has something to say
		func() error { return writeChunks(p.b, data) },
		func() error { return wants(p.a, data) },
	))
	p.must(p.b.CloseWrite())
	p.must(wantsEnd(p.a))
	p.must(wantsEnd(p.b))
	p.must(p.a.Close())
	p.must(p.b.Close())
}

// stuck writes until the writer has to wait, and returns what ended it in the
// end. Waits tells that it has begun to wait, as far as that can be seen.
func stuck(w io.Writer) (ended chan error, waits func(), total *atomic.Int64) {
	ended, total = make(chan error, 1), new(atomic.Int64)
	go func() {
		chunk := make([]byte, 64<<10)
		for total.Load() < mostInFlight {
			n, err := w.Write(chunk)
			total.Add(int64(n))
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	waits = func() {
		for last := int64(-1); last != total.Load(); {
			last = total.Load()
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			<-ctx.Done()
			cancel()
		}
	}
	return ended, waits, total
}

func closeUnblocks(t *testing.T, p *pair) {
	read := make(chan error, 1)
	go func() {
		_, err := p.a.Read(make([]byte, 10))
		read <- err
	}()
	wrote, waits, _ := stuck(p.a)
	waits()
	p.must(p.a.Close())
	for name, ended := range map[string]chan error{"Read": read, "Write": wrote} {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v, want %v", name, err, net.ErrClosed)
		}
	}
}

func remoteCloseUnblocks(t *testing.T, p *pair) {
	wrote, waits, _ := stuck(p.a)
	waits()
	p.must(together(
		p.b.Close,
		func() error { // an end, in order or not
			if n, err := p.a.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("read after the other side closed: %d, %v", n, err)
			}
			return nil
		},
	))
	// Bytes that nobody reads may go nowhere for a while, not for ever.
	if err := <-wrote; err == nil {
		t.Error("writing to a side that has closed never fails")
	}
}

func closeLosesNothing(t *testing.T, p *pair) {
	data := bytesOf(6, 6<<20)
	p.must(together(
		func() error { return errors.Join(writeChunks(p.a, data), p.a.Close()) },
		func() error { return errors.Join(wants(p.b, data), wantsEnd(p.b)) },
		func() error {
			// What a never reads must not cost what it wrote.
			for range 64 {
				if _, err := p.b.Write(data[:64<<10]); err != nil {
					return nil
				}
			}
			return nil
		},
	))
}

func lastAnswer(t *testing.T, p *pair) {
	// Who answers and closes does not know whether the other side reads already.
	data := bytesOf(8, 1<<20)
	p.must(together(
		func() error {
			return errors.Join(writeChunks(p.a, []byte("what is new?")), wants(p.a, data), wantsEnd(p.a))
		},
		func() error {
			return errors.Join(wants(p.b, []byte("what is new?")), writeChunks(p.b, data), p.b.Close())
		},
	))
	p.must(p.a.Close())
}

func bothClose(t *testing.T, p *pair) {
	data := bytesOf(9, 50_000)
	p.must(writeChunks(p.a, data))
	p.must(writeChunks(p.b, data))
	for _, c := range []transport.Conn{p.a, p.b} {
		p.must(c.Close())
		if _, err := c.Read(data); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	}
}

func noHalfClose(t *testing.T, p *pair) {
	for range 2 {
		if err := p.a.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("CloseWrite: %v, want %v", err, errors.ErrUnsupported)
		}
	}
	data := bytesOf(5, 300_000)
	p.must(together(
		func() error { return writeChunks(p.a, data) },
		func() error { return wants(p.b, data) },
		func() error { return writeChunks(p.b, data) },
		func() error { return wants(p.a, data) },
	))
}

func bothEnd(t *testing.T, p *pair) {
	// Each side writes, doesn't read before it has closed its direction, and
	// still gets everything: what is on the way fits into the buffers.
	data := bytesOf(7, 50_000)
	half := func(c transport.Conn) func() error {
		return func() error {
			return errors.Join(writeChunks(c, data), c.CloseWrite(), wants(c, data), wantsEnd(c), c.Close())
		}
	}
	p.must(together(half(p.a), half(p.b)))
}

func afterClose(t *testing.T, p *pair) {
	p.must(p.a.Close())
	p.must(p.a.Close())
	if n, err := p.a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %d, %v", n, err)
	}
	if n, err := p.a.Write(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %d, %v", n, err)
	}
	if err := p.a.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("CloseWrite: %v", err)
	}
	if err := wantsEnd(p.b); err != nil {
		t.Error(err)
	}
}

func closeRaces(t *testing.T, p *pair) {
	var begun sync.WaitGroup
	var fs []func() error
	for i := range 8 {
		begun.Add(1)
		c := [...]transport.Conn{p.a, p.b}[i%2]
		fs = append(fs, func() error {
			begun.Done()
			buf := make([]byte, 5000)
			for {
				call := c.Write
				if i%4 < 2 {
					call = c.Read
				}
				if n, err := call(buf); err != nil {
					return nil
				} else if n == 0 {
					return errors.New("nothing was read or written, without an error")
				}
			}
		}, func() error { begun.Wait(); return c.Close() })
	}
	p.must(together(fs...))
}

func backpressure(t *testing.T, p *pair) {
	wrote, waits, total := stuck(p.a)
	waits()
	held := total.Load()
	if held >= mostInFlight {
		t.Fatalf("%d bytes were written that nobody read", held)
	}
	// Nothing of it is lost once somebody reads, and the writer goes on.
	n, err := io.CopyN(io.Discard, p.b, mostInFlight)
	if err != nil {
		t.Fatalf("read after %d bytes: %v", n, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func stream(t *testing.T, p *pair) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const messages = 150
	message := func(i int) []byte { return bytesOf(byte(i), i*i) }
	var received int
	done := make(chan struct{})
	onEcho := func(_ *protomux.Channel, got []byte) error {
		if !bytes.Equal(got, message(received)) {
			return fmt.Errorf("message %d came back as %d other bytes", received, len(got))
		}
		if received++; received == messages {
			close(done)
		}
		return nil
	}
	onText := func(c *protomux.Channel, got []byte) error { return c.Send(0, got) }
	serve := func(m *protomux.Mux, conn transport.Conn, start func(context.Context, io.ReadWriteCloser, secretstream.Options) (*secretstream.Stream, error)) func() error {
		return func() error {
			keys, err := noise.GenerateKeyPair(rand.Reader)
			if err != nil {
				return err
			}
			s, err := start(ctx, conn, secretstream.Options{KeyPair: keys})
			if err != nil {
				return err
			}
			return m.Serve(ctx, s)
		}
	}
	client, server := protomux.New(protomux.Options{}), protomux.New(protomux.Options{})
	talk := func(m *protomux.Mux, on func(*protomux.Channel, []byte) error) *protomux.Channel {
		c, err := m.Open(protomux.ChannelOptions{Protocol: "echo", Messages: []func(*protomux.Channel, []byte) error{on}})
		p.must(err)
		return c
	}
	talk(server, onText)
	c := talk(client, onEcho)
	p.must(together(
		serve(client, p.a, secretstream.Client),
		serve(server, p.b, secretstream.Server),
		func() error {
			defer client.Close()
			for i := range messages {
				if err := c.Send(0, message(i)); err != nil {
					return err
				}
			}
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	))
	if received != messages {
		t.Errorf("%d of %d messages came back", received, messages)
	}
}
