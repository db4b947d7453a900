package corestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// maxChannels is how many logs one connection may carry at a time.
const maxChannels = 1 << 16

// ReplicateOptions for one connection. The zero value lets the peer have and give
// whatever logs it knows the keys of.
type ReplicateOptions struct {
	// Name is what the peer is called, for people; its key when empty.
	Name string
	// Allow says what the peer may do with a log; everything when nil. It must
	// not use the store.
	Allow func(peer noise.Key, log hypercore.Key) replicate.Access
	// Attached is called once the logs are offered to the peer and before any
	// message of it: other protocols can be opened on the mux.
	Attached func(*protomux.Mux)
}

// Replicate carries every log of the store over one connection until either side
// ends it, or ctx, and closes the stream. It returns nil if that was in order.
//
// Logs that are in use here are offered to the peer; others are opened when the
// peer asks for them, and closed when neither side uses them any more. What the
// peer does not know the key of, it does not learn of.
func (s *Store) Replicate(ctx context.Context, stream *secretstream.Stream, o ReplicateOptions) error {
	c := &replicate.Conn{
		Mux:           protomux.New(protomux.Options{MaxChannels: maxChannels}),
		HandshakeHash: stream.HandshakeHash(), Initiator: stream.Initiator(),
		Key: stream.RemoteKey(), Name: o.Name,
	}
	if c.Name == "" {
		c.Name = hypercore.Key(c.Key).String()
	}
	if err := s.attach(c, o); err != nil {
		return errors.Join(fmt.Errorf("replicate with %s: %w", c.Name, err), stream.Close())
	}
	for _, protocol := range replicate.Protocols {
		c.Mux.Pair(protocol, nil, func(q *protomux.Request) { s.asked(c, q) })
	}
	if o.Attached != nil {
		o.Attached(c.Mux)
	}
	err := c.Mux.Serve(ctx, stream)
	s.detach(c)
	if err != nil {
		return fmt.Errorf("replicate with %s: %w", c.Name, err)
	}
	return nil
}

// attach offers all logs that are open to a new connection.
func (r *root) attach(c *replicate.Conn, o ReplicateOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return storage.ErrClosed
	}
	r.conns[c] = o
	for _, e := range r.open {
		switch {
		case e.replicator != nil:
			r.attachLocked(e, c, o)
		case e.log.InUse():
			r.replicateLocked(e, true)
		}
	}
	return nil
}

func (r *root) detach(c *replicate.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	for _, e := range r.open {
		if e.replicator != nil {
			e.replicator.Detach(c)
		}
	}
}

// replicateLocked makes a log that is open one that is replicated, if there is
// anybody to replicate it with.
func (r *root) replicateLocked(e *entry, used bool) {
	if e.replicator == nil {
		if len(r.conns) == 0 && r.finding == 0 {
			return
		}
		p, err := replicate.New(e.log, r.replicate)
		if err != nil {
			return // it was closed
		}
		p.OnIdle(func() { r.replicated(e) })
		e.replicator = p
		p.SetFinding(r.finding > 0)
		for _, h := range e.told {
			h.f(p)
		}
		for c, o := range r.conns {
			r.attachLocked(e, c, o)
		}
	}
	if used {
		e.replicator.SetDownloading(true)
	}
}

func (r *root) attachLocked(e *entry, c *replicate.Conn, o ReplicateOptions) {
	access := replicate.Full
	if o.Allow != nil {
		access = o.Allow(c.Key, e.log.Key())
	}
	_ = e.replicator.Attach(c, access) // who is denied hears it when asking
}

// Offer gives a peer that is connected the logs that it was denied when it came,
// and that ReplicateOptions.Allow lets it have by now.
func (s *Store) Offer(peer noise.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, o := range s.conns {
		if c.Key != peer {
			continue
		}
		for _, e := range s.open {
			if e.replicator != nil {
				s.attachLocked(e, c, o)
			}
		}
	}
}

// replicated is told that no peer uses a log any more.
func (r *root) replicated(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.open[e.log.Discovery()] != e || e.log.InUse() {
		return
	}
	if _, ok := r.idle[e]; !ok {
		r.idleLocked(e)
	}
}

// asked answers a peer that wants to replicate a log: it is opened if it is here.
func (s *Store) asked(c *replicate.Conn, q *protomux.Request) {
	if len(q.ID) != 32 {
		return // rejected
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok || s.closed {
		return
	}
	e, err := s.storedLocked(hypercore.DiscoveryKey(q.ID))
	if err != nil {
		return
	}
	// Who can't show that it has the key does not hear that the log is here.
	if err = c.Knows(e.log.Key(), q.Handshake); err != nil {
		c.Mux.Destroy(err)
	} else if s.replicateLocked(e, false); e.replicator != nil {
		err = e.replicator.Open(c)
	}
	switch {
	case e.replicator != nil && err == nil:
		s.useLocked(e)
	case !e.log.InUse():
		s.idleLocked(e)
	}
}

// FindingPeers tells that connections are being made, until done is called: Update
// waits for them, and so does who wants a block that is not here.
func (s *Store) FindingPeers() (done func()) {
	s.find(1)
	return sync.OnceFunc(func() { s.find(-1) })
}

func (r *root) find(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finding += n
	for _, e := range r.open {
		r.replicateLocked(e, e.replicator == nil && e.log.InUse())
		if e.replicator != nil {
			e.replicator.SetFinding(r.finding > 0)
		}
	}
}

// Peers returns the peers of all logs that are open, a line for each log and
// connection.
func (s *Store) Peers() (out []replicate.PeerInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.open {
		if e.replicator != nil {
			out = append(out, e.replicator.Peers()...)
		}
	}
	return out
}

// Replicator returns the replicator of a log that is open, or nil while no peer is
// connected: for extension messages, and to see its peers.
func (s *Store) Replicator(key hypercore.Key) *replicate.Replicator {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.open[key.Discovery()]; e != nil {
		return e.replicator
	}
	return nil
}

// A hook is called with the replicator of a log.
type hook struct{ f func(*replicate.Replicator) }

// OnReplicator calls f with the replicator of a log that is open, before any peer
// says something about the log: at once if there is one, otherwise when the first
// connection comes. That is once at most, and never after stop has returned or the
// log was closed. f must not use the store.
func (s *Store) OnReplicator(key hypercore.Key, f func(*replicate.Replicator)) (stop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.open[key.Discovery()]
	if e == nil {
		return nil, fmt.Errorf("log %s is not open: %w", key, storage.ErrNotFound)
	}
	h := &hook{f}
	if e.told = append(e.told, h); e.replicator != nil {
		f(e.replicator)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.told = slices.DeleteFunc(e.told, func(other *hook) bool { return other == h })
	}, nil
}
