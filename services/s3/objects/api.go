package objects

import (
	"context"
	"errors"
	"hash"
	"io"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
)

// New returns the buckets of some spaces. It must be closed.
func New(o Options) *Store { return &Store{o: o} }

// List returns the buckets of an app in the order of their names.
func (s *Store) List(ctx context.Context, app string) ([]Info, error) { return nil, errNotYet }

// Make makes a bucket and opens it. With lock, versions can be locked in it; it has
// versions then. The bucket must be closed.
func (s *Store) Make(ctx context.Context, app, name string, lock bool) (*Bucket, error) {
	return nil, errNotYet
}

// Open opens a bucket, which must be closed. It costs little when it was open lately.
func (s *Store) Open(ctx context.Context, app, name string) (*Bucket, error) { return nil, errNotYet }

// Drop removes a bucket, which must be empty: ErrNotEmpty. Uploads in it are
// forgotten.
func (s *Store) Drop(ctx context.Context, app, name string) error { return errNotYet }

// Close closes all that is open. No bucket may be in use.
func (s *Store) Close() error { return nil }

// A Bucket is one that is open.
type Bucket struct{}

// Close ends the use of the bucket.
func (b *Bucket) Close() error { return nil }

// Name returns the bucket's name.
func (b *Bucket) Name() string { return "" }

// Created returns when it was made; zero where that is not known.
func (b *Bucket) Created() time.Time { return time.Time{} }

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

// State returns the bucket's state.
func (b *Bucket) State(ctx context.Context) (State, error) { return State{}, errNotYet }

// SetState changes the bucket's state, or returns ErrState: versions can't be
// switched off once there were, nor suspended where there are locks.
func (b *Bucket) SetState(ctx context.Context, change func(*State)) error { return errNotYet }

// Config returns a configuration of the bucket by its name ("policy", "cors", …), as
// it was set, or ErrNoConfig.
func (b *Bucket) Config(ctx context.Context, name string) ([]byte, error) { return nil, errNotYet }

// SetConfig sets a configuration, of up to 1 MiB. Nil removes it.
func (b *Bucket) SetConfig(ctx context.Context, name string, value []byte) error { return errNotYet }

// Head returns what is said of an object, or of one of its versions. A latest
// version that is a marker is ErrNoKey, a version that was asked for and is one
// ErrMarker, both with the marker.
func (b *Bucket) Head(ctx context.Context, key, version string) (Object, error) {
	return Object{}, errNotYet
}

// Open returns a reader of an object that Head or a list returned, also if another
// one has its key by now. It must be closed.
func (b *Bucket) Open(ctx context.Context, o Object) (*content.Reader, error) { return nil, errNotYet }

// PartsOf returns the parts of an object that was put in parts.
func (b *Bucket) PartsOf(o Object) []PartInfo { return nil }

// PutOptions for Put and Copy.
type PutOptions struct {
	Meta Meta
	Tags []Tag
	Lock Lock // what it has not, it gets from the bucket's default
	ACL  string
	If   Conditions
	// Finish is called once all was read, before anything of it can be seen: with an
	// error nothing is put. It returns the checksum to keep.
	Finish func(Read) (Checksum, error)
	// Event is what Changes calls it; CreatedPut or CreatedCopy when "".
	Event string
	// By is who did it, for Changes.
	By string
}

// Read says what was read.
type Read struct {
	Size int64
	MD5  [16]byte
}

// Put puts an object. It is on the disk when it returns.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, o PutOptions) (Object, error) {
	return Object{}, errNotYet
}

// Copy puts an object with the content of another one, which may be in another
// bucket; then it is read from there and stored here. Conditions on the source are
// the caller's.
// Without checksum, the source's is kept.
func (b *Bucket) Copy(ctx context.Context, key string, from *Bucket, source Object, o PutOptions) (Object, error) {
	return Object{}, errNotYet
}

