package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// muxState is what interop/node/protomux.js knows of a mux.
type muxState struct {
	Destroyed, Idle bool
	Error           *string
	Events          []muxEvent
}

type muxEvent struct {
	Name, Event  string
	Type, Length int
	Payload      *string
	SHA256       string
}

// text is an event in the words of a log.
func (e muxEvent) text() string {
	payload := ""
	if e.Payload != nil {
		raw, _ := hex.DecodeString(*e.Payload)
		payload = string(raw)
	}
	switch {
	case e.Event == "message" && e.Payload == nil:
		return fmt.Sprintf("%d %d bytes %s", e.Type, e.Length, e.SHA256)
	case e.Event == "message":
		return fmt.Sprintf("%d %s", e.Type, payload)
	case e.Event == "open":
		return "open " + payload
	}
	return e.Event
}

// events are those of one channel of Node.
func (s muxState) of(name string) string {
	var list []string
	for _, e := range s.Events {
		if e.Name == name {
			list = append(list, e.text())
		}
	}
	return strings.Join(list, "; ")
}

// logged is what a channel of ours saw.
type logged struct {
	mu     sync.Mutex
	more   sync.Cond
	events []string
}

func newLogged() *logged {
	l := &logged{}
	l.more.L = &l.mu
	return l
}

func (l *logged) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
	l.more.Broadcast()
}

// until waits until it is n events, and returns them.
func (l *logged) until(t *testing.T, n int) string {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() { l.add("too late") })
	defer late.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.events) < n {
		l.more.Wait()
	}
	return strings.Join(l.events, "; ")
}

// channel are options of a channel that logs as Node does.
func (l *logged) channel(protocol, id, handshake string, echo bool) protomux.ChannelOptions {
	o := protomux.ChannelOptions{Protocol: protocol, ID: []byte(id), Handshake: []byte(handshake)}
	for number := range 3 {
		o.Messages = append(o.Messages, func(c *protomux.Channel, p []byte) error {
			if len(p) > 64 {
				l.add("%d %d bytes %s", number, len(p), sum(p))
			} else {
				l.add("%d %s", number, p)
			}
			if echo {
				return c.Send(number, p)
			}
			return nil
		})
	}
	o.OnOpen = func(_ *protomux.Channel, handshake []byte) error { l.add("open %s", handshake); return nil }
	o.OnClose = func(_ *protomux.Channel, reason error) {
		if errors.Is(reason, protomux.ErrRejected) {
			l.add("rejected")
			return
		}
		l.add("close")
	}
	return o
}

// muxWithNode calls f with a mux of ours, connected to Node's of the handle
// "m", and expects that both end in order after it.
func muxWithNode(t *testing.T, client bool, f func(t *testing.T, n node, m *protomux.Mux)) {
	t.Helper()
	n := startScript(t, "protomux.js")
	withNode(t, n, client, secretstream.Options{}, args{"handle": "m"}, func(s *secretstream.Stream) {
		m := protomux.New(protomux.Options{})
		served := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { served <- m.Serve(ctx, s) }()
		f(t, n, m)
		m.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if state := call[muxState](n, "until", args{"handle": "m", "events": 1 << 30}); state.Error != nil || !state.Destroyed {
			t.Errorf("Node ended with %v", state.Error)
		}
	})
}

