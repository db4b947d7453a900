package replicate

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
)

// Stats counts what went on with one peer.
type Stats struct {
	Since time.Time

	Up, Down         uint64 // bytes of proofs
	BlocksUp, Blocks uint64
	Bytes            uint64 // of the blocks that came
	Proofs           uint64 // that came and were right
	Sent, Received   uint64 // messages, without answers sent

	Refused    uint64 // requests that the peer could not answer
	Misfits    uint64 // proofs that did not fit the log any more
	Lies       uint64 // proofs that were wrong
	Stalls     uint64 // times that others were asked for what it did not bring
	Hotswaps   uint64 // blocks that it was asked for because another was slow
	Invalid    uint64 // requests that no log can answer
	Violations uint64 // messages that break the protocol

	Dropped error // why it was dropped
}

// A PeerInfo is what is known of a peer of a log.
type PeerInfo struct {
	Log  hypercore.Key
	Key  noise.Key
	Name string

	Open         bool
	Fork, Length uint64 // of the peer's log
	Contiguous   uint64 // up to where it has all blocks
	Uploading    bool
	Downloading  bool
	InFlight     int // requests of ours
	Queued       int // requests of theirs
	RTT          time.Duration
	Rate         float64 // bytes a second, as far as it was tried
	Stalled      bool

	Stats
}

func (r *Replicator) infoLocked(l *link) PeerInfo {
	i := PeerInfo{Log: r.log.Key(), Key: l.conn.Key, Name: l.conn.Name}
	i.Dropped = l.banned
	if p := l.peer; p != nil {
		i.Open, i.Fork, i.Length, i.Contiguous = p.opened, p.remote.fork, p.remote.length, p.have.next(0, false)
		i.Uploading, i.Downloading = p.remote.uploading, p.remote.downloading
		i.InFlight, i.Queued, i.RTT, i.Rate, i.Stalled = p.open, len(p.queue), p.rtt, p.rate, p.stalled
		i.Stats = p.stats
	}
	return i
}

// Peers returns the peers of the log, also those that were dropped and are still
// connected.
func (r *Replicator) Peers() (out []PeerInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if l.peer != nil || l.banned != nil {
			out = append(out, r.infoLocked(l))
		}
	}
	return out
}

// A Message is an extension message of a peer.
type Message struct {
	From    *Conn
	Payload []byte // valid during the call
	reply   func([]byte) error
}

// Reply sends a message of the same extension to the peer.
func (m *Message) Reply(payload []byte) error { return m.reply(payload) }

// Extension makes f get the messages of an extension, one after the other for
// each connection; nil ends that. What f blocks keeps the connection waiting. In
// Node.js an extension whose encoding is not said puts the length of a message
// before it.
func (r *Replicator) Extension(name string, f func(Message)) error {
	if name == "" || len(name) > maxExtensionName {
		return fmt.Errorf("extension %q: a name has 1 to %d bytes", name, maxExtensionName)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f == nil {
		delete(r.ext, name)
	} else {
		r.ext[name] = f
	}
	return nil
}

// Broadcast sends a message of an extension to all peers of the log, and returns
// how many there are. Those that don't know the extension ignore it.
func (r *Replicator) Broadcast(name string, payload []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if l.peer != nil && l.peer.opened {
			n++
			err = errors.Join(err, r.sendExtensionLocked(l, name, payload))
		}
	}
	return n, err
}

func (r *Replicator) sendExtensionLocked(l *link, name string, payload []byte) error {
	if l.channel == nil {
		return protomux.ErrClosed
	}
	said := name
	if name == l.peer.extOut {
		said = "" // the same as before
	}
	if err := l.channel.Send(msgExtension, appendExtension(nil, said, payload)); err != nil {
		return fmt.Errorf("extension %s: %w", name, err)
	}
	l.peer.extOut = name
	return nil
}

func (r *Replicator) extension(p *peer, b []byte) error {
	name, payload, err := readExtension(b)
	if err != nil {
		return err
	}
	if name == "" {
		name = p.extIn
	}
	p.extIn = name // only messages of this channel use it
	r.mu.Lock()
	f := r.ext[name]
	r.mu.Unlock()
	if f != nil {
		l := p.link
		f(Message{From: l.conn, Payload: payload, reply: func(payload []byte) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if l.peer != p {
				return protomux.ErrClosed
			}
			return r.sendExtensionLocked(l, name, payload)
		}})
	}
	return nil
}

// A Limit bounds how many bytes a second are sent. Whoever shares it shares the
// rate. It may be used by any goroutine.
type Limit struct {
	mu   sync.Mutex
	rate float64   // bytes a second
	free time.Time // when what was sent is paid for
}

// NewLimit returns a limit of so many bytes a second.
func NewLimit(bytesPerSecond int) *Limit { return &Limit{rate: float64(max(bytesPerSecond, 1))} }

// burst is how far ahead of the rate may be sent.
const burst = 20 * time.Millisecond

func (l *Limit) take(n int, now time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
}

// wait returns how long to wait before more may be sent.
func (l *Limit) wait(now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.free.Sub(now); d > burst {
		return d
	}
	return 0
}
