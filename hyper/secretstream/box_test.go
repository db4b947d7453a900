package secretstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/noise"
)

func TestDatagramsAreThoseOfSecretStream(t *testing.T) {
	var v struct {
		XX           struct{ HandshakeHash bin }
		SecretStream struct {
			Unordered struct {
				InitiatorSecret, ResponderSecret, Counter, Plain, Envelope bin
			}
		}
	}
	readJSON(t, "testdata/noise.json", &v)
	u := v.SecretStream.Unordered
	first := binary.LittleEndian.AppendUint64(nil, binary.LittleEndian.Uint64(u.Counter)-1)
	initiator := noise.Session{Initiator: true, Hash: [64]byte(v.XX.HandshakeHash)}
	responder := noise.Session{Hash: initiator.Hash}
	a, err := NewBox(initiator, bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBox(responder, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.tx[:], u.InitiatorSecret) || !bytes.Equal(a.rx[:], u.ResponderSecret) || a.tx != b.rx || a.rx != b.tx {
		t.Error("the secrets are not those of secret-stream")
	}
	envelope, err := a.Seal([]byte("before"), u.Plain)
	if err != nil || !bytes.Equal(envelope, append([]byte("before"), u.Envelope...)) {
		t.Fatalf("seal: got %x, %v, want %x after the prefix", envelope, err, u.Envelope)
	}
	for range 2 {
		plain, err := b.Open([]byte("x"), u.Envelope)
		if err != nil || !bytes.Equal(plain, append([]byte("x"), u.Plain...)) {
			t.Errorf("open: got %x, %v, want %x", plain, err, u.Plain)
		}
	}
	next, _ := a.Seal(nil, u.Plain)
	if bytes.Equal(next[:counterSize], u.Counter) {
		t.Error("a nonce was used twice")
	}
	for at := range u.Envelope {
		bad := bytes.Clone(u.Envelope)
		bad[at] ^= 1
		if got, err := b.Open(nil, bad); !errors.Is(err, ErrAuth) || len(got) != 0 {
			t.Errorf("byte %d changed: got %x, %v", at, got, err)
		}
		if _, err := b.Open(nil, u.Envelope[:at]); !errors.Is(err, ErrAuth) {
			t.Errorf("cut to %d bytes: %v", at, err)
		}
	}
	if _, err := a.Open(nil, u.Envelope); !errors.Is(err, ErrAuth) {
		t.Errorf("a side opened its own message: %v", err)
	}
}

func TestABoxEndsBeforeItsNoncesRepeat(t *testing.T) {
	b, err := NewBox(noise.Session{}, bytes.NewReader(make([]byte, 8)))
	if err != nil {
		t.Fatal(err)
	}
	b.counter = b.first - 2
	if _, err := b.Seal(nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Seal(nil, nil); !errors.Is(err, ErrExhausted) || got != nil {
		t.Errorf("seal with a used nonce: %x, %v", got, err)
	}
	if _, err := NewBox(noise.Session{}, bytes.NewReader(nil)); err == nil {
		t.Error("a box began without randomness")
	}
}

// FuzzBoxOpen hands any bytes to a Box: it opens only what was sealed for it.
func FuzzBoxOpen(f *testing.F) {
	session := noise.Session{Initiator: true, Hash: [64]byte{1}}
	a, err := NewBox(session, bytes.NewReader(make([]byte, 8)))
	if err != nil {
		f.Fatal(err)
	}
	real, _ := a.Seal(nil, []byte("hello"))
	f.Add(real)
	f.Add(real[:20])
	session.Initiator = false
	b, err := NewBox(session, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := b.Open(nil, in); (err == nil) != bytes.Equal(in, real) {
			t.Errorf("opened %x as %x, %v", in, got, err)
		}
	})
}
