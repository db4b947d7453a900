// Package bridge serves trees of files over HTTP: drives of anybody, and folders
// of the cloud. It reads, and changes nothing but what a link is for. Who may see
// what is the Resolver's to say.
//
//	http://KEY.localhost:7070/path        each drive is an origin of its own
//	http://AT.KEY.localhost:7070/path     as it was: a version, a time or a tag
//	http://127.0.0.1:7070/d/KEY/path      all on one origin, without scripts
//	http://127.0.0.1:7070/d/KEY@AT/path
//	http://127.0.0.1:7070/s/TOKEN/path    what a link is for: see Options.Links
//
// docs/bridge.md says what is answered, with which headers and limits.
//
//	h := bridge.New(bridge.Options{Resolver: node})
//	if bridge.Addressed(r) {
//		h.ServeHTTP(w, r)
//	}
//
// # Cost
//
// A Handler has no goroutines. What it keeps in memory is bounded by
// Options.CacheBytes, and not kept for long when nobody asks.
package bridge

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// Kind is what is at a path.
type Kind uint8

// What can be at a path.
const (
	File Kind = iota
	Folder
	Link
)

// Info is what is known of a path.
type Info struct {
	Name    string // the last part of the path, in a List
	Kind    Kind
	Target  string    // of a link: absolute in the source, or from the link's folder
	Size    int64     // of a file; Growing while it is written
	ModTime time.Time // zero when not known
	// Tag is a short text, without quotes, that no other contents at the same path
	// ever have. Without one, what was read can't be asked for again with conditions.
	Tag string
	// Entry is the Source's own, for Open.
	Entry any
}

// Growing is the Size of a file that is still being written.
const Growing = -1

// State says which tree a Source is.
type State struct {
	// ID and Revision name all that can be read: it may be kept under these names.
	// Nothing is kept if ID is empty. Revision comes behind an @ in addresses of
	// this very state, if there are any.
	ID, Revision string
	// Fixed means that the tree will never change.
	Fixed bool
	// Public means that anybody may read it who knows its name: pages of other
	// origins may, too, and caches on the way may keep it.
	Public bool
	// Name is what pages call it, if that is not its name in addresses.
	Name string
	// Writable means that it can be changed: it is a Writer.
	Writable bool
}

// A Source is a tree of files. Its methods are called by many goroutines. Paths
// begin with a slash, have no empty, "." or ".." parts, and end in no slash but
// where it is said. What is waited for is waited for while the context lasts.
type Source interface {
	// State returns which tree it is now. It is called often.
	State() State
	// Lookup returns what is at a path, of a link the link itself; an error that is
	// fs.ErrNotExist if there is nothing. With a slash at its end it asks for the
	// folder, where a file of that name may be, too.
	Lookup(ctx context.Context, path string) (Info, error)
	// List returns what is in a folder, in any order that is always the same,
	// without what comes up to after: a Name that was returned before, with a slash
	// behind it if it was a folder's. It ends with the first error.
	List(ctx context.Context, folder, after string) iter.Seq2[Info, error]
	// Open returns a reader of n bytes of a file from off on; all that are there and
	// still to come if n is negative, which is asked of Growing files only. An
	// io.WriterTo writes large pieces.
	Open(ctx context.Context, i Info, off, n int64) (io.ReadCloser, error)
}

// A Resolver finds what a name in an address stands for.
type Resolver interface {
	// Resolve returns the source of a name, a drive's key or another, as it was at
	// at, if that is not empty, and what to call when the request is done. It
	// decides whether whoever asks may see it. Errors that are fs.ErrNotExist,
	// fs.ErrPermission, ErrGone, ErrUnreachable, ErrBusy and ErrBadTime have their own
	// answers.
	Resolve(ctx context.Context, r *http.Request, name, at string) (Source, func(), error)
}

