package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func TestFoldersAreMovedWhole(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	for _, p := range []string{"/a/x", "/a/b/y", "/a-b", "/c"} {
		d.write(p, "in "+p)
	}
	must(t, d.Mkdir(ctx, "/a/empty", PutOptions{Mode: 0o700}))
	before := d.logs["1content"].Length()
	must(t, d.Move(ctx, "/a", "/z/a"))
	must(t, d.Move(ctx, "/c", "/z/c"))
	want(t, "files", files(t, d.Folder), map[string]string{"/z/a/x": "in /a/x", "/z/a/b/y": "in /a/b/y", "/z/a/empty": "(folder)", "/a-b": "in /a-b", "/z/c": "in /c"})
	must(t, d.Move(ctx, "/a-b", "/z/c")) // a file replaces a file
	want(t, "what was replaced", d.read("/z/c"), "in /a-b")
	want(t, "blocks of contents", d.logs["1content"].Length(), before)
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{"/z", "/z/a/b", ErrPath}, {"/z", "/z", ErrPath}, {"/nothing", "/y", ErrNotFound}, {"/z/a", "/z/c", ErrExists},
		{"/z/c", "/z/a", ErrExists}, {"/z/a", "/z/c/d", ErrNotFolder}, {"/z/a", "/" + strings.Repeat("n/", 2046) + "y", ErrPath},
	} {
		if err := d.Move(ctx, c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("move %s to %.20s: got %.100v, want %v", c.from, c.to, err, c.want)
		}
	}
	for _, c := range []struct {
		err, want error
	}{
		{d.Put(ctx, "/z/a", strings.NewReader("x"), PutOptions{}), ErrIsFolder},
		{d.Put(ctx, "/z/a/empty", strings.NewReader("x"), PutOptions{}), ErrIsFolder},
		{d.Put(ctx, "/z/c/d/e", strings.NewReader("x"), PutOptions{}), ErrNotFolder},
		{d.Mkdir(ctx, "/z/c", PutOptions{}), ErrNotFolder},
		{d.Remove(ctx, "/z", RemoveOptions{}), ErrNotEmpty},
		{d.Remove(ctx, "/nothing", RemoveOptions{}), ErrNotFound},
		{d.Symlink(ctx, "/l", "", PutOptions{}), ErrPath},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("got %v, want %v", c.err, c.want)
		}
	}
	must(t, d.Remove(ctx, "/z", RemoveOptions{All: true}))
	want(t, "what is left", len(files(t, d.Folder)), 0)
}

func TestModesAndTimesAreKept(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	o := PutOptions{Mode: 0o640 | fs.ModeSetgid, ModTime: when}
	must(t, d.Put(ctx, "/x", strings.NewReader("x"), o))
	must(t, d.Mkdir(ctx, "/d", o))
	for _, p := range []string{"/x", "/d"} {
		e, err := d.Stat(ctx, p)
		must(t, err)
		if e.Mode != o.Mode || !e.ModTime.Equal(when) {
			t.Errorf("%s has mode %v and time %v", p, e.Mode, e.ModTime)
		}
	}
	must(t, d.Put(ctx, "/x", strings.NewReader("x"), PutOptions{ModTime: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}))
	e, err := d.Stat(ctx, "/x")
	must(t, err)
	if !e.ModTime.IsZero() || e.FileMode() != 0o644 {
		t.Errorf("it has mode %v and time %v", e.FileMode(), e.ModTime)
	}
}

