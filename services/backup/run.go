package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Source is what is backed up.
type Source struct {
	Store *corestore.Store
	// Logs are copied in this order, each as it is then: those that name what is in
	// others come first.
	Logs []hypercore.Key
	// Gone are logs that the next snapshot is not to have, if the last one has them.
	Gone map[hypercore.Key]bool
	// Root is kept in the snapshot.
	Root json.RawMessage
	// Device is who makes it.
	Device string
}

// Done is what a Run did.
type Done struct {
	Snapshot string // its name; the last one's if nothing was new
	New      bool
	Blocks   uint64
	Bytes    int64 // that were sent
	// Missing are blocks that are in no snapshot as they are not held here, and were
	// not before.
	Missing uint64
}

const (
	// Small pieces of a log are put together when there are many of them.
	smallPiece = 256 << 10
	manyPieces = 32
)

// Run adds a snapshot, with what is not in the last one. If it fails, or is
// stopped, what was sent is of no use, but does no harm: Prune removes it.
func (r *Repo) Run(ctx context.Context, from Source, progress func(Progress)) (Done, error) {
	done, err := r.run(ctx, from, progress)
	if err != nil {
		return Done{}, fmt.Errorf("back up: %w", err)
	}
	return done, nil
}

func (r *Repo) run(ctx context.Context, from Source, progress func(Progress)) (done Done, err error) {
	last, err := r.Snapshot(ctx, "")
	if errors.Is(err, ErrNotFound) {
		last, err = &Snapshot{}, nil
	}
	if err != nil {
		return done, err
	}
	there, err := r.packs(ctx)
	if err != nil {
		return done, err
	}
	before := map[hypercore.Key]Log{}
	for i, l := range last.Logs {
		for n, p := range l.Pieces {
			if !there[p.Pack].is(last.Packs[p.Pack]) { // it was lost: it is sent again
				l.Pieces = l.Pieces[:n]
				break
			}
		}
		last.Logs[i] = l
		before[l.Key] = l
	}
	next := &Snapshot{Version: version, Time: r.clock.Now().UTC(), Device: from.Device, Root: from.Root, Packs: map[string]int64{}}
	w := &packWriter{repo: r, ctx: ctx, packs: next.Packs}
	w.progress = func(p Progress) {
		if progress != nil {
			p.OfLogs = len(from.Logs)
			progress(p)
		}
	}
	for _, key := range from.Logs {
		l, missing, err := w.log(from.Store, key, before[key])
		if err != nil {
			return done, err
		}
		delete(before, key)
		next.Logs = append(next.Logs, l)
		done.Missing += missing
		w.done.Logs++
	}
	// A device need not know all that others have backed up.
	for _, l := range last.Logs {
		if _, ok := before[l.Key]; ok && !from.Gone[l.Key] {
			next.Logs = append(next.Logs, l)
		}
	}
	if err := w.flush(); err != nil {
		return done, err
	}
	done.Blocks, done.Bytes = w.done.Blocks, w.done.Bytes
	if last.Name != "" && done.Blocks == 0 && slices.EqualFunc(last.Logs, next.Logs, same) {
		done.Snapshot = last.Name
		return done, nil
	}
	for _, l := range next.Logs {
		for _, p := range l.Pieces {
			if _, ok := next.Packs[p.Pack]; !ok {
				next.Packs[p.Pack] = last.Packs[p.Pack]
			}
		}
	}
	if names, err := r.Snapshots(ctx); err != nil || last.Name != "" && !slices.Contains(names, last.Name) {
		return done, errors.Join(err, errors.New("the snapshot that this one goes on from was pruned meanwhile: run it again"))
	}
	id, err := r.newID()
	if err != nil {
		return done, err
	}
	if !next.Time.After(last.Time) { // the newest is the one that goes on
		next.Time = last.Time.Add(time.Millisecond)
	}
	next.Name = next.Time.Format(snapTime) + "-" + id[:8]
	b, err := next.encode()
	if err != nil {
		return done, err
	}
	size, err := r.put(ctx, snapPrefix+next.Name, b)
	if err != nil {
		return done, err
	}
	done.Snapshot, done.New, done.Bytes = next.Name, true, done.Bytes+size
	return done, nil
}

// same reports whether a log is as it was.
func same(a, b Log) bool {
	return a.Key == b.Key && a.Fork == b.Fork && a.Length == b.Length && len(a.Pieces) == len(b.Pieces)
}

// A packWriter collects pieces and sends them as packs.
type packWriter struct {
	repo     *Repo
	ctx      context.Context
	packs    map[string]int64
	buf      bytes.Buffer
	id       string // of the pack that is being filled
	done     Progress
	progress func(Progress)
}

