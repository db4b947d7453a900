package home

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/cloudbevy/bevy/client"
)

// A lane leads to a server, and may be closed after some requests.
type lane struct {
	http.Handler
	mu    sync.Mutex
	left  int // requests that it lets through; -1 is all
	taken int
}

func (l *lane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.taken++
	closed := l.left == 0
	if l.left > 0 {
		l.left--
	}
	l.mu.Unlock()
	if closed { // which is not tried again, as a server that is busy is
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>closed</Message></Error>", http.StatusForbidden)
		return
	}
	l.Handler.ServeHTTP(w, r)
}

func (l *lane) open(requests int) (taken int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, l.left, l.taken = l.taken, requests, 0
	return taken
}

// Wherever it breaks while files are freed to a backup: each can be read, and what is
// not in the backup is still here.
func TestFreeingToABackupMayBreakAtAnyPoint(t *testing.T) {
	shop, m := newMachine(t, "", "shop"), newMachine(t, "", "laptop")
	e := shop.environment("")
	if _, err := buckets(e).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("safe")}); err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(e.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	way := &lane{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }}, left: -1}
	server := httptest.NewServer(way)
	defer server.Close()
	m.write("cold/first", "the first")
	m.do("POST", "/folders", client.AddFolder{Path: m.dir + "/cold", Sparse: true}, nil)
	m.do("POST", "/backups", client.AddBackup{Place: client.BackupPlace{Address: "s3://safe/one", Endpoint: server.URL, AccessKey: e.AccessKey, Secret: e.Secret}}, nil)

	want := map[string]string{"first": "the first"}
	freed, step := 0, 4
	if os.Getenv("BEVY_LONG") != "" {
		step = 1
	}
	for n := 0; freed < 2; n += step {
		name := fmt.Sprint("file", n)
		want[name] = strings.Repeat(name, 20_000) // more than one block
		m.write("cold/"+name, want[name])
		m.until(name, func() bool { return m.folder("cold").Files == uint64(len(want)) })
		way.open(n)
		var out client.Freed
		err := m.Do(t.Context(), "DELETE", "/folders/cold/contents?path=/", nil, &out)
		way.open(0)
		if err == nil {
			if freed++; out.Backup != "s3://safe/one" || out.Bytes == 0 {
				t.Errorf("%+v", out)
			}
			var told *client.Error
			_, err := m.content("cold", name)
			if !errors.As(err, &told) || told.Code != client.CodeOffline || !strings.Contains(told.Message, "s3://safe/one does not answer") {
				t.Errorf("read of what is not at hand: %v", err)
			}
		} else if text, err := m.content("cold", name); err != nil || text != want[name] {
			t.Fatalf("after %d requests %s is not here any more, and was not freed: %v", n, name, err)
		}
		if n%5 == 4 || err == nil {
			m.down()
			m.up() // it had forgotten that the backup did not answer
		}
		way.open(-1)
		if n%5 == 4 || err == nil {
			for name, text := range want {
				if got, err := m.content("cold", name); err != nil || got != text {
					t.Fatalf("after %d requests: %s has %d bytes: %v", n, name, len(got), err)
				}
			}
		}
		if n > 60 {
			t.Fatal("it never went through")
		}
	}
}