func TestVersionsTagsAndBranches(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	d.write("/a/x", "first")
	d.write("/a/gone", "gone")
	must(t, d.Tag(ctx, "one", "the first", nil))
	noon := d.clock.Now()
	d.clock.Advance(time.Hour)
	d.write("/a/x", "second")
	must(t, d.Remove(ctx, "/a/gone", RemoveOptions{}))
	d.write("/a/new", "new")

	old, err := d.Tagged(ctx, "one")
	must(t, err)
	defer old.Close()
	byTime, err := d.At(ctx, noon.Add(time.Minute))
	must(t, err)
	defer byTime.Close()
	then := map[string]string{"/a/x": "first", "/a/gone": "gone"}
	want(t, "by tag", files(t, old), then)
	want(t, "by time", files(t, byTime), then)
	if err := old.Put(ctx, "/y", strings.NewReader("y"), PutOptions{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("the past was changed: %v", err)
	}
	diff := func(f, old *Folder) (out []string) {
		for c, err := range f.Diff(ctx, old, "/") {
			must(t, err)
			out = append(out, fmt.Sprintf("%s %v %v", c.Path, c.Old == nil, c.New == nil))
		}
		return out
	}
	want(t, "diff", diff(d.Folder, old), []string{"/a/gone false true", "/a/new true false", "/a/x false false"})
	want(t, "diff back", diff(old, d.Folder), []string{"/a/gone true false", "/a/new false true", "/a/x false false"})

	n, err := d.Copy(ctx, old, "/a", "/branch/a")
	must(t, err)
	want(t, "copied", n, 2)
	if _, err := d.Copy(ctx, old, "/a", "/branch"); !errors.Is(err, ErrExists) {
		t.Errorf("copy over something: %v", err)
	}
	if _, err := d.Copy(ctx, old, "/nothing", "/n"); !errors.Is(err, ErrNotFound) {
		t.Errorf("copy of nothing: %v", err)
	}
	n, err = d.Restore(ctx, old, "/a")
	must(t, err)
	want(t, "restored", n, 3)
	want(t, "restored", files(t, d.Folder), map[string]string{"/a/x": "first", "/a/gone": "gone", "/branch/a/x": "first", "/branch/a/gone": "gone"})
	n, err = d.Restore(ctx, old, "/")
	must(t, err)
	want(t, "restored all", fmt.Sprint(n, files(t, d.Folder)), fmt.Sprint(2, then))

	var history []string
	for e, err := range d.History(ctx, "/a/x", HistoryOptions{}) {
		must(t, err)
		data, err := d.OpenEntry(ctx, e)
		must(t, err)
		b, err := io.ReadAll(data)
		must(t, err)
		history = append(history, string(b))
	}
	want(t, "history", history, []string{"first", "second", "first"})
	for tag, err := range d.Tags(ctx) {
		must(t, err)
		if tag.Name != "one" || tag.Note != "the first" || !tag.Time.Equal(noon.Add(2)) && tag.Time.Sub(noon) > time.Second {
			t.Errorf("got %+v", tag)
		}
	}
	must(t, d.Untag(ctx, "one"))
	if _, err := d.Tagged(ctx, "one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	want(t, "after", files(t, d.Folder), then)
}

// What is kept is what was there in the last 30 days, what was there at the end of
// each day of the last year, and what is tagged.
func TestClearKeepsWhatTheRuleSays(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	readable := map[string]time.Time{}
	put := func(what string) {
		t.Helper()
		d.write("/x", what)
		readable[what] = d.clock.Now()
	}
	const hour = time.Hour
	put("tagged")
	must(t, d.Tag(ctx, "t", "", nil))
	d.clock.Advance(hour)
	put("too old")
	d.clock.Advance(24 * hour)
	put("at the end of the first day that counts")
	put0 := d.clock.Now()
	d.clock.Advance(100 * 24 * hour)
	put("morning")
	d.clock.Advance(hour)
	put("evening")
	d.clock.Advance(24 * hour)
	put("before the last month")
	d.clock.Advance(250 * 24 * hour)
	put("within the last month")
	d.clock.Advance(hour)
	put("within it, too")
	d.clock.Advance(hour)
	must(t, d.Remove(ctx, "/x", RemoveOptions{}))
	d.clock.Advance(put0.Add(365 * 24 * hour).Sub(d.clock.Now()))
	d.write("/y", "now")
	swept, err := d.Clear(ctx, Retention{})
	must(t, err)
	left := map[string]bool{}
	for e, err := range d.History(ctx, "/x", HistoryOptions{}) {
		must(t, err)
		if e.Deleted {
			continue
		}
		if n, err := d.MissingEntry(ctx, e); err == nil && n == 0 {
			r, err := d.OpenEntry(ctx, e)
			must(t, err)
			b, err := io.ReadAll(r)
			must(t, err)
			left[string(b)] = true
		}
	}
	for what := range readable {
		if gone := what == "too old" || what == "morning"; left[what] == gone {
			t.Errorf("%q is kept: %v", what, left[what])
		}
	}
	want(t, "swept blocks", swept.Blocks, 2)
	// With no retention at all only what is current or tagged stays.
	must(t, d.Untag(ctx, "t"))
	_, err = d.Clear(ctx, Retention{All: -1, Daily: -1})
	must(t, err)
	want(t, "held blocks", heldBlocks(d), 1)
	want(t, "now", d.read("/y"), "now")
}

func heldBlocks(d *device) (n int) {
	log := d.log(d.n, "content")
	for i := range log.Length() {
		if log.Has(i) {
			n++
		}
	}
	return n
}

func TestFilesAreFollowedWhileTheyAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		ctx := t.Context()
		w, err := d.Create(ctx, "/live", PutOptions{})
		must(t, err)
		_, err = w.Write([]byte("one "))
		must(t, err)
		if _, err := d.Stat(ctx, "/live"); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is there before it was published: %v", err)
		}
		must(t, w.Publish())
		e, err := d.Stat(ctx, "/live")
		must(t, err)
		want(t, "growing", e.Growing, true)
		l, err := d.Follow(ctx, "/live")
		must(t, err)
		defer l.Close()
		got := make(chan string)
		go func() {
			defer close(got)
			for {
				b := make([]byte, 100)
				n, err := l.Read(b)
				if err != nil {
					got <- err.Error()
					return
				}
				got <- string(b[:n])
			}
		}()
		want(t, "first", <-got, "one ")
		_, err = w.Write([]byte("two "))
		must(t, err)
		synctest.Wait()
		must(t, w.Publish())
		want(t, "second", <-got, "two ")
		_, err = w.Write([]byte("three"))
		must(t, err)
		synctest.Wait()
		must(t, w.Close())
		must(t, w.Close())
		want(t, "third", <-got, "three")
		want(t, "end", <-got, "EOF")
		want(t, "all", d.read("/live"), "one two three")
		e, err = d.Stat(ctx, "/live")
		must(t, err)
		want(t, "growing", e.Growing, false)

		// One that is abandoned ends, and so does one that is replaced.
		w, err = d.Create(ctx, "/left", PutOptions{})
		must(t, err)
		must(t, w.Publish())
		for _, replace := range []bool{false, true} {
			l, err := d.Follow(ctx, "/left")
			must(t, err)
			end := make(chan error)
			go func() {
				_, err := io.ReadAll(l)
				end <- err
			}()
			synctest.Wait()
			wantErr := io.ErrUnexpectedEOF
			if replace {
				d.write("/left", "something else")
				wantErr = ErrReplaced
			} else {
				d.clock.Advance(abandoned + time.Second)
			}
			if err := <-end; !errors.Is(err, wantErr) {
				t.Errorf("replaced is %v: got %v", replace, err)
			}
			must(t, l.Close())
			must(t, w.Publish())
		}
		w.Abort()
		e, err = d.Stat(ctx, "/left")
		must(t, err)
		want(t, "growing", e.Growing, false)
	})
}

