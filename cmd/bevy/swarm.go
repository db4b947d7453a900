package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/node/home"
	"github.com/spf13/cobra"
)

// swarmFlag adds --swarm, and what says which network that is.
func (f *swarmFlags) swarmFlag(cmd *cobra.Command, wanted *bool, usage string) {
	cmd.Flags().BoolVar(wanted, "swarm", false, usage+", on the local network and through the DHT")
	f.bootstrapFlags(cmd)
	f.doorFlag(cmd)
	cmd.Flags().StringVar(&f.bind, "bind", "", "with --swarm, use only this `address` of the machine")
}

// A swarm is a store's place in the network of peers.
type swarm struct {
	*hyperswarm.Swarm
	dht *hyperdht.DHT
}

// joinSwarm joins the network as the store. serve gets the connections. Who
// stays is worth a port of the router.
func (h *hyper) joinSwarm(s *corestore.Store, stays bool, serve func(*hyperswarm.Conn)) (*swarm, error) {
	o, err := h.swarm.options(h.app)
	if err != nil {
		return nil, err
	}
	if stays {
		h.routerPort(&o)
	}
	o.KeyPair = storeKeys(s)
	var joined atomic.Pointer[hyperswarm.Swarm]
	o.Notify = func(e dhtrpc.Event) {
		if s := joined.Load(); s != nil && e == dhtrpc.InterfacesChanged {
			s.Refresh()
		}
	}
	dht, err := hyperdht.Open(o)
	if err != nil {
		return nil, fail(err, "cannot join the swarm")
	}
	so := hyperswarm.Options{DHT: dht, Clock: h.clock, Serve: serve}
	if !o.Bind.IsLoopback() { // nobody else is there
		so.LAN = &mdns.Options{}
	}
	sw, err := hyperswarm.New(so)
	if err != nil {
		return nil, errors.Join(fail(err, "cannot join the swarm"), dht.Close())
	}
	joined.Store(sw)
	return &swarm{sw, dht}, nil
}

// routerPort has a node ask the router for a port, if it is not for this machine
// alone.
func (a *app) routerPort(o *hyperdht.Options) {
	if o.Bind.IsLoopback() {
		return
	}
	o.MapPort = home.MapPort(a.clock)
}

// close leaves the network.
func (s *swarm) close() {
	_ = s.Swarm.Close() // whatever others still think, we are gone
	_ = s.dht.Close()
}

// find keeps connections to peers of the log that the swarm finds, and says in
// results whether there ever was one.
func (n *network) find(results chan<- error) {
	var once sync.Once
	tell := func(err error) { once.Do(func() { results <- err }) }
	if n.h.patience > 0 {
		timer := n.h.clock.AfterFunc(n.h.patience, func() {
			tell(fmt.Errorf("the swarm has found nobody with log %s within %v", short(n.log), n.h.patience))
		})
		defer timer.Stop()
	}
	if n.h.swarm.door != "" {
		for {
			err := n.findByDoor(func() { tell(nil) })
			tell(err)
			if n.ctx.Err() != nil {
				return
			}
			n.h.say("%s; trying again", causeOf(err))
			if !sleep(n.ctx, n.h.clock, lookAgain) {
				return
			}
		}
	}
	s, err := n.h.joinSwarm(n.store, n.h.seeds, func(c *hyperswarm.Conn) {
		_ = n.replicate(c.Stream, wayOf(c), func() { tell(nil) }) // the swarm connects again
	})
	if err != nil {
		tell(err)
		return
	}
	defer s.close()
	if _, err := s.Join(topicOf(n.log), hyperswarm.JoinOptions{ClientOnly: !n.h.seeds}); err != nil {
		tell(fmt.Errorf("join the swarm: %w", err))
		return
	}
	<-n.ctx.Done()
	tell(n.ctx.Err())
}

