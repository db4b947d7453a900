package protomux

import (
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// A Channel is one side of a channel. Its methods may be called by any
// goroutine, and from the functions of its options.
type Channel struct {
	mux *Mux
	o   ChannelOptions

	// Guarded by mux.mu.
	port   *port
	opened bool
	closed bool

	framed bool // is in mux.framed; guarded by mux.handling
}

// Protocol returns the protocol that the channel was opened with.
func (c *Channel) Protocol() string { return c.o.Protocol }

// ID returns the id that the channel was opened with, which must not be
// changed.
func (c *Channel) ID() []byte { return c.o.ID }

// Mux returns the mux that the channel is on.
func (c *Channel) Mux() *Mux { return c.mux }

// Opened reports whether the other side has opened the channel, too, and
// neither has closed it.
func (c *Channel) Opened() bool {
	c.mux.mu.Lock()
	defer c.mux.mu.Unlock()
	return c.opened && !c.closed
}

// Closed reports whether the channel was closed by either side.
func (c *Channel) Closed() bool {
	c.mux.mu.Lock()
	defer c.mux.mu.Unlock()
	return c.closed
}

// Send queues a message: its number in the protocol, and its payload, which
// may be in parts and is not kept. It does not block; see [Mux.Drained] for
// when to stop. It fails with ErrClosed, ErrTooLarge or ErrFull.
func (c *Channel) Send(message int, payload ...[]byte) error {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	m := c.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("send message %d of %s: %w", message, c.o.Protocol, ErrClosed)
	case size > MaxPayload:
		return fmt.Errorf("send message %d of %s, %d bytes: %w", message, c.o.Protocol, size, ErrTooLarge)
	case len(m.out.buf)+size > m.maxQueued:
		return fmt.Errorf("send message %d of %s: %w", message, c.o.Protocol, ErrFull)
	}
	m.queueLocked(c.port.id, uint64(message), size, payload...)
	return nil
}

// Cork is [Mux.Cork].
func (c *Channel) Cork() { c.mux.Cork() }

// Uncork is [Mux.Uncork].
func (c *Channel) Uncork() { c.mux.Uncork() }

// Close closes the channel on both sides. What was sent before arrives. It
// does nothing if the channel is closed.
func (c *Channel) Close() {
	m := c.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.closed {
		return
	}
	m.controlLocked(controlClose, compact.AppendUint(m.scratch[:0], c.port.id))
	m.closeLocked(c, nil)
}
