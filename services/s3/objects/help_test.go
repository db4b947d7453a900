package objects

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// epoch is when the clocks of tests begin.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// A rig is a bucket under test.
type rig struct {
	*Bucket
	t      testing.TB
	clock  *clock.Fake
	store  *Store
	spaces *Local
}

// newRig opens a bucket in memory.
func newRig(t testing.TB) *rig { return rigOn(t, storage.NewMemory()) }

// rigOn opens the bucket of an engine, and makes it when there is none. It is closed
// at the end of the test.
func rigOn(t testing.TB, engine storage.Engine) *rig {
	t.Helper()
	r, done := openRig(t, engine)
	t.Cleanup(done)
	return r
}

func openRig(t testing.TB, engine storage.Engine) (*rig, func()) {
	t.Helper()
	logs, err := corestore.Open(engine, corestore.Options{})
	must(t, err)
	c := clock.NewFake(epoch)
	spaces, err := NewLocal(logs, c)
	must(t, err)
	store := New(Options{Spaces: spaces, Clock: c, SmallParts: true})
	b, err := store.Open(t.Context(), "", "bucket")
	if errors.Is(err, ErrNoBucket) {
		b, err = store.Make(t.Context(), "", "bucket", false)
	}
	must(t, err)
	return &rig{b, t, c, store, spaces}, func() {
		must(t, b.Close())
		must(t, store.Close())
		must(t, spaces.Close())
		must(t, logs.Close())
	}
}

func (r *rig) put(key, data string) Object {
	r.t.Helper()
	o, err := r.Put(r.t.Context(), key, strings.NewReader(data), PutOptions{})
	must(r.t, err)
	return o
}

func (r *rig) state(change func(*State)) {
	r.t.Helper()
	must(r.t, r.SetState(r.t.Context(), change))
}

func (r *rig) versioned() { r.state(func(s *State) { s.Versioning = Enabled }) }

// get returns what an object has, or what went wrong.
func (r *rig) get(key, version string) string {
	r.t.Helper()
	o, err := r.Head(r.t.Context(), key, version)
	switch {
	case errors.Is(err, ErrMarker):
		return "marker"
	case errors.Is(err, ErrNoKey) && o.Marker:
		return "removed"
	case errors.Is(err, ErrNoKey):
		return "no key"
	case errors.Is(err, ErrNoVersion):
		return "no version"
	}
	must(r.t, err)
	return r.data(o)
}

func (r *rig) data(o Object) string {
	r.t.Helper()
	in, err := r.Open(r.t.Context(), o)
	must(r.t, err)
	data, err := io.ReadAll(in)
	must(r.t, err)
	must(r.t, in.Close())
	if int64(len(data)) != o.Size {
		r.t.Errorf("%q has %d bytes, not %d", o.Key, len(data), o.Size)
	}
	return string(data)
}

func (r *rig) remove(key, version string) Deleted {
	r.t.Helper()
	d, err := r.Delete(r.t.Context(), key, DeleteOptions{Version: version})
	must(r.t, err)
	return d
}

// keys lists all keys and prefixes, some at a time.
func (r *rig) keys(o ListOptions) (out []string) {
	r.t.Helper()
	for {
		p, err := r.List(r.t.Context(), o)
		must(r.t, err)
		i := 0
		for _, prefix := range p.Prefixes {
			for ; i < len(p.Objects) && p.Objects[i].Key < prefix; i++ {
				out = append(out, p.Objects[i].Key)
			}
			out = append(out, prefix+"*")
		}
		for ; i < len(p.Objects); i++ {
			out = append(out, p.Objects[i].Key)
		}
		if !p.More {
			return out
		}
		o.After = p.Next
	}
}

// listed returns all versions, some at a time.
func (r *rig) listed(o ListOptions) (out []Object) {
	r.t.Helper()
	for {
		p, err := r.ListVersions(r.t.Context(), o)
		must(r.t, err)
		out = append(out, p.Objects...)
		if !p.More {
			return out
		}
		o.After, o.AfterVersion = p.Next, p.NextVersion
	}
}

func (r *rig) shown(o ListOptions) (out []string) {
	r.t.Helper()
	for _, v := range r.listed(o) {
		s := v.Key + "="
		if v.Marker {
			s += "marker"
		} else {
			s += r.data(v)
		}
		if v.Latest {
			s += "!"
		}
		if v.Version == Null {
			s += "0"
		}
		out = append(out, s)
	}
	return out
}

func random(n int, seed byte) []byte {
	b := bytes.Repeat([]byte{seed}, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func content256(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
