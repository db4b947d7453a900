package content

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// What was written once is read for ever: docs/formats/folder.md.
func TestBytesStayWhatTheyAre(t *testing.T) {
	for _, c := range []struct {
		ref  Ref
		want string
	}{
		{Empty(), "0100"},
		{
			Ref{Size: 5, Hash: hashOf([]byte("hello")), log: LogID{1, 2, 3, 4, 5, 6, 7, 8}, index: 300},
			"01052cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b98240102030405060708fd2c0100",
		},
		{
			Ref{Size: 1 << 33, Hash: hashOf(nil), log: LogID{9}, index: 7, depth: 3},
			"01ff0000000002000000e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85509000000000000000703",
		},
	} {
		if got := hex.EncodeToString(c.ref.AppendTo(nil)); got != c.want {
			t.Errorf("%+v is %s, want %s", c.ref, got, c.want)
		}
		b, err := hex.DecodeString(c.want)
		must(t, err)
		d := compact.NewDecoder(b)
		if got, err := ReadRef(&d); err != nil || got != c.ref {
			t.Errorf("%s is %+v (%v), want %+v", c.want, got, err, c.ref)
		}
	}
	pointers := []pointer{
		{LogID{1}, 10, 70_000, hashOf([]byte("a"))},
		{LogID{1}, 11, 5, hashOf([]byte("b"))},
		{LogID{2}, 3, 1, hashOf([]byte("c"))},
	}
	want := "0101020100000000000000020000000000000003" +
		"0014fe70110100ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" +
		"0000053e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d" +
		"0111012e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"
	if got := hex.EncodeToString(appendNode(nil, 1, pointers)); got != want {
		t.Errorf("the node is %s, want %s", got, want)
	}
	b, err := hex.DecodeString(want)
	must(t, err)
	if n, err := readNode(b, 1, 70_006); err != nil || !slices.Equal(n.pointers, pointers) {
		t.Errorf("got %+v (%v)", n, err)
	}
}
