package disk

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestPlanOfAllCases(t *testing.T) {
	at := func(n int64) *stat { return &stat{kind: kindFile, size: n, mtime: n, mode: 0o644} }
	in := func(stamp string) *entry { return &entry{kind: kindFile, stamp: stamp} }
	known := &row{stat: *at(1), stamp: "a"}
	racy := &row{stat: *at(1), stamp: "a", racy: true}
	here := &row{stat: *at(1)}
	dir := &row{stat: stat{kind: kindDir, mode: 0o755, inode: 1}, stamp: "a"}
	link := &row{stat: stat{kind: kindLink, link: "x", inode: 1}, stamp: "a"}
	for _, c := range []struct {
		what   string
		disk   *stat
		index  *row
		folder *entry
		want   action
	}{
		{"nothing anywhere", nil, nil, nil, nothing},
		{"new here", at(1), nil, nil, put},
		{"new there", nil, nil, in("a"), write},
		{"new on both sides", at(1), nil, in("a"), compare},
		{"as it was", at(1), known, in("a"), nothing},
		{"changed there", at(1), known, in("b"), write},
		{"removed there", at(1), known, nil, erase},
		{"changed here", at(2), known, in("a"), put},
		{"changed on both sides", at(2), known, in("b"), compare},
		{"changed here, removed there", at(2), known, nil, put},
		{"removed here", nil, known, in("a"), drop},
		{"removed here, changed there", nil, known, in("b"), write},
		{"removed on both sides", nil, known, nil, forget},
		{"perhaps changed here", at(1), racy, in("a"), put},
		{"perhaps changed here, changed there", at(1), racy, in("b"), compare},
		{"perhaps changed here, removed there", at(1), racy, nil, put},
		{"left on the disk only", at(1), here, nil, nothing},
		{"left on the disk only, changed", at(2), here, nil, put},
		{"left on the disk only, made there", at(1), here, in("a"), write},
		{"left on the disk only, removed", nil, here, nil, forget},
		{"another kind", &stat{kind: kindDir}, known, in("a"), put},
		{"another inode", &stat{kind: kindFile, size: 1, mtime: 1, mode: 0o644, inode: 7}, known, in("a"), put},
		{"other permissions", &stat{kind: kindFile, size: 1, mtime: 1, mode: 0o600}, known, in("a"), put},
		{"a folder, in which something changed", &stat{kind: kindDir, mode: 0o755, inode: 2, mtime: 9}, dir, in("a"), nothing},
		{"a folder with other permissions", &stat{kind: kindDir, mode: 0o700}, dir, in("a"), put},
		{"a link, read again", &stat{kind: kindLink, link: "x", inode: 9}, link, in("a"), nothing},
		{"a link elsewhere", &stat{kind: kindLink, link: "y", inode: 1}, link, in("a"), put},
	} {
		if got := plan(c.disk, c.index, c.folder); got != c.want {
			t.Errorf("%s: action %d, want %d", c.what, got, c.want)
		}
	}
}

func TestFolderReachesTheOtherDevice(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/notes/today.txt", "hello")
	a.write("/notes/big", strings.Repeat("0123456789", 50_000))
	a.write("/notes-2", "x")
	must(t, os.MkdirAll(a.at("/empty/deep"), 0o750))
	must(t, os.Symlink("../somewhere", a.at("/notes/link")))
	at := time.Date(2001, 2, 3, 4, 5, 6, 700_000_123, time.UTC)
	must(t, os.Chmod(a.at("/notes-2"), 0o640))
	must(t, os.Chtimes(a.at("/notes-2"), at, at))
	converge(t, a, b)
	same(t, "other device", b.tree(), a.tree())
	same(t, "cloud", a.cloud.tree(), a.tree())
	info, err := os.Stat(b.at("/notes-2"))
	must(t, err)
	if !windows && (info.Mode().Perm() != 0o640 || !info.ModTime().Equal(at)) {
		t.Errorf("mode %v, time %v", info.Mode(), info.ModTime())
	}
	a.wantCalm()
	b.wantCalm()
	if s := b.k.Status(); s.Files != 3 || s.Bytes != 500_006 {
		t.Errorf("status %+v", s)
	}

	b.write("/notes/today.txt", "hello again")
	b.remove("/empty")
	b.rename("/notes-2", "/moved/notes")
	converge(t, a, b)
	same(t, "first device", a.tree(), b.tree())
	if got := a.read("/notes/today.txt") + a.read("/moved/notes"); got != "hello againx" {
		t.Errorf("it has %q", got)
	}
}

func TestAtRestNothingIsSaidOrOpened(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	for _, p := range []string{"/x", "/d/y", "/d/e/z"} {
		a.write(p, p)
	}
	converge(t, a, b)
	v, _ := a.cloud.version(t.Context())
	opened := b.cloud.opened
	a.again()
	b.again()
	converge(t, a, b)
	if now, _ := a.cloud.version(t.Context()); string(now) != string(v) || b.cloud.opened != opened {
		t.Errorf("version %s after %s, %d opened after %d", now, v, b.cloud.opened, opened)
	}
}

func TestBothChangesAreKept(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/f.txt", "old")
	a.write("/gone", "old")
	converge(t, a, b)
	a.write("/f.txt", "from a")
	b.write("/f.txt", "from b, longer")
	a.write("/new", "new a")
	b.write("/new", "new bb")
	a.remove("/gone")
	b.write("/gone", "edited")
	converge(t, a, b)
	same(t, "both", a.tree(), b.tree())
	for _, want := range []string{"from a", "from b, longer", "new a", "new bb", "edited"} {
		if !strings.Contains(a.tree(), want) {
			t.Errorf("%q is lost:\n%s", want, a.tree())
		}
	}
	if n := strings.Count(a.tree(), "conflict from"); n != 2 {
		t.Errorf("%d conflicts:\n%s", n, a.tree())
	}
}

func TestEqualFoldersAgreeWithoutConflict(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/d/x", "same")
	b.write("/d/x", "same")
	a.write("/only a", "1")
	b.write("/only b", "2")
	converge(t, a, b)
	same(t, "both", a.tree(), b.tree())
	if strings.Contains(a.tree(), "conflict") || strings.Count(a.tree(), "\n") != 4 {
		t.Error(a.tree())
	}
	// Without its index a device compares, and changes nothing.
	v, _ := a.cloud.version(t.Context())
	must(t, a.k.Forget())
	a.again()
	converge(t, a, b)
	if now, _ := a.cloud.version(t.Context()); string(now) != string(v) {
		t.Errorf("a new index has made the version %s of %s", now, v)
	}
}
