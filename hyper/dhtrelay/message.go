package dhtrelay

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// The numbers of messages.
const (
	numHandshake = iota
	numPing
	numPong
	numConnect
	numConnection
	numConnected
	numIncoming
	numDeny
	numAccept
	numDestroy
	numListen
	numListening
	numClose
	numClosed
	numOpen
	numEnd
	numData
	numResult
	numFinished
	numLookup
	numAnnounce
	numUnannounce
	numSignAnnounce
	numSignUnannounce
	numSignature
	numNoiseSend
	numNoiseReceive
	numNoiseReply
	numMessages
)

const (
	// maxNoise is more than a message of a handshake, or its payload, has.
	maxNoise = noise.MaxMessage
	// maxText is the most bytes of an error.
	maxText = 4 << 10
	// maxResult is the most bytes of what one node of the DHT answers, which
	// comes in one packet.
	maxResult = 4 << 10
	// maxAddrs is the most addresses of a list, and maxPeers the most peers.
	maxAddrs, maxPeers = 32, 64
)

// A message is one of the protocol. Its code method reads it or writes it.
type message interface{ code(*coder) }

// A coder reads messages, or writes them.
type coder struct {
	in  *compact.Decoder // nil to write
	out []byte
}

// read reads a message. What a newer side may add is ignored. Byte slices are
// part of b.
func read(b []byte, m message) error {
	d := compact.NewDecoder(b)
	m.code(&coder{in: &d})
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: %T: %w", ErrProtocol, m, err)
	}
	return nil
}

// write returns the bytes of a message.
func write(m message) []byte {
	c := &coder{}
	m.code(c)
	return c.out
}

// flags are the bits of a byte, the lowest first.
func (c *coder) flags(bits ...*bool) {
	var b uint8
	if c.in != nil {
		b = c.in.Uint8()
	}
	for i, bit := range bits {
		if c.in != nil {
			*bit = b>>i&1 != 0
		} else if *bit {
			b |= 1 << i
		}
	}
	if c.in == nil {
		c.out = append(c.out, b)
	}
}

func (c *coder) number(v *uint32) {
	if c.in != nil {
		*v = c.in.Uint32()
		return
	}
	c.out = compact.AppendUint32(c.out, *v)
}

func (c *coder) fixed(v []byte) {
	if c.in != nil {
		copy(v, c.in.Fixed(len(v)))
		return
	}
	c.out = append(c.out, v...)
}

// buffer is nil and empty as one.
func (c *coder) buffer(v *[]byte, max int) {
	if c.in != nil {
		*v = c.in.Buffer(max)
		return
	}
	c.out = compact.AppendBuffer(c.out, *v)
}

func (c *coder) text(v *string, max int) {
	if c.in != nil {
		*v = c.in.String(max)
		return
	}
	s := *v
	c.out = compact.AppendString(c.out, s[:min(len(s), max)])
}

