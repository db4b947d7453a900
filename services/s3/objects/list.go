package objects

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/cloudbevy/bevy/cloud/folder"
)

// ListOptions say which objects, or uploads.
type ListOptions struct {
	Prefix string
	// Delimiter, when not empty, groups keys that have it behind the prefix.
	Delimiter string
	// After is the key, or common prefix, after which the list goes on.
	After string
	// AfterVersion goes on within After's versions, or AfterUpload within its uploads:
	// the last one that was listed.
	AfterVersion, AfterUpload string
	// Limit bounds keys and prefixes together; MaxPage when it is 0 or more than that.
	Limit int
}

// A Page of a list.
type Page struct {
	Objects  []Object // with what a list shows: no metadata, tags or ACL
	Prefixes []string
	// More says that there is more, after Next (and NextVersion).
	More              bool
	Next, NextVersion string
}

// limit is what the list is bounded by.
func (o *ListOptions) limit() int {
	if o.Limit <= 0 || o.Limit > MaxPage {
		return MaxPage
	}
	return o.Limit
}

// start is the first key that may be listed.
func (o *ListOptions) start() string {
	switch {
	case o.After == "":
		return o.Prefix
	case o.groups(o.After) == o.After:
		return string(behind(o.After)) // all that it stands for was listed
	}
	return max(o.Prefix, o.After+"\x00")
}

// groups returns the common prefix that a key is listed as, or "".
func (o *ListOptions) groups(key string) string {
	if o.Delimiter == "" || !strings.HasPrefix(key, o.Prefix) {
		return ""
	}
	i := strings.Index(key[len(o.Prefix):], o.Delimiter)
	if i < 0 {
		return ""
	}
	return key[:len(o.Prefix)+i+len(o.Delimiter)]
}

// A source is what is stored in the order of keys, in one place.
type source struct {
	open func(start string) iter.Seq2[folder.Entry, error] // what has keys from start on
	key  func(*folder.Entry) (key string, ok bool)

	next  func() (folder.Entry, error, bool)
	stop  func()
	entry folder.Entry
	at    string // key of entry
	more  bool
}

// begin goes to the first entry of a key that is not before start.
func (s *source) begin(start string) error { return s.jump(s.open(start)) }

// jump goes to the first of some entries.
func (s *source) jump(entries iter.Seq2[folder.Entry, error]) error {
	s.end()
	s.next, s.stop = iter.Pull2(entries)
	return s.step()
}

func (s *source) end() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// step goes to the next entry.
func (s *source) step() (err error) {
	for {
		s.entry, err, s.more = s.next()
		if err != nil || !s.more {
			return err
		}
		var ok bool
		if s.at, ok = s.key(&s.entry); ok {
			return nil
		}
	}
}

// manySteps is how many entries are passed by one by one, before they are jumped over.
const manySteps = 16

