// Package dynamodb is a door for programs that speak to Amazon DynamoDB: an
// [http.Handler] that answers its requests, in its words, from tables that are
// ordered maps on logs ([Tree]). Every write is durable before it is answered.
//
//	trees := dynamodb.NewStore(logs, clock.System)
//	door, err := dynamodb.New(ctx, dynamodb.Options{Trees: trees})
//	http.Serve(listener, door)
//	err = door.Close()
//
// A table is one tree: its items, indexes, stream, expiry times and description
// are ranges of keys in it, and a write with all that follows from it is one
// append. Writes that come at the same time share one.
// docs/formats/dynamodb.md says what the keys are.
//
// A change of several tables is an intent in the tree of the door itself, which is
// the moment it is done, and then an append to each table. Readers wait meanwhile,
// and what a crash leaves undone is done when the door is opened.
package dynamodb

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// What bounds the memory that clients take.
const (
	maxRequest   = 16 << 20
	largeRequest = 1 << 20
	maxItem      = 400 << 10
	maxPage      = 1 << 20
	idleTables   = 32               // that stay open
	requestTime  = time.Minute      // in which a request has to be here
	idleTime     = time.Minute      // after which others are closed, too
	tokenTime    = 10 * time.Minute // that a transaction is remembered
	streamTime   = 24 * time.Hour   // that records are kept
	maxRequests  = 256              // at a time
	maxLarge     = 4                // of them that may have more bytes than largeRequest
)

// Options for a door.
type Options struct {
	// Trees has the tables.
	Trees Trees
	// Authorize says who makes a request, or refuses it with an *Error. body is all
	// of it. A door without it takes any request that looks signed.
	Authorize func(r *http.Request, body []byte) (principal string, err error)
	// Allow says whether who Authorize has named may read a table, or also write to
	// it, or to [Everything]. A door without it allows all.
	Allow func(principal, table string, write bool) bool
	// Buckets are where tables are exported to and imported from; nil is nowhere.
	Buckets Buckets
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
	// Region and Account are those in names of tables: us-east-1 and 000000000000.
	Region, Account string
	// Log is told what goes wrong inside.
	Log *slog.Logger
}

// A Door answers requests. Its methods may be called by any goroutine.
type Door struct {
	o     Options
	slots chan struct{}   // has a token for each request
	large chan struct{}   // and for each that may be large
	ctx   context.Context // ends with the door
	stop  context.CancelFunc
	busy  sync.WaitGroup // requests, and work that goes on after them

	catalog catalog
	opening sync.Mutex // one table at a time; taken before mu

	mu      sync.Mutex
	tables  map[string]*table  // that are open, by name; guarded by mu
	timer   clock.Timer        // closes idle tables; guarded by mu
	expiry  expiries           // guarded by mu
	filling map[string]bool    // trees whose indexes are being filled; guarded by mu
	making  map[string]*schema // tables that are being restored, by name; guarded by mu
	closed  bool               // guarded by mu

	past bool // it has tables as they were, which don't change
}

var _ http.Handler = (*Door)(nil)

// New returns a door, once what a crash left undone is done.
func New(ctx context.Context, o Options) (*Door, error) {
	d := newDoor(o)
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open dynamodb: %w", err), d.Close())
	}
	return d, nil
}

