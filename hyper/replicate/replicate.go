// Package replicate keeps a log equal on several machines: it tells peers what is
// held here, gives them what they ask for, and fetches what is wanted from those
// that have it. Everything that comes in is proven before it is kept.
//
// It speaks the replication protocol of the npm package hypercore 11 (and 10)
// over channels of hyper/protomux. A [Replicator] serves one log; package
// corestore makes them for all logs of a store. It opens no connections.
//
//	r, err := replicate.New(log, replicate.Options{})
//	err = r.Attach(conn)            // for each connection
//	err = log.Download(ctx, hypercore.DownloadRange{})
//	err = r.Close()
//
// # Inside
//
// A machine, which is a value without goroutines, clocks and sockets, is the
// protocol and the scheduler. The Replicator around it runs it: messages come in
// by the functions of channels, and what is to be done with the log is done by
// one goroutine, which ends when there is nothing left to do. So what is idle
// costs no more than its memory.
//
// # Whom it trusts
//
// Nobody. A peer that sends what does not prove, breaks the protocol, or does not
// answer is dropped with a reason that [Replicator.Peers] and Options.Dropped
// name; what it can make us keep is bounded. If it is the log's writer who signed
// two histories, the log is frozen and the evidence is kept with it.
package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// The kinds of error of this package. They come wrapped: test with errors.Is.
var (
	// ErrPeer: a peer lies, stalls, floods or breaks the protocol.
	ErrPeer = errors.New("bad peer")
	// ErrNoPeer: there is no connection to fetch from.
	ErrNoPeer = errors.New("no peer is connected")
	// ErrClosed: the replicator was closed.
	ErrClosed = errors.New("replicator is closed")
	// ErrDenied: the peer may not have the log.
	ErrDenied = errors.New("denied")
)

// Access says what a peer may do with a log.
type Access struct {
	Upload   bool // get from us
	Download bool // give to us
}

// Full is all there is to allow.
var Full = Access{Upload: true, Download: true}

// Options for a replicator. The zero value is right.
type Options struct {
	// NoPush sends and takes only what was asked for. Otherwise the writer of a log
	// sends small new blocks at once to peers that follow it live, which saves them
	// a round trip.
	NoPush bool
	// MaxInFlight bounds the bytes that are asked for or not stored yet, of one
	// log; 8 MiB when 0.
	MaxInFlight int
	// StallLimit is how long a peer may take for an answer before it is dropped;
	// 30 s when 0. Others are asked much sooner.
	StallLimit time.Duration
	// Upload limits what all replicators that share it send; nil does not.
	Upload *Limit
	// Dropped is told of peers that were dropped for a reason. It must return soon.
	Dropped func(PeerInfo)
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

func (o *Options) fill() {
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 8 << 20
	}
	if o.StallLimit == 0 {
		o.StallLimit = 30 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
}

// A Conn is a connection to a peer, which carries channels of many logs.
type Conn struct {
	Mux *protomux.Mux
	// HandshakeHash and Initiator are those of the stream: what shows that one has
	// a log's key is bound to them.
	HandshakeHash [noise.HashSize]byte
	Initiator     bool
	Key           noise.Key // of the peer
	Name          string    // of the peer, for people
}

// Knows checks the handshake that the peer opens a log's channel with: whether it
// shows that the peer has the log's key.
func (c *Conn) Knows(key hypercore.Key, handshake []byte) error {
	h, err := readHandshake(handshake)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPeer, c.Name, err)
	}
	if h.capability != key.Capability(!c.Initiator, c.HandshakeHash[:]) {
		return fmt.Errorf("%w: %s does not have the key of log %s: wrong capability", ErrPeer, c.Name, key)
	}
	return nil
}

// A Replicator replicates one log. Its methods may be called by any goroutine.
type Replicator struct {
	log    *hypercore.Log
	o      Options
	ctx    context.Context
	stop   context.CancelFunc
	quiet  func() // stops the log's events
	onIdle func()

	eventsMu sync.Mutex
	events   []hypercore.Event
	stale    atomic.Bool // the log may have changed since the machine was told

	mu       sync.Mutex // guards what follows
	m        machine
	links    map[*Conn]*link
	ext      map[string]func(Message)
	working  bool
	timer    clock.Timer
	closed   bool
	routines sync.WaitGroup
	dropped  []PeerInfo // to be told of
}

