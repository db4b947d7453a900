package hyperswarm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

var red, blue = Topic{1}, Topic{2}

func join(t testing.TB, u *user, topic Topic, o JoinOptions) *Discovery {
	t.Helper()
	d, err := u.Join(topic, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// until lets time pass until what is asked for is true, and says how long that
// took.
func (w *world) until(what func() error) time.Duration {
	w.t.Helper()
	const step = time.Millisecond
	var err error
	for took := time.Duration(0); took < time.Minute; took += step {
		if err = what(); err == nil {
			return took
		}
		w.clock.Advance(step)
	}
	w.t.Fatal(err)
	return 0
}

// wait lets time pass until f, which waits for it, has returned.
func (w *world) wait(f func() error) error {
	w.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	for {
		select {
		case err := <-done:
			return err
		default:
			w.clock.Advance(time.Millisecond)
			runtime.Gosched()
		}
	}
}

func TestPeersOfATopicConnect(t *testing.T) {
	for _, c := range []struct {
		name string
		how  [2]how
		join [2]JoinOptions
		kind hyperdht.PathKind
	}{
		{"both ways", [2]how{overDHT, overDHT}, [2]JoinOptions{}, hyperdht.PathDirect},
		{"server and client", [2]how{overDHT, overDHT}, [2]JoinOptions{{ServerOnly: true}, {ClientOnly: true}}, hyperdht.PathDirect},
		{"client and server", [2]how{overDHT, overDHT}, [2]JoinOptions{{ClientOnly: true}, {ServerOnly: true}}, hyperdht.PathDirect},
		{"local", [2]how{overLAN, overLAN}, [2]JoinOptions{}, hyperdht.PathLAN},
		{"local, server and client", [2]how{overLAN, overLAN}, [2]JoinOptions{{ServerOnly: true}, {ClientOnly: true}}, hyperdht.PathLAN},
		{"both networks", [2]how{overLAN | overDHT, overLAN | overDHT}, [2]JoinOptions{}, hyperdht.PathLAN},
		{"only one has both networks", [2]how{overLAN | overDHT, overDHT}, [2]JoinOptions{}, hyperdht.PathDirect},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.user(3, c.how[0], Options{}), w.user(5, c.how[1], Options{})
			join(t, a, red, c.join[0])
			w.clock.Advance(100 * time.Millisecond)
			join(t, b, red, c.join[1])
			other := w.user(7, overDHT|overLAN, Options{})
			join(t, other, blue, JoinOptions{})
			if c.join[1].ServerOnly && c.how[1] == overDHT {
				w.clock.Advance(100 * time.Millisecond)
				a.Refresh() // the next would be in ten minutes
			}
			w.until(func() error { return errors.Join(a.with(b), b.with(a)) })
			w.clock.Advance(3 * time.Second)
			for _, u := range []*user{a, b} {
				conns := u.Conns()
				if len(conns) != 1 || conns[0].Path().Kind != c.kind {
					t.Fatalf("%d connections, %v, want one that is %v", len(conns), conns[0].Path(), c.kind)
				}
			}
			if a.Conns()[0].Initiator() == b.Conns()[0].Initiator() {
				t.Error("the sides have kept different connections")
			}
			if w.links != 1 {
				t.Errorf("%d connections are open", w.links)
			}
			if len(other.Conns()) != 0 {
				t.Error("a peer of another topic is connected")
			}
		})
	}
}

// Both connect at the same moment: one connection stays, the same for both.
func TestOfTwoConnectionsOneStays(t *testing.T) {
	for _, how := range []how{overDHT, overLAN, overDHT | overLAN} {
		for _, order := range [][2]int{{3, 5}, {5, 3}} {
			w := newWorld(t)
			a, b := w.user(order[0], how, Options{}), w.user(order[1], how, Options{})
			join(t, a, red, JoinOptions{})
			join(t, b, red, JoinOptions{})
			w.clock.Advance(time.Second)
			a.Refresh()
			b.Refresh()
			w.until(func() error { return errors.Join(a.with(b), b.with(a)) })
			w.clock.Advance(10 * time.Second)
			if err := errors.Join(a.with(b), b.with(a)); err != nil {
				t.Error(err)
			}
			if w.links != 1 {
				t.Errorf("%v %v: %d connections are open", how, order, w.links)
			}
			if a.Conns()[0].Initiator() == b.Conns()[0].Initiator() {
				t.Errorf("%v %v: the sides have kept different connections", how, order)
			}
		}
	}
}

