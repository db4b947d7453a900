package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node/home"
	"github.com/spf13/cobra"
)

// exported is what --json prints of export.
type exported struct {
	Table string `json:"table"`
	Items int    `json:"items"`
	File  string `json:"file"`
}

func (a *app) tableExportCommand() *cobra.Command {
	var f *tableFlags
	asCSV := false
	cmd := &cobra.Command{
		Use:   "export <table> [<file>] [flags]",
		Short: "Write all items of a table to a file, or to stdout",
		Long: `Writes all items as JSON, one on each line, which "bevy table put" reads. A
<file> whose name ends with .csv, or --csv, makes a table of it: a column for
each attribute that any item has, and JSON in cells with lists and maps.

With a moment, as in people@yesterday, it is the table as it was. people@now is
the table at one moment, however long it takes and whatever is written to it.`,
		Example: `bevy table export people > people.jsonl
bevy table export people@now people.csv`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := ""
			if len(args) > 1 {
				file = args[1]
			}
			return a.withTables(cmd.Context(), f, func(t *tables) error {
				name, err := t.moment(args[0])
				if err != nil {
					return err
				}
				return t.export(cmd.Context(), name, file, asCSV || strings.EqualFold(filepath.Ext(file), ".csv"))
			})
		},
	}
	f = a.tableFlags(cmd, true)
	cmd.Flags().BoolVar(&asCSV, "csv", false, "as comma-separated values")
	return cmd
}

func (t *tables) export(ctx context.Context, name, file string, asCSV bool) (err error) {
	d, err := t.describe(ctx, name)
	if err != nil {
		return err
	}
	if asCSV && t.typed {
		return wrong("--csv without --dynamo-json", "cells have no types", "items can't be written so")
	}
	write := t.writeLines
	if asCSV {
		write = t.writeCSV
	}
	if file == "" {
		w := t.buffered()
		_, err := write(ctx, &d, w)
		if e := w.Flush(); err == nil {
			err = written(e)
		}
		return err
	}
	n := 0
	if err := newFile(file, func(w io.Writer) (err error) {
		n, err = write(ctx, &d, w)
		return err
	}); err != nil {
		return fail(err, "cannot export %s to %s", name, file)
	}
	if t.json {
		return written(t.printJSON(exported{name, n, file}))
	}
	t.say("wrote %s to %s", plural(uint64(n), "item"), file)
	return nil
}

// newFile writes a file that there is not, all of it or nothing.
func newFile(name string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(name); err == nil {
		return &failure{code: codeConflict, what: name + " was not written", cause: "there is one already", try: "another name"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(name), ".bevy-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	w := bufio.NewWriterSize(temp, 64<<10)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = temp.Sync()
	}
	if e := temp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	return err
}

func (t *tables) writeLines(ctx context.Context, d *description, w io.Writer) (n int, err error) {
	err = t.each(ctx, d, everything(d), func(item tableItem) (bool, error) {
		n++
		_, err := w.Write(append(t.line(item, keys(d.KeySchema)), '\n'))
		return true, written(err)
	})
	return n, err
}

// writeCSV reads all items twice: first for the names of their attributes.
func (t *tables) writeCSV(ctx context.Context, d *description, w io.Writer) (n int, err error) {
	seen := map[string]bool{}
	if err := t.each(ctx, d, everything(d), func(item tableItem) (bool, error) {
		for name := range item {
			seen[name] = true
		}
		return true, nil
	}); err != nil {
		return 0, err
	}
	names := attributesOf(seen, keys(d.KeySchema))
	out := csv.NewWriter(w)
	if err := out.Write(names); err != nil {
		return 0, written(err)
	}
	err = t.each(ctx, d, everything(d), func(item tableItem) (bool, error) {
		n++
		row := make([]string, len(names))
		for i, name := range names {
			if v, ok := item[name]; ok {
				row[i] = cell(v)
			}
		}
		return true, written(out.Write(row))
	})
	out.Flush()
	if err == nil {
		err = written(out.Error())
	}
	return n, err
}

// cell is a value as text.
func cell(v attribute) string {
	p := plain(v)
	if s, ok := p.(string); ok {
		return s
	}
	return strings.TrimSpace(string(jsonLine(p)))
}

func (a *app) tableRestoreCommand() *cobra.Command {
	var f *tableFlags
	var sure consent
	as, inPlace := "", false
	cmd := &cobra.Command{
		Use:   "restore <table> [flags]",
		Short: "Have a table as it was, beside the one there is or in its place",
		Long: `Makes a new table of what a table was at a moment: people@yesterday, people@2h,
people@2026-11-23T15:04. It is called as --as says.

With --in-place the table itself becomes what it was: items that are different
are put back, and those that are new are removed. Programs that write to it at
the same time may see it half done.`,
		Example: `bevy table restore people@yesterday --as people-before
bevy table restore people@2h --in-place`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, moment, ok := strings.Cut(args[0], "@")
			now := a.clock.Now()
			at, err := home.ParseMoment(moment, now)
			switch {
			case !ok || moment == "":
				return wrong("bevy table restore "+shellWord(name)+"@yesterday", "it has no moment", "which %q?", name)
			case err != nil:
				return wrong("2h, 3d, yesterday, 2026-11-23, 15:04", "it is no time", "there is no moment %q", moment)
			case inPlace == (as != ""):
				return wrong("--as "+shellWord(name)+"-then, or --in-place", "one of the two says where it goes", "where to restore %s?", name)
			}
			return a.withTables(cmd.Context(), f, func(t *tables) error {
				if inPlace {
					return t.restoreInPlace(cmd.Context(), name, at, sure)
				}
				if err := t.restore(cmd.Context(), name, as, at); err != nil {
					return err
				}
				d, err := t.describe(cmd.Context(), as)
				if err != nil {
					return err
				}
				if t.json {
					return written(t.printJSON(putItems{Table: as, Items: int(d.ItemCount)}))
				}
				t.say("%s has the %s of %s at %s", as, plural(uint64(d.ItemCount), "item"), name, at.Local().Format("2006-01-02 15:04:05"))
				return nil
			})
		},
	}
	f = a.tableFlags(cmd, false)
	cmd.Flags().StringVar(&as, "as", "", "make a new table of this `name`")
	cmd.Flags().BoolVar(&inPlace, "in-place", false, "make the table itself what it was")
	sure.flags(cmd)
	return cmd
}

