package corestore

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func memory(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(storage.NewMemory(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t testing.TB, s *Store, o LogOptions) *hypercore.Log {
	t.Helper()
	l, err := s.Get(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestKeyVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/corestore.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		PrimaryKey string
		Cores      []struct {
			Namespace                              []string
			Name, PublicKey, CoreKey, DiscoveryKey string
			NS, ID                                 string
		}
		ManifestVersion2 struct{ Name, CoreKey string }
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	primary, err := hex.DecodeString(f.PrimaryKey)
	if err != nil {
		t.Fatal(err)
	}
	s := memory(t, Options{PrimaryKey: (*[32]byte)(primary)})
	for _, v := range f.Cores {
		ns := s
		for _, name := range v.Namespace {
			if raw, ok := strings.CutSuffix(name, " (32 raw bytes)"); ok {
				b, err := hex.DecodeString(raw)
				if err != nil {
					t.Fatal(err)
				}
				name = string(b)
			}
			ns = ns.Namespace(name)
		}
		if got := hex.EncodeToString(ns.namespace[:]); got != v.NS {
			t.Errorf("namespace %q: %s, want %s", v.Namespace, got, v.NS)
		}
		if got := fmt.Sprintf("%x", [32]byte(ns.KeyPair(v.Name).Public)); got != v.PublicKey {
			t.Errorf("%q in %q: public key %s, want %s", v.Name, v.Namespace, got, v.PublicKey)
		}
		l := get(t, ns, LogOptions{Name: v.Name})
		key, d := l.Key(), l.Discovery()
		if hex.EncodeToString(key[:]) != v.CoreKey || hex.EncodeToString(d[:]) != v.DiscoveryKey || key.String() != v.ID {
			t.Errorf("%q in %q: key %x, discovery key %x", v.Name, v.Namespace, key, d)
		}
		l.Close()
	}
	s2 := memory(t, Options{PrimaryKey: (*[32]byte)(primary), ManifestVersion: 2})
	l := get(t, s2, LogOptions{Name: f.ManifestVersion2.Name})
	defer l.Close()
	if key := l.Key(); hex.EncodeToString(key[:]) != f.ManifestVersion2.CoreKey {
		t.Errorf("manifest version 2: key %x", key)
	}
}

func TestSessionsShareOneLog(t *testing.T) {
	ctx := context.Background()
	s := memory(t, Options{})
	a := get(t, s, LogOptions{Name: "a"})
	key := a.Key()
	b := get(t, s, LogOptions{Key: &key})
	if _, err := a.Append(ctx, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(ctx, 0); err != nil || string(got) != "one" {
		t.Errorf("the other session reads %q, %v", got, err)
	}
	if !b.Writable() {
		t.Error("a log of a known name is not writable by its key")
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("close with sessions: %v", err)
	}
	if err := s.Delete(key); err == nil {
		t.Error("a log in use was deleted")
	}
	if err := errors.Join(a.Close(), a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if _, err := a.Append(ctx, []byte("x")); !errors.Is(err, hypercore.ErrClosed) {
		t.Errorf("append to a closed session: %v", err)
	}
	if err := s.Delete(key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(LogOptions{Key: &key, MustExist: true}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("get of a deleted log: %v", err)
	}
	again := get(t, s, LogOptions{Name: "b"})
	defer again.Close()
	if again.Length() != 0 {
		t.Error("a new log is not empty")
	}
}

func TestIdleLogsCloseThemselves(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	s := memory(t, Options{Clock: c, IdleAfter: 10 * time.Second})
	ctx := context.Background()
	var logs []*hypercore.Log
	for i := range 50 {
		l := get(t, s, LogOptions{Name: fmt.Sprint(i)})
		if _, err := l.Append(ctx, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	for _, l := range logs[:40] {
		l.Close()
	}
	c.Advance(9 * time.Second)
	if s.Open() != 50 {
		t.Errorf("%d logs are open after 9 s, want 50", s.Open())
	}
	back := get(t, s, LogOptions{Name: "3"})
	c.Advance(2 * time.Second)
	if s.Open() != 11 {
		t.Errorf("%d logs are open after 11 s, want 11", s.Open())
	}
	for _, l := range append(logs[40:], back) {
		l.Close()
	}
	c.Advance(time.Minute)
	if s.Open() != 0 || c.Waiting() != 0 {
		t.Errorf("%d logs are open and %d timers wait when nobody uses any", s.Open(), c.Waiting())
	}
	l := get(t, s, LogOptions{Name: "7"})
	defer l.Close()
	if got, err := l.Get(ctx, 0); err != nil || !bytes.Equal(got, []byte{7}) {
		t.Errorf("opened again: %v, %v", got, err)
	}
}

func TestStoreIsTheSameAfterReopening(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, err := OpenDisk(storage.Disk{Dir: dir}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := get(t, s.Namespace("n"), LogOptions{Name: "a"})
	if _, err := l.Append(ctx, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := l.SetUserData(ctx, "title", []byte("A")); err != nil {
		t.Fatal(err)
	}
	key, primary := l.Key(), s.PrimaryKey()
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	other := primary
	other[0]++
	if _, err := OpenDisk(storage.Disk{Dir: dir}, Options{PrimaryKey: &other}); !errors.Is(err, ErrPrimaryKey) {
		t.Errorf("open with another primary key: %v", err)
	}
	if s, err = OpenDisk(storage.Disk{Dir: dir}, Options{PrimaryKey: &primary}); err != nil {
		t.Fatal(err)
	}
	l = get(t, s, LogOptions{Key: &key, MustExist: true})
	if got, err := l.Get(ctx, 0); err != nil || string(got) != "kept" || !l.Writable() {
		t.Errorf("block %q, %v, writable %v", got, err, l.Writable())
	}
	if got, err := l.UserData("title"); err != nil || string(got) != "A" {
		t.Errorf("user data %q, %v", got, err)
	}
	var names, keys []string
	for n, err := range s.Namespace("n").Names() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n.Name)
	}
	for i, err := range s.Logs() {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, fmt.Sprint(i.Key, " ", i.Length, " ", i.Writable))
	}
	if fmt.Sprint(names) != "[a]" || fmt.Sprint(keys) != fmt.Sprintf("[%s 1 true]", key) {
		t.Errorf("names %v, logs %v", names, keys)
	}
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCopiedStoreSaysWhatWouldFork restores a folder from a copy, as from a
// backup.
func TestCopiedStoreSaysWhatWouldFork(t *testing.T) {
	ctx, base := context.Background(), t.TempDir()
	dir, copied := filepath.Join(base, "store"), filepath.Join(base, "copy")
	s, err := OpenDisk(storage.Disk{Dir: dir}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := get(t, s, LogOptions{Name: "a"})
	if _, err := l.Append(ctx, []byte("1"), []byte("2")); err != nil {
		t.Fatal(err)
	}
	foreign := hypercore.SingleSigner(hypercore.NewKeyPair([32]byte{9}).Public).Key()
	f := get(t, s, LogOptions{Key: &foreign})
	key := l.Key()
	if err := errors.Join(l.Close(), f.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", dir, copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	_, err = OpenDisk(storage.Disk{Dir: copied}, Options{})
	var c *CopiedError
	if !errors.As(err, &c) || len(c.Writable) != 1 || c.Writable[0].Key != key || c.Writable[0].Length != 2 {
		t.Fatalf("open of a copy: %v", err)
	}
	for _, part := range []string{key.String(), "2 blocks", "adopt"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	r, err := OpenDisk(storage.Disk{Dir: copied, ReadOnly: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l = get(t, r, LogOptions{Key: &key})
	if got, err := l.Get(ctx, 1); err != nil || string(got) != "2" {
		t.Errorf("read-only copy: %q, %v", got, err)
	}
	if _, err := l.Append(ctx, []byte("3")); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("append to a read-only store: %v", err)
	}
	if err := errors.Join(l.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	for _, adopt := range []bool{true, false} { // once is enough
		a, err := OpenDisk(storage.Disk{Dir: copied, Adopt: adopt}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		l = get(t, a, LogOptions{Key: &key})
		if _, err := l.Append(ctx, []byte("3")); err != nil {
			t.Error(err)
		}
		if err := errors.Join(l.Close(), a.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExportImport(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := memory(t, Options{})
		secret := [32]byte{byte(seed), 1}
		o := LogOptions{Name: "a"}
		if seed%2 == 0 {
			o.Session.EncryptionKey = &secret
		}
		l := get(t, s, o)
		n := rng.IntN(300)
		var want [][]byte
		for i := range n {
			want = append(want, bytes.Repeat([]byte{byte(i)}, rng.IntN(1500)))
		}
		if _, err := l.Append(ctx, want...); err != nil {
			t.Fatal(err)
		}
		cleared := map[int]bool{}
		for range rng.IntN(4) {
			from := rng.IntN(n + 1)
			to := from + rng.IntN(n+1-from)
			if _, err := l.Clear(ctx, uint64(from), uint64(to)); err != nil {
				t.Fatal(err)
			}
			for i := from; i < to; i++ {
				cleared[i] = true
			}
		}
		key := l.Key()
		var file bytes.Buffer
		var last uint64
		eo := ExportOptions{Secret: seed%3 == 0, Progress: func(done, total uint64) { last = total - done }}
		if err := s.Export(ctx, key, &file, eo); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if last != 0 {
			t.Errorf("progress ends %d blocks early", last)
		}

		to := memory(t, Options{})
		got, err := to.Import(ctx, bytes.NewReader(file.Bytes()))
		if err != nil || got != key {
			t.Fatalf("seed %d: import %s, %v", seed, got, err)
		}
		r := get(t, to, LogOptions{Key: &key, MustExist: true, Session: o.Session})
		if r.Length() != uint64(n) || n > 0 && !bytes.Equal(r.Head().Signature, l.Head().Signature) || r.Writable() != eo.Secret {
			t.Errorf("seed %d: imported %d of %d blocks, writable %v", seed, r.Length(), n, r.Writable())
		}
		for i := range want {
			b, err := r.Get(ctx, uint64(i))
			if cleared[i] {
				if !errors.Is(err, hypercore.ErrNotFound) {
					t.Errorf("seed %d: block %d, which was cleared: %v", seed, i, err)
				}
			} else if err != nil || !bytes.Equal(b, want[i]) {
				t.Errorf("seed %d: block %d: %d bytes, %v", seed, i, len(b), err)
			}
		}
		for p, err := range r.Audit(ctx) {
			t.Errorf("seed %d: audit: %v, %v", seed, p, err)
		}
		// Again is fine, and nothing that was changed or cut off gets in.
		if _, err := to.Import(ctx, bytes.NewReader(file.Bytes())); err != nil {
			t.Errorf("import again: %v", err)
		}
		if n > 0 {
			bad := bytes.Clone(file.Bytes())
			bad[len(bad)-1-rng.IntN(len(bad)-64)] ^= 1
			fresh := memory(t, Options{})
			if _, err := fresh.Import(ctx, bytes.NewReader(bad)); err == nil {
				l := get(t, fresh, LogOptions{Key: &key})
				for p, err := range l.Audit(ctx) {
					t.Errorf("a changed file imported: %v, %v", p, err)
				}
				l.Close()
			}
			fresh2 := memory(t, Options{})
			if _, err := fresh2.Import(ctx, bytes.NewReader(bad[:len(bad)/2])); err == nil {
				t.Error("half a file imported without an error")
			}
		}
		r.Close()
		l.Close()
	}
}

func Example() {
	store, err := Open(storage.NewMemory(), Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	log, err := store.Namespace("notes").Get(LogOptions{Name: "inbox"})
	if err != nil {
		panic(err)
	}
	defer log.Close()
	ctx := context.Background()
	if _, err := log.Append(ctx, []byte("hello"), []byte("world")); err != nil {
		panic(err)
	}
	for block, err := range log.Blocks(ctx, hypercore.BlockRange{}) {
		fmt.Println(block.Index, string(block.Data), err)
	}
	// Output:
	// 0 hello <nil>
	// 1 world <nil>
}
