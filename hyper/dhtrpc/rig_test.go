package dhtrpc

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A rig is a machine with its hands tied: a test sees what it would send and
// moves its time.
type rig struct {
	t     testing.TB
	m     *machine
	now   time.Time
	calls int
}

type rigSocket struct{ name string }

func (*rigSocket) SendTTL(netip.AddrPort, []byte, int) error { return nil }

// newRig is a machine that has entered its network, which has no seeds unless
// the configuration says so.
func newRig(t testing.TB, c config) *rig {
	r := &rig{t: t, now: time.Unix(1_700_000_000, 0)}
	c.enter = func(f func()) {
		r.m.now = r.now
		f()
	}
	if c.lookup == nil {
		c.lookup = func(_ string, done func([]netip.Addr)) { done(nil) }
	}
	m, err := newMachine(c, rand.NewChaCha8([32]byte{1}), r.now)
	if err != nil {
		t.Fatal(err)
	}
	r.m = m
	m.bind(r.now, &rigSocket{"client"}, &rigSocket{"server"}, testPort)
	r.settle()
	return r
}

const testPort = 49737

// settle makes the calls that are due.
func (r *rig) settle() {
	for len(r.m.calls) > 0 {
		f := r.m.calls[0]
		r.m.calls = r.m.calls[1:]
		r.calls++
		f()
	}
}

func (r *rig) receive(s socket, from netip.AddrPort, data []byte) {
	r.m.receive(r.now, s, from, data)
	r.settle()
}

// pass moves the time, and does all that falls due at its time.
func (r *rig) pass(d time.Duration) {
	for end := r.now.Add(d); ; {
		at := r.m.deadline()
		if at.IsZero() || at.After(end) {
			r.now = end
			r.m.now = end
			return
		}
		r.now = at
		r.m.advance(at)
		r.settle()
	}
}

// take returns what is to be sent.
func (r *rig) take() []parcel {
	out := r.m.out
	r.m.out = nil
	return out
}

// sent are the messages among what is to be sent.
func (r *rig) sent() (out []message) {
	r.t.Helper()
	for _, p := range r.take() {
		m, err := parse(p.data)
		if err != nil {
			r.t.Fatalf("sends %x: %v", p.data, err)
		}
		out = append(out, m)
	}
	return out
}

// one is the only message that is to be sent.
func (r *rig) one() message {
	r.t.Helper()
	out := r.sent()
	if len(out) != 1 {
		r.t.Fatalf("sends %d packets, want 1: %+v", len(out), out)
	}
	return out[0]
}

// answer answers a request of the machine's that went to an address.
func (r *rig) answer(from netip.AddrPort, asked message, closer ...netip.AddrPort) {
	id := NodeID(from)
	r.receive(r.m.socket(), from, (&message{reply: true, tid: asked.tid, to: addrPort("198.51.100.7:1000"), id: &id, closer: closer}).append(nil))
}

// ask sends a request to the machine as a node that takes part would, or, with
// no id, as one that doesn't.
func (r *rig) ask(from netip.AddrPort, withID bool, m message) {
	if withID {
		id := NodeID(from)
		m.id = &id
	}
	m.to = addrPort("198.51.100.7:1000")
	r.receive(r.m.server, from, m.append(nil))
}

// addrOf is the i-th of some public addresses, each in a network of its own.
func addrOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{24, byte(i >> 8), byte(i), 1}), 1000)
}
