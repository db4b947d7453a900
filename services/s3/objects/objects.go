package objects

import (
	"context"
	"errors"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	ErrNoBucket     = errors.New("no such bucket")
	ErrBucketExists = errors.New("the bucket exists")
	ErrNotEmpty     = errors.New("the bucket is not empty")
	ErrKept         = errors.New("the bucket is a folder that is kept on a disk")
	ErrNoConfig     = errors.New("the bucket has no such configuration")

	ErrNoKey     = errors.New("no such key")
	ErrNoVersion = errors.New("no such version")
	// ErrMarker: the version that was asked for is a delete marker. The Object that
	// comes with it, or with ErrNoKey where the latest version is one, is the marker.
	ErrMarker = errors.New("it is a delete marker")
	// ErrKey: a key is empty, longer than MaxKey, or no UTF-8.
	ErrKey = errors.New("invalid key")
	// ErrTooLarge: a value, or all of an object's metadata, is too large.
	ErrTooLarge = errors.New("too large")

	// ErrPrecondition: a condition does not hold.
	ErrPrecondition = errors.New("a condition does not hold")
	// ErrLocked: the version is locked.
	ErrLocked = errors.New("the version is locked")
	// ErrNoLock: locks were not switched on for the bucket, or the object has none of
	// the kind.
	ErrNoLock = errors.New("there is no lock")
	// ErrState: the bucket's versioning and locks do not allow the change.
	ErrState = errors.New("not with these versioning and locks")

	ErrNoUpload = errors.New("no such upload")
	// ErrPart: a part was not uploaded, or is another one than was said.
	ErrPart = errors.New("invalid part")
	// ErrPartOrder: the parts are not in the order of their numbers.
	ErrPartOrder = errors.New("the parts are out of order")
	// ErrPartSize: a part other than the last is smaller than MinPart.
	ErrPartSize = errors.New("a part is too small")
	// ErrCursor: a cursor is none of this bucket.
	ErrCursor = errors.New("invalid cursor")
	// ErrReadOnly: this device can't write to the bucket.
	ErrReadOnly = folder.ErrReadOnly
)

// Bounds, those of S3.
const (
	MaxKey  = 1024    // bytes of a key
	MaxPart = 10000   // the highest number of a part
	MinPart = 5 << 20 // bytes of a part that is not the last
	MaxSize = 5 << 40 // bytes of an object
	MaxPage = 1000    // of a list
)

// Spaces has the folders that are buckets, by the names of apps. Any goroutine may
// call its methods.
type Spaces interface {
	// List returns the buckets of an app in the order of their names.
	List(ctx context.Context, app string) ([]Info, error)
	// Open opens a bucket's folder, or returns ErrNoBucket.
	Open(ctx context.Context, app, name string) (*Space, error)
	// Make makes a bucket's folder and opens it, or returns ErrBucketExists.
	Make(ctx context.Context, app, name string) (*Space, error)
	// Drop removes a bucket with all that is in it, or returns ErrNoBucket. It is not
	// open here.
	Drop(ctx context.Context, app, name string) error
}

// Info says what bucket there is.
type Info struct {
	Name    string
	Created time.Time // zero where it is not known
}

// A Space is an open folder.
type Space struct {
	Folder  *folder.Folder
	Created time.Time
	Close   func() error // may be nil
	// Gone reports whether the folder is none any more: it was dropped elsewhere. It may
	// be nil.
	Gone func() bool
}

// Options for New.
type Options struct {
	// Spaces has the folders. It must be set.
	Spaces Spaces
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Idle is how many buckets stay open that nobody uses; 64 when 0.
	Idle int
	// SmallParts lets parts of any size be completed, for tests.
	SmallParts bool
}
