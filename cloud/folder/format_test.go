package folder

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
)

// What was written once is read for ever: docs/formats/folder.md.
func TestBytesStayWhatTheyAre(t *testing.T) {
	when := time.Date(2026, 11, 23, 15, 12, 3, 456, time.UTC)
	for _, c := range []struct {
		e    Entry
		want string
	}{
		{Entry{Kind: Dir}, "0102"},
		{Entry{Kind: File, Content: content.Empty()}, "010103020100"},
		{
			Entry{Kind: File, Mode: 0o640 | fs.ModeSetuid, ModTime: when, Content: content.Empty(), live: [8]byte{1, 2, 3}, Growing: true},
			"01010103fda0090208" + "c8df8d2948b5ea18" + "03020100" + "0509010203000000000001",
		},
		{Entry{Kind: File, Content: content.Empty(), Attributes: []byte("ab"), extra: []byte("\x20\x01x")}, "010103020100" + "070a" + "e3b0c44298fc1c14" + "6162" + "200178"},
		{Entry{Kind: Symlink, Link: "../x", extra: []byte("\x20\x01x")}, "010304042e2e2f78200178"},
	} {
		got := hex.EncodeToString(c.e.encode())
		if got != c.want {
			t.Errorf("%+v is %s, want %s", c.e, got, c.want)
		}
		b, err := hex.DecodeString(c.want)
		must(t, err)
		if e, err := decode(b); err != nil || fmt.Sprint(e) != fmt.Sprint(c.e) {
			t.Errorf("%s is %+v (%v), want %+v", c.want, e, err, c.e)
		}
	}
	// Attributes of another content are none.
	b, err := hex.DecodeString("010103020100" + "070a" + "e3b0c44298fc1c15" + "6162")
	must(t, err)
	if e, err := decode(b); err != nil || e.Attributes != nil {
		t.Errorf("attributes of another content are %q (%v)", e.Attributes, err)
	}
	file := Entry{Kind: File, Content: content.Empty(), Attributes: []byte("ab")}
	if e, err := decode(withOrigin(file.encode(), writerOf(1), when)); err != nil || string(e.Attributes) != "ab" || e.Writer != writerOf(1) {
		t.Errorf("with its origin a file is %+v (%v)", e, err)
	}
	e := Entry{Kind: Dir, extra: []byte("\x20\x01x")}
	want := "01020628" + fmt.Sprintf("%x", [32]byte(writerOf(1))) + "c8df8d2948b5ea18" + "200178"
	if got := hex.EncodeToString(withOrigin(e.encode(), writerOf(1), when)); got != want {
		t.Errorf("with its origin it is %s, want %s", got, want)
	}
}
