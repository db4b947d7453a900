package corestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// An exported log is a file of proofs, so that whoever imports it believes
// nothing that the log's writer did not sign. docs/formats/log-export.md has the
// bytes.

const (
	exportMagic  = "bevylog\x01"
	exportSecret = 1 // flag: the writer's seed follows the key

	// importBatch is about how many bytes of proofs are verified and stored at
	// once.
	importBatch = 4 << 20
	// maxFrame bounds one proof that is read.
	maxFrame = hypercore.MaxBlock + 1<<20
)

// ExportOptions for one export.
type ExportOptions struct {
	// Secret adds the key pair that signs. Two stores that both have it must never
	// both write.
	Secret bool
	// Progress is called with the number of blocks done and to do.
	Progress func(done, total uint64)
}

// Export writes one log, with the blocks that are held of it, to w.
func (s *Store) Export(ctx context.Context, key hypercore.Key, w io.Writer, o ExportOptions) error {
	if _, _, err := s.export(ctx, key, w, nil, o); err != nil {
		return fmt.Errorf("export log %s: %w", key, err)
	}
	return nil
}

// A Part says which part of a log to export.
type Part struct {
	// Since is how long the log is where the part is to be imported: 0 if it is not
	// there at all.
	Since uint64
	// Blocks are ranges in order, all held.
	Blocks []hypercore.Range
	// Limit ends the part early, once it has about as many bytes; 0 is no limit.
	Limit int64
	// Lengths are earlier lengths of the log. Parts that were exported when it had
	// them can be imported after this one.
	Lengths []uint64
	// Mark, if it is not nil, is called about each MarkEvery bytes with a block, and
	// the place in the part where its proof begins. What follows there needs no proof
	// that comes before it, but for what the log was when it was exported.
	Mark      func(block uint64, at int64)
	MarkEvery int64
}

// ExportPart is Export of a part of a log. It returns how long the log is where
// it was imported, and behind which block it ended.
func (s *Store) ExportPart(ctx context.Context, key hypercore.Key, w io.Writer, p Part) (length, next uint64, err error) {
	if length, next, err = s.export(ctx, key, w, &p, ExportOptions{}); err != nil {
		return 0, 0, fmt.Errorf("export log %s: %w", key, err)
	}
	return length, next, nil
}

// export writes a part of a log, nil for all that is held.
func (s *Store) export(ctx context.Context, key hypercore.Key, w io.Writer, part *Part, o ExportOptions) (length, next uint64, err error) {
	live, err := s.Get(LogOptions{Key: &key, MustExist: true})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	if _, err := live.Publish(ctx); err != nil {
		return 0, 0, err
	}
	l, err := live.Snapshot()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	e := &exporter{ctx: ctx, log: l, head: l.Head().Length, out: bufio.NewWriterSize(w, 256<<10)}
	blocks := held(l)
	if part == nil {
		part = &Part{}
	} else {
		blocks = slices.Values(part.Blocks)
	}
	var secret []byte
	if o.Secret {
		kp := live.KeyPair()
		if !kp.CanSign() {
			return 0, 0, fmt.Errorf("its secret is not here: %w", hypercore.ErrNotWritable)
		}
		secret = kp.Seed()
	}
	err = e.header(key, secret)
	if err == nil {
		err = e.lengths(part)
	}
	if err == nil {
		next, err = e.blocks(blocks, part, o.Progress)
	}
	if err == nil {
		err = e.out.WriteByte(0)
	}
	if err != nil {
		return 0, 0, err
	}
	return e.head, next, e.out.Flush()
}

// An exporter writes a log.
type exporter struct {
	ctx     context.Context
	log     *hypercore.Log
	head    uint64 // its length
	out     *bufio.Writer
	written int64
	frame   []byte
}

func (e *exporter) header(key hypercore.Key, secret []byte) error {
	header := append([]byte(exportMagic), 0)
	header = append(header, key[:]...)
	if secret != nil {
		header[len(exportMagic)] |= exportSecret
		header = append(header, secret...)
	}
	e.written += int64(len(header))
	_, err := e.out.Write(header)
	return err
}

// prove writes a proof.
func (e *exporter) prove(req merkle.Request, upgrade bool) error {
	p, err := e.log.Prove(e.ctx, req, upgrade)
	if err != nil {
		return err
	}
	e.frame = p.AppendData(e.frame[:0], 0)
	size := binary.AppendUvarint(nil, uint64(len(e.frame)))
	e.written += int64(len(size) + len(e.frame))
	if _, err := e.out.Write(size); err != nil {
		return err
	}
	_, err = e.out.Write(e.frame)
	return err
}

