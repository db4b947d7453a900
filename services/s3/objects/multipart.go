package objects

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
)

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
	fail := func(err error) (Upload, error) { return Upload{}, fmt.Errorf("begin upload of %q: %w", key, err) }
	if err := checkKey(key); err != nil {
		return fail(err)
	}
	a := attributes{meta: o.Meta, tags: o.Tags, lock: o.Lock, acl: o.ACL, by: o.By, checksum: Checksum{Algorithm: o.Algorithm, Composite: o.Composite}}
	if len(a.encode()) > folder.MaxAttributes/2 {
		return fail(fmt.Errorf("metadata: %w", ErrTooLarge))
	}
	var out Upload
	err := b.write(ctx, &job{run: func(x *tx) error {
		s, err := x.getState()
		if err != nil {
			return err
		}
		if _, err := s.lock(o.Lock, x.t.Time()); err != nil {
			return err
		}
		id := binary.BigEndian.AppendUint64(nil, uint64(x.t.Time().UnixNano()))
		id = append(id, make([]byte, idSize-len(id))...)
		_, _ = rand.Read(id[8:]) // it never fails
		v := version{Entry: folder.Entry{Content: content.Empty(), ModTime: x.t.Time()}, a: a}
		out = v.upload(key, string(id))
		return x.putRow(rowOf(rowUpload, key, string(id)), &v)
	}})
	if err != nil {
		return fail(err)
	}
	return out, nil
}

// upload is what clients are told of an upload.
func (v *version) upload(key, id string) Upload {
	a := &v.a
	return Upload{Key: key, ID: hex.EncodeToString([]byte(id)), Created: v.modified(), Meta: a.meta, Algorithm: a.checksum.Algorithm, Composite: a.checksum.Composite, By: a.by}
}

// Upload returns an upload.
func (b *Bucket) Upload(ctx context.Context, key, id string) (Upload, error) {
	v, raw, err := b.now().upload(ctx, key, id)
	if err != nil {
		return Upload{}, fmt.Errorf("upload of %q: %w", key, err)
	}
	return v.upload(key, raw), nil
}

// upload returns the row of an upload, and its id.
func (g getter) upload(ctx context.Context, key, name string) (version, string, error) {
	id, err := hex.DecodeString(name)
	if err != nil || len(id) != idSize || checkKey(key) != nil {
		return version{}, "", ErrNoUpload
	}
	v, ok, err := g.row(ctx, rowOf(rowUpload, key, string(id)))
	if err == nil && !ok {
		err = ErrNoUpload
	}
	return v, string(id), err
}

// A Part is one of an upload.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	Modified time.Time
	Checksum Checksum
	v        version
}

func (v *version) part(number int) Part {
	return Part{Number: number, Size: v.Content.Size, ETag: v.a.etag(&v.Entry), Modified: v.modified(), Checksum: v.a.checksum, v: *v}
}

// PutPart puts a part, in the place of one of the same number. finish is as in
// PutOptions, and may be nil.
func (b *Bucket) PutPart(ctx context.Context, key, id string, number int, r io.Reader, finish func(Read) (Checksum, error)) (Part, error) {
	fail := func(err error) (Part, error) { return Part{}, fmt.Errorf("put part %d of %q: %w", number, key, err) }
	if number < 1 || number > MaxPart {
		return fail(ErrPart)
	}
	if _, _, err := b.now().upload(ctx, key, id); err != nil {
		return fail(err)
	}
	body, err := b.receive(ctx, r, content.Ref{})
	defer body.release()
	if err != nil {
		return fail(err)
	}
	a := attributes{md5: body.MD5[:]}
	if finish != nil {
		if a.checksum, err = finish(body.Read); err != nil {
			return fail(err)
		}
	}
	p, err := b.putPart(ctx, key, id, number, body.job(), a)
	if err != nil {
		return fail(err)
	}
	return p, nil
}

func (b *Bucket) putPart(ctx context.Context, key, name string, number int, j *job, a attributes) (p Part, err error) {
	j.run = func(x *tx) error {
		_, id, err := x.now().upload(x.ctx, key, name)
		if err != nil {
			return err
		}
		v := version{Entry: folder.Entry{Content: j.ref, ModTime: x.t.Time(), Growing: true}, a: a}
		p = v.part(number)
		return x.putRow(partRow(id, number), &v)
	}
	err = b.write(ctx, j)
	return p, err
}

