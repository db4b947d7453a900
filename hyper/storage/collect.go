package storage

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// collectChunk is how many bytes of live blobs are moved in one step.
	collectChunk = 4 << 20
	// collectRetry is when a collection that failed is tried again.
	collectRetry = time.Minute
)

// scheduleCollectLocked makes a collection due, if there is anything for it.
func (d *disk) scheduleCollectLocked(delay time.Duration) {
	if d.collect != nil || d.closed || len(d.segments.wasteful(d.stuck)) == 0 {
		return
	}
	d.background.Add(1)
	d.collect = d.opts.Clock.AfterFunc(delay, func() {
		defer d.background.Done()
		err := d.collectSegments()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.collect = nil
		if err == nil {
			d.scheduleCollectLocked(reclaimDelay) // for what died meanwhile
		} else if d.files.failure() == nil {
			d.scheduleCollectLocked(collectRetry)
		}
	})
}

// collectSegments gives back the space of segments that are mostly dead, and
// joins small ones: it moves what is alive in them to the active one, and
// removes the file.
func (d *disk) collectSegments() error {
	d.mu.Lock()
	wasteful := d.segments.wasteful(d.stuck)
	d.mu.Unlock()
	var errs error
	for _, n := range wasteful {
		err := d.collectSegment(n)
		if errors.Is(err, ErrCorrupt) {
			// It stays as it is: what can be read in it can be.
			d.mu.Lock()
			d.stuck[n] = true
			d.mu.Unlock()
			continue
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("collect segment %d: %w", n, err))
		}
	}
	return errs
}

func (d *disk) collectSegment(n uint32) error {
	if err := d.segments.seal(n); err != nil {
		return err
	}
	// Who was writing to the segment has committed its pointers after this.
	d.blobs.Lock()
	//lint:ignore SA2001 nothing is to be done, but to have waited
	d.blobs.Unlock()
	m := moving{d: d}
	err := d.segments.records(n, func(key []byte, p pointer) error {
		value, err := d.get(spaceLarge, key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if held, ok := parsePointer(value); !ok || held != p {
			return nil
		}
		return m.add(key, p)
	})
	if err == nil {
		err = m.flush()
	}
	if err != nil {
		return err
	}
	if d.segments.alive(n) > 0 {
		// The file is not what it was, and does not lead to all that is in it.
		if err := d.collectPointers(n); err != nil {
			return err
		}
	}
	// Nothing points into the file any more, and that must outlast a crash before
	// the file may go.
	pb := d.db.NewBatch()
	if err := pb.Delete(counterKey(n), nil); err != nil {
		return err
	}
	if err := d.commit(pb, pebble.Sync); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.snapshots) > 0 {
		d.doomed = append(d.doomed, doomed{n, d.snapshoted})
		d.segments.forget(n)
		return nil
	}
	return d.segments.remove(n)
}

// collectPointers moves what is alive in a segment as the database knows it,
// which takes a look at all blobs.
func (d *disk) collectPointers(n uint32) error {
	var keys [][]byte
	var from []pointer
	err := d.pointers(nil, nil, func(key []byte, p pointer) {
		if p.segment == n {
			keys, from = append(keys, bytes.Clone(key)), append(from, p)
		}
	})
	if err != nil {
		return err
	}
	m := moving{d: d}
	var bad error
	for i, key := range keys {
		if err := m.add(key, from[i]); errors.Is(err, ErrCorrupt) {
			bad = err // a bad record stays where it is, for a reader to be told
		} else if err != nil {
			return err
		}
	}
	return errors.Join(m.flush(), bad)
}

// moving is blobs on their way to another segment.
type moving struct {
	d    *disk
	ops  []op
	from []pointer
	size int
}

func (m *moving) add(key []byte, p pointer) error {
	data, err := m.d.segments.read(p, key, nil)
	if err != nil {
		return err
	}
	m.ops = append(m.ops, op{kind: opSetBlob, key: bytes.Clone(key), value: data})
	m.from = append(m.from, p)
	if m.size += len(data); m.size >= collectChunk {
		return m.flush()
	}
	return nil
}

// flush writes blobs anew and points to them there, unless they were deleted
// meanwhile.
func (m *moving) flush() error {
	ops, from, d := m.ops, m.from, m.d
	m.ops, m.from, m.size = nil, nil, 0
	if len(ops) == 0 {
		return nil
	}
	to, err := d.segments.write(ops, false)
	if err != nil {
		return err
	}
	d.blobs.Lock()
	defer d.blobs.Unlock()
	pb := d.db.NewBatch()
	changes := map[uint32]int64{}
	for i, op := range ops {
		value, err := d.get(spaceLarge, op.key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if held, ok := parsePointer(value); !ok || held != from[i] {
			continue
		}
		if err := pb.Set(append([]byte{spaceLarge}, op.key...), to[i].append(nil), nil); err != nil {
			return err
		}
		changes[to[i].segment] += int64(to[i].recordSize(len(op.key)))
		changes[from[i].segment] -= int64(from[i].recordSize(len(op.key)))
	}
	for n, c := range changes {
		if err := mergeCounter(pb, n, c); err != nil {
			return err
		}
	}
	if err := d.commit(pb, pebble.Sync); err != nil {
		return err
	}
	d.segments.addLive(changes)
	return nil
}