func openChannel(t *testing.T, m *protomux.Mux, o protomux.ChannelOptions) *protomux.Channel {
	t.Helper()
	c, err := m.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sendText(t *testing.T, c *protomux.Channel, number int, payload string) {
	t.Helper()
	if err := c.Send(number, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }

func TestProtomuxWithNodeOpensCarriesAndCloses(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		muxWithNode(t, client, func(t *testing.T, n node, m *protomux.Mux) {
			// We open, Node is paired. It is used before it is open.
			call[any](n, "pair", args{"handle": "m", "protocol": "ours", "echo": true})
			a := newLogged()
			c := openChannel(t, m, a.channel("ours", "id-1", "hello", false))
			sendText(t, c, 0, "early")
			sendText(t, c, 2, "")
			same(t, "we opened", a.until(t, 3), "open paired; 0 early; 2 ")
			same(t, "Node", call[muxState](n, "until", args{"handle": "m", "events": 3}).of(hexOf("id-1")), "open hello; 0 early; 2 ")
			// Numbers that Node does not know are ignored.
			sendText(t, c, 3, "of a newer version")
			c.Close()
			same(t, "Node", call[muxState](n, "until", args{"handle": "m", "events": 4}).of(hexOf("id-1")), "open hello; 0 early; 2 ; close")

			// Node opens, we are paired.
			b := newLogged()
			m.Pair("theirs", nil, func(r *protomux.Request) {
				if string(r.ID) != "id-2" || string(r.Handshake) != "hi" {
					t.Errorf("asked for %q with %q", r.ID, r.Handshake)
				}
				openChannel(t, m, b.channel("theirs", string(r.ID), "welcome", true))
			})
			call[any](n, "open", args{"handle": "m", "name": "x", "protocol": "theirs", "id": hexOf("id-2"), "handshake": hexOf("hi")})
			call[any](n, "send", args{"handle": "m", "name": "x", "messages": []args{{"type": 1, "payload": hexOf("one")}}})
			same(t, "Node opened", b.until(t, 2), "open hi; 1 one")
			same(t, "Node", call[muxState](n, "until", args{"handle": "m", "events": 6}).of("x"), "open welcome; 1 one")
			call[any](n, "close", args{"handle": "m", "name": "x"})
			same(t, "Node closed", b.until(t, 3), "open hi; 1 one; close")

			// With no id, and each side calls it by what is an alias to the other.
			d := newLogged()
			o := d.channel("new", "", "a", false)
			o.Aliases = []string{"old"}
			m.Pair("old", nil, func(*protomux.Request) { openChannel(t, m, o) })
			call[any](n, "open", args{"handle": "m", "name": "y", "protocol": "old", "aliases": []string{"new"}, "handshake": hexOf("b")})
			same(t, "we opened", d.until(t, 1), "open b")
			same(t, "Node", call[muxState](n, "until", args{"handle": "m", "events": 8}).of("y"), "open a")
		})
	})
}

func TestProtomuxWithNodeRejects(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		muxWithNode(t, client, func(t *testing.T, n node, m *protomux.Mux) {
			a := newLogged()
			openChannel(t, m, a.channel("unknown to Node", "1", "", false))
			same(t, "not paired", a.until(t, 1), "rejected")
			call[any](n, "pair", args{"handle": "m", "protocol": "refused", "refuse": true})
			sendText(t, openChannel(t, m, a.channel("refused", "1", "", false)), 0, "lost")
			same(t, "paired, but refused", a.until(t, 2), "rejected; rejected")

			var held *protomux.Request
			got := make(chan bool)
			m.Pair("ignored", nil, func(*protomux.Request) {})
			m.Pair("held", nil, func(r *protomux.Request) { r.Hold(); held = r; got <- true })
			for i, protocol := range []string{"unknown to us", "ignored"} {
				call[any](n, "open", args{"handle": "m", "name": protocol, "protocol": protocol})
				same(t, protocol, call[muxState](n, "until", args{"handle": "m", "events": i + 1}).of(protocol), "close")
			}
			call[any](n, "open", args{"handle": "m", "name": "z", "protocol": "held"})
			call[any](n, "send", args{"handle": "m", "name": "z", "messages": []args{{"type": 0, "size": 60_000}, {"type": 0, "size": 60_000}}})
			<-got
			held.Reject()
			state := call[muxState](n, "until", args{"handle": "m", "events": 3})
			if same(t, "held", state.of("z"), "close"); !state.Idle {
				t.Error("Node has channels left")
			}
			// And the mux goes on.
			m.Pair("held", nil, func(r *protomux.Request) { openChannel(t, m, a.channel("held", "", "", false)) })
			call[any](n, "open", args{"handle": "m", "name": "z", "protocol": "held"})
			same(t, "the same again", call[muxState](n, "until", args{"handle": "m", "events": 4}).of("z"), "close; open ")
		})
	})
}

