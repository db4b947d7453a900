package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
)

// What an entry of a bee says is a statement. Its bytes are described in
// docs/formats/tree.md:
//
//	head     1 byte: the version of the format in the upper half, flags in the lower
//	time     8 bytes, little endian: nanoseconds since 1970
//	claims   with flagClaims: their count, then for each a number of the table and a block
//	kept     with flagKept: their count, then for each its block, its size and a statement
//	value    the rest
//
// All numbers are unsigned varints in their shortest form.
const (
	formatV1    = 1 << 4
	formatMask  = 0xf0
	flagDeleted = 1 << 0
	flagClaims  = 1 << 1
	flagKept    = 1 << 2
	flagTable   = 1 << 3

	headSize = 1 + 8
)

const (
	maxWriters = 1024      // that the statements of a writer may name
	maxKept    = 32        // statements of its writer that a statement leaves standing
	maxTime    = 1<<62 - 1 // the year 2116, and there is room for later ones
	maxSeq     = 1<<53 - 1 // of a block
	maxTable   = maxWriters * len(Writer{})
)

// ErrStatement: an entry of a writer's bee is not a statement.
var ErrStatement = errors.New("invalid statement")

// A claim says that the statement of a writer about the same key in a block was
// seen, and all before it.
type claim struct {
	number uint64 // of the writer, in the table of the bee that has the claim
	seq    uint64
}

// A record is a statement as it is in a bee. Its parts are those of the bytes it
// was read from.
type record struct {
	time    uint64
	deleted bool
	claims  []byte // encoded, nil if there are none
	kept    []byte // encoded, nil if there are none
	value   []byte
}

// append appends the record's bytes.
func (r *record) append(b []byte) []byte {
	head := byte(formatV1)
	if r.deleted {
		head |= flagDeleted
	}
	if r.claims != nil {
		head |= flagClaims
	}
	if r.kept != nil {
		head |= flagKept
	}
	b = binary.LittleEndian.AppendUint64(append(b, head), r.time)
	b = append(append(b, r.claims...), r.kept...)
	return append(b, r.value...)
}

// appendClaims appends some claims, at least one, in the order of their numbers.
func appendClaims(b []byte, claims []claim) []byte {
	b = binary.AppendUvarint(b, uint64(len(claims)))
	for _, c := range claims {
		b = binary.AppendUvarint(binary.AppendUvarint(b, c.number), c.seq)
	}
	return b
}

// eachClaim returns what parseClaims has checked.
func eachClaim(b []byte) iter.Seq[claim] {
	return func(yield func(claim) bool) {
		if b == nil {
			return
		}
		_, b, err := readNumber(b, maxWriters)
		for len(b) > 0 && err == nil {
			var c claim
			if c, b, err = readClaim(b); err == nil && !yield(c) {
				return
			}
		}
	}
}

// appendKept appends some statements that are left standing, at least one, the
// newest first.
func appendKept(b []byte, kept []keptRecord) []byte {
	b = binary.AppendUvarint(b, uint64(len(kept)))
	for _, k := range kept {
		b = binary.AppendUvarint(b, k.seq)
		b = append(binary.AppendUvarint(b, uint64(len(k.raw))), k.raw...)
	}
	return b
}

// eachKept returns what parseKept has checked.
func eachKept(b []byte) iter.Seq2[uint64, record] {
	return func(yield func(uint64, record) bool) {
		if b == nil {
			return
		}
		_, b, err := readNumber(b, maxKept)
		for len(b) > 0 && err == nil {
			var k keptRecord
			if k, b, err = readKept(b); err != nil {
				return
			}
			r, err := parseRecord(k.raw, false)
			if err != nil || !yield(k.seq, r) {
				return
			}
		}
	}
}

// A keptRecord is an earlier statement of the same writer that a statement had
// not seen.
type keptRecord struct {
	seq uint64
	raw []byte
}

// readRecord reads a statement about a key. It aliases the input.
func readRecord(b []byte) (record, error) {
	r, err := parseRecord(b, true)
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	return r, nil
}

var (
	errShort   = errors.New("it is cut off")
	errNumber  = errors.New("a number is not in its shortest form, or too large")
	errOrder   = errors.New("its numbers are out of order")
	errMany    = errors.New("it speaks of too many others")
	errFlags   = errors.New("its flags make no sense")
	errTime    = errors.New("its time is too late")
	errVersion = errors.New("it is of an unknown format")
)

