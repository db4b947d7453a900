package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (b *bee) putCommand() *cobra.Command {
	var c condition
	none := false
	cmd := &cobra.Command{
		Use:   "put <key> <entry> [<value>] [flags]",
		Short: "Set the value of an entry",
		Long: `Sets the value of an entry, which is made if it is not there. Without <value> it
is read from stdin, to its end, as it is; with --hex, in hex.

With a condition the entry is set only if that is true; else nothing changes,
and the exit code is 5.`,
		Example: `bevy hyper bee put friends lenka Brno
cat lenka.json | bevy hyper bee put friends lenka --if-absent
bevy hyper bee put counters visits 8 --if 7`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			entry, err := b.bytes("entry", args[1])
			if err != nil {
				return err
			}
			if err := c.read(b); err != nil {
				return err
			}
			var value []byte
			switch {
			case none && len(args) == 3:
				return wrong("one of the two", "the entry would have one", "<value> and --no-value exclude one another")
			case none:
			case len(args) == 3:
				value, err = b.bytes("value", args[2])
			default:
				value, err = b.stdinValue()
			}
			if err != nil {
				return err
			}
			return b.put(cmd.Context(), args[0], entry, value, &c)
		},
	}
	b.flags(cmd)
	cmd.Flags().BoolVar(&none, "no-value", false, "the entry has no value, which is not the same as an empty one")
	cmd.Flags().BoolVar(&c.absent, "if-absent", false, "only if there is no such entry")
	c.flags(cmd)
	b.keyFlag(cmd, "encrypt with this key")
	return cmd
}

// stdinValue reads a value before the store is opened, so that it may come from
// a command that has the store open.
func (b *bee) stdinValue() ([]byte, error) {
	if isTerminal(b.stdin) {
		b.say("reading from the terminal; Ctrl-D ends it")
	}
	most := hypercore.MaxBlock
	if b.hex {
		most *= 3 // with spaces and new lines
	}
	value, err := io.ReadAll(io.LimitReader(b.stdin, int64(most)+1))
	switch {
	case err != nil:
		return nil, fail(err, "cannot read the value")
	case len(value) > most:
		return nil, &failure{code: codeUsage, what: "the value is too large", cause: fmt.Sprintf("an entry has less than %s", size(hypercore.MaxBlock)),
			try: "a log for it, and the key of that as the value: bevy hyper core create <name>"}
	case b.hex:
		if value, err = unhex(strings.Join(strings.Fields(string(value)), "")); err != nil {
			return nil, wrong("two digits of hex for each byte, or without --hex", causeOf(err), "wrong value in the input")
		}
	}
	return value, nil
}

// A condition is what must be true of an entry before it is changed.
type condition struct {
	absent bool
	word   textFlag   // --if
	seq    numberFlag // --if-seq

	value []byte // of --if
	have  *hyperbee.Entry
}

func (c *condition) flags(cmd *cobra.Command) {
	cmd.Flags().Var(&c.word, "if", "only if its value is this `value`")
	cmd.Flags().Var(&c.seq, "if-seq", "only if the block of this `number` has it, see --json")
}

// read checks the flags.
func (c *condition) read(b *bee) (err error) {
	n := 0
	for _, set := range []bool{c.absent, c.word.set, c.seq.set} {
		if set {
			n++
		}
	}
	if n > 1 {
		return wrong("one of them", "each of them is the whole condition", "conditions exclude one another")
	}
	if c.word.set {
		c.value, err = b.bytes("--if", c.word.s)
	}
	return err
}

// met reports whether the condition is true of an entry, nil if there is none,
// which it remembers.
func (c *condition) met(have *hyperbee.Entry) bool {
	c.have = have
	switch {
	case c.absent:
		return have == nil
	case c.word.set:
		return have != nil && have.Value != nil && bytes.Equal(have.Value, c.value)
	case c.seq.set:
		return have != nil && have.Seq == c.seq.n
	}
	return true
}

// conflict says why the condition is not true.
func (b *bee) conflict(c *condition, verb string, entry []byte) error {
	f := &failure{code: codeConflict, what: fmt.Sprintf("cannot %s %s in bee %s", verb, b.quote(entry), b.log.called()), try: b.command("get", entry)}
	switch {
	case c.have == nil:
		f.cause, f.try = "there is no such entry", "without the condition"
		if verb == "put" {
			f.try = "the same command with --if-absent instead"
		}
	case c.absent:
		f.cause = "the entry is there"
	case c.word.set:
		f.cause = "it has another value"
	default:
		f.cause = fmt.Sprintf("block %d has it", c.have.Seq)
	}
	return f
}

// A changed is what --json prints.
type changed struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	entryName
	Before  *uint64 `json:"before,omitempty"` // the block that had it before, if one did
	Version uint64  `json:"version"`          // after that
}

func (b *bee) put(ctx context.Context, word string, entry, value []byte, c *condition) error {
	return b.change(ctx, word, func(ctx context.Context) error {
		done, err := b.tree.PutIf(ctx, entry, value, c.met)
		if err != nil {
			return b.cannot(ctx, err, "cannot put %s in bee %s", b.quote(entry), b.log.called())
		}
		if !done {
			return b.conflict(c, "put", entry)
		}
		verb, undo := "put", b.command("del", entry)
		if c.have != nil {
			verb, undo = "replaced", b.undo(c.have)
		}
		return b.printChanged(c, entry, verb, undo)
	})
}

// undo is the command that brings back what an entry was before the last change.
func (b *bee) undo(was *hyperbee.Entry) string {
	if was.Value == nil {
		return b.command("put", was.Key, "--no-value")
	}
	return b.command("get", was.Key, "--at", fmt.Sprint(b.tree.Version()-1)) + " | " + b.command("put", was.Key)
}

func (b *bee) printChanged(c *condition, entry []byte, verb, undo string) error {
	if b.json {
		out := changed{Key: b.log.Key().String(), Name: b.log.name, entryName: nameOf(entry), Version: b.tree.Version()}
		if c.have != nil {
			out.Before = &c.have.Seq
		}
		return written(b.printJSON(out))
	}
	b.say("%s %s in bee %s, which has version %d now", verb, b.quote(entry), b.log.called(), b.tree.Version())
	b.say("undo:  %s", undo)
	return nil
}
