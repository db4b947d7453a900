package main

import (
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

// historyFlags are those of the commands that list changes.
type historyFlags struct {
	from, to, limit numberFlag
	reverse, live   bool
}

func (f *historyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().Var(&f.from, "from", "begin with this `block`")
	cmd.Flags().Var(&f.to, "to", "end before this `block`")
	cmd.Flags().Var(&f.limit, "limit", "at most this `number`")
	cmd.Flags().BoolVar(&f.reverse, "reverse", false, "from the last to the first")
	cmd.Flags().BoolVar(&f.live, "live", false, "go on with changes that are yet to come, until stopped")
}

// options returns which changes of a thing, such as a bee, the flags ask for.
func (f *historyFlags) options(h *hyper, thing string) (o hyperbee.HistoryOptions, err error) {
	o = hyperbee.HistoryOptions{From: max(1, f.from.n), To: f.to.n, Reverse: f.reverse, Live: f.live}
	if o.Limit, err = f.limit.limit(); err != nil {
		return o, err
	}
	switch {
	case f.to.set && o.To < o.From:
		err = wrong("--to with a number that is not smaller", fmt.Sprintf("block %d comes after block %d", o.From, o.To), "--from and --to are the wrong way round")
	case o.Live && o.Reverse:
		err = wrong("one of the two", "what is yet to come has no last one", "--live and --reverse exclude one another")
	case o.Live:
		err = h.wantsPeer("--live", thing)
	}
	return o, err
}

// wantsPeer refuses to wait for changes that nobody can make.
func (h *hyper) wantsPeer(what, thing string) error {
	if !h.remote() {
		return wrong(what+" --swarm, or --peer tcp://<host>:<port>", "nobody else can change a "+thing+" of this store while it is read", "%s wants --peer or --swarm", what)
	}
	return nil
}
