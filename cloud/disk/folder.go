package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
)

// An entry is what a folder of the cloud has at a path.
type entry struct {
	path  string
	kind  kind
	size  int64
	mode  fs.FileMode // 0: not said
	mtime int64       // 0: not said
	link  string
	hash  [32]byte // of a file's content
	stamp string   // the statements that stand at the path, and so its version
	bare  string   // what the stamp begins with: those of them that are no removals
	own   any      // the folder's own form of it

	conflict bool // others stand beside it
}

// A source is the folder of the cloud as a Keeper sees it.
type source interface {
	// version returns how far all writers have come.
	version(ctx context.Context) ([]byte, error)
	// changes returns the paths at which the folder may have changed since a
	// version, in order of their bytes, with what is there now, nil for nothing. The
	// empty version is that of an empty folder.
	changes(ctx context.Context, since []byte) iter.Seq2[change, error]
	// sync returns when all that others have said is on the disk: the index must not
	// know of what a crash takes away.
	sync() error
	// stat returns nil if there is nothing.
	stat(ctx context.Context, path string) (*entry, error)
	// open reads the content of the very entry.
	open(ctx context.Context, e *entry) (io.ReadCloser, error)
	// missing returns how many bytes of an entry's content are not on this machine.
	missing(ctx context.Context, e *entry) (int64, error)
	// fetch brings them here.
	fetch(ctx context.Context, e *entry) error
	// resolve gives what stands beside others, and changed since a version, paths of
	// its own. What that can't be done with yet is left.
	resolve(ctx context.Context, since []byte) error
	// writable tells whether this device can write to the folder.
	writable() bool
	// batch begins to write.
	batch(ctx context.Context) (batch, error)
	// notify has f called after changes, until stop.
	notify(f func()) (stop func())
}

// Errors of changes.
var (
	// errBehind: not all of the version is here any more. What came from others is
	// not waited for until it is on the disk, so a power cut may take it away; they
	// bring it again.
	errBehind = errors.New("not all of it is here")
	// errOther: the version is of another folder.
	errOther = errors.New("version of another folder")
)

// A change is what is at a path now.
type change struct {
	path string
	now  *entry
}

// A batch is written at once, and durable when flush returns.
type batch interface {
	// put states what is at e.path over the version that was seen there, "" for
	// nothing: a version that has come meanwhile stays beside it, as a conflict.
	// Without a reader the content of a file is that of the entry e.own.
	put(ctx context.Context, e entry, content io.Reader, over string) error
	remove(ctx context.Context, path, over string) error
	// flush returns an entry for each put and remove in their order, as it was
	// stated here.
	flush(ctx context.Context) ([]entry, error)
	// close forgets what was not flushed.
	close()
}