func TestProtomuxWithNodeCarriesBatchesAndLargeMessages(t *testing.T) {
	sizes := []int{0, 1, 63, 64, 65, 252, 253, 254, 65535, 65536, 65537, 1 << 20}
	bothRoles(t, func(t *testing.T, client bool) {
		muxWithNode(t, client, func(t *testing.T, n node, m *protomux.Mux) {
			call[any](n, "pair", args{"handle": "m", "protocol": "p", "echo": true})
			var ours []*logged
			var channels []*protomux.Channel
			for i := range 3 {
				ours = append(ours, newLogged())
				channels = append(channels, openChannel(t, m, ours[i].channel("p", fmt.Sprint(i), "", false)))
			}
			// Two rounds, one of them in batches across all channels: Node
			// answers a batch with a batch.
			want := []string{"open paired"}
			for round := range 2 {
				if round == 1 {
					m.Cork()
				}
				for i, size := range sizes {
					p := bytes.Repeat([]byte{byte(size)}, size)
					number := i % 3
					for _, c := range channels {
						if err := c.Send(number, p); err != nil {
							t.Fatal(err)
						}
					}
					if size > 64 {
						want = append(want, fmt.Sprintf("%d %d bytes %s", number, size, sum(p)))
					} else {
						want = append(want, fmt.Sprintf("%d %s", number, p))
					}
				}
				if round == 1 {
					m.Uncork()
				}
				for i, l := range ours {
					same(t, fmt.Sprintf("round %d, channel %d", round, i), l.until(t, len(want)), strings.Join(want, "; "))
				}
			}
			state := call[muxState](n, "until", args{"handle": "m", "events": 3 * len(want)})
			for i := range ours {
				same(t, "Node", state.of(hexOf(fmt.Sprint(i))), strings.Replace(strings.Join(want, "; "), "open paired", "open ", 1))
			}
			// And Node's batches to us.
			l := newLogged()
			m.Pair("q", nil, func(*protomux.Request) { openChannel(t, m, l.channel("q", "", "", true)) })
			call[any](n, "open", args{"handle": "m", "name": "q", "protocol": "q"})
			var messages []args
			for i, size := range sizes {
				messages = append(messages, args{"type": i % 3, "size": size})
			}
			call[any](n, "send", args{"handle": "m", "name": "q", "messages": messages, "cork": true})
			got := l.until(t, 1+len(sizes))
			same(t, "Node's batch", got, strings.Replace(strings.Join(want[:1+len(sizes)], "; "), "open paired", "open ", 1))
			state = call[muxState](n, "until", args{"handle": "m", "events": 3*len(want) + 1 + len(sizes)})
			same(t, "our answer", state.of("q"), got)
		})
	})
}

// Channels come and go on both sides, so numbers are used again by both.
func TestProtomuxWithNodeUsesNumbersAgain(t *testing.T) {
	bothRoles(t, func(t *testing.T, client bool) {
		muxWithNode(t, client, func(t *testing.T, n node, m *protomux.Mux) {
			rng := random(t, 8)
			call[any](n, "pair", args{"handle": "m", "protocol": "p", "echo": true})
			theirs := newLogged()
			m.Pair("q", nil, func(r *protomux.Request) { openChannel(t, m, theirs.channel("q", string(r.ID), "", true)) })
			type open struct {
				name string
				c    *protomux.Channel // nil if Node has opened it
			}
			closeIt := func(o open) {
				if o.c != nil {
					o.c.Close()
					return
				}
				call[any](n, "until", args{"handle": "m", "name": o.name, "event": "message"})
				call[any](n, "close", args{"handle": "m", "name": o.name})
			}
			var live []open
			for i := range 60 * long(20) {
				name := fmt.Sprint(i)
				if rng.IntN(2) == 0 {
					l := newLogged()
					o := open{hexOf(name), openChannel(t, m, l.channel("p", name, "", false))}
					sendText(t, o.c, 0, name)
					if rng.IntN(3) == 0 {
						o.c.Close() // before Node can have answered
						continue
					}
					same(t, "ours", l.until(t, 2), "open paired; 0 "+name)
					live = append(live, o)
				} else {
					o := open{name: hexOf(name)}
					call[any](n, "open", args{"handle": "m", "name": o.name, "protocol": "q", "id": o.name})
					call[any](n, "send", args{"handle": "m", "name": o.name, "messages": []args{{"type": 1, "payload": o.name}}})
					live = append(live, o)
				}
				for len(live) > 5 {
					at := rng.IntN(len(live))
					closeIt(live[at])
					live = append(live[:at], live[at+1:]...)
				}
			}
			for _, o := range live {
				closeIt(o)
			}
			state := call[muxState](n, "until", args{"handle": "m", "idle": true})
			if !state.Idle || state.Error != nil || state.Destroyed {
				t.Errorf("Node: idle %v, error %v", state.Idle, state.Error)
			}
			if got := len(m.Channels()); got != 0 && !eventually(func() bool { return len(m.Channels()) == 0 }) {
				t.Errorf("%d channels are left here", got)
			}
		})
	})
}

func eventually(ok func() bool) bool {
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
