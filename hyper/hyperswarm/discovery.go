package hyperswarm

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// Times of lib/peer-discovery.js.
const (
	refreshEvery  = 10 * time.Minute
	refreshJitter = 2 * time.Minute
	// overdue is how late a refresh may be before the machine must have slept.
	overdue = 30 * time.Second

	// lookAgain is when to look again after the first time, as those who join at
	// the same moment have not announced themselves yet when we look. It is not
	// in the reference, whose peers miss one another for ten minutes then.
	lookAgain = 2 * time.Second

	maxDiscovered = 64 // peers of one refresh that count for its limit
)

// JoinOptions say what to do with a topic. The zero value both looks for peers
// and lets itself be found.
type JoinOptions struct {
	// ServerOnly leaves out looking for peers, ClientOnly being found.
	ServerOnly, ClientOnly bool
	// Limit is how many peers of the topic to connect to, at most; zero is for
	// any number.
	Limit int
}

// A Discovery is somebody's interest in a topic. Others may be interested in
// the same topic; what all of them want is done. Its methods may be called by
// any goroutine.
type Discovery struct {
	swarm *Swarm
	topic *topic

	// These are guarded by the swarm's lock.
	client, server, closed bool
}

// Topic returns what it is about.
func (d *Discovery) Topic() Topic { return d.topic.id }

// Refresh changes what to do, and looks for peers again. It does not wait; see
// [Discovery.Flushed].
func (d *Discovery) Refresh(o JoinOptions) error {
	var err error
	d.swarm.do(func() {
		switch {
		case d.closed || d.topic.closed:
			err = ErrClosed
		case o.ServerOnly && o.ClientOnly:
			err = errors.New("refresh topic: neither as client nor as server")
		default:
			d.set(!o.ServerOnly, !o.ClientOnly)
			d.topic.limit = o.Limit
			d.topic.refresh()
		}
	})
	return err
}

// set changes what is wanted.
func (d *Discovery) set(client, server bool) {
	count := func(n *int, was, is bool) {
		if is && !was {
			*n++
		}
		if was && !is {
			*n--
		}
	}
	count(&d.topic.clients, d.client, client)
	count(&d.topic.servers, d.server, server)
	d.client, d.server = client, server
}

// Flushed waits until the topic has been announced and looked up, and returns
// what went wrong.
func (d *Discovery) Flushed(ctx context.Context) error {
	for {
		var r *refresh
		d.swarm.do(func() { r = d.topic.current })
		if r == nil {
			return nil
		}
		err := r.wait(ctx)
		var again bool
		d.swarm.do(func() { again = d.topic.current != nil && d.topic.current != r })
		if !again || ctx.Err() != nil {
			return err
		}
	}
}

// Close ends the interest. If nobody else has one, the topic is left: it waits
// for the announcement to be taken back, until ctx ends.
func (d *Discovery) Close(ctx context.Context) error {
	t := d.topic
	var r *refresh
	d.swarm.do(func() {
		if d.closed {
			return
		}
		d.closed = true
		d.set(false, false)
		t.sessions = slices.DeleteFunc(t.sessions, func(o *Discovery) bool { return o == d })
		switch {
		case len(t.sessions) == 0:
			r = t.close()
		case t.servers == 0 && t.announced:
			r = t.refresh()
		default:
			d.swarm.tellLocal()
		}
	})
	return r.wait(ctx)
}

// A refresh is one that is under way, or the end of a topic.
type refresh struct {
	over bool
	err  error
	done chan struct{}
	then []func()
}

func newRefresh() *refresh { return &refresh{done: make(chan struct{})} }

// finish ends it, with the swarm's lock.
func (r *refresh) finish(err error) {
	if r.over {
		return
	}
	r.over, r.err = true, err
	close(r.done)
	for _, f := range r.then {
		f()
	}
	r.then = nil
}

// after calls f with the swarm's lock when r is over. A nil one is.
func (r *refresh) after(f func()) {
	if r == nil || r.over {
		f()
		return
	}
	r.then = append(r.then, f)
}

