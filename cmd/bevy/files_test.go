package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/rogpeppe/go-internal/testscript"
)

// until runs a command again and again until it prints what it is to, for what a
// node does by itself: [!] until pattern command...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] until pattern command...")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for began := time.Now(); ; {
		err := ts.Exec(args[1], args[2:]...)
		if (err == nil && pattern.MatchString(ts.ReadFile("stdout"))) != neg {
			return
		}
		if time.Since(began) > 30*time.Second {
			ts.Fatalf("%q was waited for in vain", args[0])
		}
	}
}

// pick sets a variable to what the group of a pattern matches in what the last
// command said: pick pattern variable.
func pick(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pick pattern variable")
	}
	groups := regexp.MustCompile("(?m)" + args[0]).FindStringSubmatch(ts.ReadFile("stderr"))
	if len(groups) != 2 {
		ts.Fatalf("%q is not what was said", args[0])
	}
	ts.Setenv(args[1], groups[1])
}

// fill makes a file of bytes that are the same in each run: fill name size.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill name size")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	_, err = rand.NewChaCha8([32]byte{1}).Read(b)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// damage flips a bit near the end of files, where the newest is: damage pattern.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage pattern")
	}
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("there is no %s", args[0])
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		ts.Check(err)
		b[len(b)*7/8] ^= 1
		ts.Check(os.WriteFile(name, b, 0o600))
	}
}

func TestMomentBeginsBehindTheLastAt(t *testing.T) {
	for _, c := range []struct{ word, what, at string }{
		{"Photos", "Photos", ""},
		{"Photos@2h", "Photos", "2h"},
		{"Photos/a@b/c", "Photos/a@b/c", ""},
		{"Photos/a@b/c@2026-11-23T15:04:05Z", "Photos/a@b/c", "2026-11-23T15:04:05Z"},
		{"Photos/icon@2x.png@", "Photos/icon@2x.png", ""},
		{"Photos/icon@2x.png@yesterday", "Photos/icon@2x.png", "yesterday"},
		{"@2h", "", "2h"},
		{"", "", ""},
	} {
		if what, at := cutMoment(c.word); what != c.what || at != c.at {
			t.Errorf("cutMoment(%q) = %q, %q, want %q, %q", c.word, what, at, c.what, c.at)
		}
	}
}

// What a place is called leads back to it, whatever is in its name.
func TestPlacesAreFoundByWhatTheyAreCalled(t *testing.T) {
	f := &files{folders: []client.Folder{{ID: "1", Name: "Photos"}, {ID: "2", Name: "me@home"}}}
	for _, of := range f.folders {
		for _, path := range []string{"/", "/a", "/a/b c", "/icon@2x.png", "/a@b/c", "/a@b/c@", "/@", "/~", "/ä\n"} {
			for _, at := range []string{"", "2h", "before-trip", "2026-11-23T15:04:05.1Z"} {
				want := place{folder: of, path: path, at: at}
				if got, err := f.find(want.String()); err != nil || got != want {
					t.Errorf("find(%q) = %+v, %v, want %+v", want.String(), got, err, want)
				}
			}
		}
	}
}

func TestPathsOnTheDiskAreFoundInKeptFolders(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	photos := filepath.Join(dir, "photos")
	if err := os.MkdirAll(filepath.Join(photos, "2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := &files{folders: []client.Folder{{ID: "1", Name: "Photos", Path: photos}, {ID: "2", Name: "Away"}, {ID: "3", Name: "2026"}}}
	look := func(word, folder, path string) {
		t.Helper()
		got, err := f.find(word)
		if err != nil || got.folder.Name != folder || got.path != path {
			t.Errorf("find(%q) = %s%s, %v, want %s%s", word, got.folder.Name, got.path, err, folder, path)
		}
	}
	t.Chdir(photos)
	look(photos, "Photos", "/")
	look(filepath.Join(photos, "2026", "sea.jpg"), "Photos", "/2026/sea.jpg")
	look(".", "Photos", "/")
	look("./2026", "Photos", "/2026")
	look("sea.jpg", "Photos", "/sea.jpg")
	look("2026/sea.jpg", "2026", "/sea.jpg") // folders of the cloud go first
	look("Away/x", "Away", "/x")
	look("Photos/", "Photos", "/")
	if p, err := f.find("./2026/@2h"); err != nil || p.at != "2h" || !p.dir {
		t.Errorf("find(./2026/@2h) = %+v, %v", p, err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Symlink(photos, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		look(filepath.Join(dir, "link", "new", "sea.jpg"), "Photos", "/new/sea.jpg")
		look(filepath.Join(dir, "link", "2026"), "Photos", "/2026")
	}
	for _, c := range []struct {
		word string
		code code
	}{{filepath.Join(dir, "other"), codeNotFound}, {"..", codeNotFound}, {"../other", codeNotFound}, {"Away/../x", codeUsage}, {"Awa/x", codeOK}} {
		if _, err := f.find(c.word); codeOf(err) != c.code {
			t.Errorf("find(%q): %v, want code %d", c.word, err, c.code)
		}
	}
	t.Chdir(dir)
	_, err = f.find("Phtos/x")
	if told, ok := err.(*failure); !ok || told.code != codeNotFound || told.try != "Photos/x" {
		t.Errorf("a wrong letter: %#v", err)
	}
}
