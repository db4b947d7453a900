package cloud

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
)

// protocol is spoken between devices of a cloud, on a channel beside the logs.
// docs/formats/cloud.md has its messages.
const protocol = "bevy/cloud/1"

// The messages of the protocol.
const (
	messageHello = iota
	messageHoldings
	messagePing
	messagePong
	messageMine
	messageHeads
	messageOffered
)

// maxHello bounds what a peer may say at a time: a peer need not be of the cloud
// to say hello.
const maxHello = 256 << 10

// maxHoldings bounds what a device may say it has, and maxPings how many pings
// wait for an answer.
const (
	maxHoldings = 4 << 20
	maxPings    = 16
)

// A hello says who a device is, and where to read on.
type hello struct {
	// Chain are certificates from the device's up to the owner's.
	Chain [][]byte `json:"chain"`
	// Control are the device's control logs that it knows of.
	Control []writerRecord `json:"control"`
}

// A Holding is what a device has of a space.
type Holding struct {
	// Trees are how many blocks of each writer's tree it has, from the first on.
	Trees map[hypercore.Key]uint64 `json:"trees"`
	// Missing is how many bytes of contents it has not that are part of the space
	// as it knows it.
	Missing int64 `json:"missing,omitempty"`
	// Sparse says that it does not mean to have them all.
	Sparse bool `json:"sparse,omitempty"`
}

// A Peer is a connection to another device.
type Peer struct {
	cloud   *Cloud
	key     hypercore.Key
	mux     *protomux.Mux
	channel *protomux.Channel // set when it is a peer
	member  bool              // when the connection began

	heard    bool // a hello; for the mux's goroutine
	compared bool // it was heard what it has of our logs; likewise

	// Guarded by the cloud's mu.
	checked  bool // it has nothing of our own logs that we don't have: it may have them
	offered  bool // it has offered its own logs to us
	holdings map[string]Holding
	pings    map[uint64]func()
	behind   bool // it was not told of what has changed, as it reads too slowly
}

// Key is the public key of the other device.
func (p *Peer) Key() hypercore.Key { return p.key }

// Attacher returns what speaks with another device on a connection to it: for
// corestore.ReplicateOptions.Attached, with Access as its Allow. The peer is
// forgotten when the connection ends.
func (c *Cloud) Attacher(remote noise.Key) func(*protomux.Mux) {
	c.mu.Lock()
	// What it is now, before logs are offered to it: if it is another one by the
	// time that it is attached, it was offered what is not for it.
	member := c.roster.Has(remote)
	c.mu.Unlock()
	return func(mux *protomux.Mux) { c.attach(mux, remote, member) }
}

func (c *Cloud) attach(mux *protomux.Mux, remote noise.Key, member bool) {
	p := &Peer{cloud: c, key: hypercore.Key(remote), mux: mux, member: member, pings: map[uint64]func(){}}
	// It is in peers before anything can end it, and before it is looked at again.
	c.mu.Lock()
	c.peers[p] = true
	same := c.roster.Has(remote) == member
	c.mu.Unlock()
	if !same {
		c.forget(p)
		mux.Close()
		return
	}
	// A peer that does not know the protocol rejects the channel, and is one of
	// those that only read what is for everybody.
	ch, err := mux.Open(protomux.ChannelOptions{
		Protocol: protocol,
		Messages: []func(*protomux.Channel, []byte) error{p.onHello, p.onHoldings, p.onPing, p.onPong, p.onMine, p.onHeads, p.onOffered},
		OnOpen: func(ch *protomux.Channel, _ []byte) error {
			p.introduce(ch)
			return nil
		},
		OnDrain: func(ch *protomux.Channel) { p.catchUp(ch) },
		OnClose: func(*protomux.Channel, error) {
			c.forget(p)
			if p.member { // it has logs, and must be within reach while it does
				mux.Close()
			}
		},
	})
	if err != nil {
		c.forget(p)
		if p.member {
			mux.Close()
		}
		return
	}
	c.mu.Lock()
	p.channel = ch
	c.mu.Unlock()
}

func (c *Cloud) forget(p *Peer) {
	c.mu.Lock()
	delete(c.peers, p)
	lost := p.pings
	p.pings = nil
	c.mu.Unlock()
	for _, f := range lost {
		f()
	}
	if p.member {
		c.tell()
	}
}

// introduce says who this device is.
func (p *Peer) introduce(ch *protomux.Channel) {
	c := p.cloud
	c.mu.Lock()
	h := hello{Chain: c.secrets.Chain}
	self := c.secrets.pair().Public
	for _, r := range c.records[controlSpace] {
		if r.Device == self {
			h.Control = append(h.Control, r)
		}
	}
	h.Control = h.Control[:min(len(h.Control), maxControl)]
	c.mu.Unlock()
	if b, err := json.Marshal(h); err == nil {
		_ = ch.Send(messageHello, b) // the end of the channel says it, too
	}
	p.sendMine(ch)
	p.sendHoldings(ch)
}

// onHello hears who the other device is. One that is not known yet is let in if
// its certificate is good, and connects again to be treated as what it is.
func (p *Peer) onHello(_ *protomux.Channel, b []byte) error {
	if len(b) > maxHello || p.heard {
		return fmt.Errorf("hello of %d bytes, or another one", len(b))
	}
	p.heard = true
	var h hello
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	p.cloud.hear(p, h)
	return nil
}

