package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"golang.org/x/crypto/chacha20poly1305"
)

// sealing is how many bytes longer an object is than what is in it.
const sealing = len(magic) + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// A pack is one that is there.
type pack struct {
	size int64 // of what is in it
	time time.Time
}

// is reports whether a pack is there, with that size.
func (p pack) is(size int64) bool { return !p.time.IsZero() && p.size == size }

// packs returns all packs of the remote.
func (r *Repo) packs(ctx context.Context) (map[string]pack, error) {
	items, err := r.remote.List(ctx, packPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the packs: %w", err)
	}
	all := make(map[string]pack, len(items))
	for _, i := range items {
		if id := i.Name[strings.LastIndexByte(i.Name, '/')+1:]; len(id) == 32 && i.Name == packName(id) {
			all[id] = pack{i.Size - int64(sealing), i.Time}
		}
	}
	return all, nil
}

// Checked is what a Verify found.
type Checked struct {
	Packs int
	Bytes int64
	// Read says that all was read and proven.
	Read bool
	// Wrong are packs that are missing, cut off, or were changed: Run sends what was
	// in them again, once they are not there.
	Wrong []string
	// Problem is what was wrong first when all was read.
	Problem string
}

// Verify looks whether all packs of a snapshot are there. With a store, which has
// to be empty and is of no use afterwards, it also reads them and proves all that
// is in them, as Restore does, and keeps next to nothing.
func (r *Repo) Verify(ctx context.Context, s *Snapshot, scratch *corestore.Store, progress func(Progress)) (c Checked, err error) {
	there, err := r.packs(ctx)
	if err != nil {
		return c, fmt.Errorf("verify: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Packs)) {
		size := s.Packs[id]
		c.Packs, c.Bytes = c.Packs+1, c.Bytes+size
		if !there[id].is(size) {
			c.Wrong = append(c.Wrong, id)
		}
	}
	if scratch == nil || len(c.Wrong) > 0 {
		return c, nil
	}
	c.Read = true
	if err := r.restore(ctx, s, scratch, true, progress); err != nil {
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		c.Problem = err.Error()
	}
	return c, nil
}

// Keep says which snapshots Prune keeps, beside the newest: the last one of each
// of as many days, weeks and months.
type Keep struct{ Days, Weeks, Months int }

// DefaultKeep is what is kept where nothing is said.
var DefaultKeep = Keep{Days: 7, Weeks: 5, Months: 12}

// unfinished is how old packs are that no snapshot names before they are taken
// for what a Run left behind that was stopped.
const unfinished = 24 * time.Hour

// Pruned is what a Prune removed, or would.
type Pruned struct {
	Kept      []string // snapshots
	Snapshots []string
	Packs     int
	Bytes     int64
}

// Prune removes snapshots, and the packs that only these need. With dry it says
// what it would remove. A snapshot with a block that the newest one has not stays,
// unless the block's log was removed.
func (r *Repo) Prune(ctx context.Context, keep Keep, dry bool) (p Pruned, err error) {
	fail := func(err error) (Pruned, error) { return Pruned{}, fmt.Errorf("prune: %w", err) }
	names, err := r.Snapshots(ctx)
	if err != nil {
		return fail(err)
	}
	if len(names) == 0 {
		return fail(fmt.Errorf("a snapshot: %w", ErrNotFound))
	}
	there, err := r.packs(ctx)
	if err != nil {
		return fail(err)
	}
	var drop []string
	p.Kept, drop = keep.split(names)
	newest, err := r.snapshot(ctx, names[len(names)-1])
	if err != nil {
		return fail(err)
	}
	has := newest.has(there)
	for _, name := range drop {
		switch s, err := r.snapshot(ctx, name); {
		case err == nil && s.onlyThere(there, newest, has):
			p.Kept = append(p.Kept, name)
		case err == nil || errors.Is(err, ErrKey): // one that can't be read is of no use
			p.Snapshots = append(p.Snapshots, name)
		default:
			return fail(err)
		}
	}
	slices.Sort(p.Kept)
	needed := map[string]bool{}
	for _, name := range p.Kept { // all must be readable before anything goes
		s, err := r.snapshot(ctx, name)
		if err != nil {
			return fail(err)
		}
		for id := range s.Packs {
			needed[id] = true
		}
	}
	if !dry {
		for _, name := range p.Snapshots {
			if err := r.remote.Delete(ctx, snapPrefix+name); err != nil {
				return fail(err)
			}
		}
	}
	now := r.clock.Now()
	for _, id := range slices.Sorted(maps.Keys(there)) {
		if needed[id] || now.Sub(there[id].time) < unfinished {
			continue
		}
		if !dry {
			if err := r.remote.Delete(ctx, packName(id)); err != nil {
				return fail(err)
			}
		}
		p.Packs, p.Bytes = p.Packs+1, p.Bytes+there[id].size
	}
	if err := r.pruneParts(ctx, &p, now, dry); err != nil {
		return fail(err)
	}
	return p, nil
}

// pruneParts removes what a Run that was killed had begun to put, where the remote
// has that.
func (r *Repo) pruneParts(ctx context.Context, p *Pruned, now time.Time, dry bool) error {
	remote, ok := r.remote.(interface {
		Parts(ctx context.Context) ([]Item, error)
	})
	if !ok {
		return nil
	}
	parts, err := remote.Parts(ctx)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if now.Sub(part.Time) < unfinished {
			continue // somebody may be at it
		}
		if !dry {
			if err := r.remote.Delete(ctx, part.Name); err != nil {
				return err
			}
		}
		p.Packs, p.Bytes = p.Packs+1, p.Bytes+part.Size
	}
	return nil
}

