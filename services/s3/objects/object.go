package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"mime"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// An Object is what is said of an object, of one of its versions, or of a delete
// marker.
type Object struct {
	Key  string
	Size int64
	// ETag is without quotes.
	ETag     string
	Modified time.Time
	// Version is "" in a bucket that never had versions, and "null" for what was put
	// without.
	Version string
	Latest  bool
	// Marker says that it is a delete marker, which has nothing else.
	Marker bool

	Meta     Meta
	Checksum Checksum
	// Parts is how many it was put in; 0 if it was not put in parts.
	Parts int
	Tags  []Tag
	Lock  Lock
	// ACL is what SetACL or Put were given.
	ACL string

	v *version // what it was read from; nil if it was not
}

// stored returns what the object was read from.
func (o *Object) stored() *version {
	if o.v == nil {
		return &version{}
	}
	return o.v
}

// Meta is what a client says of an object, and gets back with it.
type Meta struct {
	ContentType        string
	CacheControl       string
	ContentDisposition string
	ContentEncoding    string
	ContentLanguage    string
	Expires            string
	WebsiteRedirect    string
	StorageClass       string            // "" is STANDARD
	User               map[string]string // x-amz-meta-, names in lower case
}

// A Checksum is one that a client asked for. Its zero value is none.
type Checksum struct {
	// Algorithm is CRC32, CRC32C, CRC64NVME, SHA1 or SHA256.
	Algorithm string
	// Value is the bytes of it.
	Value []byte
	// Composite says that it is the checksum of the parts' checksums.
	Composite bool
}

// A Tag is one of an object.
type Tag struct{ Key, Value string }

// The modes of a Lock.
const (
	Governance = "GOVERNANCE"
	Compliance = "COMPLIANCE"
)

// A Lock keeps a version from being removed. Its zero value is none.
type Lock struct {
	Mode  string    // Governance, Compliance or ""
	Until time.Time // with a mode
	Hold  bool      // a legal hold, for as long as it is set
	// NoHold is that somebody said that there is no legal hold.
	NoHold bool
}

// A PartInfo is a part of an object that was put in parts.
type PartInfo struct {
	Number   int
	Start    int64 // where it begins in the object
	Size     int64
	Checksum []byte // by the algorithm of the object's checksum; nil if not known
}

// Conditions of a change, on what is there: ETags without quotes, or "*" for
// anything. None of what is a marker holds. No condition is an empty list.
type Conditions struct {
	IfMatch     []string // one of them is there; with nothing there it is ErrNoKey
	IfNoneMatch []string // none of them is
}

// Versioning says whether a bucket keeps versions.
type Versioning string

// What Versioning can be.
const (
	Unversioned Versioning = ""
	Enabled     Versioning = "Enabled"
	Suspended   Versioning = "Suspended"
)

// A State is what a bucket does with versions.
type State struct {
	Versioning Versioning
	// Locks says that versions can be locked. It is never taken back.
	Locks bool
	// Default is the lock that new versions get: a mode and one of days and years.
	Default     string
	Days, Years int
}

// object returns what clients are told of a version.
func (v *version) object(key string, s State, latest bool) Object {
	o := Object{
		Key: key, Size: v.Content.Size, Modified: v.modified(), Latest: latest, Marker: v.a.marker,
		Meta: v.a.meta, Checksum: v.a.checksum, Parts: v.a.parts(), Tags: v.a.tags, Lock: v.a.lock, ACL: v.a.acl, v: v,
	}
	if !o.Marker {
		o.ETag = v.a.etag(&v.Entry)
	}
	if s.Versioning != Unversioned || v.id != nullID {
		o.Version = versionName(v.id)
	}
	return o
}

// modified is when a version was put. The time of a file on a disk says nothing of
// when it came here.
func (v *version) modified() time.Time {
	if v.plain || v.ModTime.IsZero() {
		return v.Time
	}
	return v.ModTime
}

