package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/spf13/cobra"
)

// A foundPeer is what --json prints of a peer that has announced itself.
type foundPeer struct {
	Topic  string   `json:"topic,omitempty"`
	Key    string   `json:"key"`
	Relays []string `json:"relays"` // nodes that know the way to it
	Nodes  int      `json:"nodes"`  // how many nodes tell of it
}

func (d *dht) lookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lookup <topic> [flags]",
		Short: "List the peers that are announced for a topic",
		Long: `Asks the nodes that are closest to the topic, and prints the key of each peer
that they tell of, with how many of them do. Anyone may announce anything: who a
peer is shows when it is connected to.`,
		Example: `bevy hyper dht lookup chess-club
bevy hyper dht lookup chess-club --json`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return d.lookup(cmd.Context(), args[0]) },
	}
	d.flags(cmd)
	d.doorFlag(cmd)
	return cmd
}

func (d *dht) lookup(ctx context.Context, word string) error {
	topic := parseTopic(word)
	return d.reach(ctx, noise.KeyPair{}, func(ctx context.Context, r reach) error {
		peers := map[noise.Key]*foundPeer{}
		err := d.limited(ctx, func(ctx context.Context) error {
			return r.lookup(ctx, topic, func(f hyperdht.Found) {
				for _, p := range f.Peers {
					known := peers[p.Key]
					if known == nil {
						known = &foundPeer{Topic: keyText(topic), Key: keyText(p.Key), Relays: texts(p.RelayAddresses)}
						peers[p.Key] = known
					}
					known.Nodes++
				}
			})
		})
		if err != nil {
			return d.cannot(err, "cannot look up topic %s", word)
		}
		all := slices.SortedFunc(maps.Values(peers), func(a, b *foundPeer) int {
			return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Key, b.Key))
		})
		if len(all) == 0 && !d.json {
			d.say("nobody is announced for topic %s", word)
		}
		t := newTable("KEY", "NODES")
		for _, p := range all {
			if d.json {
				if err := d.printJSON(p); err != nil {
					return written(err)
				}
				continue
			}
			t.add(p.Key, fmt.Sprint(p.Nodes))
		}
		if d.json || len(all) == 0 {
			return nil
		}
		return written(t.write(d.stdout))
	})
}

func (d *dht) findCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "find <key> [flags]",
		Short: "Print the nodes by which a peer is reached",
		Long: `Asks the nodes that are closest to the key. The exit code is 3 if none of them
knows the peer, which then does not listen.`,
		Example: `bevy hyper dht find <key>`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			return d.find(cmd.Context(), key)
		},
	}
	d.flags(cmd)
	return cmd
}

func (d *dht) find(ctx context.Context, key noise.Key) error {
	return d.join(ctx, func(ctx context.Context) error {
		var found hyperdht.Found
		err := d.limited(ctx, func(ctx context.Context) (err error) {
			found, err = d.FindPeer(ctx, key)
			return err
		})
		if err != nil {
			return d.cannot(err, "cannot find peer %s", keyText(key))
		}
		p := foundPeer{Key: keyText(key), Relays: texts([]netip.AddrPort{found.From}), Nodes: 1}
		for _, peer := range found.Peers {
			if peer.Key == key {
				p.Relays = texts(append(peer.RelayAddresses, found.From))
			}
		}
		if d.json {
			return written(d.printJSON(p))
		}
		for _, r := range p.Relays {
			if err := d.printLine(r); err != nil {
				return written(err)
			}
		}
		return nil
	})
}

// An announced is what --json prints.
type announced struct {
	Topic string `json:"topic"`
	Key   string `json:"key"`
	Nodes int    `json:"nodes"` // how many took it
}

func (d *dht) announceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "announce <topic> [flags]",
		Short: "Have others find this store's key by a topic, until stopped",
		Long: `Tells the nodes that are closest to the topic that this store's key is to be
found there, again every ten minutes, and takes it back when it is stopped. It
also listens with the key, so that who finds it can see that it is there:
"bevy hyper dht ping". Connections carry nothing; "bevy hyper serve --swarm"
serves the store.`,
		Example: `bevy hyper dht announce chess-club
bevy hyper dht announce chess-club --temp`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return d.announce(cmd.Context(), args[0]) },
	}
	d.flags(cmd)
	d.ownKey(cmd)
	d.doorFlag(cmd)
	return cmd
}

func (d *dht) announce(ctx context.Context, word string) error {
	topic := parseTopic(word)
	return d.reachAs(ctx, func(ctx context.Context, own noise.Key, r reach) error {
		if err := r.listen(ctx, listening{gate: func(noise.Key) bool { return true }, serve: drain}); err != nil {
			return d.cannot(err, "cannot listen")
		}
		for first := true; ; first = false {
			nodes := 0
			err := d.limited(ctx, func(ctx context.Context) (err error) {
				nodes, err = r.announce(ctx, topic)
				return err
			})
			switch {
			case ctx.Err() != nil:
			case err != nil && first:
				return d.cannot(err, "cannot announce topic %s", word)
			case err != nil:
				d.say("cannot announce topic %s again: %s; trying on", word, causeOf(err))
			case first && d.json:
				err = d.printJSON(announced{Topic: keyText(topic), Key: keyText(own), Nodes: nodes})
			case first:
				err = d.printLine(fmt.Sprintf("announced %s to %s", keyText(own), plural(uint64(nodes), "node")))
			}
			if first && err != nil && ctx.Err() == nil {
				return written(err)
			}
			if !sleep(ctx, d.clock, announceEvery) {
				break
			}
		}
		leave, cancel := withTimeout(context.WithoutCancel(ctx), d.clock, leaveTimeout, context.DeadlineExceeded)
		defer cancel()
		if err := r.unannounce(leave, topic); err != nil {
			d.say("cannot take the announcement back: %s; nodes forget it by themselves", causeOf(err))
		}
		d.say("stopped")
		return nil
	})
}
