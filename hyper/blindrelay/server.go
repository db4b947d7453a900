package blindrelay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// Limits bound what a relay does for others. Zero stands for the default.
type Limits struct {
	// Sessions is how many clients there may be: 1024. SessionsPerKey is how many
	// connections one key may have: 64.
	Sessions, SessionsPerKey int
	// Pairings is how many tokens may wait for their second side: 1024.
	// PairingsPerSession is how many of one client: 16.
	Pairings, PairingsPerSession int
	// Links is how many pairs of streams there may be: 1024. LinksPerSession is
	// how many of one client: 16.
	Links, LinksPerSession int
	// TokenLife is how long a token waits: 30 seconds.
	TokenLife time.Duration
	// Rate is how many bytes a second are passed on, all clients together, and
	// SessionRate how many that one client sends. Packets above are dropped,
	// which peers take for a narrow line. Zero is without a limit.
	Rate, SessionRate int64
}

func (l Limits) orDefaults() Limits {
	for _, f := range []struct {
		value *int
		usual int
	}{
		{&l.Sessions, 1024}, {&l.SessionsPerKey, 64}, {&l.Pairings, 1024}, {&l.PairingsPerSession, 16}, {&l.Links, 1024}, {&l.LinksPerSession, 16},
	} {
		if *f.value <= 0 {
			*f.value = f.usual
		}
	}
	if l.TokenLife <= 0 {
		l.TokenLife = 30 * time.Second
	}
	return l
}

// A Server is the relay. Its methods may be called by any goroutine.
type Server struct {
	join   joiner
	allow  func(noise.Key) bool
	clock  clock.Clock
	limits Limits
	all    *meter

	// mu guards what follows. Locks of muxes and meters come after it.
	mu       sync.Mutex
	closed   bool
	book     *book
	sessions map[*party]*session
	wires    map[*link]wire
	timer    clock.Timer
	counts   Stats
}

// A wire is a pair of streams that pass packets on to each other, each to the
// peer of its side.
type wire interface {
	ids() [2]uint32
	// close may call back that the wire was closed.
	close()
}

// A joiner makes a wire between peers. closed is called once the wire is of no
// more use.
type joiner func(peers [2]peer, closed func()) (wire, error)

// A peer is one side of a wire: the number of its stream, the meter that is
// asked for each packet from it, and the connection by which it came, which may
// be nil.
type peer struct {
	id    uint32
	meter *meter
	conn  *udx.Stream
}

// A session is a client that is connected.
type session struct {
	server  *Server
	party   *party
	mux     *protomux.Mux
	meter   *meter
	conn    *udx.Stream       // under the connection; nil if it has none
	channel *protomux.Channel // nil until the client has opened it; guarded by server.mu
}

// Stats are what a relay has done.
type Stats struct {
	// Sessions are the clients that are connected, Pairings the tokens that wait,
	// and Links the pairs of streams there are.
	Sessions, Pairings, Links int
	// Requested, Matched, Refused, Cancelled and Expired count pairings: what was
	// asked for by either side, and what became of it.
	Requested, Matched, Refused, Cancelled, Expired uint64
	// Bytes and Packets were passed on, and Dropped packets were not, as they were
	// over a rate.
	Bytes, Packets, Dropped uint64
}

// SessionStats are what a relay has done for one client.
type SessionStats struct {
	// Key is who it is.
	Key noise.Key
	// Pairings are its tokens that wait, and Links its pairs of streams.
	Pairings, Links int
	// Bytes and Packets came from it and were passed on; Dropped packets were not.
	Bytes, Packets, Dropped uint64
}

func newServer(join joiner, o Options) *Server {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	limits := o.Limits.orDefaults()
	return &Server{
		join:     join,
		allow:    o.Allow,
		clock:    o.Clock,
		limits:   limits,
		all:      newMeter(o.Clock, limits.Rate, nil),
		book:     newBook(limits),
		sessions: map[*party]*session{},
		wires:    map[*link]wire{},
	}
}