// CopyPart makes a part of n bytes from start on of an object, which may be in
// another bucket.
func (b *Bucket) CopyPart(ctx context.Context, key, id string, number int, from *Bucket, source Object, start, n int64) (Part, error) {
	fail := func(err error) (Part, error) { return Part{}, fmt.Errorf("copy part %d of %q: %w", number, key, err) }
	if start < 0 || n < 0 || start > source.Size || n > source.Size-start {
		return fail(ErrPart)
	}
	r, err := from.Open(ctx, source)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	if _, err := r.Seek(start, io.SeekStart); err != nil {
		return fail(err)
	}
	if number < 1 || number > MaxPart {
		return fail(ErrPart)
	}
	if _, _, err := b.now().upload(ctx, key, id); err != nil {
		return fail(err)
	}
	var base content.Ref // what it shares with the source is not stored again
	if from.shared == b.shared {
		base = source.stored().Content
	}
	body, err := b.receive(ctx, io.LimitReader(r, n), base)
	defer body.release()
	if err != nil {
		return fail(err)
	}
	p, err := b.putPart(ctx, key, id, number, body.job(), attributes{md5: body.MD5[:]})
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// Parts returns the parts of an upload with numbers higher than after, up to limit.
func (b *Bucket) Parts(ctx context.Context, key, id string, after, limit int) (parts []Part, more bool, err error) {
	_, raw, err := b.now().upload(ctx, key, id)
	if err == nil {
		for p, err2 := range b.parts(ctx, raw, after+1) {
			if err = err2; err != nil {
				break
			}
			if len(parts) == limit {
				more = true
				break
			}
			parts = append(parts, p)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("parts of upload of %q: %w", key, err)
	}
	return parts, more, nil
}

// parts returns the parts of an upload from a number on.
func (sh *shared) parts(ctx context.Context, id string, first int) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		if first > MaxPart {
			return
		}
		for e, err := range sh.f.Asides(ctx, from(partRow(id, max(first, 0)), rowPart+id)) {
			v, ok, err := read(e, err, false)
			number, isPart := partNumber(id, e.Path)
			if err == nil && (!ok || !isPart) {
				continue
			}
			if !yield(v.part(number), err) || err != nil {
				return
			}
		}
	}
}

