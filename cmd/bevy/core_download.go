package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) downloadCommand() *cobra.Command {
	blocks := ""
	cmd := &cobra.Command{
		Use:   "download <key> [flags]",
		Short: "Fetch the blocks of a log from peers, and keep them",
		Long: `Fetches what is not here of a log, from all peers at once, and keeps it. Every
byte is proven before it is kept. Interrupted, it goes on where it was when it
is started again.`,
		Example: `bevy hyper core download <key> --peer tcp://example.org:4233
bevy hyper core download notes --blocks 10-20 --peer ws://example.org:80/`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ranges := []hypercore.Range{{End: openEnd}}
			if cmd.Flags().Changed("blocks") {
				var err error
				if ranges, err = parseBlocks(blocks); err != nil {
					return wrong("--blocks 3,10-20,30-", causeOf(err), "wrong --blocks %q", blocks)
				}
			}
			return h.download(cmd.Context(), args[0], ranges)
		},
	}
	cmd.Flags().StringVar(&blocks, "blocks", "", "only the blocks of this `list`, such as 3,10-20,30-")
	h.peerFlags(cmd)
	return cmd
}

// downloaded is what --json prints.
type downloaded struct {
	Key      string  `json:"key"`
	Name     string  `json:"name"`
	Blocks   uint64  `json:"blocks"` // how many came
	Bytes    uint64  `json:"bytes"`
	Held     uint64  `json:"held"`   // how many of those asked for are here now
	Wanted   uint64  `json:"wanted"` // how many were asked for
	Length   uint64  `json:"length"` // of the log
	Fork     uint64  `json:"fork"`
	Seconds  float64 `json:"seconds"`
	Complete bool    `json:"complete"` // all of them are here
}

func (h *hyper) download(ctx context.Context, word string, ranges []hypercore.Range) error {
	if h.temp {
		return wrong("without --temp", "what is fetched would be gone at once", "--temp makes no sense here")
	}
	return h.withLog(ctx, reading, word, hypercore.SessionOptions{}, func(ctx context.Context, l *log) error {
		wanted, err := within(ranges, l.Length())
		if err != nil {
			return noBlock(l, err)
		}
		d := downloaded{Key: l.Key().String(), Name: l.name, Length: l.Length(), Fork: l.Fork()}
		wanted = union(wanted)
		for _, r := range wanted {
			d.Wanted += r.Len()
		}
		before := heldOf(l, wanted)
		start := h.clock.Now()
		bar := h.progress(l.called(), "block", d.Wanted, 0)
		bar.skip(before)
		counted := h.countFetched(ctx, l, bar)
		l.wait.start()
		err = l.Download(ctx, downloads(wanted)...)
		l.wait.rest()
		d.Bytes = counted()
		bar.end()
		d.Held = heldOf(l, wanted)
		d.Blocks, d.Complete = d.Held-min(before, d.Held), d.Held == d.Wanted
		took := h.clock.Now().Sub(start)
		d.Seconds = took.Seconds()
		if errors.Is(err, hypercore.ErrNotFound) {
			err = &failure{code: codeNotFound, err: err, what: fmt.Sprintf("%s of log %s are not here", plural(d.Wanted-d.Held, "block"), l.called()),
				cause: "there is no peer to fetch them from", try: "--peer tcp://<host>:<port>, of someone who has them"}
		}
		return errors.Join(fail(err, "cannot download log %s", l.called()), h.printDownloaded(l, d, took, err))
	})
}

func (h *hyper) printDownloaded(l *log, d downloaded, took time.Duration, err error) error {
	if h.json {
		if err != nil && d.Blocks == 0 {
			return nil // the error says all
		}
		return written(h.printJSON(d))
	}
	if d.Blocks > 0 {
		h.say("fetched %s (%s) of log %s in %s", plural(d.Blocks, "block"), size(d.Bytes), l.called(), minutes(took))
	}
	if err == nil && d.Blocks == 0 {
		h.say("nothing to fetch")
	}
	if h.remote() || err == nil {
		h.say("%s of %s are here", count(d.Held), plural(d.Wanted, "block"))
	}
	return nil
}

// countFetched counts the blocks that come, and their bytes, until what it
// returns is called.
func (h *hyper) countFetched(ctx context.Context, l *log, bar *progress) func() uint64 {
	w, err := l.Watch()
	if err != nil {
		return func() uint64 { return 0 } // the log is closed: the download says so
	}
	bytes := uint64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			// Next returns the events that came before Close.
			e, err := w.Next(context.WithoutCancel(ctx))
			if err != nil {
				return
			}
			if e.Kind == hypercore.Received {
				n := bytesOf(l, e.Range)
				bytes += n
				bar.add(e.Range.Len(), n)
			}
		}
	}()
	return func() uint64 {
		w.Close()
		<-done
		return bytes
	}
}

// bytesOf is the size of blocks, as far as it is known.
func bytesOf(l *log, r hypercore.Range) uint64 {
	from, err := l.ByteOffset(r.Start)
	to, err2 := l.ByteOffset(r.End)
	if err != nil || err2 != nil || to < from {
		return 0
	}
	return to - from
}

// heldOf counts the blocks of ranges that are here.
func heldOf(l *log, ranges []hypercore.Range) (n uint64) {
	for _, r := range ranges {
		n += heldIn(l.Log, r)
	}
	return n
}