// typed fills in the type of a file that nobody said anything of.
func (o Object) typed() Object {
	if o.v != nil && o.v.plain && o.Meta.ContentType == "" {
		o.Meta.ContentType = mime.TypeByExtension(path.Ext(o.Key))
	}
	return o
}

// State returns the bucket's state.
func (b *Bucket) State(ctx context.Context) (State, error) {
	at, err := b.f.Tree().Moment(ctx)
	if err != nil {
		return State{}, fmt.Errorf("state of bucket %q: %w", b.Name(), err)
	}
	var s State
	if b.known.get(at, func(k *facts) bool {
		s = k.state
		return k.stated
	}) {
		return s, nil
	}
	e, err := b.f.Aside(ctx, rowState)
	if s, err = stateOf(e, err); err != nil {
		return s, fmt.Errorf("state of bucket %q: %w", b.Name(), err)
	}
	b.known.set(at, func(k *facts) { k.state, k.stated = s, true })
	return s, nil
}

// A memory is what is known of a bucket, as long as nothing at all is written there:
// every request asks for it.
type memory struct {
	mu    sync.Mutex
	at    tree.Moment // guarded by mu
	facts             // guarded by mu: at that moment
}

type facts struct {
	state   State
	stated  bool
	configs map[string][]byte // nil where there is none
}

// maxKnownConfig is the size up to which a configuration is kept in memory.
const maxKnownConfig = 32 << 10

// get looks something up that was known at a moment.
func (m *memory) get(at tree.Moment, look func(*facts) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at == at && look(&m.facts)
}

// set notes what was read after a moment. It may be of a later one; then the moment is
// never asked for again.
func (m *memory) set(at tree.Moment, note func(*facts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at != at {
		m.at, m.facts = at, facts{configs: map[string][]byte{}}
	}
	note(&m.facts)
}

// SetState changes the bucket's state, or returns ErrState: versions can't be
// switched off once there were, nor suspended where there are locks.
func (b *Bucket) SetState(ctx context.Context, change func(*State)) error {
	err := b.write(ctx, &job{run: func(x *tx) error {
		s, err := x.getState()
		if err != nil {
			return err
		}
		before := s
		change(&s)
		switch {
		case s.Versioning != Enabled && s.Versioning != Suspended && (s.Versioning != Unversioned || before.Versioning != Unversioned),
			s.Locks && s.Versioning != Enabled, before.Locks && !s.Locks,
			s.Default != "" && !s.Locks, !slices.Contains(modes, s.Default),
			(s.Default == "") != (s.Days == 0 && s.Years == 0), s.Days < 0, s.Years < 0, s.Days > 0 && s.Years > 0,
			s.Days > maxLockDays, s.Years > maxLockYears:
			return ErrState
		}
		v := version{Entry: folder.Entry{Content: content.Empty()}, a: attributes{state: s}}
		if err := x.putRow(rowState, &v); err != nil {
			return err
		}
		x.state = s
		return nil
	}})
	if err != nil {
		return fmt.Errorf("change state of bucket %q: %w", b.Name(), err)
	}
	return nil
}

const (
	maxConfig     = 1 << 20
	maxConfigName = 64
	maxConfigs    = 32 // kept in memory
)

// Config returns a configuration of the bucket by its name ("policy", "cors", …), as
// it was set, or ErrNoConfig.
func (b *Bucket) Config(ctx context.Context, name string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%s of bucket %q: %w", name, b.Name(), err)
	}
	at, err := b.f.Tree().Moment(ctx)
	if err != nil {
		return fail(err)
	}
	var data []byte
	if b.known.get(at, func(k *facts) (ok bool) {
		data, ok = k.configs[name]
		return ok
	}) {
		if data == nil {
			return fail(ErrNoConfig)
		}
		return bytes.Clone(data), nil
	}
	e, err := b.f.Aside(ctx, rowConfig+name)
	v, ok, err := read(e, err, true)
	if err == nil && ok {
		data, err = b.f.Contents().Get(ctx, v.Content, maxConfig)
	}
	if err != nil {
		return fail(err)
	}
	if len(data) <= maxKnownConfig && len(name) <= maxConfigName {
		b.known.set(at, func(k *facts) {
			if len(k.configs) < maxConfigs {
				k.configs[name] = bytes.Clone(data)
			}
		})
	}
	if !ok {
		return fail(ErrNoConfig)
	}
	return data, nil
}