// DeleteOptions for Delete.
type DeleteOptions struct {
	// Version is the one to remove for good. Without it, a bucket with versions gets a
	// marker.
	Version string
	If      Conditions
	// Bypass goes past locks of mode Governance.
	Bypass bool
	By     string
}

// Deleted is what Delete did.
type Deleted struct {
	Key     string
	Version string // that was removed, or of the marker that was made
	Marker  bool   // a marker was made, or removed
	Err     error  // of DeleteMany
}

// Delete removes an object or a version. What is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string, o DeleteOptions) (Deleted, error) {
	return Deleted{}, errNotYet
}

// DeleteOne is one of those that DeleteMany removes.
type DeleteOne struct {
	Key string
	DeleteOptions
}

// DeleteMany removes objects in one append, each as Delete does. The error is that of
// the whole.
func (b *Bucket) DeleteMany(ctx context.Context, list []DeleteOne) ([]Deleted, error) {
	return nil, errNotYet
}

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

// List returns objects in the order of the bytes of their keys. It reads about as
// much as it returns.
func (b *Bucket) List(ctx context.Context, o ListOptions) (Page, error) { return Page{}, errNotYet }

// ListVersions returns all versions and markers: by keys, the newest first.
func (b *Bucket) ListVersions(ctx context.Context, o ListOptions) (Page, error) {
	return Page{}, errNotYet
}

// SetTags replaces the tags of an object or a version.
func (b *Bucket) SetTags(ctx context.Context, key, version string, tags []Tag) (Object, error) {
	return Object{}, errNotYet
}

// SetACL replaces the ACL of an object or a version.
func (b *Bucket) SetACL(ctx context.Context, key, version, acl string) (Object, error) {
	return Object{}, errNotYet
}

// SetRetention sets the mode of a version's lock and until when. It can be made
// longer by anybody; shorter, or taken away with an empty mode, only in mode
// Governance with bypass.
func (b *Bucket) SetRetention(ctx context.Context, key, version, mode string, until time.Time, bypass bool) (Object, error) {
	return Object{}, errNotYet
}

// SetHold sets or takes away a version's legal hold.
func (b *Bucket) SetHold(ctx context.Context, key, version string, hold bool) (Object, error) {
	return Object{}, errNotYet
}

// An Upload is an object that is being put in parts.
type Upload struct {
	Key     string
	ID      string
	Created time.Time
	Meta    Meta
	// Algorithm and Composite say what checksum it will have.
	Algorithm string
	Composite bool
	By        string
}

// UploadOptions for CreateUpload.
type UploadOptions struct {
	Meta      Meta
	Tags      []Tag
	Lock      Lock
	ACL       string
	Algorithm string
	Composite bool
	By        string
}

// CreateUpload begins an upload.
func (b *Bucket) CreateUpload(ctx context.Context, key string, o UploadOptions) (Upload, error) {
	return Upload{}, errNotYet
}

// Upload returns an upload.
func (b *Bucket) Upload(ctx context.Context, key, id string) (Upload, error) {
	return Upload{}, errNotYet
}

// A Part is one of an upload.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	Modified time.Time
	Checksum Checksum
}

// PutPart puts a part, in the place of one of the same number. finish is as in
// PutOptions, and may be nil.
func (b *Bucket) PutPart(ctx context.Context, key, id string, number int, r io.Reader, finish func(Read) (Checksum, error)) (Part, error) {
	return Part{}, errNotYet
}

// CopyPart makes a part of n bytes from start on of an object, which may be in
// another bucket.
func (b *Bucket) CopyPart(ctx context.Context, key, id string, number int, from *Bucket, source Object, start, n int64) (Part, error) {
	return Part{}, errNotYet
}

// Parts returns the parts of an upload with numbers higher than after, up to limit.
func (b *Bucket) Parts(ctx context.Context, key, id string, after, limit int) (parts []Part, more bool, err error) {
	return nil, false, errNotYet
}

