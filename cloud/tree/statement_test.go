package tree

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// The examples of docs/formats/tree.md.
func TestBytesAreThoseOfTheFormat(t *testing.T) {
	at := func(s string) uint64 {
		when, err := time.Parse(time.RFC3339, s)
		must(t, err)
		return uint64(when.UnixNano())
	}
	early, late := at("2026-01-02T03:04:05Z"), at("2026-01-02T03:04:06Z")
	plain := record{time: early, value: []byte("pear")}
	deleted := record{time: late, deleted: true, claims: appendClaims(nil, []claim{{0, 3}, {2, 300}})}
	keeping := record{time: late, value: []byte("plum"), kept: appendKept(nil, []keptRecord{{7, plain.append(nil)}})}
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"a value", plain.append(nil), "10 0032961cf2ca8618 70656172"},
		{"a deletion over statements of two writers", deleted.append(nil), "13 00fc3058f2ca8618 02 00 03 02 ac02"},
		{"a value beside one of the same writer", keeping.append(nil), "14 00fc3058f2ca8618 01 07 0d 100032961cf2ca861870656172 706c756d"},
		{"a table", appendTable(nil, early, []Writer{{1: 0xab}}), "18 0032961cf2ca8618 00ab" + strings.Repeat("00", 30)},
		{"a version", Version{Writer{9}: 300, Writer{8}: 2}.AppendTo(nil), "01 02 08" + strings.Repeat("00", 31) + "02 09" + strings.Repeat("00", 31) + "fd2c01"},
	} {
		if got, want := hex.EncodeToString(c.got), strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s: got %s, want %s", c.what, got, want)
		}
	}
	r, err := readRecord(keeping.append(nil))
	must(t, err)
	for seq, k := range eachKept(r.kept) {
		if seq != 7 || string(k.value) != "pear" || k.time != early {
			t.Errorf("kept %d: %+v", seq, k)
		}
	}
	r, err = readRecord(deleted.append(nil))
	must(t, err)
	if got := slices.Collect(eachClaim(r.claims)); !slices.Equal(got, []claim{{0, 3}, {2, 300}}) || !r.deleted {
		t.Errorf("got %v of %+v", got, r)
	}
}

func TestVersionsCover(t *testing.T) {
	a, b := Version{keyOf(1): 3, keyOf(2): 1}, Version{keyOf(1): 2}
	if !a.Covers(b) || b.Covers(a) || !a.Covers(nil) || !a.Covers(a) {
		t.Error("what covers what is wrong")
	}
}

func FuzzStatement(f *testing.F) {
	plain := record{time: 5, value: []byte("pear")}
	f.Add(plain.append(nil))
	r := record{time: 7, deleted: true, claims: appendClaims(nil, []claim{{0, 3}, {2, 300}})}
	f.Add(r.append(nil))
	r = record{time: 7, kept: appendKept(nil, []keptRecord{{9, r.append(nil)}, {7, plain.append(nil)}})}
	f.Add(r.append(nil))
	f.Add(appendTable(nil, 5, []Writer{{1}, {2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := readRecord(b); err == nil {
			if again := r.append(nil); !bytes.Equal(again, b) {
				t.Errorf("%x is written as %x", b, again)
			}
			n := 0
			for c := range eachClaim(r.claims) {
				if c.number >= maxWriters || c.seq == 0 || c.seq > maxSeq {
					t.Errorf("claim %+v", c)
				}
				n++
			}
			if (n > 0) != (r.claims != nil) || n > maxWriters {
				t.Errorf("%d claims in %x", n, r.claims)
			}
			n = 0
			for _, k := range eachKept(r.kept) {
				if k.kept != nil || k.time > maxTime {
					t.Errorf("kept %+v", k)
				}
				n++
			}
			if (n > 0) != (r.kept != nil) || n > maxKept {
				t.Errorf("%d kept in %x", n, r.kept)
			}
		}
		if writers, err := readTable(b); err == nil {
			_, time, _ := readHead(b)
			if again := appendTable(nil, time, writers); !bytes.Equal(again, b) {
				t.Errorf("%x is written as %x", b, again)
			}
		}
	})
}

func FuzzReadVersion(f *testing.F) {
	f.Add(Version{}.AppendTo(nil))
	f.Add(Version{{9}: 300, {8}: 2}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ReadVersion(b)
		if err != nil {
			return
		}
		again, err := ParseVersion(v.Text())
		if err != nil || !maps.Equal(v, again) {
			t.Errorf("%v is read as %v, %v", v, again, err)
		}
	})
}