// content reads a file of a folder.
func (m *machine) content(folder, name string) (string, error) {
	answer, err := m.Stream(m.t.Context(), "GET", "/folders/"+folder+"/content?path=/"+name, nil, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var b strings.Builder
	_, err = io.Copy(&b, answer.Body)
	return b.String(), err
}

// A machine that never had a file, and whose peers have it no more, reads it from the
// backup.
func TestWhatNoMachineHasIsReadThrough(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("cold/big", strings.Repeat("0123456789abcdef", 20_000))
	a.write("cold/small", "hello")
	a.do("POST", "/folders", client.AddFolder{Path: a.dir + "/cold", Sparse: true}, nil)
	a.until("the files", func() bool { return a.folder("cold").Files == 2 })
	place := t.TempDir()
	a.do("POST", "/backups", client.AddBackup{Place: client.BackupPlace{Address: place}}, nil)
	var out client.Freed
	a.do("DELETE", "/folders/cold/contents?path=/", nil, &out)
	if out.Files != 2 || out.Backup != place {
		t.Fatalf("%+v", out)
	}
	a.pair(b)
	b.until("the folder", func() bool { return b.folder("cold").Files == 2 })
	for name, want := range map[string]string{"small": "hello", "big": strings.Repeat("0123456789abcdef", 20_000)} {
		if got, err := b.content("cold", name); err != nil || got != want {
			t.Errorf("%s has %d bytes: %v", name, len(got), err)
		}
	}
	// Then the first one may have it from there.
	if err := os.RemoveAll(place); err != nil {
		t.Fatal(err)
	}
	a.wait("the file from the other", func() bool {
		got, err := a.content("cold", "small")
		return err == nil && got == "hello"
	})
}

// A drill finds the files that a backup can't bring back, and leaves nothing behind.
func TestADrillFindsWhatCannotBeRestored(t *testing.T) {
	m := newMachine(t, "", "laptop")
	m.write("cold/a", "hello")
	m.write("cold/b", strings.Repeat("0123456789abcdef", 20_000))
	m.do("POST", "/folders", client.AddFolder{Path: m.dir + "/cold", Sparse: true}, nil)
	m.until("the files", func() bool { return m.folder("cold").Files == 2 })
	begin := func() (b client.Backup, made client.BackedUp) {
		m.do("POST", "/backups", client.AddBackup{Place: client.BackupPlace{Address: t.TempDir()}}, &b)
		m.do("POST", "/backups/"+b.ID+"/runs", nil, &made)
		return b, made
	}
	check := func(b client.Backup) (out client.BackupChecked) {
		m.do("POST", "/backups/"+b.ID+"/checks", client.CheckBackup{Restore: true}, &out)
		return out
	}
	whole, _ := begin()
	m.do("DELETE", "/folders/cold/contents?path=/b", nil, nil)
	if out := check(whole); !out.Restored || out.Files != 2 || out.FileBytes != 320_005 || out.Folders != 1 || out.Problem != "" || out.Unreadable != 0 {
		t.Errorf("a whole backup: %+v", out)
	}
	// What is in the first alone is not in a second while the first can't be read.
	away := whole.Address + ".away"
	if err := os.Rename(whole.Address, away); err != nil {
		t.Fatal(err)
	}
	second, made := begin()
	if made.MissingFiles != 1 || len(made.MissingNames) != 1 || made.MissingNames[0] != "cold/b" || len(made.Away) != 1 || !strings.Contains(made.Away[0], whole.Address) {
		t.Errorf("while the first is away: %+v", made)
	}
	if n := m.notice("backup-lacks"); n.Subject != second.Address {
		t.Errorf("%+v", n)
	}
	if out := check(second); !out.Restored || out.Files != 1 || out.Unreadable != 1 || !strings.HasPrefix(out.Problem, "cold/b: ") {
		t.Errorf("a backup that lacks something: %+v", out)
	}
	if err := os.Rename(away, whole.Address); err != nil {
		t.Fatal(err)
	}
	made = client.BackedUp{}
	m.do("POST", "/backups/"+second.ID+"/runs", nil, &made)
	if made.MissingFiles != 0 || len(made.Away) != 0 || made.Copied == 0 {
		t.Errorf("once it is there: %+v", made)
	}
	if n := m.notice("backup-lacks"); n.Code != "" {
		t.Errorf("%+v", n)
	}
	if err := os.RemoveAll(whole.Address); err != nil {
		t.Fatal(err)
	}
	if out := check(second); !out.Restored || out.Files != 2 || out.Unreadable != 0 {
		t.Errorf("the second when the first is gone: %+v", out)
	}
	left, err := filepath.Glob(filepath.Join(m.home.dir, "drill-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if text, err := m.content("cold", "a"); err != nil || text != "hello" {
		t.Errorf("the file itself: %q, %v", text, err)
	}
}

// A bucket, and a folder that is not on this disk, are freed, too: to a backup, or as
// another machine has them.
func TestABucketIsFreed(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	cold := strings.Repeat("0123456789abcdef", 20_000)
	store := buckets(a.environment(""))
	if _, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("cold")}); err != nil {
		t.Fatal(err)
	}
	putObject(t, store, "cold", "deep/one", cold)
	putObject(t, store, "cold", "two", "hello")
	free := func(m *machine, path string) (out client.Freed, err error) {
		err = m.Do(t.Context(), "DELETE", "/folders/cold/contents?path="+path, nil, &out)
		return out, err
	}
	var told *client.Error
	if _, err := free(a, "/"); !errors.As(err, &told) || told.Code != client.CodeDenied {
		t.Fatalf("what is nowhere else: %v", err)
	}
	place := t.TempDir()
	a.do("POST", "/backups", client.AddBackup{Place: client.BackupPlace{Address: place}}, nil)
	out, err := free(a, "/deep")
	if err != nil || out.Backup != place || out.Files != 1 || out.Bytes < 320_000 {
		t.Fatalf("%+v, %v", out, err)
	}
	a.until("it counts", func() bool { f := a.folder("cold"); return f.Sparse && f.Missing >= 320_000 })
	if object(t, store, "cold", "deep/one") != cold || object(t, store, "cold", "two") != "hello" {
		t.Error("it can't be read through")
	}

	// Another machine brings all of it, as it has none on its disk, and the backup is
	// gone: it is freed where the other one keeps it.
	a.pair(b)
	b.until("all of it", func() bool { f := b.folder("cold"); return f.Files == 2 && f.Missing == 0 })
	if err := os.RemoveAll(place); err != nil {
		t.Fatal(err)
	}
	var list client.Backups
	a.do("GET", "/backups", nil, &list)
	a.do("DELETE", "/backups/"+list.Backups[0].ID+"?anyway=true", nil, nil)
	b.add("cold", "cold")
	b.until("it is on the disk", func() bool { return b.reads("cold/deep/one") == cold })
	a.wait("to hear that it is there", func() bool {
		out, err = free(a, "/")
		return err == nil
	})
	if out.Backup != "" || out.Files != 2 {
		t.Errorf("%+v", out)
	}
	if object(t, store, "cold", "two") != "hello" || object(t, store, "cold", "deep/one") != cold {
		t.Error("it does not come from the other machine")
	}
	if _, err := free(b, "/"); !errors.As(err, &told) || told.Code != client.CodeDenied {
		t.Errorf("what is kept on the disk: %v", err)
	}
}

// Whoever has not the room is told before anything is brought, and what a drill left
// that was ended by force goes.
func TestADrillNeedsRoom(t *testing.T) {
	var told *client.Error
	if err := roomFor(10<<30, 1<<30, "here"); !errors.As(err, &told) || told.Code != client.CodeFull || !strings.Contains(told.Cause, "1024 in here") {
		t.Errorf("%v", err)
	}
	if err := roomFor(10<<30, 11<<30, "here"); err != nil {
		t.Error(err)
	}
	m := newMachine(t, "", "laptop")
	m.down()
	left := filepath.Join(m.home.dir, "drill-123", "logs")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	m.up()
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