// newDoor returns a door that has no catalog yet.
func newDoor(o Options) *Door {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Account == "" {
		o.Account = "000000000000"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{o: o, slots: make(chan struct{}, maxRequests), large: make(chan struct{}, maxLarge), tables: map[string]*table{}, filling: map[string]bool{}, making: map[string]*schema{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// Close waits for requests and closes the tables.
func (d *Door) Close() error {
	d.mu.Lock()
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.expiry.stop()
	d.mu.Unlock()
	d.stop()
	d.busy.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []error
	for name, t := range d.tables {
		all = append(all, t.tree.Close())
		delete(d.tables, name)
	}
	return errors.Join(append(all, d.catalog.close())...)
}

// enter reports whether there is room for work, which has to call leave.
func (d *Door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.busy.Add(1)
	return true
}

// requestID makes up the name of a request, which is no secret.
func requestID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var b [52]byte
	var bits uint64
	for i := range b {
		if i%12 == 0 {
			bits = rand.Uint64()
		}
		b[i] = letters[bits&31]
		bits >>= 5
	}
	return string(b[:])
}

// ServeHTTP implements [http.Handler].
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.enter() {
		http.Error(w, "the door is closed", http.StatusServiceUnavailable)
		return
	}
	defer d.busy.Done()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-r.Context().Done():
		return
	}
	if r.ContentLength < 0 || r.ContentLength > largeRequest {
		select {
		case d.large <- struct{}{}:
			defer func() { <-d.large }()
		case <-r.Context().Done():
			return
		}
	}
	body, err := d.readBody(w, r)
	if err != nil {
		status := http.StatusBadRequest
		if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
			status = http.StatusRequestEntityTooLarge
		}
		w.WriteHeader(status)
		_ = http.NewResponseController(w).Flush()
		return
	}
	defer recycle(body)
	h := w.Header()
	h["X-Amzn-Requestid"] = []string{requestID()}
	if d.o.Authorize != nil && r.Header.Get("Origin") != "" {
		h.Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			allow(h, r.Header)
			return
		}
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/":
		reply(w, http.StatusOK, "", []byte("healthy: dynamodb."+d.o.Region+".amazonaws.com "))
	case r.Method != http.MethodPost, len(body) > 0 && kind != "application/json" && kind != jsonType:
		reply(w, http.StatusNotFound, "", []byte("<UnknownOperationException/>\n"))
	default:
		if kind != jsonType {
			kind = "application/json"
		}
		d.answer(w, r, body, kind)
	}
}

const jsonType = "application/x-amz-json-1.0"

// readBody reads a body in its time. Where connections have no deadlines, clients
// may take as long as they like.
func (d *Door) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if d.o.Clock == clock.System {
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(d.o.Clock.Now().Add(requestTime))
		defer func() { _ = c.SetReadDeadline(time.Time{}) }() // or the answer would have it, too
	}
	if n := r.ContentLength; n >= 0 && n <= largeRequest {
		b := slices.Grow([]byte(newObject()), int(n))[:n]
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
}

// allow answers a browser that asks what it may do.
func allow(h, asked http.Header) {
	if v := asked.Get("Access-Control-Request-Headers"); v != "" {
		h.Set("Access-Control-Allow-Headers", v)
	}
	if v := asked.Get("Access-Control-Request-Method"); v != "" {
		h.Set("Access-Control-Allow-Methods", v)
	}
	h.Set("Access-Control-Max-Age", "172800")
}

func reply(w http.ResponseWriter, status int, kind string, body []byte) {
	h := w.Header()
	values := [...]string{strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10), strconv.Itoa(len(body)), kind}
	h["X-Amz-Crc32"] = values[0:1:1]
	h["Content-Length"] = values[1:2:2]
	if kind != "" {
		h["Content-Type"] = values[2:3:3]
	}
	w.WriteHeader(status)
	w.Write(body)
}

// answer does what a request asks for.
func (d *Door) answer(w http.ResponseWriter, r *http.Request, body []byte, kind string) {
	out, err := d.do(r, body)
	if err == nil {
		reply(w, http.StatusOK, kind, out)
		recycle(out)
		return
	}
	e := new(Error)
	if !errors.As(err, &e) {
		e = &Error{Type: "InternalServerError", Message: "Internal server error", Status: http.StatusInternalServerError}
		if r.Context().Err() == nil {
			d.o.Log.Error("request failed", "target", r.Header.Get("X-Amz-Target"), "err", err)
		}
	}
	e.send(w, kind)
}

// send answers with the error.
func (e *Error) send(w http.ResponseWriter, kind string) {
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	b := item.AppendString([]byte(`{"__type":`), e.full())
	if e.Message != "" || e.Type == "ResourceInUseException" {
		name := `,"message":`
		if e.capital() {
			name = `,"Message":`
		}
		b = item.AppendString(append(b, name...), e.Message)
	}
	if e.extra != nil {
		b = e.extra(b)
	}
	reply(w, status, kind, append(b, '}'))
}

var errSerialization = &Error{Type: "SerializationException"}

// expand undoes how a body was packed.
func expand(r *http.Request, body []byte) ([]byte, error) {
	bad := &Error{Type: "InternalFailure", Message: "The body could not be decoded", Status: http.StatusInternalServerError}
	var in io.Reader
	var err error
	switch strings.ToLower(r.Header.Get("Content-Encoding")) {
	case "", "identity", "aws-chunked":
		return body, nil
	case "gzip":
		in, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		in, err = zlib.NewReader(bytes.NewReader(body))
	default:
		return nil, bad
	}
	if err != nil {
		return nil, bad
	}
	out, err := io.ReadAll(io.LimitReader(in, maxRequest+1))
	if err != nil || len(out) > maxRequest {
		return nil, bad
	}
	return out, nil
}

