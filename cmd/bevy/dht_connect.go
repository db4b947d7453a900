package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/spf13/cobra"
)

// A pinged is what --json prints of a peer, or a node, that answered.
type pinged struct {
	Key       string  `json:"key,omitempty"`  // of a peer
	Address   string  `json:"address"`        // where packets go to
	ConnectMs float64 `json:"connectMs"`      // until it was connected; 0 for nodes
	RTTMs     float64 `json:"rttMs"`          // round trip
	Path      string  `json:"path,omitempty"` // "lan", "direct", "punched" or "relayed"
	Relay     string  `json:"relay,omitempty"`
	Why       string  `json:"why,omitempty"` // it is not a better path
}

func (d *dht) pingCommand() *cobra.Command {
	var relays []string
	cmd := &cobra.Command{
		Use:   "ping <peer> [flags]",
		Short: "Connect to a peer, and tell by what path; or ask a node",
		Long: `With the key of a peer it connects to it as any command would, and tells how
long that took, by which path, and why not by a better one. With the address of
a node, <host>:<port>, it asks that for a sign of life.`,
		Example: `bevy hyper dht ping <key>
bevy hyper dht ping 203.0.113.5:49737`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if addr, err := netip.ParseAddrPort(args[0]); err == nil {
				return d.pingNode(cmd.Context(), addr)
			}
			key, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			through, err := parseKeys(relays)
			if err != nil {
				return err
			}
			return d.pingPeer(cmd.Context(), key, through)
		},
	}
	d.flags(cmd)
	relayFlag(cmd, &relays)
	return cmd
}

func relayFlag(cmd *cobra.Command, relays *[]string) {
	cmd.Flags().StringSliceVar(relays, "relay", nil, "go through one of these relays, by `key`, where there is no direct path")
}

