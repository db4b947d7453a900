package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Local is [Spaces] in a store of logs, without a cloud: this store alone writes them.
type Local struct {
	logs  *corestore.Store
	clock clock.Clock
	own   bool

	mu      sync.Mutex // held to make and drop
	log     *hypercore.Log
	catalog *hyperbee.Tree // app, a zero byte and a name, with a number and the time
}

var _ Spaces = (*Local)(nil)

// NewLocal returns the spaces of a store, which must stay open. They must be closed.
func NewLocal(logs *corestore.Store, c clock.Clock) (*Local, error) {
	if c == nil {
		c = clock.System
	}
	l := &Local{logs: logs, clock: c}
	var err error
	if l.log, err = logs.Get(corestore.LogOptions{Name: "s3/catalog"}); err != nil {
		return nil, fmt.Errorf("open the buckets' catalog: %w", err)
	}
	if l.catalog, err = hyperbee.Open(l.log, hyperbee.Options{Cache: hyperbee.NewCache(1 << 20)}); err != nil {
		return nil, errors.Join(fmt.Errorf("open the buckets' catalog: %w", err), l.log.Close())
	}
	return l, nil
}

// NewMemory returns spaces in memory, which are gone when they are closed.
func NewMemory(c clock.Clock) (*Local, error) {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		return nil, err
	}
	l, err := NewLocal(logs, c)
	if err != nil {
		return nil, errors.Join(err, logs.Close())
	}
	l.own = true
	return l, nil
}

// Close ends the spaces, none of which may be open.
func (l *Local) Close() error {
	err := errors.Join(l.catalog.Close(), l.log.Close())
	if l.own {
		err = errors.Join(err, l.logs.Close())
	}
	return err
}

func catalogKey(app, name string) []byte { return []byte(app + "\x00" + name) }

// List implements [Spaces].
func (l *Local) List(ctx context.Context, app string) (list []Info, err error) {
	for e, err := range l.catalog.Range(ctx, from("", app+"\x00")) {
		if err != nil {
			return nil, fmt.Errorf("list buckets: %w", err)
		}
		_, name, _ := strings.Cut(string(e.Key), "\x00")
		_, created, ok := readCatalog(e.Value)
		if ok {
			list = append(list, Info{Name: name, Created: created})
		}
	}
	return list, nil
}

func readCatalog(b []byte) (number uint64, created time.Time, ok bool) {
	if len(b) != 16 {
		return 0, time.Time{}, false
	}
	return binary.LittleEndian.Uint64(b), time.Unix(0, int64(binary.LittleEndian.Uint64(b[8:]))).UTC(), true
}

// Open implements [Spaces].
func (l *Local) Open(ctx context.Context, app, name string) (*Space, error) {
	e, err := l.catalog.Get(ctx, catalogKey(app, name))
	if errors.Is(err, hyperbee.ErrNotFound) {
		return nil, fmt.Errorf("open bucket %q: %w", name, ErrNoBucket)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", name, err)
	}
	number, created, ok := readCatalog(e.Value)
	if !ok {
		return nil, fmt.Errorf("open bucket %q: its catalog makes no sense", name)
	}
	s, err := l.space(number)
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", name, err)
	}
	s.Created = created
	return s, nil
}

// Make implements [Spaces].
func (l *Local) Make(ctx context.Context, app, name string) (*Space, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.catalog.Get(ctx, catalogKey(app, name)); err == nil {
		return nil, fmt.Errorf("make bucket %q: %w", name, ErrBucketExists)
	}
	now := l.clock.Now()
	number := l.catalog.Version() // each is made with one entry
	v := binary.LittleEndian.AppendUint64(nil, number)
	if err := l.catalog.Put(ctx, catalogKey(app, name), binary.LittleEndian.AppendUint64(v, uint64(now.UnixNano()))); err != nil {
		return nil, fmt.Errorf("make bucket %q: %w", name, err)
	}
	return l.Open(ctx, app, name)
}

// Drop implements [Spaces].
func (l *Local) Drop(ctx context.Context, app, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.catalog.Get(ctx, catalogKey(app, name))
	if errors.Is(err, hyperbee.ErrNotFound) {
		return fmt.Errorf("drop bucket %q: %w", name, ErrNoBucket)
	}
	if err == nil {
		err = l.catalog.Delete(ctx, catalogKey(app, name))
	}
	number, _, ok := readCatalog(e.Value)
	for _, what := range []string{"tree", "content"} {
		if err != nil || !ok {
			break
		}
		var log *hypercore.Log
		if log, err = l.logs.Get(corestore.LogOptions{Name: logName(number, what)}); err == nil {
			key := log.Key()
			err = errors.Join(log.Close(), l.logs.Delete(key))
		}
	}
	if err != nil {
		return fmt.Errorf("drop bucket %q: %w", name, err)
	}
	return nil
}

func logName(number uint64, what string) string {
	return "s3/" + strconv.FormatUint(number, 10) + "/" + what
}

// space opens the folder of a number.
func (l *Local) space(number uint64) (s *Space, err error) {
	var closers []func() error
	end := func() error {
		var all error
		for _, c := range closers {
			all = errors.Join(c(), all)
		}
		return all
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, end())
		}
	}()
	var logs [2]*hypercore.Log
	for i, what := range []string{"tree", "content"} {
		if logs[i], err = l.logs.Get(corestore.LogOptions{Name: logName(number, what)}); err != nil {
			return nil, err
		}
		closers = append([]func() error{logs[i].Close}, closers...)
	}
	bee, err := hyperbee.Open(logs[0], hyperbee.Options{Cache: hyperbee.NewCache(16 << 20)})
	if err != nil {
		return nil, err
	}
	closers = append([]func() error{bee.Close}, closers...)
	entries := tree.New(tree.Options{Clock: l.clock})
	closers = append([]func() error{entries.Close}, closers...)
	contents := content.New(content.Options{Clock: l.clock})
	if err := errors.Join(entries.Own(bee), contents.Own(logs[1])); err != nil {
		return nil, err
	}
	return &Space{Folder: folder.New(entries, contents, folder.Options{Clock: l.clock}), Close: end}, nil
}