// A link is what the replicator has of one connection.
type link struct {
	conn    *Conn
	access  Access
	channel *protomux.Channel // nil while there is none
	peer    *peer
	banned  error // why there will be none any more
}

// New returns a replicator of a log and makes it the log's source. The session is
// the replicator's until Close returns, and stays the caller's to close.
func New(log *hypercore.Log, o Options) (*Replicator, error) {
	o.fill()
	r := &Replicator{log: log, o: o, links: map[*Conn]*link{}, ext: map[string]func(Message){}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.m.init(log, o)
	quiet, err := log.Notify(r.event)
	if err != nil {
		return nil, fmt.Errorf("replicate log %s: %w", log.Key(), err)
	}
	r.quiet = quiet
	r.stale.Store(true)
	log.SetSource(r)
	return r, nil
}

// event takes an event of the log.
func (r *Replicator) event(e hypercore.Event) {
	r.eventsMu.Lock()
	if n := len(r.events); n > 0 && e.Kind == hypercore.Received && r.events[n-1].Kind == e.Kind && r.events[n-1].Range.End == e.Range.Start {
		r.events[n-1].Range.End = e.Range.End
	} else if n > maxEvents {
		r.events = append(r.events[:0], hypercore.Event{Kind: hypercore.Lagged})
	} else {
		r.events = append(r.events, e)
	}
	r.eventsMu.Unlock()
	if !r.stale.Swap(true) {
		r.routines.Go(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.workLocked()
		})
	}
}

// maxEvents bounds the events that wait.
const maxEvents = 4096

// step runs the machine, and does what it asks for.
func (r *Replicator) step(f func()) {
	r.mu.Lock()
	defer r.unlock()
	r.m.now = r.o.Clock.Now()
	f()
	r.flushLocked()
}

// unlock also tells of peers that were dropped.
func (r *Replicator) unlock() {
	dropped := r.dropped
	r.dropped = nil
	r.mu.Unlock()
	if r.o.Dropped != nil {
		for _, p := range dropped {
			r.o.Dropped(p)
		}
	}
}

// flushLocked sends what is to be sent, closes what is to be closed, and sees
// that the work is done.
func (r *Replicator) flushLocked() {
	m := &r.m
	for i := 0; i < len(m.out); {
		l := m.out[i].peer.link
		l.conn.Mux.Cork()
		for ; i < len(m.out) && m.out[i].peer.link == l; i++ {
			o := &m.out[i]
			if l.channel == nil || o.peer != l.peer {
				continue
			}
			// It fails when the channel is closed, or when the peer does not read.
			if err := l.channel.Send(o.number, m.buf[o.start:o.end]); errors.Is(err, protomux.ErrFull) {
				m.drop(o.peer, fmt.Errorf("%w: it does not read: %w", ErrPeer, err))
			}
		}
		l.conn.Mux.Uncork()
	}
	m.out = m.out[:0]
	if m.buf = m.buf[:0]; cap(m.buf) > 1<<20 {
		m.buf = nil
	}
	for len(m.gone) > 0 {
		p := m.gone[0]
		m.gone = m.gone[1:]
		r.closeLocked(p)
	}
	for _, p := range m.peers {
		if len(p.queue) > 0 && !p.serving {
			r.serveLocked(p)
		}
	}
	r.workLocked()
	r.timeLocked()
}

// closeLocked closes the channel of a peer that was dropped.
func (r *Replicator) closeLocked(p *peer) {
	l := p.link
	if p.stats.Dropped != nil {
		l.banned = p.stats.Dropped
		r.dropped = append(r.dropped, r.infoLocked(l))
	}
	if l.channel != nil && l.peer == p {
		l.channel.Close()
		l.channel, l.peer = nil, nil
	}
	r.checkIdleLocked()
}

func (r *Replicator) checkIdleLocked() {
	if r.onIdle != nil && !r.closed && !r.busyLocked() {
		go r.onIdle()
	}
}

