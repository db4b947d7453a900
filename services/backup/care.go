package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
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
// what it would remove.
func (r *Repo) Prune(ctx context.Context, keep Keep, dry bool) (p Pruned, err error) {
	fail := func(err error) (Pruned, error) { return Pruned{}, fmt.Errorf("prune: %w", err) }
	names, err := r.Snapshots(ctx)
	if err != nil {
		return fail(err)
	}
	if len(names) == 0 {
		return fail(fmt.Errorf("a snapshot: %w", ErrNotFound))
	}
	p.Kept, p.Snapshots = keep.split(names)
	needed := map[string]bool{}
	for _, name := range p.Kept { // all must be readable before anything goes
		s, err := r.Snapshot(ctx, name)
		if err != nil {
			return fail(err)
		}
		for id := range s.Packs {
			needed[id] = true
		}
	}
	there, err := r.packs(ctx)
	if err != nil {
		return fail(err)
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
	return p, nil
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