func (c *coder) addr(v *netip.AddrPort) {
	if c.in != nil {
		*v = c.in.IPv4Address()
		return
	}
	a := *v
	if !a.Addr().Unmap().Is4() { // there is no room for another
		a = netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	c.out = compact.AppendIPv4Address(c.out, a)
}

func (c *coder) addrs(v *[]netip.AddrPort) {
	list(c, v, maxAddrs, (*coder).addr)
}

// list is an array.
func list[T any](c *coder, v *[]T, max int, item func(*coder, *T)) {
	if c.in != nil {
		n := c.in.Uint()
		if c.in.Err() == nil && n > uint64(max) {
			c.in.Fail("array", fmt.Errorf("%d items, and %d may be: %w", n, max, compact.ErrTooLarge))
			return
		}
		*v = nil
		for range n {
			var one T
			if item(c, &one); c.in.Err() != nil {
				return
			}
			*v = append(*v, one)
		}
		return
	}
	c.out = compact.AppendUint(c.out, uint64(len(*v)))
	for i := range *v {
		item(c, &(*v)[i])
	}
}

// A handshakeMsg begins the conversation, and says who the client is.
type handshakeMsg struct {
	custodial bool
	key       noise.Key
	secret    [64]byte // of who is custodial
}

func (m *handshakeMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.fixed(m.key[:])
	if m.custodial {
		c.fixed(m.secret[:])
	}
}

// A pingMsg is a ping, or the answer to one.
type pingMsg struct{}

func (*pingMsg) code(*coder) {}

// A connectMsg asks for a stream to a peer.
type connectMsg struct {
	custodial bool
	alias     uint32 // the client's
	key       noise.Key
	secret    [64]byte
	remote    noise.Key
}

func (m *connectMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.number(&m.alias)
	c.fixed(m.key[:])
	if m.custodial {
		c.fixed(m.secret[:])
	}
	c.fixed(m.remote[:])
}

// A connectionMsg tells a client of a stream that a peer has opened to a
// server of its.
type connectionMsg struct {
	custodial   bool
	alias       uint32 // the relay's
	server      uint32 // the relay's
	remote      noise.Key
	hash        [64]byte // of who is custodial
	handshakeID uint32   // of who isn't
}

func (m *connectionMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.number(&m.alias)
	c.number(&m.server)
	c.fixed(m.remote[:])
	c.established(m.custodial, &m.hash, &m.handshakeID)
}

// established is which handshake a stream comes from.
func (c *coder) established(custodial bool, hash *[64]byte, id *uint32) {
	if custodial {
		c.fixed(hash[:])
	} else {
		c.number(id)
	}
}

// A connectedMsg takes such a stream.
type connectedMsg struct {
	alias  uint32 // the client's
	remote uint32 // the relay's
}

func (m *connectedMsg) code(c *coder) {
	c.number(&m.alias)
	c.number(&m.remote)
}

// An incomingMsg asks a custodial client whether to let somebody in.
type incomingMsg struct {
	id      uint32
	server  uint32 // the relay's
	remote  noise.Key
	payload []byte
}

func (m *incomingMsg) code(c *coder) {
	c.number(&m.id)
	c.number(&m.server)
	c.fixed(m.remote[:])
	c.buffer(&m.payload, maxNoise)
}

// A numberMsg has but a number: deny and accept that of a request, close,
// closed and end that of its sender's server or stream, finished that of a
// query.
type numberMsg struct{ number uint32 }

func (m *numberMsg) code(c *coder) { c.number(&m.number) }

// A destroyMsg ends a stream at once. If it is paired the number is the
// sender's, else the receiver's.
type destroyMsg struct {
	paired bool
	alias  uint32
	reason string
}

func (m *destroyMsg) code(c *coder) {
	failed := m.reason != ""
	c.flags(&m.paired, &failed)
	c.number(&m.alias)
	if failed {
		c.text(&m.reason, maxText)
	}
}

// A listenMsg asks for a server.
type listenMsg struct {
	custodial bool
	alias     uint32 // the client's
	key       noise.Key
	secret    [64]byte
}

func (m *listenMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.number(&m.alias)
	c.fixed(m.key[:])
	if m.custodial {
		c.fixed(m.secret[:])
	}
}

// A listeningMsg tells that a server is announced.
type listeningMsg struct {
	alias  uint32 // the relay's
	remote uint32 // the client's
	addr   netip.AddrPort
}

func (m *listeningMsg) code(c *coder) {
	c.number(&m.alias)
	c.number(&m.remote)
	c.addr(&m.addr)
}

// An openMsg tells that a stream that the client asked for is there.
type openMsg struct {
	custodial   bool
	alias       uint32 // the relay's
	remote      uint32 // the client's
	hash        [64]byte
	handshakeID uint32
}

func (m *openMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.number(&m.alias)
	c.number(&m.remote)
	c.established(m.custodial, &m.hash, &m.handshakeID)
}

// dataHead is what comes before one chunk in a message with data: the sender's
// number of the stream, and an array of chunks.
func dataHead(alias uint32, size int) []byte {
	b := compact.AppendUint32(nil, alias)
	b = compact.AppendUint(b, 1)
	return compact.AppendUint(b, uint64(size))
}

// readData calls take for each chunk of a message, which is valid during the
// call, until it returns false. Nothing is kept: how many there are is the
// other side's to say.
func readData(b []byte, take func(alias uint32, chunk []byte) bool) error {
	d := compact.NewDecoder(b)
	alias, n := d.Uint32(), d.Uint()
	for ; n > 0 && d.Err() == nil; n-- {
		chunk := d.Buffer(math.MaxInt)
		if d.Err() == nil && !take(alias, chunk) {
			return nil
		}
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: data: %w", ErrProtocol, err)
	}
	return nil
}

// A resultMsg is what one node answers to a query, a [foundMsg].
type resultMsg struct {
	id   uint32
	data []byte
}

func (m *resultMsg) code(c *coder) {
	c.number(&m.id)
	c.buffer(&m.data, maxResult)
}

// A lookupMsg asks who has announced itself for a topic.
type lookupMsg struct {
	id    uint32
	topic [32]byte
}

func (m *lookupMsg) code(c *coder) {
	c.number(&m.id)
	c.fixed(m.topic[:])
}

// An announceMsg announces a key for a topic, or takes that back.
type announceMsg struct {
	custodial bool
	id        uint32
	topic     [32]byte
	key       noise.Key
	secret    [64]byte
}

func (m *announceMsg) code(c *coder) {
	c.flags(&m.custodial)
	c.number(&m.id)
	c.fixed(m.topic[:])
	c.fixed(m.key[:])
	if m.custodial {
		c.fixed(m.secret[:])
	}
}

// A signMsg asks a client to sign an announcement, or that it is taken back.
type signMsg struct {
	id     uint32
	signee uint32 // the client's number of a server or a query
	token  [32]byte
	peer   []byte // the id of a node
	addrs  []netip.AddrPort
}

func (m *signMsg) code(c *coder) {
	c.number(&m.id)
	c.number(&m.signee)
	c.fixed(m.token[:])
	c.buffer(&m.peer, 64)
	c.addrs(&m.addrs)
}

// A signatureMsg is the answer.
type signatureMsg struct {
	id        uint32
	signature []byte
}

func (m *signatureMsg) code(c *coder) {
	c.number(&m.id)
	c.buffer(&m.signature, 64)
}

// A noiseSendMsg asks a client for its next message of a handshake, with that
// payload.
type noiseSendMsg struct {
	initiator bool
	id        uint32
	stream    uint32 // the client's, of an initiator
	payload   []byte
}

func (m *noiseSendMsg) code(c *coder) {
	c.flags(&m.initiator)
	c.number(&m.id)
	if m.initiator {
		c.number(&m.stream)
	}
	c.buffer(&m.payload, maxNoise)
}

// A noiseReceiveMsg hands a client a message of the peer it shakes hands with.
type noiseReceiveMsg struct {
	initiator bool
	id        uint32
	server    uint32 // the relay's, of a responder
	payload   []byte
}

func (m *noiseReceiveMsg) code(c *coder) {
	c.flags(&m.initiator)
	c.number(&m.id)
	if !m.initiator {
		c.number(&m.server)
	}
	c.buffer(&m.payload, maxNoise)
}

// A noiseReplyMsg is the answer to both: the message, or the payload that was
// in it. It is empty if the client doesn't want to go on.
type noiseReplyMsg struct {
	initiator bool
	complete  bool
	id        uint32
	payload   []byte
	remote    noise.Key // of a responder, while it isn't complete
	remoteID  [32]byte  // once it is complete
	secret    [32]byte  // likewise
}

func (m *noiseReplyMsg) code(c *coder) {
	c.flags(&m.initiator, &m.complete)
	c.number(&m.id)
	c.buffer(&m.payload, maxNoise)
	if !m.initiator && !m.complete {
		c.fixed(m.remote[:])
	}
	if m.complete {
		c.fixed(m.remoteID[:])
		c.fixed(m.secret[:])
	}
}

// A foundMsg is what a node of the DHT knows about a topic.
type foundMsg struct {
	token        [32]byte
	fromID, toID []byte
	from, to     netip.AddrPort
	peers        []hyperdht.Peer
}

func (m *foundMsg) code(c *coder) {
	c.fixed(m.token[:])
	c.buffer(&m.fromID, 64)
	c.addr(&m.from)
	c.buffer(&m.toID, 64)
	c.addr(&m.to)
	list(c, &m.peers, maxPeers, func(c *coder, p *hyperdht.Peer) {
		c.fixed(p.Key[:])
		c.addrs(&p.RelayAddresses)
	})
}
