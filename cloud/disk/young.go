package disk

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Another program need not sync what it writes, so that a power cut may take from
// the disk what the folder has already: files are empty then, cut off, of zeros, as
// they were before, or not there. What the index says of such a file is young until
// the disk has it for sure. Young rows are of a period, and periods end one after
// another: the number of the last one that is on the disk says it of all rows.
//
// No clock is asked which rows those are, as it may be another after the start.

// youngTime is how long a period is at most, and how long it waits then before it is
// synced: after both, the system has written nearly all of it by itself.
const youngTime = 45 * time.Second

// periods is what the index has of them. Rows of a later one than synced are young,
// and those of one after from, up to to, are in doubt: the power went.
type periods struct {
	boot         string // of the rows of the last one
	last, synced uint64
	from, to     uint64
}

func (p periods) String() string {
	return fmt.Sprintf("%d %d %d %d %s", p.last, p.synced, p.from, p.to, p.boot)
}

// readPeriods returns none for what makes no sense.
func readPeriods(b []byte) (p periods) {
	parts := strings.SplitN(string(b), " ", 5)
	if len(parts) < 5 {
		return periods{}
	}
	p.boot = parts[4]
	for i, n := range []*uint64{&p.last, &p.synced, &p.from, &p.to} {
		var err error
		if *n, err = strconv.ParseUint(parts[i], 10, 64); err != nil {
			return periods{}
		}
	}
	return p
}

// doubted tells whether the power may have taken what was recorded in a period.
func (p periods) doubted(period uint64) bool { return period > p.from && period <= p.to }

// openPeriods reads them.
func (x *index) openPeriods() error {
	value, err := x.meta("periods")
	x.kept = readPeriods(value)
	x.p = x.kept
	x.period = x.p.last + 1
	return err
}

// record gives a path the row of what another program did there, which may not be on
// the disk yet; none if r is nil. It is seen as with put.
func (x *index) record(path string, r *row) {
	if r != nil {
		r.young = x.period
	}
	x.remember(path)
	x.put(path, r)
	x.p.last = x.period
}

// maxBefore bounds how many rows of a path are remembered.
const maxBefore = 16

// remember keeps the row of a path that gets another one: a power cut may bring back
// what was there.
func (x *index) remember(path string) {
	old, err := x.row(path)
	if old == nil || err != nil {
		return
	}
	_, before := x.before(path)
	if len(before) == maxBefore {
		before = append(before[:1], before[2:]...) // the first is on the disk
	}
	x.set(spaceBefore, path, appendBefore(nil, x.period, append(before, old)))
}

// before returns what may be at a path after a power cut, and the period of the last
// change there.
func (x *index) before(path string) (period uint64, rows []*row) {
	value, err := x.get(spaceBefore, path)
	if err != nil || value == nil {
		return 0, nil
	}
	return readBefore(value)
}

func appendBefore(b []byte, period uint64, rows []*row) []byte {
	b = append(b, indexFormat)
	b = binary.AppendUvarint(b, period)
	for _, r := range rows {
		one := appendRow(nil, r)
		b = binary.AppendUvarint(b, uint64(len(one)))
		b = append(b, one...)
	}
	return b
}

// readBefore leaves out what makes no sense.
func readBefore(b []byte) (period uint64, rows []*row) {
	if len(b) == 0 || b[0] != indexFormat {
		return 0, nil
	}
	period, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return 0, nil
	}
	for b = b[1+n:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			break
		}
		if r, err := readRow(b[n : n+int(size)]); err == nil {
			rows = append(rows, r)
		}
		b = b[n+int(size):]
	}
	return period, rows
}

// ripened notes that the disk has all up to a period.
func (x *index) ripened(period uint64) error {
	x.p.synced = max(x.p.synced, period)
	for path, value := range x.scan(spaceBefore, "", "") {
		if of, _ := readBefore(value); of <= x.p.synced && !x.p.doubted(of) {
			x.unset(spaceBefore, path)
			if x.b.Len() >= indexPage {
				if err := x.commit(false); err != nil {
					return err
				}
			}
		}
	}
	return x.commit(false)
}

// ripenLocked has the young be synced later. The guard is k.mu; k.round is held, too.
func (k *Keeper) ripenLocked() {
	if k.closed || k.ripe != nil || k.x.p.last <= k.x.p.synced {
		return
	}
	k.ripe = k.c.clock.AfterFunc(youngTime, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.ripe = nil
		if !k.closed {
			k.work.Go(k.ripen)
		}
	})
}

// ripen ends a period, and syncs the one that was ended before.
func (k *Keeper) ripen() {
	k.round.Lock()
	ended := k.x.ended
	k.x.ended = k.x.p.last
	k.x.period = k.x.p.last + 1
	k.round.Unlock()
	synced := false
	if ended > 0 {
		if f, err := k.c.open(k.c.dir); err == nil {
			synced = f.sync() == nil
			f.close()
		}
	}
	k.round.Lock()
	defer k.round.Unlock()
	if synced {
		_ = k.x.ripened(ended) // else it is done with the next period
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ripenLocked()
}