// do does what a request asks for.
func (d *Door) do(r *http.Request, body []byte) ([]byte, error) {
	text, err := expand(r, body)
	if err != nil {
		return nil, err
	}
	var root *item.Node
	if len(text) > 0 {
		var ok bool
		if root, ok = item.Parse(text); !ok {
			return nil, errSerialization
		}
	}
	space, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	op, ok := operations[name]
	if !ok || space != op.space && space != "DynamoDB_20111205" {
		return nil, &Error{Type: "UnknownOperationException", Message: missing[name]}
	}
	principal, err := d.authorize(r, body)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, errSerialization
	}
	d.nameTables(root)
	if err := d.allowed(principal, name, root); err != nil {
		return nil, err
	}
	return d.perform(r.Context(), op, root)
}

// perform does an operation.
func (d *Door) perform(ctx context.Context, op operation, root *item.Node) ([]byte, error) {
	if root.Kind != item.Object {
		return nil, &Error{Type: "SerializationException", Message: "Unexpected value type in payload"}
	}
	checked, err := checkStruct(root, op.shape)
	if err != nil {
		return nil, &Error{Type: "SerializationException", Message: err.Error()}
	}
	if problem := validate(checked, op.shape); problem != "" {
		return nil, invalid(problem)
	}
	req := &request{Node: checked}
	if op.check != nil {
		if err := op.check(req); err != nil {
			return nil, err
		}
	}
	return op.run(d, ctx, req)
}

// authorize refuses requests that nobody may make, and says who makes this one.
func (d *Door) authorize(r *http.Request, body []byte) (principal string, err error) {
	if d.o.Authorize != nil {
		return d.o.Authorize(r, body)
	}
	return "", looksSigned(r)
}

// plainlySigned reports whether a header is what clients send, most of the time.
func plainlySigned(header string) bool {
	rest, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 Credential=")
	credential, rest, ok2 := strings.Cut(rest, ", SignedHeaders=")
	headers, signature, ok3 := strings.Cut(rest, ", Signature=")
	if !ok || !ok2 || !ok3 {
		return false
	}
	for _, s := range []string{credential, headers, signature} {
		if s == "" || strings.ContainsAny(s, " ,=") {
			return false
		}
	}
	return true
}

// looksSigned refuses requests that no client of DynamoDB would make.
func looksSigned(r *http.Request) error {
	header := r.Header.Get("Authorization")
	if r.URL.RawQuery == "" && plainlySigned(header) && r.Header.Get("X-Amz-Date") != "" {
		return nil
	}
	query := r.URL.Query()
	var missing strings.Builder
	switch inQuery := query.Has("X-Amz-Algorithm"); {
	case header != "" && inQuery:
		return &Error{Type: "InvalidSignatureException", Message: "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}
	case header == "" && !inQuery, header != "" && !strings.HasPrefix(strings.TrimSpace(header), "AWS4-"):
		return &Error{Type: "MissingAuthenticationTokenException", Message: "Request is missing Authentication Token"}
	case inQuery:
		for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
			if query.Get(name) == "" {
				missing.WriteString("AWS query-string parameters must include '" + name + "'. ")
			}
		}
		if missing.Len() > 0 {
			missing.WriteString("Re-examine the query-string parameters.")
		}
	default:
		params := map[string]string{}
		for _, part := range strings.FieldsFunc(header, func(c rune) bool { return c == ',' || c == ' ' }) {
			key, value, _ := strings.Cut(part, "=")
			params[key] = value
		}
		for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
			if params[name] == "" {
				missing.WriteString("Authorization header requires '" + name + "' parameter. ")
			}
		}
		if r.Header.Get("X-Amz-Date") == "" && r.Header.Get("Date") == "" {
			missing.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
		}
		if missing.Len() > 0 {
			missing.WriteString("Authorization=" + header)
		}
	}
	if missing.Len() > 0 {
		return &Error{Type: "IncompleteSignatureException", Message: missing.String()}
	}
	return nil
}

// An operation is what requests may ask for.
type operation struct {
	space string
	shape []field
	check func(*request) error
	run   func(*Door, context.Context, *request) ([]byte, error)
}

const (
	tableSpace  = "DynamoDB_20120810"
	streamSpace = "DynamoDBStreams_20120810"
)
