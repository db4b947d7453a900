package folder

import (
	"errors"
	"testing"
	"testing/fstest"
)

func TestFilesAreListedAndRead(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	for _, p := range []string{"/a", "/b/c", "/b/d/e", "/b-x", "/b0"} {
		d.write(p, "in "+p)
	}
	must(t, d.Mkdir(ctx, "/empty", PutOptions{}))
	must(t, d.Symlink(ctx, "/link", "b/c", PutOptions{}))
	want(t, "one level", paths(t, d.Folder, "/", ListOptions{}), []string{"/a", "/b-x", "/b", "/b0", "/empty", "/link"})
	want(t, "one level of /b", paths(t, d.Folder, "/b", ListOptions{}), []string{"/b/c", "/b/d"})
	want(t, "all", paths(t, d.Folder, "/", ListOptions{Recursive: true}), []string{"/a", "/b-x", "/b/c", "/b/d/e", "/b0", "/empty", "/link"})
	all := paths(t, d.Folder, "/", ListOptions{})
	for i, p := range all {
		want(t, "after "+p, paths(t, d.Folder, "/", ListOptions{After: p}), all[i+1:])
	}
	want(t, "two", paths(t, d.Folder, "/", ListOptions{After: "/a", Limit: 2}), []string{"/b-x", "/b"})
	want(t, "those with b", paths(t, d.Folder, "/", ListOptions{Prefix: "b"}), []string{"/b-x", "/b", "/b0"})
	want(t, "those with b after /b-x", paths(t, d.Folder, "/", ListOptions{Prefix: "b", After: "/b-x"}), []string{"/b", "/b0"})
	want(t, "those with b after /a", paths(t, d.Folder, "/", ListOptions{Prefix: "b", After: "/a"}), []string{"/b-x", "/b", "/b0"})
	want(t, "all with d", paths(t, d.Folder, "/b", ListOptions{Prefix: "d", Recursive: true}), []string{"/b/d/e"})
	want(t, "/b/d/e", d.read("/b/d/e"), "in /b/d/e")
	for path, wantErr := range map[string]error{"/nothing": ErrNotFound, "/b": ErrIsFolder, "/link": ErrNotFile, "/a/": ErrPath, "a": ErrPath, "/../a": ErrPath, "/a\x00": ErrPath} {
		if _, err := d.Open(ctx, path); !errors.Is(err, wantErr) {
			t.Errorf("open %q: got error %v, want %v", path, err, wantErr)
		}
	}
	for path, wantErr := range map[string]error{"/nothing": ErrNotFound, "/b": ErrNotFound, "/": ErrPath, "/empty": nil, "/b/c": nil} {
		e, err := d.Entry(ctx, path)
		if !errors.Is(err, wantErr) || err == nil && (e.Path != path || len(e.Stamp) == 0) {
			t.Errorf("entry at %q: %+v, %v, want error %v", path, e, err, wantErr)
		}
	}
	must(t, fstest.TestFS(d.FS(ctx), "a", "b/c", "b/d/e", "b-x", "empty", "link"))
}

func TestAllChangesNameWhatCameAndWent(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	d.write("/stays", "x")
	from, err := d.Version(ctx)
	must(t, err)
	d.write("/passes", "x")
	d.write("/comes", "x")
	must(t, d.Remove(ctx, "/passes", RemoveOptions{}))
	var changed, all []string
	for c, err := range d.Changes(ctx, from) {
		must(t, err)
		changed = append(changed, c.Path)
	}
	for c, err := range d.AllChanges(ctx, from) {
		must(t, err)
		all = append(all, c.Path)
		if c.Path == "/passes" && (c.Old != nil || c.New != nil) {
			t.Errorf("%+v", c)
		}
	}
	want(t, "changes", changed, []string{"/comes"})
	want(t, "all changes", all, []string{"/comes", "/passes"})
}
