package objects

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of random operations")

// A modelVersion is a version as the model has it.
type modelVersion struct {
	id, data string
	marker   bool
	tags     string
}

// A model is a bucket as a plain map: of each key its versions, the newest first.
type model struct {
	versioning Versioning
	keys       map[string][]modelVersion
}

func (m *model) put(key string, v modelVersion) {
	list := m.keys[key]
	switch m.versioning {
	case Unversioned:
		list = nil
	case Suspended:
		list = slices.DeleteFunc(slices.Clone(list), func(v modelVersion) bool { return v.id == Null })
	}
	m.keys[key] = append([]modelVersion{v}, list...)
}

func (m *model) remove(key, id string) {
	m.keys[key] = slices.DeleteFunc(m.keys[key], func(v modelVersion) bool { return v.id == id })
	if len(m.keys[key]) == 0 {
		delete(m.keys, key)
	}
}

func (m *model) latest(key string) (modelVersion, bool) {
	if list := m.keys[key]; len(list) > 0 && !list[0].marker {
		return list[0], true
	}
	return modelVersion{}, false
}

// list lists keys and prefixes.
func (m *model) list(o ListOptions) (out []string) {
	last := ""
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if _, ok := m.latest(k); !ok || !strings.HasPrefix(k, o.Prefix) {
			continue
		}
		if rest := k[len(o.Prefix):]; o.Delimiter != "" && strings.Contains(rest, o.Delimiter) {
			before, _, _ := strings.Cut(rest, o.Delimiter)
			k = o.Prefix + before + o.Delimiter
			if k == o.After || k+"*" == last || strings.HasPrefix(o.After, k) && !m.anyBehind(k, o.After) {
				continue
			}
			if k < o.After && !strings.HasPrefix(o.After, k) {
				continue
			}
			k += "*"
		} else if k <= o.After {
			continue
		}
		out, last = append(out, k), k
	}
	return out
}

// anyBehind reports whether there is a key with a prefix behind another one.
func (m *model) anyBehind(prefix, after string) bool {
	for k := range m.keys {
		if _, ok := m.latest(k); ok && strings.HasPrefix(k, prefix) && k > after {
			return true
		}
	}
	return false
}

func (m *model) versions(prefix string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if strings.HasPrefix(k, prefix) {
			for i, v := range m.keys[k] {
				out = append(out, fmt.Sprint(k, " ", v.id, " ", v.marker, " ", i == 0))
			}
		}
	}
	return out
}

var modelKeys = []string{"a", "a/", "a/b", "a/b/c", "a//b", "a-", "b", "b/c", "c/d/e", "c/d", "c", "..", "x\x00y", "é"}

func TestBucketsAreWhatAMapIs(t *testing.T) {
	steps, runs := 250, 2
	if os.Getenv("BEVY_LONG") == "1" {
		steps, runs = 3000, 20
	}
	for run := range runs {
		s := *seed + uint64(run)
		t.Run(fmt.Sprint(s), func(t *testing.T) { compareWithModel(t, s, steps) })
	}
}

