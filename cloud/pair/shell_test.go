package pair

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

func TestManInTheMiddleIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{})
		a, ma := transport.Pipe()
		mb, b := transport.Pipe()
		client, toClient, err1 := streams(t, a, ma)
		toServer, server, err2 := streams(t, mb, b)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		// The one in the middle passes on every message of the channel.
		left, right := protomux.New(protomux.Options{}), protomux.New(protomux.Options{})
		var toLeft, toRight *protomux.Channel
		passed := 0
		pass := func(to **protomux.Channel) (out []func(*protomux.Channel, []byte) error) {
			for number := range messages {
				out = append(out, func(_ *protomux.Channel, p []byte) error { passed++; return (*to).Send(number, p) })
			}
			return out
		}
		toLeft, err1 = left.Open(protomux.ChannelOptions{Protocol: Protocol, Messages: pass(&toRight)})
		toRight, err2 = right.Open(protomux.ChannelOptions{Protocol: Protocol, Messages: pass(&toLeft)})
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() { left.Serve(t.Context(), toClient) })
		all.Go(func() { right.Serve(t.Context(), toServer) })
		all.Go(func() { v.Serve(t.Context(), server) })
		j := newJoiner(t, JoinOptions{Code: v.Code()})
		if _, err := j.Join(t.Context(), client); !errors.Is(err, ErrWords) {
			t.Errorf("joined through somebody: %v", err)
		}
		right.Destroy(nil)
		all.Wait()
		if passed < 4 || h.admits.Load() != 0 || v.TriesLeft() != Tries-1 || j.tries != Tries-1 {
			t.Errorf("%d messages passed, %d admitted, %d and %d tries left", passed, h.admits.Load(), v.TriesLeft(), j.tries)
		}
		time.Sleep(pause)
		if _, err := meet(t, v, j); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Two who know the words come at once: one is let in, and the other hears why not.
func TestOneOfTwoIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		answer := make(chan bool)
		v := h.invite(InviteOptions{Admit: func(ctx context.Context, r Request) (Admission, error) {
			<-answer
			return h.admit(ctx, r)
		}})
		errs := make([]error, 3)
		var all sync.WaitGroup
		for i := range errs {
			j := newJoiner(t, JoinOptions{Code: v.Code(), Device: identity.Seed{3, byte(i)}.KeyPair()})
			all.Go(func() { _, errs[i] = meet(t, v, j) })
		}
		synctest.Wait()
		time.Sleep(5 * patience) // a person takes time
		close(answer)
		all.Wait()
		joined := 0
		for _, err := range errs {
			if err == nil {
				joined++
			} else if !errors.Is(err, ErrUsed) {
				t.Error(err)
			}
		}
		if joined != 1 || h.admits.Load() != 1 || v.TriesLeft() != Tries {
			t.Errorf("%d joined, %d admitted, %d tries left", joined, h.admits.Load(), v.TriesLeft())
		}
		if _, err := v.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A device that comes again while a person is asked is answered where it is now.
func TestDeviceComesBackWhileAPersonIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		answer := make(chan bool)
		v := h.invite(InviteOptions{Admit: func(ctx context.Context, r Request) (Admission, error) {
			<-answer
			return h.admit(ctx, r)
		}})
		errs := make([]error, 3)
		var all sync.WaitGroup
		for i := range errs {
			j := newJoiner(t, JoinOptions{Code: v.Code()})
			all.Go(func() { _, errs[i] = meet(t, v, j) })
			synctest.Wait()
		}
		if len(v.attempts) != 1 {
			t.Errorf("%d attempts are kept", len(v.attempts))
		}
		close(answer)
		all.Wait()
		if !errors.Is(errs[0], ErrBusy) || !errors.Is(errs[1], ErrBusy) || errs[2] != nil {
			t.Errorf("they ended with %v", errs)
		}
	})
}

// A cut ends a connection once so many bytes were written, of both sides together.
type cut struct {
	transport.Conn
	other transport.Conn
	state *cutState
}

type cutState struct {
	mu   sync.Mutex
	left int
	sent int
}

func (c cut) Write(p []byte) (int, error) {
	c.state.mu.Lock()
	n := min(len(p), c.state.left)
	c.state.left -= n
	c.state.sent += n
	c.state.mu.Unlock()
	n, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		c.Conn.Close()
		c.other.Close()
		err = io.ErrClosedPipe
	}
	return n, err
}

