package dhtrelay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/transport/transporttest"
)

func keys(b byte) noise.KeyPair { return noise.NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32))) }

// streams are both ends of a stream of messages.
func streams(t *testing.T) (a, b *secretstream.Stream) {
	t.Helper()
	x, y := transport.Pipe()
	served := make(chan error, 1)
	go func() {
		var err error
		b, err = secretstream.Server(t.Context(), y, secretstream.Options{KeyPair: keys(101), KeepAlive: -1})
		served <- err
	}()
	a, err := secretstream.Client(t.Context(), x, secretstream.Options{KeyPair: keys(100), KeepAlive: -1})
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// testLine is a line that does no more than lines do.
func testLine(t *testing.T, stream protomux.Stream) *line {
	t.Helper()
	l := &line{}
	err := l.open(protomux.Options{}, nil, map[int]func([]byte) error{numDestroy: func(b []byte) error {
		var m destroyMsg
		if err := read(b, &m); err != nil {
			return err
		}
		if tube := l.tube(m.alias); tube != nil {
			tube.fail(destroyed(m.reason))
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.serve(context.Background(), stream) }()
	t.Cleanup(func() {
		l.end(nil)
		<-served
	})
	return l
}

// A plainStream is one end of a stream in memory that encrypts nothing, for
// what takes long with a race detector.
type plainStream struct {
	in, out    chan []byte
	ended, end chan struct{}
	once       *sync.Once
}

func plainStreams() (a, b *plainStream) {
	x, y, p, q := make(chan []byte, 4), make(chan []byte, 4), make(chan struct{}), make(chan struct{})
	return &plainStream{x, y, p, q, new(sync.Once)}, &plainStream{y, x, q, p, new(sync.Once)}
}

func (s *plainStream) Next() ([]byte, error) {
	select {
	case m := <-s.in:
		return m, nil
	case <-s.end:
	case <-s.ended:
	}
	return nil, io.EOF
}

func (s *plainStream) Queue(m []byte) error {
	select {
	case s.out <- bytes.Clone(m):
		return nil
	case <-s.end:
	case <-s.ended:
	}
	return io.ErrClosedPipe
}

func (s *plainStream) Flush() error { return nil }

func (s *plainStream) Close() error {
	s.once.Do(func() { close(s.end) })
	return nil
}

func tubes(t *testing.T) (a, b *tube) {
	t.Helper()
	x, y := plainStreams()
	l, m := testLine(t, x), testLine(t, y)
	a, err := l.attach(1, 2)
	b, err2 := m.attach(2, 1)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestStreamsAreConnectionsLikeOthers(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) { return tubes(t) })
}

func TestStreamThatIsNotReadHoldsUpOthersForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := streams(t)
		l, m := testLine(t, x), testLine(t, y)
		slow, _ := l.attach(1, 2)
		slowEnd, _ := m.attach(2, 1)
		fast, _ := l.attach(3, 4)
		fastEnd, _ := m.attach(4, 3)
		synctest.Wait() // a stream that begins must not wait for one that writes: time stands still while it does
		wrote := make(chan error, 1)
		go func() {
			_, err := slow.Write(make([]byte, 8<<20))
			wrote <- err
		}()
		synctest.Wait()
		begun := time.Now()
		go fast.Write([]byte("hello"))
		if got, err := fastEnd.next(); err != nil || string(got) != "hello" {
			t.Errorf("the other stream: %q, %v", got, err)
		}
		if d := time.Since(begun); d > stallTime {
			t.Errorf("the other stream waits for %v", d)
		}
		if err := <-wrote; !errors.Is(err, ErrDestroyed) {
			t.Errorf("the writer of the stream: %v", err)
		}
		if slowEnd.size < streamBuffer || slowEnd.size > streamBuffer+chunkSize+chunkOverhead {
			t.Errorf("%d bytes are kept", slowEnd.size)
		}
		if n, err := io.Copy(io.Discard, slowEnd); n < streamBuffer-100*chunkOverhead || !errors.Is(err, ErrStalled) {
			t.Errorf("the reader of the stream: %d bytes, %v", n, err)
		}
		l.end(nil)
		m.end(nil)
	})
}

func TestStreamsOfALineEndWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := tubes(t)
		a.line.end(errors.New("enough"))
		for _, end := range []*tube{a, b} {
			if _, err := end.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
				t.Errorf("read: %v", err)
			}
			if _, err := end.Write([]byte{1}); !errors.Is(err, ErrClosed) {
				t.Errorf("write: %v", err)
			}
		}
		if _, err := a.line.attach(9, 9); !errors.Is(err, ErrClosed) {
			t.Errorf("a stream more: %v", err)
		}
	})
}

// A line on which nothing is heard any more ends, and one that is idle doesn't.
func TestSilentLineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := tubes(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		if a.line.mux.Err() != nil || b.line.mux.Err() != nil {
			t.Fatal("an idle line ends")
		}
		x, y := streams(t)
		l := testLine(t, x)
		tube, err := l.attach(1, 2)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		go func() { // it takes what comes and says nothing
			for {
				if _, err := y.Next(); err != nil {
					return
				}
			}
		}()
		if _, err := tube.Read(make([]byte, 1)); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
		if d := time.Since(begun); d < silence || d > silence+heartbeat {
			t.Errorf("it ends after %v", d)
		}
		y.Close()
	})
}

// A side that says much and reads nothing holds the other for a while only.
func TestLineThatIsNotReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := streams(t)
		l := testLine(t, x)
		tube, err := l.attach(1, 2)
		if err != nil {
			t.Fatal(err)
		}
		mux := protomux.New(protomux.Options{})
		c, err := mux.Open(protomux.ChannelOptions{Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		var frames protomux.Frames
		synctest.Wait()
		begun := time.Now()
		var saying sync.WaitGroup
		saying.Go(func() {
			for ; c.Send(numPing) == nil; time.Sleep(time.Second) {
				mux.Take(&frames)
				for frame := range frames.All() {
					if y.WriteMessage(frame) != nil {
						return
					}
				}
			}
		})
		for err == nil {
			_, err = tube.Write(make([]byte, chunkSize))
		}
		if !errors.Is(err, ErrTimeout) && !errors.Is(err, protomux.ErrClosed) {
			t.Error(err)
		}
		if d := time.Since(begun); d < busyTime || d > busyTime+2*heartbeat {
			t.Errorf("it ends after %v", d)
		}
		y.Close()
		saying.Wait()
	})
}

func TestChunksKeepTheirBorders(t *testing.T) {
	a, b := tubes(t)
	for _, size := range []int{0, 1, chunkSize, chunkSize + 1, 1 << 20} {
		if err := a.writeChunk(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if got, err := b.next(); err != nil || len(got) != size {
			t.Errorf("a chunk of %d bytes comes as %d, %v", size, len(got), err)
		}
	}
	a.CloseWrite()
	if _, err := b.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
