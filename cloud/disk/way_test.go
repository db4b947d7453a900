package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What is read and written is where a path leads at that time, and never where a
// folder that was there before has gone.
func TestAPathIsGoneAnewWhenItsFoldersHaveMoved(t *testing.T) {
	dir := t.TempDir()
	files, err := opener()(dir)
	must(t, err)
	defer files.close()
	at := func(path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }
	create := func(path string) error {
		f, err := files.create(path)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	isThere := func(path string) bool {
		_, err := os.Lstat(at(path))
		return err == nil
	}
	must(t, os.MkdirAll(at("/a/b"), 0o700))
	must(t, create("/a/b/first"))

	outside := t.TempDir()
	must(t, os.Rename(at("/a/b"), filepath.Join(outside, "b")))
	if err := create("/a/b/second"); !notThere(err) {
		t.Fatalf("a folder that was moved away is written to: %v", err)
	}
	must(t, os.Mkdir(at("/a/b"), 0o700))
	must(t, create("/a/b/third"))
	if !isThere("/a/b/third") {
		t.Fatal("the folder that is there now was not written to")
	}

	must(t, os.Rename(at("/a"), at("/moved")))
	err = os.Symlink("moved", at("/a"))
	if windows && err != nil {
		t.Skip("no links here: ", err)
	}
	must(t, err)
	if err := create("/a/b/fourth"); !errors.Is(err, errNotDir) {
		t.Fatalf("through a link: %v", err)
	}
	must(t, create("/moved/b/fourth"))
}

func TestManyUseAPathAndAnother(t *testing.T) {
	dir := t.TempDir()
	files, err := opener()(dir)
	must(t, err)
	deep := strings.Repeat("/d", maxWay+2)
	must(t, os.MkdirAll(filepath.Join(dir, filepath.FromSlash(deep)), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "x", "y"), 0o700))
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range 50 {
				path := fmt.Sprintf("%s/%d-%d", []string{"", "/x", "/x/y", deep}[(i+n)%4], i, n)
				f, err := files.create(path)
				if err == nil {
					err = f.Close()
				}
				if _, statErr := files.lstat(path); err != nil || statErr != nil {
					t.Errorf("%s: %v, %v", path, err, statErr)
				}
			}
		})
	}
	group.Wait()
	must(t, files.close())
	if _, err := files.lstat("/x/0-1"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}
