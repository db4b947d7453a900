package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func messagePair(t *testing.T) (a, b MessageConn) {
	t.Helper()
	l, err := Listen(t.Context(), "ws://127.0.0.1:0/", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	x, err := Dial(t.Context(), l.Addr(), DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	y, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.Close() })
	return x.(MessageConn), y.(MessageConn)
}

func TestMessagesKeepTheirBorders(t *testing.T) {
	a, b := messagePair(t)
	sizes := []int{0, 1, 125, 126, 65535, maxMessage, maxMessage + 1, 0, 1 << 20, 3}
	for _, ends := range [][2]MessageConn{{a, b}, {b, a}} {
		wrote := make(chan error, 1)
		go func() {
			for i, size := range sizes {
				if err := ends[0].WriteMessage(bytes.Repeat([]byte{byte(i + 1)}, size)); err != nil {
					wrote <- err
					return
				}
			}
			wrote <- nil
		}()
		for i, size := range sizes {
			got, err := ends[1].ReadMessage([]byte("kept"), 1<<20)
			if err != nil || !bytes.Equal(got, append([]byte("kept"), bytes.Repeat([]byte{byte(i + 1)}, size)...)) {
				t.Fatalf("message %d of %d bytes: %d bytes, %v", i, size, len(got)-4, err)
			}
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Write([]byte("begins")); err != nil {
		t.Fatal(err)
	}
	some := make([]byte, 2)
	if n, err := b.Read(some); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got, err := b.ReadMessage(nil, 100); err != nil || string(got) != "gins" {
		t.Errorf("after a part was read: %q, %v", got, err)
	}
	a.Close()
	if got, err := b.ReadMessage(nil, 100); err != io.EOF {
		t.Errorf("at the end: %q, %v", got, err)
	}
	if _, err := a.ReadMessage(nil, 100); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := a.WriteMessage([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestMessagesOverTheLimitEndTheReading(t *testing.T) {
	a, b := messagePair(t)
	go a.WriteMessage(make([]byte, 200_000))
	got, err := b.ReadMessage(nil, 100_000)
	if err == nil || !strings.Contains(err.Error(), "over 100000 bytes") || cap(got) > 300_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, again := b.ReadMessage(nil, 1<<20); again == nil || again.Error() != err.Error() {
		t.Errorf("again: %v", again)
	}
}

func TestMessageWriterWaitsForASlowReader(t *testing.T) {
	a, b := messagePair(t)
	wrote := make(chan error, 1)
	go func() { wrote <- a.WriteMessage(make([]byte, 16<<20)) }()
	b.Read(make([]byte, 1))
	select {
	case err := <-wrote:
		t.Fatalf("16 MiB are written while nobody reads: %v", err)
	default:
	}
	a.Close()
	if err := <-wrote; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while writing: %v", err)
	}
}