// log adds what a log has and the last snapshot has not.
func (w *packWriter) log(store *corestore.Store, key hypercore.Key, last Log) (l Log, missing uint64, err error) {
	l.Key = key
	log, err := store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if errors.Is(err, hypercore.ErrNotFound) {
		return last.or(key), 0, nil // it is still to come from others
	}
	if err != nil {
		return l, 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	head, err := log.Publish(w.ctx)
	if err != nil {
		return l, 0, err
	}
	l.Fork, l.Length = head.Fork, head.Length
	if last.Fork == head.Fork && last.Length <= head.Length {
		l.Pieces = last.Pieces
	} else if last.Fork >= head.Fork && last.Length > head.Length {
		return last, 0, nil // another device that made a snapshot has more of it
	}
	l.Pieces = together(l.Pieces, log)
	known := covered(l.Pieces)
	var todo []hypercore.Range
	for r, ok := log.NextHeld(0); ok; r, ok = log.NextHeld(r.End) {
		for _, b := range known.without(Blocks{r.Start, r.End}) {
			todo = append(todo, hypercore.Range{Start: b[0], End: b[1]})
			w.done.OfBlocks += b[1] - b[0]
		}
	}
	since := uint64(0)
	if n := len(l.Pieces); n > 0 {
		since = l.Pieces[n-1].Length
	}
	for len(todo) > 0 || since < l.Length {
		piece, err := w.piece(store, key, since, todo)
		if err != nil {
			return l, 0, err
		}
		l.Pieces = append(slices.Clip(l.Pieces), piece)
		since = piece.Length
		l.Length = max(l.Length, piece.Length)
		for _, b := range piece.Blocks {
			known.add(b)
		}
		todo = cut(todo, piece.Blocks)
	}
	for _, r := range known.ranges {
		missing -= r[1] - r[0]
	}
	return l, missing + l.Length, nil
}

// or returns a log as it was, or one that has nothing.
func (l Log) or(key hypercore.Key) Log {
	l.Key = key
	return l
}

// together leaves out the last pieces if these are many and small: what was in
// them is put into one. It must be here for that.
func together(pieces []Piece, log *hypercore.Log) []Piece {
	n := len(pieces)
	for n > 0 && pieces[n-1].Size < smallPiece && pieces[n-1].held(log) {
		n--
	}
	if len(pieces)-n < manyPieces {
		return pieces
	}
	return pieces[:n]
}

// held reports whether all blocks of a piece are held in a log.
func (p *Piece) held(log *hypercore.Log) bool {
	return !slices.ContainsFunc(p.Blocks, func(b Blocks) bool {
		r, ok := log.NextHeld(b[0])
		return !ok || r.Start > b[0] || r.End < b[1]
	})
}

// cut leaves out what is in the first blocks of ranges.
func cut(todo []hypercore.Range, done []Blocks) (rest []hypercore.Range) {
	if len(done) == 0 {
		return todo
	}
	end := done[len(done)-1][1]
	for _, r := range todo {
		if r.End > end {
			rest = append(rest, hypercore.Range{Start: max(r.Start, end), End: r.End})
		}
	}
	return rest
}

// piece adds one piece, and sends the pack once it is full.
func (w *packWriter) piece(store *corestore.Store, key hypercore.Key, since uint64, todo []hypercore.Range) (p Piece, err error) {
	if w.id == "" {
		if w.id, err = w.repo.newID(); err != nil {
			return p, err
		}
	}
	p.Pack, p.At = w.id, int64(w.buf.Len())
	length, next, err := store.ExportPart(w.ctx, key, &w.buf, corestore.Part{Since: since, Blocks: todo, Limit: max(1, packBytes-p.At)})
	if err != nil {
		return p, err
	}
	p.Size, p.Length = int64(w.buf.Len())-p.At, length
	for _, r := range todo {
		if r.Start < next {
			p.Blocks = append(p.Blocks, Blocks{r.Start, min(r.End, next)})
		}
	}
	w.done.Blocks += p.count()
	if w.buf.Len() >= packBytes {
		return p, w.flush()
	}
	return p, w.ctx.Err()
}

// flush sends the pack.
func (w *packWriter) flush() error {
	if w.buf.Len() == 0 {
		w.progress(w.done)
		return w.ctx.Err()
	}
	size, err := w.repo.put(w.ctx, packName(w.id), w.buf.Bytes())
	if err != nil {
		return err
	}
	w.packs[w.id] = int64(w.buf.Len())
	w.done.Bytes += size
	w.buf.Reset()
	w.id = ""
	w.progress(w.done)
	return nil
}
