package home

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// copyAll copies a folder as a backup does.
func copyAll(t *testing.T, from, to string) {
	t.Helper()
	cp, err := exec.LookPath("cp")
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(cp, "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// notice returns the notice of a code, "" if there is none.
func (m *machine) notice(code string) client.Notice {
	m.t.Helper()
	var all client.Notices
	m.do("GET", "/notices", nil, &all)
	for _, n := range all.Notices {
		if n.Code == code {
			return n
		}
	}
	return client.Notice{}
}

// self is the key of the machine.
func (m *machine) self() string {
	m.t.Helper()
	var all client.Machines
	m.do("GET", "/machines", nil, &all)
	for _, x := range all.Machines {
		if x.This {
			return x.ID
		}
	}
	m.t.Fatal("it is no machine of its cloud")
	return ""
}

// A home that is put back from a backup is another machine, which keeps the folders
// that it kept, and says so until the one that it was is taken out.
func TestAHomeThatWasPutBackKeepsItsFolders(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("docs/a.txt", "hello")
	a.write("gone/x.txt", "x")
	a.write("dropped/y.txt", "y")
	a.add("docs", "")
	a.add("gone", "")
	a.add("dropped", "")
	a.pair(b)
	b.until("the folder", func() bool { return b.folder("docs").State == "safe" && b.folder("gone").Files == 1 })
	b.add("mine", "docs")
	was := a.self()
	a.down()
	backup := filepath.Join(t.TempDir(), "data")
	copyAll(t, a.data, backup)
	a.up()
	a.write("docs/later.txt", "later")
	b.until("what is later", func() bool { return b.reads("mine/later.txt") == "later" })
	a.down()
	for _, dir := range []string{a.data, filepath.Join(a.dir, "gone")} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	copyAll(t, backup, a.data)
	a.up()
	if a.self() == was {
		t.Fatal("it is the same machine")
	}
	docs := filepath.Join(a.dir, "docs")
	if got := a.folder("docs").Path; got != docs {
		t.Errorf("docs is kept at %q, want %q", got, docs)
	}
	if got := a.folder("gone").Path; got != "" {
		t.Errorf("what is not on the disk is kept at %q", got)
	}
	n := a.notice("another-machine")
	if !strings.Contains(n.Text, "docs") || !strings.Contains(n.Text, "backup") || strings.Contains(n.Text, "gone") || n.Fix != "bevy machines rm "+was[:8]+", if that one is gone for good" {
		t.Errorf("it says: %+v", n)
	}
	a.write("docs/new.txt", "new")
	b.write("mine/other.txt", "other")
	b.until("what is new", func() bool { return b.reads("mine/new.txt") == "new" })
	a.until("the other's", func() bool { return a.reads("docs/other.txt") == "other" && a.reads("docs/later.txt") == "later" })

	// Who drops a folder is not given it again.
	a.do("DELETE", "/folders/dropped", client.DropFolder{}, nil)
	a.down()
	a.up()
	if got := a.folder("dropped").Path; got != "" || a.folder("docs").Path != docs {
		t.Errorf("what was dropped is kept at %q", got)
	}
	a.do("DELETE", "/machines/"+was[:8], nil, nil)
	a.until("it says nothing more", func() bool { return a.notice("another-machine").Code == "" })
}

// A disk that is put back whole looks like the same machine to itself. It learns from
// the others that it is not, keeps its folders, and what it wrote until then.
func TestADiskThatWasPutBackGoesOn(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("docs/a.txt", "hello")
	a.write("docs/changed.txt", "first")
	a.add("docs", "")
	a.pair(b)
	b.until("the folder", func() bool { return b.folder("docs").State == "safe" })
	b.add("mine", "docs")
	b.until("the file", func() bool { return b.reads("mine/changed.txt") == "first" })
	was := a.self()
	a.down()

	// What is copied now goes on for a while, without being known for a copy.
	docs, snapshot := filepath.Join(a.dir, "docs"), a.data
	a.data = filepath.Join(t.TempDir(), "data")
	copyAll(t, snapshot, a.data)
	copyAll(t, docs, docs+".before")
	store, err := storage.Disk{Dir: filepath.Join(a.data, "cloud", "logs"), Adopt: true}.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	a.up()
	if a.self() != was {
		t.Fatal("it is another machine already")
	}
	a.write("docs/lost.txt", "lost")
	a.write("docs/changed.txt", "second")
	b.until("what will be lost", func() bool { return b.reads("mine/lost.txt") == "lost" && b.reads("mine/changed.txt") == "second" })
	a.down()
	if err := os.RemoveAll(docs); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(docs+".before", docs); err != nil {
		t.Fatal(err)
	}

	// The disk is what it was. Somebody writes before there is a network.
	a.data, a.net = snapshot, ""
	a.up()
	if a.self() != was {
		t.Fatal("it knows already")
	}
	a.write("docs/since.txt", "since")
	a.until("what was written since", func() bool { return a.folder("docs").Files == 3 })
	a.down()
	a.net = net
	a.up()
	b.until("what was written since", func() bool { return b.reads("mine/since.txt") == "since" })
	a.until("what was lost", func() bool {
		return a.reads("docs/lost.txt") == "lost" && a.reads("docs/changed.txt") == "second"
	})
	if a.self() == was {
		t.Error("it is the same machine")
	}
	if n := a.notice("another-machine"); !strings.Contains(n.Text, "earlier state") || !strings.Contains(n.Text, "docs") {
		t.Errorf("it says: %+v", n)
	}
	if got := b.reads("mine/a.txt") + a.reads("docs/a.txt") + a.reads("docs/since.txt"); got != "hellohellosince" {
		t.Errorf("the rest is %q", got)
	}
}