// findByDoor is find where there is no UDP. It returns why it could not begin,
// or when the network ends.
func (n *network) findByDoor(attached func()) error {
	door, err := n.h.enter(n.ctx, n.h.swarm.door, n.keys)
	if err != nil {
		return err
	}
	defer door.Close()
	var peers sync.WaitGroup
	defer peers.Wait()
	tried := map[noise.Key]bool{n.keys.Public: true} // that are connected, or were a moment ago
	var mu sync.Mutex
	for {
		err := door.lookup(n.ctx, topicOf(n.log), func(f hyperdht.Found) {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range f.Peers {
				if tried[p.Key] || len(tried) > maxByDoor {
					continue
				}
				tried[p.Key] = true
				peers.Go(func() {
					stream, path, err := door.connect(n.ctx, p.Key, nil)
					if err == nil {
						_ = n.replicate(stream, path, attached)
					}
					sleep(n.ctx, n.h.clock, firstPause)
					mu.Lock()
					defer mu.Unlock()
					delete(tried, p.Key)
				})
			}
		})
		if n.ctx.Err() != nil {
			return n.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("look for peers through %s: %w", n.h.swarm.door, err)
		}
		if !sleep(n.ctx, n.h.clock, lookAgain) {
			return n.ctx.Err()
		}
	}
}

const (
	// maxByDoor bounds how many peers are connected through a door.
	maxByDoor = 16
	// lookAgain is the time between two searches through a door.
	lookAgain = 5 * time.Second
)

// wayOf is how a connection is spoken of.
func wayOf(c *hyperswarm.Conn) string { return c.Path().String() }

// topicOf is by what the peers of a log find one another.
func topicOf(l hypercore.Key) hyperswarm.Topic { return hyperswarm.Topic(l.Discovery()) }

// flushTime bounds how long it takes until others can find a store.
const flushTime = 30 * time.Second

// findable has others find all logs of the store, and says so when they can.
func (s *server) findable(ctx context.Context) (err error) {
	if s.hyper.swarm.door != "" {
		return s.findableByDoor(ctx)
	}
	s.swarm, err = s.joinSwarm(s.store, true, func(c *hyperswarm.Conn) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			s.replicate(ctx, c.Stream, wayOf(c))
		default:
			s.say("refused %s: %d peers are connected", short(hypercore.Key(c.RemoteKey())), maxConnections)
		}
	})
	if err != nil {
		return err
	}
	var joined []*hyperswarm.Discovery
	for log, err := range s.store.Logs() {
		if err != nil {
			return fail(err, "cannot list the logs")
		}
		d, err := s.swarm.Join(hyperswarm.Topic(log.Discovery), hyperswarm.JoinOptions{})
		if err != nil {
			return fail(err, "cannot join the swarm")
		}
		joined = append(joined, d)
	}
	key := hypercore.Key(s.keys.Public).String()
	if err := s.tell(served{Event: "listening", Address: "swarm", Key: key}, "listening swarm"); err != nil {
		return err
	}
	s.routines.Go(func() {
		limited, cancel := withTimeout(ctx, s.clock, flushTime, context.DeadlineExceeded)
		defer cancel()
		for _, d := range joined {
			if err := d.Flushed(limited); err != nil && ctx.Err() == nil {
				s.say("not announced yet: %s; trying on", causeOf(err))
				return
			}
		}
		if ctx.Err() == nil {
			_ = s.tell(served{Event: "announced", Address: "swarm", Key: key}, fmt.Sprintf("announced %s", plural(uint64(len(joined)), "log")))
		}
	})
	return nil
}

// findableByDoor is findable where there is no UDP.
func (s *server) findableByDoor(ctx context.Context) error {
	door, err := s.enter(ctx, s.hyper.swarm.door, s.keys)
	if err != nil {
		return err
	}
	s.door = door
	err = door.listen(ctx, listening{
		gate:  func(noise.Key) bool { return true },
		serve: func(stream *secretstream.Stream, path string) { s.replicate(ctx, stream, path) },
	})
	if err != nil {
		return fail(err, "cannot listen at %s", door.url)
	}
	key := hypercore.Key(s.keys.Public).String()
	if err := s.tell(served{Event: "listening", Address: door.url, Key: key}, "listening "+door.url); err != nil {
		return err
	}
	var told sync.Once
	announce := func() error {
		n := uint64(0)
		for log, err := range s.store.Logs() {
			if err == nil {
				_, err = door.announce(ctx, log.Discovery)
			}
			if err != nil {
				return err
			}
			n++
		}
		told.Do(func() {
			_ = s.tell(served{Event: "announced", Address: door.url, Key: key}, fmt.Sprintf("announced %s", plural(n, "log")))
		})
		return nil
	}
	s.routines.Go(func() {
		for {
			pause := announceEvery
			if err := announce(); err != nil && ctx.Err() == nil {
				s.say("not announced yet: %s; trying on", causeOf(err))
				pause = lookAgain
			}
			if !sleep(ctx, s.clock, pause) {
				return
			}
		}
	})
	return nil
}
