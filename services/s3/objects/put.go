package objects

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
)

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

	hash func() [32]byte
}

// SHA256 returns the SHA-256 of what was read, which is known anyhow if that is large.
// It may be called by Finish only.
func (r Read) SHA256() [32]byte {
	if r.hash == nil {
		return [32]byte{}
	}
	return r.hash()
}

// smallBytes is the size of a content that waits in memory to be stored with others.
const smallBytes = 64 << 10

// readBytes is how much of a larger one is read at once.
const readBytes = 128 << 10

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBytes + 1]byte) }}
	readBuffers  = sync.Pool{New: func() any { return new([readBytes]byte) }}
)

// A body is a content that was read: in memory, or stored and held.
type body struct {
	Read
	small *[smallBytes + 1]byte // nil if it is stored
	data  []byte                // in small
	ref   content.Ref
	hold  *content.Hold
}

// receive reads a content. What it returns must be released, also with an error.
func (sh *shared) receive(ctx context.Context, r io.Reader, base content.Ref) (b body, err error) {
	b.small = smallBuffers.Get().(*[smallBytes + 1]byte)
	n, end, err := fill(r, b.small[:], 0)
	if err != nil {
		return b, err
	}
	if end {
		b.data = b.small[:n]
		b.Read = Read{Size: int64(n), MD5: md5.Sum(b.data)}
		b.hash = func() [32]byte { return sha256.Sum256(b.small[:n]) }
		return b, nil
	}
	b.hold = sh.f.Contents().Hold()
	w := b.hold.NewWriter(ctx, content.WriteOptions{Base: base})
	defer w.Abort()
	sum := md5.New()
	buf := readBuffers.Get().(*[readBytes]byte)
	defer readBuffers.Put(buf)
	n = copy(buf[:], b.small[:n])
	smallBuffers.Put(b.small)
	b.small = nil
	for !end {
		if n, end, err = fill(r, buf[:], n); err != nil {
			return b, err
		}
		part := buf[:n]
		var both sync.WaitGroup
		both.Go(func() { sum.Write(part) })
		_, err = w.Write(part)
		both.Wait()
		if b.Size += int64(n); err == nil && b.Size > MaxSize {
			err = ErrTooLarge
		}
		if err != nil {
			return b, err
		}
		n = 0
	}
	if err := w.Close(); err != nil {
		return b, err
	}
	b.ref = w.Ref()
	b.hash = func() [32]byte { return b.ref.Hash }
	sum.Sum(b.MD5[:0])
	return b, nil
}

// fill reads until a buffer that has n bytes is full, or to the end. Unlike
// io.ReadFull it does not take a body that was cut off for one that has ended.
func fill(r io.Reader, buf []byte, n int) (_ int, end bool, err error) {
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (b *body) release() {
	if b.small != nil {
		smallBuffers.Put(b.small)
		b.small, b.data = nil, nil
	}
	if b.hold != nil {
		b.hold.Release()
	}
}

// job returns the job that stores what is not stored yet.
func (b *body) job() *job { return &job{data: b.data, ref: b.ref} }

// Put puts an object. It is on the disk when it returns.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, o PutOptions) (Object, error) {
	fail := func(err error) (Object, error) { return Object{}, fmt.Errorf("put object %q: %w", key, err) }
	if err := checkKey(key); err != nil {
		return fail(err)
	}
	if !b.f.Writable() {
		return fail(ErrReadOnly)
	}
	if len(o.If.IfMatch) > 0 || len(o.If.IfNoneMatch) > 0 {
		// Nobody need send what is refused already.
		v, ok, err := b.latest(ctx, key)
		if err == nil {
			err = o.If.check(&v, ok)
		}
		if err != nil {
			return fail(err)
		}
	}
	body, err := b.receive(ctx, r, content.Ref{})
	defer body.release()
	if err != nil {
		return fail(err)
	}
	a := o.attributes(CreatedPut)
	if o.Finish != nil {
		if a.checksum, err = o.Finish(body.Read); err != nil {
			return fail(err)
		}
	}
	a.md5 = body.MD5[:]
	out, err := b.put(ctx, key, body.job(), a, o.If)
	if err != nil {
		return fail(err)
	}
	return out, nil
}

func (o *PutOptions) attributes(event string) attributes {
	if o.Event != "" {
		event = o.Event
	}
	return attributes{meta: o.Meta, tags: o.Tags, lock: o.Lock, acl: o.ACL, event: event, by: o.By}
}

