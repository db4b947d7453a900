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
	"github.com/cloudbevy/bevy/hyper/runs"
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
	// Elsewhere open other backups of the same logs: what is not held here comes from
	// there, if it is there. They are asked in this order, once something is missing.
	Elsewhere []func(context.Context) (*Reader, error)
}

// Done is what a Run did.
type Done struct {
	Snapshot string // its name; the last one's if nothing was new
	New      bool
	Blocks   uint64
	Bytes    int64 // that were sent
	// Missing are blocks that are in no snapshot as they are not held here, were not
	// before, and did not come from elsewhere.
	Missing uint64
	// Copied are those of Blocks that came from elsewhere.
	Copied uint64
	// Failed is why what may be elsewhere could not be had: of each of them, nil if
	// nothing went wrong.
	Failed []error
	// Behind are logs that are written here, and of which the backup has more, or
	// something else: what is here was put back to an earlier state.
	Behind []hypercore.Key
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
	names, err := r.Snapshots(ctx)
	if err != nil {
		return done, err
	}
	before := map[hypercore.Key][]Log{} // the one in Logs first
	for _, l := range slices.Concat(last.Logs, last.Others) {
		before[l.Key] = append(before[l.Key], l)
	}
	next := &Snapshot{Version: version, Time: r.clock.Now().UTC(), Device: from.Device, Root: from.Root, Packs: map[string]int64{}, Seen: last.Seen}
	if last.Name != "" {
		next.Seen = append(slices.Clip(next.Seen), snapshotID(last.Name)...)
	}
	old := r.Reader()
	old.use(last)
	old.loaded = next.Time
	w := &packWriter{repo: r, ctx: ctx, packs: next.Packs, lost: func(p Piece) bool { return !there[p.Pack].is(last.Packs[p.Pack]) },
		old: old, elsewhere: from.Elsewhere, readers: make([]*Reader, len(from.Elsewhere)), failed: make([]error, len(from.Elsewhere))}
	w.progress = func(p Progress) {
		if progress != nil {
			p.OfLogs = len(from.Logs)
			progress(p)
		}
	}
	for _, key := range from.Logs {
		l, others, err := w.log(from.Store, key, before[key])
		if err != nil {
			return done, err
		}
		delete(before, key)
		next.Logs, next.Others = append(next.Logs, l), append(next.Others, others...)
		w.done.Logs++
	}
	// A device need not know all that others have backed up.
	for _, l := range last.Logs {
		if all, ok := before[l.Key]; ok && !from.Gone[l.Key] {
			next.Logs = append(next.Logs, w.first(l))
			for _, o := range all[1:] {
				next.Others = append(next.Others, w.first(o))
			}
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
	done.Missing, done.Copied, done.Failed, done.Behind = w.missing, w.copied, w.failed, w.behind
	if last.Name != "" && done.Blocks == 0 && !last.grown && slices.EqualFunc(last.Logs, next.Logs, same) && slices.EqualFunc(last.Others, next.Others, same) {
		done.Snapshot = last.Name
		return done, nil
	}
	for _, l := range slices.Concat(next.Logs, next.Others) {
		for _, p := range l.Pieces {
			if _, ok := next.Packs[p.Pack]; !ok {
				next.Packs[p.Pack] = last.Packs[p.Pack]
			}
		}
	}
	if now, err := r.Snapshots(ctx); err != nil || !slices.Equal(now, names) {
		return done, errors.Join(err, errors.New("another snapshot was made or removed meanwhile: run it again"))
	}
	if there, err = r.packs(ctx); err != nil {
		return done, err
	}
	for id, size := range w.packs {
		if !there[id].is(size) && w.sent[id] {
			return done, errors.New("what was sent was removed meanwhile, by who took it for what is left of another run: run it again")
		}
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
	return a.Key == b.Key && a.Fork == b.Fork && a.Length == b.Length && bytes.Equal(a.Tree, b.Tree) &&
		slices.EqualFunc(a.Pieces, b.Pieces, func(p, q Piece) bool { return p.Pack == q.Pack && p.At == q.At })
}

// A packWriter collects pieces and sends them as packs.
type packWriter struct {
	repo      *Repo
	ctx       context.Context
	packs     map[string]int64
	sent      map[string]bool // packs
	buf       bytes.Buffer
	id        string // of the pack that is being filled
	lost      func(Piece) bool
	old       *Reader // of the last snapshot
	elsewhere []func(context.Context) (*Reader, error)
	readers   []*Reader // that are open
	failed    []error   // of those elsewhere
	missing   uint64
	copied    uint64
	behind    []hypercore.Key
	done      Progress
	progress  func(Progress)
}

// log adds what a log has and the last snapshot has not. That knows some histories
// of it; others are those that it is not.
func (w *packWriter) log(store *corestore.Store, key hypercore.Key, known []Log) (l Log, others []Log, err error) {
	if len(known) == 0 {
		known = []Log{{Key: key}}
	}
	stay := func() (Log, []Log, error) {
		for i, o := range known {
			known[i] = w.first(o)
		}
		return known[0], known[1:], nil
	}
	log, err := store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if errors.Is(err, hypercore.ErrNotFound) {
		return stay() // it is still to come from others
	}
	if err != nil {
		return l, nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	head, err := log.Publish(w.ctx)
	if err != nil {
		return l, nil, err
	}
	if known[0].Fork > head.Fork {
		w.noteBehind(log)
		return stay() // another device has seen the writer cut it
	}
	l = Log{Key: key, Fork: head.Fork, Length: head.Length}
	mine := -1
	for i, o := range known {
		if o.Fork < head.Fork {
			continue
		}
		o.Parted = false
		switch kin := w.kinOf(log, &o); {
		case kin == kinAhead && i == 0:
			w.noteBehind(log)
			return stay() // another device that made a snapshot has more of it
		case kin == kinSame && mine < 0:
			mine = i
			continue
		case kin == kinParted:
			o.Parted = true
			if i == 0 {
				w.noteBehind(log)
			}
		}
		if len(o.Pieces) > 0 {
			others = append(others, w.first(o))
		}
	}
	if mine >= 0 {
		if l.Pieces, err = w.tie(store, known[mine]); err != nil {
			return l, nil, err
		}
	}
	l.Pieces = together(l.Pieces, log)
	next, err := w.rest(store, log, l)
	if errors.Is(err, merkle.ErrNoNode) && len(l.Pieces) > 0 {
		// The tree there went when blocks were cleared: it begins anew, and what there
		// was stays beside it.
		others = append(others, w.first(known[mine]))
		l.Pieces = nil
		next, err = w.rest(store, log, l)
	}
	if err != nil {
		return l, nil, err
	}
	have := covered(next.Pieces)
	for _, o := range others {
		if !o.Parted {
			have.addAll(covered(o.Pieces).ranges)
		}
	}
	length := next.Length // what comes later is for the next run
	if next, err = w.borrow(store, log, next, have); err != nil {
		return l, nil, err
	}
	for _, gap := range have.without(Blocks{0, length}) {
		w.missing += gap[1] - gap[0]
	}
	hash, err := log.TreeHash(head.Length)
	if err == nil && (hash != head.Hash() || log.Fork() != head.Fork) {
		err = fmt.Errorf("log %s became another one meanwhile: run it again: %w", key, hypercore.ErrConflict)
	}
	if err == nil {
		hash, err = log.TreeHash(next.Length)
	}
	next.Tree = hash[:]
	return next, others, err
}

// noteBehind notes that a log which is written here is not what it was.
func (w *packWriter) noteBehind(log *hypercore.Log) {
	if log.Writable() {
		w.behind = append(w.behind, log.Key())
	}
}

// A kin is how a log in a snapshot and the log are of one history.
type kin int

const (
	kinUnknown kin = iota // it can't be told, and none goes on from it
	kinSame               // the log goes on from it
	kinAhead              // it goes on from the log, or somebody else's log was not told yet
	kinParted
)

// kinOf compares a log with how it is in the last snapshot, of the same fork.
func (w *packWriter) kinOf(log *hypercore.Log, o *Log) kin {
	if o.Fork != log.Fork() {
		return kinUnknown
	}
	if o.Length == 0 {
		return kinSame
	}
	if o.Length > log.Length() {
		return w.shorter(log, *o)
	}
	if o.Tree == nil { // of an older program
		l := &lookup{log: *o}
		w.old.proving.Lock()
		p, err := w.old.poolOf(w.ctx, l)
		w.old.proving.Unlock()
		if err != nil || p.tree.Length != o.Length {
			return kinUnknown
		}
		hash := p.tree.Hash()
		o.Tree = hash[:]
	}
	hash, err := log.TreeHash(o.Length)
	switch {
	case err != nil:
		return kinUnknown
	case !bytes.Equal(hash[:], o.Tree):
		return kinParted
	}
	return kinSame
}

// shorter compares a log with one in the last snapshot that is longer. One that is
// written here has been put back to an earlier state; if it went on from there, its
// last blocks are not those in the backup.
func (w *packWriter) shorter(log *hypercore.Log, o Log) kin {
	if !log.Writable() {
		return kinAhead
	}
	var last runs.Set
	from := uint64(0)
	for _, p := range o.Pieces {
		if p.Length <= log.Length() {
			from = max(from, p.Length)
		}
	}
	for r, ok := log.NextHeld(from); ok; r, ok = log.NextHeld(r.End) {
		last.Add(runs.Range(r))
	}
	l := &lookup{log: o, spans: o.spans()}
	list, _, _ := l.stretches(&last) // what is not there can't be compared
	for _, s := range list {
		if err := w.old.check(w.ctx, log, s); errors.Is(err, ErrKey) {
			return kinParted
		} else if err != nil {
			return kinAhead // which is tried again
		}
	}
	return kinAhead
}

// rest adds pieces with all that is held of a log and is in no piece yet.
func (w *packWriter) rest(store *corestore.Store, log *hypercore.Log, l Log) (Log, error) {
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
			return l, err
		}
		l.Pieces = append(slices.Clip(l.Pieces), piece)
		since = max(since, piece.Length)
		l.Length = max(l.Length, piece.Length)
		known.addAll(piece.Blocks)
		todo = cut(todo, piece.Blocks)
	}
	return l, nil
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
	if w.sent == nil {
		w.sent = map[string]bool{}
	}
	w.sent[w.id] = true
	w.done.Bytes += size
	w.buf.Reset()
	w.id = ""
	w.progress(w.done)
	return nil
}