// has returns the blocks of a snapshot that are there, by log. Others do not count:
// what is restored of the log may not prove them.
func (s *Snapshot) has(there map[string]pack) map[hypercore.Key]*rangeSet {
	all := make(map[hypercore.Key]*rangeSet, len(s.Logs))
	for _, l := range s.Logs {
		all[l.Key] = covered(slices.DeleteFunc(slices.Clone(l.Pieces), func(p Piece) bool { return !there[p.Pack].is(s.Packs[p.Pack]) }))
	}
	return all
}

// onlyThere reports whether a snapshot has what the newest one has not.
func (s *Snapshot) onlyThere(there map[string]pack, newest *Snapshot, has map[hypercore.Key]*rangeSet) bool {
	logs := map[hypercore.Key]Log{}
	for _, l := range newest.Logs {
		logs[l.Key] = l
	}
	mine := s.has(there)
	for _, l := range s.Logs {
		now := logs[l.Key]
		if slices.Contains(newest.Gone, l.Key) || now.Fork > l.Fork { // its writer cut it
			continue
		}
		if now.parts(l) || slices.ContainsFunc(newest.Others, func(o Log) bool { return o.Parted && o.Key == l.Key && (l.Tree == nil || bytes.Equal(o.Tree, l.Tree)) }) {
			return true
		}
		for _, b := range mine[l.Key].ranges {
			if set := has[l.Key]; set == nil || len(set.without(b)) > 0 {
				return true
			}
		}
	}
	return false
}

// split says which snapshots stay; names are in the order of time.
func (k Keep) split(names []string) (keep, drop []string) {
	seen := map[string]bool{}
	left := map[string]int{"day": k.Days, "week": k.Weeks, "month": k.Months}
	for i, name := range slices.Backward(names) {
		at, _ := time.Parse(snapTime, strings.SplitN(name, "-", 2)[0]) // Snapshots checked it
		stays := i == len(names)-1
		year, week := at.ISOWeek()
		for unit, of := range map[string]string{
			"day": at.Format(time.DateOnly), "week": fmt.Sprint(year, " ", week), "month": at.Format("2006-01"),
		} {
			if of = unit + " " + of; left[unit] > 0 && !seen[of] {
				seen[of] = true
				left[unit]--
				stays = true
			}
		}
		if stays {
			keep = append(keep, name)
		} else {
			drop = append(drop, name)
		}
	}
	slices.Reverse(keep)
	slices.Reverse(drop)
	return keep, drop
}