// A CompletePart is a part that an object is made of. Its checksum, if there is one,
// must be the part's.
type CompletePart struct {
	Number   int
	ETag     string
	Checksum []byte
}

// CompleteOptions for Complete.
type CompleteOptions struct {
	If Conditions
	// Hash, when it is set, gets all bytes of the object: they are read anyhow.
	Hash hash.Hash
	// Finish is called with the parts behind that, before anything can be seen. It
	// returns the checksum to keep.
	Finish func(parts []Part, size int64) (Checksum, error)
	By     string
}

// Complete makes an object of parts, which need not be all. Their bytes are read for
// its hash, but not copied.
func (b *Bucket) Complete(ctx context.Context, key, id string, parts []CompletePart, o CompleteOptions) (Object, error) {
	return Object{}, errNotYet
}

// Abort forgets an upload.
func (b *Bucket) Abort(ctx context.Context, key, id string) error { return errNotYet }

// Uploads is a page of a list of uploads.
type Uploads struct {
	Uploads          []Upload
	Prefixes         []string
	More             bool
	Next, NextUpload string
}

// ListUploads returns uploads by keys, the oldest first.
func (b *Bucket) ListUploads(ctx context.Context, o ListOptions) (Uploads, error) {
	return Uploads{}, errNotYet
}

// A Rule of a lifecycle says what goes when. It is about all that its filter takes.
type Rule struct {
	ID     string
	Prefix string
	Tags   []Tag
	// Larger and Smaller are exclusive; 0 is no bound.
	Larger, Smaller int64

	// Days after which a current version is deleted, or Date from when on.
	Days int
	Date time.Time
	// Marker removes markers that are the only version of their key.
	Marker bool
	// OldDays after a version was replaced it goes, if Keep newer ones of those there are.
	OldDays, Keep int
	// UploadDays after it was begun an upload is aborted.
	UploadDays int
}

// Expired is what Expire did.
type Expired struct{ Objects, Versions, Markers, Uploads int }

// Expire does what rules say is due at a time, and aborts uploads that are older than
// a week and that no rule names. Locked versions stay.
func (b *Bucket) Expire(ctx context.Context, rules []Rule, now time.Time) (Expired, error) {
	return Expired{}, errNotYet
}

// What an Event says that happened, as S3 names it.
const (
	CreatedPut       = "ObjectCreated:Put"
	CreatedPost      = "ObjectCreated:Post"
	CreatedCopy      = "ObjectCreated:Copy"
	CreatedMultipart = "ObjectCreated:CompleteMultipartUpload"
	Removed          = "ObjectRemoved:Delete"
	MarkerMade       = "ObjectRemoved:DeleteMarkerCreated"
	ExpiredObject    = "LifecycleExpiration:Delete"
	ExpiredMarker    = "LifecycleExpiration:DeleteMarkerCreated"
	Tagged           = "ObjectTagging:Put"
	ACLChanged       = "ObjectAcl:Put"
)

// An Event is something that happened to an object.
type Event struct {
	Name   string
	Object Object // what is there now; of what was removed its key and version
	Time   time.Time
	By     string // who, where it is known
	// Sequence sorts the events of a key.
	Sequence string
	// Cursor goes on behind the event.
	Cursor string
}

// Changes returns what happened since a cursor, on all devices as far as is known
// here, in the order of time, and ends there. "" is the beginning. What others did
// comes when it is known, which may be after what happened later. Whoever goes on
// behind the last event that was dealt with gets each at least once.
func (b *Bucket) Changes(ctx context.Context, cursor string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, errNotYet) }
}

// Cursor returns the one behind all that happened.
func (b *Bucket) Cursor(ctx context.Context) (string, error) { return "", errNotYet }

// Notify calls f when something may have happened, until stop is called. f must
// return soon and must not use the bucket.
func (b *Bucket) Notify(f func()) (stop func()) { return func() {} }

// NewMemory returns spaces in memory, for tests.
func NewMemory() Spaces { return nil }

var errNotYet = errors.New("not yet")