// Errors that have their own answers. Sources and Resolvers wrap them.
var (
	// ErrGone: it was there and is to be no more.
	ErrGone = errors.New("it was taken away")
	// ErrUnreachable: nobody who has it could be found.
	ErrUnreachable = errors.New("nobody who has it could be reached")
	// ErrBusy: too much is being read.
	ErrBusy = errors.New("too much is being read")
	// ErrTries: somebody has asked for too many things that are not there.
	ErrTries = errors.New("there were too many tries")
	// ErrBadTime: what comes behind the @ is no version, time or tag of the source.
	ErrBadTime = errors.New("no such version, time or tag")
)

// Options for a Handler.
type Options struct {
	// Resolver finds the sources. It must be there.
	Resolver Resolver
	// Links makes it a handler of links that are secrets: addresses are /s/TOKEN/path
	// and no others, and the Resolver gets the token as the name. It is told to nobody,
	// and what it leads to can be changed if its State says so.
	Links bool
	// Patience is how long one who asks waits for data that somebody else has, for
	// the first and then for each next piece; 20 s when 0.
	Patience time.Duration
	// WriteTimeout is how long a client may take for a piece; 1 min when 0.
	WriteTimeout time.Duration
	// MaxRequests is how many are answered at once, those beyond it are told to come
	// again; 512 when 0.
	MaxRequests int
	// CacheBytes bounds the memory for answers that are kept; 16 MiB when 0, none when
	// negative. It is given back when nobody asks.
	CacheBytes int
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Log gets what went wrong here. Nothing is logged when nil.
	Log *slog.Logger
}

// A Handler answers requests.
type Handler struct {
	o          Options
	cache      *cache
	requests   places
	large      places // for large files that are in memory whole
	compressor compressor
}

var _ http.Handler = (*Handler)(nil)

// New returns a handler.
func New(o Options) *Handler {
	if o.Patience == 0 {
		o.Patience = 20 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = time.Minute
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = 512
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{
		o:          o,
		cache:      newCache(o.CacheBytes, o.Clock),
		requests:   make(places, o.MaxRequests),
		large:      make(places, maxLarge),
		compressor: newCompressor(),
	}
}

// maxLarge is how many large files are in memory whole, to be compressed.
const maxLarge = 16

// places are for so many at once.
type places chan struct{}

// enter reports whether there is a place; leave gives it back.
func (p places) enter() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p places) leave() { <-p }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parse := parseAddress
	if h.o.Links {
		parse = parseLink
	}
	a, ok := parse(r)
	q := &request{h: h, w: w, r: r, address: a, watch: newWatch(r.Context(), h.o)}
	defer q.watch.stop()
	defer q.watch.end(w)
	if !ok {
		q.setHeaders()
		q.fail(http.StatusNotFound, "This is no address of a drive or a folder. Those look like KEY.localhost or /d/KEY/.")
		return
	}
	if !h.requests.enter() {
		q.setHeaders()
		q.failWith(ErrBusy)
		return
	}
	defer h.requests.leave()
	writes := r.Method == http.MethodPut || r.Method == http.MethodDelete || r.Method == http.MethodPost
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		if writes && h.o.Links {
			break
		}
		q.setHeaders()
		w.Header().Set("Allow", allowed)
		q.fail(http.StatusMethodNotAllowed, "Files can be read here, with GET and HEAD, and not be changed.")
		return
	}
	source, release, err := h.o.Resolver.Resolve(q.watch, r, a.name, a.at)
	if err != nil {
		q.setHeaders()
		q.failWith(err)
		return
	}
	if release != nil {
		defer release()
	}
	q.source, q.state = source, source.State()
	q.setHeaders()
	if r.Method == http.MethodOptions {
		q.options()
		return
	}
	serve := q.serve
	if writes {
		serve = q.write
	}
	if err := serve(); err != nil {
		q.failWith(err)
	}
}

// isUnreachable reports whether an error means that somebody else has what was
// asked for, and can't be reached.
func isUnreachable(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hypercore.ErrNotFound)
}