// Wherever the connection breaks, the device comes back and is let in, once, with
// the same certificate.
func TestBrokenConnectionsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const whole = 1 << 20
		total := whole
		step := 53
		if os.Getenv("BEVY_LONG") != "" {
			step = 1
		}
		at := map[int]int{} // joined at once or not
		for after := whole; after >= 0; after -= step {
			h := newHome(t)
			v := h.invite(InviteOptions{})
			kept := 0
			var first, second Admission
			j := newJoiner(t, JoinOptions{Code: v.Code(), Keep: func(Admission) error { kept++; return nil }})
			a, b := transport.Pipe()
			state := &cutState{left: after}
			client, server, err := streams(t, cut{a, b, state}, cut{b, a, state})
			if err == nil {
				var serving sync.WaitGroup
				serving.Go(func() { v.Serve(t.Context(), server) })
				first, err = j.Join(t.Context(), client)
				serving.Wait()
			}
			at[min(1, kept)]++
			if after == whole {
				if err != nil {
					t.Fatal(err)
				}
				total = state.sent
				after = total + total%step
				continue
			}
			if (err == nil) != (kept == 1) || kept > 1 {
				t.Fatalf("cut after %d bytes: %v, and kept %d times", after, err, kept)
			}
			// Another device does not get in because the first one had bad luck.
			started := h.admits.Load()
			if started > 0 {
				other := newJoiner(t, JoinOptions{Code: v.Code(), Device: identity.Seed{4}.KeyPair()})
				if _, err := meet(t, v, other); !errors.Is(err, ErrUsed) {
					t.Fatalf("cut after %d bytes: another device: %v", after, err)
				}
			}
			second, again := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()}))
			switch {
			case again == nil:
				if err == nil && !bytes.Equal(first.append(nil), second.append(nil)) {
					t.Fatalf("cut after %d bytes: let in twice, in two ways", after)
				}
			case err != nil || !errors.Is(again, ErrUsed):
				t.Fatalf("cut after %d bytes: %v, then %v", after, err, again)
			}
			if r, err := v.Wait(t.Context()); err != nil || r.Name != "laptop" || h.admits.Load() != 1 {
				t.Fatalf("cut after %d bytes: ended with %v, %v, %d admitted", after, r, err, h.admits.Load())
			}
		}
		if at[0] < 15 || at[1] < 1 || total < 1000 {
			t.Errorf("of %d bytes: %v", total, at)
		}
	})
}

func TestCodeEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{})
		if got := time.Until(v.Expires()); got != Lifetime {
			t.Errorf("it lives for %s", got)
		}
		time.Sleep(Lifetime - time.Millisecond)
		idle, server := pipe(t)
		var serving sync.WaitGroup
		serving.Go(func() { v.Serve(t.Context(), server) })
		synctest.Wait()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if _, err := v.Wait(t.Context()); !errors.Is(err, ErrExpired) {
			t.Errorf("it ended with %v", err)
		}
		// Over a connection that was there before, too.
		if _, err := newJoiner(t, JoinOptions{Code: v.Code()}).Join(t.Context(), idle); !errors.Is(err, ErrExpired) {
			t.Errorf("joined afterwards: %v", err)
		}
		serving.Wait()
	})
}

// pipe returns the streams of a new connection.
func pipe(t *testing.T) (client, server *secretstream.Stream) {
	t.Helper()
	a, b := transport.Pipe()
	client, server, err := streams(t, a, b)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestClosedInvitationRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		var asked context.Context
		v := h.invite(InviteOptions{Admit: func(ctx context.Context, _ Request) (Admission, error) {
			asked = ctx
			<-ctx.Done()
			return Admission{}, ctx.Err()
		}})
		var err error
		var all sync.WaitGroup
		all.Go(func() { _, err = meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})) })
		synctest.Wait()
		if asked == nil {
			t.Fatal("Admit was not called")
		}
		v.Close()
		all.Wait()
		if err == nil {
			t.Error("joined")
		}
		if _, err := v.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
		if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); err == nil {
			t.Error("joined afterwards")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.invite(InviteOptions{}).Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("waited until %v", err)
		}
	})
}

func TestPersonSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		no := errors.New("I don't know this laptop")
		for name, admit := range map[string]func(context.Context, Request) (Admission, error){
			"no":                  func(context.Context, Request) (Admission, error) { return Admission{}, no },
			"nothing":             func(context.Context, Request) (Admission, error) { return Admission{}, nil },
			"another certificate": func(context.Context, Request) (Admission, error) { return Admission{Chain: h.chain}, nil },
			"too much": func(_ context.Context, r Request) (Admission, error) {
				a, _ := h.admit(t.Context(), r)
				a.Payload = make([]byte, MaxPayload+1)
				return a, nil
			},
		} {
			v := h.invite(InviteOptions{Admit: admit})
			if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); !errors.Is(err, ErrDeclined) {
				t.Errorf("%s: joined: %v", name, err)
			}
			if _, err := v.Wait(t.Context()); !errors.Is(err, ErrDeclined) || name == "no" && !errors.Is(err, no) {
				t.Errorf("%s: it ended with %v", name, err)
			}
			if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); !errors.Is(err, ErrDeclined) {
				t.Errorf("%s: joined afterwards: %v", name, err)
			}
		}
		v := h.invite(InviteOptions{Admit: func(_ context.Context, r Request) (Admission, error) {
			a, err := h.admit(t.Context(), r)
			a.Payload = bytes.Repeat([]byte{1}, MaxPayload)
			return a, err
		}})
		if a, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); err != nil || len(a.Payload) != MaxPayload {
			t.Errorf("with as much as there may be: %v", err)
		}
	})
}

