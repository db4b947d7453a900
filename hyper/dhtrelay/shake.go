package dhtrelay

import (
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A handshake is one that this client holds.
type handshake struct {
	noise     *noise.Handshake
	initiator bool
	stream    uint32    // our number, of an initiator
	listener  *Listener // of a responder
	received  []byte    // what came last, as it may come again
}

// keep adds a handshake, in place of the oldest if there are too many.
func (c *Client) keep(id uint32, h *handshake) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handshakes[id] != nil {
		return fmt.Errorf("%w: handshake %d is there already", ErrProtocol, id)
	}
	c.handshakes[id] = h
	c.newest = append(c.newest, id)
	if len(c.newest) > maxHandshakes {
		delete(c.handshakes, c.newest[0])
		c.newest = slices.Delete(c.newest, 0, 1)
	}
	return nil
}

func (c *Client) handshake(id uint32) *handshake {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handshakes[id]
}

func (c *Client) takeHandshake(id uint32) *handshake {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.handshakes[id]
	if h != nil {
		delete(c.handshakes, id)
		c.newest = slices.DeleteFunc(c.newest, func(n uint32) bool { return n == id })
	}
	return h
}

func (c *Client) onNoiseSend(b []byte) error {
	var m noiseSendMsg
	if err := read(b, &m); err != nil {
		return err
	}
	h := c.handshake(m.id)
	if m.initiator && h == nil {
		c.mu.Lock()
		d := c.dials[m.stream]
		c.mu.Unlock()
		if d == nil {
			return nil // given up
		}
		n, err := newHandshake(noise.Config{Initiator: true, Static: d.keys, Remote: d.remote, Random: c.o.Random})
		if err != nil {
			return c.failDial(m.stream, err)
		}
		h = &handshake{noise: n, initiator: true, stream: m.stream}
		if err := c.keep(m.id, h); err != nil {
			return err
		}
	}
	if h == nil || h.initiator != m.initiator {
		return nil
	}
	message, err := h.noise.WriteMessage(nil, m.payload)
	if err != nil {
		c.takeHandshake(m.id)
		if h.initiator {
			return c.failDial(h.stream, err)
		}
	}
	return c.reply(m.id, h, message)
}

// failDial ends a dial that this side can't go on with.
func (c *Client) failDial(id uint32, err error) error {
	d := c.takeDial(id)
	if d == nil {
		return nil
	}
	d.done <- dialed{nil, err}
	return c.send(numDestroy, &destroyMsg{paired: true, alias: id, reason: "handshake failed"})
}

func (c *Client) onNoiseReceive(b []byte) error {
	var m noiseReceiveMsg
	if err := read(b, &m); err != nil {
		return err
	}
	h := c.handshake(m.id)
	if !m.initiator && h == nil {
		c.mu.Lock()
		l := c.listeners[m.server]
		c.mu.Unlock()
		if l == nil {
			return nil
		}
		n, err := newHandshake(noise.Config{Static: l.keys, Random: c.o.Random})
		if err != nil {
			return err
		}
		h = &handshake{noise: n, listener: l}
		if err := c.keep(m.id, h); err != nil {
			return err
		}
	}
	if h == nil || h.initiator != m.initiator {
		return nil
	}
	if h.received != nil && slices.Equal(h.received, m.payload) {
		// Several nodes of the DHT may pass an answer on. A relay of the npm package
		// dies of a second reply.
		if h.initiator {
			c.clock.AfterFunc(retryTime, func() { c.retry(h.stream) })
		}
		return nil
	}
	h.received = slices.Clone(m.payload)
	payload, err := h.noise.ReadMessage(m.payload)
	if remote, known := h.noise.RemoteStatic(); err == nil && known && h.listener != nil && h.listener.check != nil {
		err = h.listener.check(remote)
	}
	if err != nil {
		c.takeHandshake(m.id)
		payload = nil // which is how to say no
	}
	return c.reply(m.id, h, payload)
}

// reply tells the relay of the next step of a handshake. What the relay gets
// to know of its keys is what it punches holes with.
func (c *Client) reply(id uint32, h *handshake, payload []byte) error {
	r := &noiseReplyMsg{initiator: h.initiator, id: id, payload: slices.Clone(payload)}
	r.remote, _ = h.noise.RemoteStatic()
	if session, err := h.noise.Split(); err == nil && len(payload) > 0 {
		r.complete = true
		r.remoteID, r.secret = streamID(session.Hash), hyperdht.HolepunchSecret(session.Hash)
	}
	return c.send(numNoiseReply, r)
}

func (c *Client) onSign(b []byte, unannounce bool) error {
	var m signMsg
	if err := read(b, &m); err != nil {
		return err
	}
	c.mu.Lock()
	s, ok := c.signees[m.signee]
	c.mu.Unlock()
	if !ok {
		return nil
	}
	if len(m.peer) != 32 {
		return nil // not a node of the DHT
	}
	signing := hyperdht.Signing{Unannounce: unannounce, Target: s.target, Token: m.token, NodeID: [32]byte(m.peer), Peer: s.keys.Public, RelayAddresses: m.addrs}
	signature := s.keys.Sign(signing.Bytes())
	return c.send(numSignature, &signatureMsg{id: m.id, signature: signature})
}
