package tree

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// A Version says how much of each writer's bee belongs to a state of the tree: the
// versions of the bees. Writers that have said nothing are not in it.
type Version map[Writer]uint64

// maxVersionWriters bounds what ReadVersion takes.
const maxVersionWriters = 1 << 16

// AppendTo appends the version's bytes: their format, the number of writers, and
// for each its key and its version, in the order of keys.
func (v Version) AppendTo(b []byte) []byte {
	b = append(b, versionFormat)
	b = compact.AppendUint(b, uint64(len(v)))
	for _, w := range slices.SortedFunc(maps.Keys(v), compareWriters) {
		b = compact.AppendFixed32(b, (*[32]byte)(&w))
		b = compact.AppendUint(b, v[w])
	}
	return b
}

const versionFormat = 1

// ReadVersion reads what AppendTo wrote.
func ReadVersion(b []byte) (Version, error) {
	if len(b) == 0 || b[0] != versionFormat {
		return nil, fmt.Errorf("read version of a tree: %w", errVersion)
	}
	d := compact.NewDecoder(b[1:])
	n := d.Uint()
	if n > maxVersionWriters {
		return nil, fmt.Errorf("read version of a tree: %w", errMany)
	}
	v := Version{}
	var last *Writer
	for range n {
		w := Writer(d.Fixed32())
		seq := d.Uint()
		if d.Err() != nil {
			break
		}
		if last != nil && compareWriters(*last, w) >= 0 {
			return nil, fmt.Errorf("read version of a tree: %w", errOrder)
		}
		last = &w
		v[w] = seq
	}
	if err := d.Finish(); err != nil {
		return nil, fmt.Errorf("read version of a tree: %w", err)
	}
	return v, nil
}

// Text returns the version's bytes as text, to hand to programs as a cursor: in
// base64 for URLs (RFC 4648, section 5), without padding.
func (v Version) Text() string { return base64.RawURLEncoding.EncodeToString(v.AppendTo(nil)) }

// ParseVersion reads what Text wrote. No text at all is the version before anything
// was said.
func ParseVersion(text string) (Version, error) {
	if text == "" {
		return Version{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("parse version of a tree: %w", err)
	}
	return ReadVersion(b)
}

func compareWriters(a, b Writer) int { return bytes.Compare(a[:], b[:]) }

// Covers reports whether all that belongs to another version belongs to this one.
func (v Version) Covers(other Version) bool {
	for w, seq := range other {
		if v[w] < seq {
			return false
		}
	}
	return true
}

// ErrWriter: a version names a writer whose bee the tree does not have.
var ErrWriter = errors.New("unknown writer")