func (r *refresh) wait(ctx context.Context) error {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A topic is what the swarm does about one (lib/peer-discovery.js). Everything
// is guarded by the swarm's lock.
type topic struct {
	swarm *Swarm
	id    Topic
	limit int

	sessions         []*Discovery
	clients, servers int  // sessions that want it
	client, server   bool // what is done
	closed           bool
	ending           *refresh // closing or suspending
	before           *refresh // the end of the topic that was here before
	suspended        bool

	cancel     context.CancelFunc // of the search under way
	timer      clock.Timer
	current    *refresh
	discovered map[noise.Key]bool
	closest    []netip.AddrPort
	looked     int  // how often
	cleared    bool // what a former life has announced was taken back
	announced  bool // and to be taken back
}

func (t *topic) active() bool { return !t.closed && !t.suspended }

// refresh does what the sessions want, now. It returns what there is to wait
// for.
func (t *topic) refresh() *refresh {
	t.swarm.tellLocal()
	if !t.active() {
		return nil
	}
	server, client := t.servers > 0, t.clients > 0
	if server == t.server && client == t.client && t.current != nil {
		return t.current
	}
	t.stop()
	t.server, t.client = server, client
	r := newRefresh()
	t.current = r
	t.before.after(func() {
		if t.current != r || !t.active() {
			r.finish(nil)
			return
		}
		if !t.server {
			t.search(r)
			return
		}
		t.swarm.listen().after(func() {
			if t.current != r || !t.active() {
				r.finish(nil) // there is another one by now
				return
			}
			t.search(r)
		})
	})
	return r
}

// stop ends the search under way.
func (t *topic) stop() {
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// search walks through the DHT, for a refresh.
func (t *topic) search(r *refresh) {
	s := t.swarm
	q := search{topic: t.id, announce: t.server, withdraw: !t.server && t.announced, closest: t.closest}
	t.looked++
	if t.looked == 2 && t.server {
		q.announce = false
	}
	if q.announce {
		q.clear, t.cleared = !t.cleared, true
		t.announced = true
		if s.server != nil {
			q.relays = s.server.RelayAddresses()
		}
	}
	left := t.limit
	for key := range t.discovered {
		if e := s.all[key]; e != nil && e.open && left > 0 {
			left--
		}
	}
	t.discovered = map[noise.Key]bool{}
	if s.network == nil {
		t.over(r, nil)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	found := func(peers []hyperdht.Peer) {
		s.do(func() {
			if t.current != r || !t.client || !t.active() {
				return
			}
			for _, p := range peers {
				if t.limit > 0 {
					if len(t.discovered) < maxDiscovered {
						t.discovered[p.Key] = true
					}
					if left == 0 {
						continue
					}
					if e := s.all[p.Key]; e == nil || !e.open {
						left--
					}
				}
				s.found(p.Key, p.RelayAddresses, t.id)
			}
		})
	}
	s.later(func() {
		s.network.search(ctx, q, found, func(closest []netip.AddrPort, err error) {
			cancel()
			s.do(func() {
				if err == nil {
					t.closest = closest
				}
				if err == nil && t.current == r && q.withdraw {
					t.announced = false
				}
				t.over(r, err)
			})
		})
	})
}

// over ends a refresh.
func (t *topic) over(r *refresh, err error) {
	if t.current == r {
		t.current, t.cancel = nil, nil
		if t.active() {
			t.refreshLater(false)
		}
	}
	if !t.active() {
		err = nil
	}
	r.finish(err)
}

// refreshLater sets the time of the next refresh: soon after the machine has
// slept.
func (t *topic) refreshLater(soon bool) {
	s := t.swarm
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if s.network == nil {
		return // the local network tells by itself
	}
	delay := upTo(s.o.Random, refreshJitter)
	switch {
	case t.looked == 1 && t.client:
		delay = lookAgain + upTo(s.o.Random, lookAgain)
	case !soon:
		delay += refreshEvery
	}
	began := s.o.Clock.Now()
	var timer clock.Timer
	timer = s.o.Clock.AfterFunc(delay, func() {
		s.do(func() {
			switch {
			case t.timer != timer || !t.active():
			case s.o.Clock.Now().Sub(began) > delay+overdue:
				t.refreshLater(true)
			default:
				t.timer = nil
				t.refresh()
			}
		})
	})
	t.timer = timer
}

// close leaves the topic. What it returns is over when the announcement was
// taken back.
func (t *topic) close() *refresh {
	if !t.closed {
		t.closed = true
		t.end()
	}
	return t.ending
}

// suspend takes the announcement back for a while.
func (t *topic) suspend() *refresh {
	if !t.suspended && !t.closed {
		t.suspended = true
		t.end()
	}
	return t.ending
}

func (t *topic) resume() {
	if t.suspended {
		t.suspended = false
		t.refresh()
	}
}

// end stops what is under way, and then takes the announcement back from where
// it was before and is by now.
func (t *topic) end() {
	s := t.swarm
	s.tellLocal()
	t.stop()
	ending := newRefresh()
	t.ending = ending
	nodes := t.closest
	running := t.current
	t.before.after(func() {
		running.after(func() {
			if t.active() || !t.announced || s.network == nil {
				s.left(t)
				ending.finish(nil)
				return
			}
			nodes = slices.Clone(nodes)
			for _, n := range t.closest {
				if !slices.Contains(nodes, n) {
					nodes = append(nodes, n)
				}
			}
			t.announced = false
			s.later(func() {
				s.network.search(context.Background(), search{topic: t.id, withdraw: true, closest: nodes}, func([]hyperdht.Peer) {}, func(_ []netip.AddrPort, err error) {
					s.do(func() {
						s.left(t)
						ending.finish(err)
					})
				})
			})
		})
	})
}