// SetConfig sets a configuration, of up to 1 MiB. Nil removes it.
func (b *Bucket) SetConfig(ctx context.Context, name string, value []byte) error {
	fail := func(err error) error { return fmt.Errorf("set %s of bucket %q: %w", name, b.Name(), err) }
	if name == "" || len(name) > maxConfigName || len(value) > maxConfig {
		return fail(ErrTooLarge)
	}
	j := &job{data: value}
	j.run = func(x *tx) error {
		if value == nil {
			return x.removeRow(rowConfig + name)
		}
		return x.putRow(rowConfig+name, &version{Entry: folder.Entry{Content: j.ref}})
	}
	if err := b.write(ctx, j); err != nil {
		return fail(err)
	}
	return nil
}

// Then calls f with the bucket as it was at a time, to be listed and read.
func (b *Bucket) Then(ctx context.Context, at time.Time, f func(*Bucket) error) error {
	old, err := b.f.At(ctx, at)
	if err != nil {
		return fmt.Errorf("bucket %q as it was: %w", b.Name(), err)
	}
	return errors.Join(f(&Bucket{shared: &shared{store: b.store, place: b.place, space: b.space, f: old}}), old.Close())
}

// Configs returns the names of the configurations that there are.
func (b *Bucket) Configs(ctx context.Context) (names []string, err error) {
	for e, err := range b.f.Asides(ctx, from("", rowConfig)) {
		if err != nil {
			return nil, fmt.Errorf("configurations of bucket %q: %w", b.Name(), err)
		}
		names = append(names, strings.TrimPrefix(e.Path, rowConfig))
	}
	return names, nil
}

// Head returns what is said of an object, or of one of its versions. A latest
// version that is a marker is ErrNoKey, a version that was asked for and is one
// ErrMarker, both with the marker.
func (b *Bucket) Head(ctx context.Context, key, version string) (Object, error) {
	o, err := b.head(ctx, key, version)
	if err != nil {
		err = fmt.Errorf("object %q: %w", key, err)
	}
	return o.typed(), err
}

func (b *Bucket) head(ctx context.Context, key, name string) (Object, error) {
	if err := checkKey(key); err != nil {
		return Object{}, err
	}
	s, err := b.State(ctx)
	if err != nil {
		return Object{}, err
	}
	id, known := readVersion(name)
	if name != "" && !known {
		return Object{}, ErrNoVersion
	}
	for range 2 { // as latest does
		v, ok, err := b.latest(ctx, key)
		if err != nil {
			return Object{}, err
		}
		if ok && (name == "" || v.id == id) {
			return v.object(key, s, true), nil
		}
		if name == "" {
			break
		}
		row, there, err := b.now().row(ctx, rowOf(rowVersion, key, id))
		if err != nil {
			return Object{}, err
		}
		if there && row.rowID(key) == row.id {
			return b.headRow(ctx, key, s, row, ok)
		}
	}
	if name != "" {
		return Object{}, ErrNoVersion
	}
	newest, ok, err := newestRow(key, func(o hyperbee.RangeOptions) iter.Seq2[folder.Entry, error] { return b.f.Asides(ctx, o) })
	if err == nil {
		err = ErrNoKey
	}
	if ok && newest.a.marker {
		return newest.object(key, s, true), err
	}
	return Object{}, err
}

