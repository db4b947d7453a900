package dhtrpc

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// The first byte of a packet: the version of the protocol, 3, and what it is.
const (
	kindRequest = 0x03
	kindReply   = 0x13
)

// The bits of the second byte.
const (
	flagID    = 1
	flagToken = 2

	flagInternal = 4 // of a request
	flagTarget   = 8

	flagCloser = 4 // of a reply
	flagError  = 8

	flagValue = 16
)

const (
	// fixedSize is a packet's kind, flags, transaction and address.
	fixedSize = 1 + 1 + 2 + 6
	idSize    = 32
	addrSize  = 6

	// maxCloserRead is how many closer nodes a reply may hold to be read at all;
	// those beyond K are ignored.
	maxCloserRead = 256
)

var errKind = errors.New("not a packet of the dht")

// A message is one packet of the protocol, as it is on the wire.
type message struct {
	reply bool
	tid   uint16
	to    netip.AddrPort // what the sender knows the receiver by
	id    *ID
	token *Token
	value []byte // nil is none

	internal bool // of a request
	command  uint64
	target   *ID

	closer []netip.AddrPort // of a reply
	code   uint64
}

// append writes a message behind b.
func (m *message) append(b []byte) []byte {
	kind, flags := byte(kindRequest), byte(0)
	if m.id != nil {
		flags |= flagID
	}
	if m.token != nil {
		flags |= flagToken
	}
	if m.value != nil {
		flags |= flagValue
	}
	if m.reply {
		kind = kindReply
		if len(m.closer) > 0 {
			flags |= flagCloser
		}
		if m.code > 0 {
			flags |= flagError
		}
	} else {
		if m.internal {
			flags |= flagInternal
		}
		if m.target != nil {
			flags |= flagTarget
		}
	}
	b = append(b, kind, flags)
	b = compact.AppendUint16(b, m.tid)
	b = compact.AppendIPv4Address(b, m.to)
	if m.id != nil {
		b = append(b, m.id[:]...)
	}
	if m.token != nil {
		b = append(b, m.token[:]...)
	}
	if m.reply {
		if len(m.closer) > 0 {
			b = compact.AppendArray(b, m.closer, compact.AppendIPv4Address)
		}
		if m.code > 0 {
			b = compact.AppendUint(b, m.code)
		}
	} else {
		b = compact.AppendUint(b, m.command)
		if m.target != nil {
			b = append(b, m.target[:]...)
		}
	}
	if m.value != nil {
		b = compact.AppendBuffer(b, m.value)
	}
	return b
}

// parse reads a message. Its value is part of b. Bytes behind what is known are
// ignored, as the reference does.
func parse(b []byte) (m message, err error) {
	if len(b) < 2 || b[0] != kindRequest && b[0] != kindReply {
		return m, errKind
	}
	m.reply = b[0] == kindReply
	d := compact.NewDecoder(b[1:])
	flags := d.Uint()
	m.tid = d.Uint16()
	m.to = d.IPv4Address()
	if flags&flagID != 0 {
		id := ID(d.Fixed32())
		m.id = &id
	}
	if flags&flagToken != 0 {
		token := Token(d.Fixed32())
		m.token = &token
	}
	if m.reply {
		if flags&flagCloser != 0 {
			m.closer = compact.DecodeArray(&d, maxCloserRead, (*compact.Decoder).IPv4Address)
			m.closer = m.closer[:min(len(m.closer), K)]
		}
		if flags&flagError != 0 {
			m.code = d.Uint()
		}
	} else {
		m.internal = flags&flagInternal != 0
		m.command = d.Uint()
		if flags&flagTarget != 0 {
			target := ID(d.Fixed32())
			m.target = &target
		}
	}
	if flags&flagValue != 0 {
		if m.value = d.Buffer(len(b)); m.value == nil {
			m.value = []byte{}
		}
	}
	if err := d.Err(); err != nil {
		return message{}, fmt.Errorf("read a packet of the dht: %w", err)
	}
	return m, nil
}
