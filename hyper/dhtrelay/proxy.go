package dhtrelay

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// ask asks the client something, and waits for the answer to that number.
func (ses *session) ask(ctx context.Context, number int, question func(id uint32) message) (any, error) {
	return ses.askAs(ctx, ses.next(), number, question)
}

func (ses *session) askAs(ctx context.Context, id uint32, number int, question func(id uint32) message) (any, error) {
	answer := make(chan any, 1)
	ses.mu.Lock()
	if ses.ended || ses.asked[id] != nil || len(ses.asked) >= ses.server.limits.Streams {
		ses.mu.Unlock()
		return nil, fmt.Errorf("ask the client: %w questions", ErrTooMany)
	}
	ses.asked[id] = answer
	ses.mu.Unlock()
	defer func() {
		ses.mu.Lock()
		defer ses.mu.Unlock()
		delete(ses.asked, id)
	}()
	if err := ses.send(number, question(id)); err != nil {
		return nil, fmt.Errorf("ask the client: %w", err)
	}
	late, cancel := ses.within(answerTime)
	defer cancel()
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the client: %w", context.Cause(ctx))
	case <-late.Done():
		return nil, fmt.Errorf("ask the client: %w", context.Cause(late))
	}
}

// answered hands an answer to who waits for it, if somebody does.
func (ses *session) answered(id uint32, answer any) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if c := ses.asked[id]; c != nil {
		select {
		case c <- answer:
		default: // a second answer
		}
	}
}

func (ses *session) onVerdict(b []byte, verdict bool) error {
	var m numberMsg
	if err := read(b, &m); err != nil {
		return err
	}
	ses.answered(m.number, verdict)
	return nil
}

func (ses *session) onSignature(b []byte) error {
	var m signatureMsg
	if err := read(b, &m); err != nil {
		return err
	}
	if len(m.signature) == 64 {
		ses.answered(m.id, [64]byte(m.signature))
	}
	return nil
}

func (ses *session) onNoiseReply(b []byte) error {
	var m noiseReplyMsg
	if err := read(b, &m); err != nil {
		return err
	}
	m.payload = append([]byte(nil), m.payload...)
	ses.answered(m.id, m)
	return nil
}

// signer lets the client sign for a server or an announcement of that number.
func (ses *session) signer(signee uint32) hyperdht.Signer {
	return func(ctx context.Context, s hyperdht.Signing) ([64]byte, error) {
		number := numSignAnnounce
		if s.Unannounce {
			number = numSignUnannounce
		}
		answer, err := ses.ask(ctx, number, func(id uint32) message {
			return &signMsg{id: id, signee: signee, token: s.Token, peer: s.NodeID[:], addrs: s.RelayAddresses}
		})
		signature, ok := answer.([64]byte)
		if err == nil && !ok {
			err = fmt.Errorf("%w: no signature", ErrProtocol)
		}
		return signature, err
	}
}

// A proxy is a handshake that the client holds.
type proxy struct {
	ses       *session
	id        uint32
	initiator bool
	stream    uint32    // the client's, of an initiator
	server    *listener // of a responder

	mu     sync.Mutex // held for one question at a time; guards what follows
	remote noise.Key
	secret [32]byte
}

var _ hyperdht.Handshake = (*proxy)(nil)

// Send implements hyperdht.Handshake.
func (p *proxy) Send(ctx context.Context, payload []byte) ([]byte, error) {
	return p.ask(ctx, numNoiseSend, func(id uint32) message {
		return &noiseSendMsg{initiator: p.initiator, id: id, stream: p.stream, payload: payload}
	})
}

// Receive implements hyperdht.Handshake.
func (p *proxy) Receive(ctx context.Context, msg []byte) ([]byte, error) {
	m := &noiseReceiveMsg{initiator: p.initiator, payload: msg}
	if p.server != nil {
		p.ses.mu.Lock()
		announced := p.server.announced
		p.ses.mu.Unlock()
		if !announced {
			return nil, errors.New("the client doesn't know yet that it listens")
		}
		m.server = p.server.self
	}
	return p.ask(ctx, numNoiseReceive, func(id uint32) message {
		m.id = id
		return m
	})
}

func (p *proxy) ask(ctx context.Context, number int, question func(uint32) message) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, err := p.ses.askAs(ctx, p.id, number, question)
	if err != nil {
		return nil, err
	}
	m, ok := answer.(noiseReplyMsg)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: another answer than asked for", ErrProtocol)
	case len(m.payload) == 0:
		return nil, ErrDenied
	case m.complete:
		p.secret = m.secret
	case !p.initiator && !m.initiator:
		p.remote = m.remote
	}
	return m.payload, nil
}

// Remote implements hyperdht.Handshake.
func (p *proxy) Remote() noise.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.remote
}

// HolepunchSecret implements hyperdht.Handshake.
func (p *proxy) HolepunchSecret() [32]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.secret
}
