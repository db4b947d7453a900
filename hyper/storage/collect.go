package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// collectChunk is how many bytes of live blobs are moved in one step.
const collectChunk = 4 << 20

// scheduleCollectLocked makes a collection due, if there is anything for it.
func (d *disk) scheduleCollectLocked() {
	if d.collect != nil || d.closed || len(d.segments.mostlyDead()) == 0 {
		return
	}
	d.background.Add(1)
	d.collect = d.opts.Clock.AfterFunc(reclaimDelay, func() {
		defer d.background.Done()
		err := d.collectSegments()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.collect = nil
		if err == nil {
			d.scheduleCollectLocked() // for what died meanwhile
		}
	})
}

// collectSegments gives back the space of segments that are mostly dead: it
// moves what is alive in them to the active one, and removes the file.
func (d *disk) collectSegments() error {
	for _, n := range d.segments.mostlyDead() {
		if err := d.collectSegment(n); err != nil {
			return fmt.Errorf("collect segment %d: %w", n, err)
		}
	}
	return nil
}

func (d *disk) collectSegment(n uint32) error {
	if err := d.segments.seal(n); err != nil {
		return err
	}
	// Who was writing to the segment has committed its pointers after this.
	d.blobs.Lock()
	d.blobs.Unlock() //nolint:staticcheck // a barrier
	var moving []*op
	var from []pointer
	size := 0
	flush := func() error {
		if len(moving) == 0 {
			return nil
		}
		err := d.move(moving, from)
		moving, from, size = nil, nil, 0
		return err
	}
	err := d.segments.records(n, func(key []byte, p pointer) error {
		value, err := d.get(spaceBlob, key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if held, ok := parsePointer(value); !ok || held != p {
			return nil
		}
		data, err := d.segments.read(p, key)
		if err != nil {
			return err // a bad record stays where it is, for a reader to be told
		}
		moving = append(moving, &op{kind: opSetBlob, key: bytes.Clone(key), value: data})
		from = append(from, p)
		if size += len(data); size >= collectChunk {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
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
	if d.snapshots > 0 {
		d.doomed = append(d.doomed, n)
		d.segments.forget(n)
		return nil
	}
	return d.segments.remove(n)
}

// move writes blobs anew and points to them there, unless they were deleted
// meanwhile.
func (d *disk) move(ops []*op, from []pointer) error {
	to, err := d.segments.write(ops)
	if err != nil {
		return err
	}
	d.blobs.Lock()
	defer d.blobs.Unlock()
	pb := d.db.NewBatch()
	changes := map[uint32]int64{}
	for i, op := range ops {
		value, err := d.get(spaceBlob, op.key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if held, ok := parsePointer(value); !ok || held != from[i] {
			continue
		}
		if err := pb.Set(append([]byte{spaceBlob}, op.key...), to[i].append(nil), nil); err != nil {
			return err
		}
		changes[to[i].segment] += int64(to[i].recordSize(len(op.key)))
		changes[from[i].segment] -= int64(from[i].recordSize(len(op.key)))
	}
	for n, c := range changes {
		if err := d.mergeCounter(pb, n, c); err != nil {
			return err
		}
	}
	if err := d.commit(pb, pebble.Sync); err != nil {
		return err
	}
	d.segments.addLive(changes)
	return nil
}
