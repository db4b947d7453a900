package dhtrelay

import (
	"errors"
	"io"
	"sync"

	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A conn is a connection to a peer on its way to a client: what the client
// encrypts, or the stream of messages that the relay encrypts for it.
type conn struct {
	raw    transport.Conn
	id     uint32               // of the handshake that the client holds
	stream *secretstream.Stream // of the one that it doesn't
}

// begin makes one of a connection that the DHT has made.
func (ses *session) begin(c Conn) (*conn, error) {
	switch h := c.Handshake.(type) {
	case *proxy:
		return &conn{raw: c.Raw, id: h.id}, nil
	case *custodian:
		session, err := h.noise.Split()
		if err != nil {
			c.Raw.Close()
			return nil, err
		}
		stream, err := secretstream.New(c.Raw, session, secretstream.Options{Clock: ses.clock})
		return &conn{raw: c.Raw, stream: stream}, err
	}
	c.Raw.Close()
	return nil, errors.New("a connection with another handshake than was given")
}

func (c *conn) hash() (hash [64]byte) {
	if c.stream != nil {
		hash = c.stream.HandshakeHash()
	}
	return hash
}

func (c *conn) close() {
	if c.stream != nil {
		c.stream.Close()
	}
	c.raw.Close()
}

// carry carries what is said, in both directions, until both have ended or
// either breaks.
func (c *conn) carry(t *tube) {
	var from, watch sync.WaitGroup
	finished := make(chan struct{})
	watch.Go(func() {
		select {
		case <-t.broken: // whatever waits for the peer
			c.close()
		case <-finished:
		}
	})
	from.Go(func() {
		err := c.fromPeer(t)
		if err == nil {
			t.end()
		} else {
			t.abort(err)
		}
	})
	err := c.toPeer(t)
	if err == nil {
		err = c.closeWrite()
	}
	if err != nil {
		t.abort(err)
	}
	from.Wait()
	close(finished)
	watch.Wait()
	c.close()
	t.fail(ErrClosed)
	t.Close() // gives back what nobody took
}

func (c *conn) fromPeer(t *tube) error {
	var buf []byte
	if c.stream == nil {
		buf = make([]byte, chunkSize)
	}
	for {
		p, err := c.read(buf)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = t.writeChunk(p)
		}
		if err != nil {
			return err
		}
	}
}

// read reads the next message, or some bytes if borders don't matter.
func (c *conn) read(buf []byte) ([]byte, error) {
	if c.stream != nil {
		return c.stream.Next()
	}
	n, err := c.raw.Read(buf)
	if n > 0 {
		err = nil // it comes again
	}
	return buf[:n], err
}

func (c *conn) toPeer(t *tube) error {
	for {
		chunk, err := t.next()
		if err == io.EOF {
			return nil
		}
		if err == nil && c.stream != nil {
			err = c.stream.WriteMessage(chunk)
		} else if err == nil {
			_, err = c.raw.Write(chunk)
		}
		if err != nil {
			return err
		}
	}
}

func (c *conn) closeWrite() error {
	if c.stream != nil {
		return c.stream.CloseWrite()
	}
	return c.raw.CloseWrite()
}
