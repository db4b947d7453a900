package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
)

// A finding is what a path on the disk is after a power cut, of which the index has
// a row that is in doubt.
type finding uint8

const (
	unclear finding = iota // neither of the two is known to be the other's successor
	whole                  // what the row says
	lost                   // less than that, or what was there before
	newer                  // all that, and more
)

// checkPower has what was young when the power went be doubted. Where it is not known
// whether the machine was started since, it was.
func (r *round) checkPower() error {
	k, x := r.k, r.x
	if k.powered {
		return nil
	}
	if err := x.openPeriods(); err != nil {
		return err
	}
	if k.c.boot != "" && x.p.boot == k.c.boot {
		noted := x.readPower()
		k.mu.Lock()
		k.power = noted
		k.mu.Unlock()
		k.powered = true
		return nil
	}
	if len(x.readPower()) > 0 {
		x.unset(spaceMeta, "power")
	}
	x.p.boot = k.c.boot
	if x.p.last > x.p.synced {
		if x.p.to == 0 {
			x.p.from = x.p.synced
		}
		x.p.to = x.p.last
		if err := x.commit(true); err != nil {
			return err
		}
	} else {
		x.kept.boot = k.c.boot // it is written with the next rows
	}
	k.powered = true
	return nil
}

// believe ends the doubts once there is no row any more that is in doubt. Those of
// what could not be looked at, or not be written again, are.
func (r *round) believe() error {
	if r.x.p.to == 0 || !r.full {
		return nil
	}
	for _, value := range r.x.scan(spaceFile, "", "") {
		if known, err := readRow(value); err == nil && r.x.p.doubted(known.young) {
			return nil
		}
	}
	to := r.x.p.to
	r.x.p.from, r.x.p.to = 0, 0
	return r.x.ripened(to)
}

// doubt makes a path the same on both sides if a power cut may have changed it, and
// tells whether that is so. What was lost is written again, also if somebody has
// removed it in the last moments. What is neither that nor what was there stays, and
// the other beside it. No clock decides: with another one more stands beside others,
// or comes back.
func (r *round) doubt(ctx context.Context, path string, disk *stat, known *row) (bool, error) {
	switch {
	case known == nil:
		return r.doubtNew(ctx, path, disk)
	case !r.x.p.doubted(known.young):
		return r.doubtBlank(ctx, path, disk, known)
	}
	e, err := r.source.stat(ctx, path)
	if err != nil {
		return false, err
	}
	if disk == nil && e == nil {
		return false, nil
	}
	if r.behind {
		return true, nil // it can't be written again yet
	}
	if disk == nil {
		return true, r.bring(ctx, path, nil, known, e)
	}
	found, now, err := r.find(ctx, path, disk, known, e)
	if err != nil {
		return true, r.unread(path, err)
	}
	if found == lost && r.isLater(now, known) {
		found = unclear // somebody may have it open
	}
	sure := *known
	sure.young = 0
	switch found {
	case unclear:
		r.power(CodeTorn, path)
		sure.stamp, sure.racy = "", true
		return true, r.put(ctx, path, &now, &sure, e)
	case lost:
		if e == nil {
			return true, r.do(ctx, path, erase, &now, known, nil)
		}
		return true, r.bring(ctx, path, &now, nil, e)
	case newer:
		sure.racy = true // it is to be read
		return true, r.do(ctx, path, plan(&now, &sure, e), &now, &sure, e)
	}
	isTime := now.mode != known.mode || now.mtime != known.mtime
	if isTime && r.isLater(now, known) {
		return true, r.do(ctx, path, plan(&now, &sure, e), &now, &sure, e)
	}
	sure.stat = now
	sure.racy = now.kind == kindFile && r.isRacy(now)
	if isTime && e != nil && known.knows(e) {
		return true, r.meta(path, &sure, e)
	}
	r.x.put(path, &sure)
	if err := r.commitSome(); err != nil {
		return true, err
	}
	still := sure
	still.racy = false
	return true, r.do(ctx, path, plan(&now, &still, e), &now, &still, e)
}

// doubtNew handles what is on the disk and not in the index: it may be something that
// was removed, or moved, before the power cut. Then it is known again, and goes.
func (r *round) doubtNew(ctx context.Context, path string, disk *stat) (bool, error) {
	if r.x.p.to == 0 || disk == nil {
		return false, nil
	}
	period, before := r.x.before(path)
	if !r.x.p.doubted(period) {
		return false, nil
	}
	for _, old := range slices.Backward(before) {
		if !old.isOf(*disk) || r.isLater(*disk, old) {
			continue
		}
		now := *old
		now.stat, now.racy, now.young = *disk, false, 0
		if disk.kind == kindFile {
			c, err := r.comparing(ctx, path, disk, nil)
			if err != nil {
				return true, r.unread(path, err)
			}
			if c.hash != old.hash {
				continue
			}
			now.stat = c.now
		}
		e, err := r.source.stat(ctx, path)
		if err != nil {
			return true, err
		}
		r.x.put(path, &now)
		return true, r.do(ctx, path, plan(&now.stat, &now, e), &now.stat, &now, e)
	}
	return false, nil
}

// doubtBlank handles a file of which the index is sure, and that has nothing in it any
// more since before the machine was started: somebody may have been writing to it as
// the power went. It stays, and what was there beside it.
func (r *round) doubtBlank(ctx context.Context, path string, disk *stat, known *row) (bool, error) {
	if r.k.synced || disk == nil || disk.kind != kindFile || known.kind != kindFile || known.size == 0 || known.same(*disk) || disk.ctime == 0 || disk.ctime >= r.k.c.booted {
		return false, nil
	}
	if !r.isBlank(ctx, path, disk) {
		return false, nil
	}
	e, err := r.source.stat(ctx, path)
	if err != nil || e == nil || e.kind != kindFile || e.hash != known.hash || e.size == 0 {
		return false, err
	}
	r.power(CodeTorn, path)
	sure := *known
	sure.stamp, sure.racy = "", true
	return true, r.put(ctx, path, disk, &sure, e)
}

