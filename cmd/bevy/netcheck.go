package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/portmap"
	"github.com/spf13/cobra"
)

// netcheckCommand is "bevy netcheck", and the same among the tools of path.
func (a *app) netcheckCommand(path string) *cobra.Command {
	n := &netcheck{app: a, blocked: "if a firewall blocks UDP, use --door with the address of a relay"}
	if path == "bevy" { // whose node has no such flag
		n.blocked = "let UDP out through the firewall; without it machines meet on the local network alone"
	}
	cmd := &cobra.Command{
		Use:   "netcheck [flags]",
		Short: "Tell what this network allows, and what to do about it",
		Long: `Finds out how peers can reach one another from here, within some seconds: by
UDP, through which kind of NAT, with a port of the router, over IPv6, by relays
and doors if some are given, and on the local network. It changes nothing: a
port that the router maps for the test is given back.`,
		Example: path + ` netcheck
` + path + ` netcheck --door wss://relay.example.org/ --relay <key>`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return n.run(cmd.Context()) },
	}
	n.bootstrapFlags(cmd)
	n.bindFlag(cmd)
	n.doorFlag(cmd)
	relayFlag(cmd, &n.relays)
	cmd.Flags().DurationVar(&n.wait, "wait", 6*time.Second, "give each check this `time`")
	return cmd
}

// A netcheck is one run of the command.
type netcheck struct {
	*app
	swarmFlags
	relays  []string
	wait    time.Duration
	blocked string // what helps where there is no UDP
}

// A finding is what one check found out.
type finding struct {
	Check  string `json:"check"` // "udp", "nat", "portmap", "ipv6", "lan", "relay" or "door"
	OK     bool   `json:"ok"`    // it helps
	Result string `json:"result"`
	Next   string `json:"next,omitempty"` // what to do about it
}

// run makes the checks side by side, and prints them in order.
func (n *netcheck) run(ctx context.Context) error {
	keys, err := parseKeys(n.relays)
	if err != nil {
		return err
	}
	o, err := n.options(n.app)
	if err != nil {
		return err
	}
	checks := []func(context.Context) []finding{
		func(ctx context.Context) []finding { return n.udp(ctx, o, keys) },
		func(ctx context.Context) []finding { return n.portmap(ctx, o.Bind) },
		n.ipv6,
		func(ctx context.Context) []finding { return n.lan(ctx, o.Bind) },
	}
	if n.door != "" {
		checks = append(checks, n.doorway)
	}
	found := make([][]finding, len(checks))
	var done sync.WaitGroup
	for i, check := range checks {
		done.Go(func() {
			ctx, cancel := withTimeout(ctx, n.clock, n.wait, fmt.Errorf("no answer within %v", n.wait))
			defer cancel()
			found[i] = check(ctx)
		})
	}
	done.Wait()
	if ctx.Err() != nil {
		return fail(ctx.Err(), "cannot check the network")
	}
	return n.print(slices.Concat(found...))
}

func (n *netcheck) print(all []finding) error {
	t := newTable("CHECK", "HELPS", "RESULT")
	for _, f := range all {
		if n.json {
			if err := n.printJSON(f); err != nil {
				return written(err)
			}
			continue
		}
		helps := "no"
		if f.OK {
			helps = "yes"
		}
		t.add(f.Check, helps, f.Result)
	}
	if n.json {
		return nil
	}
	var b strings.Builder
	_ = t.write(&b) // which takes everything
	if err := n.printLine(folded(n.stdout, strings.TrimSuffix(b.String(), "\n"))); err != nil {
		return written(err)
	}
	for _, f := range all {
		if f.Next != "" {
			n.say("%s", folded(n.stderr, f.Check+": "+f.Next))
		}
	}
	return nil
}

// udp asks the nodes of the network, and through them what the NAT is like.
func (n *netcheck) udp(ctx context.Context, o hyperdht.Options, relays []noise.Key) []finding {
	o.Port = -1
	d, err := hyperdht.Open(o)
	if err != nil {
		return []finding{{Check: "udp", Result: "cannot open a socket: " + causeOf(err)}}
	}
	defer d.Close()
	blocked := finding{Check: "udp", Result: "no node has answered", Next: n.blocked}
	if len(o.Bootstrap) == 0 && o.Bootstrap != nil {
		blocked.Result, blocked.Next = "there are no nodes to ask", "--bootstrap <host>:<port>"
	}
	if err := d.Bootstrapped(ctx); err != nil || len(d.Node().Nodes(1)) == 0 {
		return append([]finding{blocked}, n.relayed(ctx, d, relays, errors.New("there is no UDP"))...)
	}
	node := d.Node()
	out := []finding{{Check: "udp", OK: true, Result: fmt.Sprintf("%s answered", plural(uint64(len(node.Nodes(0))), "node"))}}
	nat := finding{Check: "nat", OK: true}
	switch addr := node.PublicAddr(); {
	case !node.Firewalled():
		nat.Result = fmt.Sprintf("none in the way: everyone can reach %s", addr)
	case node.Randomized():
		nat.OK, nat.Result = false, "another port for every peer"
		nat.Next = "peers behind such a NAT too are reached by a relay only: --relay <key>, or let the router map a port"
	case addr.IsValid():
		nat.Result = fmt.Sprintf("one address for all peers, %s: direct connections work", addr)
	default:
		nat.OK, nat.Result = false, "not known: too few nodes answered"
	}
	return append(append(out, nat), n.relayed(ctx, d, relays, nil)...)
}

