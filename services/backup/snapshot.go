package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
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
	// Gone are logs that earlier snapshots had, of spaces that were removed.
	Gone []hypercore.Key `json:"gone,omitempty"`
	// Packs are the sizes of all packs that it needs.
	Packs map[string]int64 `json:"packs"`
}

// A Log is a log in a snapshot.
type Log struct {
	Key    hypercore.Key `json:"key"`
	Fork   uint64        `json:"fork,omitempty"`
	Length uint64        `json:"length"`
	Pieces []Piece       `json:"pieces,omitempty"` // to be imported in this order
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

// Snapshot reads a snapshot, the newest if the name is empty.
func (r *Repo) Snapshot(ctx context.Context, name string) (*Snapshot, error) {
	if name == "" {
		names, err := r.Snapshots(ctx)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("the newest snapshot: %w", ErrNotFound)
		}
		name = names[len(names)-1]
	}
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
	for _, l := range s.Logs {
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
		for _, b := range p.Blocks {
			s.add(b)
		}
	}
	return s
}

// A Progress is how far something has come. Bytes is what went over the wire.
type Progress struct {
	Logs, OfLogs     int
	Blocks, OfBlocks uint64
	Bytes            int64
}

// Restore imports a snapshot into a store. What is there already stays.
func (r *Repo) Restore(ctx context.Context, s *Snapshot, store *corestore.Store, progress func(Progress)) error {
	return r.restore(ctx, s, store, false, progress)
}

// restore imports a snapshot; if it is only to be proven, blocks go again.
func (r *Repo) restore(ctx context.Context, s *Snapshot, store *corestore.Store, only bool, progress func(Progress)) error {
	var p Progress
	p.OfLogs = len(s.Logs)
	for _, l := range s.Logs {
		for _, piece := range l.Pieces {
			p.OfBlocks += piece.count()
		}
	}
	packs := packReader{repo: r}
	for _, l := range s.Logs {
		for _, piece := range l.Pieces {
			b, err := packs.read(ctx, piece)
			if err != nil {
				return fmt.Errorf("restore log %s: %w", l.Key, err)
			}
			key, err := store.Import(ctx, bytes.NewReader(b))
			if err == nil && key != l.Key {
				err = fmt.Errorf("it is log %s: %w", key, ErrKey)
			}
			if err == nil {
				err = proven(ctx, store, l.Key, piece, only)
			}
			if err != nil {
				return fmt.Errorf("restore log %s: %w", l.Key, err)
			}
			p.Blocks, p.Bytes = p.Blocks+piece.count(), packs.bytes
			if progress != nil {
				progress(p)
			}
		}
		p.Logs++
	}
	if progress != nil {
		progress(p)
	}
	return store.Sync()
}

// proven checks that all of a piece is in a store, and has its blocks go again.
func proven(ctx context.Context, store *corestore.Store, key hypercore.Key, p Piece, clear bool) error {
	log, err := store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if err != nil {
		return err
	}
	defer log.Close()
	if n := log.Length(); n < p.Length {
		return fmt.Errorf("%d of %d blocks are in the backup", n, p.Length)
	}
	if !p.held(log) {
		return fmt.Errorf("pack %s has not all of blocks %v", p.Pack, p.Blocks)
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
	bytes int64
}

func (p *packReader) read(ctx context.Context, piece Piece) ([]byte, error) {
	if p.name != piece.Pack {
		b, err := p.repo.get(ctx, packName(piece.Pack), maxPack)
		if err != nil {
			return nil, err
		}
		p.name, p.pack, p.bytes = piece.Pack, b, p.bytes+int64(len(b))
	}
	if piece.At+piece.Size > int64(len(p.pack)) {
		return nil, fmt.Errorf("pack %s is too short: %w", piece.Pack, ErrKey)
	}
	return p.pack[piece.At : piece.At+piece.Size], nil
}