func TestScrubFindsAndRepairsWhatIsBad(t *testing.T) {
	list := newDevices(t, 2, 1<<10)
	a, b := list[0], list[1]
	ctx := t.Context()
	big := strings.Repeat("0123456789abcdef", 2000)
	a.write("/big", big)
	a.write("/small", "small")
	meet(a, b)
	s, err := b.Scrub(ctx, ScrubOptions{})
	must(t, err)
	want(t, "nothing bad", s, Scrubbed{Logs: 2, Files: 2})
	_, err = b.Evict(ctx, "/big")
	must(t, err)
	s, err = b.Scrub(ctx, ScrubOptions{})
	must(t, err)
	want(t, "not all here", s, Scrubbed{Logs: 2, Files: 2, Missing: int64(len(big))})
	n, err := b.Missing(ctx, "/")
	must(t, err)
	want(t, "missing", n, int64(len(big)))
	if got := b.read("/big"); !strings.HasPrefix(got, "error: ") {
		t.Errorf("read %d bytes that are not here", len(got))
	}
	b.hear(a)
	want(t, "from a", len(b.read("/big")), len(big))

	// A block on b's disk goes bad: first nobody can help, then a can.
	damaged := b.log(1, "content")
	id, err := b.store.Find(damaged.Discovery())
	must(t, err)
	small, err := b.Stat(ctx, "/small")
	must(t, err)
	for _, tx := range []storage.Tx{
		{Clear: []hypercore.Range{{Start: damaged.Length() - 1, End: damaged.Length()}}},
		{Blocks: []hypercore.Block{{Index: damaged.Length() - 1, Data: []byte("0123456789abc")}}},
	} {
		tx.Log, tx.Base = id, damaged.Length()
		must(t, b.store.Commit(storage.Soon, &tx))
	}
	for _, helped := range []bool{false, true} {
		b.alone()
		if helped {
			b.hear(a)
		}
		var found []Problem
		s, err = b.Scrub(ctx, ScrubOptions{Repair: true, Report: func(p Problem) { found = append(found, p) }})
		must(t, err)
		if len(found) == 0 || found[0].Log != damaged.Key() || found[0].Repaired != helped || s.Problems != len(found) {
			t.Errorf("helped is %v: %+v: %v", helped, s, found)
		}
		if helped && (len(found) != 1 || s.Repaired != 1) {
			t.Errorf("it was not repaired: %+v: %v", s, found)
		}
	}
	want(t, "after the repair", b.read("/small"), "small")
	if n, err := b.contents.Verify(ctx, small.Content); n != 0 || err != nil {
		t.Errorf("%d bytes are missing (%v)", n, err)
	}
	want(t, "from a", maps.Equal(files(t, a.Folder), files(t, b.Folder)), true)
}
