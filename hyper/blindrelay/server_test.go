package blindrelay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A lab has wires that carry nothing.
type lab struct {
	t  *testing.T
	mu sync.Mutex
	// Guarded by mu.
	next  uint32
	wires []*fakeWire
	fail  error
}

type fakeWire struct {
	lab    *lab
	remote [2]uint32
	own    [2]uint32
	meters [2]*meter
	closed func()
	gone   bool // guarded by lab.mu
}

func (l *lab) join(peers [2]peer, closed func()) (wire, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.next += 2
	w := &fakeWire{lab: l, own: [2]uint32{l.next, l.next + 1}, closed: closed}
	for i, p := range peers {
		w.remote[i], w.meters[i] = p.id, p.meter
	}
	l.wires = append(l.wires, w)
	return w, nil
}

func (w *fakeWire) ids() [2]uint32 { return w.own }

func (w *fakeWire) close() {
	w.lab.mu.Lock()
	w.gone = true
	w.lab.mu.Unlock()
	w.closed()
}

func (l *lab) open() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wires {
		if !w.gone {
			n++
		}
	}
	return n
}

func keys(b byte) noise.KeyPair { return noise.NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32))) }

// connect makes a connection of that client to the server, and returns its
// end. What Serve returns comes over served.
func connect(t *testing.T, s *Server, b byte) (conn *secretstream.Stream, served chan error) {
	t.Helper()
	x, y := transport.Pipe()
	served = make(chan error, 1)
	go func() {
		stream, err := secretstream.Server(t.Context(), y, secretstream.Options{KeyPair: keys(99)})
		if err == nil {
			err = s.Serve(t.Context(), stream)
		}
		served <- err
	}()
	conn, err := secretstream.Client(t.Context(), x, secretstream.Options{KeyPair: keys(b)})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // the server knows of it before the next comes
	return conn, served
}

func client(t *testing.T, s *Server, b byte) (*Client, chan error) {
	t.Helper()
	conn, served := connect(t, s, b)
	c, err := NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	return c, served
}

// inBubble runs f with a server. When it returns everything must end.
func inBubble(t *testing.T, o Options, f func(t *testing.T, s *Server, l *lab)) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, next: 100}
		s := newServer(l.join, o)
		f(t, s, l)
		s.Close()
		synctest.Wait()
		if n := l.open(); n != 0 {
			t.Errorf("%d wires are left", n)
		}
		if st := s.Stats(); st.Sessions+st.Pairings+st.Links != 0 {
			t.Errorf("what is left: %+v", st)
		}
	})
}

type answer struct {
	id  uint32
	err error
}

func ask(t *testing.T, c *Client, initiator bool, token Token, id uint32) chan answer {
	got := make(chan answer, 1)
	go func() {
		id, err := c.Pair(t.Context(), initiator, token, id)
		got <- answer{id, err}
	}()
	synctest.Wait()
	return got
}

