package mdns

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// The handshake is Noise XX in datagrams, each sealed with a key that who knows
// the topic can make. Who doesn't can neither begin one nor read a key in it.
//
//	1 client: e, its stream      2 server: e, its key, its stream
//	3 client: its key            4 server: accepted or refused
//
// The client sends 1 and 3 again until there is an answer; the server only
// answers, with packets as long as those it gets.
const (
	magic      = "HLAN\x01" // and the version
	idSize     = 8
	headSize   = len(magic) + 1 + idSize
	bodySize   = 192
	noticeSize = headSize + chacha20poly1305.NonceSizeX + bodySize + chacha20poly1305.Overhead

	// maxPending is how many handshakes a server has under way, pendingTime for
	// how long it remembers each.
	maxPending  = 64
	maxFromHost = 8
	pendingTime = 10 * time.Second

	// A client sends again after firstResend, and then after twice as long each
	// time, and gives up after dialTime.
	firstResend = 100 * time.Millisecond
	dialTime    = 2 * time.Second
)

const (
	accepted = iota
	refused
)

// A handshakeID tells handshakes apart. The client chooses it.
type handshakeID [idSize]byte

// A notice is a datagram of a handshake.
type notice struct {
	step byte
	id   handshakeID
	head []byte
	rest []byte
}

// isNotice reports whether a datagram is meant as one.
func isNotice(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }

func parseNotice(data []byte) (n notice, ok bool) {
	if !isNotice(data) || len(data) != noticeSize {
		return n, false
	}
	n.step = data[len(magic)]
	n.id = handshakeID(data[len(magic)+1:])
	n.head, n.rest = data[:headSize], data[headSize:]
	return n, n.step >= 1 && n.step <= 4
}

func aeadOf(topic Topic, s salt) cipher.AEAD {
	key := s.derive(topic, "handshake")
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("mdns: " + err.Error()) // the key is as long as one is
	}
	return a
}

// seal makes a datagram of a message.
func seal(a cipher.AEAD, step byte, id handshakeID, message []byte, random io.Reader) []byte {
	var body [bodySize]byte
	binary.LittleEndian.PutUint16(body[:], uint16(len(message)))
	if copy(body[2:], message) < len(message) {
		panic("mdns: message too long")
	}
	data := make([]byte, 0, noticeSize)
	data = append(data, magic...)
	data = append(data, step)
	data = append(data, id[:]...)
	data = data[:headSize+chacha20poly1305.NonceSizeX]
	nonce := data[headSize:]
	if _, err := io.ReadFull(random, nonce); err != nil {
		panic("mdns: no randomness: " + err.Error())
	}
	return a.Seal(data, nonce, body[:], data[:headSize])
}

// open returns the message in a datagram.
func (n *notice) open(a cipher.AEAD) ([]byte, bool) {
	body, err := a.Open(nil, n.rest[:chacha20poly1305.NonceSizeX], n.rest[chacha20poly1305.NonceSizeX:], n.head)
	if err != nil {
		return nil, false
	}
	size := int(binary.LittleEndian.Uint16(body))
	if size > bodySize-2 {
		return nil, false
	}
	return body[2 : 2+size], true
}

func noiseOf(keys noise.KeyPair, initiator bool, topic Topic, s salt, random io.Reader) (*noise.Handshake, error) {
	prologue := s.derive(topic, "prologue")
	return noise.New(noise.Config{Pattern: noise.XX, Initiator: initiator, Static: keys, Prologue: prologue[:], Random: random})
}

// streamOf is what steps 1 and 2 carry: the id of a side's stream.
func streamOf(id uint32) []byte { return binary.LittleEndian.AppendUint32(nil, id) }

// readStream reads that. What is behind it is for later versions.
func readStream(payload []byte) (uint32, error) {
	if len(payload) < 4 {
		return 0, errors.New("no stream")
	}
	return binary.LittleEndian.Uint32(payload), nil
}

// A call is a client's side of a handshake.
type call struct {
	id     handshakeID
	aead   cipher.AEAD
	noise  *noise.Handshake
	random io.Reader

	addrs   []netip.AddrPort // where to send to: one, after the first answer
	packet  []byte           // what is sent until there is an answer
	remote  uint32           // the other side's stream
	session noise.Session
}

func newCall(keys noise.KeyPair, p Peer, stream uint32, random io.Reader) (*call, error) {
	c := &call{aead: aeadOf(p.Topic, p.salt), addrs: p.Addrs, random: random}
	if _, err := io.ReadFull(random, c.id[:]); err != nil {
		return nil, err
	}
	var err error
	if c.noise, err = noiseOf(keys, true, p.Topic, p.salt, random); err != nil {
		return nil, err
	}
	m, err := c.noise.WriteMessage(nil, streamOf(stream))
	if err != nil {
		return nil, err
	}
	c.packet = seal(c.aead, 1, c.id, m, random)
	return c, nil
}

