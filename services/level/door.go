package level

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// Version is that of the messages: docs/formats/level-door.md.
const Version = 1

// The subprotocols that clients offer: ours, and tokenPrefix with the token.
// Browsers have no other way to say it.
const subprotocol, tokenPrefix = "bevy-level", "bevy-token."

// What bounds the memory that clients take.
const (
	maxConns   = 64       // connections of a door
	maxHandles = 1024     // iterators and snapshots of a connection
	maxMessage = 16 << 20 // bytes of a request
	pageBytes  = 1 << 20  // after which a reply gets no more entries or values
	pageSize   = 1000     // the most entries of a reply
)

// requestTime is how long a request may take. While one waits for peers it is
// not noticed that the client has gone, if it has sent more.
const requestTime = time.Minute

// Options for a door.
type Options struct {
	// Token is what clients have to show: a secret of letters, digits, '-', '.',
	// '_' and '~'. Without one nobody gets in.
	Token string
	// Origins are the web pages that may connect, such as "https://app.example".
	// What is not a browser has no origin.
	Origins []string
	// Hosts are the names that the door has besides those of this machine for
	// itself, such as "localhost". A request to another name is refused: a page
	// may have made it point here.
	Hosts []string
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}

// A Door lets programs that are not in Go use a tree, over WebSockets.
type Door struct {
	tree  *hyperbee.Tree
	o     Options
	ctx   context.Context // ends with the door
	stop  context.CancelFunc
	conns chan struct{} // has a token for each connection
	busy  sync.WaitGroup

	mu     sync.Mutex
	closed bool // guarded by mu
}

var _ http.Handler = (*Door)(nil)

// New returns a door to a tree, which must stay open until the door is closed.
func New(tree *hyperbee.Tree, o Options) *Door {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	d := &Door{tree: tree, o: o, conns: make(chan struct{}, maxConns)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// Close ends all connections. A server that is shut down leaves them alone.
func (d *Door) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	d.busy.Wait()
	return nil
}

// enter makes room for a connection, which has to call leave.
func (d *Door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	select {
	case d.conns <- struct{}{}:
		d.busy.Add(1)
		return true
	default:
		return false
	}
}

func (d *Door) leave() {
	<-d.conns
	d.busy.Done()
}

// ServeHTTP implements [http.Handler].
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch origin := r.Header.Get("Origin"); {
	case !d.isHost(r.Host):
		http.Error(w, "this door has another name", http.StatusMisdirectedRequest)
		return
	case origin != "" && !slices.Contains(d.o.Origins, origin):
		http.Error(w, "web pages of this origin may not connect", http.StatusForbidden)
		return
	case !d.isToken(shown(r)):
		http.Error(w, "show the door's token", http.StatusUnauthorized)
		return
	}
	if !d.enter() {
		http.Error(w, "there are too many connections, or the door is closed", http.StatusServiceUnavailable)
		return
	}
	defer d.leave()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the origin was looked at above
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	ws.SetReadLimit(maxMessage)
	db := Open(d.tree)
	defer db.Close()
	c := &conn{ws: ws, db: db, clock: d.o.Clock, snapshots: map[uint64]*DB{}, iterators: map[uint64]*cursor{}}
	c.serve(d.ctx)
}

// isHost reports whether a Host header names the door.
func (d *Door) isHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(host)
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && a.IsLoopback() {
		return true
	}
	return host == "localhost" || slices.ContainsFunc(d.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// shown is the token that a request shows.
func shown(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offer), tokenPrefix); ok {
				return token
			}
		}
	}
	return ""
}

