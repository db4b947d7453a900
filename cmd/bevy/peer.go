package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/spf13/cobra"
)

// peerFlags adds what a command takes that reads from peers.
func (h *hyper) peerFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&h.peers, "peer", nil, "fetch what is not here from this `address`: tcp://<host>:<port>, ws://<host>:<port>/ or wss://; several share the work")
	h.swarm.swarmFlag(cmd, &h.finds, "fetch what is not here from peers that are found")
	cmd.Flags().BoolVar(&h.temp, "temp", false, "keep nothing of what is fetched")
	cmd.Flags().DurationVar(&h.patience, "wait", 20*time.Second, "give up when nothing has come from peers for this `time`")
}

// checkPeers checks what those flags say.
func (h *hyper) checkPeers() error {
	for _, addr := range h.peers {
		if scheme, rest, ok := strings.Cut(addr, "://"); !ok || rest == "" || scheme != "tcp" && scheme != "ws" && scheme != "wss" {
			return wrong("--peer tcp://<host>:<port>", "known are tcp://, ws:// and wss://", "%q is not the address of a peer", addr)
		}
	}
	if h.temp && !h.remote() {
		return wrong("--temp --swarm, or --temp --peer tcp://<host>:<port>", "a temporary store has nothing in it", "--temp wants --peer or --swarm")
	}
	return nil
}

// storeKeys is what this store is known by among peers. It stays the same.
func storeKeys(s *corestore.Store) noise.KeyPair {
	return noise.NewKeyPair([32]byte(s.Namespace("bevy hyper").KeyPair("peer").Seed()))
}

const (
	// dialTimeout is for connecting, with the handshake.
	dialTimeout = 10 * time.Second
	// straggle is how long others may take when one peer is connected.
	straggle = time.Second
	// Lost connections are made anew after a pause that grows.
	firstPause, lastPause = 500 * time.Millisecond, 30 * time.Second
)

// A network is the connections of a command that reads from peers.
type network struct {
	h       *hyper
	store   *corestore.Store
	log     hypercore.Key // the one that is read
	keys    noise.KeyPair
	ctx     context.Context
	stop    context.CancelFunc
	dialers sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	muxes  map[*protomux.Mux]bool
	came   chan struct{}          // closed with the next connection
	shared map[hypercore.Key]bool // peers get no other logs
}

// attached counts a connection over which the logs are offered.
func (n *network) attached(m *protomux.Mux) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.muxes[m] = true
	close(n.came)
	n.came = make(chan struct{})
}

// connected counts the connections. One that has ended is not counted from
// before the logs hear of its end.
func (n *network) connected() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for m := range n.muxes {
		if !m.Ended() {
			count++
		}
	}
	return count
}

// next is closed when there is one connection more than now.
func (n *network) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.came
}

// share lets peers have one more log, which must not be open yet.
func (n *network) share(l hypercore.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shared[l] = true
}

func (n *network) shares(l hypercore.Key) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shared[l]
}

// connect connects to the peers that were given. At least one must answer; to
// the others it goes on trying.
func (h *hyper) connect(ctx context.Context, s *corestore.Store, l hypercore.Key) (*network, error) {
	n := &network{h: h, store: s, log: l, keys: storeKeys(s),
		muxes: map[*protomux.Mux]bool{}, came: make(chan struct{}), shared: map[hypercore.Key]bool{}}
	n.share(l)
	n.ctx, n.stop = context.WithCancel(ctx)
	ways := len(h.peers)
	if h.finds {
		ways++
	}
	results := make(chan error, ways)
	if h.finds {
		n.dialers.Go(func() { n.find(results) })
	}
	for _, addr := range h.peers {
		n.dialers.Go(func() { n.keep(addr, results) })
	}
	var errs []error
	late := make(chan struct{})
	var timer clock.Timer
	for range ways {
		select {
		case err := <-results:
			if err != nil {
				errs = append(errs, err)
			} else if timer == nil {
				timer = h.clock.AfterFunc(straggle, func() { close(late) })
				defer timer.Stop()
			}
			continue
		case <-late:
		case <-ctx.Done():
		}
		break
	}
	if ctx.Err() != nil {
		n.close()
		return nil, fail(ctx.Err(), "cannot reach the peers")
	}
	if len(errs) < ways {
		for _, err := range errs {
			h.say("%s; trying on", causeOf(err))
		}
		return n, nil
	}
	n.close()
	return nil, h.unreachable(errs)
}

// unreachable says that no peer answered, and why.
func (h *hyper) unreachable(errs []error) error {
	f := &failure{code: codeOffline, err: errs[0], what: "cannot reach any peer", cause: causeOf(errors.Join(errs...)), try: advice[codeOffline]}
	switch {
	case h.finds:
		f.try = "bevy hyper netcheck, or --wait with a longer time"
	case len(errs) > 1:
		f.what = fmt.Sprintf("cannot reach any of %d peers", len(errs))
	default:
		f.what = "cannot reach " + h.peers[0]
		f.cause = strings.TrimPrefix(f.cause, f.what+": ")
	}
	if errors.Is(errs[0], secretstream.ErrRefused) {
		f.code = codeDenied
	}
	return f
}

