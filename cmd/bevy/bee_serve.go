package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"github.com/cloudbevy/bevy/services/level"
	"github.com/spf13/cobra"
)

func (b *bee) serveCommand() *cobra.Command {
	var d doorway
	cmd := &cobra.Command{
		Use:   "serve <key> [flags]",
		Short: "Open a door to a bee for programs in other languages",
		Long: `Lets programs read and change a bee as an abstract-level database, over
WebSockets, until it is stopped: clients/js is for those in JavaScript. It
prints the address and the token that they have to show.

A bee that this store can't write is read-only, and so is one with --at. With
--peer it follows the bee of others. With --tcp or --ws it also serves the
store, as "bevy hyper serve" does.`,
		Example: `bevy hyper bee serve friends
bevy hyper bee serve friends --listen 127.0.0.1:0 --origin https://app.example
bevy hyper bee serve <key> --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.serve(cmd.Context(), args[0], &d) },
	}
	cmd.Flags().StringVar(&d.listen, "listen", "127.0.0.1:4234", "be at this `address`: <host>:<port>, or :<port> for all networks")
	cmd.Flags().StringVar(&d.token, "token", "", "let in who shows this `secret`; also BEVY_TOKEN; one is made otherwise")
	cmd.Flags().StringArrayVar(&d.origins, "origin", nil, "let in web pages of this `origin`, such as https://app.example")
	cmd.Flags().StringArrayVar(&d.hosts, "host", nil, "this `name` is ours, too, in what clients connect to")
	d.server.flags(cmd)
	cmd.Flags().StringArrayVar(&b.subs, "sub", nil, "the database of this `name` in the bee; several are one in the other")
	b.keyFlag(cmd, "encrypt and decrypt with this key")
	b.peerFlags(cmd)
	b.atFlag(cmd)
	return cmd
}

// A doorway is where a door is, and whom it lets in.
type doorway struct {
	listen, token  string
	origins, hosts []string
	server         server // of the store
}

// A door is what --json prints.
type door struct {
	Event   string `json:"event"` // "listening"
	Address string `json:"address"`
	Token   string `json:"token"`
}

var goodToken = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

// headerTime is how long a client may take for its request.
const headerTime = 10 * time.Second

// ready checks the flags, and makes a token if none is given.
func (d *doorway) ready(env map[string]string) error {
	if d.token == "" {
		d.token = env["BEVY_TOKEN"]
	}
	if d.token == "" {
		d.token = rand.Text()
	}
	if !goodToken.MatchString(d.token) {
		return wrong("--token with letters, digits and . _ ~ -", "others can't be sent by every client", "wrong token")
	}
	host, _, err := net.SplitHostPort(d.listen)
	if err != nil {
		return wrong("--listen 127.0.0.1:4234", "it is not <host>:<port>", "wrong --listen %q", d.listen)
	}
	if a, err := netip.ParseAddr(host); host != "" && (err != nil || !a.IsUnspecified()) {
		d.hosts = append(d.hosts, host)
	}
	return nil
}

func (b *bee) serve(ctx context.Context, word string, d *doorway) error {
	if err := d.ready(b.env); err != nil {
		return err
	}
	return b.open(ctx, writing, word, func(ctx context.Context) error {
		if b.tree.Writable() {
			key, err := b.readEncryptionKey()
			if err == nil {
				err = b.mayAppend(ctx, b.log, key)
			}
			if err != nil {
				return err
			}
		}
		if d.server.wanted() {
			if err := d.server.start(ctx, b.hyper, b.log.store); err != nil {
				return err
			}
			defer d.server.stop()
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.listen)
		if err != nil {
			return cannotListen(err, d.listen)
		}
		handler := level.New(b.tree, level.Options{Token: d.token, Origins: d.origins, Hosts: d.hosts, Clock: b.clock})
		server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTime, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		err = b.tellDoor(d, l.Addr())
		if err == nil {
			select {
			case err = <-ended:
				ended <- err
				err = fail(err, "stopped listening at %s", d.listen)
			case <-ctx.Done():
			}
		}
		_ = server.Close() // what it listens with is gone either way
		<-ended
		if err := errors.Join(err, fail(handler.Close(), "cannot close the door")); err != nil {
			return err
		}
		b.say("stopped")
		return nil
	})
}

// tellDoor prints what clients have to know.
func (b *bee) tellDoor(d *doorway, addr net.Addr) error {
	out := door{Event: "listening", Address: "ws://" + addr.String() + "/", Token: d.token}
	var err error
	if b.json {
		err = b.printJSON(out)
	} else {
		_, err = fmt.Fprintf(b.stdout, "listening %s\ntoken %s\n", out.Address, out.Token)
	}
	if err != nil {
		return written(err)
	}
	access := "read"
	if b.tree.Writable() {
		access = "read and change"
	}
	b.say("who shows the token can %s bee %s", access, b.log.called())
	if a, err := netip.ParseAddrPort(addr.String()); err == nil && !a.Addr().IsLoopback() {
		b.say("others on the network can listen to what is said: it is not encrypted")
	}
	return nil
}
