package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/blake2b"
)

// A swarmFlags is how a command joins the network of peers.
type swarmFlags struct {
	bootstrap []string // --bootstrap
	bind      string   // --bind
	door      string   // --door
}

// bootstrapFlags adds what says which network to join.
func (f *swarmFlags) bootstrapFlags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.bootstrap, "bootstrap", nil, "join the network of these `nodes`, <host>:<port>,...; also BEVY_BOOTSTRAP")
}

// bindFlag adds --bind.
func (f *swarmFlags) bindFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.bind, "bind", "", "use only this `address` of the machine")
}

// options are those of a DHT.
func (f *swarmFlags) options(a *app) (o hyperdht.Options, err error) {
	o = hyperdht.Options{Clock: a.clock, Bootstrap: f.bootstrap}
	if env := a.env["BEVY_BOOTSTRAP"]; o.Bootstrap == nil && env != "" {
		o.Bootstrap = strings.Split(env, ",")
	}
	for _, node := range o.Bootstrap {
		if host, port, ok := strings.Cut(node, ":"); !ok || host == "" || port == "" {
			return o, wrong("--bootstrap <host>:<port>,...", "a node has a host and a port", "%q is not the address of a node", node)
		}
	}
	if f.bind != "" {
		if o.Bind, err = netip.ParseAddr(f.bind); err != nil || !o.Bind.Is4() {
			return o, wrong("--bind <address>", "it wants an IPv4 address of this machine", "%q is no address to use", f.bind)
		}
	}
	return o, nil
}

// A dht is one run of a "bevy hyper dht" command.
type dht struct {
	*hyper
	swarmFlags
	*hyperdht.DHT
	port     uint16        // --port
	stays    bool          // it keeps to the usual port
	patience time.Duration // --wait
}