// seek goes to the first entry whose key is not before start.
func (s *source) seek(start string) error {
	for n := 0; s.more && s.at < start; n++ {
		if n == manySteps {
			return s.begin(start)
		}
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

// files are the objects that are files.
func (sh *shared) files(ctx context.Context, prefix string) *source {
	return &source{
		open: func(start string) iter.Seq2[folder.Entry, error] {
			return sh.f.Range(ctx, from("/"+start, "/"+prefix))
		},
		key: func(e *folder.Entry) (string, bool) {
			return e.Path[1:], e.Kind == folder.File && len(e.Path) <= 1+MaxKey
		},
	}
}

// odd are the objects that are no files.
func (sh *shared) odd(ctx context.Context, prefix string) *source {
	return &source{
		open: func(start string) iter.Seq2[folder.Entry, error] {
			return sh.f.Asides(ctx, from(rowObject+start, rowObject+prefix))
		},
		key: func(e *folder.Entry) (string, bool) {
			key := e.Path[len(rowObject):]
			return key, e.Kind == folder.File && checkKey(key) == nil
		},
	}
}

// rows are what is kept for keys.
func (sh *shared) rows(ctx context.Context, kind, prefix string) *source {
	return &source{
		open: func(start string) iter.Seq2[folder.Entry, error] {
			return sh.f.Asides(ctx, from(string(escaped([]byte(kind), start)), string(escaped([]byte(kind), prefix))))
		},
		key: func(e *folder.Entry) (string, bool) {
			key, _, ok := splitRow(kind, e.Path)
			return key, ok && e.Kind == folder.File && checkKey(key) == nil
		},
	}
}

// sources are several in the order of their keys.
type sources []*source

func (list sources) begin(start string) error {
	for _, s := range list {
		if err := s.begin(start); err != nil {
			return err
		}
	}
	return nil
}

func (list sources) end() {
	for _, s := range list {
		s.end()
	}
}

// seek goes to the first key that is not before start.
func (list sources) seek(start string) error {
	for _, s := range list {
		if err := s.seek(start); err != nil {
			return err
		}
	}
	return nil
}

// first returns the first key that any of them is at.
func (list sources) first() (key string, ok bool) {
	for _, s := range list {
		if s.more && (!ok || s.at < key) {
			key, ok = s.at, true
		}
	}
	return key, ok
}

// lists goes through keys and common prefixes. one is called for each key, and must
// leave it behind; it returns false when no more is wanted. group is called for each
// common prefix.
func (list sources) lists(o *ListOptions, one func(key string) (bool, error), group func(prefix string) bool) error {
	defer list.end()
	if o.After != "" && o.start() == "" {
		return nil // nothing comes behind it
	}
	start := o.start()
	if o.AfterVersion != "" || o.AfterUpload != "" {
		start = max(o.Prefix, o.After)
	}
	if err := list.begin(start); err != nil {
		return err
	}
	for {
		key, ok := list.first()
		if !ok {
			return nil
		}
		if prefix := o.groups(key); prefix != "" {
			if !group(prefix) {
				return nil
			}
			next := behind(prefix)
			if next == nil {
				return nil
			}
			if err := list.seek(string(next)); err != nil {
				return err
			}
			continue
		}
		if more, err := one(key); err != nil || !more {
			return err
		}
	}
}

// List returns objects in the order of the bytes of their keys. It reads about as
// much as it returns.
func (b *Bucket) List(ctx context.Context, o ListOptions) (Page, error) {
	var p Page
	limit := o.limit()
	s, err := b.State(ctx)
	if err != nil {
		return p, err
	}
	// What is put while this reads may go from the second to the first.
	odd, files := b.odd(ctx, o.Prefix), b.files(ctx, o.Prefix)
	list := sources{odd, files}
	full := func() bool {
		p.More = len(p.Objects)+len(p.Prefixes) == limit
		return p.More
	}
	o.AfterVersion, o.AfterUpload = "", ""
	err = list.lists(&o, func(key string) (bool, error) {
		if full() {
			return false, nil
		}
		from := files
		if !files.more || files.at != key {
			from = odd
		}
		v, ok, err := read(from.entry, nil, true)
		if err != nil {
			return false, err
		}
		if ok {
			p.Objects = append(p.Objects, v.object(key, s, true))
			p.Next = key
		}
		for _, s := range list {
			if s.more && s.at == key {
				if err := s.step(); err != nil {
					return false, err
				}
			}
		}
		return true, nil
	}, func(prefix string) bool {
		if full() {
			return false
		}
		p.Prefixes = append(p.Prefixes, prefix)
		p.Next = prefix
		return true
	})
	if err != nil {
		return Page{}, fmt.Errorf("list bucket %q: %w", b.Name(), err)
	}
	if !p.More {
		p.Next = ""
	}
	return p, nil
}

// ListVersions returns all versions and markers: by keys, the newest first.
func (b *Bucket) ListVersions(ctx context.Context, o ListOptions) (Page, error) {
	var p Page
	limit := o.limit()
	s, err := b.State(ctx)
	if err != nil {
		return p, err
	}
	o.AfterUpload = ""
	err = b.versions(ctx, o, s, func(v Object) bool {
		if len(p.Objects)+len(p.Prefixes) == limit {
			p.More = true
			return false
		}
		p.Objects = append(p.Objects, v)
		p.Next, p.NextVersion = v.Key, v.Version
		return true
	}, func(prefix string) bool {
		if len(p.Objects)+len(p.Prefixes) == limit {
			p.More = true
			return false
		}
		p.Prefixes = append(p.Prefixes, prefix)
		p.Next, p.NextVersion = prefix, ""
		return true
	})
	if err != nil {
		return Page{}, fmt.Errorf("list versions of bucket %q: %w", b.Name(), err)
	}
	if !p.More {
		p.Next, p.NextVersion = "", ""
	}
	return p, nil
}

// versions goes through versions until one of the two has enough.
func (sh *shared) versions(ctx context.Context, o ListOptions, s State, one func(Object) bool, group func(string) bool) error {
	odd, files, rows := sh.odd(ctx, o.Prefix), sh.files(ctx, o.Prefix), sh.rows(ctx, rowVersion, o.Prefix)
	list := sources{odd, files, rows}
	return list.lists(&o, func(key string) (bool, error) {
		after := ""
		if key == o.After {
			after = o.AfterVersion
		}
		return sh.versionsOf(ctx, key, after, o.Prefix, s, odd, files, rows, one)
	}, group)
}

// versionsOf goes through the versions of a key that the sources are at, and leaves it
// behind. With after, it goes on behind that one.
func (sh *shared) versionsOf(ctx context.Context, key, after, prefix string, s State, odd, files, rows *source, one func(Object) bool) (bool, error) {
	var current *version
	for _, from := range []*source{odd, files} {
		if from.more && from.at == key {
			v, ok, err := read(from.entry, nil, true)
			if err != nil {
				return false, err
			}
			if ok {
				current = &v
			}
			if err := from.step(); err != nil {
				return false, err
			}
		}
	}
	if after == "" && current != nil && !one(current.object(key, s, true)) {
		return false, nil
	}
	if !rows.more || rows.at != key {
		return true, nil
	}
	// The null version is not among the others by its name.
	null, isNull, err := sh.now().row(ctx, rowOf(rowVersion, key, nullID))
	if err != nil {
		return false, err
	}
	if isNull && (null.rowID(key) != null.id || current != nil && current.id == nullID) {
		isNull = false
	}
	latest := current == nil && after == ""
	give := func(v *version) bool {
		o := v.object(key, s, latest && v.a.marker)
		latest = false
		return one(o)
	}
	if after != "" {
		id, _ := readVersion(after)
		skip := rowOf(rowVersion, key, id)
		switch {
		case current != nil && versionName(current.id) == after:
			skip = "" // it was the first, whatever it is
		case id == nullID && isNull:
			skip, isNull = rowOf(rowVersion, key, versionID(null.when(), 0, [6]byte{})), false
		case isNull && null.when().After(timeOfID(id)):
			isNull = false // it came before
		}
		if skip != "" {
			all := from(skip+"\x00", string(escaped([]byte(rowVersion), prefix)))
			if err := rows.jump(sh.f.Asides(ctx, all)); err != nil {
				return false, err
			}
		}
	}
	for rows.more && rows.at == key {
		v, ok, err := read(rows.entry, nil, true)
		if err != nil {
			return false, err
		}
		if ok && v.id != nullID && v.rowID(key) == v.id && (current == nil || current.id != v.id) {
			if isNull && null.when().After(v.when()) {
				if isNull = false; !give(&null) {
					return false, nil
				}
			}
			if !give(&v) {
				return false, nil
			}
		}
		if err := rows.step(); err != nil {
			return false, err
		}
	}
	return !isNull || give(&null), nil
}
