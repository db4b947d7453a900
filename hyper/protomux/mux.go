package protomux

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// A Mux is one side of a stream with many channels. Its methods may be called
// by any goroutine, but frames are to be received one after the other.
type Mux struct {
	maxChannels int
	maxQueued   int

	// handling is held while functions of channels run. It comes before mu.
	handling sync.Mutex
	framed   []*Channel // had messages, and OnFrame is due; guarded by handling

	// mu guards what follows.
	mu     sync.Mutex
	ended  bool
	err    error // why it has ended; nil if it was closed
	pairs  map[pairKey]func(*Request)
	groups map[pairKey]*group

	local   []*port  // by number, less one; nil is free
	free    []uint64 // numbers in local that are free, the newest last
	remote  []*inlet // by number, less one; nil is unused
	inlets  int      // in remote
	waiting int      // accounted bytes for inlets without a channel
	resumed chan struct{}

	out      Frames
	corked   int
	batching bool          // out ends in a batch that is not whole, only while corked
	batchAt  int           // where it begins
	batched  uint64        // the channel of its last message
	pressure bool          // out was over highWater
	drained  chan struct{} // closed when it no longer is; nil if nobody waits
	scratch  [16]byte

	events      []event
	nextEvent   int
	dispatching bool

	shell *shell // nil if not served
}

type pairKey struct{ protocol, id string }

// A group is what channels of one protocol and id have in common.
type group struct {
	keys     []pairKey
	opened   int      // channels of ours that are not closed
	incoming []*inlet // opened by the other side, not by us
	outgoing []*port  // opened by us, and not answered
}

// A port is a number of ours for a channel. It stays in use until the other
// side has answered.
type port struct {
	id       uint64
	group    *group
	channel  *Channel // nil if it was closed before the answer
	inlet    *inlet   // the other side of it; nil before the answer and after a close
	answered bool
}

// An inlet is a number of the other side's for a channel.
type inlet struct {
	id        uint64
	group     *group
	channel   *Channel // nil until we open it
	handshake []byte
	pending   []message // what came before that
	closed    bool      // the other side closed it before that
}

type message struct {
	number  uint64
	payload []byte
}

// size is what a message counts while it is kept.
func (m message) size() int { return perMessage + len(m.payload) }

func (i *inlet) size() int {
	n := perMessage + len(i.handshake)
	for _, m := range i.pending {
		n += m.size()
	}
	return n
}

// An event is a call to come of a function of a channel.
type event struct {
	kind    eventKind
	channel *Channel
	request *Request
	message
	reason error
}

type eventKind uint8

const (
	eventRequest eventKind = iota
	eventOpen
	eventMessage
	eventClosing // by the other side: the channel is yet to be closed here
	eventClosed
	eventDrain
)

// New returns a mux without channels.
func New(o Options) *Mux {
	m := &Mux{
		maxChannels: o.MaxChannels,
		maxQueued:   o.MaxQueued,
		pairs:       map[pairKey]func(*Request){},
		groups:      map[pairKey]*group{},
	}
	if m.maxChannels <= 0 {
		m.maxChannels = DefaultMaxChannels
	}
	if m.maxQueued <= 0 {
		m.maxQueued = DefaultMaxQueued
	}
	return m
}

// Pair makes notify the one to be told when the other side opens a channel of
// that protocol and id which this side has not opened, or of that protocol and
// any id if id is empty and the id has nobody else. It may open the channel,
// or hold the request; if it does neither, the channel is rejected. It is
// called as the functions of channels are, see [ChannelOptions].
func (m *Mux) Pair(protocol string, id []byte, notify func(*Request)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pairs[pairKey{protocol, string(id)}] = notify
}

// Unpair takes back what Pair did.
func (m *Mux) Unpair(protocol string, id []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pairs, pairKey{protocol, string(id)})
}

func (m *Mux) pairedLocked(protocol, id string) func(*Request) {
	if notify := m.pairs[pairKey{protocol, id}]; notify != nil {
		return notify
	}
	return m.pairs[pairKey{protocol, ""}]
}

