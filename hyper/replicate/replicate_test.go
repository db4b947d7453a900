package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// tube is one end of a stream in memory, whose messages take a while.
type tube struct {
	in, out chan parcel
	queued  [][]byte
	end     chan struct{} // closed when this end is
	peer    chan struct{}
	once    *sync.Once
	delay   time.Duration
}

type parcel struct {
	b  []byte
	at time.Time
}

func tubes(delay time.Duration) (a, b *tube) {
	x, y := make(chan parcel, 1<<16), make(chan parcel, 1<<16)
	a = &tube{in: x, out: y, end: make(chan struct{}), once: new(sync.Once), delay: delay}
	b = &tube{in: y, out: x, end: make(chan struct{}), once: new(sync.Once), delay: delay}
	a.peer, b.peer = b.end, a.end
	return a, b
}

func (s *tube) Next() ([]byte, error) {
	var p parcel
	select {
	case p = <-s.in:
	default:
		select {
		case p = <-s.in:
		case <-s.end:
			return nil, io.ErrClosedPipe
		case <-s.peer:
			select { // what was sent before the end
			case p = <-s.in:
			default:
				return nil, io.EOF
			}
		}
	}
	select {
	case <-time.After(time.Until(p.at)):
		return p.b, nil
	case <-s.end:
		return nil, io.ErrClosedPipe
	}
}

func (s *tube) Queue(p []byte) error {
	s.queued = append(s.queued, bytes.Clone(p))
	return nil
}

func (s *tube) Flush() error {
	for _, p := range s.queued {
		select {
		case s.out <- parcel{p, time.Now().Add(s.delay)}:
		case <-s.end:
			return io.ErrClosedPipe
		case <-s.peer:
			return io.ErrClosedPipe
		}
	}
	s.queued = nil
	return nil
}

func (s *tube) Close() error {
	s.once.Do(func() { close(s.end) })
	return nil
}

// A site is a store with one log and its replicator.
type site struct {
	t       *testing.T
	log     *hypercore.Log
	r       *Replicator
	mu      sync.Mutex
	dropped []PeerInfo
}

func newSite(t *testing.T, key *hypercore.Key, o Options) *site {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t}
	lo := hypercore.Options{Key: key}
	if key == nil {
		kp := hypercore.NewKeyPair([32]byte{1})
		lo.KeyPair = &kp
	}
	if s.log, err = hypercore.Open(store, lo); err != nil {
		t.Fatal(err)
	}
	o.Dropped = func(p PeerInfo) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dropped = append(s.dropped, p)
	}
	if s.r, err = New(s.log, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.r.Close(), s.log.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) append(blocks, size int) {
	s.t.Helper()
	list := make([][]byte, blocks)
	for i := range list {
		list[i] = fmt.Appendf(nil, "%0*d", size, i)
	}
	if _, err := s.log.Append(s.t.Context(), list...); err != nil {
		s.t.Fatal(err)
	}
}

// reasons returns why peers were dropped.
func (s *site) reasons() (out []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.dropped {
		out = append(out, p.Dropped)
	}
	return out
}

// A joint is a connection between two muxes.
type joint struct {
	a, b *Conn
	stop func() // returns when both ends are over
	errs [2]error
}

var handshakes atomic.Uint32

// join connects two muxes; a replicator is asked where the other side opens.
func join(t *testing.T, delay time.Duration, a, b *Replicator) *joint {
	t.Helper()
	j := &joint{}
	x, y := tubes(delay)
	hash := [64]byte{byte(handshakes.Add(1))}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, r := range []*Replicator{a, b} {
		c := &Conn{Mux: protomux.New(protomux.Options{}), HandshakeHash: hash, Initiator: i == 0, Name: fmt.Sprint("peer ", 1-i)}
		stream := x
		if i == 0 {
			j.a = c
		} else {
			j.b, stream = c, y
		}
		if r != nil {
			for _, name := range Protocols {
				c.Mux.Pair(name, nil, func(*protomux.Request) { _ = r.Open(c) }) // who is denied is rejected
			}
		}
		wg.Go(func() {
			j.errs[i] = c.Mux.Serve(ctx, stream)
			if r != nil {
				r.Detach(c)
			}
		})
	}
	j.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(j.stop)
	return j
}

// connect joins two replicators that may have all.
func connect(t *testing.T, delay time.Duration, a, b *Replicator) *joint {
	t.Helper()
	j := join(t, delay, a, b)
	attach(t, a, j.a, Full)
	attach(t, b, j.b, Full)
	return j
}

func attach(t *testing.T, r *Replicator, c *Conn, a Access) {
	t.Helper()
	if err := r.Attach(c, a); err != nil {
		t.Fatal(err)
	}
}

