package storage_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

func setValue(e storage.Engine, key string, size int) error {
	var b storage.Batch
	b.Set([]byte(key), make([]byte, size))
	return e.Apply(&b, storage.Durable)
}

func hasValue(t *testing.T, r storage.Reader, key string, size int) {
	t.Helper()
	if v, err := r.Get([]byte(key)); err != nil || len(v) != size {
		t.Errorf("%s is lost: %d bytes, %v", key, len(v), err)
	}
}

func TestFullDiskRefusesWritesUntilThereIsSpace(t *testing.T) {
	disk := storagetest.NewFaulty()
	e := mustOpen(t, disk.Disk())
	disk.SetFree(100 << 20)
	n := 0
	var err error
	for ; err == nil && n < 200; n++ {
		err = setValue(e, fmt.Sprint(n), 1<<20)
	}
	n-- // the last was refused
	if !errors.Is(err, storage.ErrFull) || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("after %d MiB on a disk of 100: %v", n, err)
	}
	var b storage.Batch
	b.SetBlob([]byte("b"), make([]byte, 100<<10))
	if err := e.Apply(&b, storage.Soon); !errors.Is(err, storage.ErrFull) {
		t.Errorf("a blob: %v", err)
	}
	hasValue(t, e, "0", 1<<20)
	if err := e.Sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	b.Reset()
	b.DeleteRange([]byte("1"), []byte("2"))
	if err := e.Apply(&b, storage.Durable); err != nil {
		t.Errorf("freeing space: %v", err)
	}
	disk.SetFree(200 << 20)
	if err := setValue(e, "after", 1<<20); err != nil {
		t.Errorf("with space again: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, disk.Disk())
	hasValue(t, e, "after", 1<<20)
	for i := range n {
		if key := fmt.Sprint(i); key[0] != '1' {
			hasValue(t, e, key, 1<<20)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store that was closed is opened on a disk that is full to the last byte: it
// reads, and writes once there is room.
func TestClosedStoreOpensOnAFullDisk(t *testing.T) {
	disk := storagetest.NewFaulty()
	e := mustOpen(t, disk.Disk())
	if err := setValue(e, "before", 10); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	disk.SetFree(0)
	e = mustOpen(t, disk.Disk())
	for range 3 {
		hasValue(t, e, "before", 10)
		if err := setValue(e, "during", 10); !errors.Is(err, storage.ErrFull) {
			t.Fatalf("a write without room: %v", err)
		}
	}
	disk.SetFree(200 << 20)
	if err := setValue(e, "after", 10); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, disk.Disk())
	hasValue(t, e, "before", 10)
	hasValue(t, e, "after", 10)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// until waits, without sleeping, for what another goroutine is to do.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func noSpace(suffix string) func(storagetest.Point) error {
	return fails(suffix, syscall.ENOSPC, "write")
}

func fails(part string, err error, ops ...string) func(storagetest.Point) error {
	return func(p storagetest.Point) error {
		for _, op := range ops {
			if strings.Contains(p.Name, part) && p.Op == op {
				return err
			}
		}
		return nil
	}
}

func TestWriteAheadLogWaitsForSpace(t *testing.T) {
	disk, now := storagetest.NewFaulty(), clock.NewFake(time.Unix(0, 0))
	d := disk.Disk()
	d.Clock = now
	e := mustOpen(t, d)
	if err := setValue(e, "before", 10); err != nil {
		t.Fatal(err)
	}
	disk.FailWrites(noSpace(".log"))
	result := make(chan error, 1)
	go func() { result <- setValue(e, "waits", 10) }()
	until(t, "a write waits", func() bool { return now.Waiting() > 0 })
	if err := setValue(e, "refused", 10); !errors.Is(err, storage.ErrFull) {
		t.Errorf("a write while another waits for space: %v", err)
	}
	hasValue(t, e, "before", 10)
	disk.FailWrites(nil)
	now.Advance(time.Second)
	if err := <-result; err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := setValue(e, "after", 10); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, disk.PowerCut(0).Disk())
	for _, key := range []string{"before", "waits", "after"} {
		hasValue(t, e, key, 10)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// A disk that does not write ends the store, and not the process: writers are
// told, closing works, and nothing that was acknowledged is lost.
func TestFailingDiskEndsTheStoreOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		rule func(storagetest.Point) error
		want error
		bulk bool // needs a flush to be met
	}{
		{"log write", fails(".log", syscall.EIO, "write"), syscall.EIO, false},
		{"log sync", fails(".log", syscall.EIO, "sync"), syscall.EIO, false},
		{"log full for long", noSpace(".log"), storage.ErrFull, false},
		{"log read-only", fails(".log", syscall.EROFS, "write", "sync"), storage.ErrReadOnly, false},
		{"new log", fails(".log", syscall.EIO, "create", "reuse"), syscall.EIO, true},
		{"table write", fails(".sst", syscall.EIO, "write"), syscall.EIO, true},
		{"table sync", fails(".sst", syscall.EIO, "sync"), syscall.EIO, true},
		{"table create", fails(".sst", syscall.EIO, "create"), syscall.EIO, true},
		{"manifest write", fails("MANIFEST", syscall.EIO, "write"), syscall.EIO, true},
		{"manifest sync", fails("MANIFEST", syscall.EIO, "sync"), syscall.EIO, true},
		{"everything", func(storagetest.Point) error { return syscall.EIO }, syscall.EIO, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			disk, now := storagetest.NewFaulty(), clock.NewFake(time.Unix(0, 0))
			d := disk.Disk()
			d.Clock = now
			e := mustOpen(t, d)
			acked := map[string]int{}
			set := func(key string, size int) error {
				err := setValue(e, key, size)
				if err == nil {
					acked[key] = size
				}
				return err
			}
			if err := set("before", 10); err != nil {
				t.Fatal(err)
			}
			disk.FailWrites(c.rule)
			done := make(chan error, 1)
			go func() {
				var err error
				for i := 0; err == nil && i < 400; i++ {
					size := 10
					if c.bulk {
						size = 300 << 10
					}
					err = set(fmt.Sprint(i), size)
				}
				done <- err
			}()
			var err error
			until(t, "a write fails", func() bool {
				now.Advance(time.Second)
				select {
				case err = <-done:
					return true
				default:
					return false
				}
			})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "must be opened anew") {
				t.Fatalf("write: %v", err)
			}
			disk.FailWrites(nil) // too late
			if again := setValue(e, "later", 10); again == nil || again.Error() != err.Error() {
				t.Errorf("a later write: %v", again)
			}
			if again := e.Sync(); again == nil || again.Error() != err.Error() {
				t.Errorf("sync: %v", again)
			}
			hasValue(t, e, "before", 10)
			files := disk.Files()
			if again := e.Close(); again == nil || again.Error() != err.Error() {
				t.Errorf("close: %v", again)
			}
			if _, err := e.Get([]byte("before")); err == nil {
				t.Log("a store that failed is read after closing")
			}
			for name, data := range disk.Files() {
				if len(files[name]) != len(data) {
					t.Errorf("%s was written to after the failure", name)
				}
			}
			for what, disk := range map[string]*storagetest.Faulty{
				"killed": disk.Kill(), "power cut": disk.PowerCut(0), "in this process": disk,
			} {
				e, err := disk.Disk().Open()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				for key, size := range acked {
					hasValue(t, e, key, size)
				}
				if err := setValue(e, "new", 10); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if err := e.Close(); err != nil {
					t.Errorf("%s: close: %v", what, err)
				}
			}
		})
	}
}