// headRow is head of a version that has a row.
func (b *Bucket) headRow(ctx context.Context, key string, s State, row version, current bool) (Object, error) {
	latest := false
	if row.a.marker && !current {
		newest, ok, err := newestRow(key, func(o hyperbee.RangeOptions) iter.Seq2[folder.Entry, error] { return b.f.Asides(ctx, o) })
		if err != nil {
			return Object{}, err
		}
		latest = ok && newest.id == row.id
	}
	o := row.object(key, s, latest)
	if o.Marker {
		return o, ErrMarker
	}
	return o, nil
}

// newestRow returns the newest of the rows of a key's versions.
func newestRow(key string, rows func(hyperbee.RangeOptions) iter.Seq2[folder.Entry, error]) (newest version, ok bool, err error) {
	prefix := rowOf(rowVersion, key, "")
	look := func(o hyperbee.RangeOptions) error {
		for e, err := range rows(o) {
			v, there, err := read(e, err, false)
			if err != nil {
				return err
			}
			if !there || v.rowID(key) != v.id {
				continue // it makes no sense
			}
			if !ok || v.when().After(newest.when()) {
				newest, ok = v, true
			}
			return nil
		}
		return nil
	}
	o := from("", prefix)
	o.Lt = []byte(prefix + nullID)
	if err := look(o); err != nil {
		return newest, false, err
	}
	return newest, ok, look(hyperbee.RangeOptions{Gte: []byte(prefix + nullID), Lte: []byte(prefix + nullID)})
}

// rowID is the id that a version's row is under.
func (v *version) rowID(key string) string {
	prefix := rowOf(rowVersion, key, "")
	if len(v.Path) < len(prefix) {
		return ""
	}
	return v.Path[len(prefix):]
}

// when is when a version was made, to order versions.
func (v *version) when() time.Time {
	if v.id == nullID {
		return v.modified()
	}
	return timeOfID(v.id)
}

// Open returns a reader of an object that Head or a list returned, also if another
// one has its key by now. It must be closed.
func (b *Bucket) Open(ctx context.Context, o Object) (*content.Reader, error) {
	r, err := b.f.Contents().NewReader(ctx, o.stored().Content)
	if err != nil {
		return nil, fmt.Errorf("open object %q: %w", o.Key, err)
	}
	return r, nil
}

// Read returns an object of up to limit bytes, as Open does.
func (b *Bucket) Read(ctx context.Context, o Object, limit int64) ([]byte, error) {
	data, err := b.f.Contents().Get(ctx, o.stored().Content, limit)
	if err != nil {
		return nil, fmt.Errorf("read object %q: %w", o.Key, err)
	}
	return data, nil
}

// PartsOf returns the parts of an object that was put in parts; none where their sizes
// are not known.
func (b *Bucket) PartsOf(o Object) []PartInfo {
	a := &o.stored().a
	n := a.parts()
	if n == 0 {
		return nil
	}
	each := 0 // bytes of each part's checksum
	if len(a.checksums)%n == 0 {
		each = len(a.checksums) / n
	}
	list := make([]PartInfo, 0, n)
	var start int64
	for _, r := range a.sizes {
		for range min(r.count, n-len(list)) {
			p := PartInfo{Number: len(list) + 1, Start: start, Size: r.size}
			if each > 0 {
				p.Checksum = a.checksums[len(list)*each:][:each]
			}
			list = append(list, p)
			start += r.size
		}
	}
	if start != o.Size {
		return nil
	}
	return list
}

// check returns an error unless the conditions hold of what is there.
func (c *Conditions) check(v *version, ok bool) error {
	if len(c.IfMatch) > 0 {
		if !ok {
			return ErrNoKey
		}
		if !matches(c.IfMatch, v) {
			return ErrPrecondition
		}
	}
	if ok && matches(c.IfNoneMatch, v) {
		return ErrPrecondition
	}
	return nil
}

func matches(tags []string, v *version) bool {
	if len(tags) == 0 {
		return false
	}
	etag := v.a.etag(&v.Entry)
	return slices.ContainsFunc(tags, func(t string) bool { return t == "*" || t == etag })
}