// partNumber reads what partRow made.
func partNumber(id, name string) (int, bool) {
	rest := name[min(len(name), len(rowPart)+len(id)):]
	if len(rest) != 2 {
		return 0, false
	}
	n := int(binary.BigEndian.Uint16([]byte(rest)))
	return n, n >= 1 && n <= MaxPart
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
// its hash, but not copied. What was completed already can be completed again.
func (b *Bucket) Complete(ctx context.Context, key, id string, list []CompletePart, o CompleteOptions) (Object, error) {
	out, err := b.complete(ctx, key, id, list, o)
	if err != nil {
		return Object{}, fmt.Errorf("complete upload of %q: %w", key, err)
	}
	return out, nil
}

func (b *Bucket) complete(ctx context.Context, key, name string, list []CompletePart, o CompleteOptions) (out Object, err error) {
	up, id, err := b.now().upload(ctx, key, name)
	if errors.Is(err, ErrNoUpload) {
		return b.completed(ctx, key, name)
	}
	if err != nil {
		return out, err
	}
	hold := b.f.Contents().Hold()
	defer hold.Release()
	parts, size, err := b.choose(ctx, id, list)
	if errors.Is(err, ErrPart) {
		if done, also := b.completed(ctx, key, name); also == nil {
			return done, nil // another request was faster
		}
	}
	if err != nil {
		return out, err
	}
	ref, sum, err := b.join(ctx, hold, parts, o.Hash)
	if err != nil {
		return out, err
	}
	a := up.a
	a.md5, a.event, a.by, a.upload = sum, CreatedMultipart, o.By, []byte(id)
	a.setParts(parts)
	a.checksum = Checksum{}
	if o.Finish != nil {
		if a.checksum, err = o.Finish(parts, size); err != nil {
			return out, err
		}
	}
	if a.checksum.Algorithm == "" {
		a.checksums = nil
	}
	if len(a.encode()) > folder.MaxAttributes-512 {
		return out, fmt.Errorf("metadata: %w", ErrTooLarge)
	}
	err = b.write(ctx, &job{run: func(x *tx) error {
		if _, _, err := x.now().upload(x.ctx, key, name); err != nil {
			return err // it was aborted meanwhile
		}
		if out, err = x.put(key, ref, a, o.If); err != nil {
			return err
		}
		return x.forget(key, id)
	}})
	if errors.Is(err, ErrNoUpload) {
		return b.completed(ctx, key, name)
	}
	return out, err
}

// completed returns the object that an upload made already, for a client that did not
// hear of it, or that asks twice at once.
func (b *Bucket) completed(ctx context.Context, key, name string) (Object, error) {
	done, err := b.head(ctx, key, "")
	if err != nil || hex.EncodeToString(done.v.a.upload) != name {
		return Object{}, ErrNoUpload
	}
	return done, nil
}

// choose returns the parts that an object is to be made of.
func (b *Bucket) choose(ctx context.Context, id string, list []CompletePart) (parts []Part, size int64, err error) {
	if len(list) == 0 {
		return nil, 0, ErrPart
	}
	last := 0
	for _, c := range list {
		if c.Number <= last {
			return nil, 0, ErrPartOrder
		}
		last = c.Number
	}
	for p, err := range b.parts(ctx, id, 1) {
		if err != nil {
			return nil, 0, err
		}
		n := len(parts)
		if n == len(list) || p.Number > list[n].Number {
			break
		}
		if p.Number < list[n].Number {
			continue
		}
		if c := list[n]; c.ETag != p.ETag || c.Checksum != nil && !bytes.Equal(c.Checksum, p.Checksum.Value) {
			return nil, 0, fmt.Errorf("%w: %d is another one", ErrPart, p.Number)
		}
		parts = append(parts, p)
		size += p.Size
	}
	if len(parts) < len(list) {
		return nil, 0, fmt.Errorf("%w: %d was not uploaded", ErrPart, list[len(parts)].Number)
	}
	for _, p := range parts[:len(parts)-1] {
		if p.Size < MinPart && !b.store.o.SmallParts {
			return nil, 0, fmt.Errorf("%w: %d has %d bytes", ErrPartSize, p.Number, p.Size)
		}
	}
	if size > MaxSize {
		return nil, 0, ErrTooLarge
	}
	return parts, size, nil
}

// join makes one content of parts, and the hash of their hashes.
func (b *Bucket) join(ctx context.Context, hold *content.Hold, parts []Part, whole hash.Hash) (content.Ref, []byte, error) {
	sum := md5.New()
	for _, p := range parts {
		hold.Keep(p.v.Content)
		sum.Write(p.v.a.md5)
	}
	if len(parts) == 1 && whole == nil {
		return parts[0].v.Content, sum.Sum(nil), nil
	}
	w := hold.NewWriter(ctx, content.WriteOptions{})
	defer w.Abort()
	var also io.Writer
	if whole != nil {
		also = whole
	}
	for _, p := range parts {
		if err := w.AppendRef(p.v.Content, also); err != nil {
			return content.Ref{}, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return content.Ref{}, nil, err
	}
	return w.Ref(), sum.Sum(nil), nil
}

// forget removes the rows of an upload.
func (x *tx) forget(key, id string) error {
	rows := []string{rowOf(rowUpload, key, id)}
	for e, err := range x.t.Asides(x.ctx, from("", rowPart+id)) {
		if err != nil {
			return x.broke(err)
		}
		rows = append(rows, e.Path)
	}
	for _, name := range rows {
		if err := x.removeRow(name); err != nil {
			return err
		}
	}
	return nil
}

// Abort forgets an upload.
func (b *Bucket) Abort(ctx context.Context, key, id string) error {
	err := b.write(ctx, &job{run: func(x *tx) error {
		_, raw, err := x.now().upload(x.ctx, key, id)
		if err != nil {
			return err
		}
		return x.forget(key, raw)
	}})
	if err != nil {
		return fmt.Errorf("abort upload of %q: %w", key, err)
	}
	return nil
}

// Uploads is a page of a list of uploads.
type Uploads struct {
	Uploads          []Upload
	Prefixes         []string
	More             bool
	Next, NextUpload string
}

// ListUploads returns uploads by keys, the oldest first. After what can be no upload
// there is none: ErrNoUpload.
func (b *Bucket) ListUploads(ctx context.Context, o ListOptions) (Uploads, error) {
	var p Uploads
	limit := o.limit()
	full := func() bool {
		p.More = len(p.Uploads)+len(p.Prefixes) == limit
		return p.More
	}
	after, err := hex.DecodeString(o.AfterUpload)
	if err != nil || len(after) > 0 && len(after) != idSize {
		return Uploads{}, fmt.Errorf("list uploads in bucket %q: %w", b.Name(), ErrNoUpload)
	}
	o.AfterVersion = ""
	rows := b.rows(ctx, rowUpload, o.Prefix)
	err = sources{rows}.lists(&o, func(key string) (bool, error) {
		v, ok, err := read(rows.entry, nil, false)
		if err != nil {
			return false, err
		}
		_, id, _ := splitRow(rowUpload, rows.entry.Path)
		if ok && len(id) == idSize && (key != o.After || id > string(after)) {
			if full() {
				return false, nil
			}
			u := v.upload(key, id)
			p.Uploads = append(p.Uploads, u)
			p.Next, p.NextUpload = key, u.ID
		}
		return true, rows.step()
	}, func(prefix string) bool {
		if full() {
			return false
		}
		p.Prefixes = append(p.Prefixes, prefix)
		p.Next, p.NextUpload = prefix, ""
		return true
	})
	if err != nil {
		return Uploads{}, fmt.Errorf("list uploads in bucket %q: %w", b.Name(), err)
	}
	if !p.More {
		p.Next, p.NextUpload = "", ""
	}
	return p, nil
}
