package blindrelay

import (
	"context"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/protomux"
)

// A Client asks a relay for streams. Its methods may be called by any
// goroutine.
type Client struct {
	conn    Conn
	channel *protomux.Channel
	mux     *protomux.Mux
	serving sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	requests map[Token]*request
}

// A request waits for the relay's answer.
type request struct {
	initiator bool
	done      func(id uint32, err error)
}

// NewClient begins to speak with a relay over a connection to it, which the
// client owns from then on.
func NewClient(conn Conn) (*Client, error) {
	c := &Client{conn: conn, mux: protomux.New(protomux.Options{MaxChannels: 16, MaxQueued: 1 << 20}), requests: map[Token]*request{}}
	id := conn.LocalKey()
	channel, err := c.mux.Open(protomux.ChannelOptions{
		Protocol: protocol,
		ID:       id[:],
		Messages: []func(*protomux.Channel, []byte) error{messagePair: c.onPair, messageUnpair: c.onUnpair},
		OnClose:  func(_ *protomux.Channel, reason error) { c.end(reason) },
	})
	if err != nil {
		return nil, fmt.Errorf("ask a relay: %w", err) // a new mux has room for a channel
	}
	c.channel = channel
	c.serving.Go(func() { c.end(c.mux.Serve(context.Background(), conn)) })
	return c, nil
}

// Start asks for a pairing, as Pair does, and calls done with what comes of
// it, once. done may be called before Start returns, and must not block.
func (c *Client) Start(initiator bool, token Token, id uint32, done func(remote uint32, err error)) {
	if err := c.start(token, id, &request{initiator, done}); err != nil {
		done(0, fmt.Errorf("pair through a relay: %w", err))
	}
}

func (c *Client) start(token Token, id uint32, r *request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if c.requests[token] != nil {
		return ErrPairing
	}
	if err := c.channel.Send(messagePair, pairMessage{r.initiator, token, id}.append(nil)); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.requests[token] = r
	return nil
}

// Pair asks the relay to join a stream of this side, of which id is its own
// number, to that of the peer that shows the same token as the other side. It
// waits for that peer, and returns the number of the relay's stream, to which
// this side's is to be connected, at the relay's address.
//
// When ctx ends before, the token is taken back. The relay drops the stream
// when the client is closed.
func (c *Client) Pair(ctx context.Context, initiator bool, token Token, id uint32) (remote uint32, err error) {
	done := make(chan struct{})
	c.Start(initiator, token, id, func(r uint32, e error) {
		remote, err = r, e
		close(done)
	})
	select {
	case <-done:
		return remote, err
	case <-ctx.Done():
	}
	c.Unpair(token)
	<-done
	return 0, fmt.Errorf("pair through a relay: %w", context.Cause(ctx))
}

// Unpair takes a token back, or ends the streams that it has joined.
func (c *Client) Unpair(token Token) error {
	c.mu.Lock()
	r := c.requests[token]
	delete(c.requests, token)
	err := c.channel.Send(messageUnpair, appendUnpair(nil, token))
	c.mu.Unlock()
	if r != nil {
		r.done(0, fmt.Errorf("pair through a relay: %w", ErrCancelled))
	}
	if err != nil {
		return fmt.Errorf("take back a relay token: %w", err)
	}
	return nil
}

// Close ends the connection, and with it the streams that were joined.
func (c *Client) Close() error {
	c.mux.Destroy(nil)
	err := c.conn.Close()
	c.serving.Wait()
	return err
}

func (c *Client) onPair(_ *protomux.Channel, payload []byte) error {
	m, err := decodePair(payload)
	if err != nil {
		return err
	}
	if r := c.take(m.token, func(r *request) bool { return r.initiator == m.initiator }); r != nil {
		r.done(m.id, nil)
	}
	return nil
}

func (c *Client) onUnpair(_ *protomux.Channel, payload []byte) error {
	token, err := decodeUnpair(payload)
	if err != nil {
		return err
	}
	if r := c.take(token, func(*request) bool { return true }); r != nil {
		r.done(0, fmt.Errorf("pair through a relay: %w", ErrRefused))
	}
	return nil
}

// take takes the request with that token, if it is the one.
func (c *Client) take(token Token, isIt func(*request) bool) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.requests[token]
	if r == nil || !isIt(r) {
		return nil
	}
	delete(c.requests, token)
	return r
}

// end fails what waits.
func (c *Client) end(reason error) {
	c.mu.Lock()
	requests := c.requests
	c.closed, c.requests = true, map[Token]*request{}
	c.mu.Unlock()
	err := fmt.Errorf("pair through a relay: %w", ErrClosed)
	if reason != nil {
		err = fmt.Errorf("%w: %w", err, reason)
	}
	for _, r := range requests {
		r.done(0, err)
	}
}