// isBlank tells whether a file can be read, and has nothing but zeros, or nothing. It
// reads no further than it has to.
func (r *round) isBlank(ctx context.Context, path string, disk *stat) bool {
	in, err := r.reading(ctx, path, disk)
	if err != nil {
		return false
	}
	defer in.f.Close()
	in.count = func(int) {}
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if !isZero(buf[:n]) || err != nil {
			return err == io.EOF && isZero(buf[:n])
		}
	}
}

// bring writes again what was lost.
func (r *round) bring(ctx context.Context, path string, disk *stat, known *row, e *entry) error {
	if r.brought == nil {
		r.brought = map[string]bool{}
	}
	r.brought[path] = true
	return r.write(ctx, path, disk, known, e)
}

// isLater tells whether something has happened to a file since its row was made that
// is not from before the power cut, as far as times tell.
func (r *round) isLater(now stat, known *row) bool {
	at, then := now.ctime, known.ctime
	if at == 0 {
		at, then = now.mtime, known.mtime
	}
	return at > then && at >= r.k.c.booted
}

// find compares what is on the disk with what the index has, and returns what was
// compared.
func (r *round) find(ctx context.Context, path string, disk *stat, known *row, e *entry) (finding, stat, error) {
	_, before := r.x.before(path)
	if disk.kind != kindFile {
		if disk.kind == known.kind && disk.link == known.link {
			return whole, *disk, nil
		}
		for _, old := range before {
			if old.kind == disk.kind && old.link == disk.link {
				return lost, *disk, nil
			}
		}
		return unclear, *disk, nil
	}
	was := e
	if known.kind != kindFile || was != nil && (was.kind != kindFile || was.hash != known.hash) {
		was = nil
	}
	c, err := r.comparing(ctx, path, disk, was)
	if err != nil {
		return 0, *disk, err
	}
	switch {
	case known.kind == kindFile && c.hash == known.hash:
		return whole, c.now, nil
	case slices.ContainsFunc(before, func(old *row) bool { return old.kind == kindFile && old.hash == c.hash }):
		return lost, c.now, nil
	case known.kind == kindFile && (c.zeros || c.less):
		return lost, c.now, nil
	case c.more:
		return newer, c.now, nil
	}
	return unclear, c.now, nil
}

// A comparison is what reading a file has shown.
type comparison struct {
	hash  [32]byte
	now   stat
	zeros bool // it has nothing but zeros, or nothing
	less  bool // where it is not as it was, it has zeros, or has ended
	more  bool // it begins with all that was there
}

// comparing reads a file, and beside it what the folder has, unless that is nil or not
// on this machine.
func (r *round) comparing(ctx context.Context, path string, disk *stat, was *entry) (c comparison, err error) {
	in, err := r.reading(ctx, path, disk)
	if err != nil {
		return c, err
	}
	defer in.f.Close()
	in.count = func(int) {}
	c.now, c.zeros = in.before, true
	var old io.Reader
	if was != nil {
		// Without it less is known.
		if n, err := r.source.missing(ctx, was); err == nil && n == 0 {
			if from, err := r.source.open(ctx, was); err == nil {
				defer from.Close()
				old = from
			}
		}
	}
	c.less, c.more = old != nil, old != nil && disk.size >= was.size
	var buf []byte
	look := func(p []byte) (int, error) {
		c.zeros = c.zeros && isZero(p)
		if !c.less && !c.more {
			return len(p), nil
		}
		buf = slices.Grow(buf[:0], len(p))[:len(p)]
		n, err := io.ReadFull(old, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			c.less, c.more = false, false
			return len(p), nil
		}
		c.more = c.more && bytes.Equal(p[:n], buf[:n])
		c.less = c.less && isZeroOr(p[:n], buf[:n]) && isZero(p[n:])
		return len(p), nil
	}
	c.hash, err = hashOf(io.TeeReader(in, writerFunc(look)))
	if err != nil {
		return c, &readError{err}
	}
	return c, nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// isZeroOr tells whether each byte is zero or that of the other, which is as long.
func isZeroOr(p, other []byte) bool {
	for i, b := range p {
		if b != 0 && b != other[i] {
			return false
		}
	}
	return true
}

// power notes what a power cut did to a path, until the machine is started again.
func (r *round) power(code, path string) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if n := r.k.power[code]; n != nil && slices.Contains(n.Paths, path) {
		return
	}
	r.k.power.add(code, path)
	kept := map[string]keptNotice{}
	for code, n := range r.k.power {
		kept[code] = keptNotice{n.Count, n.Paths}
	}
	if b, err := json.Marshal(kept); err == nil {
		r.x.set(spaceMeta, "power", b)
	}
}

type keptNotice struct {
	Count int
	Paths []string
}

// readPower returns what was noted; nothing if that makes no sense.
func (x *index) readPower() notices {
	out := notices{}
	b, _ := x.meta("power") // the first round tells of errors
	var kept map[string]keptNotice
	if json.Unmarshal(b, &kept) != nil {
		return out
	}
	for code, n := range kept {
		if _, ok := words[code]; ok {
			out[code] = &Notice{Code: code, Count: n.Count, Paths: n.Paths}
		}
	}
	return out
}