func TestReplicatorsBringALogAcross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		r := newSite(t, &key, Options{})
		w.append(1000, 100)
		connect(t, 10*time.Millisecond, w.r, r.r)
		r.r.SetDownloading(true)
		if err := r.log.Update(t.Context()); err != nil || r.log.Length() != 1000 {
			t.Fatalf("length %d, %v", r.log.Length(), err)
		}
		if b, err := r.log.Get(t.Context(), 7); err != nil || !strings.HasSuffix(string(b), "7") {
			t.Errorf("%q, %v", b, err)
		}
		if err := r.log.Download(t.Context(), hypercore.DownloadRange{}); err != nil || r.log.Contiguous() != 1000 {
			t.Errorf("%d blocks, %v", r.log.Contiguous(), err)
		}
		w.append(1, 10)
		synctest.Wait()
		time.Sleep(time.Second)
		if r.log.Length() != 1001 {
			t.Errorf("length %d after an append", r.log.Length())
		}
		for _, p := range r.r.Peers() {
			if !p.Open || p.Blocks != 1000 || p.Lies+p.Misfits+p.Refused > 0 || p.InFlight > 0 {
				t.Errorf("%+v", p)
			}
		}
		// When nobody needs it any more, the channel is closed and all is still.
		r.r.SetDownloading(false)
		time.Sleep(time.Minute)
		if r.r.Busy() || w.r.Busy() {
			t.Error("a channel that nobody needs stays open")
		}
	})
}

// Close ends what waits, and leaves no goroutine: the bubble would not end.
func TestCloseWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		r := newSite(t, &key, Options{})
		w.append(3000, 1000)
		connect(t, 20*time.Millisecond, w.r, r.r)
		results := make(chan error, 3)
		go func() { results <- r.log.Download(t.Context(), hypercore.DownloadRange{To: 3000}) }()
		go func() { _, err := r.log.Get(t.Context(), 5000); results <- err }()
		go func() { results <- r.log.Download(t.Context(), hypercore.DownloadRange{Live: true}) }()
		for r.log.Contiguous() == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := r.r.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Errorf("a call that waited returns %v", err)
			}
		}
		if n := r.log.Contiguous(); n == 0 || n == 3000 {
			t.Errorf("%d blocks: that is not in the middle", n)
		}
		if err := r.r.Attach(&Conn{Mux: protomux.New(protomux.Options{})}, Full); !errors.Is(err, ErrClosed) {
			t.Errorf("attach after close: %v", err)
		}
	})
}

// A connection that ends in the middle loses nothing: the next one goes on.
func TestDetachInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		r := newSite(t, &key, Options{})
		w.append(3000, 1000)
		j := connect(t, 20*time.Millisecond, w.r, r.r)
		result := make(chan error, 1)
		go func() { result <- r.log.Download(t.Context(), hypercore.DownloadRange{To: 3000}) }()
		for r.log.Contiguous() == 0 {
			time.Sleep(time.Millisecond)
		}
		j.stop()
		synctest.Wait()
		if n := r.log.Contiguous(); n == 3000 {
			t.Fatal("that was not in the middle")
		}
		r.r.mu.Lock()
		if m := &r.r.m; len(m.flights)+m.inflight+len(m.peers) > 0 {
			t.Errorf("%d flights of %d bytes and %d peers are left", len(m.flights), m.inflight, len(m.peers))
		}
		r.r.mu.Unlock()
		connect(t, 20*time.Millisecond, w.r, r.r)
		if err := <-result; err != nil || r.log.Contiguous() != 3000 {
			t.Errorf("%d blocks, %v", r.log.Contiguous(), err)
		}
	})
}

func TestWhoIsDeniedGetsAndGivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		r := newSite(t, &key, Options{})
		w.append(50, 100)
		j := join(t, time.Millisecond, w.r, r.r)
		if err := w.r.Attach(j.a, Access{}); !errors.Is(err, ErrDenied) {
			t.Errorf("attach: %v", err)
		}
		attach(t, r.r, j.b, Full)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.log.Update(ctx); err != nil || r.log.Length() != 0 {
			t.Errorf("denied: length %d, %v", r.log.Length(), err)
		}
		// Who may only give is told of the log, and gets nothing.
		j = join(t, time.Millisecond, w.r, r.r)
		attach(t, w.r, j.a, Access{Download: true})
		attach(t, r.r, j.b, Full)
		if _, err := r.log.Get(ctx, 0); err == nil {
			t.Error("who may only give has got a block")
		}
		for _, p := range w.r.Peers() {
			if p.Up > 0 {
				t.Errorf("%+v", p)
			}
		}
		j.stop()
		// Nothing is asked of who may only get.
		other := newSite(t, &key, Options{})
		j = join(t, time.Millisecond, w.r, other.r)
		attach(t, w.r, j.a, Full)
		attach(t, other.r, j.b, Access{Upload: true})
		other.r.SetDownloading(true)
		time.Sleep(time.Minute)
		if other.log.Length() != 0 {
			t.Error("what a peer that may not give has sent is kept")
		}
		if n := len(w.reasons()) + len(other.reasons()); n > 0 {
			t.Errorf("%d peers are dropped", n)
		}
	})
}

func TestUploadsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 100 << 10
		w := newSite(t, nil, Options{Upload: NewLimit(rate)})
		key := w.log.Key()
		w.append(1000, 1<<10)
		var group sync.WaitGroup
		start := time.Now()
		for range 2 { // they share it
			r := newSite(t, &key, Options{})
			connect(t, time.Millisecond, w.r, r.r)
			group.Go(func() {
				if err := r.log.Download(t.Context(), hypercore.DownloadRange{To: 1000}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if took, want := time.Since(start), 20*time.Second; took < want*9/10 || took > want*13/10 {
			t.Errorf("2000 KiB at 100 KiB a second take %v", took)
		}
	})
}

func TestExtensionMessagesAreCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		r := newSite(t, &key, Options{})
		connect(t, time.Millisecond, w.r, r.r)
		r.r.SetDownloading(true)
		time.Sleep(time.Second)
		var mu sync.Mutex
		var got []string
		note := func(who string) func(Message) {
			return func(m Message) {
				mu.Lock()
				got = append(got, fmt.Sprintf("%s from %s: %s", who, m.From.Name, m.Payload))
				mu.Unlock()
				if strings.HasSuffix(string(m.Payload), "?") {
					if err := m.Reply([]byte("yes")); err != nil {
						t.Error(err)
					}
				}
			}
		}
		for name, s := range map[string]*site{"w": w, "r": r} {
			if err := s.r.Extension("ask", note(name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range [][2]string{{"ask", "there?"}, {"unknown", "x"}, {"ask", "1"}, {"ask", "2"}} {
			if n, err := r.r.Broadcast(m[0], []byte(m[1])); n != 1 || err != nil {
				t.Errorf("broadcast to %d: %v", n, err)
			}
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		want := "w from peer 1: there?; w from peer 1: 1; r from peer 0: yes; w from peer 1: 2"
		if s := strings.Join(got, "; "); len(got) != 4 || !strings.Contains(s, "w from peer 1: 1; ") || !strings.Contains(s, "r from peer 0: yes") || len(s) != len(want) {
			t.Errorf("got %s", s)
		}
		if err := w.r.Extension("", nil); err == nil {
			t.Error("an extension without a name")
		}
	})
}

// A rogue is a peer that is the test.
type rogue struct {
	*joint
	t  *testing.T
	r  *Replicator
	ch *protomux.Channel
	o  protomux.ChannelOptions

	mu       sync.Mutex
	got      []message
	opened   bool
	reason   error
	isClosed bool
}

func newRogue(t *testing.T, s *site, capability [32]byte) *rogue {
	t.Helper()
	x := &rogue{t: t, r: s.r, joint: join(t, time.Millisecond, s.r, nil)}
	attach(t, s.r, x.a, Full)
	if capability == ([32]byte{}) {
		capability = s.log.Key().Capability(false, x.b.HandshakeHash[:])
	}
	id := s.log.Discovery()
	h := handshake{seeks: true, capability: capability}
	x.o = protomux.ChannelOptions{Protocol: protocol, ID: id[:], Handshake: h.encode()}
	x.o.OnOpen = func(*protomux.Channel, []byte) error {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.opened = true
		return nil
	}
	x.o.OnClose = func(_ *protomux.Channel, reason error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.isClosed, x.reason = true, reason
	}
	for number := range messages {
		x.o.Messages = append(x.o.Messages, func(_ *protomux.Channel, b []byte) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.got = append(x.got, message{number, bytes.Clone(b)})
			return nil
		})
	}
	return x
}

func (x *rogue) open() {
	x.t.Helper()
	x.mu.Lock()
	x.opened, x.isClosed = false, false
	x.mu.Unlock()
	ch, err := x.b.Mux.Open(x.o)
	if err != nil {
		x.t.Fatal(err)
	}
	x.ch = ch
	time.Sleep(100 * time.Millisecond)
}

func (x *rogue) send(number int, b []byte) {
	x.t.Helper()
	if err := x.ch.Send(number, b); err != nil {
		x.t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
}

func (x *rogue) state() (opened, closed bool, messages int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.opened, x.isClosed, len(x.got)
}

// Who knows only the discovery key of a log learns nothing of it.
func TestWhoDoesNotHaveTheKeyLearnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		w.append(10, 10)
		x := newRogue(t, w, [32]byte{1})
		x.open()
		time.Sleep(time.Second)
		if _, closed, n := x.state(); !closed || n > 0 {
			t.Errorf("closed %v, %d messages", closed, n)
		}
		if err := x.a.Mux.Err(); !errors.Is(err, ErrPeer) {
			t.Errorf("the connection ended with %v", err)
		}
	})
}

