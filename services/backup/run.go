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
	"github.com/cloudbevy/bevy/hyper/merkle"
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
	// markEvery is about how much is read at once by who wants one block.
	markEvery = 1 << 20
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
	for _, l := range last.Logs {
		before[l.Key] = l
	}
	next := &Snapshot{Version: version, Time: r.clock.Now().UTC(), Device: from.Device, Root: from.Root, Packs: map[string]int64{}}
	w := &packWriter{repo: r, ctx: ctx, packs: next.Packs, lost: func(p Piece) bool { return !there[p.Pack].is(last.Packs[p.Pack]) }}
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
			next.Logs = append(next.Logs, w.first(l))
		}
	}
	next.Gone = slices.DeleteFunc(slices.Clone(last.Gone), func(k hypercore.Key) bool { return slices.Contains(from.Logs, k) })
	for _, l := range last.Logs {
		if from.Gone[l.Key] {
			next.Gone = append(next.Gone, l.Key)
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
	if names, err := r.Snapshots(ctx); err != nil || last.Name == "" && len(names) > 0 || last.Name != "" && (len(names) == 0 || names[len(names)-1] != last.Name) {
		return done, errors.Join(err, errors.New("another snapshot was made meanwhile, or the one that this one goes on from was pruned: run it again"))
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
	return a.Key == b.Key && a.Fork == b.Fork && a.Length == b.Length &&
		slices.EqualFunc(a.Pieces, b.Pieces, func(p, q Piece) bool { return p.Pack == q.Pack && p.At == q.At })
}

// A packWriter collects pieces and sends them as packs.
type packWriter struct {
	repo     *Repo
	ctx      context.Context
	packs    map[string]int64
	buf      bytes.Buffer
	id       string // of the pack that is being filled
	lost     func(Piece) bool
	done     Progress
	progress func(Progress)
}

// log adds what a log has and the last snapshot has not.
func (w *packWriter) log(store *corestore.Store, key hypercore.Key, last Log) (l Log, missing uint64, err error) {
	l.Key = key
	log, err := store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if errors.Is(err, hypercore.ErrNotFound) {
		return w.first(last.or(key)), 0, nil // it is still to come from others
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
		if l.Pieces, err = w.tie(store, last); err != nil {
			return l, 0, err
		}
	} else if last.Fork >= head.Fork && last.Length > head.Length {
		return w.first(last), 0, nil // another device that made a snapshot has more of it
	}
	l.Pieces = together(l.Pieces, log)
	next, missing, err := w.rest(store, log, l)
	if errors.Is(err, merkle.ErrNoNode) && len(l.Pieces) > 0 {
		// The tree there went when blocks were cleared: it begins anew. Prune keeps the
		// snapshots with what is not here any more.
		l.Pieces = nil
		next, missing, err = w.rest(store, log, l)
	}
	return next, missing, err
}

// rest adds pieces with all that is held of a log and is in no piece yet.
func (w *packWriter) rest(store *corestore.Store, log *hypercore.Log, l Log) (_ Log, missing uint64, err error) {
	known := covered(l.Pieces)
	var todo []hypercore.Range
	for r, ok := log.NextHeld(0); ok; r, ok = log.NextHeld(r.End) {
		for _, b := range known.without(Blocks{r.Start, r.End}) {
			todo = append(todo, hypercore.Range{Start: b[0], End: b[1]})
			w.done.OfBlocks += b[1] - b[0]
		}
	}
	since := uint64(0)
	for _, p := range l.Pieces {
		since = max(since, p.Length)
	}
	for len(todo) > 0 || since < l.Length {
		piece, err := w.piece(store, l.Key, corestore.Part{Since: since, Blocks: todo})
		if err != nil {
			return l, 0, err
		}
		l.Pieces = append(slices.Clip(l.Pieces), piece)
		since = max(since, piece.Length)
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

// first leaves out what was lost of a log that can't be made good here, and what
// was to be imported after that.
func (w *packWriter) first(l Log) Log {
	if n := slices.IndexFunc(l.Pieces, w.lost); n >= 0 {
		l.Pieces = l.Pieces[:n]
	}
	return l
}

// tie leaves out the pieces that were lost. What was to be imported after them is
// made good by one that proves what the log was then.
func (w *packWriter) tie(store *corestore.Store, last Log) ([]Piece, error) {
	n := slices.IndexFunc(last.Pieces, w.lost)
	if n < 0 {
		return last.Pieces, nil
	}
	rest := slices.DeleteFunc(slices.Clone(last.Pieces[n:]), w.lost)
	if len(rest) == 0 {
		return last.Pieces[:n], nil
	}
	part := corestore.Part{}
	if n > 0 {
		part.Since = last.Pieces[n-1].Length
	}
	for _, p := range last.Pieces[n:] {
		if !slices.Contains(part.Lengths, p.Length) {
			part.Lengths = append(part.Lengths, p.Length)
		}
	}
	piece, err := w.piece(store, last.Key, part)
	if errors.Is(err, merkle.ErrNoNode) || errors.Is(err, hypercore.ErrNotFound) {
		return last.Pieces[:n], nil // Prune keeps the snapshots that have more
	}
	if err != nil {
		return nil, err
	}
	return append(append(slices.Clone(last.Pieces[:n]), piece), rest...), nil
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
func (w *packWriter) piece(store *corestore.Store, key hypercore.Key, part corestore.Part) (p Piece, err error) {
	if w.id == "" {
		if w.id, err = w.repo.newID(); err != nil {
			return p, err
		}
	}
	p.Pack, p.At = w.id, int64(w.buf.Len())
	part.Limit, part.MarkEvery = max(1, packBytes-p.At), markEvery
	part.Mark = func(block uint64, at int64) { p.Marks = append(p.Marks, Mark{block, uint64(at)}) }
	length, next, err := store.ExportPart(w.ctx, key, &w.buf, part)
	if err != nil {
		w.buf.Truncate(int(p.At))
		return p, err
	}
	p.Size, p.Length = int64(w.buf.Len())-p.At, length
	for _, r := range part.Blocks {
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
