package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) catCommand() *cobra.Command {
	var from, to string
	lines, live := false, false
	cmd := &cobra.Command{
		Use:   "cat <key> [flags]",
		Short: "Print the blocks of a log, one after another",
		Example: `bevy hyper core cat notes --lines
bevy hyper core cat notes --from 10 --to 20
bevy hyper core cat <key> --live --lines --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := hypercore.BlockRange{Live: live}
			limited := cmd.Flags().Changed("to")
			for _, flag := range []struct {
				name, value string
				n           *uint64
			}{{"from", from, &r.From}, {"to", to, &r.To}} {
				if !cmd.Flags().Changed(flag.name) {
					continue
				}
				n, err := parseIndex(flag.value)
				if err != nil {
					return wrong(fmt.Sprintf("--%s 10", flag.name), causeOf(err), "wrong --%s %q", flag.name, flag.value)
				}
				*flag.n = n
			}
			if limited && r.To < r.From {
				return wrong("--to with a number that is not smaller", fmt.Sprintf("block %d comes after block %d", r.From, r.To), "--from and --to are the wrong way round")
			}
			return h.cat(cmd.Context(), args[0], r, limited, lines)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "begin with this `block`")
	cmd.Flags().StringVar(&to, "to", "", "end before this `block`")
	cmd.Flags().BoolVar(&lines, "lines", false, "end each block with a new line")
	cmd.Flags().BoolVar(&live, "live", false, "go on with the blocks that are yet to come, until stopped")
	h.keyFlag(cmd, "decrypt with this key")
	h.peerFlags(cmd)
	return cmd
}

func (h *hyper) cat(ctx context.Context, word string, r hypercore.BlockRange, limited, lines bool) error {
	if r.Live && !h.remote() {
		return wrong("--live --swarm, or --peer tcp://<host>:<port>", "nobody else can append to a log of this store while it is read", "--live wants --peer or --swarm")
	}
	return h.readBlocks(ctx, word, func(ctx context.Context, l *log, out *blockWriter) error {
		out.lines = lines
		if r.Live {
			return h.follow(ctx, l, r, limited, out)
		}
		if !limited {
			r.To = l.Length()
		}
		if _, err := within([]hypercore.Range{{Start: r.From, End: max(r.From, r.To)}}, l.Length()); err != nil {
			return noBlock(l, err)
		}
		return out.copy(ctx, l, r)
	})
}

// follow prints blocks, and those that are yet to come. An interrupt is its
// usual end.
func (h *hyper) follow(ctx context.Context, l *log, r hypercore.BlockRange, limited bool, out *blockWriter) error {
	if limited && r.From >= r.To {
		return nil
	}
	return untilStopped(out.copy(ctx, l, r))
}

// untilStopped is the end of a command that goes on until it is stopped.
func untilStopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