// A joiner that can't keep what it got says so to nobody, and may come back.
func TestWhatIsNotKeptIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{})
		full := errors.New("no space left on device")
		j := newJoiner(t, JoinOptions{Code: v.Code(), Keep: func(Admission) error { err := full; full = nil; return err }})
		if _, err := meet(t, v, j); err == nil || errors.Is(err, ErrProtocol) {
			t.Errorf("joined, and it was not kept: %v", err)
		}
		if a, err := meet(t, v, j); err != nil || len(a.Chain) != 2 || h.admits.Load() != 1 {
			t.Errorf("again: %v, %d admitted", err, h.admits.Load())
		}
		if _, err := v.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Connections that begin and never go on don't keep others out, and end.
func TestStallersDoNotKeepOthersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{})
		var all sync.WaitGroup
		closed := 0
		var mu sync.Mutex
		for range 3 * maxAttempts {
			client, server := pipe(t)
			all.Go(func() { v.Serve(t.Context(), server) })
			mux := protomux.New(protomux.Options{})
			c, err := mux.Open(protomux.ChannelOptions{
				Protocol: Protocol,
				OnClose: func(*protomux.Channel, error) {
					mu.Lock()
					closed++
					mu.Unlock()
					// A second attempt on the same connection is not looked at.
					again, err := mux.Open(protomux.ChannelOptions{Protocol: Protocol, OnClose: func(_ *protomux.Channel, reason error) {
						if !errors.Is(reason, protomux.ErrRejected) {
							t.Errorf("a second attempt ended with %v", reason)
						}
						mux.Close()
					}})
					if err != nil || again == nil {
						t.Errorf("a second attempt: %v", err)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(v.attempts)%2 == 0 {
				c.Send(messageHello, appendHello(newRun(t, v.Code(), v.Code(), linkOf(1), linkOf(1)).joining.exchange.share))
			}
			all.Go(func() { mux.Serve(t.Context(), client) })
			synctest.Wait()
		}
		if closed != 2*maxAttempts || len(v.attempts) != maxAttempts {
			t.Errorf("%d were ended, %d are left", closed, len(v.attempts))
		}
		if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); err != nil {
			t.Error(err)
		}
		all.Wait()
		if v.TriesLeft() != Tries {
			t.Errorf("%d tries left", v.TriesLeft())
		}

		w := h.invite(InviteOptions{})
		client, server := pipe(t)
		all.Go(func() { w.Serve(t.Context(), server) })
		mux := protomux.New(protomux.Options{})
		began := time.Now()
		var took time.Duration
		if _, err := mux.Open(protomux.ChannelOptions{Protocol: Protocol, OnClose: func(*protomux.Channel, error) { took = time.Since(began); mux.Close() }}); err != nil {
			t.Fatal(err)
		}
		mux.Serve(t.Context(), client)
		all.Wait()
		if took != patience {
			t.Errorf("one that says nothing was ended after %s", took)
		}
	})
}

// liar serves a stream with a channel that answers as it likes.
func liar(t *testing.T, stream *secretstream.Stream, answer func(c *protomux.Channel, number int, payload []byte)) {
	mux := protomux.New(protomux.Options{})
	var handlers []func(*protomux.Channel, []byte) error
	for number := range messages {
		handlers = append(handlers, func(c *protomux.Channel, p []byte) error { answer(c, number, p); return nil })
	}
	if _, err := mux.Open(protomux.ChannelOptions{Protocol: Protocol, Messages: handlers}); err != nil {
		t.Error(err)
	}
	mux.Serve(t.Context(), stream)
}

