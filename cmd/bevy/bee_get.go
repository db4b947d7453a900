package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

func (b *bee) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get <key> <entry> [flags]",
		Short: "Print the value of an entry",
		Long: `Prints the value of an entry as it is; on a terminal, with what that could not
show escaped. The exit code is 3 if there is no such entry.`,
		Example: `bevy hyper bee get friends lenka
bevy hyper bee get friends lenka --at 5
bevy hyper bee get <key> lenka --peer tcp://example.org:4233`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			entry, err := b.bytes("entry", args[1])
			if err != nil {
				return err
			}
			return b.get(cmd.Context(), args[0], entry)
		},
	}
	b.readFlags(cmd)
	b.atFlag(cmd)
	return cmd
}

// A printedEntry is what --json prints.
type printedEntry struct {
	Seq uint64 `json:"seq"` // the block that has it
	entryName
	entryValue
}

func (b *bee) get(ctx context.Context, word string, entry []byte) error {
	return b.open(ctx, reading, word, func(ctx context.Context) error {
		b.log.wait.start()
		e, err := b.tree.Get(ctx, entry)
		b.log.wait.rest()
		if errors.Is(err, hyperbee.ErrNotFound) {
			return b.noEntry(entry)
		}
		if err != nil {
			return b.cannot(ctx, err, "cannot read %s of bee %s", b.quote(entry), b.log.called())
		}
		switch {
		case b.json:
			err = b.printJSON(printedEntry{e.Seq, nameOf(e.Key), valueOf(e.Value)})
		case b.hex:
			_, err = io.WriteString(b.stdout, b.text(e.Value)+"\n")
		case isTerminal(b.stdout):
			_, err = io.WriteString(b.stdout, shown(string(e.Value)))
		default:
			_, err = b.stdout.Write(e.Value)
		}
		return written(err)
	})
}

// shown is a text for a terminal: with its lines and tabs, and nothing else that
// a terminal would do.
func shown(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		for i, cell := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
			if i > 0 {
				out.WriteByte('\t')
			}
			out.WriteString(oneLine(cell))
		}
		out.WriteByte('\n')
	}
	return out.String()
}