func TestRelayJoinsTwoClients(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		a, servedA := client(t, s, 1)
		b, servedB := client(t, s, 2)
		first := ask(t, a, true, Token{1}, 7)
		if st := s.Stats(); st.Sessions != 2 || st.Pairings != 1 || st.Links != 0 {
			t.Errorf("with one side there are %+v", st)
		}
		second := ask(t, b, false, Token{1}, 8)
		x, y := <-first, <-second
		if x.err != nil || y.err != nil || len(l.wires) != 1 {
			t.Fatalf("%v, %v, %d wires", x.err, y.err, len(l.wires))
		}
		w := l.wires[0]
		if w.remote != [2]uint32{8, 7} || w.own != [2]uint32{y.id, x.id} {
			t.Errorf("the wire goes to the streams %v and is %v; the clients got %d and %d", w.remote, w.own, x.id, y.id)
		}
		w.meters[1].pass(100)
		w.meters[1].pass(100)
		w.meters[0].pass(50)
		for _, st := range s.Sessions() {
			if want := map[noise.Key]uint64{keys(1).Public: 200, keys(2).Public: 50}[st.Key]; st.Bytes != want || st.Links != 1 {
				t.Errorf("%s: %+v", st.Key, st)
			}
		}
		if st := s.Stats(); st.Bytes != 250 || st.Packets != 3 || st.Links != 1 || st.Matched != 1 || st.Requested != 2 {
			t.Errorf("in all %+v", st)
		}
		a.Close()
		synctest.Wait()
		if st := s.Stats(); l.open() != 0 || st.Links != 0 || st.Sessions != 1 {
			t.Errorf("with one side gone there are %d wires and %+v", l.open(), st)
		}
		b.Close()
		for _, served := range []chan error{servedA, servedB} {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestUnpairTakesBack(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		a, _ := client(t, s, 1)
		b, _ := client(t, s, 2)
		defer a.Close()
		defer b.Close()
		first := ask(t, a, true, Token{1}, 7)
		if err := a.Unpair(Token{1}); err != nil {
			t.Fatal(err)
		}
		if got := <-first; !errors.Is(got.err, ErrCancelled) {
			t.Errorf("taken back: %v", got.err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Pair(ctx, true, Token{1}, 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with nobody there: %v", err)
		}
		synctest.Wait()
		if st := s.Stats(); st.Pairings != 0 || st.Cancelled != 2 {
			t.Errorf("after two were taken back there are %+v", st)
		}
		first, second := ask(t, a, true, Token{1}, 7), ask(t, b, false, Token{1}, 8)
		if x, y := <-first, <-second; x.err != nil || y.err != nil || l.open() != 1 {
			t.Fatalf("the token serves no more: %v, %v", x.err, y.err)
		}
		b.Unpair(Token{1})
		synctest.Wait()
		if l.open() != 0 || s.Stats().Links != 0 {
			t.Error("the streams outlive what joined them")
		}
	})
}

func TestStreamsThatEndByThemselvesAreForgotten(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		a, _ := client(t, s, 1)
		defer a.Close()
		for round := range 3 {
			x, y := ask(t, a, true, Token{1}, 7), ask(t, a, false, Token{2}, 8)
			b, _ := client(t, s, 2)
			z := ask(t, b, false, Token{1}, 9)
			if x, z := <-x, <-z; x.err != nil || z.err != nil {
				t.Fatal(x.err, z.err)
			}
			l.wires[len(l.wires)-1].close()
			if st := s.Stats(); st.Links != 0 || l.open() != 0 {
				t.Fatalf("round %d: there are %+v", round, st)
			}
			a.Unpair(Token{2})
			if y := <-y; !errors.Is(y.err, ErrCancelled) {
				t.Error(y.err)
			}
			b.Close()
		}
	})
}