// answer takes the second message. It returns the key of the other side, which
// is to be looked at before proceed tells that one who we are.
func (c *call) answer(from netip.AddrPort, n *notice) (key noise.Key, ok bool, err error) {
	m, sealed := n.open(c.aead)
	if !sealed || c.session.Hash != [noise.HashSize]byte{} || c.noise.MyTurn() {
		return key, false, nil // not for this call, or the same again
	}
	payload, err := c.noise.ReadMessage(m)
	if err != nil {
		return key, true, err
	}
	if c.remote, err = readStream(payload); err != nil {
		return key, true, err
	}
	c.addrs = []netip.AddrPort{from}
	key, _ = c.noise.RemoteStatic()
	return key, true, nil
}

func (c *call) proceed() error {
	m, err := c.noise.WriteMessage(nil, nil)
	if err != nil {
		return err
	}
	if c.session, err = c.noise.Split(); err != nil {
		return err
	}
	c.packet = seal(c.aead, 3, c.id, m, c.random)
	return nil
}

// verdict takes the fourth message.
func (c *call) verdict(n *notice) (ok bool, err error) {
	m, sealed := n.open(c.aead)
	if !sealed || len(m) < 1 || c.session.Hash == [noise.HashSize]byte{} {
		return false, nil
	}
	if m[0] != accepted {
		return true, ErrRefused
	}
	return true, nil
}

// A pending is a server's side of a handshake.
type pending[S any] struct {
	id      handshakeID
	from    netip.AddrPort
	began   time.Time
	aead    cipher.AEAD
	noise   *noise.Handshake
	stream  S      // ours
	remote  uint32 // theirs
	first   []byte // the message that began it
	reply   []byte // to that
	third   []byte
	verdict []byte // to that
}

// A reception is the server's side of all handshakes. S are streams.
type reception[S any] struct {
	keys   noise.KeyPair
	random io.Reader
	list   []*pending[S] // oldest first
}

// greet answers the first message of a handshake, of whichever of our topics
// it is. open makes a stream.
func (r *reception[S]) greet(now time.Time, from netip.AddrPort, n *notice, topics []Topic, salts []salt, open func() (S, uint32, error)) (reply []byte) {
	same := 0
	for _, p := range r.list {
		if p.from.Addr() == from.Addr() {
			same++
		}
		if p.id == n.id {
			// The same again, maybe to another of our addresses.
			if m, ok := n.open(p.aead); ok && bytes.Equal(m, p.first) && p.from.Addr() == from.Addr() {
				return p.reply
			}
			return nil
		}
	}
	if same >= maxFromHost || len(r.list) >= maxPending {
		return nil
	}
	for _, s := range salts {
		for _, topic := range topics {
			a := aeadOf(topic, s)
			m, ok := n.open(a)
			if !ok {
				continue
			}
			h, err := noiseOf(r.keys, false, topic, s, r.random)
			if err != nil {
				return nil
			}
			payload, err := h.ReadMessage(m)
			if err != nil {
				return nil
			}
			remote, err := readStream(payload)
			if err != nil {
				return nil
			}
			stream, id, err := open()
			if err != nil {
				return nil
			}
			p := &pending[S]{id: n.id, from: from, began: now, aead: a, noise: h, stream: stream, remote: remote, first: m}
			answer, err := h.WriteMessage(nil, streamOf(id))
			if err != nil {
				return nil
			}
			p.reply = seal(a, 2, n.id, answer, r.random)
			r.list = append(r.list, p)
			return p.reply
		}
	}
	return nil
}

// conclude takes the third message. It returns the session when there is one,
// which is to be decided on with decide.
func (r *reception[S]) conclude(from netip.AddrPort, n *notice) (p *pending[S], session noise.Session, again []byte) {
	for _, p := range r.list {
		if p.id != n.id || p.from.Addr() != from.Addr() {
			continue
		}
		m, ok := n.open(p.aead)
		if !ok {
			return nil, session, nil
		}
		if p.third != nil {
			if bytes.Equal(m, p.third) {
				return nil, session, p.verdict
			}
			return nil, session, nil
		}
		if _, err := p.noise.ReadMessage(m); err != nil {
			p.third = []byte{} // it is over
			return nil, session, nil
		}
		session, err := p.noise.Split()
		if err != nil {
			return nil, session, nil
		}
		p.third, p.from = m, from
		return p, session, nil
	}
	return nil, session, nil
}

// decide makes the fourth message.
func (r *reception[S]) decide(p *pending[S], verdict byte) []byte {
	p.verdict = seal(p.aead, 4, p.id, []byte{verdict}, r.random)
	return p.verdict
}

// expire forgets what is old. It returns the streams of handshakes that came
// to nothing.
func (r *reception[S]) expire(now time.Time) (dropped []S) {
	for len(r.list) > 0 && now.Sub(r.list[0].began) >= pendingTime {
		if r.list[0].verdict == nil {
			dropped = append(dropped, r.list[0].stream)
		}
		r.list = r.list[1:]
	}
	return dropped
}

// errNoAnswer is of a peer that does not answer.
var errNoAnswer = fmt.Errorf("no answer within %v", dialTime)
