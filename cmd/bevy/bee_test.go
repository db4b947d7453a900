package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzEscapedBytesAreReadBack(f *testing.F) {
	for _, s := range []string{"", "a b", "a\tb\n", `\`, `\\x`, `"`, `\"`, "\x00\x7f\u0085\u202e\ufeff", "\xff\xfe", "řeka 🐝", "�", "\xef\xbf"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		s := escape(p)
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || unseen(r) }) || !utf8.ValidString(s) {
			t.Errorf("escape(%q) is %q, which no terminal should get", p, s)
		}
		if s := oneLine(string(p)); strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || unseen(r) }) || oneLine(s) != s {
			t.Errorf("oneLine(%q) is %q, which no terminal should get", p, s)
		}
		if got, err := unescape(s); err != nil || !bytes.Equal(got, p) {
			t.Errorf("unescape(escape(%q)) is %q, %v", p, got, err)
		}
		if got, err := unescape(string(p)); err == nil {
			if again, err := unescape(escape(got)); err != nil || !bytes.Equal(got, again) {
				t.Errorf("unescape(%q) is %q, which is not read back: %q, %v", p, got, again, err)
			}
		}
		if utf8.Valid(p) {
			var back string
			line := jsonLine(string(p))
			if err := json.Unmarshal(line, &back); err != nil || back != string(p) || bytes.ContainsFunc(line, unseen) {
				t.Errorf("jsonLine(%q) is %q, read back as %q, %v", p, line, back, err)
			}
		}
	})
}

func TestWhatIsNoEscapeIsRefused(t *testing.T) {
	for _, s := range []string{`\`, `\q`, `\x1`, `\u12`, `a\`, `\'`, `\"`, `\400`} {
		if got, err := unescape(s); err == nil {
			t.Errorf("unescape(%q) is %q, want an error", s, got)
		}
	}
}

func TestShellWords(t *testing.T) {
	for s, want := range map[string]string{"a": "a", "a/b-c.d": "a/b-c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "ř": "'ř'"} {
		if got := shellWord(s); got != want {
			t.Errorf("shellWord(%q) is %s, want %s", s, got, want)
		}
	}
}

func TestKeysBehindAPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "ab": "ac", "a\xff": "b", "\xff\xff": "", "": ""} {
		if got := after([]byte(prefix)); string(got) != want || (got == nil) != (want == "") {
			t.Errorf("after(%q) is %q, want %q", prefix, got, want)
		}
	}
}

// newBee makes a bee "a" with many entries, in a store of its own, and returns
// its environment, its key and what was said.
func newBee(t *testing.T, entries int) (env []string, key, talk string) {
	t.Helper()
	env = []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	var s screen
	key, exit := command(t, env, nil, &s, "hyper", "bee", "create", "a")
	if exit != 0 {
		t.Fatalf("create: exit code %d\n%s", exit, &s)
	}
	var lines strings.Builder
	for i := range entries {
		fmt.Fprintf(&lines, "k%05d\tvalue %d\n", i, i)
	}
	if _, exit := command(t, env, strings.NewReader(lines.String()), &s, "hyper", "bee", "load", "a"); exit != 0 {
		t.Fatalf("load: exit code %d\n%s", exit, &s)
	}
	return env, strings.TrimSpace(key), s.String()
}

func TestLoadShowsProgress(t *testing.T) {
	_, _, talk := newBee(t, 3)
	for _, want := range []string{`"a"  0 entries  0 B  [0:00]`, eraseLine + `put 3 entries (45 B) in bee "a"`} {
		if !strings.Contains(talk, want) {
			t.Errorf("got %q, want %q in it", talk, want)
		}
	}
}

// A terminal gets nothing that it would act on, and no line that it would break.
func TestTerminalsAreSafe(t *testing.T) {
	env, _, _ := newBee(t, 1)
	var talk bytes.Buffer
	value := "two\n\x1b[2Jlines\tand \\ " + strings.Repeat("x", 100)
	if _, exit := command(t, env, strings.NewReader(value), &talk, "hyper", "bee", "put", "a", "evil"); exit != 0 {
		t.Fatalf("put: exit code %d\n%s", exit, &talk)
	}
	var got screen
	run(t.Context(), []string{"hyper", "bee", "get", "a", "evil"}, nil, &got, &talk, env)
	if want := "two\n" + `\x1b[2Jlines` + "\tand \\ " + strings.Repeat("x", 100) + "\n"; got.String() != want {
		t.Errorf("get: got %q, want %q", &got, want)
	}
	var list screen
	run(t.Context(), []string{"hyper", "bee", "ls", "a"}, nil, &list, &talk, env)
	line, _, _ := strings.Cut(list.String(), "\n")
	if want := `evil  two\n\x1b[2Jlines\tand \\ xxx`; !strings.HasPrefix(line, want) || !strings.HasSuffix(line, "x…") || utf8.RuneCountInString(line) != 79 {
		t.Errorf("ls: got %q (%d letters), want %q and so on to 79 letters", line, utf8.RuneCountInString(line), want)
	}
	if got, _ := command(t, env, nil, &talk, "hyper", "bee", "get", "a", "evil"); got != value {
		t.Errorf("not a terminal: got %q, want %q", got, value)
	}
}

// Who reads a large bee of a peer fetches the blocks that lead to what is asked
// for, keeps them, and is told when others are missing.
func TestFewBlocksOfALargeBeeAreFetched(t *testing.T) {
	here, _, _ := newBee(t, 5000)
	addr, key := serveStore(t, here)
	env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	var talk bytes.Buffer
	for _, args := range [][]string{{"--peer", addr}, nil} {
		got, exit := command(t, env, nil, &talk, append([]string{"hyper", "bee", "get", key, "k02500"}, args...)...)
		if exit != 0 || got != "value 2500" {
			t.Fatalf("%q: got %q and exit code %d, want the value\n%s", args, got, exit, &talk)
		}
	}
	var info logInfo
	out, _ := command(t, env, nil, &talk, "hyper", "core", "info", key, "--json")
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Length != 5001 || info.Held == 0 || info.Held > 50 {
		t.Errorf("%d of %d blocks were fetched, %v; want some and at most 50 of 5001", info.Held, info.Length, err)
	}
	talk.Reset()
	_, exit := command(t, env, nil, &talk, "hyper", "bee", "ls", key)
	if exit != int(codeNotFound) || !strings.Contains(talk.String(), "cause: some of its blocks are not here\ntry:   --peer tcp://") {
		t.Errorf("ls without a peer: got exit code %d, want %d, and\n%s", exit, codeNotFound, &talk)
	}
	got, exit := command(t, env, nil, &talk, "hyper", "bee", "ls", key, "--keys", "--peer", addr)
	if n := strings.Count(got, "\n"); exit != 0 || n != 5000 {
		t.Errorf("ls: got %d entries and exit code %d, want 5000\n%s", n, exit, &talk)
	}
}