func TestRefusals(t *testing.T) {
	small := Limits{Sessions: 3, SessionsPerKey: 2, Pairings: 3, PairingsPerSession: 2, Links: 2, LinksPerSession: 1, TokenLife: time.Minute}
	inBubble(t, Options{Limits: small, Allow: func(k noise.Key) bool { return k != keys(9).Public }}, func(t *testing.T, s *Server, l *lab) {
		refused := func(what string, got chan answer) {
			t.Helper()
			if a := <-got; !errors.Is(a.err, ErrRefused) && !errors.Is(a.err, ErrClosed) {
				t.Errorf("%s: %v", what, a.err)
			}
		}
		stranger, served := client(t, s, 9)
		if err := <-served; !errors.Is(err, ErrRefused) {
			t.Errorf("a key that isn't allowed: %v", err)
		}
		refused("a key that isn't allowed", ask(t, stranger, true, Token{9}, 1))
		stranger.Close()

		a, _ := client(t, s, 1)
		b, _ := client(t, s, 1)
		c, served := client(t, s, 1)
		if err := <-served; !errors.Is(err, ErrRefused) {
			t.Errorf("a third connection of one key: %v", err)
		}
		c.Close()
		c, _ = client(t, s, 2)
		d, served := client(t, s, 3)
		if err := <-served; !errors.Is(err, ErrRefused) {
			t.Errorf("a client too many: %v", err)
		}
		d.Close()

		one, two := ask(t, a, true, Token{1}, 1), ask(t, a, true, Token{2}, 2)
		refused("a third token of one client", ask(t, a, true, Token{3}, 3))
		three := ask(t, b, true, Token{4}, 4)
		refused("a fourth token in all", ask(t, c, true, Token{5}, 5))
		synctest.Wait()

		// The refusal has closed the channel of c, as it had nothing else. It may
		// come again.
		if _, err := c.Pair(t.Context(), true, Token{6}, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("a client that was refused: %v", err)
		}
		c.Close()
		synctest.Wait()
		c, _ = client(t, s, 2)
		second := ask(t, c, false, Token{1}, 6)
		if x, y := <-one, <-second; x.err != nil || y.err != nil {
			t.Fatal(x.err, y.err)
		}
		refused("a second link of one client", ask(t, c, false, Token{4}, 7))
		refused("the same of the other", ask(t, b, false, Token{2}, 7))

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		refused("a token that nobody comes for", two)
		refused("another", three)
		if st := s.Stats(); st.Pairings != 0 || st.Expired != 2 || st.Refused < 4 || st.Links != 1 {
			t.Errorf("at the end there are %+v", st)
		}
		a.Close()
		b.Close()
		c.Close()
	})
}

func TestStreamsThatCannotBeMadeAreARefusal(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		l.fail = errors.New("out of streams")
		a, _ := client(t, s, 1)
		b, _ := client(t, s, 2)
		defer a.Close()
		defer b.Close()
		x, y := ask(t, a, true, Token{1}, 7), ask(t, b, false, Token{1}, 8)
		for _, got := range []chan answer{x, y} {
			if a := <-got; !errors.Is(a.err, ErrRefused) {
				t.Error(a.err)
			}
		}
	})
}

// A client that speaks nonsense loses its own connection and nothing else.
func TestHostileClientHurtsItselfOnly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		a, _ := client(t, s, 1)
		defer a.Close()
		waiting := ask(t, a, true, Token{1}, 7)
		for name, do := range map[string]func(mux *protomux.Mux, id []byte){
			"half a message": func(mux *protomux.Mux, id []byte) {
				c, _ := mux.Open(protomux.ChannelOptions{Protocol: protocol, ID: id})
				c.Send(messagePair, []byte{1, 2, 3})
			},
			"half a token": func(mux *protomux.Mux, id []byte) {
				c, _ := mux.Open(protomux.ChannelOptions{Protocol: protocol, ID: id})
				c.Send(messageUnpair, []byte{0, 2, 3})
			},
		} {
			conn, served := connect(t, s, 5)
			mux := protomux.New(protomux.Options{})
			id := keys(5).Public
			do(mux, id[:])
			go mux.Serve(t.Context(), conn)
			if err := <-served; err == nil {
				t.Errorf("%s: the server goes on", name)
			}
		}
		// The channel of another key isn't opened.
		conn, _ := connect(t, s, 5)
		mux := protomux.New(protomux.Options{})
		id := keys(1).Public
		closed := make(chan error, 1)
		mux.Open(protomux.ChannelOptions{Protocol: protocol, ID: id[:], OnClose: func(_ *protomux.Channel, err error) { closed <- err }})
		go mux.Serve(t.Context(), conn)
		if err := <-closed; !errors.Is(err, protomux.ErrRejected) {
			t.Errorf("the channel of another key: %v", err)
		}
		mux.Close()
		b, _ := client(t, s, 2)
		defer b.Close()
		second := ask(t, b, false, Token{1}, 8)
		if x, y := <-waiting, <-second; x.err != nil || y.err != nil {
			t.Errorf("%v, %v", x.err, y.err)
		}
	})
}

