package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/spf13/cobra"
)

func (d *dht) relayCommand() *cobra.Command {
	var doors []string
	cmd := &cobra.Command{
		Use:   "relay [flags]",
		Short: "Carry connections of those who can't reach one another",
		Long: `Relays connections, until it is stopped, for peers that name its key, which it
prints: "--relay <key>". It sees who speaks with whom and how much, and nothing
of what they say.

With --ws it is also a door for those who have no UDP: programs in browsers, and
peers behind firewalls, who come in by "--door ws://<host>:<port>/". Firewalls
let port 443 through most often. Encryption is from peer to peer, so that the
WebSocket needs none for that; where a page wants wss, put a proxy with a
certificate before it.`,
		Example: `bevy hyper dht relay
bevy hyper dht relay --ws :443`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return d.relay(cmd.Context(), doors) },
	}
	d.bootstrapFlags(cmd)
	d.placeFlags(cmd)
	d.ownKey(cmd)
	cmd.Flags().StringArrayVar(&doors, "ws", nil, "let peers in by WebSockets at this `address`: <host>:<port>, or :<port>")
	return cmd
}

// A relayEvent is what --json prints of each way in.
type relayEvent struct {
	Event   string `json:"event"`   // "listening"
	Address string `json:"address"` // of a door; "" for the relay
	Key     string `json:"key"`     // of the relay
}

func (d *dht) relay(ctx context.Context, doors []string) error {
	d.stays = true
	return d.joinAs(ctx, func(ctx context.Context) (err error) {
		key := keyText(d.KeyPair().Public)
		blind := blindrelay.NewServer(blindrelay.Options{UDX: d.UDX(), Clock: d.clock})
		defer blind.Close()
		if _, err := d.Listen(ctx, d.KeyPair(), hyperdht.ServerOptions{
			Serve: func(c *hyperdht.Conn) { _ = blind.Serve(ctx, c) }, // how a client leaves is its own business
		}); err != nil {
			return d.cannot(err, "cannot listen")
		}
		if err := d.opened(relayEvent{Event: "listening", Key: key}, "relay "+key); err != nil {
			return err
		}
		door := dhtrelay.NewServer(dhtrelay.Over(d.DHT), dhtrelay.ServerOptions{Clock: d.clock})
		defer door.Close()
		var serving sync.WaitGroup
		defer serving.Wait()
		for _, addr := range doors {
			addr = "ws://" + strings.TrimPrefix(addr, "ws://")
			l, err := transport.Listen(ctx, addr, transport.ListenOptions{AllowOrigins: []string{"*"}, Clock: d.clock})
			if err != nil {
				return cannotListen(err, addr)
			}
			defer l.Close()
			serving.Go(func() { _ = door.ServeListener(ctx, l) })
			if err := d.opened(relayEvent{Event: "listening", Address: l.Addr(), Key: key}, "door "+l.Addr()); err != nil {
				return err
			}
		}
		<-ctx.Done()
		s := blind.Stats()
		d.say("stopped: relayed %s in %s", size(s.Bytes), plural(s.Matched, "connection"))
		return nil
	})
}

// opened tells where others come in.
func (d *dht) opened(e relayEvent, line string) error {
	if d.json {
		return written(d.printJSON(e))
	}
	return written(d.printLine(line))
}

// doorFlag adds --door.
func (f *swarmFlags) doorFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.door, "door", "", "go through this `address` of a relay where there is no UDP: ws://<host>:<port>/")
}

// enter connects to a door.
func (a *app) enter(ctx context.Context, url string, keys noise.KeyPair) (*byDoor, error) {
	limited, cancel := withTimeout(ctx, a.clock, dialTimeout, fmt.Errorf("no answer within %v", dialTimeout))
	defer cancel()
	client, err := dhtrelay.Dial(limited, url, dhtrelay.ClientOptions{KeyPair: keys, Clock: a.clock})
	if err != nil {
		return nil, &failure{code: codeOffline, what: "cannot reach " + url, cause: causeOf(err), err: err, try: advice[codeOffline]}
	}
	return &byDoor{Client: client, url: url}, nil
}