// A Conn is a connection to a peer whose key is known, such as a stream of
// hyper/secretstream.
type Conn interface {
	protomux.Stream
	// LocalKey is the key of this side.
	LocalKey() noise.Key
	// RemoteKey is the key of the other side, which has proven it.
	RemoteKey() noise.Key
}

// Serve serves one client until either side ends the connection, which it
// closes. If that goes over a stream of the relay's UDX, as those of
// hyper/hyperdht do, the streams that the client pairs are expected from the
// same address. It returns nil if that was in order. A client that may not be
// served gets ErrRefused for an error.
func (s *Server) Serve(ctx context.Context, conn Conn) error {
	mux := protomux.New(protomux.Options{MaxChannels: 16, MaxQueued: 1 << 20})
	ses, err := s.enter(mux, conn.RemoteKey())
	if err != nil {
		return errors.Join(fmt.Errorf("serve relay client %s: %w", conn.RemoteKey(), err), conn.Close())
	}
	defer s.leave(ses)
	if over, ok := conn.(interface{ Raw() *udx.Stream }); ok {
		ses.conn = over.Raw()
	}
	id := ses.party.key
	mux.Pair(protocol, id[:], ses.open)
	return mux.Serve(ctx, conn)
}

// Close ends all sessions. Calls of Serve return.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, ses := range s.sessions {
		ses.mux.Close()
	}
	return nil
}

// Stats returns what the relay has done.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.counts
	st.Sessions, st.Pairings, st.Links = len(s.sessions), len(s.book.waiting), s.book.links
	st.Bytes, st.Packets, st.Dropped = s.all.counts()
	return st
}

// Sessions returns what the relay does for each client that is connected.
func (s *Server) Sessions() []SessionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]SessionStats, 0, len(s.sessions))
	for p, ses := range s.sessions {
		st := SessionStats{Key: p.key, Pairings: len(p.waiting), Links: len(p.links)}
		st.Bytes, st.Packets, st.Dropped = ses.meter.counts()
		list = append(list, st)
	}
	return list
}