// relayed connects to relays.
func (n *netcheck) relayed(ctx context.Context, d *hyperdht.DHT, relays []noise.Key, why error) (out []finding) {
	for _, key := range relays {
		f := finding{Check: "relay", Result: keyText(key)[:shortKey] + ": "}
		start := n.clock.Now()
		err := why
		if err == nil {
			var c *hyperdht.Conn
			if c, err = d.Connect(ctx, key, hyperdht.ConnectOptions{RelayThrough: []noise.Key{}}); err == nil {
				f.OK = true
				f.Result += fmt.Sprintf("answered in %s, %s", brief(n.clock.Now().Sub(start)), c.Path())
				c.Close()
			}
		}
		if err != nil {
			f.Result += causeOf(err)
		}
		out = append(out, f)
	}
	return out
}

func (n *netcheck) portmap(ctx context.Context, bind netip.Addr) []finding {
	if bind.IsLoopback() {
		return []finding{{Check: "portmap", Result: notTried(bind)}}
	}
	m, err := portmap.Map(ctx, portmap.UDP, hyperdht.DefaultPort, portmap.Options{Clock: n.clock})
	if errors.Is(err, portmap.ErrNone) {
		err = portmap.ErrNone // whom was asked in vain is of no interest
	}
	if err != nil {
		return []finding{{Check: "portmap", Result: causeOf(err)}}
	}
	f := finding{Check: "portmap", OK: m.Public(), Result: fmt.Sprintf("%s maps ports, at %s", m.Method(), m.External())}
	if !f.OK {
		f.Result += ", behind another router"
	}
	if err := m.Close(); err != nil {
		f.Result += "; and did not take this one back: " + causeOf(err)
	}
	return []finding{f}
}

func (n *netcheck) ipv6(context.Context) []finding {
	addrs, err := packet.System.LocalAddrs()
	if err != nil {
		return []finding{{Check: "ipv6", Result: causeOf(err)}}
	}
	var global []string
	for _, a := range addrs {
		if a.Is6() && a.IsGlobalUnicast() && !a.IsPrivate() {
			global = append(global, a.String())
		}
	}
	if len(global) == 0 {
		return []finding{{Check: "ipv6", Result: "this machine has no global address"}}
	}
	return []finding{{Check: "ipv6", OK: true, Result: strings.Join(global, ", ")}}
}

// notTried is the result of a check that leaves the machine.
func notTried(bind netip.Addr) string { return "not tried: only " + bind.String() + " is used" }

// lan has one node find another by multicast.
func (n *netcheck) lan(ctx context.Context, bind netip.Addr) []finding {
	f := finding{Check: "lan", Result: "multicast does not come through", Next: "peers on this network are found through the DHT only"}
	if bind.IsLoopback() {
		f.Result, f.Next = notTried(bind), ""
		return []finding{f}
	}
	var topic mdns.Topic
	rand.Read(topic[:])
	heard := make(chan mdns.Peer, 1)
	open := func(o mdns.Options) (*mdns.Node, error) {
		keys, err := noise.GenerateKeyPair(rand.Reader)
		if err != nil {
			return nil, err
		}
		o.KeyPair, o.Clock = keys, n.clock
		return mdns.Open(o)
	}
	start := n.clock.Now()
	there, err := open(mdns.Options{Serve: func(c *mdns.Conn) { c.Close() }})
	if err == nil {
		defer there.Close()
		err = there.Announce(topic)
	}
	if err == nil {
		var here *mdns.Node
		if here, err = open(mdns.Options{Found: func(p mdns.Peer) {
			select {
			case heard <- p:
			default:
			}
		}}); err == nil {
			defer here.Close()
			here.Browse(topic)
		}
	}
	if err != nil {
		f.Result = causeOf(err)
		return []finding{f}
	}
	select {
	case p := <-heard:
		f.OK, f.Next = true, ""
		f.Result = fmt.Sprintf("multicast works on this machine: found in %s at %s", brief(n.clock.Now().Sub(start)), strings.Join(texts(p.Addrs), ", "))
	case <-ctx.Done():
	}
	return []finding{f}
}

// doorway goes in by a door.
func (n *netcheck) doorway(ctx context.Context) []finding {
	start := n.clock.Now()
	f := finding{Check: "door"}
	door, err := n.enter(ctx, n.door, noise.KeyPair{})
	if err == nil {
		defer door.Close()
		err = door.lookup(ctx, [32]byte{}, func(hyperdht.Found) {})
	}
	if err != nil {
		f.Result = causeOf(err)
		return []finding{f}
	}
	f.OK, f.Result = true, fmt.Sprintf("%s leads to the network, in %s", n.door, brief(n.clock.Now().Sub(start)))
	return []finding{f}
}