// readHead reads what statements and tables begin with.
func readHead(b []byte) (flags byte, time uint64, err error) {
	if len(b) < headSize {
		return 0, 0, errShort
	}
	if b[0]&formatMask != formatV1 {
		return 0, 0, errVersion
	}
	time = binary.LittleEndian.Uint64(b[1:])
	if time > maxTime {
		return 0, 0, errTime
	}
	return b[0] &^ formatMask, time, nil
}

func parseRecord(b []byte, mayKeep bool) (r record, err error) {
	flags, time, err := readHead(b)
	if err != nil {
		return r, err
	}
	r.time, r.deleted = time, flags&flagDeleted != 0
	if flags&flagTable != 0 || flags&flagKept != 0 && !mayKeep {
		return r, errFlags
	}
	b = b[headSize:]
	if flags&flagClaims != 0 {
		if r.claims, b, err = parseClaims(b); err != nil {
			return r, err
		}
	}
	if flags&flagKept != 0 {
		if r.kept, b, err = parseKept(b); err != nil {
			return r, err
		}
	}
	if r.deleted && len(b) > 0 {
		return r, errFlags
	}
	r.value = b
	return r, nil
}

// parseClaims checks claims.
func parseClaims(b []byte) (claims, rest []byte, err error) {
	n, rest, err := readNumber(b, math.MaxUint64)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 || n > maxWriters {
		return nil, nil, errMany
	}
	next := uint64(0)
	for range n {
		var c claim
		if c, rest, err = readClaim(rest); err != nil {
			return nil, nil, err
		}
		if c.number < next || c.seq == 0 {
			return nil, nil, errOrder
		}
		next = c.number + 1
	}
	return b[: len(b)-len(rest) : len(b)-len(rest)], rest, nil
}

// readClaim reads the next of some claims.
func readClaim(b []byte) (c claim, rest []byte, err error) {
	if c.number, b, err = readNumber(b, maxWriters-1); err != nil {
		return c, nil, err
	}
	if c.seq, b, err = readNumber(b, maxSeq); err != nil {
		return c, nil, err
	}
	return c, b, nil
}

// parseKept checks what a statement leaves standing.
func parseKept(b []byte) (kept, rest []byte, err error) {
	n, rest, err := readNumber(b, math.MaxUint64)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 || n > maxKept {
		return nil, nil, errMany
	}
	above := uint64(math.MaxUint64)
	for range n {
		var k keptRecord
		if k, rest, err = readKept(rest); err != nil {
			return nil, nil, err
		}
		if k.seq == 0 || k.seq >= above {
			return nil, nil, errOrder
		}
		above = k.seq
		if _, err := parseRecord(k.raw, false); err != nil {
			return nil, nil, err
		}
	}
	return b[: len(b)-len(rest) : len(b)-len(rest)], rest, nil
}

// readKept reads the next of what a statement leaves standing.
func readKept(b []byte) (k keptRecord, rest []byte, err error) {
	if k.seq, b, err = readNumber(b, maxSeq); err != nil {
		return k, nil, err
	}
	n, b, err := readNumber(b, math.MaxUint64)
	if err != nil {
		return k, nil, err
	}
	if n > uint64(len(b)) {
		return k, nil, errShort
	}
	k.raw = b[:n:n]
	return k, b[n:], nil
}

// readNumber reads a varint in its shortest form.
func readNumber(b []byte, most uint64) (n uint64, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	switch {
	case size == 0:
		return 0, nil, errShort
	case size < 0 || size > 1 && b[size-1] == 0 || n > most:
		return 0, nil, errNumber
	}
	return n, b[size:], nil
}

// appendTable appends the table of a bee: the writers its claims speak of.
func appendTable(b []byte, time uint64, writers []Writer) []byte {
	b = append(b, formatV1|flagTable)
	b = binary.LittleEndian.AppendUint64(b, time)
	for _, w := range writers {
		b = append(b, w[:]...)
	}
	return b
}

// readTable reads the table of a bee.
func readTable(b []byte) ([]Writer, error) {
	flags, _, err := readHead(b)
	if err == nil {
		b = b[headSize:]
		switch {
		case flags != flagTable:
			err = errFlags
		case len(b)%len(Writer{}) != 0:
			err = errShort
		case len(b) > maxTable:
			err = errMany
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: table of writers: %w", ErrStatement, err)
	}
	writers := make([]Writer, len(b)/len(Writer{}))
	for i := range writers {
		copy(writers[i][:], b[i*len(Writer{}):])
	}
	return writers, nil
}