// isInvalid reports whether an error means that what is there makes no sense.
func isInvalid(err error) bool {
	return errors.Is(err, hyperdrive.ErrInvalid) || errors.Is(err, hyperblobs.ErrInvalid) || errors.Is(err, folder.ErrInvalid) || errors.Is(err, io.ErrUnexpectedEOF)
}

const allowed = "GET, HEAD, OPTIONS"

// A request is one that is being answered.
type request struct {
	h       *Handler
	w       http.ResponseWriter
	r       *http.Request
	address address
	watch   *watch

	source Source // nil until it is known
	state  State
	begun  bool // the answer's head is on its way
}

// failWith answers with what an error means.
func (q *request) failWith(err error) {
	what := "drive or folder"
	switch {
	case q.source != nil:
		what = "file"
	case q.h.o.Links:
		what = "link"
	}
	switch {
	case q.begun:
		// The client must see that this is not all.
		panic(http.ErrAbortHandler)
	case q.r.Context().Err() != nil:
		return // nobody is there any more
	case errors.Is(err, ErrBusy):
		q.w.Header().Set("Retry-After", "1")
		q.fail(http.StatusServiceUnavailable, "Too much is asked for at once. Come again in a moment.")
	case errors.Is(err, ErrTries):
		q.w.Header().Set("Retry-After", "60")
		q.fail(http.StatusTooManyRequests, "There were too many tries. Come again in a minute.")
	case errors.Is(err, ErrChanged):
		q.fail(http.StatusPreconditionFailed, "The file is not what it was any more, or is there already.")
	case errors.Is(err, ErrInTheWay):
		q.fail(http.StatusConflict, "Something else is at that path, or a file where a folder would have to be.")
	case errors.Is(err, ErrFull):
		q.fail(http.StatusInsufficientStorage, "There is no room for it.")
	case errors.Is(err, ErrBadTime):
		q.fail(http.StatusNotFound, "What is behind the @ is no version, time or tag of it.")
	case errors.Is(err, errLoop):
		q.fail(http.StatusNotFound, "Links lead from one to another and to no file.")
	case isUnreachable(err), context.Cause(q.watch) != nil:
		q.w.Header().Set("Retry-After", "5")
		q.fail(http.StatusGatewayTimeout, "Nobody who has it could be reached. See that a machine that has it is switched on and online, and load this page again; `bevy netcheck` looks at the connection of this one.")
	case errors.Is(err, ErrGone) && what == "link":
		q.fail(http.StatusGone, "This link is over: its time has passed, or it was stopped. Ask who gave it to you for another one.")
	case errors.Is(err, ErrGone):
		q.fail(http.StatusGone, "This "+what+" was taken away.")
	case errors.Is(err, fs.ErrPermission) && q.h.o.Links:
		q.fail(http.StatusForbidden, "This link is not for that.")
	case errors.Is(err, fs.ErrPermission):
		text := "You may not see this " + what + "."
		if q.address.shared {
			text += " If it is yours, sign in: `bevy up` prints a link for that."
		}
		q.fail(http.StatusForbidden, text)
	case errors.Is(err, fs.ErrNotExist) && what == "link":
		q.fail(http.StatusNotFound, "There is no such link. See that it was copied whole.")
	case errors.Is(err, fs.ErrNotExist):
		q.fail(http.StatusNotFound, "There is no such "+what+".")
	case isInvalid(err):
		q.fail(http.StatusBadGateway, "Whoever wrote this drive wrote something that makes no sense.")
	default:
		q.h.o.Log.Error("serve a file", "name", q.called(), "path", q.address.path, "err", err)
		q.fail(http.StatusInternalServerError, "It could not be read. The log of the node says why.")
	}
}

// called is what it is called where others see it.
func (q *request) called() string {
	switch {
	case q.state.Name != "":
		return q.state.Name
	case q.h.o.Links:
		return "a link"
	}
	return q.address.name
}