func (r *Replicator) busyLocked() bool {
	if r.m.active() {
		return true
	}
	for _, l := range r.links {
		if l.channel != nil {
			return true
		}
	}
	return false
}

// Busy reports whether a peer is connected for the log, or something of it is
// wanted.
func (r *Replicator) Busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busyLocked()
}

// OnIdle makes f be called whenever Busy has become false.
func (r *Replicator) OnIdle(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onIdle = f
}

// timeLocked sees that the machine is woken while time matters.
func (r *Replicator) timeLocked() {
	if r.timer != nil || r.closed || !r.m.waiting() {
		return
	}
	r.timer = r.o.Clock.AfterFunc(tickEvery, func() {
		r.step(func() {
			r.timer = nil
			if !r.closed {
				r.m.tick()
			}
		})
	})
}

const tickEvery = 100 * time.Millisecond

// workLocked starts the goroutine that works with the log, if there is work.
func (r *Replicator) workLocked() {
	if r.working || r.closed || len(r.links) == 0 || !r.stale.Load() && !r.m.hasJob() {
		return
	}
	r.working = true
	r.routines.Go(r.work)
}

func (r *Replicator) work() {
	for {
		r.mu.Lock()
		j := r.m.job()
		if j == nil && !r.stale.Load() || r.closed {
			r.working = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if j != nil {
			j.run(r.ctx, r.log)
		}
		var head hypercore.Head
		var events []hypercore.Event
		var err error
		changed := r.stale.Swap(false)
		if changed {
			r.eventsMu.Lock()
			events, r.events = r.events, nil
			r.eventsMu.Unlock()
			head, err = r.log.Publish(r.ctx)
		}
		r.step(func() {
			switch {
			case r.closed:
			case err != nil:
				r.m.fail(err)
			case changed:
				r.m.changed(head, events)
			}
			if j != nil && !r.closed {
				r.m.done(j)
			}
		})
		if j != nil && j.stored == nil {
			for _, a := range j.answers {
				a.recycle()
			}
		}
	}
}

// Attach offers the log to a peer. The channel is opened now if somebody here
// uses the log (see SetDownloading); otherwise when the peer asks, see Open.
func (r *Replicator) Attach(c *Conn, a Access) error {
	if !a.Upload && !a.Download {
		return fmt.Errorf("replicate log %s with %s: %w", r.log.Key(), c.Name, ErrDenied)
	}
	var err error
	r.step(func() {
		if r.closed {
			err = ErrClosed
			return
		}
		if r.links[c] == nil {
			r.links[c] = &link{conn: c, access: a}
		}
		if r.m.active() {
			err = r.openLocked(r.links[c])
		}
	})
	return err
}

// Open opens the channel with a peer that the log is attached to: it has asked
// for it. Who may not is told no.
func (r *Replicator) Open(c *Conn) error {
	var err error
	r.step(func() {
		l := r.links[c]
		switch {
		case r.closed:
			err = ErrClosed
		case l == nil:
			err = ErrDenied
		default:
			err = r.openLocked(l)
		}
	})
	return err
}

// Detach forgets a connection that has ended.
func (r *Replicator) Detach(c *Conn) {
	r.step(func() {
		l := r.links[c]
		if l == nil {
			return
		}
		delete(r.links, c)
		if l.peer != nil {
			r.m.removePeer(l.peer)
			l.channel.Close()
			l.channel, l.peer = nil, nil
		}
		r.m.checkUpdates()
		r.checkIdleLocked()
	})
}

func (r *Replicator) openLocked(l *link) error {
	if l.channel != nil {
		return nil
	}
	if l.banned != nil {
		return l.banned
	}
	if r.m.frozen || r.log.Frozen() != nil {
		return fmt.Errorf("log %s: %w", r.log.Key(), hypercore.ErrFrozen)
	}
	c := l.conn
	p := &peer{access: l.access, link: l}
	id := r.log.Discovery()
	h := handshake{seeks: true, capability: r.log.Key().Capability(c.Initiator, c.HandshakeHash[:])}
	o := protomux.ChannelOptions{
		Protocol: protocol, Aliases: []string{alias}, ID: id[:], Handshake: h.encode(),
		Messages: make([]func(*protomux.Channel, []byte) error, messages),
		OnOpen:   func(_ *protomux.Channel, b []byte) error { return r.opened(p, b) },
		OnFrame:  func(*protomux.Channel) { r.step(func() { r.m.received(p) }) },
		OnClose:  func(_ *protomux.Channel, reason error) { r.channelClosed(p, reason) },
		OnDrain:  func(*protomux.Channel) { r.serve(p) },
	}
	for n := range o.Messages {
		o.Messages[n] = func(_ *protomux.Channel, b []byte) error { return r.receive(p, n, b) }
	}
	channel, err := c.Mux.Open(o)
	if err != nil {
		return fmt.Errorf("replicate log %s with %s: %w", r.log.Key(), c.Name, err)
	}
	l.channel, l.peer = channel, p
	p.stats.Since = r.m.now
	r.m.addPeer(p)
	return nil
}

// opened is told that the other side has opened the channel, too.
func (r *Replicator) opened(p *peer, b []byte) error {
	c := p.link.conn
	if err := c.Knows(r.log.Key(), b); err != nil {
		return err
	}
	h, err := readHandshake(b)
	if err != nil {
		return err
	}
	r.step(func() {
		if !p.closed {
			r.m.opened(p, h.seeks)
		}
	})
	return nil
}

// channelClosed is told that a channel was closed, by whomever.
func (r *Replicator) channelClosed(p *peer, reason error) {
	r.step(func() {
		l := p.link
		if l.peer != p {
			return
		}
		wasOpen, uses := p.opened, p.remote.downloading
		l.channel, l.peer = nil, nil
		r.m.removePeer(p)
		r.m.checkUpdates()
		// The other side may have thought that nobody needs the channel, when
		// somebody began to.
		if errors.Is(reason, protomux.ErrClosed) && wasOpen && !uses && r.m.active() && !r.closed && r.links[l.conn] == l && l.conn.Mux.Err() == nil {
			_ = r.openLocked(l) // if it fails, the connection is over
		}
		r.checkIdleLocked()
	})
}

// receive takes a message from a channel.
func (r *Replicator) receive(p *peer, number int, payload []byte) error {
	if number == msgExtension {
		return r.extension(p, payload)
	}
	var d dataMessage
	var err error
	if number == msgData {
		d, err = readData(payload)
	}
	r.mu.Lock()
	defer r.unlock()
	r.m.now = r.o.Clock.Now()
	if number == msgData {
		err = r.m.receiveData(p, d, err)
	} else {
		err = r.m.receive(p, number, payload)
	}
	if err != nil {
		p.stats.Dropped = err
		r.dropped = append(r.dropped, r.infoLocked(p.link))
		return fmt.Errorf("log %s: %s: %s: %w", r.log.Key(), p.link.conn.Name, messageNames[number], err)
	}
	return nil // what it leads to is sent after the frame
}

// serveLocked answers a peer in a goroutine of its own.
func (r *Replicator) serveLocked(p *peer) {
	if !r.closed && !p.limited && p.link.channel != nil && p.link.conn.Mux.Drained() {
		p.serving = true
		r.routines.Go(func() { r.answer(p) })
	}
}

// serve answers a peer that takes more again.
func (r *Replicator) serve(p *peer) {
	r.mu.Lock()
	if p.serving || r.closed || len(p.queue) == 0 {
		r.mu.Unlock()
		return
	}
	p.serving = true
	r.routines.Add(1)
	r.mu.Unlock()
	defer r.routines.Done()
	r.answer(p)
}

// answerBytes is about how much is answered at a time.
const answerBytes = 128 << 10

// answer answers the requests of a peer while it takes the answers.
func (r *Replicator) answer(p *peer) {
	a := answering.Get().(*answerBuffers)
	defer answering.Put(a)
	for {
		r.mu.Lock()
		channel := p.link.channel
		if r.closed || p.closed || channel == nil || p.link.peer != p || len(p.queue) == 0 || !channel.Mux().Drained() || r.waitLocked(p) {
			p.serving = false
			if p.pushing {
				r.m.pushDone(p)
				r.flushLocked()
			}
			if p.closing != nil && len(p.queue) == 0 && !p.closed {
				r.m.drop(p, p.closing)
				r.flushLocked()
			}
			r.unlock()
			return
		}
		batch := p.unqueue(64)
		r.mu.Unlock()
		channel.Cork()
		sent := 0
		for i, q := range batch {
			if sent >= answerBytes {
				r.mu.Lock()
				p.requeue(batch[i:])
				r.mu.Unlock()
				break
			}
			sent += r.answerOne(p, channel, q, a)
		}
		channel.Uncork()
		r.o.Upload.take(sent, r.o.Clock.Now())
	}
}

// blockRoom is more than what is read with a block.
const blockRoom = 128

// answerBuffers are what answers are made in.
type answerBuffers struct{ block, message []byte }

var answering = sync.Pool{New: func() any { return &answerBuffers{make([]byte, 0, 66<<10), make([]byte, 0, 4<<10)} }}

// answerOne answers one request and returns the size of the answer.
func (r *Replicator) answerOne(p *peer, channel *protomux.Channel, q *requestMessage, a *answerBuffers) int {
	proof, err := r.prove(p, q, a.block)
	buf := a.message[:0]
	if err != nil {
		if q.id == 0 {
			return 0
		}
		reason := uint64(notAvailable)
		if errors.Is(err, merkle.ErrRequest) {
			reason = invalidRequest
		}
		buf = appendNoData(buf, q.id, reason)
		_ = channel.Send(msgNoData, buf) // a channel that is closed needs no answer
		r.mu.Lock()
		defer r.unlock()
		if reason == invalidRequest {
			p.stats.Invalid++
			if p.invalid++; p.invalid >= maxInvalid {
				r.m.drop(p, fmt.Errorf("%w: %d requests that can't be answered: %w", ErrPeer, p.invalid, err))
				r.flushLocked()
			}
		}
		return len(buf)
	}
	if b := proof.Block; b != nil && len(b.Value) > cap(a.block)-blockRoom && len(b.Value) <= pooledMax {
		a.block = make([]byte, 0, 2*len(b.Value)+blockRoom) // for the next
	}
	head, block, tail := proof.DataParts(buf, q.id)
	size := len(head) + len(block) + len(tail)
	if err := channel.Send(msgData, head, block, tail); err == nil {
		r.mu.Lock()
		p.stats.Up += uint64(size)
		if proof.Block != nil {
			p.stats.BlocksUp++
		}
		r.mu.Unlock()
	}
	return size
}

func (r *Replicator) prove(p *peer, q *requestMessage, buf []byte) (*hypercore.Proof, error) {
	if !p.access.Upload && q.id != 0 {
		return nil, ErrDenied
	}
	if fork := r.log.Fork(); q.fork != fork {
		if q.manifest && r.log.Manifest() != nil && !r.log.Compat() {
			return &hypercore.Proof{Proof: merkle.Proof{Fork: fork}, Manifest: r.log.Manifest()}, nil
		}
		return nil, fmt.Errorf("fork %d: %w", q.fork, hypercore.ErrNotFound)
	}
	if b := q.want.Block; b != nil && !r.log.Has(b.Index) {
		return nil, fmt.Errorf("block %d: %w", b.Index, hypercore.ErrNotFound)
	}
	proof, err := r.log.ProveIn(r.ctx, q.want, q.manifest, buf)
	if err == nil && proof.Fork != q.fork {
		return nil, fmt.Errorf("fork %d: %w", q.fork, hypercore.ErrNotFound)
	}
	return proof, err
}

// waitLocked reports whether the upload limit is reached, and sees that the
// answering goes on later.
func (r *Replicator) waitLocked(p *peer) bool {
	d := r.o.Upload.wait(r.o.Clock.Now())
	if d <= 0 {
		return false
	}
	if !p.limited {
		p.limited = true
		r.o.Clock.AfterFunc(d, func() {
			r.mu.Lock()
			p.limited = false
			r.mu.Unlock()
			r.serve(p)
		})
	}
	return true
}

// SetDownloading says whether somebody here uses the log: then it is opened with
// all peers, and its newest heads are fetched. It is false at first.
func (r *Replicator) SetDownloading(on bool) {
	r.step(func() {
		r.m.setDownloading(on)
		r.reopenLocked()
	})
}

// SetFinding says whether connections are being made: then what is wanted is
// waited for, even while there is no peer.
func (r *Replicator) SetFinding(on bool) {
	r.step(func() {
		r.m.connecting = 0
		if on {
			r.m.connecting = 1
			return
		}
		if len(r.links) == 0 {
			r.m.fail(fmt.Errorf("%w: %w", ErrNoPeer, hypercore.ErrNotFound))
		}
		r.m.checkUpdates()
	})
}

// reopenLocked opens the channels that are not, as something is wanted.
func (r *Replicator) reopenLocked() {
	if !r.m.active() || r.closed {
		return
	}
	for _, l := range r.links {
		if l.channel == nil && l.banned == nil {
			_ = r.openLocked(l) // a connection that is over is detached soon
		}
	}
}

// fetch makes the machine want something, and waits for it.
func (r *Replicator) fetch(ctx context.Context, want func(*waiter)) error {
	w := newWaiter()
	var err error
	r.step(func() {
		switch {
		case r.closed:
			err = ErrClosed
		case r.m.frozen:
			err = hypercore.ErrFrozen
		case len(r.links) == 0 && r.m.connecting == 0:
			err = fmt.Errorf("%w: %w", ErrNoPeer, hypercore.ErrNotFound)
		default:
			want(w)
			r.reopenLocked()
		}
	})
	if err != nil {
		return err
	}
	select {
	case err = <-w.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	r.step(func() {
		if !w.settled {
			w.settled = true
			w.forget()
		}
		for _, p := range r.m.peers {
			r.m.sync(p, false)
		}
		r.m.closeIdle()
		r.checkIdleLocked()
	})
	return err
}

// FetchBlock implements hypercore.Source. It waits for a peer that has the block
// as long as ctx lasts; one with a deadline comes before others.
func (r *Replicator) FetchBlock(ctx context.Context, index uint64) error {
	deadline, _ := ctx.Deadline()
	return r.fetch(ctx, func(w *waiter) { r.m.wantBlock(index, deadline, w) })
}

// FetchRange implements hypercore.Source.
func (r *Replicator) FetchRange(ctx context.Context, d hypercore.DownloadRange) error {
	end := d.To
	if end == 0 && d.Live {
		end = noBlock
	}
	return r.fetch(ctx, func(w *waiter) {
		r.m.wantRange(&rangeWant{Range: runs.Range{Start: d.From, End: end}, linear: d.Linear, waiter: w})
	})
}

// FetchSeek implements hypercore.Source.
func (r *Replicator) FetchSeek(ctx context.Context, pos, padding uint64, among hypercore.Range) error {
	return r.fetch(ctx, func(w *waiter) {
		r.m.wantSeek(&seekWant{bytes: pos, padding: padding, among: among, waiter: w})
	})
}

// FetchHead implements hypercore.Source: it returns when no peer has a newer head.
func (r *Replicator) FetchHead(ctx context.Context) error {
	err := r.fetch(ctx, r.m.wantUpdate)
	if errors.Is(err, ErrNoPeer) {
		return nil // nobody has a newer one
	}
	return err
}

// Close closes the channels, and fails what waits. It returns when nothing of the
// replicator uses the log any more.
func (r *Replicator) Close() error {
	r.quiet()
	r.stop()
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		r.log.SetSource(nil)
		r.m.fail(ErrClosed)
		if r.timer != nil {
			r.timer.Stop()
		}
		for c, l := range r.links {
			if l.channel != nil {
				r.m.removePeer(l.peer)
				l.channel.Close()
				l.channel, l.peer = nil, nil
			}
			delete(r.links, c)
		}
	}
	r.mu.Unlock()
	r.routines.Wait()
	return nil
}

func isConflict(err error) bool {
	return errors.Is(err, hypercore.ErrConflict) || errors.Is(err, hypercore.ErrFork)
}

func isLie(err error) bool {
	return errors.Is(err, merkle.ErrProof) || errors.Is(err, hypercore.ErrSignature) || errors.Is(err, hypercore.ErrManifest)
}
