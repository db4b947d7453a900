package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/services/dynamodb"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// appBuckets are the buckets of apps: folders of the cloud.
type appBuckets struct{ session *session }

var _ objects.Spaces = appBuckets{}

// bucketOptions are those of a folder, which is a bucket, too.
type bucketOptions struct {
	Created time.Time `json:"created"`
}

// madeNow are the options of a folder that is made now.
func (s *session) madeNow() json.RawMessage {
	b, err := json.Marshal(bucketOptions{s.home.node.Clock().Now().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return nil // of a year that JSON doesn't have
	}
	return b
}

func created(info cloud.SpaceInfo) time.Time {
	var o bucketOptions
	_ = json.Unmarshal(info.Options, &o) // the first folders have none
	return o.Created
}

// List implements objects.Spaces. Of two folders that have one name the one is
// listed that has it.
func (a appBuckets) List(_ context.Context, app string) (list []objects.Info, err error) {
	for _, info := range a.session.cloud.Spaces(cloud.Folder) { // by name
		if info.App == app && (len(list) == 0 || list[len(list)-1].Name != info.Name) {
			list = append(list, objects.Info{Name: info.Name, Created: created(info)})
		}
	}
	return list, nil
}

// Open implements objects.Spaces. The folder is the session's, who may close it
// when the bucket is removed elsewhere.
func (a appBuckets) Open(ctx context.Context, app, name string) (*objects.Space, error) {
	info, err := a.find(app, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", name, err)
	}
	k, err := a.session.folderOf(info.ID)
	if err == nil {
		err = k.space.Write(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", name, err)
	}
	gone := func() bool {
		now := k.space.Info()
		return now.Removed || now.Name != name
	}
	return &objects.Space{Folder: k.folder, Created: created(info), Gone: gone}, nil
}

func (a appBuckets) find(app, name string) (cloud.SpaceInfo, error) {
	info, err := a.session.cloud.Find(cloud.Folder, app, name)
	if err != nil || info.Name != name { // ids are no names of buckets
		return info, objects.ErrNoBucket
	}
	return info, nil
}

// Make implements objects.Spaces.
func (a appBuckets) Make(ctx context.Context, app, name string) (*objects.Space, error) {
	_, err := a.session.cloud.MakeNamed(ctx, cloud.SpaceInfo{Kind: cloud.Folder, App: app, Name: name, Options: a.session.madeNow()})
	if errors.Is(err, cloud.ErrExists) {
		return nil, fmt.Errorf("make bucket %q: %w", name, objects.ErrBucketExists)
	}
	if err != nil {
		return nil, fmt.Errorf("make bucket %q: %w", name, err)
	}
	return a.Open(ctx, app, name)
}

// Drop implements objects.Spaces. What is kept on a disk is not removed by
// programs: its folder there would be none of the cloud's any more.
func (a appBuckets) Drop(ctx context.Context, app, name string) error {
	info, err := a.find(app, name)
	if err != nil {
		return fmt.Errorf("drop bucket %q: %w", name, err)
	}
	c := a.session.cloud
	for _, d := range c.Devices() {
		if path := c.Keep(d.Key, info.ID).Path; path != "" {
			return fmt.Errorf("drop bucket %q: it is kept at %s on %s: %w", name, path, d.Name, objects.ErrKept)
		}
	}
	if err := c.Update(ctx, info.ID, func(i *cloud.SpaceInfo) { i.Removed = true }); err != nil {
		return fmt.Errorf("drop bucket %q: %w", name, err)
	}
	return nil
}

// getBuckets lists the buckets of an app.
func (h *Home) getBuckets(ctx context.Context, in client.OfApp) (out client.Buckets, err error) {
	err = h.use(ctx, func(s *session) error {
		if !s.cloud.HasApp(in.App) {
			return noApp(in.App)
		}
		list, err := appBuckets{s}.List(ctx, in.App)
		if err != nil {
			return err
		}
		for _, b := range list {
			info, err := appBuckets{s}.find(in.App, b.Name)
			if err != nil {
				continue // it was removed meanwhile
			}
			k, err := s.folderOf(info.ID)
			if err != nil {
				return err
			}
			st, err := k.folder.Stats(ctx, "/")
			if err != nil {
				return fmt.Errorf("count what is in bucket %q: %w", b.Name, err)
			}
			out.Buckets = append(out.Buckets, client.Bucket{Name: b.Name, Files: st.Files, Bytes: st.Bytes, Created: b.Created})
		}
		return nil
	})
	return out, err
}

// tableBuckets are where the tables of an app are exported to and imported from:
// the buckets of the app.
type tableBuckets struct {
	doors *doors
	app   string
}

var _ dynamodb.Buckets = tableBuckets{}

// Allow implements dynamodb.Buckets.
func (b tableBuckets) Allow(key, bucket string, write bool) bool {
	k, err := b.doors.session.cloud.FindAppKey(key)
	return err == nil && k.May("s3", bucket, write)
}

// with calls f with a bucket.
func (b tableBuckets) with(ctx context.Context, name string, f func(*objects.Bucket) error) (err error) {
	door, err := b.doors.buckets(ctx)
	if err != nil {
		return err
	}
	bucket, err := door.Store().Open(ctx, b.app, name)
	if errors.Is(err, objects.ErrNoBucket) {
		return fmt.Errorf("open bucket %q: %w", name, dynamodb.ErrNotFound)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	return f(bucket)
}

// Put implements dynamodb.Buckets.
func (b tableBuckets) Put(ctx context.Context, bucket, key string, r io.Reader) error {
	return b.with(ctx, bucket, func(bucket *objects.Bucket) error {
		_, err := bucket.Put(ctx, key, r, objects.PutOptions{})
		return err
	})
}

// Get implements dynamodb.Buckets. The bucket may be closed before the content is.
func (b tableBuckets) Get(ctx context.Context, bucket, key string) (out io.ReadCloser, err error) {
	err = b.with(ctx, bucket, func(bucket *objects.Bucket) error {
		o, err := bucket.Head(ctx, key, "")
		if err != nil {
			return err
		}
		r, err := bucket.Open(ctx, o)
		if err == nil {
			out = io.NopCloser(r)
		}
		return err
	})
	return out, err
}

// List implements dynamodb.Buckets.
func (b tableBuckets) List(ctx context.Context, bucket, prefix string, limit int) (keys []string, err error) {
	err = b.with(ctx, bucket, func(bucket *objects.Bucket) error {
		o := objects.ListOptions{Prefix: prefix}
		for more := true; more && len(keys) < limit; {
			o.Limit = limit - len(keys)
			page, err := bucket.List(ctx, o)
			if err != nil {
				return err
			}
			for _, object := range page.Objects {
				keys = append(keys, object.Key)
			}
			o.After, more = page.Next, page.More
		}
		return nil
	})
	return keys, err
}

// Restore implements dynamodb.Buckets. A bucket that is not restored whole is removed.
func (b tableBuckets) Restore(ctx context.Context, bucket, target string, at time.Time) error {
	return b.with(ctx, bucket, func(now *objects.Bucket) error {
		spaces := appBuckets{b.doors.session}
		info, err := spaces.find(b.app, bucket)
		if err != nil {
			return err
		}
		if at.Before(created(info)) {
			return fmt.Errorf("bucket %q: %w", bucket, dynamodb.ErrTooEarly)
		}
		door, err := b.doors.buckets(ctx)
		if err != nil {
			return err
		}
		made, err := door.Store().Make(ctx, b.app, target, false)
		if errors.Is(err, objects.ErrBucketExists) {
			return fmt.Errorf("bucket %q: %w", target, dynamodb.ErrExists)
		}
		if err != nil {
			return err
		}
		err = now.Then(ctx, at, func(then *objects.Bucket) error { return copyObjects(ctx, made, then) })
		err = errors.Join(err, made.Close())
		if err != nil {
			if info, also := spaces.find(b.app, target); also == nil {
				err = errors.Join(err, b.doors.session.cloud.Update(context.WithoutCancel(ctx), info.ID, func(i *cloud.SpaceInfo) { i.Removed = true }))
			}
		}
		return err
	})
}

// copyObjects puts all objects of a bucket into another one.
func copyObjects(ctx context.Context, to, from *objects.Bucket) error {
	var o objects.ListOptions
	for more := true; more; {
		page, err := from.List(ctx, o)
		if err != nil {
			return err
		}
		for _, listed := range page.Objects {
			object, err := from.Head(ctx, listed.Key, "")
			if err != nil {
				return err
			}
			r, err := from.Open(ctx, object)
			if err != nil {
				return err
			}
			_, err = to.Put(ctx, object.Key, r, objects.PutOptions{Meta: object.Meta, Tags: object.Tags, ACL: object.ACL})
			if err = errors.Join(err, r.Close()); err != nil {
				return err
			}
		}
		o.After, more = page.Next, page.More
	}
	return nil
}