// Open opens a channel on this side. It answers the oldest request of the
// other side for that protocol and id, if there is one. Messages may be sent
// at once. It fails with ErrExists, ErrTooMany, ErrTooLarge or ErrClosed.
func (m *Mux) Open(o ChannelOptions) (*Channel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, err := m.openableLocked(o)
	if err != nil {
		return nil, fmt.Errorf("open channel %s: %w", o.Protocol, err)
	}
	c := &Channel{mux: m, o: o}
	c.port = &port{id: m.takeIDLocked(), group: g, channel: c}
	m.local[c.port.id-1] = c.port
	g.opened++

	b := compact.AppendUint(nil, c.port.id)
	b = compact.AppendString(b, o.Protocol)
	b = compact.AppendOptionalBuffer(b, o.ID)
	m.controlLocked(controlOpen, b, o.Handshake)

	if len(g.incoming) == 0 {
		g.outgoing = append(g.outgoing, c.port)
		return c, nil
	}
	i := g.incoming[0]
	g.incoming = slices.Delete(g.incoming, 0, 1)
	m.waiting -= i.size()
	c.port.answered = true
	m.eventLocked(event{kind: eventOpen, channel: c, message: message{payload: i.handshake}})
	for _, p := range i.pending {
		m.eventLocked(event{kind: eventMessage, channel: c, message: p})
	}
	if i.closed {
		m.dropInletLocked(i)
		m.eventLocked(event{kind: eventClosing, channel: c, reason: ErrClosed})
	} else {
		i.channel, c.port.inlet = c, i
	}
	i.handshake, i.pending = nil, nil
	m.resumeLocked()
	return c, nil
}

// openableLocked returns the group of a channel that may be opened.
func (m *Mux) openableLocked(o ChannelOptions) (*group, error) {
	if m.ended {
		return nil, ErrClosed
	}
	if len(o.Protocol) > maxName || len(o.ID) > maxName || len(o.Handshake) > MaxPayload-2*maxName {
		return nil, ErrTooLarge
	}
	if len(m.local)-len(m.free) >= m.maxChannels {
		return nil, ErrTooMany
	}
	g := m.groupLocked(o)
	if !o.Shared && g.opened > 0 {
		return nil, ErrExists
	}
	return g, nil
}

// groupLocked returns the group that goes by the name or an alias, by either
// of which the other side may have opened it.
func (m *Mux) groupLocked(o ChannelOptions) *group {
	id := string(o.ID)
	names := append([]string{o.Protocol}, o.Aliases...)
	var g *group
	for _, name := range names {
		if g == nil {
			g = m.groups[pairKey{name, id}]
		}
	}
	if g == nil {
		g = &group{}
	}
	for _, name := range names {
		key := pairKey{name, id}
		if m.groups[key] == nil {
			m.groups[key] = g
			g.keys = append(g.keys, key)
		}
	}
	return g
}

func (m *Mux) forgetLocked(g *group) {
	if g.opened > 0 || len(g.incoming) > 0 || len(g.outgoing) > 0 {
		return
	}
	for _, key := range g.keys {
		delete(m.groups, key)
	}
}

func (m *Mux) takeIDLocked() uint64 {
	if n := len(m.free); n > 0 {
		id := m.free[n-1]
		m.free = m.free[:n-1]
		return id
	}
	m.local = append(m.local, nil)
	return uint64(len(m.local))
}

func (m *Mux) freeIDLocked(p *port) {
	m.local[p.id-1] = nil
	m.free = append(m.free, p.id)
}

// Has reports whether this side has a channel of that protocol and id that is
// not closed.
func (m *Mux) Has(protocol string, id []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.groups[pairKey{protocol, string(id)}]
	return g != nil && g.opened > 0
}

// Channels returns the channels of this side that are not closed.
func (m *Mux) Channels() []*Channel {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Channel
	for _, p := range m.local {
		if p != nil && p.channel != nil {
			list = append(list, p.channel)
		}
	}
	return list
}

// Err returns why the mux has ended: nil if it hasn't, or was closed.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Ended reports whether the mux has ended, or was closed. It has before its
// channels hear of it.
func (m *Mux) Ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// Cork keeps messages back, so that all until [Mux.Uncork] go in one frame, up
// to 8 MiB. Corks count.
func (m *Mux) Cork() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.corked++
}

// Uncork takes back one Cork. The last sends what was kept.
func (m *Mux) Uncork() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.corked == 0 {
		panic("protomux: uncorked what was not corked")
	}
	if m.corked--; m.corked == 0 {
		m.flushBatchLocked()
	}
}

// Drained reports whether less than 256 KiB is queued. A sender of much should
// wait for OnDrain, or in [Mux.Wait], while it is not.
func (m *Mux) Drained() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.pressure
}

