package storage_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BEVY_TEST_HOLD"); dir != "" {
		// A second process: it holds the store until its input ends.
		if _, err := (storage.Disk{Dir: dir}).Open(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func wantErr(t *testing.T, what string, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q does not say %q", what, err, word)
		}
	}
}

func TestStoreIsOpenOnce(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, storage.Disk{Dir: dir})
	pid := fmt.Sprint("process ", os.Getpid())
	_, err := storage.Disk{Dir: dir}.Open()
	wantErr(t, "a second time", err, storage.ErrLocked, dir, pid, "stop it first")
	_, err = storage.Disk{Dir: dir, ReadOnly: true}.Open()
	wantErr(t, "a second time, read-only", err, storage.ErrLocked, dir, pid, "stop it first")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BEVY_TEST_HOLD="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	_, err = storage.Disk{Dir: dir}.Open()
	wantErr(t, "in another process", err, storage.ErrLocked, fmt.Sprint("process ", cmd.Process.Pid), "stop it first")
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, storage.Disk{Dir: dir}).Close(); err != nil { // it ended without closing
		t.Fatal(err)
	}
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestCopyOfAStoreIsNotWrittenToByAccident(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	e := mustOpen(t, storage.Disk{Dir: dir})
	if err := setValue(e, "a", 10); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	copyFolder(t, dir, copied)
	_, err := storage.Disk{Dir: copied}.Open()
	var is *storage.CopiedError
	if !errors.As(err, &is) || is.Dir != copied {
		t.Errorf("opening a copy: %v", err)
	}
	for _, d := range []storage.Disk{
		{Dir: copied, ReadOnly: true},
		{Dir: copied, Adopt: true},
		{Dir: copied},
	} {
		e := mustOpen(t, d)
		hasValue(t, e, "a", 10)
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}

	moved := filepath.Join(filepath.Dir(dir), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, storage.Disk{Dir: moved})
	hasValue(t, e, "a", 10)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyStoreTakesNoWrites(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := storage.Disk{Dir: missing, ReadOnly: true}.Open()
	wantErr(t, "a missing folder", err, storage.ErrNotFound, missing, "no store")
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opening it read-only made it: %v", err)
	}
	empty := t.TempDir()
	_, err = storage.Disk{Dir: empty, ReadOnly: true}.Open()
	wantErr(t, "an empty folder", err, storage.ErrNotFound, empty, "no store")

	disk := storagetest.NewFaulty()
	e := mustOpen(t, disk.Disk())
	var b storage.Batch
	b.Set([]byte("a"), make([]byte, 10))
	b.SetBlob([]byte("a"), make([]byte, 20<<10))
	if err := e.Apply(&b, storage.Durable); err != nil {
		t.Fatal(err)
	}
	image := disk.Kill() // with a write-ahead log to be read
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for what, disk := range map[string]*storagetest.Faulty{"closed": disk, "killed": image} {
		disk.SetReadOnly(true)
		if _, err := disk.Disk().Open(); !errors.Is(err, storage.ErrReadOnly) {
			t.Errorf("%s: opening for writing on a read-only disk: %v", what, err)
		}
		d := disk.Disk()
		d.ReadOnly = true
		e, err := d.Open()
		if err != nil {
			t.Errorf("%s: opening on a read-only disk: %v", what, err)
			continue
		}
		hasValue(t, e, "a", 10)
		if got, err := e.Blob([]byte("a"), nil); err != nil || len(got) != 20<<10 {
			t.Errorf("%s: blob of %d bytes, %v", what, len(got), err)
		}
		wantErr(t, "a write", setValue(e, "b", 1), storage.ErrReadOnly)
		if err := e.Sync(); err != nil {
			t.Errorf("%s: sync: %v", what, err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}
}

// raw opens the database under a store.
func raw(t *testing.T, disk *storagetest.Faulty, change func(*pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open("store", &pebble.Options{FS: disk.FS(), FormatMajorVersion: pebble.FormatNewest, Merger: &pebble.Merger{Name: "bevy.1", Merge: pebble.DefaultMerger.Merge}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change(db), db.Close(), disk.FS().Remove("store/CLOSED")); err != nil {
		t.Fatal(err)
	}
}

func TestNewerStoreIsNotOpened(t *testing.T) {
	disk := storagetest.NewFaulty()
	if err := mustOpen(t, disk.Disk()).Close(); err != nil {
		t.Fatal(err)
	}
	newer := disk.Kill()
	raw(t, newer, func(db *pebble.DB) error { return db.Set([]byte("mformat"), []byte{2}, nil) })
	_, err := newer.Disk().Open()
	wantErr(t, "a newer format", err, storage.ErrVersion)
	newer = disk.Kill()
	fs := newer.FS()
	if err := fs.Remove("store/CLOSED"); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "marker.format-version") {
			if err := fs.Remove("store/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := fs.Create("store/marker.format-version.000099.999", vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	_, err = newer.Disk().Open()
	wantErr(t, "a newer database", err, storage.ErrVersion)
}

func TestStoreThatIsNotOneIsLeftAlone(t *testing.T) {
	disk := storagetest.NewFaulty()
	db, err := pebble.Open("store", &pebble.Options{FS: disk.FS()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err := disk.Disk().Open(); err == nil {
		t.Errorf("the database of another program was opened")
		_ = e.Close()
	}
}

func TestStoreFolderSurvivesAPowerCut(t *testing.T) {
	disk := storagetest.NewFaulty()
	d := disk.Disk()
	d.Dir = "a/b/c"
	e := mustOpen(t, d)
	if err := setValue(e, "a", 1); err != nil {
		t.Fatal(err)
	}
	d.FS = disk.PowerCut(0).FS()
	after := mustOpen(t, d)
	hasValue(t, after, "a", 1)
	if err := errors.Join(after.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
}
