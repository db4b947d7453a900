package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) getCommand() *cobra.Command {
	lines := false
	cmd := &cobra.Command{
		Use:   "get <key> <block>... [flags]",
		Short: "Print single blocks",
		Long: `Prints blocks, in the order in which they are asked for. A block is a number
from 0, or several: 3,10-20,30- are block 3, blocks 10 to 20 and those from 30
to the end.`,
		Example: `bevy hyper core get notes 0
bevy hyper core get notes 3,10-20 7 --lines`,
		Args: wants(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ranges []hypercore.Range
			for _, arg := range args[1:] {
				r, err := parseBlocks(arg)
				if err != nil {
					return wrong("bevy hyper core get <key> 3,10-20", causeOf(err), "wrong block %q", arg)
				}
				ranges = append(ranges, r...)
			}
			return h.get(cmd.Context(), args[0], ranges, lines)
		},
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "end each block with a new line")
	h.keyFlag(cmd, "decrypt with this key")
	h.peerFlags(cmd)
	return cmd
}

// A printedBlock is what --json prints of each.
type printedBlock struct {
	Index uint64 `json:"index"`
	Size  int    `json:"size"`
	Data  []byte `json:"data"` // in base64
}

func (h *hyper) get(ctx context.Context, word string, ranges []hypercore.Range, lines bool) error {
	return h.readBlocks(ctx, word, func(ctx context.Context, l *log, out *blockWriter) error {
		out.lines = lines
		wanted, err := within(ranges, l.Length())
		if err != nil {
			return noBlock(l, err)
		}
		defer l.prefetch(ctx, wanted)()
		for _, r := range wanted {
			if err := out.copy(ctx, l, hypercore.BlockRange{From: r.Start, To: r.End}); err != nil {
				return err
			}
		}
		return nil
	})
}

// prefetch lets all blocks of ranges come at once, in whatever order is best,
// while they are read one after the other. What fails is met by the reader.
func (l *log) prefetch(ctx context.Context, ranges []hypercore.Range) (stop func()) {
	if l.net == nil || len(ranges) < 2 {
		return func() {} // a single range is fetched ahead anyway
	}
	ctx, cancel := context.WithCancel(ctx)
	var fetch sync.WaitGroup
	fetch.Go(func() { _ = l.Download(ctx, downloads(ranges)...) })
	return func() {
		cancel()
		fetch.Wait()
	}
}

func downloads(ranges []hypercore.Range) []hypercore.DownloadRange {
	out := make([]hypercore.DownloadRange, 0, len(ranges))
	for _, r := range ranges {
		if r.Len() > 0 {
			out = append(out, hypercore.DownloadRange{From: r.Start, To: r.End, Linear: true})
		}
	}
	return out
}

// readBlocks opens a log to print blocks of it.
func (h *hyper) readBlocks(ctx context.Context, word string, f func(context.Context, *log, *blockWriter) error) error {
	key, err := h.readEncryptionKey()
	if err != nil {
		return err
	}
	return h.withLog(ctx, reading, word, hypercore.SessionOptions{EncryptionKey: key}, func(ctx context.Context, l *log) error {
		if err := needKey(l, key); err != nil {
			return err
		}
		out := &blockWriter{out: h.buffered(), json: h.json}
		err := f(ctx, l, out)
		if e := out.out.Flush(); err == nil {
			err = written(e)
		}
		return err
	})
}

// A blockWriter prints blocks.
type blockWriter struct {
	out   *bufio.Writer
	json  bool
	lines bool
}

// copy prints the blocks of a range.
func (w *blockWriter) copy(ctx context.Context, l *log, r hypercore.BlockRange) error {
	if r.From == r.To && !r.Live {
		return nil // a To of 0 would mean the end
	}
	next := r.From
	if !r.Live {
		l.wait.start() // one that is live may wait for ever
	}
	defer l.wait.rest()
	for b, err := range l.Blocks(ctx, r) {
		if err != nil {
			return w.cannot(l, next, err)
		}
		l.wait.rest() // who reads our output may take their time
		err := w.write(b)
		next = b.Index + 1
		if err == nil && l.net != nil && !l.Has(next) {
			err = w.out.Flush() // the next one may take a while
		}
		if err != nil {
			return written(err)
		}
		if !r.Live {
			l.wait.start()
		}
	}
	return nil
}

func (w *blockWriter) write(b hypercore.Block) (err error) {
	switch {
	case w.json:
		_, err = w.out.Write(jsonLine(printedBlock{b.Index, len(b.Data), b.Data}))
	default:
		if _, err = w.out.Write(b.Data); err == nil && w.lines {
			err = w.out.WriteByte('\n')
		}
	}
	return err
}

// cannot says why a block could not be read.
func (w *blockWriter) cannot(l *log, index uint64, err error) error {
	if errors.Is(err, hypercore.ErrNotFound) {
		return &failure{code: codeNotFound, err: err, what: fmt.Sprintf("block %s of log %s is not here", count(index), l.called()),
			cause: "it was cleared or not fetched yet", try: "--peer tcp://<host>:<port>, of someone who has it"}
	}
	return fail(err, "cannot read block %s of log %s", count(index), l.called())
}

// noBlock says that a log is too short.
func noBlock(l *log, err error) error {
	return &failure{code: codeNotFound, err: err, what: fmt.Sprintf("cannot read log %s", l.called()), cause: causeOf(err),
		try: "--peer tcp://<host>:<port>, if someone has a longer one"}
}
