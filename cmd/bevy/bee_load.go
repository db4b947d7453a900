package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (b *bee) loadCommand() *cobra.Command {
	var s server
	cmd := &cobra.Command{
		Use:   "load <key> [<file>] [flags]",
		Short: "Put many entries, from lines as ls prints them",
		Long: `Puts the entry of each line: the entry, a tab, and its value; without a tab it
has no value. \t, \n, \x00 and so on are read as what they stand for, and so a
backslash is two; with --hex both are in hex. With "-", or without a file, it
reads stdin.

What it says is put is on the disk. A long input is put piece by piece, all of a
piece or nothing; if it ends with an error, what was put before stays, and is
counted.

With --swarm, --tcp or --ws it also serves the store, as "bevy hyper serve"
does, so that others see what is put as it comes. Then it goes on after the
input has ended, until it is stopped.`,
		Example: `bevy hyper bee load friends list.tsv
cut -f 1,3 list.tsv | bevy hyper bee load friends`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "-"
			if len(args) == 2 {
				file = args[1]
			}
			return b.load(cmd.Context(), args[0], file, &s)
		},
	}
	b.flags(cmd)
	b.keyFlag(cmd, "encrypt with this key")
	s.flags(cmd)
	s.swarmFlag(b.hyper, cmd)
	return cmd
}

// A loaded is what --json prints.
type loaded struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	From    uint64 `json:"from"`    // version before that
	Entries uint64 `json:"entries"` // how many were put
	Bytes   uint64 `json:"bytes"`   // of the lines
	Version uint64 `json:"version"` // after that
}

func (b *bee) load(ctx context.Context, word, file string, s *server) error {
	in, total, err := b.hyper.open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	return b.change(ctx, word, func(ctx context.Context) error {
		if file == "-" && isTerminal(b.stdin) {
			b.say("reading from the terminal; Ctrl-D ends it")
		}
		if s.wanted() {
			if err := s.start(ctx, b.hyper, b.log.store); err != nil {
				return err
			}
			defer s.stop()
		}
		bar := b.progress(b.log.called(), "entry", 0, total)
		out := loaded{Key: b.log.Key().String(), Name: b.log.name, From: b.tree.Version(), Version: b.tree.Version()}
		err := b.log.write(ctx, in, splitter{lines: true}, func(lines [][]byte) error {
			n, err := b.putLines(ctx, lines, out.Entries)
			if err != nil {
				return err
			}
			out.Entries, out.Bytes, out.Version = out.Entries+uint64(len(lines)), out.Bytes+n, b.tree.Version()
			bar.add(uint64(len(lines)), n)
			return nil
		})
		bar.end()
		if s.wanted() {
			err = untilStopped(err)
		}
		err = errors.Join(err, b.printLoaded(out, err))
		if err == nil && s.wanted() {
			<-ctx.Done()
		}
		return err
	})
}

// putLines puts the entries of lines in one batch, after as many others.
func (b *bee) putLines(ctx context.Context, lines [][]byte, before uint64) (bytes uint64, err error) {
	batch, err := b.tree.Batch(ctx)
	if err != nil {
		return 0, b.cannot(ctx, err, "cannot write to bee %s", b.log.called())
	}
	defer batch.Close()
	for i, line := range lines {
		key, value, err := b.parseLine(string(line))
		if err != nil {
			return 0, &failure{code: codeUsage, what: fmt.Sprintf("line %s is not an entry", count(before+uint64(i)+1)), cause: causeOf(err), err: err,
				try: `<entry>, a tab, and <value>, with \\ for each backslash`}
		}
		if err := batch.Put(ctx, key, value); err != nil {
			return 0, b.cannot(ctx, err, "cannot put %s in bee %s", b.quote(key), b.log.called())
		}
		bytes += uint64(len(line)) + 1
	}
	if err := batch.Flush(ctx); err != nil {
		return 0, b.cannot(ctx, err, "cannot write to bee %s", b.log.called())
	}
	return bytes, nil
}

// parseLine reads a line that ls has printed.
func (b *bee) parseLine(line string) (key, value []byte, err error) {
	read := unescape
	if b.hex {
		read = unhex
	}
	left, right, hasValue := strings.Cut(line, "\t")
	if key, err = read(left); err == nil && hasValue {
		value, err = read(right)
	}
	return key, value, err
}

func (b *bee) printLoaded(l loaded, err error) error {
	if b.json {
		if err != nil && l.Entries == 0 {
			return nil // the error says all
		}
		return written(b.printJSON(l))
	}
	if err == nil || l.Entries > 0 {
		b.say("put %s (%s) in bee %s, which has version %d now", plural(l.Entries, "entry"), size(l.Bytes), b.log.called(), l.Version)
	}
	if l.Entries > 0 {
		b.say("undo:  bevy hyper core truncate %s %d", shellWord(b.log.word()), l.From)
	}
	return nil
}