// lengths writes how long the log is, and what proves its earlier lengths.
func (e *exporter) lengths(part *Part) error {
	if part.Since > e.head {
		return fmt.Errorf("it has %d blocks, not %d", e.head, part.Since)
	}
	if e.head > part.Since {
		upgrade := &merkle.UpgradeRequest{Start: part.Since, Length: e.head - part.Since}
		if err := e.prove(merkle.Request{Upgrade: upgrade}, true); err != nil {
			return err
		}
	}
	for _, length := range part.Lengths {
		if length >= e.head {
			continue
		}
		for _, root := range merkle.AppendRoots(nil, length) {
			node := &merkle.NodeRequest{Index: root, Nodes: unsentNode(root, -1, e.head)}
			if err := e.prove(merkle.Request{Hash: node}, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// blocks writes blocks and returns behind which it ended.
func (e *exporter) blocks(blocks iter.Seq[hypercore.Range], part *Part, progress func(done, total uint64)) (next uint64, err error) {
	var total, done uint64
	for r := range blocks {
		total += r.Len()
	}
	last := int64(-1) // the block before
	marked := int64(0)
	for r := range blocks {
		for i := r.Start; i < r.End; i++ {
			if part.Limit > 0 && e.written >= part.Limit {
				return next, nil
			}
			if part.Mark != nil && (marked == 0 || e.written-marked >= part.MarkEvery) {
				part.Mark(i, e.written)
				last, marked = -1, e.written
			}
			block := &merkle.NodeRequest{Index: i, Nodes: unsent(i, last, e.head)}
			if err := e.prove(merkle.Request{Block: block}, false); err != nil {
				return 0, err
			}
			last = int64(i)
			next = i + 1
			if done++; progress != nil && (done == total || done%1024 == 0) {
				progress(done, total)
			}
		}
	}
	return next, nil
}

// held returns the ranges of blocks that are held.
func held(l *hypercore.Log) iter.Seq[hypercore.Range] {
	return func(yield func(hypercore.Range) bool) {
		for r, ok := l.NextHeld(0); ok && yield(r); r, ok = l.NextHeld(r.End) {
		}
	}
}

// unsent returns how many levels above block i its reader does not know, who
// has the roots and got blocks in ascending order, block last just before: a
// node is known when the node above it lies over an earlier block.
func unsent(i uint64, last int64, length uint64) uint64 { return unsentNode(2*i, last, length) }

func unsentNode(node uint64, last int64, length uint64) (n uint64) {
	for {
		parent := merkle.Parent(node)
		if merkle.RightSpan(parent) >= 2*length || last >= 0 && merkle.LeftSpan(parent) <= 2*uint64(last) {
			return n
		}
		node = parent
		n++
	}
}

// ErrExport: what is read is not an exported log, or is cut off.
var ErrExport = errors.New("not an exported log")

// Import reads an exported log into the store and returns its key. Everything in
// it is verified. A log that is in the store already gets what it does not have;
// one of another history is left alone and the error is hypercore.ErrConflict.
//
// When Import fails half-way, what was verified stays.
func (s *Store) Import(ctx context.Context, r io.Reader) (hypercore.Key, error) {
	key, err := s.importLog(ctx, bufio.NewReaderSize(r, 256<<10))
	if err != nil {
		return key, fmt.Errorf("import log: %w", err)
	}
	return key, nil
}

func (s *Store) importLog(ctx context.Context, r *bufio.Reader) (key hypercore.Key, err error) {
	header := make([]byte, len(exportMagic)+1+32)
	if _, err := io.ReadFull(r, header); err != nil {
		return key, fmt.Errorf("%w: %w", ErrExport, err)
	}
	if string(header[:len(exportMagic)-1]) != exportMagic[:len(exportMagic)-1] {
		return key, ErrExport
	}
	if v := header[len(exportMagic)-1]; v != exportMagic[len(exportMagic)-1] {
		return key, fmt.Errorf("export format %d: %w", v, storage.ErrVersion)
	}
	copy(key[:], header[len(exportMagic)+1:])
	o := LogOptions{Key: &key}
	if header[len(exportMagic)]&exportSecret != 0 {
		var seed [32]byte
		if _, err := io.ReadFull(r, seed[:]); err != nil {
			return key, fmt.Errorf("%w: %w", ErrExport, err)
		}
		kp := hypercore.NewKeyPair(seed)
		o.KeyPair = &kp
	}
	l, err := s.Get(o)
	if err != nil {
		return key, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	var batch []*hypercore.Proof
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		errs, err := l.Apply(ctx, hypercore.Durable, batch...)
		batch, size = batch[:0], 0
		return errors.Join(append(errs, err)...)
	}
	for {
		p, n, err := readProof(r)
		if err != nil {
			return key, err
		}
		if p == nil {
			return key, flush()
		}
		batch = append(batch, p)
		if size += n; size >= importBatch || len(batch) >= 1024 {
			if err := flush(); err != nil {
				return key, err
			}
		}
	}
}

// readProof returns the next proof of an exported log and how many bytes it has, or
// nil at the end.
func readProof(r *bufio.Reader) (*hypercore.Proof, int, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: it is cut off: %w", ErrExport, err)
	}
	if n == 0 {
		return nil, 0, nil
	}
	if n > maxFrame {
		return nil, 0, fmt.Errorf("%w: a proof of %d bytes", ErrExport, n)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, 0, fmt.Errorf("%w: it is cut off: %w", ErrExport, err)
	}
	p, _, err := hypercore.ReadData(frame)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrExport, err)
	}
	return p, int(n), nil
}

// Proofs reads what lies in an exported log from its beginning or a mark (see Part)
// to another mark or the end. Nothing of it is verified.
func Proofs(b []byte) (list []*hypercore.Proof, err error) {
	if bytes.HasPrefix(b, []byte(exportMagic)) {
		b = b[min(len(b), len(exportMagic)+1+32):] // no message begins so
	}
	in := bytes.NewReader(b)
	for r := bufio.NewReader(in); r.Buffered() > 0 || in.Len() > 0; {
		p, _, err := readProof(r)
		if err != nil {
			return nil, fmt.Errorf("read proofs: %w", err)
		}
		if p == nil {
			break
		}
		list = append(list, p)
	}
	return list, nil
}