// A peer that connects again while the old connection looks alive has lost it.
func TestANewConnectionReplacesOneThatWasLost(t *testing.T) {
	for _, c := range []struct {
		name              string
		mine, used, ended bool // the old one
		replaced          bool
	}{
		{"ours", true, false, false, false}, // both have connected at the same moment
		{"ours that was used", true, true, false, true},
		{"ours that is over", true, false, true, true},
		{"theirs", false, false, false, true}, // it was gone before they could connect again
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.user(5, overDHT, Options{}), w.user(3, overDHT, Options{})
			server, client := a, b
			if c.mine {
				server, client = b, a
			}
			join(t, server, red, JoinOptions{ServerOnly: true})
			w.clock.Advance(time.Second)
			join(t, client, red, JoinOptions{ClientOnly: true})
			w.until(func() error { return errors.Join(a.with(b), b.with(a)) })
			old := a.Conns()[0]
			l := old.link.(*fakeLink)
			if c.used {
				w.clock.Advance(crossing)
				l.moved = true
			}
			if c.ended {
				l.lingers = true
				old.Close()
			}
			// a has the greater key, so it would keep its own.
			_, again := w.pair(b.key(), a.key(), Path{})
			a.serve(again)
			if replaced := a.Conns()[0] != old; replaced != c.replaced {
				t.Errorf("replaced %v", replaced)
			}
			if !c.replaced && (!again.closed || l.alive != 1) {
				t.Error("the other connection goes on, or nobody asks whether the first is alive")
			}
		})
	}
}

// A connection over which nothing is acked is made again, and goes on until
// there is another.
func TestStalledConnectionsAreMadeAgain(t *testing.T) {
	for _, client := range []bool{true, false} {
		w := newWorld(t)
		a, b := w.user(5, overDHT, Options{}), w.user(3, overDHT, Options{})
		join(t, a, red, JoinOptions{})
		w.clock.Advance(time.Second)
		join(t, b, red, JoinOptions{})
		w.until(func() error { return errors.Join(a.with(b), b.with(a)) })
		w.clock.Advance(20 * time.Second)
		u, other := a, b
		if a.Conns()[0].Initiator() != client {
			u, other = b, a
		}
		old := u.Conns()[0]
		for _, l := range []*fakeLink{old.link.(*fakeLink), old.link.(*fakeLink).other} {
			l.moved = true
		}
		w.fail = func(from, to noise.Key) error { return hyperdht.ErrUnreachable }
		old.link.(*fakeLink).stuck = true
		w.clock.Advance(8 * time.Second)
		if len(u.Conns()) != 1 || u.Conns()[0] != old || u.Stats().Renewals == 0 {
			t.Fatal("the old connection is gone before there is another, or none was tried")
		}
		w.fail = nil
		other.do(func() {
			if p := other.peers[u.key()]; p != nil {
				p.addTopic(red)
			}
		})
		took := w.until(func() error {
			if c := u.Conns(); len(c) != 1 || c[0] == old {
				return errors.New("no new connection")
			}
			return errors.Join(a.with(b), b.with(a))
		})
		if took > 3*time.Second {
			t.Errorf("made again after %v", took)
		}
		w.clock.Advance(time.Minute)
		if w.links != 1 || len(a.Conns()) != 1 || len(b.Conns()) != 1 || a.Conns()[0].Initiator() == b.Conns()[0].Initiator() {
			t.Errorf("%d connections", w.links)
		}
		if u.clients+u.servers != 1 || u.open != 1 {
			t.Errorf("counts: %d clients, %d servers, %d open", u.clients, u.servers, u.open)
		}
	}
}

func TestPeersAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.user(3, overDHT, Options{}), w.user(5, overDHT, Options{})
	join(t, b, red, JoinOptions{ServerOnly: true})
	w.clock.Advance(time.Second)
	w.fail = func(from, to noise.Key) error { return hyperdht.ErrUnreachable }
	join(t, a, red, JoinOptions{ClientOnly: true})
	w.clock.Advance(50 * time.Millisecond)
	var at []time.Duration
	start := w.clock.Now()
	for seen := len(w.attempts); w.clock.Now().Sub(start) < 5*time.Minute; {
		w.clock.Advance(100 * time.Millisecond)
		if len(w.attempts) > seen {
			seen = len(w.attempts)
			at = append(at, w.clock.Now().Sub(start))
		}
	}
	// Never connected: when it is found the second time, after about 5, 15 and 15
	// seconds, and then not until it is found again.
	if len(at) != 4 || at[0] < lookAgain || at[0] > 2*lookAgain || at[1] > 12*time.Second || at[2]-at[1] < 14*time.Second || at[2]-at[1] > 19*time.Second || at[3]-at[2] < 14*time.Second {
		t.Errorf("tried again after %v", at)
	}
	if len(a.Peers()) != 0 {
		t.Errorf("remembers %v", a.Peers())
	}
	w.fail = nil
	a.Refresh()
	w.until(func() error { return a.with(b) })

	// One that was lost is tried again within two seconds.
	w.clock.Advance(20 * time.Second)
	a.Conns()[0].Close()
	w.clock.Advance(time.Millisecond)
	if a.with(b) == nil {
		t.Fatal("still connected")
	}
	if took := w.until(func() error { return a.with(b) }); took > 2500*time.Millisecond {
		t.Errorf("connected again after %v", took)
	}
}

