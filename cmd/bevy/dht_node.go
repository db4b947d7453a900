package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/spf13/cobra"
)

func (d *dht) bootstrapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bootstrap <address> [flags]",
		Short: "Begin a network of your own, until stopped",
		Long: `Runs the first node of a network, by whose address others join: with --bootstrap
or BEVY_BOOTSTRAP. <address> is the IPv4 address that they reach this machine
at. The node learns nothing of what peers say to one another, and when there are
other nodes the network goes on without it.

It prints what others join with.`,
		Example: `bevy hyper dht bootstrap 203.0.113.5
bevy hyper dht bootstrap 127.0.0.1 --port 4000`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := netip.ParseAddr(args[0])
			if err != nil || !host.Is4() || host.IsUnspecified() {
				return wrong("the address of this machine, such as 203.0.113.5", "it wants an IPv4 address", "%q is not an address that others can use", args[0])
			}
			if host.IsLoopback() && d.bind == "" {
				d.bind = args[0]
			}
			d.bootstrap = []string{}
			return d.run(cmd.Context(), host, true)
		},
	}
	d.placeFlags(cmd)
	return cmd
}

// placeFlags adds where to listen.
func (d *dht) placeFlags(cmd *cobra.Command) {
	d.bindFlag(cmd)
	cmd.Flags().Uint16Var(&d.port, "port", hyperdht.DefaultPort, "use this UDP `port`; 0 is any that is free")
}

func (d *dht) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node [flags]",
		Short: "Take part in a network for others, until stopped",
		Long: `Runs a node that keeps records for others and tells them the way. Only a machine
that everyone can reach is of use for that: behind a NAT the node stays outside,
and says so.

It prints where it listens, and what becomes of it.`,
		Example: `bevy hyper dht node
bevy hyper dht node --bootstrap 203.0.113.5:49737`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return d.run(cmd.Context(), netip.Addr{}, cmd.Flags().Changed("port"))
		},
	}
	d.bootstrapFlags(cmd)
	d.placeFlags(cmd)
	return cmd
}

// A nodeEvent is what --json prints of each event of a node.
type nodeEvent struct {
	Event   string `json:"event"`         // "listening", "joined", "part", "outside" or "address"
	Address string `json:"address"`       // where it listens; then, where others see it, or ""
	NAT     string `json:"nat,omitempty"` // what is known of the NAT
	Nodes   int    `json:"nodes"`         // how many others it knows
}

// run runs a node until it is stopped. The first one of a network knows the
// address it is reached at. Another port than a fixed one will not do.
func (d *dht) run(ctx context.Context, host netip.Addr, fixed bool) error {
	o, err := d.options(d.app)
	if err != nil {
		return err
	}
	o.Node, o.Port, o.FixedPort = true, int(d.port), fixed && d.port != 0
	if o.Port == 0 {
		o.Port = -1
	}
	if host.IsValid() {
		o.Open, o.Public = true, netip.AddrPortFrom(host, d.port)
	}
	d.routerPort(&o)
	events := make(chan dhtrpc.Event, 16)
	o.Notify = func(e dhtrpc.Event) {
		select {
		case events <- e:
		default: // there is more to tell than anyone reads
		}
	}
	node, err := hyperdht.Open(o)
	if err != nil {
		return cannotListen(err, fmt.Sprintf("UDP port %d", d.port))
	}
	d.DHT = node
	err = d.tellEvents(ctx, o, events)
	if e := node.Close(); err == nil {
		err = fail(e, "cannot close the node")
	}
	if err == nil {
		d.say("stopped")
	}
	return err
}

func (d *dht) tellEvents(ctx context.Context, o hyperdht.Options, events <-chan dhtrpc.Event) error {
	node := d.Node()
	addr := node.ServerSocket().LocalAddr()
	if o.Public.IsValid() {
		addr = netip.AddrPortFrom(o.Public.Addr(), addr.Port())
	}
	text := "listening " + addr.String()
	if err := d.tell(nodeEvent{Event: "listening", Address: addr.String()}, text); err != nil {
		return err
	}
	if o.Public.IsValid() {
		d.say("others join with: --bootstrap %s", addr)
	}
	for {
		var e dhtrpc.Event
		select {
		case <-ctx.Done():
			return nil
		case e = <-events:
		}
		out := nodeEvent{NAT: natOf(node), Nodes: len(node.Nodes(0))}
		if seen := node.PublicAddr(); seen.IsValid() && seen.Port() != 0 {
			out.Address = seen.String()
		}
		switch e {
		case dhtrpc.Ready:
			out.Event, text = "joined", fmt.Sprintf("joined: knows %s", plural(uint64(out.Nodes), "node"))
			if out.Nodes == 0 && len(o.Bootstrap) != 0 {
				text = "nobody has answered; trying on"
			}
		case dhtrpc.Persistent:
			out.Event, text = "part", fmt.Sprintf("takes part as %s: everyone can reach it", out.Address)
		case dhtrpc.BackOutside:
			out.Event, text = "outside", "stays outside: the network has changed"
		case dhtrpc.NATChanged:
			out.Event, text = "address", fmt.Sprintf("others see %s: %s", out.Address, out.NAT)
			if out.Address == "" {
				text = "others see no one address: " + out.NAT
			}
		default:
			continue
		}
		if err := d.tell(out, text); err != nil {
			return err
		}
	}
}

// natOf says what a node knows about what is between it and the others.
func natOf(n *dhtrpc.Node) string {
	switch {
	case !n.Firewalled():
		return "open"
	case n.Randomized():
		return "another port for each peer"
	}
	if n.PublicAddr().IsValid() {
		return "one address for all peers"
	}
	return "not known yet"
}

// tell prints an event: with --json on stdout, where data is expected; and
// where it listens.
func (d *dht) tell(e nodeEvent, text string) error {
	switch {
	case d.json:
		return written(d.printJSON(e))
	case e.Event == "listening":
		return written(d.printLine(text))
	}
	d.say("%s", text)
	return nil
}