// parseKeys reads keys of relays or peers.
func parseKeys(words []string) (keys []noise.Key, err error) {
	for _, w := range words {
		k, err := parsePeer(w)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (d *dht) pingNode(ctx context.Context, addr netip.AddrPort) error {
	d.bootstrap = []string{addr.String()}
	return d.join(ctx, func(ctx context.Context) error {
		var rtt time.Duration
		err := d.limited(ctx, func(ctx context.Context) error {
			reply, err := d.Node().Ping(ctx, addr, dhtrpc.CallOptions{})
			rtt = reply.RTT
			return err
		})
		if err != nil {
			return d.cannot(err, "no answer from %s", addr)
		}
		if d.json {
			return written(d.printJSON(pinged{Address: addr.String(), RTTMs: milliseconds(rtt)}))
		}
		return written(d.printLine(fmt.Sprintf("%s answered in %s", addr, brief(rtt))))
	})
}

func (d *dht) pingPeer(ctx context.Context, key noise.Key, relays []noise.Key) error {
	return d.join(ctx, func(ctx context.Context) error {
		start := d.clock.Now()
		var conn *hyperdht.Conn
		err := d.limited(ctx, func(ctx context.Context) (err error) {
			conn, err = d.Connect(ctx, key, hyperdht.ConnectOptions{RelayThrough: relays})
			return err
		})
		if err != nil {
			return d.cannot(err, "cannot connect to peer %s", keyText(key))
		}
		took := d.clock.Now().Sub(start)
		err = d.limited(ctx, func(ctx context.Context) error {
			if err := conn.CloseWrite(); err != nil {
				return err
			}
			return conn.Raw().Flush(ctx) // all has come, and how long that took is known
		})
		path, rtt := conn.Path(), conn.Raw().Stats().RTT
		conn.Close()
		if err != nil {
			return d.cannot(err, "peer %s does not answer", keyText(key))
		}
		p := pinged{Key: keyText(key), Address: path.Addr.String(), ConnectMs: milliseconds(took), RTTMs: milliseconds(rtt), Path: path.Kind.String(), Why: path.Why}
		if path.Kind == hyperdht.PathRelayed {
			p.Relay = keyText(path.Relay)
		}
		if d.json {
			return written(d.printJSON(p))
		}
		return written(d.printLine(fmt.Sprintf("connected in %s: %s; round trip %s", brief(took), path, brief(rtt))))
	})
}

func milliseconds(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// brief is a short time as people read it.
func brief(t time.Duration) string {
	if t < 10*time.Millisecond {
		return t.Round(10 * time.Microsecond).String()
	}
	return t.Round(time.Millisecond).String()
}

func (d *dht) connectCommand() *cobra.Command {
	var relays []string
	cmd := &cobra.Command{
		Use:   "connect <key> [flags]",
		Short: "Connect stdin and stdout to a peer",
		Long: `Sends what comes on stdin to the peer, and prints what it sends, until it ends
the connection. What is said can be read by the two of them only.`,
		Example: `bevy hyper dht connect <key>
tar c photos | bevy hyper dht connect <key>`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			through, err := parseKeys(relays)
			if err != nil {
				return err
			}
			return d.reachAs(cmd.Context(), func(ctx context.Context, _ noise.Key, r reach) error {
				var stream *secretstream.Stream
				var path string
				err := d.limited(ctx, func(ctx context.Context) (err error) {
					stream, path, err = r.connect(ctx, key, through)
					return err
				})
				if err != nil {
					return d.cannot(err, "cannot connect to peer %s", keyText(key))
				}
				d.say("connected: %s", path)
				return d.pipe(ctx, stream)
			})
		},
	}
	d.flags(cmd)
	d.ownKey(cmd)
	d.doorFlag(cmd)
	relayFlag(cmd, &relays)
	return cmd
}

func (d *dht) listenCommand() *cobra.Command {
	var only, relays []string
	cmd := &cobra.Command{
		Use:   "listen [flags]",
		Short: "Take a peer's connection to stdin and stdout",
		Long: `Listens with this store's key, which it prints on stderr, until a peer has
connected to it and ended the connection. Sends it what comes on stdin, and
prints what it sends. Other peers are refused meanwhile.`,
		Example: `bevy hyper dht listen > photos.tar
bevy hyper dht listen --only <key> --temp`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			gate, err := parseKeys(only)
			if err != nil {
				return err
			}
			through, err := parseKeys(relays)
			if err != nil {
				return err
			}
			return d.listen(cmd.Context(), gate, through)
		},
	}
	d.flags(cmd)
	d.ownKey(cmd)
	d.doorFlag(cmd)
	cmd.Flags().StringSliceVar(&only, "only", nil, "let in only the peers with these `keys`")
	relayFlag(cmd, &relays)
	return cmd
}

func (d *dht) listen(ctx context.Context, only, relays []noise.Key) error {
	return d.reachAs(ctx, func(ctx context.Context, own noise.Key, r reach) error {
		type visitor struct {
			stream *secretstream.Stream
			path   string
		}
		visitors := make(chan visitor, 1)
		ended := make(chan struct{})
		defer close(ended)
		err := r.listen(ctx, listening{
			relays: relays,
			gate:   func(k noise.Key) bool { return len(only) == 0 || slices.Contains(only, k) },
			serve: func(s *secretstream.Stream, path string) {
				select {
				case visitors <- visitor{s, path}:
					<-ended
				default:
					s.Close()
				}
			},
		})
		if err != nil {
			return d.cannot(err, "cannot listen")
		}
		d.say("listening %s", keyText(own))
		select {
		case <-ctx.Done():
			return nil
		case v := <-visitors:
			d.say("peer %s connected: %s", keyText(v.stream.RemoteKey()), v.path)
			return d.pipe(ctx, v.stream)
		}
	})
}

// pipe joins a connection with stdin and stdout until the other side ends it.
func (d *dht) pipe(ctx context.Context, conn *secretstream.Stream) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent := make(chan error, 1)
	go func() { // it is left to itself if it waits for stdin at the end
		sent <- d.send(conn)
	}()
	for {
		msg, err := conn.Next()
		if err == nil {
			if _, err := d.stdout.Write(msg); err != nil {
				return written(err)
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the peer left without an end")
		}
		if !errors.Is(err, io.EOF) {
			return fail(err, "the connection is broken")
		}
		select {
		case err := <-sent:
			return fail(err, "not all was sent")
		default:
			return fail(conn.CloseWrite(), "the connection is broken") // we have nothing more to say, too
		}
	}
}

// send sends stdin.
func (d *dht) send(conn *secretstream.Stream) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := d.stdin.Read(buf)
		if n > 0 {
			if err := conn.WriteMessage(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return conn.CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}

// drain reads what a connection brings, until it ends.
func drain(c *secretstream.Stream, _ string) {
	for {
		if _, err := c.Next(); err != nil {
			c.Close()
			return
		}
	}
}