// restore makes a table of what another was.
func (t *tables) restore(ctx context.Context, name, as string, at time.Time) error {
	in := map[string]any{"SourceTableName": name, "TargetTableName": as, "RestoreDateTime": float64(at.UnixMilli()) / 1000}
	err := t.ask(ctx, "RestoreTableToPointInTime", in, nil)
	if err != nil && strings.Contains(err.Error(), "recovery is not enabled") { // all that was is there all the same
		on := map[string]any{"TableName": name, "PointInTimeRecoverySpecification": map[string]bool{"PointInTimeRecoveryEnabled": true}}
		if err := t.ask(ctx, "UpdateContinuousBackups", on, nil); err != nil {
			return t.cannot(err, name, "cannot restore %s", name)
		}
		err = t.ask(ctx, "RestoreTableToPointInTime", in, nil)
	}
	if err != nil {
		return t.cannot(err, name, "cannot restore %s as it was at %s", name, at.Local().Format("2006-01-02 15:04:05"))
	}
	bar := t.progress("restoring "+escape([]byte(name)), "item", 0, 0)
	defer bar.end()
	for { // a large one is answered before it is there
		d, err := t.describe(ctx, as)
		switch {
		case err != nil && codeOf(err) == codeNotFound:
			return &failure{code: codeFailed, what: "cannot restore " + name, cause: "the node could not make all of " + as, try: "the same again; the node's log says why", err: err}
		case err != nil || d.TableStatus != "CREATING":
			return err
		case !sleep(ctx, t.clock, restorePoll):
			return ctx.Err()
		}
	}
}

// restorePoll is the time between two questions whether a table is restored.
const restorePoll = 500 * time.Millisecond

// restoreInPlace makes a table what it was, by way of another.
func (t *tables) restoreInPlace(ctx context.Context, name string, at time.Time, sure consent) (err error) {
	d, err := t.describe(ctx, name)
	if err != nil {
		return err
	}
	temp := fmt.Sprintf("%.200s%s%d", name, client.RestoringInfix, t.clock.Now().UnixNano())
	if err := t.restore(ctx, name, temp, at); err != nil {
		return err
	}
	defer func() { // also of one that was interrupted
		if e := t.ask(context.WithoutCancel(ctx), "DeleteTable", map[string]string{"TableName": temp}, nil); err == nil && e != nil {
			err = t.cannot(e, temp, "cannot remove the table %s", temp)
		}
	}()
	was, err := t.describe(ctx, temp)
	if err != nil {
		return err
	}
	changes := func(b *batch, dry bool) error {
		if err := t.against(ctx, &was, name, func(item, now tableItem) error {
			switch {
			case now != nil && itemText(now) == itemText(item):
				return nil
			case dry:
				b.puts++
				return nil
			}
			return b.put(ctx, item)
		}); err != nil {
			return err
		}
		return t.against(ctx, &d, temp, func(item, then tableItem) error {
			switch {
			case then != nil:
				return nil
			case dry:
				b.deletes++
				return nil
			}
			return b.remove(ctx, b.keyOf(item))
		})
	}
	plan := &batch{tables: t, table: name, keys: keys(d.KeySchema)}
	if err := changes(plan, true); err != nil {
		return err
	}
	text := fmt.Sprintf("of %s, %s would be put back as at %s, and %s removed that came later", name, plural(uint64(plan.puts), "item"),
		at.Local().Format("2006-01-02 15:04:05"), plural(uint64(plan.deletes), "item"))
	sure.why = "it changes items"
	if ok, err := t.confirm(sure, "bevy table restore "+shellWord(name)+"@... --in-place"+t.ofApp(), text); !ok {
		return err
	}
	before := t.clock.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	b := &batch{tables: t, table: name, keys: keys(d.KeySchema)}
	if err := changes(b, false); err != nil {
		return err
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	if t.json {
		return written(t.printJSON(putItems{name, b.puts, b.deletes}))
	}
	t.say("put back %s and removed %s\nundo:  bevy table restore %s@%s --in-place%s", plural(uint64(b.puts), "item"), plural(uint64(b.deletes), "item"), shellWord(name), before, t.ofApp())
	return nil
}

// against calls f with each item of a table, and with what another one has of its key,
// which is nil if there is none.
func (t *tables) against(ctx context.Context, d *description, other string, f func(item, there tableItem) error) error {
	b := &batch{tables: t, table: other, keys: keys(d.KeySchema)}
	var some []tableItem
	look := func() error {
		there, err := b.get(ctx, some)
		if err != nil {
			return err
		}
		for _, item := range some {
			if err := f(item, there[itemText(b.keyOf(item))]); err != nil {
				return err
			}
		}
		some = some[:0]
		return nil
	}
	if err := t.each(ctx, d, everything(d), func(item tableItem) (_ bool, err error) {
		if some = append(some, item); len(some) == maxBatch {
			err = look()
		}
		return true, err
	}); err != nil {
		return err
	}
	return look()
}