// close ends the connections.
func (n *network) close() {
	n.stop()
	n.dialers.Wait()
}

// keep keeps one connection, and says in results how the first attempt went.
func (n *network) keep(addr string, results chan<- error) {
	pause := firstPause
	for first := true; ; first = false {
		ended := n.once(addr, func() {
			pause = firstPause
			if first {
				results <- nil
				results = nil
			} else {
				n.h.say("connected to %s", addr)
			}
		})
		switch {
		case n.ctx.Err() != nil:
			if first && results != nil {
				results <- n.ctx.Err()
			}
			return
		case first && results != nil:
			results <- ended
		case pause == firstPause:
			n.h.say("lost %s: %s; trying again", addr, causeOf(ended))
		}
		if !sleep(n.ctx, n.h.clock, pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// once connects and replicates until that ends, and returns why it did.
func (n *network) once(addr string, attached func()) error {
	stream, err := n.dial(addr)
	if err != nil {
		return err
	}
	return n.replicate(stream, addr, attached)
}

// replicate carries the log over a connection until that ends, and returns why
// it did.
func (n *network) replicate(stream *secretstream.Stream, name string, attached func()) error {
	var mux *protomux.Mux
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.muxes, mux)
	}()
	err := n.store.Replicate(n.ctx, stream, corestore.ReplicateOptions{
		Name: name,
		Allow: func(_ noise.Key, l hypercore.Key) replicate.Access {
			if !n.shares(l) {
				return replicate.Access{}
			}
			return replicate.Full
		},
		Attached: func(m *protomux.Mux) {
			mux = m
			n.attached(m)
			attached()
		},
	})
	if err == nil {
		err = errors.New("the peer ended the connection")
	}
	return err
}

// dial connects to a peer.
func (n *network) dial(addr string) (*secretstream.Stream, error) {
	ctx, cancel := withTimeout(n.ctx, n.h.clock, dialTimeout, fmt.Errorf("no answer within %v", dialTimeout))
	defer cancel()
	fails := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("cannot reach %s: %w", addr, err)
	}
	conn, err := transport.Dial(ctx, addr, transport.DialOptions{Clock: n.h.clock})
	if err != nil {
		return nil, fails(err)
	}
	stream, err := secretstream.Client(ctx, conn, secretstream.Options{KeyPair: n.keys, Clock: n.h.clock})
	if err != nil {
		return nil, fails(err)
	}
	return stream, nil
}

// peersOf returns the peers of a log, whether they have it open or were dropped.
func (n *network) peersOf(l hypercore.Key) (out []replicate.PeerInfo) {
	for _, p := range n.store.Peers() {
		if p.Log == l {
			out = append(out, p)
		}
	}
	return out
}

// sharers counts the peers that have a log.
func (n *network) sharers(l hypercore.Key) (count int) {
	for _, p := range n.peersOf(l) {
		if p.Open {
			count++
		}
	}
	return count
}

// noAnswer is why a command that waits for peers gives up.
func (n *network) noAnswer() error {
	f := &failure{code: codeNotFound, what: fmt.Sprintf("nothing of log %s has come for %v", short(n.log), n.h.patience),
		cause: "no peer that is connected has it", try: "other peers, or --wait with a longer time"}
	switch {
	case n.connected() == 0:
		f.code, f.cause, f.try = codeOffline, "the connection to every peer is lost", advice[codeOffline]
	case n.sharers(n.log) > 0:
		f.cause = "peers that are connected have the log, but not these blocks"
	}
	return f
}

// A patience ends a context when what it waits for does not come for a while.
type patience struct {
	clock clock.Clock
	limit time.Duration // 0 waits for ever
	give  func()        // up

	mu    sync.Mutex  // guards timer
	timer clock.Timer // nil while it does not wait
}

// hear begins anew with all that comes of a log, until stop is called.
func (p *patience) hear(l *hypercore.Log) (stop func(), err error) {
	w, err := l.Watch()
	if err != nil {
		return nil, err
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for range w.All(context.Background()) { // until it is closed
			p.came()
		}
	})
	return func() {
		w.Close()
		hearing.Wait()
	}, nil
}

// start begins to wait.
func (p *patience) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && p.timer == nil {
		p.timer = p.clock.AfterFunc(p.limit, p.give)
	}
}

// came begins anew if it waits.
func (p *patience) came() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = p.clock.AfterFunc(p.limit, p.give)
	}
}

// rest stops waiting.
func (p *patience) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

var sleep = clock.Sleep

// withTimeout is context.WithTimeoutCause by a clock of ours.
func withTimeout(ctx context.Context, c clock.Clock, d time.Duration, cause error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := c.AfterFunc(d, func() { cancel(cause) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