// put makes a job's content the object of a key.
func (b *Bucket) put(ctx context.Context, key string, j *job, a attributes, when Conditions) (out Object, err error) {
	if len(a.encode()) > folder.MaxAttributes-512 {
		return out, fmt.Errorf("metadata: %w", ErrTooLarge)
	}
	j.run = func(x *tx) (err error) {
		out, err = x.put(key, j.ref, a, when)
		return err
	}
	err = b.write(ctx, j)
	return out, err
}

// put makes a content the object of a key.
func (x *tx) put(key string, ref content.Ref, a attributes, when Conditions) (Object, error) {
	s, err := x.getState()
	if err != nil {
		return Object{}, err
	}
	old, ok, err := x.now().current(x.ctx, key)
	if err != nil {
		return Object{}, err
	}
	if err := when.check(&old, ok); err != nil {
		return Object{}, err
	}
	if a.lock, err = s.lock(a.lock, x.t.Time()); err != nil {
		return Object{}, err
	}
	v := version{Entry: folder.Entry{Content: ref, ModTime: x.t.Time()}, a: a, id: nullID}
	if err := x.replace(key, s, old, ok); err != nil {
		return Object{}, err
	}
	if s.Versioning == Enabled {
		v.id = x.newID()
		v.a.version = []byte(v.id)
		row := v
		row.a.event, row.a.by = "", ""
		if err := x.putRow(rowOf(rowVersion, key, v.id), &row); err != nil {
			return Object{}, err
		}
	}
	if err := x.putCurrent(key, &v); err != nil {
		return Object{}, err
	}
	return v.object(key, s, true), nil
}

// replace makes room for a new version, or a marker.
func (x *tx) replace(key string, s State, old version, ok bool) error {
	if s.Versioning == Unversioned {
		return nil
	}
	if ok && (s.Versioning == Enabled || old.id != nullID) {
		if err := x.preserve(key, old); err != nil {
			return x.broke(err)
		}
	}
	if s.Versioning == Suspended {
		return x.removeRow(rowOf(rowVersion, key, nullID))
	}
	return nil
}

// lock returns the lock of a new version.
func (s *State) lock(l Lock, now time.Time) (Lock, error) {
	if !s.Locks {
		if l != (Lock{}) {
			return l, ErrNoLock
		}
		return l, nil
	}
	if l.Mode == "" && s.Default != "" {
		l.Mode, l.Until = s.Default, now.AddDate(s.Years, 0, s.Days)
	}
	if l.Until.After(latestTime) {
		l.Until = latestTime
	}
	return l, nil
}

// latestTime is the latest time that a lock can have.
var latestTime = time.Unix(0, math.MaxInt64).UTC()

// Copy puts an object with the content of another one, which may be in another
// bucket; then it is read from there and stored here. Conditions on the source are
// the caller's. Without a checksum of Finish, the source's is kept.
func (b *Bucket) Copy(ctx context.Context, key string, from *Bucket, source Object, o PutOptions) (Object, error) {
	fail := func(err error) (Object, error) { return Object{}, fmt.Errorf("copy object to %q: %w", key, err) }
	if err := checkKey(key); err != nil {
		return fail(err)
	}
	if source.v == nil || source.Marker {
		return fail(ErrNoKey)
	}
	a, old := o.attributes(CreatedCopy), &source.stored().a
	a.md5, a.sizes, a.checksum, a.checksums = old.md5, old.sizes, old.checksum, old.checksums
	j := &job{ref: source.stored().Content}
	r := Read{Size: source.Size, hash: func() [32]byte { return source.v.Content.Hash }}
	copy(r.MD5[:], old.md5)
	if from.shared == b.shared {
		hold := b.f.Contents().Hold()
		defer hold.Release()
		hold.Keep(source.stored().Content)
	} else {
		in, err := from.Open(ctx, source)
		if err != nil {
			return fail(err)
		}
		defer in.Close()
		body, err := b.receive(ctx, in, content.Ref{})
		defer body.release()
		if err != nil {
			return fail(err)
		}
		if j, r = body.job(), body.Read; a.sizes == nil {
			a.md5 = r.MD5[:]
		}
	}
	if o.Finish != nil {
		sum, err := o.Finish(r)
		if err != nil {
			return fail(err)
		}
		if sum.Algorithm != "" {
			a.checksum, a.checksums = sum, nil
		}
	}
	out, err := b.put(ctx, key, j, a, o.If)
	if err != nil {
		return fail(err)
	}
	return out, nil
}
