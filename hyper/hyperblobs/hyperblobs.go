// Package hyperblobs keeps files in a log: a blob is a run of its blocks.
//
// Ids, blocks and block maps are those of the npm package hyperblobs 2.12, so
// each reads what the other wrote.
//
//	blobs := hyperblobs.New(log, hyperblobs.Options{})
//	id, err := blobs.Put(ctx, data)
//	data, err := blobs.Get(ctx, id)
//	r, err := blobs.NewReader(ctx, id)
//
// The log keeps no list of its blobs: who wants to find a blob again keeps its
// [ID], as a drive does.
//
// An ID that comes from elsewhere may say anything. What makes no sense is
// [ErrInvalid], and never costs more than there are real blocks.
package hyperblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// DefaultBlockSize is the size of a blob's blocks, but for the last: 64 KiB.
const DefaultBlockSize = 64 << 10

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrInvalid: an id or a block map makes no sense.
	ErrInvalid = errors.New("invalid blob")
	// ErrConflict: somebody else appended to the log meanwhile.
	ErrConflict = hypercore.ErrConflict
)

// An ID says where a blob is in its log.
type ID struct {
	BlockOffset uint64 // the first block
	BlockLength uint64 // how many blocks
	ByteOffset  uint64 // bytes of the log before the first block
	ByteLength  uint64 // bytes of the blocks
	// BlockMap means that the blocks are a map, which says in which blocks the
	// blob is.
	BlockMap bool
}