// A relay that speaks nonsense, or that goes, ends what waits for it.
func TestClientOfAHostileRelayGetsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, payload := range map[string][]byte{"half a message": {1, 2}, "nothing": nil} {
			x, y := transport.Pipe()
			go func() {
				stream, err := secretstream.Server(t.Context(), y, secretstream.Options{KeyPair: keys(99)})
				if err != nil {
					return
				}
				mux := protomux.New(protomux.Options{})
				id := stream.RemoteKey()
				c, _ := mux.Open(protomux.ChannelOptions{Protocol: protocol, ID: id[:]})
				if payload == nil {
					c.Close()
				} else {
					c.Send(messagePair, payload)
				}
				mux.Serve(t.Context(), stream)
			}()
			conn, err := secretstream.Client(t.Context(), x, secretstream.Options{KeyPair: keys(1)})
			if err != nil {
				t.Fatal(err)
			}
			c, err := NewClient(conn)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Pair(t.Context(), true, Token{1}, 1); !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
		}
	})
}

// Answers that were not asked for are ignored, as they are by the reference.
func TestClientIgnoresAnswersForOthers(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		a, _ := client(t, s, 1)
		defer a.Close()
		waiting := ask(t, a, true, Token{1}, 7)
		a.onPair(nil, pairMessage{false, Token{1}, 5}.append(nil))
		a.onPair(nil, pairMessage{true, Token{2}, 5}.append(nil))
		a.onUnpair(nil, appendUnpair(nil, Token{2}))
		if _, err := a.Pair(t.Context(), true, Token{1}, 7); !errors.Is(err, ErrPairing) {
			t.Errorf("a token twice: %v", err)
		}
		a.onPair(nil, pairMessage{true, Token{1}, 5}.append(nil))
		if got := <-waiting; got != (answer{5, nil}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestManyClientsAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, l *lab) {
		const pairs = 40
		var all sync.WaitGroup
		for i := range pairs {
			for side := range 2 {
				c, _ := client(t, s, byte(1+2*i+side))
				all.Go(func() {
					defer c.Close()
					for round := range 5 {
						token := Token{byte(i), byte(round)}
						if _, err := c.Pair(t.Context(), side == 1, token, uint32(i)); err != nil {
							t.Error(fmt.Errorf("pair %d, round %d: %w", i, round, err))
						}
						time.Sleep(time.Second) // both sides have it
						c.Unpair(token)
					}
				})
			}
		}
		all.Wait()
		if st := s.Stats(); st.Matched != 5*pairs {
			t.Errorf("%+v", st)
		}
	})
}

func TestMetersDropWhatIsOverTheRate(t *testing.T) {
	c := clock.NewFake(start)
	all := newMeter(c, 1500, nil)
	a, b := newMeter(c, 1000, all), newMeter(c, 1000, all)
	passed := func(m *meter) (n int) {
		for range 50 {
			if m.pass(100) {
				n++
			}
		}
		return n
	}
	if x, y := passed(a), passed(b); x != 10 || y != 5 {
		t.Errorf("%d and %d packets pass at once, want 10 and 5", x, y)
	}
	c.Advance(500 * time.Millisecond)
	if x, y := passed(b), passed(a); x != 7 && x != 8 || x+y > 9 {
		t.Errorf("after half a second %d and %d", x, y)
	}
	c.Advance(time.Hour)
	if x := passed(a); x != 10 {
		t.Errorf("after an hour %d packets pass at once, want 10", x)
	}
	bytes, packets, dropped := all.counts()
	ab, ap, ad := a.counts()
	bb, bp, bd := b.counts()
	if bytes != ab+bb || packets != ap+bp || dropped != ad+bd || bytes != 100*packets || packets+dropped != 250 {
		t.Errorf("%d bytes, %d packets and %d dropped, want %d, %d and %d", bytes, packets, dropped, ab+bb, ap+bp, ad+bd)
	}
	if free := newMeter(c, 0, nil); passed(free) != 50 {
		t.Error("a meter without a rate drops")
	}
}