func compareWithModel(t *testing.T, seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := storagetest.NewFaulty()
	open := func() (*rig, func()) {
		engine, err := disk.Disk().Open()
		must(t, err)
		return openRig(t, engine)
	}
	r, done := open()
	defer func() { done() }()
	ctx := t.Context()
	m := &model{keys: map[string][]modelVersion{}}
	type begun struct {
		u     Upload
		parts map[int][]byte
		etags map[int]string
	}
	var uploads []*begun
	pick := func() string { return modelKeys[rng.IntN(len(modelKeys))] }
	check := func(key string) {
		t.Helper()
		v, ok := m.latest(key)
		o, err := r.Head(ctx, key, "")
		if !ok {
			if !errors.Is(err, ErrNoKey) || o.Marker != (len(m.keys[key]) > 0) {
				t.Fatalf("seed %d: %q is %+v, %v; the model has none", seed, key, o, err)
			}
		} else if err != nil || r.data(o) != v.data || fmt.Sprint(o.Tags) != v.tags {
			t.Fatalf("seed %d: %q is %+v, %v; the model has %.20q %s", seed, key, o, err, v.data, v.tags)
		}
		for i, v := range m.keys[key] {
			o, err := r.Head(ctx, key, v.id)
			if v.marker != errors.Is(err, ErrMarker) || !v.marker && (err != nil || r.data(o) != v.data || fmt.Sprint(o.Tags) != v.tags) || o.Latest != (i == 0) {
				t.Fatalf("seed %d: version %s of %q is %+v, %v; the model has %d %.20q %s", seed, v.id, key, o, err, i, v.data, v.tags)
			}
		}
	}
	idOf := func(o Object) string {
		if o.Version == "" {
			return Null
		}
		return o.Version
	}
	for n := range steps {
		key := pick()
		r.clock.Advance(time.Duration(rng.IntN(3)) * time.Second)
		switch op := rng.IntN(20); {
		case op < 6:
			size := rng.IntN(100)
			if rng.IntN(8) == 0 {
				size = rng.IntN(200 << 10)
			}
			data := string(random(size, byte(n)))
			var c Conditions
			v, there := m.latest(key)
			holds := true
			if rng.IntN(4) == 0 {
				c.IfNoneMatch, holds = []string{"*"}, !there
			} else if there && rng.IntN(4) == 0 {
				o, err := r.Head(ctx, key, "")
				must(t, err)
				c.IfMatch = []string{o.ETag}
			}
			_ = v
			tags := []Tag{{"n", fmt.Sprint(n)}}
			o, err := r.Put(ctx, key, strings.NewReader(data), PutOptions{If: c, Tags: tags})
			if holds != (err == nil) {
				t.Fatalf("seed %d: put %q: %v", seed, key, err)
			}
			if holds {
				m.put(key, modelVersion{id: idOf(o), data: data, tags: fmt.Sprint(tags)})
			}
		case op < 9:
			d, err := r.Delete(ctx, key, DeleteOptions{})
			must(t, err)
			if m.versioning == Unversioned {
				delete(m.keys, key)
			} else {
				m.put(key, modelVersion{id: d.Version, marker: true})
			}
		case op < 12:
			id := Null
			if list := m.keys[key]; len(list) > 0 {
				id = list[rng.IntN(len(list))].id
			}
			_, err := r.Delete(ctx, key, DeleteOptions{Version: id})
			must(t, err)
			m.remove(key, id)
		case op < 13:
			if v := []Versioning{Enabled, Enabled, Suspended}[rng.IntN(3)]; n > steps/4 {
				r.state(func(s *State) { s.Versioning = v })
				m.versioning = v
			}
		case op < 14:
			from := pick()
			if v, ok := m.latest(from); ok {
				source, err := r.Head(ctx, from, "")
				must(t, err)
				o, err := r.Copy(ctx, key, r.Bucket, source, PutOptions{})
				must(t, err)
				m.put(key, modelVersion{id: idOf(o), data: v.data, tags: "[]"})
			}
		case op < 15:
			if list := m.keys[key]; len(list) > 0 {
				i := rng.IntN(len(list))
				tags := []Tag{{"changed", fmt.Sprint(n)}}
				_, err := r.SetTags(ctx, key, list[i].id, tags)
				if list[i].marker != (err != nil) {
					t.Fatalf("seed %d: tag %q: %v", seed, key, err)
				}
				if err == nil {
					list[i].tags = fmt.Sprint(tags)
				}
			}
		case op < 17:
			if len(uploads) < 3 {
				u, err := r.CreateUpload(ctx, key, UploadOptions{})
				must(t, err)
				uploads = append(uploads, &begun{u, map[int][]byte{}, map[int]string{}})
			}
			i := rng.IntN(len(uploads))
			b := uploads[i]
			switch rng.IntN(4) {
			case 0:
				must(t, r.Abort(ctx, b.u.Key, b.u.ID))
				uploads = slices.Delete(uploads, i, i+1)
			case 1:
				var list []CompletePart
				var data []byte
				for _, n := range slices.Sorted(maps.Keys(b.parts)) {
					list, data = append(list, CompletePart{n, b.etags[n], nil}), append(data, b.parts[n]...)
				}
				if len(list) == 0 {
					break
				}
				o, err := r.Complete(ctx, b.u.Key, b.u.ID, list, CompleteOptions{})
				must(t, err)
				m.put(b.u.Key, modelVersion{id: idOf(o), data: string(data), tags: "[]"})
				uploads = slices.Delete(uploads, i, i+1)
				check(b.u.Key)
			default:
				number, data := 1+rng.IntN(4), random(rng.IntN(100<<10), byte(n))
				p, err := r.PutPart(ctx, b.u.Key, b.u.ID, number, bytes.NewReader(data), nil)
				must(t, err)
				b.parts[number], b.etags[number] = data, p.ETag
			}
		case op < 18:
			o := ListOptions{Prefix: []string{"", "a", "a/", "c/"}[rng.IntN(4)], Delimiter: []string{"", "/", "/", "b"}[rng.IntN(4)], Limit: 1 + rng.IntN(5)}
			if rng.IntN(3) == 0 {
				o.After = pick()
			}
			want(t, fmt.Sprintf("seed %d: list %+v", seed, o), fmt.Sprintf("%q", r.keys(o)), fmt.Sprintf("%q", m.list(o)))
			var got []string
			for _, v := range r.listed(ListOptions{Prefix: o.Prefix, Limit: o.Limit}) {
				got = append(got, fmt.Sprint(v.Key, " ", idOf(v), " ", v.Marker, " ", v.Latest))
			}
			want(t, fmt.Sprintf("seed %d: versions", seed), fmt.Sprintf("%q", got), fmt.Sprintf("%q", m.versions(o.Prefix)))
		case op < 19 && rng.IntN(3) == 0:
			done()
			r, done = open()
		}
		check(key)
		if t.Failed() {
			t.Fatalf("at step %d", n)
		}
	}
	for _, k := range modelKeys {
		check(k)
	}
}
