package backup

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A Snapshot says what all logs were at a time, and where that is.
type Snapshot struct {
	Version int       `json:"version"`
	Name    string    `json:"-"`
	Time    time.Time `json:"time"`
	Device  string    `json:"device"` // that made it
	// Root is what leads to everything in the logs: see cloud.Recover.
	Root json.RawMessage `json:"root"`
	Logs []Log           `json:"logs"`
	// Others are what else there is of these logs: of a history that is not, or may not
	// be, the one in Logs, or of earlier snapshots.
	Others []Log `json:"others,omitempty"`
	// Gone are logs that earlier snapshots had, of spaces that were removed.
	Gone []hypercore.Key `json:"gone,omitempty"`
	// Packs are the sizes of all packs that it needs.
	Packs map[string]int64 `json:"packs"`
	// Seen are the ids of earlier snapshots, 4 bytes each, that have nothing more.
	Seen []byte `json:"seen,omitempty"`

	grown bool // it has more than it was read with
}

// A Log is a log in a snapshot.
type Log struct {
	Key    hypercore.Key `json:"key"`
	Fork   uint64        `json:"fork,omitempty"`
	Length uint64        `json:"length"`
	// Tree is the hash of its tree then. The first snapshots had none.
	Tree   []byte  `json:"tree,omitempty"`
	Pieces []Piece `json:"pieces,omitempty"` // to be imported in this order
	// Parted says of one of the others that its history is not the one in Logs.
	Parted bool `json:"parted,omitempty"`
}

// A Piece is a part of a log, in a pack.
type Piece struct {
	Pack   string   `json:"pack"`
	At     int64    `json:"at"`
	Size   int64    `json:"size"`
	Length uint64   `json:"length"` // of the log, once it is imported
	Blocks []Blocks `json:"blocks,omitempty"`
	Marks  []Mark   `json:"marks,omitempty"`
}

// A Mark is a block, and the place in the piece where it begins: one can begin to
// read there.
type Mark [2]uint64

// Blocks are the first block of a range, and the one behind it.
type Blocks [2]uint64

// Bytes returns how many bytes all packs of the snapshot have.
func (s *Snapshot) Bytes() (n int64) {
	for _, size := range s.Packs {
		n += size
	}
	return n
}

