package folder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/cloud/tree"
)

// A stamp names what was said of a path: for each statement that stands its
// writer's key and 8 bytes of its block's number, the winner's first.
const stampSize = len(tree.Writer{}) + 8

func stampOf(raw tree.Entry) []byte {
	if raw.Seq == 0 {
		return nil
	}
	b := appendStamp(nil, raw)
	for _, o := range raw.Others {
		b = appendStamp(b, o)
	}
	return b
}

// Values returns the beginning of an entry's Stamp that names what is not deleted.
func (e Entry) Values() []byte {
	n := 0
	if !e.Deleted && len(e.Stamp) > 0 {
		n++
	}
	for _, o := range e.Others {
		if !o.Deleted {
			n++
		}
	}
	return e.Stamp[:min(n*stampSize, len(e.Stamp))]
}

func appendStamp(b []byte, raw tree.Entry) []byte {
	return binary.LittleEndian.AppendUint64(append(b, raw.Writer[:]...), raw.Seq)
}

// over returns what to tell a tree of what was seen, with same if that is all there
// is.
func (w *writing) over(ctx context.Context, key, stamp []byte) (seen tree.Entry, same bool, err error) {
	if len(stamp)%stampSize != 0 {
		return seen, false, fmt.Errorf("%w: stamp of %d bytes", ErrInvalid, len(stamp))
	}
	now, err := w.t.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return seen, false, err
	}
	if bytes.Equal(stampOf(now), stamp) {
		return seen, true, nil
	}
	if len(stamp) > 0 {
		// What stood beside it then stands on: nothing is lost by one conflict more.
		n := copy(seen.Writer[:], stamp)
		seen.Seq = binary.LittleEndian.Uint64(stamp[n:])
	}
	return seen, false, nil
}

// stated completes an entry with the statement that this batch made of it.
func (w *writing) stated(ctx context.Context, e *Entry) error {
	raw, err := w.t.Get(ctx, []byte(e.Path))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	// The batch's time is later than that of all that it has read.
	for _, s := range append([]tree.Entry{raw}, raw.Others...) {
		if s.Time.Equal(w.t.Time()) {
			e.Time, e.Writer, e.Stamp = s.Time, s.Writer, appendStamp(nil, s)
			return nil
		}
	}
	return nil // it was not there to be removed
}
