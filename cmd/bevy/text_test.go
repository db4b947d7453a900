package main

import (
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func TestNumbersAsPeopleReadThem(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count %d: got %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10188: "9.9 KiB", 10189: "10 KiB", 1<<20 - 1: "1.0 MiB", 15 << 20: "15 MiB", 3 << 40: "3.0 TiB", 1<<64 - 1: "16777216 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size %d: got %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0:00", 59600 * time.Millisecond: "1:00", 3599 * time.Second: "59:59", 3661 * time.Second: "1:01:01"} {
		if got := minutes(d); got != want {
			t.Errorf("minutes %v: got %q, want %q", d, got, want)
		}
	}
	for s, want := range map[string]uint64{"0": 0, "512": 512, "7B": 7, "64KiB": 64 << 10, "2MiB": 2 << 20, "1GiB": 1 << 30} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("parse %q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "B", "KiB", "-1", "1.5MiB", "1kb", "1 KiB", "99999999999999999999", "18446744073709551615KiB"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("parse %q: got %d, want an error", s, got)
		}
	}
}

func TestNearestWord(t *testing.T) {
	names := []string{"append", "audit", "cat", "clear", "create", "get", "info", "ls", "truncate"}
	for word, want := range map[string]string{"apend": "append", "sl": "ls", "cta": "cat", "truncat": "truncate", "trunc": "truncate",
		"in": "info", "frobnicate": "", "x": "", "": "", "creat": "create", "claer": "clear"} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ä", "a", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance of %q and %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestBlockLists(t *testing.T) {
	got, err := parseBlocks("3,10-20,30-")
	want := []hypercore.Range{{Start: 3, End: 4}, {Start: 10, End: 21}, {Start: 30, End: openEnd}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	want[2].End = 40
	if got, err := within(got, 40); err != nil || !slices.Equal(got, want) {
		t.Errorf("within 40 blocks: got %v, %v, want %v", got, err, want)
	}
	for _, length := range []uint64{0, 20, 29} {
		if got, err := within(got, length); err == nil {
			t.Errorf("within %d blocks: got %v, want an error", length, got)
		}
	}
	for _, s := range []string{"", ",", "1,", "-", "-1", "2-1", "a", "1-2-3", "0x1", "9007199254740992", "1 "} {
		if got, err := parseBlocks(s); err == nil {
			t.Errorf("parse %q: got %v, want an error", s, got)
		}
	}
}

func FuzzParseBlocks(f *testing.F) {
	for _, s := range []string{"3,10-20,30-", "0", "1-1", "9007199254740991-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ranges, err := parseBlocks(s)
		if err != nil {
			return
		}
		again := ""
		for i, r := range ranges {
			if r.Start >= r.End || r.Start > maxIndex {
				t.Fatalf("%q: got range %v", s, r)
			}
			if i > 0 {
				again += ","
			}
			if r.End == openEnd {
				again += fmt.Sprintf("%d-", r.Start)
			} else {
				again += blockList(r)
			}
		}
		if got, err := parseBlocks(again); err != nil || !slices.Equal(got, ranges) {
			t.Fatalf("%q is %v, and %q is %v, %v", s, ranges, again, got, err)
		}
	})
}

func TestEachErrorHasItsCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want code
	}{
		{nil, codeOK},
		{fmt.Errorf("anything"), codeFailed},
		{hypercore.ErrLength, codeUsage},
		{storage.ErrNotFound, codeNotFound},
		{fs.ErrNotExist, codeNotFound},
		{hypercore.ErrNotWritable, codeDenied},
		{fs.ErrPermission, codeDenied},
		{storage.ErrReadOnly, codeDenied},
		{storage.ErrLocked, codeConflict},
		{hypercore.ErrFrozen, codeConflict},
		{&corestore.CopiedError{}, codeConflict},
		{syscall.ECONNREFUSED, codeOffline},
		{storage.ErrCorrupt, codeCorrupt},
		{hypercore.ErrSignature, codeCorrupt},
		{storage.ErrFull, codeFull},
		{syscall.ENOSPC, codeFull},
		{wrong("", "", "x"), codeUsage},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("doing something: %w", err)
		}
		if got := codeOf(err); got != c.want {
			t.Errorf("%v: got code %d, want %d", c.err, got, c.want)
		}
	}
}

// Who reads our output may go away, which is no failure; a full disk behind it
// is one.
func TestOutputThatNobodyReads(t *testing.T) {
	env := newStore(t)
	for err, want := range map[error]code{syscall.EPIPE: codeOK, syscall.ENOSPC: codeFull} {
		for _, args := range [][]string{{"version"}, {"hyper", "core", "ls"}, {"hyper", "core", "ls", "--json"}, {"hyper", "core", "cat", "a"}, {"hyper", "core", "info", "a"}} {
			var s screen
			if got := run(t.Context(), args, nil, brokenPipe{err}, &s, env); got != int(want) {
				t.Errorf("%v and %q: got exit code %d, want %d\n%s", err, args, got, want, &s)
			}
		}
	}
}

func TestLongLinesAreFoldedForATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"short":                                 "short",
		"notices  warning: one two three four":  "notices  warning: one two\n         three four",
		"         try: one two three four five": "         try: one two\n         three four five",
		"cause: one two three four five":        "cause: one two three four\n       five",
		"one two three four five six se":        "one two three four five\nsix se",
		"http://a-long-address.example/x y":     "http://a-long-address.example/x y",
		"a\nb":                                  "a\nb",
		"ééééé ééééé ééééé ééééé ééé":           "ééééé ééééé ééééé ééééé\nééé",
	} {
		if got := fold(in, 26); got != want {
			t.Errorf("%q is folded to\n%s\nand not to\n%s", in, got, want)
		}
	}
}
