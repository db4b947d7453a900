package pair

import (
	"crypto/hmac"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// The two sides of one attempt are values: messages of the other side go in,
// messages to it come out, and what happened. They know no clock and no stream.

// said is what each side says besides its share: who is first.
var saidJoiner, saidInviter = []byte("joiner"), []byte("inviter")

// A link is what both sides know of the stream they talk over. A man in the middle
// has two of them, so the sides disagree and the words don't fit.
type link struct {
	hash            [noise.HashSize]byte
	joiner, inviter noise.Key
}

func (l link) exchange(code words.Code, random io.Reader) (*exchange, error) {
	channel := lv([]byte("bevy/pair/1"), l.joiner[:], l.inviter[:])
	return newExchange([]byte(code.Words()), channel, l.hash[:], random)
}

// A message is one of the channel.
type message struct {
	number  int
	payload []byte
}

// An event is what a message has led to.
type event int

const (
	nothing   event = iota
	proving         // joiner: it has shown a proof that it knows the words
	proven          // inviter: the other side knows the words, and is asking
	admitted        // joiner: it was admitted, and has yet to say done
	confirmed       // inviter: the other side has kept what it was sent
)

// An inviting is the side that shows the words.
type inviting struct {
	exchange *exchange
	keys     keys
	next     int // the message that has to come
	request  Request
}

func newInviting(code words.Code, l link, random io.Reader) (*inviting, error) {
	e, err := l.exchange(code, random)
	if err != nil {
		return nil, err
	}
	return &inviting{exchange: e, next: messageHello}, nil
}

// step takes a message. After an error the attempt is over. ErrWords means that
// the other side tried other words.
func (s *inviting) step(number int, payload []byte) (out []message, what event, err error) {
	next := s.next
	s.next = messages // none, unless this one is in order
	if number != next {
		return nil, nothing, fmt.Errorf("%w: message %d in place of %d", ErrProtocol, number, next)
	}
	switch number {
	case messageHello:
		share, err := readHello(payload)
		if err != nil {
			return nil, nothing, err
		}
		if s.keys, err = s.exchange.key(false, share, saidJoiner, saidInviter); err != nil {
			return nil, nothing, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		s.next = messageRequest
		return []message{{messageShare, s.exchange.share[:]}}, nothing, nil

	case messageRequest:
		plain, err := s.keys.open(keyRequestTag, keyRequestSeal, payload, maxRequest)
		if err != nil {
			return nil, nothing, err
		}
		if s.request, err = readRequest(s.keys, plain); err != nil {
			return nil, nothing, err
		}
		return nil, proven, nil

	case messageDone:
		if !hmac.Equal(payload, s.keys.tag(keyDone, nil)) {
			return nil, nothing, fmt.Errorf("%w: bad tag", ErrProtocol)
		}
		return nil, confirmed, nil
	}
	return nil, nothing, fmt.Errorf("%w: message %d", ErrProtocol, number)
}

// admit answers a request that was proven.
func (s *inviting) admit(a Admission) []message {
	s.next = messageDone
	return []message{{messageAdmission, s.keys.seal(keyAdmissionTag, keyAdmissionSeal, a.append(nil))}}
}

// A joining is the side where the words were typed.
type joining struct {
	exchange  *exchange
	keys      keys
	next      int
	device    noise.KeyPair
	name      string
	admission Admission
}

// newJoining also returns the first message.
func newJoining(code words.Code, l link, device noise.KeyPair, name string, random io.Reader) (*joining, []message, error) {
	e, err := l.exchange(code, random)
	if err != nil {
		return nil, nil, err
	}
	s := &joining{exchange: e, device: device, name: name, next: messageShare}
	return s, []message{{messageHello, appendHello(e.share)}}, nil
}

// step takes a message. After an error the attempt is over.
func (s *joining) step(number int, payload []byte) (out []message, what event, err error) {
	next := s.next
	s.next = messages
	if number == messageRefused {
		return nil, nothing, readReason(payload)
	}
	if number != next {
		return nil, nothing, fmt.Errorf("%w: message %d in place of %d", ErrProtocol, number, next)
	}
	switch number {
	case messageShare:
		if s.keys, err = s.exchange.key(true, payload, saidJoiner, saidInviter); err != nil {
			return nil, nothing, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		s.next = messageAdmission
		request := s.keys.seal(keyRequestTag, keyRequestSeal, appendRequest(s.keys, s.device, s.name))
		return []message{{messageRequest, request}}, proving, nil

	case messageAdmission:
		plain, err := s.keys.open(keyAdmissionTag, keyAdmissionSeal, payload, maxAdmission)
		if err != nil {
			return nil, nothing, err
		}
		if s.admission, err = readAdmission(s.device.Public, plain); err != nil {
			return nil, nothing, err
		}
		return nil, admitted, nil
	}
	return nil, nothing, fmt.Errorf("%w: message %d", ErrProtocol, number)
}

// done says that the admission was kept.
func (s *joining) done() []message {
	return []message{{messageDone, s.keys.tag(keyDone, nil)}}
}
