package hyperdht

import (
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// A Conn is a connection to a peer: an encrypted stream of messages over UDX.
type Conn struct {
	// Stream is nil if the handshake was held by somebody else
	// (ConnectOptions.Handshake); then there is only Raw.
	*secretstream.Stream

	link *link
}

// Raw returns the stream under the connection, which belongs to it.
func (c *Conn) Raw() *udx.Stream { return c.link.raw }

// LocalKey returns what this side is known by.
func (c *Conn) LocalKey() noise.Key { return c.link.localKey }

// RemoteKey returns the key of the other side.
func (c *Conn) RemoteKey() noise.Key { return c.link.handshake.Remote() }

// Handshake returns how the two sides came to know each other.
func (c *Conn) Handshake() Handshake { return c.link.handshake }

// Path returns how the connection goes.
func (c *Conn) Path() Path {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.link.path
}

// OnPath has f called when the connection takes another path, as when it needs
// its relay no longer. It must not block.
func (c *Conn) OnPath(f func(Path)) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.link.onPath = append(c.link.onPath, f)
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.link.ctx.Done() }

// Close ends the connection.
func (c *Conn) Close() error {
	if c.Stream != nil {
		return c.Stream.Close()
	}
	return c.link.raw.Close()
}
