package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/spf13/cobra"
)

func (a *app) shareNarrowCommand() *cobra.Command {
	var life shareLife
	var read, again bool
	cmd := &cobra.Command{
		Use:   "narrow <link> [<inside>] [flags]",
		Short: "Make a link that is good for less, of one that you have",
		Long: `Prints a link for less than another one: only what is inside at a path, only to
read, or for a shorter time. It takes no machine of the cloud, but the other one
has to be made with --narrow. It ends when that one does.`,
		Example: `bevy share narrow http://127.0.0.1:7070/s/AQ9x2kzt/ may/1.jpg --for 1d`,
		Args:    wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := identity.Capability{}
			if len(args) > 1 {
				c.Prefix = path.Clean("/" + args[1])
			}
			var err error
			if c.Until, err = life.end(a, cmd, time.Time{}); err != nil {
				return err
			}
			return a.narrowLink(cmd.Context(), args[0], c, read, again)
		},
	}
	cmd.Flags().BoolVar(&read, "read", false, "let them read alone")
	cmd.Flags().BoolVar(&again, "narrow", false, "let them hand on less, too")
	life.flags(cmd, "that of the other link")
	return cmd
}

// narrowLink prints a link for what c says of another. Its prefix is in what that
// one is for.
func (a *app) narrowLink(ctx context.Context, at string, c identity.Capability, read, again bool) error {
	link, err := identity.ParseLink(shareWord(at))
	if err != nil {
		return wrong("the whole link, as bevy share link has printed it", "it has no token", "%.80q is no link", at)
	}
	g, err := a.grantOf(ctx, at)
	if err != nil {
		return err
	}
	if len(g) <= len(link.Behind) {
		return &failure{code: codeCorrupt, what: "cannot narrow the link", cause: "its grant is another one's", try: "ask who gave it to you"}
	}
	rights := g[len(g)-1].Rights()
	if c.Actions = rights.Actions; read {
		c.Actions = rights.Actions &^ identity.Write
	}
	if !again {
		c.Actions &^= identity.Share
	}
	c.Prefix = rights.Prefix + strings.TrimSuffix(c.Prefix, "/")
	next, err := link.Narrow(g[:len(g)-len(link.Behind)], c, rand.Reader)
	if errors.Is(err, identity.ErrDenied) {
		return &failure{code: codeDenied, what: "cannot narrow the link", cause: err.Error(), try: "less, or a shorter time", err: err}
	}
	if err != nil {
		return fail(err, "cannot narrow the link")
	}
	url := at[:strings.Index(at, "/s/")+3] + next.Token() + "/"
	last := next.Behind[len(next.Behind)-1]
	if a.json {
		return written(a.printJSON(narrowed{url, last.Prefix, last.Actions.Has(identity.Write), last.Until}))
	}
	if err := written(a.printLine(url)); err != nil {
		return err
	}
	a.say("undo:  bevy share stop <link>, on a machine of the cloud")
	return nil
}

// A narrowed link, as it is printed.
type narrowed struct {
	URL   string    `json:"url"`
	Path  string    `json:"path"`
	Write bool      `json:"write,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// maxGrant is the most bytes of a grant that are read.
const maxGrant = 64 << 10

// grantOf asks the machine of a link for its grant.
func (a *app) grantOf(ctx context.Context, at string) (identity.Grant, error) {
	i := strings.Index(at, "/s/")
	if i < 0 || !strings.HasPrefix(at, "http") {
		return nil, wrong("the whole link, as bevy share link has printed it", "it does not begin with http", "%.80q is no link", at)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at[:i]+"/s/"+shareWord(at)+"/", nil)
	if err != nil {
		return nil, wrong("the whole link, as bevy share link has printed it", "it is no address", "%.80q is no link", at)
	}
	r.Header.Set("Accept", client.GrantType)
	to := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := to.Do(r)
	if err != nil {
		var inner interface{ Unwrap() error }
		if errors.As(err, &inner) {
			err = inner.Unwrap() // it would print the link
		}
		return nil, &failure{code: codeOffline, what: "cannot reach the machine of the link", cause: err.Error(), try: "the link in a browser", err: err}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxGrant))
	if err != nil {
		return nil, fail(err, "cannot read the grant of the link")
	}
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return nil, &failure{code: codeDenied, what: "cannot narrow the link", cause: "it may not be handed on", try: "one that was made with bevy share link --narrow"}
	case http.StatusNotFound, http.StatusGone:
		return nil, &failure{code: codeNotFound, what: "there is no such link", cause: "it is over, or was not copied whole", try: "ask who gave it to you"}
	default:
		return nil, &failure{code: codeFailed, what: "cannot narrow the link", cause: fmt.Sprintf("its machine has answered %s", answer.Status), try: "again in a minute"}
	}
	g, err := identity.DecodeGrant(body)
	if err != nil {
		return nil, &failure{code: codeCorrupt, what: "cannot narrow the link", cause: err.Error(), try: "the link in a browser", err: err}
	}
	return g, nil
}
