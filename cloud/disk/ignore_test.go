package disk

import (
	"strings"
	"testing"
)

func TestIgnoreRules(t *testing.T) {
	for _, c := range []struct{ rules, yes, no string }{
		// Those marked with a slash at their end are folders.
		{"*.tmp", "/a.tmp /d/a.tmp /.tmp /d.tmp/", "/a.tmpx /atmp"},
		{"a", "/a /d/a /d/a/", "/ab /d/ab"},
		{"/a", "/a /a/", "/d/a"},
		{"d/a", "/d/a", "/a /e/d/a"},
		{"a/", "/a/ /d/a/", "/a /d/a"},
		{"/d/*.log", "/d/x.log", "/d/e/x.log /x.log"},
		{"**/a", "/a /d/a /d/e/a", "/ab"},
		{"d/**", "/d/x /d/e/x /d/e/", "/d /d/ /x/d/y"},
		{"d/**/a", "/d/a /d/e/a /d/e/f/a", "/a /d/b /x/d/a"},
		{"a?c", "/abc", "/ac /abbc"},
		{"[a-c]x", "/ax /cx", "/dx /x"},
		{"[!a-c]x", "/dx", "/ax"},
		{`\#a`, "/#a", "/a"},
		{"#a", "", "/#a /a"},
		{`\!a`, "/!a", "/a"},
		{"*\n!keep", "/a /d/b", "/keep /d/keep"},
		{"!keep\n*", "/keep", ""},
		{"a\n!a\na", "/a", ""},
		{"  \n\n\t\n", "", "/a"},
		{"a  ", "/a", "/a__"},
		{"a\r\nb", "/a /b", ""},
		{"/", "", "/a /a/"},
		{"[", "", "/a /["},
		{"ü*", "/üx", "/ux"},
		{"**", "/a /b/c", ""},
		{"a**b", "/axxb", "/a/b"},
		{"***", "/a", ""},
		{"/*\n!/d/", "/a", "/d/"},
	} {
		rs := parseIgnore(c.rules)
		for _, want := range []bool{true, false} {
			paths := c.yes
			if !want {
				paths = c.no
			}
			for p := range strings.FieldsSeq(paths) {
				p, dir := strings.CutSuffix(strings.ReplaceAll(p, "_", " "), "/")
				if got := rs.ignores(p, dir); got != want {
					t.Errorf("rules %q ignore %q (a folder: %v): %v, want %v", c.rules, p, dir, got, want)
				}
			}
		}
	}
	rs := parseIgnore("build/\n!build/keep\n")
	if !rs.ignoresIn("/x/build/keep", false) || rs.ignoresIn("/x/build", false) || !rs.ignoresIn("/build", true) || rs.ignoresIn("", true) {
		t.Error("what is in an ignored folder is not told from what is not")
	}
}

func FuzzIgnore(f *testing.F) {
	f.Add("*.tmp\n!/a/**/b\n[a-", "/a/x/b")
	f.Add("**/**/**/a", "/b/c/d/e/f")
	f.Fuzz(func(t *testing.T, text, path string) {
		rs := parseIgnore(text)
		if checkPath(path, false) != nil {
			return
		}
		file, dir := rs.ignores(path, false), rs.ignores(path, true)
		if rs.ignoresIn(path, false) && !file && !strings.Contains(path[1:], "/") {
			t.Errorf("%q ignores %q only as if it was in something", text, path)
		}
		if !strings.Contains(text, "!") && file && !dir {
			t.Errorf("%q ignores the file %q and not the folder", text, path)
		}
	})
}

func FuzzRow(f *testing.F) {
	f.Add(appendRow(nil, &row{stat: stat{kind: kindFile, size: 5, mtime: -7, mode: 0o644, inode: 9, ctime: 1 << 60}, stamp: "s", racy: true}))
	f.Add(appendRow(nil, &row{stat: stat{kind: kindLink, link: "../x"}, stamp: "s"}))
	f.Add(appendRow(nil, &row{stat: stat{kind: kindDir, mode: 0o755}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRow(b)
		if err != nil {
			return
		}
		again, err := readRow(appendRow(nil, r))
		if err != nil || *again != *r {
			t.Errorf("%x: %+v became %+v, %v", b, r, again, err)
		}
	})
}

func FuzzPlacing(f *testing.F) {
	f.Add(appendPlacing(nil, placing{now: &row{stat: stat{kind: kindFile, size: 5, inode: 9}, stamp: "s"}, temp: newTemp(), parent: 7}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPlacing(b)
		if err != nil {
			return
		}
		again, err := readPlacing(appendPlacing(nil, p))
		if err != nil || *again.now != *p.now || again.temp != p.temp || again.parent != p.parent {
			t.Errorf("%x: %+v became %+v, %v", b, p, again, err)
		}
	})
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"/a", "/a/../b", `/a\b`, "/NUL.x", "/a//b", "C:/x", "/a."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if checkPath(path, true) == nil && checkPath(path, false) != nil {
			t.Errorf("%q can be on Windows only", path)
		}
		if checkPath(path, true) == nil && strings.ContainsAny(path, `\:`) {
			t.Errorf("%q means something else on Windows", path)
		}
	})
}
