package objects

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
)

// A queue has the changes of a bucket that wait. Who writes next takes all of them,
// makes them in one transaction, and wakes the others.
type queue struct {
	turn chan struct{} // has room for who writes

	mu   sync.Mutex
	jobs []*job // guarded by mu
}

// A job is a change that waits.
type job struct {
	data []byte      // a small content that it puts; nil if there is none
	ref  content.Ref // of what it puts
	// run makes the change. An error that it returns leaves no trace; one that it told
	// the transaction is the end of all that are in it.
	run  func(*tx) error
	err  error
	done chan struct{}
}

// maxJobs bounds what is done in one transaction, and maxBatch its small contents.
const (
	maxJobs  = 256
	maxBatch = 4 << 20
)

// write makes a change, together with others that wait.
func (sh *shared) write(ctx context.Context, j *job) error {
	if !sh.f.Writable() {
		return ErrReadOnly
	}
	j.done = make(chan struct{})
	q := &sh.queue
	q.mu.Lock()
	q.jobs = append(q.jobs, j)
	q.mu.Unlock()
	select {
	case <-j.done:
		return j.err
	case q.turn <- struct{}{}:
	}
	defer func() { <-q.turn }()
	for {
		select {
		case <-j.done:
			return j.err
		default:
		}
		q.mu.Lock()
		n, size := 0, 0
		for n < len(q.jobs) && n < maxJobs && size < maxBatch {
			size += len(q.jobs[n].data)
			n++
		}
		jobs := q.jobs[:n:n]
		q.jobs = q.jobs[n:]
		q.mu.Unlock()
		// What is written for others goes on when this one is gone.
		err := sh.commit(context.WithoutCancel(ctx), jobs)
		for _, j := range jobs {
			if err != nil {
				j.err = err
			}
			close(j.done)
		}
	}
}

// commit makes changes in one transaction. Its error is that of all.
func (sh *shared) commit(ctx context.Context, jobs []*job) error {
	hold := sh.f.Contents().Hold()
	defer hold.Release()
	var small [][]byte
	var whose []*job
	for _, j := range jobs {
		if j.data != nil {
			small, whose = append(small, j.data), append(whose, j)
		}
	}
	if len(small) > 0 {
		refs, err := hold.PutAll(ctx, small...)
		if err != nil {
			return err
		}
		for i, j := range whose {
			j.ref = refs[i]
		}
	}
	t, err := sh.f.Begin(ctx)
	if err != nil {
		return err
	}
	defer t.Close()
	x := &tx{sh: sh, ctx: ctx, t: t}
	t.KeptElsewhere(x.hasRow)
	for _, j := range jobs {
		if j.err = j.run(x); x.err != nil {
			return fmt.Errorf("write to bucket %q: %w", sh.place.name, x.err)
		}
	}
	if t.Len() == 0 {
		return nil
	}
	if err := t.Flush(ctx); err != nil {
		return fmt.Errorf("write to bucket %q: %w", sh.place.name, err)
	}
	return nil
}

// A tx is a transaction of a bucket.
type tx struct {
	sh    *shared
	ctx   context.Context
	t     *folder.Txn
	err   error // of a write: nothing of the transaction will be there
	ids   uint16
	known bool // state is
	state State
}

// hasRow reports whether what was put on two devices at the same time is a version.
func (x *tx) hasRow(ctx context.Context, e folder.Entry) (bool, error) {
	v, ok, err := read(e, nil, true)
	if !ok || err != nil || v.id == nullID {
		return false, err
	}
	_, there, err := x.now().row(ctx, rowOf(rowVersion, strings.TrimPrefix(e.Path, "/"), v.id))
	return there, err
}

// broke notes the error of a write.
func (x *tx) broke(err error) error {
	if x.err == nil {
		x.err = err
	}
	return err
}

// newID returns the id of a new version.
func (x *tx) newID() string {
	x.ids++
	return versionID(x.t.Time(), x.ids, x.sh.store.device)
}

// getState returns the bucket's state.
func (x *tx) getState() (State, error) {
	if !x.known {
		e, err := x.t.Aside(x.ctx, rowState)
		if x.state, err = stateOf(e, err); err != nil {
			return x.state, err
		}
		x.known = true
	}
	return x.state, nil
}

func stateOf(e folder.Entry, err error) (State, error) {
	if errors.Is(err, folder.ErrNotFound) {
		return State{}, nil
	}
	if err != nil {
		return State{}, err
	}
	var a attributes
	// One that makes no sense is as none: whoever wrote it can write any.
	if e.Err != nil || a.decode(e.Attributes, false) != nil {
		return State{}, nil
	}
	return a.state, nil
}

