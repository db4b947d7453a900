// Package objects is buckets of objects, as S3 has them, on folders of a cloud.
//
//	store := objects.New(objects.Options{Spaces: spaces})
//	b, err := store.Open(ctx, app, "photos")
//	defer b.Close()
//	o, err := b.Put(ctx, "2026/a.jpg", r, objects.PutOptions{})
//	o, err = b.Head(ctx, "2026/a.jpg", "")
//	page, err := b.List(ctx, objects.ListOptions{Prefix: "2026/", Delimiter: "/", Limit: 1000})
//
// It knows nothing of HTTP, XML or who may do what: that is package s3, the front.
//
// # Objects and files
//
// An object whose key is a path is the file at that path, and a file is an object.
// What no tree of files can hold (a//b, a/, x beside x/y, …) is kept beside the
// files of the same folder, and no listing tells the difference. Folders and links
// are no objects. A file that was not put by S3 has no MD5: its ETag is the
// beginning of its SHA-256 and "-1", its type follows from its name.
//
// # What is on the disk
//
// What returns without an error is on the disk. Changes that come at the same time
// share one append. Conditions are judged where the change is made, so that on one
// device they are linearizable; of other devices counts what is known here.
//
// # Versions
//
// A bucket with versions has a row for each of them, written with the object in the
// same append. So a version also outlives what happens to its file outside of S3,
// and its lock is kept there, too.
//
// # Concurrency
//
// All methods may be called by any goroutine. Nothing runs in the background: who
// uses a bucket calls Expire from time to time.
//
// The format is docs/formats/s3.md.
package objects