func TestExplicitPeersAreKept(t *testing.T) {
	for _, how := range []how{overDHT, overLAN} {
		w := newWorld(t)
		a, b := w.user(3, how, Options{}), w.user(5, how, Options{})
		a.JoinPeer(b.key())
		w.clock.Advance(time.Minute)
		if err := a.with(b); err == nil {
			t.Fatal("connected to who does not listen")
		}
		if err := w.wait(func() error { return b.Listen(context.Background()) }); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(30 * time.Second)
		a.JoinPeer(b.key())
		w.clock.Advance(30 * time.Second)
		if err := a.with(b); err != nil {
			t.Fatal(err)
		}
		a.Conns()[0].Close()
		w.clock.Advance(20 * time.Second)
		if err := a.with(b); err != nil {
			t.Error("not connected again")
		}
		a.LeavePeer(b.key())
		a.Conns()[0].Close()
		w.clock.Advance(20 * time.Minute)
		if err := a.with(b); err == nil || len(a.Peers()) != 0 {
			t.Errorf("connected after it was let go, or remembered: %v", a.Peers())
		}
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	var all []*user
	for n := range 20 {
		u := w.user(n, overDHT, Options{})
		join(t, u, red, JoinOptions{ServerOnly: true})
		all = append(all, u)
	}
	w.clock.Advance(time.Second)
	most := w.user(30, overDHT, Options{MaxPeers: 7})
	join(t, most, red, JoinOptions{ClientOnly: true})
	w.clock.Advance(11 * time.Millisecond)
	if n := len(w.attempts); n != DefaultMaxParallel {
		t.Errorf("%d attempts at once", n)
	}
	w.clock.Advance(30 * time.Second)
	if got := len(most.Conns()); got != 7 {
		t.Errorf("MaxPeers 7: %d connections", got)
	}
	clients := w.user(31, overDHT, Options{MaxClients: 4})
	join(t, clients, red, JoinOptions{})
	limited := w.user(32, overDHT, Options{})
	join(t, limited, red, JoinOptions{ClientOnly: true, Limit: 3})
	w.clock.Advance(30 * time.Second)
	if got := len(clients.Conns()); got != 4 {
		t.Errorf("MaxClients 4: %d connections", got)
	}
	if got := len(limited.Conns()); got != 3 {
		t.Errorf("Limit 3: %d connections", got)
	}
	servers := w.user(33, overDHT, Options{MaxServers: 2})
	join(t, servers, blue, JoinOptions{ServerOnly: true})
	w.clock.Advance(time.Second)
	for _, u := range all[:5] {
		join(t, u, blue, JoinOptions{ClientOnly: true})
	}
	w.clock.Advance(time.Minute)
	if got := len(servers.Conns()); got != 2 {
		t.Errorf("MaxServers 2: %d connections", got)
	}
}

func TestTheGateAndBans(t *testing.T) {
	for _, how := range []how{overDHT, overLAN} {
		w := newWorld(t)
		var banned []noise.Key
		bad := ranked[9].Public
		a := w.user(3, how, Options{
			Refuse: func(k noise.Key) bool { return k == bad },
			Banned: func(k noise.Key, why error) { banned = append(banned, k) },
		})
		good, evil := w.user(5, how, Options{}), w.user(9, how, Options{})
		for _, u := range []*user{a, good, evil} {
			join(t, u, red, JoinOptions{})
			w.clock.Advance(time.Second)
			u.Refresh()
		}
		w.clock.Advance(time.Minute)
		if err := errors.Join(a.with(good), good.with(evil)); err != nil {
			t.Fatal(err)
		}
		if a.with(evil) == nil || evil.with(a) == nil {
			t.Error("connected to who was refused")
		}
		if len(banned) != 1 || banned[0] != bad || a.Stats().BannedPeers != 1 {
			t.Errorf("banned %d", len(banned))
		}
		a.Ban(good.key(), true)
		w.clock.Advance(time.Minute)
		if a.with(good) == nil || good.with(a) == nil {
			t.Error("still connected to who was banned")
		}
		a.Ban(good.key(), false)
		a.Refresh()
		good.Refresh()
		if how == overDHT {
			w.until(func() error { return a.with(good) })
		}
	}
}

func TestFlushWaitsForConnections(t *testing.T) {
	w := newWorld(t)
	for n := range 6 {
		join(t, w.user(n, overDHT, Options{}), red, JoinOptions{ServerOnly: true})
	}
	w.clock.Advance(time.Second)
	w.fail = func(from, to noise.Key) error {
		if rank(to) == 2 {
			return hyperdht.ErrUnreachable
		}
		return nil
	}
	a := w.user(10, overDHT, Options{})
	join(t, a, red, JoinOptions{ClientOnly: true})
	if err := w.wait(func() error { return a.Flush(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	if got := len(a.Conns()); got != 5 {
		t.Errorf("flushed with %d connections", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	a, b := w.user(3, overDHT|overLAN, Options{}), w.user(5, overDHT|overLAN, Options{})
	join(t, a, red, JoinOptions{})
	w.clock.Advance(time.Second)
	join(t, b, red, JoinOptions{})
	w.until(func() error { return errors.Join(a.with(b), b.with(a)) })
	if err := w.wait(func() error { return a.Suspend(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Hour)
	if a.with(b) == nil || b.with(a) == nil || len(w.announced[red]) != 1 || len(a.lan.announced) != 0 {
		t.Errorf("still there: %d connections, %d announced", len(a.Conns()), len(w.announced[red]))
	}
	before := len(a.net.searches)
	w.clock.Advance(time.Hour)
	if len(a.net.searches) != before {
		t.Error("a suspended swarm searches")
	}
	if err := w.wait(func() error { return a.Resume(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	if took := w.until(func() error { return errors.Join(a.with(b), b.with(a)) }); took > time.Second {
		t.Errorf("connected again after %v", took)
	}
}

func TestTopicsAreLeft(t *testing.T) {
	w := newWorld(t)
	a := w.user(3, overDHT, Options{})
	one, two := join(t, a, red, JoinOptions{}), join(t, a, red, JoinOptions{ClientOnly: true})
	w.clock.Advance(time.Second)
	if !w.announced[red][a.key()] {
		t.Fatal("not announced")
	}
	end := func(d *Discovery) {
		t.Helper()
		if err := w.wait(func() error { return d.Close(context.Background()) }); err != nil {
			t.Fatal(err)
		}
	}
	end(one)
	if w.announced[red][a.key()] || len(a.Topics()) != 1 {
		t.Error("announced still, though all look only, or left")
	}
	end(two)
	if len(a.Topics()) != 0 || one.Refresh(JoinOptions{}) == nil {
		t.Error("not left")
	}
	// And joined again at once, while the old one ends.
	d := join(t, a, red, JoinOptions{})
	go d.Close(context.Background())
	for len(a.Topics()) > 0 {
		runtime.Gosched()
	}
	join(t, a, red, JoinOptions{})
	w.clock.Advance(10 * time.Second)
	if !w.announced[red][a.key()] || len(a.Topics()) != 1 {
		t.Error("not announced when it was joined again")
	}
	// The last that is heard of a swarm is that it is gone.
	if err := w.wait(a.Close); err != nil {
		t.Fatal(err)
	}
	if w.announced[red][a.key()] || w.listening[a.key()] != nil {
		t.Error("a closed swarm is announced")
	}
	if _, err := a.Join(red, JoinOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("joined a closed swarm: %v", err)
	}
}

func TestTopicsAreRefreshed(t *testing.T) {
	w := newWorld(t)
	a := w.user(3, overDHT, Options{})
	d := join(t, a, red, JoinOptions{})
	w.clock.Advance(time.Second)
	w.clock.Advance(time.Hour)
	if n := len(a.net.searches); n < 5 || n > 8 {
		t.Errorf("%d searches in an hour", n)
	}
	first, second, third := a.net.searches[0], a.net.searches[1], a.net.searches[2]
	if !first.announce || !first.clear || second.announce || second.withdraw || !third.announce || third.clear || len(third.closest) != 1 {
		t.Errorf("searches %+v, %+v, %+v", first, second, third)
	}
	if err := d.Refresh(JoinOptions{ClientOnly: true}); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Second)
	if last := a.net.searches[len(a.net.searches)-1]; !last.withdraw || last.announce || w.announced[red][a.key()] {
		t.Errorf("last search %+v", last)
	}
}

// A peer on the local network is connected to over it, and over the DHT if it
// does not answer there.
func TestTheLocalNetworkGoesFirst(t *testing.T) {
	w := newWorld(t)
	a, b := w.user(3, overDHT|overLAN, Options{}), w.user(5, overDHT|overLAN, Options{})
	join(t, b, red, JoinOptions{ServerOnly: true})
	w.clock.Advance(time.Second)
	join(t, a, red, JoinOptions{ClientOnly: true})
	w.until(func() error { return a.with(b) })
	if !slices.Equal(w.attempts, []string{"lan 3->5"}) {
		t.Errorf("attempts %v", w.attempts)
	}
	w.clock.Advance(20 * time.Second)
	b.lan.silent = true
	a.Conns()[0].Close()
	w.clock.Advance(10 * time.Second)
	if err := a.with(b); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(w.attempts, ", "); got != "lan 3->5, lan 3->5, 3->5" {
		t.Errorf("attempts %v", got)
	}
}

// An attempt over the DHT that takes its time gives way to the local network.
func TestTheLocalNetworkOvertakesTheDHT(t *testing.T) {
	w := newWorld(t)
	w.lanDelay = 15 * time.Millisecond
	a, b := w.user(3, overDHT|overLAN, Options{}), w.user(5, overDHT|overLAN, Options{})
	join(t, b, red, JoinOptions{ServerOnly: true})
	w.clock.Advance(time.Second)
	join(t, a, red, JoinOptions{ClientOnly: true})
	w.clock.Advance(9 * time.Millisecond)
	w.delay = 10 * time.Second
	w.until(func() error { return a.with(b) })
	w.clock.Advance(time.Minute)
	if got := a.Conns(); len(got) != 1 || got[0].Path().Kind != hyperdht.PathLAN || w.links != 1 {
		t.Errorf("%d connections, %v, %d open", len(got), got[0].Path(), w.links)
	}
	if s := a.Stats(); a.connecting != 0 || a.clients != 1 || s.ClientOpened != 1 {
		t.Errorf("counts: %d connecting, %d clients, %+v", a.connecting, a.clients, s)
	}
}

func TestRelaysAreForWhereNothingElseGoes(t *testing.T) {
	w := newWorld(t)
	a, b := w.user(3, overDHT, Options{RelayThrough: []noise.Key{{7}}}), w.user(5, overDHT, Options{})
	join(t, b, red, JoinOptions{ServerOnly: true})
	w.clock.Advance(time.Second)
	failed := 0
	w.fail = func(from, to noise.Key) error {
		if failed++; failed <= 1 {
			return fmt.Errorf("connect: %w", hyperdht.ErrBothRandom)
		}
		return nil
	}
	join(t, a, red, JoinOptions{ClientOnly: true})
	w.clock.Advance(10 * time.Second)
	if err := a.with(b); err != nil {
		t.Fatal(err)
	}
	if p := a.Conns()[0].Path(); p.Kind != hyperdht.PathRelayed {
		t.Errorf("path %v", p)
	}
}

func TestTwentyPeersMeet(t *testing.T) {
	for _, how := range []how{overDHT, overLAN, overDHT | overLAN} {
		w := newWorld(t)
		var all []*user
		for n := range 20 {
			u := w.user(n, how, Options{})
			join(t, u, red, JoinOptions{})
			all = append(all, u)
			w.clock.Advance(30 * time.Millisecond)
		}
		w.until(func() error {
			for _, u := range all {
				if n := len(u.Conns()); n != 19 {
					return fmt.Errorf("%d has %d connections", rank(u.key()), n)
				}
			}
			return nil
		})
		w.clock.Advance(time.Minute)
		if w.links != 20*19/2 {
			t.Errorf("%v: %d connections", how, w.links)
		}
	}
}

// What strangers say does not fill the memory.
func TestStrangersAreForgotten(t *testing.T) {
	w := newWorld(t)
	a := w.user(3, overDHT, Options{Refuse: func(noise.Key) bool { return true }})
	join(t, a, red, JoinOptions{})
	for n := range 10_000 {
		a.refuses(noise.Key{1, byte(n), byte(n >> 8)})
	}
	if got := len(a.Peers()); got != maxBanned {
		t.Errorf("%d banned peers", got)
	}
	b := w.user(4, overDHT, Options{})
	join(t, b, red, JoinOptions{})
	for n := range 10_000 {
		b.do(func() { b.found(noise.Key{2, byte(n), byte(n >> 8)}, nil, red) })
	}
	if got := len(b.Peers()); got > maxKnown {
		t.Errorf("%d peers", got)
	}
	w.clock.Advance(time.Hour)
	if got := len(b.Peers()); got > maxKnown {
		t.Errorf("%d peers", got)
	}
}
