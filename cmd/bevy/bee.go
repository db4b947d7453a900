package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

// A bee is one run of a "bevy hyper bee" command.
type bee struct {
	*hyper
	subs []string   // --sub
	hex  bool       // --hex
	at   numberFlag // --at

	// Of the tree, while it is open.
	log  *log
	tree *hyperbee.Tree
}

func (h *hyper) beeCommand() *cobra.Command {
	b := &bee{hyper: h}
	cmd := &cobra.Command{
		Use:   "bee",
		Short: "Work with a database on a log",
		Long: `A bee is a log whose blocks are an ordered database: entries with values, both
of which are bytes. They are those of the npm package hyperbee 2. Each change is
a block, so that all versions can still be read: version 5 is the database as it
was when the log had 5 blocks.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(b.createCommand(), b.putCommand(), b.getCommand(), b.delCommand(), b.lsCommand(), b.loadCommand(),
		b.historyCommand(), b.diffCommand(), b.watchCommand(), b.infoCommand(), b.serveCommand())
	h.completeLogs(cmd)
	return cmd
}

// flags adds what commands take that are about entries.
func (b *bee) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&b.subs, "sub", nil, "in the database of this `name` in the bee; several are one in the other")
	cmd.Flags().BoolVar(&b.hex, "hex", false, "give and print entries and values in hex")
}

// readFlags adds what commands take that read.
func (b *bee) readFlags(cmd *cobra.Command) {
	b.flags(cmd)
	b.keyFlag(cmd, "decrypt with this key")
	b.peerFlags(cmd)
}

func (b *bee) atFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&b.at, "at", "read this `version` instead of the newest")
}

// open calls f with the bee that word names open.
func (b *bee) open(ctx context.Context, mode storeMode, word string, f func(context.Context) error) error {
	key, err := b.readEncryptionKey()
	if err != nil {
		return err
	}
	return b.withLog(ctx, mode, word, hypercore.SessionOptions{EncryptionKey: key}, func(ctx context.Context, l *log) error {
		if err := needKey(l, key); err != nil {
			return err
		}
		b.log = l
		tree, err := hyperbee.Open(l.Log, hyperbee.Options{Store: l.store})
		if errors.Is(err, hyperbee.ErrInvalid) {
			return b.noBee(err)
		}
		if err != nil {
			return b.cannot(ctx, err, "cannot open bee %s", l.called())
		}
		defer tree.Close()
		b.tree = tree
		if b.at.set {
			if err := b.hasVersion(b.at.n); err != nil {
				return err
			}
			if b.tree, err = tree.Checkout(b.at.n); err != nil {
				return b.cannot(ctx, err, "cannot read version %d of bee %s", b.at.n, l.called())
			}
			defer b.tree.Close()
		}
		for _, name := range b.subs {
			b.tree = b.tree.Sub([]byte(name))
			defer b.tree.Close()
		}
		return f(ctx)
	})
}

// change is open, for who wants to write.
func (b *bee) change(ctx context.Context, word string, f func(context.Context) error) error {
	key, err := b.readEncryptionKey()
	if err != nil {
		return err
	}
	return b.open(ctx, writing, word, func(ctx context.Context) error {
		if err := b.mayAppend(ctx, b.log, key); err != nil {
			return err
		}
		return f(ctx)
	})
}

// hasVersion refuses versions that a bee does not have.
func (b *bee) hasVersion(version uint64) error {
	if newest := max(1, b.log.Length()); version == 0 || version > newest {
		return &failure{code: codeNotFound, what: fmt.Sprintf("there is no version %d of bee %s", version, b.log.called()),
			cause: fmt.Sprintf("its versions are 1 to %d", newest), try: "bevy hyper bee history " + b.log.word()}
	}
	return nil
}

// noBee says that a log is something else.
func (b *bee) noBee(err error) error {
	return &failure{code: codeUsage, err: err, what: fmt.Sprintf("log %s is not a bee", b.log.called()), cause: causeOf(err),
		try: "bevy hyper core info " + b.log.word() + "; or --encryption-key <hex>, if it is encrypted"}
}

// cannot says what could not be done with the bee because of err.
func (b *bee) cannot(ctx context.Context, err error, format string, args ...any) error {
	f, ok := fail(err, format, args...).(*failure)
	if !ok || f.err != err {
		return fail(err, format, args...) // nil, or somebody's own words
	}
	switch {
	case errors.Is(err, hyperbee.ErrInvalid):
		b.log.wait.start()
		_, header := b.tree.Header(ctx)
		b.log.wait.rest()
		switch {
		case errors.Is(header, hyperbee.ErrInvalid):
			return b.noBee(header)
		case b.at.set:
			f.code, f.try = codeNotFound, "another version: there is none between the changes of one batch"
		default:
			f.try = "--at with an earlier version; its writer can go back to that with bevy hyper core truncate"
		}
	case errors.Is(err, hypercore.ErrNotFound):
		f.cause, f.try = "some of its blocks are not here", "--peer tcp://<host>:<port>, of someone who has them"
	}
	return f
}

// each calls f with what comes of a log. Peers have --wait for each, unless it may
// never come.
func each[T any](l *log, live bool, all iter.Seq2[T, error], f func(T) error) error {
	wait := l.wait
	if live {
		wait = &patience{}
	}
	wait.start()
	defer wait.rest()
	for v, err := range all {
		wait.rest() // who reads our output may take their time
		if err != nil {
			return err
		}
		if err := f(v); err != nil {
			return written(err)
		}
		wait.start()
	}
	return nil
}

// bytes is a word that was given as bytes.
func (b *bee) bytes(what, word string) ([]byte, error) {
	if !b.hex {
		return []byte(word), nil
	}
	p, err := unhex(word)
	if err != nil {
		return nil, wrong("two digits of hex for each byte, or without --hex", causeOf(err), "wrong %s %q", what, word)
	}
	return p, nil
}

// text is bytes as they are printed: on one line, and nothing that a terminal
// would do.
func (b *bee) text(p []byte) string {
	if b.hex {
		return fmt.Sprintf("%x", p)
	}
	return escape(p)
}

// quote is an entry as it is spoken of.
func (b *bee) quote(entry []byte) string { return `"` + b.text(entry) + `"` }

// command is a command about an entry, to be typed.
func (b *bee) command(verb string, entry []byte, more ...string) string {
	words := []string{"bevy hyper bee", verb, shellWord(b.log.word())}
	hex := b.hex
	if entry != nil {
		word := shellWord(b.text(entry))
		if !hex && (escape(entry) != string(entry) || strings.HasPrefix(word, "-")) {
			hex, word = true, fmt.Sprintf("%x", entry)
		}
		words = append(words, word)
	}
	for _, sub := range b.subs {
		words = append(words, "--sub", shellWord(sub))
	}
	if hex {
		words = append(words, "--hex")
	}
	return strings.Join(slices.Concat(words, more), " ")
}

// A bounds is the flags of a range of entries.
type bounds struct {
	gt, gte, lt, lte, prefix textFlag
	limit                    numberFlag
}

func (r *bounds) flags(cmd *cobra.Command) {
	cmd.Flags().Var(&r.gt, "gt", "after this `entry`")
	cmd.Flags().Var(&r.gte, "gte", "from this `entry` on")
	cmd.Flags().Var(&r.lt, "lt", "before this `entry`")
	cmd.Flags().Var(&r.lte, "lte", "up to this `entry`")
	cmd.Flags().Var(&r.prefix, "prefix", "that begin with this `text`")
	cmd.Flags().Var(&r.limit, "limit", "at most this `number`")
}

func (r *bounds) options(b *bee) (o hyperbee.RangeOptions, err error) {
	for _, f := range []struct {
		name string
		word *textFlag
		to   *[]byte
	}{{"gt", &r.gt, &o.Gt}, {"gte", &r.gte, &o.Gte}, {"lt", &r.lt, &o.Lt}, {"lte", &r.lte, &o.Lte}, {"prefix", &r.prefix, &o.Gte}} {
		if !f.word.set {
			continue
		}
		if r.prefix.set && f.word != &r.prefix || *f.to != nil {
			return o, wrong("one of the two", "a prefix is a range by itself", "--prefix and --%s exclude one another", f.name)
		}
		if *f.to, err = b.bytes("--"+f.name, f.word.s); err != nil {
			return o, err
		}
	}
	for _, two := range [][2]*textFlag{{&r.gt, &r.gte}, {&r.lt, &r.lte}} {
		if two[0].set && two[1].set {
			return o, wrong("one of the two", "a range has one bound on each side", "two bounds on one side exclude one another")
		}
	}
	if r.prefix.set {
		o.Lt = after(o.Gte)
	}
	o.Limit, err = r.limit.limit()
	return o, err
}

// after is the first key behind all that begin with a prefix; nil if there is
// none.
func after(prefix []byte) []byte {
	next := slices.Clone(prefix)
	for len(next) > 0 && next[len(next)-1] == 0xff {
		next = next[:len(next)-1]
	}
	if len(next) == 0 {
		return nil
	}
	next[len(next)-1]++
	return next
}
