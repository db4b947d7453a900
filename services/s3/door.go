// Package s3 is a door for programs that speak to Amazon S3: an [http.Handler] that
// answers its requests from buckets that are folders of a cloud.
//
//	door, err := s3.New(ctx, s3.Options{Spaces: spaces, Verifier: verifier})
//	http.Serve(listener, door)
//	err = door.Close()
//
// This package is the words: which operation a request is (the table in routes.go),
// who may do it (keys' rights, policies, access control lists), checksums, XML, and
// errors. What buckets and objects are is package objects.
//
// A bucket's owner is the app that made it. Its keys may do what their rights say;
// others, and those who show no key, what the bucket's policy or its access control
// list says. What S3 has and this door has not is refused with NotImplemented.
package s3

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// What bounds the memory and the time that clients take.
const (
	maxRequests    = 512     // at a time
	maxBody        = 4 << 20 // of XML
	maxHeaders     = 16 << 10
	maxPut         = 5 << 30 // bytes of an object that is put at once, or of a part
	maxMetadata    = 2 << 10
	patience       = time.Minute // in which a client has to send or to take something
	smallObject    = 64 << 10    // bytes of one that is read at once
	drainSize      = 16 << 20    // bytes that are read of what is refused
	drainTime      = 5 * time.Second
	firstExpiry    = time.Minute
	expiryInterval = 6 * time.Hour
)

// Key is what is known of an access key.
type Key = sigv4.Key

// ErrUnknownKey is what a [Verifier]'s Keys returns for a key that there is not.
var ErrUnknownKey = sigv4.ErrUnknownKey

// A Verifier verifies signatures. Its Service is "s3".
type Verifier = sigv4.Verifier

// Options for New.
type Options struct {
	// Spaces has the buckets.
	Spaces objects.Spaces
	// Verifier verifies signatures. Without it nobody is anybody: each request is
	// anonymous.
	Verifier *Verifier
	// App returns the app that an access key is of; "" is the default one, of which all
	// are when it is nil.
	App func(accessKey string) string
	// Allowed says whether a key may read from or write to its app's bucket, "*" for all
	// of them. All may when it is nil.
	Allowed func(accessKey, bucket string, write bool) bool
	// Apps returns all apps. In their order buckets are looked for that the caller's app
	// has not. Only "" when nil.
	Apps func(ctx context.Context) ([]string, error)
	// Hosts are the names by which the door is reached, besides localhost and
	// s3.localhost: BUCKET.HOST is a bucket.
	Hosts []string
	// Region is the one that is told; us-east-1 when "".
	Region string
	// Tidies says whether the door does in a bucket by itself what its lifecycle says;
	// in all when nil.
	Tidies func(ctx context.Context, app, bucket string) bool
	// Tidied is when that was done last, and Tidy told when it was done.
	Tidied time.Time
	Tidy   func(time.Time)
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
	// Log is told what goes wrong inside.
	Log *slog.Logger
	// SmallParts lets parts of any size be completed, for tests.
	SmallParts bool
}

// A Door answers requests. Its methods may be called by any goroutine.
type Door struct {
	o     Options
	store *objects.Store
	slots chan struct{}   // has a token for each request
	ctx   context.Context // ends with the door
	stop  context.CancelFunc
	busy  sync.WaitGroup // requests, and work that goes on beside them

	mu     sync.Mutex
	timer  clock.Timer // of expiry; guarded by mu
	closed bool        // guarded by mu
}

var _ http.Handler = (*Door)(nil)

// New returns a door.
func New(_ context.Context, o Options) (*Door, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.App == nil {
		o.App = func(string) string { return "" }
	}
	if o.Allowed == nil {
		o.Allowed = func(string, string, bool) bool { return true }
	}
	if o.Apps == nil {
		o.Apps = func(context.Context) ([]string, error) { return []string{""}, nil }
	}
	o.Hosts = hosts(o.Hosts)
	d := &Door{o: o, slots: make(chan struct{}, maxRequests)}
	d.store = objects.New(objects.Options{Spaces: o.Spaces, Clock: o.Clock, SmallParts: o.SmallParts})
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := o.Tidied.Add(expiryInterval).Sub(o.Clock.Now())
	d.timer = o.Clock.AfterFunc(min(max(wait, firstExpiry), expiryInterval), d.expireAll)
	return d, nil
}

// Close waits for requests and closes the buckets.
func (d *Door) Close() error {
	d.mu.Lock()
	d.closed = true
	d.timer.Stop()
	d.mu.Unlock()
	d.stop()
	d.busy.Wait()
	if err := d.store.Close(); err != nil {
		return fmt.Errorf("close s3: %w", err)
	}
	return nil
}

// Store has the buckets of the door, for who works with them beside it. It is
// closed with the door.
func (d *Door) Store() *objects.Store { return d.store }

// enter reports whether there may be work, which has to call busy.Done.
func (d *Door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.busy.Add(1)
	return true
}

// Match reports whether a request is one for this door: see [Match].
func (d *Door) Match(r *http.Request) bool { return match(d.o.Hosts, r) }

// Match reports whether a request is one for a door with these Hosts: it is signed
// for S3, or is made to one of its hosts. What a browser sends without a signature
// to a host that has other things, too, is not.
func Match(names []string, r *http.Request) bool { return match(hosts(names), r) }

func match(bases []string, r *http.Request) bool {
	if auth := r.Header.Get("Authorization"); auth != "" {
		return strings.HasPrefix(auth, "AWS4-") && strings.Contains(auth, "/s3/aws4_request") || strings.HasPrefix(auth, "AWS ")
	}
	if query := r.URL.RawQuery; strings.Contains(query, "X-Amz-") || strings.Contains(query, "AWSAccessKeyId=") {
		scope := r.URL.Query().Get("X-Amz-Credential")
		return scope == "" || strings.Contains(scope, "/s3/")
	}
	if r.Method == http.MethodOptions && strings.Contains(strings.ToLower(r.Header.Get("Access-Control-Request-Headers")), "x-amz-") {
		return true
	}
	host := hostName(r.Host)
	for _, base := range bases {
		if strings.HasSuffix(host, ".s3."+base) || strings.HasSuffix(host, ".s3-website."+base) || host == "s3."+base {
			return true
		}
	}
	return host == "s3.localhost"
}

// requestID is a name for a request.
func requestID() string {
	var b [8]byte
	rand.Read(b[:])
	return strings.ToUpper(hex.EncodeToString(b[:]))
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
	c := d.newCall(w, r)
	defer c.end()
	err := c.serve()
	if err == nil {
		return
	}
	if errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler) // what was begun can't be ended well
	}
	e, known := told(err)
	if !known && r.Context().Err() == nil {
		d.o.Log.Error("request failed", "operation", c.operation(), "bucket", c.bucket, "err", err)
	}
	c.fail(e)
}

// newCall begins a request.
func (d *Door) newCall(w http.ResponseWriter, r *http.Request) *call {
	id := requestID()
	h := w.Header()
	h.Set("x-amz-request-id", id)
	h.Set("x-amz-id-2", base64.StdEncoding.EncodeToString([]byte(id+id)))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Server", "Bevy")
	// The server looks at the request once more when it has its answer, so what is
	// changed is a copy.
	own := *r
	return &call{d: d, w: w, r: &own, ctx: r.Context(), id: id, h: h}
}