// Snapshot reads a snapshot, the newest if the name is empty: with what only earlier
// ones have, which another device may have made at the same time.
func (r *Repo) Snapshot(ctx context.Context, name string) (*Snapshot, error) {
	if name != "" {
		return r.snapshot(ctx, name)
	}
	names, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the newest snapshot: %w", ErrNotFound)
	}
	s, err := r.snapshot(ctx, names[len(names)-1])
	if err == nil {
		err = r.complete(ctx, s, names[:len(names)-1])
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// complete adds to a snapshot what only earlier ones have.
func (r *Repo) complete(ctx context.Context, s *Snapshot, names []string) error {
	seen := map[string]bool{}
	for id := range slices.Chunk(s.Seen, idBytes) {
		seen[string(id)] = true
	}
	var have map[hypercore.Key]*rangeSet
	for _, name := range slices.Backward(names) {
		id := snapshotID(name)
		if seen[string(id)] {
			continue
		}
		old, err := r.snapshot(ctx, name)
		if err != nil && !errors.Is(err, ErrKey) && !errors.Is(err, ErrNotFound) {
			return err
		}
		if s.Seen, s.grown = append(s.Seen, id...), true; err != nil {
			continue // one that can't be read is of no use
		}
		if have == nil {
			have = map[hypercore.Key]*rangeSet{}
			for _, l := range slices.Concat(s.Logs, s.Others) {
				if have[l.Key] == nil {
					have[l.Key] = &rangeSet{}
				}
				have[l.Key].addAll(covered(l.Pieces).ranges)
			}
		}
		s.add(old, have)
	}
	return nil
}

// add adds what only an earlier snapshot has. What there is is in have.
func (s *Snapshot) add(old *Snapshot, have map[hypercore.Key]*rangeSet) {
	main := map[hypercore.Key]*Log{}
	for i := range s.Logs {
		main[s.Logs[i].Key] = &s.Logs[i]
	}
	for _, l := range slices.Concat(old.Logs, old.Others) {
		m := main[l.Key]
		if len(l.Pieces) == 0 || slices.Contains(s.Gone, l.Key) || m != nil && m.Fork > l.Fork {
			continue
		}
		l.Parted = l.Parted || m != nil && m.parts(l)
		mine, there := covered(l.Pieces), have[l.Key]
		if there == nil {
			there = &rangeSet{}
			have[l.Key] = there
		}
		if !l.Parted && !slices.ContainsFunc(mine.ranges, func(b Blocks) bool { return len(there.without(b)) > 0 }) ||
			slices.ContainsFunc(s.Others, func(o Log) bool { return same(o, l) }) {
			continue
		}
		for _, b := range mine.ranges {
			there.add(b)
		}
		for _, p := range l.Pieces {
			s.Packs[p.Pack] = old.Packs[p.Pack]
		}
		if m == nil {
			s.Logs = append(s.Logs, l)
			main[l.Key] = &s.Logs[len(s.Logs)-1]
			continue
		}
		s.Others = append(s.Others, l)
	}
}

// parts reports whether two are of different histories, as far as can be seen.
func (l *Log) parts(other Log) bool {
	return l.Fork == other.Fork && l.Length == other.Length && l.Tree != nil && other.Tree != nil && !bytes.Equal(l.Tree, other.Tree)
}

// idBytes is how many bytes of a snapshot's name are not its time.
const idBytes = 4

// snapshotID returns what tells a snapshot from others. Its name was checked.
func snapshotID(name string) []byte {
	id, err := hex.DecodeString(name[len(name)-2*idBytes:])
	if err != nil {
		panic("backup: snapshotID of a name that was not checked")
	}
	return id
}

// snapshot reads one as it is.
func (r *Repo) snapshot(ctx context.Context, name string) (*Snapshot, error) {
	if !checkName(name) {
		return nil, fmt.Errorf("snapshot %q: %w", name, ErrNotFound)
	}
	b, err := r.get(ctx, snapPrefix+name, maxSnapshot)
	if err != nil {
		return nil, err
	}
	s, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	s.Name = name
	return s, nil
}

// encode returns the bytes of a snapshot.
func (s *Snapshot) encode() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := errors.Join(json.NewEncoder(z).Encode(s), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// decode reads a snapshot, whose key is ours but whose writer may be of another
// version.
func decode(b []byte) (*Snapshot, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	s := &Snapshot{}
	if err := json.NewDecoder(io.LimitReader(z, maxSnapshot)).Decode(s); err != nil {
		return nil, err
	}
	if s.Version != version {
		return nil, fmt.Errorf("version %d: %w", s.Version, ErrVersion)
	}
	if len(s.Seen)%idBytes != 0 {
		return nil, fmt.Errorf("ids of earlier snapshots of %d bytes", len(s.Seen))
	}
	for _, l := range slices.Concat(s.Logs, s.Others) {
		for _, p := range l.Pieces {
			if size, ok := s.Packs[p.Pack]; !ok || len(p.Pack) != 32 || p.At < 0 || p.Size < 0 || p.At+p.Size > size {
				return nil, fmt.Errorf("log %s has a piece that is nowhere", l.Key)
			}
			for _, x := range p.Blocks {
				if x[0] >= x[1] || x[1] > p.Length {
					return nil, fmt.Errorf("log %s has a piece with blocks %v of %d", l.Key, x, p.Length)
				}
			}
			for i, m := range p.Marks {
				if m[1] == 0 || m[1] >= uint64(p.Size) || i > 0 && (m[0] <= p.Marks[i-1][0] || m[1] <= p.Marks[i-1][1]) {
					return nil, fmt.Errorf("log %s has a piece with a mark %v", l.Key, m)
				}
			}
		}
	}
	return s, nil
}

// covered returns the blocks that are in pieces, in order.
func covered(pieces []Piece) *rangeSet {
	s := &rangeSet{}
	for _, p := range pieces {
		s.addAll(p.Blocks)
	}
	return s
}

// A Progress is how far something has come. Bytes is what went over the wire.
type Progress struct {
	Logs, OfLogs     int
	Blocks, OfBlocks uint64
	Bytes            int64
}

// Restore imports a snapshot into a store. What is there already stays, and is not
// read again. What can't be had, as it was changed or is missing, or as the log there
// is of another history, does not keep it from the rest: the error says what it was
// first. One that is not [ErrKey] or [ErrNotFound] is of a remote that does not
// answer.
func (r *Repo) Restore(ctx context.Context, s *Snapshot, store *corestore.Store, progress func(Progress)) error {
	return r.restore(ctx, s, store, false, progress)
}

// restore imports a snapshot; if it is only to be proven, blocks go again.
func (r *Repo) restore(ctx context.Context, s *Snapshot, store *corestore.Store, only bool, progress func(Progress)) error {
	p := Progress{OfLogs: len(s.Logs)}
	parts := map[hypercore.Key][]Log{}
	for _, l := range slices.Concat(s.Logs, s.Others) {
		if l.Parted {
			continue
		}
		parts[l.Key] = append(parts[l.Key], l)
		for _, piece := range l.Pieces {
			p.OfBlocks += piece.count()
		}
	}
	packs := packReader{repo: r}
	var failed error
	for _, l := range s.Logs {
		// What is longest has the nodes that the rest is proven by, if anything has.
		slices.SortStableFunc(parts[l.Key], func(a, b Log) int { return cmp.Compare(b.Length, a.Length) })
		for _, part := range parts[l.Key] {
			for _, piece := range part.Pieces {
				err := r.restorePiece(ctx, &packs, store, l.Key, piece, only)
				switch {
				case err == nil || !same(part, l) && (errors.Is(err, merkle.ErrNoNode) || errors.Is(err, hypercore.ErrConflict)):
				case ctx.Err() != nil || !Partly(err):
					return fmt.Errorf("restore log %s: %w", l.Key, err)
				case failed == nil:
					failed = fmt.Errorf("restore log %s: %w", l.Key, err)
				}
				p.Blocks, p.Bytes = p.Blocks+piece.count(), packs.bytes
				if progress != nil {
					progress(p)
				}
			}
		}
		p.Logs++
	}
	if progress != nil {
		progress(p)
	}
	return errors.Join(failed, store.Sync())
}

// Partly reports whether an error is of something that lies in a backup, or does not
// fit to what is in a store, so that all else may be fine: a [Repo.Restore] that ends
// with it has brought the rest.
func Partly(err error) bool {
	return slices.ContainsFunc([]error{ErrKey, ErrNotFound, ErrVersion, corestore.ErrExport, hypercore.ErrConflict, hypercore.ErrFork, hypercore.ErrFrozen, hypercore.ErrSignature, hypercore.ErrManifest, merkle.ErrProof, merkle.ErrNoNode},
		func(kind error) bool { return errors.Is(err, kind) })
}

func (r *Repo) restorePiece(ctx context.Context, packs *packReader, store *corestore.Store, key hypercore.Key, piece Piece, only bool) error {
	if !only && proven(ctx, store, key, piece, false) == nil {
		return nil // it is here
	}
	b, changed := packs.read(ctx, piece)
	if b == nil || changed != nil && !bytes.HasPrefix(b, append([]byte("bevylog\x01\x00"), key[:]...)) {
		return changed
	}
	got, err := store.Import(ctx, bytes.NewReader(b)) // of a pack that was changed, what is proven
	switch {
	case changed != nil:
		return changed
	case err == nil && got != key:
		return fmt.Errorf("it is log %s: %w", got, ErrKey)
	case err != nil:
		return err
	}
	return proven(ctx, store, key, piece, only)
}

// proven checks that all of a piece is in a store, and has its blocks go again.
func proven(ctx context.Context, store *corestore.Store, key hypercore.Key, p Piece, clear bool) error {
	log, err := store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if err != nil {
		return err
	}
	defer log.Close()
	if n := log.Length(); n < p.Length {
		return fmt.Errorf("%d of %d blocks are in the backup: %w", n, p.Length, ErrNotFound)
	}
	if !p.held(log) {
		return fmt.Errorf("pack %s has not all of blocks %v: %w", p.Pack, p.Blocks, ErrNotFound)
	}
	if !clear {
		return nil
	}
	for _, b := range p.Blocks {
		if _, err := log.Clear(ctx, b[0], b[1]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Piece) count() (n uint64) {
	for _, b := range p.Blocks {
		n += b[1] - b[0]
	}
	return n
}

// A packReader reads pieces, which are in the order of packs for the most part.
type packReader struct {
	repo  *Repo
	name  string
	pack  []byte
	wrong error // what the pack has was changed
	bytes int64
}

// read returns a piece, also with ErrKey if its pack was changed.
func (p *packReader) read(ctx context.Context, piece Piece) ([]byte, error) {
	if p.name != piece.Pack {
		b, err := p.repo.get(ctx, packName(piece.Pack), maxPack)
		if b == nil {
			return nil, err
		}
		p.name, p.pack, p.wrong, p.bytes = piece.Pack, b, err, p.bytes+int64(len(b))
	}
	if piece.At+piece.Size > int64(len(p.pack)) {
		return nil, fmt.Errorf("pack %s is too short: %w", piece.Pack, ErrKey)
	}
	return p.pack[piece.At : piece.At+piece.Size], p.wrong
}