func (s *Server) enter(mux *protomux.Mux, key noise.Key) (*session, error) {
	if s.allow != nil && !s.allow(key) {
		return nil, ErrRefused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	p := s.book.enter(key)
	if p == nil {
		return nil, fmt.Errorf("%w: too many clients", ErrRefused)
	}
	ses := &session{server: s, party: p, mux: mux, meter: newMeter(s.clock, s.limits.SessionRate, s.all)}
	s.sessions[p] = ses
	return ses, nil
}

func (s *Server) leave(ses *session) {
	s.mu.Lock()
	delete(s.sessions, ses.party)
	wires := s.takeWiresLocked(s.book.leave(ses.party))
	s.mu.Unlock()
	closeAll(wires)
}

// takeWiresLocked returns the wires of links, which are to be closed without
// the lock.
func (s *Server) takeWiresLocked(links []*link) (wires []wire) {
	for _, l := range links {
		if w := s.wires[l]; w != nil {
			delete(s.wires, l)
			wires = append(wires, w)
		}
	}
	return wires
}

func closeAll(wires []wire) {
	for _, w := range wires {
		w.close()
	}
}

// open answers a client that opens the channel, which may be again.
func (ses *session) open(r *protomux.Request) {
	c, err := ses.mux.Open(protomux.ChannelOptions{
		Protocol: protocol,
		ID:       r.ID,
		Messages: []func(*protomux.Channel, []byte) error{messagePair: ses.onPair, messageUnpair: ses.onUnpair},
		OnClose:  ses.onClose,
	})
	if err != nil {
		return // the mux rejects it
	}
	ses.server.mu.Lock()
	defer ses.server.mu.Unlock()
	ses.channel = c
}

// onClose ends what the client had asked for over the channel.
func (ses *session) onClose(*protomux.Channel, error) {
	s := ses.server
	s.mu.Lock()
	ses.channel = nil
	wires := s.takeWiresLocked(s.book.clear(ses.party))
	s.mu.Unlock()
	closeAll(wires)
}

func (ses *session) onPair(_ *protomux.Channel, payload []byte) error {
	m, err := decodePair(payload)
	if err != nil {
		return err
	}
	s := ses.server
	s.mu.Lock()
	s.counts.Requested++
	made, refused := s.book.pair(s.clock.Now(), ses.party, m)
	if refused {
		s.counts.Refused++
		s.refuseLocked(ses.party, m.token)
	}
	s.setTimerLocked()
	s.mu.Unlock()
	if made != nil {
		s.make(made)
	}
	return nil
}

// refuseLocked tells a client that a token of its isn't going to be paired.
// That of the npm package doesn't know the message, so its channel is closed
// unless it is needed for something else.
func (s *Server) refuseLocked(p *party, token Token) {
	ses := s.sessions[p]
	if ses == nil || ses.channel == nil {
		return
	}
	ses.channel.Send(messageUnpair, appendUnpair(nil, token)) // a mux that is full is about to end
	if p.idle() {
		ses.channel.Close()
	}
}

// make makes the wire of a link, and tells both sides of it.
func (s *Server) make(l *link) {
	s.mu.Lock()
	if !s.book.has(l) {
		s.mu.Unlock()
		return // who left has taken the link along
	}
	var peers [2]peer
	for i, side := range l.sides {
		ses := s.sessions[side.party]
		peers[i] = peer{side.id, ses.meter, ses.conn}
	}
	s.mu.Unlock()
	w, err := s.join(peers, func() { s.ended(l) })
	s.mu.Lock()
	if err != nil {
		s.counts.Refused++
		s.book.end(l)
		for _, side := range l.sides {
			s.refuseLocked(side.party, l.token)
		}
		s.mu.Unlock()
		return
	}
	if !s.book.has(l) { // meanwhile somebody has left
		s.mu.Unlock()
		w.close()
		return
	}
	defer s.mu.Unlock()
	s.wires[l] = w
	s.counts.Matched++
	ids := w.ids()
	for i, side := range l.sides {
		if ses := s.sessions[side.party]; ses.channel != nil {
			ses.channel.Send(messagePair, pairMessage{i == 1, l.token, ids[i]}.append(nil))
		}
	}
}

// ended forgets a link whose streams were closed.
func (s *Server) ended(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, l)
	s.book.end(l)
}

func (ses *session) onUnpair(_ *protomux.Channel, payload []byte) error {
	token, err := decodeUnpair(payload)
	if err != nil {
		return err
	}
	s := ses.server
	s.mu.Lock()
	cancelled, ended := s.book.unpair(ses.party, token)
	if cancelled != nil || ended != nil {
		s.counts.Cancelled++
	}
	if cancelled != nil {
		for _, side := range cancelled.sides {
			if side != nil && side.party != ses.party {
				s.refuseLocked(side.party, token)
			}
		}
	}
	wires := s.takeWiresLocked(ended)
	s.mu.Unlock()
	closeAll(wires)
	return nil
}

// setTimerLocked sees to it that tokens expire.
func (s *Server) setTimerLocked() {
	next, ok := s.book.next()
	if s.timer != nil || !ok {
		return
	}
	s.timer = s.clock.AfterFunc(next.Sub(s.clock.Now()), s.expire)
}

func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	for _, w := range s.book.expire(s.clock.Now()) {
		s.counts.Expired++
		for _, side := range w.sides {
			if side != nil {
				s.refuseLocked(side.party, w.token)
			}
		}
	}
	s.setTimerLocked()
}

// Options for a server. UDX is needed.
type Options struct {
	// UDX has the sockets that the streams of clients come to.
	UDX *udx.UDX
	// Allow tells whether a client with that key is served: everyone is if it is
	// nil.
	Allow func(noise.Key) bool
	// Limits bound what the relay does.
	Limits Limits
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}