func (h *hyper) dhtCommand() *cobra.Command {
	d := &dht{hyper: h}
	cmd := &cobra.Command{
		Use:   "dht",
		Short: "Find and reach peers by their keys, through NATs",
		Long: `The network of peers that the npm packages hyperdht and hyperswarm make, for
everyone to use and nobody to own. Peers are found by their public keys, and
connections are encrypted from one to the other.

A <key> is in z-base-32 or in hex. A <topic> is what peers agree on to find one
another: 32 bytes, given like a key; or any other text, whose hash (BLAKE2b)
is the topic.

Without --bootstrap it is the public network. "bevy hyper dht bootstrap" begins
one of your own.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(d.bootstrapCommand(), d.nodeCommand(), d.lookupCommand(), d.announceCommand(), d.findCommand(),
		d.putCommand(), d.getCommand(), d.mputCommand(), d.mgetCommand(), d.pingCommand(), d.connectCommand(), d.listenCommand(), d.relayCommand())
	return cmd
}

// flags adds what all take that ask others.
func (d *dht) flags(cmd *cobra.Command) {
	d.bootstrapFlags(cmd)
	d.bindFlag(cmd)
	cmd.Flags().DurationVar(&d.patience, "wait", 20*time.Second, "give up after this `time`")
}

// ownKey adds --temp to a command that others know by a key.
func (d *dht) ownKey(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&d.temp, "temp", false, "be known by a new key, and forget it")
}

// join calls f with a node that has joined the network.
func (d *dht) join(ctx context.Context, f func(context.Context) error) error {
	return d.open(ctx, noise.KeyPair{}, f)
}

// joinAs is join for a node that others know by a key: that of the store.
func (d *dht) joinAs(ctx context.Context, f func(context.Context) error) error {
	return d.withStore(making, func(s *corestore.Store) error { return d.open(ctx, storeKeys(s), f) })
}

// reach calls f with a way to peers, known by any key.
func (d *dht) reach(ctx context.Context, keys noise.KeyPair, f func(context.Context, reach) error) error {
	if d.door == "" {
		return d.open(ctx, keys, func(ctx context.Context) error { return f(ctx, &byUDP{DHT: d.DHT}) })
	}
	door, err := d.enter(ctx, d.door, keys)
	if err != nil {
		return err
	}
	err = f(ctx, door)
	if e := door.Close(); err == nil {
		err = fail(e, "cannot leave %s", d.door)
	}
	return err
}

// reachAs is reach for those whom others know by a key: that of the store.
func (d *dht) reachAs(ctx context.Context, f func(context.Context, noise.Key, reach) error) error {
	return d.withStore(making, func(s *corestore.Store) error {
		keys := storeKeys(s)
		return d.reach(ctx, keys, func(ctx context.Context, r reach) error { return f(ctx, keys.Public, r) })
	})
}

// open opens a node, waits until it has joined, and calls f.
func (d *dht) open(ctx context.Context, keys noise.KeyPair, f func(context.Context) error) (err error) {
	o, err := d.options(d.app)
	if err != nil {
		return err
	}
	if o.KeyPair, o.Port = keys, int(d.port); !d.stays || d.port == 0 {
		o.Port = -1 // the usual one is left to who stays
	}
	if d.stays {
		d.routerPort(&o)
	}
	d.DHT, err = hyperdht.Open(o)
	if err != nil {
		return fail(err, "cannot open a node")
	}
	defer func() {
		if e := d.DHT.Close(); err == nil {
			err = fail(e, "cannot close the node")
		}
	}()
	if err := d.limited(ctx, d.DHT.Bootstrapped); err != nil {
		return d.cannot(err, "cannot join the network")
	}
	if len(d.Node().Nodes(1)) == 0 && len(o.Bootstrap) != 0 {
		return &failure{code: codeOffline, what: "cannot join the network", cause: "no node answered: " + strings.Join(o.Bootstrap, ", "),
			try: "bevy hyper netcheck"}
	}
	return f(ctx)
}

// limited calls f with a context that ends when patience does.
func (d *dht) limited(ctx context.Context, f func(context.Context) error) error {
	if d.patience == 0 {
		return f(ctx)
	}
	limited, cancel := withTimeout(ctx, d.clock, d.patience, fmt.Errorf("no answer within %v", d.patience))
	defer cancel()
	err := f(limited)
	if cause := context.Cause(limited); err != nil && cause != nil && ctx.Err() == nil {
		return &failure{code: codeOffline, what: "gave up", cause: cause.Error(), err: cause, try: "--wait with a longer time, or bevy hyper netcheck"}
	}
	return err
}

// cannot is fail for what the network did not do.
func (d *dht) cannot(err error, format string, args ...any) error {
	var given *failure
	if errors.As(err, &given) && given.what == "gave up" {
		given.what = fmt.Sprintf(format, args...)
		return given
	}
	err = fail(err, format, args...)
	if f, ok := err.(*failure); ok {
		switch {
		case errors.Is(err, hyperdht.ErrNotFound):
			f.cause, f.try = "no node knows of it", "look whether it is there, and in this network"
		case errors.Is(err, hyperdht.ErrSeqReused):
			f.cause, f.try = "the network has another value with that number", "mput without --seq"
		case errors.Is(err, hyperdht.ErrSeqTooLow):
			f.cause, f.try = "the network has a change with a higher number", "mput without --seq"
		case f.code == codeOffline:
			f.try = "bevy hyper netcheck"
		}
	}
	return err
}

// parseTopic reads a topic: a key, or any text.
func parseTopic(word string) [32]byte {
	if b, err := compact.ParseKey(word); err == nil {
		return b
	}
	return blake2b.Sum256([]byte(word))
}

// parsePeer reads the key of a peer.
func parsePeer(word string) (noise.Key, error) {
	key, err := noise.ParseKey(word)
	if err != nil {
		return noise.Key{}, wrong("the key as \"bevy hyper dht listen\" prints it", "a key is 52 letters of z-base-32 or 64 of hex", "%q is not a key", word)
	}
	return key, nil
}

// keyText is a key, or a topic, as it is printed.
func keyText(k [32]byte) string { return hypercore.Key(k).String() }

// texts are addresses as they are printed.
func texts(addrs []netip.AddrPort) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

const (
	// announceEvery is well before nodes forget, after 20 minutes.
	announceEvery = 10 * time.Minute
	// leaveTimeout bounds the farewell of a command that was stopped.
	leaveTimeout = 3 * time.Second
)