// A stranger who shows up at the meeting place has the joiner show its proof, and
// may so try one guess each time: not more than a few.
func TestJoinerCountsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoiner(t, JoinOptions{Code: code(t, frog)})
		with := func(answer func(c *protomux.Channel, number int, payload []byte)) error {
			client, server := pipe(t)
			var all sync.WaitGroup
			all.Go(func() { liar(t, server, answer) })
			defer all.Wait()
			_, err := j.Join(t.Context(), client)
			return err
		}
		began := time.Now()
		if err := with(func(*protomux.Channel, int, []byte) {}); !errors.Is(err, ErrBusy) || time.Since(began) != patience {
			t.Errorf("one that says nothing: %v after %s", err, time.Since(began))
		}
		for _, reason := range []error{ErrBusy, ErrWords, ErrTries, ErrExpired, ErrUsed} {
			if err := with(func(c *protomux.Channel, number int, _ []byte) {
				m := refusal(reason)
				c.Send(m.number, m.payload)
			}); !errors.Is(err, reason) {
				t.Errorf("one that refuses: %v, want %v", err, reason)
			}
		}
		if err := with(func(c *protomux.Channel, _ int, _ []byte) { c.Close() }); !errors.Is(err, protomux.ErrClosed) {
			t.Errorf("one that closes: %v", err)
		}
		if err := with(func(c *protomux.Channel, _ int, _ []byte) { c.Send(messageShare, make([]byte, shareLen)) }); !errors.Is(err, ErrProtocol) {
			t.Errorf("one with a bad share: %v", err)
		}
		if j.tries != Tries {
			t.Fatalf("%d tries left, and nothing was shown", j.tries)
		}
		guess, err := newInviting(code(t, "stone river amount name salon fog"), linkOf(1), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		shown := 0
		for n := range Tries + 3 {
			err := with(func(c *protomux.Channel, number int, payload []byte) {
				switch number {
				case messageHello:
					c.Send(messageShare, guess.exchange.share[:])
				case messageRequest:
					shown++
					c.Send(messageAdmission, make([]byte, 200))
				}
			})
			want := ErrWords
			if n >= Tries {
				want = ErrTries
			}
			if !errors.Is(err, want) {
				t.Errorf("stranger %d: %v, want %v", n, err, want)
			}
		}
		if shown != Tries {
			t.Errorf("the proof was shown %d times", shown)
		}
	})
}

func TestJoinerMeetsSomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoiner(t, JoinOptions{Code: code(t, frog)})
		client, server := pipe(t)
		mux := protomux.New(protomux.Options{})
		var all sync.WaitGroup
		all.Go(func() { mux.Serve(t.Context(), server) })
		if _, err := j.Join(t.Context(), client); !errors.Is(err, ErrNoInvitation) {
			t.Errorf("one who doesn't pair: %v", err)
		}
		all.Wait()
		client, server = pipe(t)
		server.Close()
		if _, err := j.Join(t.Context(), client); err == nil {
			t.Error("joined through a stream that has ended")
		}
		client, server = pipe(t)
		defer server.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := j.Join(ctx, client); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		if j.tries != Tries {
			t.Errorf("%d tries left", j.tries)
		}
	})
}

// Pairing shares a mux with what else is on it.
func TestInvitationOnSharedMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{})
		client, server := pipe(t)
		mux := protomux.New(protomux.Options{})
		v.Attach(mux, server)
		if _, err := mux.Open(protomux.ChannelOptions{Protocol: "other"}); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() { mux.Serve(t.Context(), server) })
		if _, err := newJoiner(t, JoinOptions{Code: v.Code()}).Join(t.Context(), client); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}

func TestJoinersNeedAllOptions(t *testing.T) {
	good := JoinOptions{Code: code(t, frog), Device: identity.Seed{3}.KeyPair(), Name: "laptop"}
	for name, change := range map[string]func(*JoinOptions){
		"no words":   func(o *JoinOptions) { o.Code = words.Code{} },
		"no secret":  func(o *JoinOptions) { o.Device = noise.KeyPair{Public: o.Device.Public} },
		"no name":    func(o *JoinOptions) { o.Name = "" },
		"a bad name": func(o *JoinOptions) { o.Name = "\x1b[2J" },
	} {
		o := good
		change(&o)
		if _, err := NewJoiner(o); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestTopicIsOfTheFirstTwoWords(t *testing.T) {
	topic := Topic(code(t, frog))
	// Two versions of the program have to meet.
	if want := "e09a7bac13355cde1b00145cb4c99c8f418fc230d85e6811f2e8e3307ef8ac04"; string(topic[:]) != string(unhex(t, want)) {
		t.Errorf("topic %x, want %s", topic, want)
	}
	if got := Topic(code(t, "stone river zoo zoo zoo zoo")); got != topic {
		t.Errorf("with other words: %x", got)
	}
	if got := Topic(code(t, "river stone amount name salon frog")); got == topic {
		t.Error("the order makes no difference")
	}
}