// Wait blocks until Drained. It must not be called by functions of channels,
// which the reading of the stream waits for: the other side might wait for
// that before it reads on.
func (m *Mux) Wait(ctx context.Context) error {
	for {
		m.mu.Lock()
		if m.ended {
			m.mu.Unlock()
			return fmt.Errorf("wait for queue: %w", ErrClosed)
		}
		if !m.pressure {
			m.mu.Unlock()
			return nil
		}
		if m.drained == nil {
			m.drained = make(chan struct{})
		}
		drained := m.drained
		m.mu.Unlock()
		select {
		case <-drained:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// queueLocked queues a message of a channel, of which size is the length.
func (m *Mux) queueLocked(id, number uint64, size int, payload ...[]byte) {
	if m.ended {
		return
	}
	if m.corked == 0 {
		m.out.grow(size + maxOverhead)
		m.out.buf = appendMessage(compact.AppendUint(m.out.buf, id), number, payload)
		m.queuedLocked()
		return
	}
	entry := compact.SizeUint(number) + size
	if have := len(m.out.buf) - m.batchAt; m.batching && (have >= maxBatch || have+entry+maxOverhead > MaxFrame) {
		m.flushBatchLocked()
	}
	m.out.grow(size + maxOverhead)
	b := m.out.buf
	switch {
	case !m.batching:
		m.batching, m.batchAt = true, len(b)
		b = compact.AppendUint(append(b, 0, controlBatch), id)
	case m.batched != id:
		b = compact.AppendUint(append(b, 0), id)
	}
	m.batched = id
	m.out.buf = appendMessage(compact.AppendUint(b, uint64(entry)), number, payload)
}

func appendMessage(b []byte, number uint64, payload [][]byte) []byte {
	b = compact.AppendUint(b, number)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

// controlLocked queues a control message.
func (m *Mux) controlLocked(kind uint64, body ...[]byte) {
	size := 0
	for _, p := range body {
		size += len(p)
	}
	m.queueLocked(0, kind, size, body...)
}

func (m *Mux) flushBatchLocked() {
	if m.batching {
		m.batching = false
		m.queuedLocked()
	}
}

// queuedLocked is called with a frame more in m.out.
func (m *Mux) queuedLocked() {
	m.out.end()
	if len(m.out.buf) > highWater {
		m.pressure = true
	}
	if m.shell != nil {
		m.shell.wakeWriterLocked()
	}
}

// Take moves the frames that are to be sent to f, in place of what was in it,
// and reports whether there were any. Who takes them, and not through Serve,
// takes them again only once these are sent.
func (m *Mux) Take(f *Frames) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.takeLocked(f)
}

func (m *Mux) takeLocked(f *Frames) bool {
	f.reset()
	if m.batching && m.batchAt == 0 { // nothing is whole, and what there is stays
		f.shrink()
		return false
	}
	*f, m.out = m.out, *f
	if m.batching {
		m.out.buf = append(m.out.buf, f.buf[m.batchAt:]...)
		f.buf, m.batchAt = f.buf[:m.batchAt], 0
	}
	if f.Len() == 0 { // a pause, which large buffers do not outlive
		f.shrink()
		m.out.shrink()
	}
	if m.pressure {
		m.pressure = false
		m.wakeWaitersLocked()
		for _, p := range m.local {
			if p != nil && p.channel != nil && p.channel.o.OnDrain != nil {
				m.eventLocked(event{kind: eventDrain, channel: p.channel})
			}
		}
	}
	return f.Len() > 0
}

func (m *Mux) wakeWaitersLocked() {
	if m.drained != nil {
		close(m.drained)
		m.drained = nil
	}
}

// Receive takes a frame of the other side, and returns when the functions of
// channels have dealt with it. It does not keep the frame. An error is why the
// mux has ended. Nobody may call it while Serve runs.
func (m *Mux) Receive(frame []byte) error {
	m.handling.Lock()
	defer m.handling.Unlock()
	if len(frame) > 0 {
		if err := m.receive(frame); err != nil {
			m.end(fmt.Errorf("receive frame: %w", err))
		}
	}
	m.dispatchFrame()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended && m.err == nil {
		return ErrClosed
	}
	return m.err
}

func (m *Mux) receive(frame []byte) error {
	d := compact.NewDecoder(frame)
	id, number := d.Uint(), d.Uint()
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if id == 0 && number == controlBatch {
		return m.receiveBatch(&d)
	}
	return m.receiveMessage(id, number, d.Rest())
}

// receiveBatch receives the messages of a batch. If there are several, what is
// sent meanwhile becomes a batch, too.
func (m *Mux) receiveBatch(d *compact.Decoder) error {
	id := d.Uint()
	corked := false
	defer func() {
		if corked {
			m.Uncork()
		}
	}()
	for d.Err() == nil && d.Len() > 0 {
		n := d.Uint()
		if n == 0 {
			id = d.Uint()
			continue
		}
		if n > uint64(d.Len()) {
			d.Fail("batch", compact.ErrShort)
			break
		}
		entry := compact.NewDecoder(d.Fixed(int(n)))
		if d.Len() > 0 && !corked {
			m.Cork()
			corked = true
		}
		number := entry.Uint()
		if err := entry.Err(); err != nil {
			return fmt.Errorf("%w: message in a batch: %w", ErrProtocol, err)
		}
		if id == 0 && number == controlBatch {
			return fmt.Errorf("%w: batch in a batch", ErrProtocol)
		}
		if err := m.receiveMessage(id, number, entry.Rest()); err != nil {
			return err
		}
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: batch: %w", ErrProtocol, err)
	}
	return nil
}

// receiveMessage receives one message, and lets the functions of channels deal
// with it.
func (m *Mux) receiveMessage(id, number uint64, payload []byte) error {
	m.mu.Lock()
	m.dispatching = true
	err := m.receiveLocked(id, number, payload)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.dispatch()
	return nil
}

func (m *Mux) receiveLocked(id, number uint64, payload []byte) error {
	if m.ended {
		return nil
	}
	if id == 0 {
		return m.receiveControlLocked(number, payload)
	}
	i := m.inletLocked(id)
	if i == nil || i.closed {
		return nil // sent before the other side knew that the channel was closed
	}
	if i.channel != nil {
		m.eventLocked(event{kind: eventMessage, channel: i.channel, message: message{number, payload}})
		return nil
	}
	kept := message{number, bytes.Clone(payload)}
	i.pending = append(i.pending, kept)
	return m.keepLocked(kept.size())
}

// keepLocked accounts for what is kept for an inlet without a channel.
func (m *Mux) keepLocked(size int) error {
	if m.waiting += size; m.waiting > maxBuffered {
		return fmt.Errorf("messages for channels that are not open: %w", ErrTooLarge)
	}
	return nil
}

func (m *Mux) inletLocked(id uint64) *inlet {
	if id == 0 || id > uint64(len(m.remote)) {
		return nil
	}
	return m.remote[id-1]
}

func (m *Mux) dropInletLocked(i *inlet) {
	if m.inletLocked(i.id) == i {
		m.remote[i.id-1] = nil
		m.inlets--
	}
}

func (m *Mux) receiveControlLocked(kind uint64, body []byte) error {
	d := compact.NewDecoder(body)
	id := d.Uint()
	var err error
	switch kind {
	case controlOpen:
		err = m.receiveOpenLocked(id, &d)
	case controlReject:
		err = m.receiveRejectLocked(id, &d)
	case controlClose:
		if d.Err() == nil {
			m.receiveCloseLocked(id)
		}
	default:
		return nil // of a newer protomux
	}
	if d.Err() != nil {
		return fmt.Errorf("%w: control message %d: %w", ErrProtocol, kind, d.Err())
	}
	return err
}

func (m *Mux) receiveOpenLocked(id uint64, d *compact.Decoder) error {
	protocol, topic := d.String(maxName), d.OptionalBuffer(maxName)
	handshake := d.Rest()
	if d.Err() != nil {
		return nil // the caller has it
	}
	if id == 0 || id > uint64(len(m.remote))+1 || m.inletLocked(id) != nil {
		return fmt.Errorf("%w: open with the number %d", ErrProtocol, id)
	}
	if id > 4*uint64(m.maxChannels) {
		return fmt.Errorf("the other side opened channel %d: %w", id, ErrTooMany)
	}
	if id > uint64(len(m.remote)) {
		m.remote = append(m.remote, nil)
	}
	key := pairKey{protocol, string(topic)}
	g := m.groups[key]
	if g != nil && len(g.outgoing) > 0 {
		m.answeredLocked(g, id, handshake)
		return nil
	}
	if m.pairedLocked(key.protocol, key.id) == nil || m.inlets >= m.maxChannels {
		return m.sendRejectLocked(id)
	}
	if g == nil {
		g = &group{keys: []pairKey{key}}
		m.groups[key] = g
	}
	i := &inlet{id: id, group: g, handshake: bytes.Clone(handshake)}
	m.remote[id-1] = i
	m.inlets++
	g.incoming = append(g.incoming, i)
	r := &Request{Protocol: protocol, ID: bytes.Clone(topic), Handshake: i.handshake, mux: m, inlet: i}
	m.eventLocked(event{kind: eventRequest, request: r})
	return m.keepLocked(i.size())
}

// answeredLocked joins an open of the other side to the oldest of ours.
func (m *Mux) answeredLocked(g *group, id uint64, handshake []byte) {
	p := g.outgoing[0]
	g.outgoing = slices.Delete(g.outgoing, 0, 1)
	p.answered = true
	if p.channel == nil { // closed meanwhile, and the other side is about to know
		m.freeIDLocked(p)
		m.forgetLocked(g)
		return
	}
	i := &inlet{id: id, group: g, channel: p.channel}
	p.inlet = i
	m.remote[id-1] = i
	m.inlets++
	m.eventLocked(event{kind: eventOpen, channel: p.channel, message: message{payload: handshake}})
}

func (m *Mux) receiveRejectLocked(id uint64, d *compact.Decoder) error {
	if d.Err() != nil {
		return nil // the caller has it
	}
	if id == 0 || id > uint64(len(m.local)) || m.local[id-1] == nil || m.local[id-1].answered {
		return fmt.Errorf("%w: reject of the number %d", ErrProtocol, id)
	}
	p := m.local[id-1]
	p.answered = true
	p.group.outgoing = slices.DeleteFunc(p.group.outgoing, func(o *port) bool { return o == p })
	if p.channel == nil {
		m.freeIDLocked(p)
		m.forgetLocked(p.group)
		return nil
	}
	m.eventLocked(event{kind: eventClosing, channel: p.channel, reason: ErrRejected})
	return nil
}

func (m *Mux) receiveCloseLocked(id uint64) {
	i := m.inletLocked(id)
	if i == nil {
		return // closed on both sides at once
	}
	if i.channel == nil {
		i.closed = true // whoever opens it still gets what was sent
		return
	}
	m.dropInletLocked(i)
	i.channel.port.inlet = nil
	m.eventLocked(event{kind: eventClosing, channel: i.channel, reason: ErrClosed})
}

// rejectLocked rejects a request that nobody has answered.
func (m *Mux) rejectLocked(i *inlet) {
	at := slices.Index(i.group.incoming, i)
	if at < 0 || m.ended {
		return
	}
	i.group.incoming = slices.Delete(i.group.incoming, at, at+1)
	m.waiting -= i.size()
	i.handshake, i.pending = nil, nil
	m.dropInletLocked(i)
	m.forgetLocked(i.group)
	m.resumeLocked()
	if err := m.sendRejectLocked(i.id); err != nil {
		m.endLocked(err)
	}
}

// sendRejectLocked is all that a peer can make us send for nothing, so it is
// here that a queue which is not read ends the mux.
func (m *Mux) sendRejectLocked(id uint64) error {
	if len(m.out.buf) > m.maxQueued {
		return fmt.Errorf("reject channel: %w", ErrFull)
	}
	m.controlLocked(controlReject, compact.AppendUint(m.scratch[:0], id))
	return nil
}

// closeLocked closes a channel on this side.
func (m *Mux) closeLocked(c *Channel, reason error) {
	c.closed = true
	p := c.port
	p.channel = nil
	if p.inlet != nil {
		m.dropInletLocked(p.inlet)
		p.inlet = nil
	}
	if p.answered {
		m.freeIDLocked(p)
	}
	p.group.opened--
	m.forgetLocked(p.group)
	m.eventLocked(event{kind: eventClosed, channel: c, reason: reason})
}

// eventLocked queues a call. If nobody makes the calls now, someone has to.
func (m *Mux) eventLocked(e event) {
	m.events = append(m.events, e)
	if m.shell != nil && !m.dispatching {
		m.shell.wakeDispatcherLocked()
	}
}

// Dispatch makes the calls that functions of channels are due, other than for
// frames that were received. Serve does so by itself.
func (m *Mux) Dispatch() {
	m.handling.Lock()
	defer m.handling.Unlock()
	m.dispatchFrame()
}

// dispatchFrame is dispatch after a whole frame, or when there is none.
func (m *Mux) dispatchFrame() {
	m.dispatch()
	for i := 0; i < len(m.framed); i++ {
		c := m.framed[i]
		c.framed = false
		if !c.Closed() {
			c.o.OnFrame(c)
		}
	}
	if len(m.framed) > 0 {
		clear(m.framed)
		m.framed = m.framed[:0]
		m.dispatch()
	}
}

// dispatch makes the calls that are due, in order. handling is held.
func (m *Mux) dispatch() {
	m.mu.Lock()
	m.dispatching = true
	for m.nextEvent < len(m.events) {
		e := m.events[m.nextEvent]
		m.events[m.nextEvent] = event{}
		m.nextEvent++
		call := m.callLocked(e)
		if call == nil {
			continue
		}
		m.mu.Unlock()
		err := call(e)
		if err != nil {
			m.end(err)
		}
		m.mu.Lock()
	}
	m.nextEvent = 0
	if m.events = m.events[:0]; cap(m.events) > 1024 {
		m.events = nil
	}
	m.dispatching = false
	m.mu.Unlock()
}

// callLocked applies an event and returns what is to be called, which may be
// nothing.
func (m *Mux) callLocked(e event) func(event) error {
	c := e.channel
	switch e.kind {
	case eventRequest:
		if !m.ended {
			return m.request
		}
	case eventOpen:
		if c.closed {
			return nil
		}
		c.opened = true
		if c.o.OnOpen != nil {
			return callOpen
		}
	case eventMessage:
		if !c.closed && e.number < uint64(len(c.o.Messages)) && c.o.Messages[e.number] != nil {
			if c.o.OnFrame != nil && !c.framed {
				c.framed = true
				m.framed = append(m.framed, c)
			}
			return callMessage
		}
	case eventClosing:
		if !c.closed {
			m.closeLocked(c, e.reason)
		}
	case eventClosed:
		if c.o.OnClose != nil {
			return callClose
		}
	case eventDrain:
		if !c.closed {
			return callDrain
		}
	}
	return nil
}

// request tells the one who is paired of a request, and rejects what is left
// unanswered.
func (m *Mux) request(e event) error {
	r := e.request
	m.mu.Lock()
	notify := m.pairedLocked(r.Protocol, string(r.ID))
	unanswered := slices.Contains(r.inlet.group.incoming, r.inlet)
	m.mu.Unlock()
	if notify != nil && unanswered {
		notify(r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !r.held {
		m.rejectLocked(r.inlet)
	}
	return nil
}

func callOpen(e event) error {
	if err := e.channel.o.OnOpen(e.channel, e.payload); err != nil {
		return fmt.Errorf("open channel %s: %w", e.channel.o.Protocol, err)
	}
	return nil
}

func callMessage(e event) error {
	if err := e.channel.o.Messages[e.number](e.channel, e.payload); err != nil {
		return fmt.Errorf("message %d of %s: %w", e.number, e.channel.o.Protocol, err)
	}
	return nil
}

func callClose(e event) error {
	e.channel.o.OnClose(e.channel, e.reason)
	return nil
}

func callDrain(e event) error {
	e.channel.o.OnDrain(e.channel)
	return nil
}

// Paused reports whether so much is kept for requests that were not answered
// that no more should be received. Serve keeps to it.
func (m *Mux) Paused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting > pauseBuffered
}

func (m *Mux) resumeLocked() {
	if m.resumed != nil && (m.ended || m.waiting <= pauseBuffered) {
		close(m.resumed)
		m.resumed = nil
	}
}

// Close closes all channels and, once what was sent is written, the stream.
func (m *Mux) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(nil)
}

// Destroy closes all channels and the stream at once. err is the reason that
// they get, and what Serve returns.
func (m *Mux) Destroy(err error) {
	if err == nil {
		err = ErrClosed
	}
	m.end(err)
}

func (m *Mux) end(err error) {
	m.mu.Lock()
	m.endLocked(err)
	shell := m.shell
	m.mu.Unlock()
	if shell != nil {
		shell.stream.Close() // the error that matters is err
	}
}

// endLocked closes all channels. With an error, what is queued is dropped.
func (m *Mux) endLocked(err error) {
	if m.ended {
		if m.err == nil && err != nil && err != io.EOF {
			m.out.reset() // closing took too long
		}
		return
	}
	m.flushBatchLocked()
	m.ended = true
	reason := err
	if err == io.EOF { // the other side has ended in order
		reason, err = ErrClosed, nil
	}
	m.err = err
	for _, p := range m.local {
		if p != nil && p.channel != nil {
			m.closeLocked(p.channel, reason)
		}
	}
	m.groups, m.remote, m.inlets, m.waiting = map[pairKey]*group{}, nil, 0, 0
	m.resumeLocked()
	m.wakeWaitersLocked()
	if err != nil {
		m.out.reset()
	}
	if m.shell != nil {
		m.shell.wakeWriterLocked()
	}
}
