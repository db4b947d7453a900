package pair

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/gtank/ristretto255"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The numbers are those of draft-irtf-cfrg-cpace, "Test vector for CPace using
// group ristretto255 and hash SHA-512".
func TestExchangeIsThatOfTheDraft(t *testing.T) {
	password, channel := []byte("Password"), []byte("\nAinitiator\nBresponder")
	sid := unhex(t, "7e4b4791d6a8ef019b936c79fb7f2c57")
	if got, want := generator(password, channel, sid).Encode(nil), unhex(t, "5e25411ca1ad7c9debfd0b33ad987a95cefef2d3f15dcc8bd26415a5dfe2e15a"); !bytes.Equal(got, want) {
		t.Fatalf("generator %x, want %x", got, want)
	}
	side := func(secret, share string) *exchange {
		s := ristretto255.NewScalar()
		if err := s.Decode(unhex(t, secret)); err != nil {
			t.Fatal(err)
		}
		e := exchangeOf(password, channel, sid, s)
		if want := unhex(t, share); !bytes.Equal(e.share[:], want) {
			t.Fatalf("share %x, want %x", e.share, want)
		}
		return e
	}
	a := side("da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08", "383a85dd236978f17f8c8545b50dabc52a39fcdab2cf8bc531ce040ff77ca82d")
	b := side("d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d", "a6206309c0e8e5f579295e35997ac4300ab3fecec3c17f7b604f3e698fa1383c")
	point := unhex(t, "fa1d0318864e2cacb26875f1b791c9ae83204fe8359addb53e95a2e98893853f")
	want := unhex(t, "e91ccb2c0f5e0d0993a33956e3be59754f3f2b07db57631f5394452ea2e7b4354674eb1f5686c078462bf83bec72e8743df440108e638f3526d9b90e85be096f")
	for _, side := range []struct {
		e     *exchange
		first bool
		share []byte
	}{{a, true, b.share[:]}, {b, false, a.share[:]}} {
		if got, err := side.e.point(side.share); err != nil || !bytes.Equal(got, point) {
			t.Errorf("point %x, %v", got, err)
		}
		if got, err := side.e.key(side.first, side.share, []byte("ADa"), []byte("ADb")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("key %x, %v", got, err)
		}
	}
}

func TestSharesThatAreNoneAreRefused(t *testing.T) {
	s := ristretto255.NewScalar()
	if err := s.Decode(unhex(t, "7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05")); err != nil {
		t.Fatal(err)
	}
	e := &exchange{secret: s}
	good := unhex(t, "2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c")
	want := unhex(t, "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e")
	if got, err := e.point(good); err != nil || !bytes.Equal(got, want) {
		t.Errorf("point %x, %v", got, err)
	}
	for name, share := range map[string][]byte{
		"not on the curve": unhex(t, "2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c"),
		"identity":         make([]byte, 32),
		"not canonical":    bytes.Repeat([]byte{0xff}, 32),
		"short":            good[:31],
		"long":             append(bytes.Clone(good), 0),
		"none":             nil,
	} {
		if _, err := e.point(share); !errors.Is(err, errShare) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysDifferWithEverything(t *testing.T) {
	pair := func(p1, p2, c1, c2, s1, s2 string) bool {
		a, err1 := newExchange([]byte(p1), []byte(c1), []byte(s1), rand.Reader)
		b, err2 := newExchange([]byte(p2), []byte(c2), []byte(s2), rand.Reader)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		ka, err1 := a.key(true, b.share[:], nil, nil)
		kb, err2 := b.key(false, a.share[:], nil, nil)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return bytes.Equal(ka, kb)
	}
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		args [6]string
		want bool
	}{
		{[6]string{"p", "p", "c", "c", "s", "s"}, true},
		{[6]string{long, long, long, long, long, long}, true},
		{[6]string{"p", "q", "c", "c", "s", "s"}, false},
		{[6]string{"p", "p", "c", "d", "s", "s"}, false},
		{[6]string{"p", "p", "c", "c", "s", "r"}, false},
		{[6]string{"pc", "p", "", "c", "s", "s"}, false},
	} {
		if a := tt.args; pair(a[0], a[1], a[2], a[3], a[4], a[5]) != tt.want {
			t.Errorf("%.10q: the keys are the same: %v", a, !tt.want)
		}
	}
}