// isToken takes the same time whatever is shown.
func (d *Door) isToken(shown string) bool {
	a, b := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(d.o.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && d.o.Token != ""
}

// A conn is a connection. Its requests are done one after the other, in their
// order: so an iterator sees what was put before it and not what is put after,
// and no more than two messages are in memory.
type conn struct {
	ws    *websocket.Conn
	db    *DB
	clock clock.Clock

	greeted   bool
	snapshots map[uint64]*DB // by the number of the request that made them
	iterators map[uint64]*cursor
}

// A cursor is an iterator of a connection.
type cursor struct {
	*Iterator
	keys, values bool // what of the entries is wanted
	none         bool // its limit was 0
}

// serve answers until the connection or ctx ends.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	messages := make(chan []byte)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(messages)
		defer cancel() // nobody is left to answer
		for {
			kind, message, err := c.ws.Read(ctx)
			if err != nil {
				return
			}
			if kind != websocket.MessageText {
				message = nil // which is no request
			}
			select {
			case messages <- message:
			case <-ctx.Done():
				return
			}
		}
	})
	defer reading.Wait()
	defer c.ws.CloseNow()
	defer cancel()
	for message := range messages {
		r, err := parse(message)
		if r.ID == 0 {
			c.ws.Close(websocket.StatusPolicyViolation, fmt.Sprintf("not a request: %.90v", err))
			return
		}
		var out reply
		if err == nil {
			out, err = c.answer(ctx, r)
		} else {
			err = fmt.Errorf("%w: not a request: %w", NotSupported, err)
		}
		if err != nil {
			out = reply{Error: &problem{CodeOf(err), err.Error()}}
		}
		out.ID = r.ID
		if err := c.write(ctx, out); err != nil {
			return
		}
	}
}

func (c *conn) write(ctx context.Context, out reply) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		return err
	}
	return c.ws.Write(ctx, websocket.MessageText, b.Bytes())
}

// answer does a request, in bounded time.
func (c *conn) answer(ctx context.Context, r request) (reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := fmt.Errorf("%w: it took longer than %v", Aborted, requestTime)
	defer c.clock.AfterFunc(requestTime, func() { cancel(slow) }).Stop()
	out, err := c.do(ctx, r)
	if err != nil && context.Cause(ctx) == slow {
		err = fmt.Errorf("%s: %w", r.Op, slow)
	}
	return out, err
}

func (c *conn) do(ctx context.Context, r request) (reply, error) {
	if r.Op != "hello" && !c.greeted {
		return reply{}, fmt.Errorf("%w: the first request is hello", NotSupported)
	}
	switch r.Op {
	case "hello":
		if r.Version != Version {
			return reply{}, fmt.Errorf("%w: version %d: only %d is spoken here", NotSupported, r.Version, Version)
		}
		c.greeted = true
		return reply{Version: Version, MaxMessage: maxMessage}, nil
	case "get":
		db, err := c.at(r)
		if err != nil {
			return reply{}, err
		}
		value, err := db.Get(ctx, r.Key)
		return reply{Value: value}, err
	case "getMany":
		return c.getMany(ctx, r)
	case "hasMany":
		return c.hasMany(ctx, r)
	case "put":
		return reply{}, c.db.Put(ctx, r.Key, r.Value)
	case "del":
		return reply{}, c.db.Del(ctx, r.Key)
	case "batch":
		return reply{}, c.batch(ctx, r)
	case "clear":
		return reply{}, c.clear(ctx, r)
	case "snapshot":
		return reply{}, c.snapshot(ctx, r)
	case "iterator":
		return reply{}, c.iterator(ctx, r)
	case "next":
		return c.next(ctx, r)
	case "close":
		return reply{}, c.close(r)
	}
	return reply{}, fmt.Errorf("%w: operation %.40q", NotSupported, r.Op)
}

// at is the database that a request reads.
func (c *conn) at(r request) (*DB, error) {
	if r.Snapshot == 0 {
		return c.db, nil
	}
	s := c.snapshots[r.Snapshot]
	if s == nil {
		return nil, fmt.Errorf("snapshot %d: %w", r.Snapshot, SnapshotNotOpen)
	}
	return s, nil
}

// getMany answers fewer keys than it was asked for when the values are large,
// but at least one.
func (c *conn) getMany(ctx context.Context, r request) (reply, error) {
	db, err := c.at(r)
	if err != nil {
		return reply{}, err
	}
	values := []data{}
	size := 0
	for _, key := range r.Keys {
		value, err := db.Get(ctx, key)
		if err != nil {
			return reply{}, err
		}
		values = append(values, value)
		if size += len(value); size >= pageBytes {
			break
		}
	}
	return reply{Values: values}, nil
}

func (c *conn) hasMany(ctx context.Context, r request) (reply, error) {
	db, err := c.at(r)
	if err != nil {
		return reply{}, err
	}
	keys := make([][]byte, len(r.Keys))
	for i, key := range r.Keys {
		keys[i] = key
	}
	has, err := db.HasMany(ctx, keys)
	return reply{Has: has}, err
}