// Who was dropped is not let in again by the same connection.
func TestWhoWasDroppedStaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		key := w.log.Key()
		w.append(10, 10)
		r := newSite(t, &key, Options{})
		r.r.SetDownloading(true)
		x := newRogue(t, r, [32]byte{})
		x.open()
		x.send(msgSync, (&syncMessage{length: 10, uploading: true, canUpgrade: true}).append(nil))
		x.send(msgRange, appendRange(nil, false, runs.Range{End: 10}))
		time.Sleep(time.Minute) // it does not answer
		if _, closed, _ := x.state(); !closed {
			t.Fatal("it is not dropped")
		}
		if reasons := r.reasons(); len(reasons) != 1 || !errors.Is(reasons[0], ErrPeer) {
			t.Errorf("dropped for %v", reasons)
		}
		peers := r.r.Peers()
		if len(peers) != 1 || !errors.Is(peers[0].Dropped, ErrPeer) {
			t.Errorf("%+v", peers)
		}
		_, _, before := x.state()
		x.open()
		if opened, closed, n := x.state(); opened || !closed || n != before {
			t.Errorf("opened again: %v, closed %v", opened, closed)
		}
		// Others are welcome.
		connect(t, time.Millisecond, w.r, r.r)
		if _, err := r.log.Get(t.Context(), 3); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsOverTheLimitsEndsTheConnection(t *testing.T) {
	for what, m := range map[string]message{
		"a bitfield": {msgBitfield, appendBitfield(nil, 0, make([]uint32, maxBitfieldWords+1))},
		"a cut":      {msgRequest, []byte{1}},
		"a name":     {msgExtension, appendExtension(nil, strings.Repeat("x", maxExtensionName+1), nil)},
		"a block":    {msgData, append([]byte{1, 1, 0, 0, 0xfe, 0, 0, 0, 0xff}, make([]byte, 100)...)},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSite(t, nil, Options{})
				w.append(10, 10)
				x := newRogue(t, w, [32]byte{})
				x.open()
				if opened, _, n := x.state(); !opened || n == 0 {
					t.Fatalf("opened %v, %d messages", opened, n)
				}
				x.send(m.number, m.payload)
				time.Sleep(time.Second)
				if _, closed, _ := x.state(); !closed || x.a.Mux.Err() == nil {
					t.Error("the connection goes on")
				}
			})
		})
	}
}

// A peer that asks and does not read makes us keep little.
func TestAPeerThatDoesNotReadIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSite(t, nil, Options{})
		w.append(100, 100<<10)
		x, y := tubes(0)
		x.out = make(chan parcel) // nobody takes anything
		hash := [64]byte{1}
		c := &Conn{Mux: protomux.New(protomux.Options{}), HandshakeHash: hash, Initiator: true, Name: "deaf"}
		c.Mux.Pair(protocol, nil, func(*protomux.Request) { _ = w.r.Open(c) })
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- c.Mux.Serve(ctx, x) }()
		attach(t, w.r, c, Full)
		other := protomux.New(protomux.Options{})
		id := w.log.Discovery()
		h := handshake{capability: w.log.Key().Capability(false, hash[:])}
		ch, err := other.Open(protomux.ChannelOptions{Protocol: protocol, ID: id[:], Handshake: h.encode()})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(4000) {
			r := requestMessage{id: i + 1, want: merkle.Request{Block: &merkle.NodeRequest{Index: i % 100}}}
			if err := ch.Send(msgRequest, r.append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		var frames protomux.Frames
		for other.Take(&frames) {
			for f := range frames.All() {
				y.out <- parcel{bytes.Clone(f), time.Now()}
			}
		}
		time.Sleep(time.Minute)
		for _, p := range w.r.Peers() {
			if p.Up > 4<<20 || p.Queued < 3000 {
				t.Errorf("%d bytes are answered, %d requests wait", p.Up, p.Queued)
			}
		}
		cancel()
		<-done
		w.r.Detach(c)
	})
}