// Tables that find no space wait, for as long as it takes.
func TestBackgroundWaitsForSpace(t *testing.T) {
	for _, part := range []string{".sst", "MANIFEST"} {
		disk, now := storagetest.NewFaulty(), clock.NewFake(time.Unix(0, 0))
		d := disk.Disk()
		d.Clock = now
		e := mustOpen(t, d)
		disk.FailWrites(noSpace(part))
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			err = setValue(e, fmt.Sprint(n), 300<<10)
		}
		n--
		if !errors.Is(err, storage.ErrFull) || strings.Contains(err.Error(), "anew") {
			t.Fatalf("%s: after %d writes: %v", part, n, err)
		}
		for range 100 {
			now.Advance(time.Second)
			until(t, "the flush waits again", func() bool { return now.Waiting() > 0 })
		}
		hasValue(t, e, "0", 300<<10)
		disk.FailWrites(nil)
		until(t, "writes are taken again", func() bool {
			now.Advance(time.Second)
			return setValue(e, "after", 10) == nil
		})
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = mustOpen(t, disk.Disk())
		for i := range n {
			hasValue(t, e, fmt.Sprint(i), 300<<10)
		}
		hasValue(t, e, "after", 10)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Closing does not wait for space: what was acknowledged is in the log.
func TestClosingAFullDiskDoesNotHang(t *testing.T) {
	disk := storagetest.NewFaulty()
	e := mustOpen(t, disk.Disk())
	if err := setValue(e, "a", 1<<20); err != nil {
		t.Fatal(err)
	}
	disk.FailWrites(noSpace(".sst"))
	if err := e.Close(); !errors.Is(err, storage.ErrFull) {
		t.Errorf("close: %v", err)
	}
	disk.FailWrites(nil)
	e = mustOpen(t, disk.Disk())
	hasValue(t, e, "a", 1<<20)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFailedReadIsAnErrorOnce(t *testing.T) {
	disk := storagetest.NewFaulty()
	e := mustOpen(t, disk.Disk())
	var b storage.Batch
	for i := range 50 {
		b.Set(fmt.Appendf(nil, "%d", i), make([]byte, 1000))
		b.SetBlob(fmt.Appendf(nil, "%d", i), make([]byte, 5<<10))
	}
	b.SetBlob([]byte("large"), make([]byte, 50<<10))
	if err := e.Apply(&b, storage.Durable); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, disk.Disk())
	failed := 0
	for n := uint64(1); n < 8; n++ {
		disk.FailRead(n)
		for i := range 50 {
			v, err := e.Get(fmt.Appendf(nil, "%d", i))
			if err == nil && len(v) != 1000 {
				t.Errorf("value %d has %d bytes", i, len(v))
			}
			w, err2 := e.Blob(fmt.Appendf(nil, "%d", i), nil)
			if err2 == nil && len(w) != 5<<10 {
				t.Errorf("blob %d has %d bytes", i, len(w))
			}
			if errors.Is(err, storage.ErrNotFound) || errors.Is(err2, storage.ErrNotFound) {
				t.Errorf("a failed read looks like no value: %v, %v", err, err2)
			}
			for _, err := range []error{err, err2} {
				if err != nil {
					failed++
				}
			}
		}
		if _, err := e.Blob([]byte("large"), nil); err != nil {
			failed++
		}
	}
	disk.FailReads(nil)
	if failed == 0 {
		t.Error("no read failed")
	}
	for i := range 50 {
		hasValue(t, e, fmt.Sprint(i), 1000)
	}
	if err := setValue(e, "writes", 10); err != nil {
		t.Errorf("a failed read ended writing: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