func (c *conn) batch(ctx context.Context, r request) error {
	changes := make([]Change, len(r.Changes))
	for i, ch := range r.Changes {
		if ch.Type != "put" && ch.Type != "del" {
			return fmt.Errorf("batch: %w: type %.40q", NotSupported, ch.Type)
		}
		changes[i] = Change{Key: ch.Key, Value: ch.Value, Delete: ch.Type == "del"}
	}
	return c.db.Batch(ctx, changes)
}

// span is the range of a request. None says that its limit is 0, which for a
// Range is no limit.
func (r request) span() (s Range, none bool) {
	s = Range{Gt: r.Gt, Gte: r.Gte, Lt: r.Lt, Lte: r.Lte, Reverse: r.Reverse}
	if r.Limit != nil {
		s.Limit = max(0, *r.Limit)
		none = *r.Limit == 0
	}
	return s, none
}

func (c *conn) clear(ctx context.Context, r request) error {
	var at *DB
	if r.Snapshot != 0 {
		var err error
		if at, err = c.at(r); err != nil {
			return err
		}
	}
	s, none := r.span()
	if none {
		return nil
	}
	return c.db.Clear(ctx, s, at)
}

// room returns an error if a request can't make another handle.
func (c *conn) room(r request) error {
	if len(c.snapshots)+len(c.iterators) >= maxHandles {
		return fmt.Errorf("%w: there are %d iterators and snapshots open, and can't be more", NotSupported, maxHandles)
	}
	if c.snapshots[r.ID] != nil || c.iterators[r.ID] != nil {
		return fmt.Errorf("%w: number %d is that of something open", NotSupported, r.ID)
	}
	return nil
}

func (c *conn) snapshot(ctx context.Context, r request) error {
	if err := c.room(r); err != nil {
		return err
	}
	s, err := c.db.Snapshot(ctx)
	if err == nil {
		c.snapshots[r.ID] = s
	}
	return err
}

func (c *conn) iterator(ctx context.Context, r request) error {
	if err := c.room(r); err != nil {
		return err
	}
	if r.Only != "" && r.Only != "keys" && r.Only != "values" {
		return fmt.Errorf("iterate: %w: only %.40q", NotSupported, r.Only)
	}
	db, err := c.at(r)
	if err != nil {
		return err
	}
	s, none := r.span()
	it, err := db.Iterator(ctx, s)
	if err == nil {
		c.iterators[r.ID] = &cursor{it, r.Only != "values", r.Only != "keys", none}
	}
	return err
}

// next answers up to as many entries as it was asked for, and at least one
// unless there are none.
func (c *conn) next(ctx context.Context, r request) (reply, error) {
	it := c.iterators[r.Iterator]
	if it == nil {
		return reply{}, fmt.Errorf("iterator %d: %w", r.Iterator, IteratorNotOpen)
	}
	if r.Seek != nil {
		if err := it.Seek(r.Seek); err != nil {
			return reply{}, err
		}
	}
	var out reply
	if it.keys {
		out.Keys = []data{}
	}
	if it.values {
		out.Values = []data{}
	}
	if it.none {
		out.End = true
		return out, nil
	}
	n, size := 0, 0
	for e, err := range it.Entries(ctx) {
		if err != nil {
			return reply{}, err
		}
		if it.keys {
			out.Keys = append(out.Keys, e.Key)
			size += len(e.Key)
		}
		if it.values {
			out.Values = append(out.Values, e.Value)
			size += len(e.Value)
		}
		if n++; n >= min(max(1, r.Size), pageSize) || size >= pageBytes {
			return out, nil
		}
	}
	out.End = true
	return out, nil
}

// close ends a snapshot or an iterator, if it is there.
func (c *conn) close(r request) error {
	var errs []error
	if s := c.snapshots[r.Snapshot]; s != nil {
		delete(c.snapshots, r.Snapshot)
		errs = append(errs, s.Close())
	}
	if it := c.iterators[r.Iterator]; it != nil {
		delete(c.iterators, r.Iterator)
		errs = append(errs, it.Close())
	}
	return errors.Join(errs...)
}