// A getter reads what is in a bucket: all of it, or a transaction.
type getter struct {
	file  func(ctx context.Context, path string) (folder.Entry, error)
	aside func(ctx context.Context, name string) (folder.Entry, error)
}

func (sh *shared) now() getter {
	return getter{sh.file, sh.f.Aside}
}

func (sh *shared) file(ctx context.Context, path string) (folder.Entry, error) {
	return sh.f.Get(ctx, path)
}

func (x *tx) now() getter { return getter{x.t.Get, x.t.Aside} }

// A version is an object that is stored: where, and what is known of it.
type version struct {
	folder.Entry
	a     attributes
	plain bool // it has no attributes
	id    string
}

// row returns what is kept aside under a name.
func (g getter) row(ctx context.Context, name string) (version, bool, error) {
	e, err := g.aside(ctx, name)
	return read(e, err, false)
}

// current returns the latest version of a key, if it is not a marker.
func (g getter) current(ctx context.Context, key string) (version, bool, error) {
	path := "/" + key
	if folder.CheckPath(path) == nil {
		e, err := g.file(ctx, path)
		if v, ok, err := read(e, err, false); ok || err != nil {
			return v, ok, err
		}
	}
	return g.row(ctx, rowObject+key)
}

// latest is current of all of a bucket. What is looked for may go from one place to the
// other meanwhile, so it is looked for twice.
func (sh *shared) latest(ctx context.Context, key string) (v version, ok bool, err error) {
	for range 2 {
		if v, ok, err = sh.now().current(ctx, key); ok || err != nil {
			break
		}
	}
	return v, ok, err
}

// read reads an entry; with brief only what lists show. What makes no sense is not
// there.
func read(e folder.Entry, err error, brief bool) (v version, ok bool, _ error) {
	if errors.Is(err, folder.ErrNotFound) || err == nil && e.Kind != folder.File {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	v = version{Entry: e, id: nullID}
	if v.plain = len(e.Attributes) == 0; v.plain {
		return v, true, nil
	}
	if v.a.decode(e.Attributes, brief) != nil {
		v.a, v.plain = attributes{}, true
	}
	if v.a.version != nil {
		v.id = string(v.a.version)
	}
	return v, true, nil
}

// putRow puts a version aside.
func (x *tx) putRow(name string, v *version) error {
	e := v.entry(name)
	if err := x.t.PutAside(x.ctx, e); err != nil {
		return x.broke(err)
	}
	return nil
}

// entry is the version as a file of a path or a name.
func (v *version) entry(path string) folder.Entry {
	return folder.Entry{Path: path, Kind: folder.File, Content: v.Content, ModTime: v.ModTime, Mode: v.Mode, Attributes: v.a.encode(), Growing: v.Growing}
}

// putCurrent makes a version the latest of its key.
func (x *tx) putCurrent(key string, v *version) error {
	e := v.entry("/" + key)
	e.Growing = false
	err := x.t.Put(x.ctx, e)
	switch {
	case err == nil:
		err = x.t.RemoveAside(x.ctx, rowObject+key)
	case errors.Is(err, folder.ErrPath), errors.Is(err, folder.ErrIsFolder), errors.Is(err, folder.ErrNotFolder):
		e.Path = rowObject + key
		err = x.t.PutAside(x.ctx, e)
	}
	if err != nil {
		return x.broke(err)
	}
	return nil
}

// removeCurrent removes the latest version of a key, which is there.
func (x *tx) removeCurrent(key string) error {
	path := "/" + key
	if folder.CheckPath(path) == nil {
		e, err := x.t.Get(x.ctx, path)
		if err == nil && e.Kind == folder.File {
			err = x.t.Remove(x.ctx, path)
		}
		if err != nil && !errors.Is(err, folder.ErrNotFound) {
			return x.broke(err)
		}
	}
	if err := x.t.RemoveAside(x.ctx, rowObject+key); err != nil {
		return x.broke(err)
	}
	return nil
}

func (x *tx) removeRow(name string) error {
	if err := x.t.RemoveAside(x.ctx, name); err != nil {
		return x.broke(err)
	}
	return nil
}

// preserve makes sure that there is a row of a version that is about to be replaced.
func (x *tx) preserve(key string, v version) error {
	name := rowOf(rowVersion, key, v.id)
	_, there, err := x.now().row(x.ctx, name)
	if err != nil {
		return err
	}
	switch {
	case there && v.id != nullID:
		return nil
	case there:
		// Both have no id: this one was saved outside of S3 since.
		v.id = versionID(v.Time, 0, x.sh.store.device)
		v.a.version = []byte(v.id)
		name = rowOf(rowVersion, key, v.id)
	}
	if v.plain {
		v.ModTime, v.plain = v.Time, false
	}
	v.a.event, v.a.by = "", ""
	return x.putRow(name, &v)
}
