package backup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// stretchesAtOnce is how many stretches, of about 1 MiB each, are in memory when
// blocks are copied from another backup.
const stretchesAtOnce = 8

// borrow adds to a log what is not held here and is in other backups. have is what
// is in its pieces, and becomes that.
func (w *packWriter) borrow(store *corestore.Store, log *hypercore.Log, l Log, have *rangeSet) (Log, error) {
	for i, open := range w.elsewhere {
		gaps := have.without(Blocks{0, l.Length})
		if len(gaps) == 0 || w.failed[i] != nil && !Partly(w.failed[i]) {
			continue // whoever does not answer is not asked for each log
		}
		var err error
		if w.readers[i] == nil {
			w.readers[i], err = open(w.ctx)
		}
		if err == nil {
			l, err = w.borrowFrom(w.readers[i], store, log, l, gaps, have)
		}
		if w.ctx.Err() != nil {
			return l, w.ctx.Err()
		}
		var mine *ownError
		if errors.As(err, &mine) {
			return l, mine.err
		}
		if err != nil && (w.failed[i] == nil || !Partly(err)) {
			w.failed[i] = fmt.Errorf("copy log %s: %w", l.Key, err)
		}
	}
	return l, nil
}

// An ownError is one of the backup that is being made, not of where blocks come from.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

// borrowFrom adds what another backup has of the gaps in a log. It goes through a
// store in memory, which knows the log's tree and proves each block.
func (w *packWriter) borrowFrom(from *Reader, store *corestore.Store, log *hypercore.Log, l Log, gaps []Blocks, have *rangeSet) (Log, error) {
	var want runs.Set
	for _, b := range gaps {
		want.Add(runs.Range{Start: b[0], End: b[1]})
	}
	list, err := from.find(w.ctx, log, &want)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return l, err
	}
	if len(list) == 0 {
		return l, nil
	}
	desk, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		return l, &ownError{err}
	}
	defer desk.Close()
	copied, err := w.plant(store, desk, l.Key, list)
	if err != nil {
		return l, &ownError{err}
	}
	defer copied.Close()
	if at := copied.Length(); at > l.Length { // it has grown since
		piece, err := w.piece(store, l.Key, corestore.Part{Since: l.Length, Lengths: []uint64{at}})
		if err != nil {
			return l, &ownError{err}
		}
		l.Pieces, l.Length = append(slices.Clip(l.Pieces), piece), piece.Length
	}
	var failed error
	for some := range slices.Chunk(list, stretchesAtOnce) {
		for _, s := range some {
			if err := from.bring(w.ctx, copied, s); err != nil {
				if failed == nil || !Partly(err) {
					failed = err
				}
				if !Partly(err) {
					break
				}
			}
		}
		if err := w.take(desk, copied, &l, &want, have); err != nil {
			return l, &ownError{err}
		}
		if failed != nil && !Partly(failed) {
			break
		}
	}
	return l, failed
}

// plant makes a log in a store that knows the tree of one in another, also what it was
// when the pieces were made that stretches lie in, as far as that is known. It has no
// blocks.
func (w *packWriter) plant(store, desk *corestore.Store, key hypercore.Key, list []stretch) (*hypercore.Log, error) {
	graft := func(p corestore.Part) (length uint64, err error) {
		var b bytes.Buffer
		if length, _, err = store.ExportPart(w.ctx, key, &b, p); err == nil {
			_, err = desk.Import(w.ctx, &b)
		}
		return length, err
	}
	length, err := graft(corestore.Part{})
	if err != nil {
		return nil, err
	}
	done := map[uint64]bool{}
	for _, s := range list {
		n := s.of.log.Pieces[s.piece].Length
		if done[n] || n >= length {
			continue
		}
		done[n] = true
		now, err := graft(corestore.Part{Since: length, Lengths: []uint64{n}})
		if err == nil {
			length = now
		} else if !errors.Is(err, merkle.ErrNoNode) {
			return nil, err
		}
	}
	return desk.Get(corestore.LogOptions{Key: &key, MustExist: true})
}

// take adds pieces with what came, and clears it there.
func (w *packWriter) take(desk *corestore.Store, copied *hypercore.Log, l *Log, want *runs.Set, have *rangeSet) error {
	var todo []hypercore.Range
	for r, ok := copied.NextHeld(0); ok; r, ok = copied.NextHeld(r.End) {
		for _, gap := range have.without(Blocks{r.Start, min(r.End, want.Last().End)}) {
			todo = append(todo, hypercore.Range{Start: gap[0], End: gap[1]})
		}
	}
	for len(todo) > 0 {
		piece, err := w.piece(desk, l.Key, corestore.Part{Since: copied.Length(), Blocks: todo})
		if err != nil {
			return err
		}
		l.Pieces = append(slices.Clip(l.Pieces), piece)
		have.addAll(piece.Blocks)
		w.copied += piece.count()
		todo = cut(todo, piece.Blocks)
	}
	_, err := copied.Clear(w.ctx, 0, copied.Length())
	return err
}
