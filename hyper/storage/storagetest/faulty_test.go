package storagetest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is random")

func write(t *testing.T, fs vfs.FS, name string, sync bool, parts ...string) vfs.File {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range parts {
		if _, err := f.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		if sync && i == 0 {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

func TestPowerCutLosesWhatWasNotSynced(t *testing.T) {
	disk := storagetest.NewFaulty()
	fs := disk.FS()
	write(t, fs, "kept", true, "synced ", "not")
	dir, err := fs.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Sync(); err != nil {
		t.Fatal(err)
	}
	write(t, fs, "entry not synced", true, "synced")

	if got := disk.PowerCut(0).Files(); len(got) != 1 || string(got["kept"]) != "synced " {
		t.Errorf("the worst power cut left %q", got)
	}
	if got := disk.Kill().Files(); len(got) != 2 || string(got["kept"]) != "synced not" {
		t.Errorf("a killed process left %q", got)
	}
	t.Logf("seed %d", *seed)
	seen := map[string]bool{}
	for i := range uint64(2000) {
		got := disk.PowerCut(*seed + i)
		kept := string(got.Files()["kept"])
		if len(kept) < 7 || kept[:7] != "synced " {
			t.Fatalf("a power cut lost what was synced: %q", kept)
		}
		seen[kept[7:]] = true
		if again := string(disk.PowerCut(*seed + i).Files()["kept"]); again != kept {
			t.Fatalf("seed %d left %q and %q", *seed+i, kept, again)
		}
	}
	for _, want := range []string{"", "n", "no", "not"} {
		if !seen[want] {
			t.Errorf("no power cut left %q", want)
		}
	}
}

func TestFaultsAreThoseAskedFor(t *testing.T) {
	disk := storagetest.NewFaulty()
	fs := disk.FS()
	f := write(t, fs, "f", false, "0123456789")
	buf := make([]byte, 10)
	disk.FailRead(2)
	for i, want := range []error{nil, syscall.EIO, nil} {
		if _, err := f.ReadAt(buf, 0); !errors.Is(err, want) {
			t.Errorf("read %d: %v, want %v", i, err, want)
		}
	}
	disk.SetFree(4)
	if n, err := f.Write(buf); n != 4 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write with 4 bytes left: %d, %v", n, err)
	}
	if u, err := fs.GetDiskUsage("/"); err != nil || u.AvailBytes != 0 {
		t.Errorf("free: %d, %v", u.AvailBytes, err)
	}
	if err := fs.Remove("f"); err != nil {
		t.Error(err)
	}
	if u, _ := fs.GetDiskUsage("/"); u.AvailBytes != 14 {
		t.Errorf("free after removing 14 bytes: %d", u.AvailBytes)
	}
	disk.SetReadOnly(true)
	if _, err := fs.Create("g", vfs.WriteCategoryUnspecified); !errors.Is(err, syscall.EROFS) {
		t.Errorf("create on a read-only disk: %v", err)
	}
	if _, err := fs.Stat("g"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
}

// Whatever the moment of a crash, what was acknowledged is there after it, and
// nothing is there in part.
func TestEngineSurvivesACrashAtEveryWritePoint(t *testing.T) {
	t.Logf("seed %d", *seed)
	disk := storagetest.NewFaulty()
	type crash struct {
		at    storagetest.Point
		how   string
		acked int
		disk  *storagetest.Faulty
	}
	var mu sync.Mutex
	var crashes []crash
	acked := 0
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		c := crash{at: p, acked: acked}
		switch p.Number % 3 {
		case 0:
			c.how, c.disk = "kill", disk.Kill()
		case 1:
			c.how, c.disk = "power cut 0", disk.PowerCut(0)
		default:
			c.how, c.disk = fmt.Sprint("power cut ", *seed+p.Number), disk.PowerCut(*seed+p.Number)
		}
		crashes = append(crashes, c)
	})
	key := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
	blob := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 20<<10) }
	e, err := disk.Disk().Open()
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	for i := range n {
		var b storage.Batch
		b.Set(key(i), bytes.Repeat([]byte{byte(i)}, 3000)) // more than one block of the log
		if i%4 == 0 {
			b.SetBlob(key(i), blob(i))
		}
		b.Merge([]byte("all"), []byte{byte(i)})
		durability := storage.Durable
		if i%5 > 2 {
			durability = storage.Soon
		}
		if err := e.Apply(&b, durability); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if durability == storage.Durable {
			acked = i + 1
		}
		mu.Unlock()
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	disk.Hook(nil)
	if len(crashes) < 2*n {
		t.Fatalf("only %d write points", len(crashes))
	}
	for _, c := range crashes {
		e, err := c.disk.Disk().Open()
		if err != nil {
			t.Fatalf("%s at %+v: %v", c.how, c.at, err)
		}
		all, err := e.Get([]byte("all"))
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("%s at %+v: %v", c.how, c.at, err)
		}
		if len(all) < c.acked {
			t.Fatalf("%s at %+v: %d of %d acknowledged batches are there", c.how, c.at, len(all), c.acked)
		}
		for i := range n {
			_, err := e.Get(key(i))
			if (err == nil) != (i < len(all)) {
				t.Fatalf("%s at %+v: batch %d of %d: %v", c.how, c.at, i, len(all), err)
			}
			if i%4 == 0 && i < len(all) {
				if got, err := e.Blob(key(i), nil); err != nil || !bytes.Equal(got, blob(i)) {
					t.Fatalf("%s at %+v: blob %d of %d: %v", c.how, c.at, i, len(all), err)
				}
			}
		}
		if err := e.Close(); err != nil {
			t.Fatalf("%s at %+v: close: %v", c.how, c.at, err)
		}
	}
	t.Logf("%d crashes", len(crashes))
}
