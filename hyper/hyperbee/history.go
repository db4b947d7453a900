package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Change is one operation of a tree's history.
type Change struct {
	Entry
	// Deleted says that it removed the entry of its key. A put without a value that
	// a later operation of the same batch overwrote looks like that, too.
	Deleted bool
}

// aheadBlocks is how often a reader of blocks in a row has the next ones fetched.
const aheadBlocks = 64

// HistoryOptions say which changes, by the numbers of their blocks. The zero
// value is all there are.
type HistoryOptions struct {
	From uint64 // the first is 1
	To   uint64 // without it; 0 is the version of the tree, or with Live no end
	// Reverse goes from the last to the first.
	Reverse bool
	// Live waits for changes that are yet to come.
	Live bool
	// Limit is the most changes to return; 0 is all.
	Limit int
}

// History returns the changes that made the tree, in their order. Those of a
// database in another (Sub) are those of its entries. It ends with the first
// error, and with ErrTruncated if the log is truncated meanwhile.
func (t *Tree) History(ctx context.Context, o HistoryOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := t.history(ctx, o, yield); err != nil {
			yield(Change{}, fmt.Errorf("history: %w", err))
		}
	}
}

func (t *Tree) history(ctx context.Context, o HistoryOptions, yield func(Change, error) bool) error {
	if o.Live && (o.Reverse || t.pin != nil) {
		return errors.New("only what goes on, and forward, can be followed")
	}
	var w *hypercore.Watcher
	if o.Live {
		var err error
		if w, err = t.s.log.Watch(); err != nil {
			return err
		}
		defer w.Close()
	}
	v, err := t.view(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	from, to := max(1, o.From), v.version
	if o.To > 0 {
		to = min(to, o.To)
	}
	sent := 0
	// send returns false once there is no more to do.
	send := func(seq uint64) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if v.ahead != nil && seq%aheadBlocks == 0 {
			r := hypercore.DownloadRange{From: seq, To: min(seq+2*aheadBlocks, to)}
			if o.Reverse {
				r = hypercore.DownloadRange{From: max(from, seq-min(seq, 2*aheadBlocks)), To: seq}
			}
			v.ahead.start(r)
		}
		b, err := v.block(ctx, seq)
		if err != nil {
			return false, err
		}
		if !bytes.HasPrefix(b.key, t.prefix) {
			return true, nil
		}
		c := Change{Entry: b.entry(t.prefix)}
		if b.value == nil {
			has, err := b.has(seq)
			if err != nil {
				return false, v.invalid(seq, err)
			}
			c.Deleted = !has
		}
		sent++
		return yield(c, nil) && (o.Limit <= 0 || sent < o.Limit), nil
	}
	if o.Reverse {
		for seq := to; seq > from; {
			seq--
			if more, err := send(seq); !more || err != nil {
				return err
			}
		}
		return nil
	}
	for seq := from; ; {
		for ; seq < to; seq++ {
			if more, err := send(seq); !more || err != nil {
				return err
			}
		}
		if !o.Live || o.To > 0 && seq >= o.To {
			return nil
		}
		if _, err := w.Next(ctx); err != nil {
			return err
		}
		if err := v.same(); err != nil {
			return err
		}
		to = max(to, t.s.log.Length())
		if o.To > 0 {
			to = min(to, o.To)
		}
	}
}