// Options for New.
type Options struct {
	// BlockSize is the size of the blocks that are written, DefaultBlockSize when 0.
	BlockSize int
	// Durability of what is written; Durable when zero.
	Durability hypercore.Durability
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

// Blobs reads and writes the blobs of a log. Any goroutine may call its methods.
type Blobs struct {
	log       *hypercore.Log
	live      *hypercore.Log // the one to download to, when log is a snapshot
	blockSize int
	o         Options
	writing   chan struct{} // holds one token while blocks are being appended
	puts      *puts
}

// New returns the blobs of a log, which stays the caller's to close. While
// something is written, nobody else may append to the log: see ErrConflict.
func New(log *hypercore.Log, o Options) *Blobs {
	size := o.BlockSize
	if size <= 0 {
		size = DefaultBlockSize
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	return &Blobs{log: log, live: log, blockSize: min(size, hypercore.MaxBlock), o: o, writing: make(chan struct{}, 1), puts: new(puts)}
}

// View returns the same blobs read through another session of the log, such as
// a snapshot.
func (b *Blobs) View(log *hypercore.Log) *Blobs {
	v := *b
	v.log = log
	return &v
}

// Log returns the log.
func (b *Blobs) Log() *hypercore.Log { return b.log }

// check returns an error if the id makes no sense in any log.
func (id ID) check() error {
	switch {
	case id.BlockLength > math.MaxInt64-min(id.BlockOffset, math.MaxInt64),
		id.ByteLength > math.MaxInt64-min(id.ByteOffset, math.MaxInt64):
		return fmt.Errorf("%w: the id's numbers are too large", ErrInvalid)
	case id.ByteLength > 0 && id.ByteLength/hypercore.MaxBlock > id.BlockLength, id.BlockLength == 0 && id.ByteLength > 0:
		return fmt.Errorf("%w: %d bytes are not in %d blocks", ErrInvalid, id.ByteLength, id.BlockLength)
	case id.BlockMap && id.BlockLength > maxMapBlocks:
		return fmt.Errorf("%w: a block map of %d blocks, %d are allowed", ErrInvalid, id.BlockLength, maxMapBlocks)
	}
	return nil
}

// check returns an error unless the id's blocks are blocks of the log. It waits
// for those of somebody else's log that are not known of yet.
func (b *Blobs) check(ctx context.Context, id ID) error {
	if err := id.check(); err != nil {
		return err
	}
	if b.known(id) || id.BlockLength == 0 {
		return nil
	}
	invalid := fmt.Errorf("%w: its %d blocks from %d on, or its %d bytes from %d on, are not all in the log", ErrInvalid, id.BlockLength, id.BlockOffset, id.ByteLength, id.ByteOffset)
	if b.log.Writable() {
		return invalid
	}
	if err := Grow(ctx, b.log, id.BlockOffset+id.BlockLength, b.o.Clock); err != nil {
		return err
	}
	if !b.known(id) {
		return fmt.Errorf("%w as it is known here: %w", invalid, hypercore.ErrNotFound)
	}
	return nil
}

// known reports whether the log, as it is known here, goes as far as the id says.
func (b *Blobs) known(id ID) bool {
	return id.BlockOffset+id.BlockLength <= b.log.Length() && (id.BlockMap || id.ByteOffset+id.ByteLength <= b.log.ByteLength())
}

// Grow waits until a log, which may have grown elsewhere, is so long here, or
// nobody tells of more. Update alone would also wait for as long as connections
// are being made, which is all the time for who makes lost ones anew.
func Grow(ctx context.Context, log *hypercore.Log, length uint64, c clock.Clock) error {
	enough, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := log.Notify(func(e hypercore.Event) {
		if e.Kind == hypercore.Appended && e.Length >= length {
			cancel()
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	if log.Length() >= length {
		return nil
	}
	if err = log.Update(enough); log.Length() >= length {
		return nil
	}
	if err != nil || !log.HasSource() {
		return err
	}
	// Who told of the blob is about to tell of its log, if this is no lie.
	timer := c.AfterFunc(patience, cancel)
	defer timer.Stop()
	<-enough.Done()
	return ctx.Err()
}

// patience is how long peers have to tell of a log's blocks after they have told
// of a blob in them.
const patience = 10 * time.Second

// Get returns a whole blob. The memory it takes grows with what is there, not
// with what the id says.
func (b *Blobs) Get(ctx context.Context, id ID) ([]byte, error) {
	r, err := b.NewReader(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := r.all()
	if err != nil {
		return nil, fmt.Errorf("get blob: %w", err)
	}
	return data, nil
}

// Size returns how many bytes a blob has, which for one with a block map is in
// the map.
func (b *Blobs) Size(ctx context.Context, id ID) (uint64, error) {
	if !id.BlockMap {
		return id.ByteLength, nil
	}
	chunks, err := b.Map(ctx, id)
	if err != nil {
		return 0, err
	}
	return bytesOf(chunks), nil
}

// Has reports whether all of a blob is held here.
func (b *Blobs) Has(ctx context.Context, id ID) (bool, error) {
	n, err := b.Missing(ctx, id)
	if errors.Is(err, hypercore.ErrNotFound) {
		return false, nil
	}
	return err == nil && n == 0, err
}

// Missing returns how many of a blob's blocks are not held here. While its
// block map is not here, those are the map's.
func (b *Blobs) Missing(ctx context.Context, id ID) (uint64, error) {
	fail := func(err error) (uint64, error) { return 0, fmt.Errorf("missing blocks of a blob: %w", err) }
	err := id.check()
	if b.log.Writable() { // what is not known of another's log may be there
		err = b.check(ctx, id)
	}
	if err != nil {
		return fail(err)
	}
	n := missing(b.log, id.run())
	if !id.BlockMap || n > 0 {
		return n, nil
	}
	chunks, err := b.chunks(ctx, id)
	if err != nil {
		return fail(err)
	}
	for _, r := range runs(chunks) {
		n += missing(b.log, r)
	}
	return n, nil
}

// maxRanges is how many ranges are downloaded at once.
const maxRanges = 256

// Download brings blobs here whole, and returns when all of them are held.
func (b *Blobs) Download(ctx context.Context, ids ...ID) error {
	fail := func(err error) error { return fmt.Errorf("download blobs: %w", err) }
	var maps, blocks []hypercore.Range
	for _, id := range ids {
		if err := b.check(ctx, id); err != nil {
			return fail(err)
		}
		if id.BlockMap {
			maps = append(maps, id.run())
		} else {
			blocks = append(blocks, id.run())
		}
	}
	if err := b.download(ctx, maps); err != nil {
		return fail(err)
	}
	for _, id := range ids {
		if !id.BlockMap {
			continue
		}
		chunks, err := b.chunks(ctx, id)
		if err != nil {
			return fail(err)
		}
		blocks = append(blocks, runs(chunks)...)
	}
	if err := b.download(ctx, blocks); err != nil {
		return fail(err)
	}
	return nil
}

func (b *Blobs) download(ctx context.Context, all []hypercore.Range) error {
	var want []hypercore.DownloadRange
	for _, r := range all {
		for r := range gaps(b.live, r) {
			want = append(want, hypercore.DownloadRange{From: r.Start, To: r.End})
			if len(want) == maxRanges {
				if err := b.live.Download(ctx, want...); err != nil {
					return err
				}
				want = want[:0]
			}
		}
	}
	if len(want) == 0 {
		return nil
	}
	return b.live.Download(ctx, want...)
}

// Clear frees the space of a blob's blocks here, and returns how many there
// were. They can be had again from peers. With a block map, the blocks that it
// names go too, also those that other blobs share; while the map is not here,
// only what there is of it.
func (b *Blobs) Clear(ctx context.Context, id ID) (uint64, error) {
	fail := func(err error) (uint64, error) { return 0, fmt.Errorf("clear blob: %w", err) }
	if err := b.check(ctx, id); err != nil {
		return fail(err)
	}
	var all []hypercore.Range
	if id.BlockMap && missing(b.log, id.run()) == 0 {
		chunks, err := b.chunks(ctx, id)
		if err != nil {
			return fail(err)
		}
		all = runs(chunks)
	}
	var cleared uint64
	for _, r := range append(all, id.run()) { // the map last: it says what to clear
		n, err := b.live.Clear(ctx, r.Start, r.End)
		if err != nil {
			return fail(err)
		}
		cleared += n
	}
	return cleared, nil
}

func (id ID) run() hypercore.Range {
	return hypercore.Range{Start: id.BlockOffset, End: id.BlockOffset + id.BlockLength}
}

// gaps returns the parts of a range that are not held.
func gaps(log *hypercore.Log, r hypercore.Range) func(yield func(hypercore.Range) bool) {
	return func(yield func(hypercore.Range) bool) {
		for i := r.Start; i < r.End; {
			held, ok := log.NextHeld(i)
			if !ok || held.Start > r.End {
				held.Start, held.End = r.End, r.End
			}
			if i < held.Start && !yield(hypercore.Range{Start: i, End: held.Start}) {
				return
			}
			i = held.End
		}
	}
}

func missing(log *hypercore.Log, r hypercore.Range) (n uint64) {
	for gap := range gaps(log, r) {
		n += gap.End - gap.Start
	}
	return n
}

// runs returns the blocks of chunks as ranges, in order, each block once.
func runs(chunks []Chunk) []hypercore.Range {
	index := make([]uint64, len(chunks))
	for i, c := range chunks {
		index[i] = c.Index
	}
	slices.Sort(index)
	var out []hypercore.Range
	for _, i := range index {
		if n := len(out); n > 0 && out[n-1].End >= i {
			out[n-1].End = i + 1
		} else {
			out = append(out, hypercore.Range{Start: i, End: i + 1})
		}
	}
	return out
}

// errShort is of blobs whose blocks have fewer bytes than the id says.
var errShort = fmt.Errorf("%w: its blocks are shorter than its id says: %w", ErrInvalid, io.ErrUnexpectedEOF)