// onHoldings hears what the other device has.
func (p *Peer) onHoldings(_ *protomux.Channel, b []byte) error {
	if !p.member {
		return nil
	}
	if len(b) > maxHoldings {
		return fmt.Errorf("holdings of %d bytes", len(b))
	}
	var h map[string]Holding
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("read holdings: %w", err)
	}
	p.cloud.mu.Lock()
	p.holdings = h
	p.cloud.mu.Unlock()
	p.cloud.tell()
	return nil
}

// sendHoldings tells the other device what this one has.
func (p *Peer) sendHoldings(ch *protomux.Channel) {
	if !p.member {
		return
	}
	p.cloud.mu.Lock()
	p.behind = !p.mux.Drained()
	behind := p.behind
	p.cloud.mu.Unlock()
	if behind {
		return // it reads them as they are then
	}
	holdings := p.cloud.Holdings()
	b, err := json.Marshal(holdings)
	for err == nil && len(b) > maxHoldings {
		// What it is not told of, it takes for not held.
		drop := len(holdings)/2 + 1
		for id := range holdings {
			if drop--; drop < 0 {
				break
			}
			delete(holdings, id)
		}
		b, err = json.Marshal(holdings)
	}
	if err == nil {
		_ = ch.Send(messageHoldings, b) // the end of the channel says it, too
	}
}

// catchUp tells the other device what it missed while it did not read.
func (p *Peer) catchUp(ch *protomux.Channel) {
	p.cloud.mu.Lock()
	behind := p.behind
	p.cloud.mu.Unlock()
	if behind {
		p.sendHoldings(ch)
	}
}

func (p *Peer) onPing(ch *protomux.Channel, b []byte) error {
	if len(b) == 8 && p.member && p.mux.Drained() {
		_ = ch.Send(messagePong, b)
	}
	return nil
}

func (p *Peer) onPong(_ *protomux.Channel, b []byte) error {
	if len(b) != 8 {
		return nil
	}
	n := binary.BigEndian.Uint64(b)
	p.cloud.mu.Lock()
	f := p.pings[n]
	delete(p.pings, n)
	p.cloud.mu.Unlock()
	if f != nil {
		f()
	}
	return nil
}

// errGone: the connection has ended.
var errGone = errors.New("the connection has ended")

// errPings: the other device has not answered the pings before.
var errPings = errors.New("it does not answer")

// Ping measures how long a message to the other device and back takes. It
// returns at once: done is called when the answer is there, or with an error
// when the connection ends.
func (p *Peer) Ping(done func(time.Duration, error)) {
	c := p.cloud
	began := c.clock.Now()
	c.mu.Lock()
	if p.pings == nil {
		c.mu.Unlock()
		done(0, errGone)
		return
	}
	if len(p.pings) >= maxPings {
		c.mu.Unlock()
		done(0, errPings)
		return
	}
	c.pinged++
	n := c.pinged
	p.pings[n] = func() {
		c.mu.Lock()
		gone := p.pings == nil
		c.mu.Unlock()
		if gone {
			done(0, errGone)
			return
		}
		done(c.clock.Now().Sub(began), nil)
	}
	c.mu.Unlock()
	if err := p.channel.Send(messagePing, binary.BigEndian.AppendUint64(nil, n)); err != nil {
		c.mu.Lock()
		f := p.pings[n]
		delete(p.pings, n)
		c.mu.Unlock()
		if f != nil {
			done(0, err)
		}
	}
}

// Peers returns the devices that are connected and have offered their logs.
func (c *Cloud) Peers() (list []*Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.peers {
		if p.offered {
			list = append(list, p)
		}
	}
	return list
}

// Holdings returns what the other device has said it has, by space.
func (p *Peer) Holdings() map[string]Holding {
	p.cloud.mu.Lock()
	defer p.cloud.mu.Unlock()
	return p.holdings
}

// Access says what a peer may do with a log: with those of the cloud everything
// if it is one of the cloud's devices, and otherwise nothing; with those that this
// device writes nothing until it is sure that the peer has no more of them; with
// others everything, as it has shown that it has the log's key. It is for
// corestore.ReplicateOptions.Allow.
func (c *Cloud) Access(peer noise.Key, log hypercore.Key) replicate.Access {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apart[log] || c.private[log] && !c.roster.Has(peer) || c.own[log] && !c.checkedLocked(peer) {
		return replicate.Access{}
	}
	return replicate.Full
}

// protect has only the devices of the cloud get the logs of a record, and those
// that this device writes only once they were compared. It comes before these are
// opened.
func (c *Cloud) protect(r writerRecord, own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, log := range []hypercore.Key{r.Tree, r.Content} {
		if log != (hypercore.Key{}) {
			c.private[log] = true
			c.own[log] = own
		}
	}
}

// regard ends connections to peers that are not what they were when these
// began: they connect again, as what they are now.
func (c *Cloud) regard() {
	c.mu.Lock()
	var changed []*Peer
	for p := range c.peers {
		if p.member != c.roster.Has(noise.Key(p.key)) {
			changed = append(changed, p)
		}
	}
	c.mu.Unlock()
	for _, p := range changed {
		p.mux.Close()
	}
}
