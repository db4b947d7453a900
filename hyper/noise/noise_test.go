package noise

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"filippo.io/edwards25519"
)

// seeded is the key pair of a seed of 32 times the same byte.
func seeded(b byte) KeyPair { return NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32))) }

// run carries messages from one side to the other until both are done or one
// fails, and returns its error. Before a message arrives, change may change it.
func run(initiator, responder *Handshake, change func(i int, msg []byte) []byte) error {
	writer, reader := initiator, responder
	for i := 0; !initiator.Done() || !responder.Done(); i++ {
		msg, err := writer.WriteMessage(nil, nil)
		if err != nil {
			return err
		}
		if change != nil {
			msg = change(i, msg)
		}
		if _, err := reader.ReadMessage(msg); err != nil {
			return err
		}
		writer, reader = reader, writer
	}
	return nil
}

func TestFreshHandshakesAgreeAndDiffer(t *testing.T) {
	for _, p := range []Pattern{XX, IK} {
		seen := map[[64]byte]bool{}
		for range 2 {
			a := begin(t, Config{Pattern: p, Initiator: true, Static: seeded(1), Remote: seeded(2).Public, Prologue: []byte("p")})
			b := begin(t, Config{Pattern: p, Static: seeded(2), Prologue: []byte("p")})
			if err := run(a, b, nil); err != nil {
				t.Fatal(err)
			}
			x, _ := a.Split()
			y, _ := b.Split()
			if x.Tx != y.Rx || x.Rx != y.Tx || x.Tx == x.Rx || x.Hash != y.Hash || x.Local != y.Remote || x.Remote != y.Local {
				t.Errorf("%v: the sides do not agree", p)
			}
			if seen[x.Hash] {
				t.Errorf("%v: two handshakes with the same hash", p)
			}
			seen[x.Hash] = true
		}
	}
}

func TestPayloadsOfAnySizeArriveUpToTheLimit(t *testing.T) {
	v := readVectors(t)
	for _, p := range []Pattern{XX, IK} {
		for _, size := range []int{0, 1, 1000, MaxMessage} {
			a, b := v.handshake(p).sides(t, p)
			writer, reader := a, b
			for i := 0; !a.Done(); i++ {
				overhead := len(v.handshake(p).Messages[i]) - len(v.handshake(p).payload(i))
				want := bytes.Repeat([]byte{byte(i)}, min(size, MaxMessage-overhead))
				msg, err := writer.WriteMessage(nil, want)
				if err != nil {
					t.Fatal(err)
				}
				got, err := reader.ReadMessage(msg)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%v message %d: payload of %d bytes arrived as %d, %v", p, i+1, len(want), len(got), err)
				}
				writer, reader = reader, writer
			}
		}
		a, b := v.handshake(p).sides(t, p)
		if _, err := a.WriteMessage(nil, make([]byte, MaxMessage-31)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: write too large a message: %v", p, err)
		}
		if _, err := b.ReadMessage(make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: read too large a message: %v", p, err)
		}
	}
}

// Whatever is changed on the way, wherever, no side takes the session for
// good: the reader fails or, if what changed was not authenticated yet, the
// other does with the next message.
func TestAChangedMessageEndsTheHandshake(t *testing.T) {
	v := readVectors(t)
	for _, p := range []Pattern{XX, IK} {
		for which, whole := range v.handshake(p).Messages {
			size := len(whole) - len(v.handshake(p).payload(which)) // run sends no payloads
			for at := range size {
				for _, flip := range []byte{1, 0x80} {
					a, b := v.handshake(p).sides(t, p)
					err := run(a, b, func(i int, msg []byte) []byte {
						if i == which {
							msg[at] ^= flip
						}
						return msg
					})
					if !errors.Is(err, ErrAuth) && !errors.Is(err, ErrKey) {
						t.Fatalf("%v message %d, byte %d: got %v, want an authentication error", p, which+1, at, err)
					}
					expectOver(t, a, b)
				}
			}
			for cut := range size {
				a, b := v.handshake(p).sides(t, p)
				err := run(a, b, func(i int, msg []byte) []byte {
					if i == which {
						return msg[:cut]
					}
					return msg
				})
				if !errors.Is(err, ErrShort) && !errors.Is(err, ErrAuth) {
					t.Fatalf("%v message %d cut to %d bytes: got %v", p, which+1, cut, err)
				}
			}
			a, b := v.handshake(p).sides(t, p)
			err := run(a, b, func(i int, msg []byte) []byte {
				if i == which {
					return append(msg, 0)
				}
				return msg
			})
			if !errors.Is(err, ErrAuth) {
				t.Errorf("%v message %d with a byte more: got %v", p, which+1, err)
			}
		}
	}
}

// expectOver checks that the side which failed is of no more use. One did.
func expectOver(t *testing.T, sides ...*Handshake) {
	t.Helper()
	over := 0
	for _, h := range sides {
		if h.failed == nil {
			continue
		}
		over++
		if h.Done() || h.MyTurn() || h.static.CanProve() || h.ephemeral.CanProve() || h.state != (symmetric{}) {
			t.Error("a failed handshake still holds secrets, or claims to go on")
		}
		if _, ok := h.RemoteStatic(); ok {
			t.Error("a failed handshake vouches for a key")
		}
		_, err1 := h.WriteMessage(nil, nil)
		_, err2 := h.ReadMessage(make([]byte, 96))
		_, err3 := h.Split()
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, ErrFailed) || !errors.Is(err, h.failed) {
				t.Errorf("a failed handshake answers %v", err)
			}
		}
	}
	if over != 1 {
		t.Errorf("%d sides failed, want 1", over)
	}
}

func TestTheWrongKeyOrPrologueEndsTheHandshake(t *testing.T) {
	for _, c := range []struct {
		what                 string
		pattern              Pattern
		remote               KeyPair
		prologueA, prologueB string
	}{
		{"IK to another responder", IK, seeded(3), "", ""},
		{"IK with another prologue", IK, seeded(2), "a", "b"},
		{"XX with another prologue", XX, seeded(2), "a", ""},
	} {
		a := begin(t, Config{Pattern: c.pattern, Initiator: true, Static: seeded(1), Remote: c.remote.Public, Prologue: []byte(c.prologueA)})
		b := begin(t, Config{Pattern: c.pattern, Static: seeded(2), Prologue: []byte(c.prologueB)})
		if err := run(a, b, nil); !errors.Is(err, ErrAuth) {
			t.Errorf("%s: %v", c.what, err)
		}
		expectOver(t, a, b)
	}
	// Who claims the key of another, without its secret, gets nowhere.
	for _, p := range []Pattern{XX, IK} {
		thief := seeded(9)
		thief.Public = seeded(1).Public
		a := begin(t, Config{Pattern: p, Initiator: true, Static: thief, Remote: seeded(2).Public})
		b := begin(t, Config{Pattern: p, Static: seeded(2)})
		if err := run(a, b, nil); !errors.Is(err, ErrAuth) {
			t.Errorf("%v by a thief: %v", p, err)
		}
		thief.Public = seeded(2).Public
		a = begin(t, Config{Pattern: p, Initiator: true, Static: seeded(1), Remote: seeded(2).Public})
		b = begin(t, Config{Pattern: p, Static: thief})
		if err := run(a, b, nil); !errors.Is(err, ErrAuth) {
			t.Errorf("%v with a thief: %v", p, err)
		}
	}
}

func TestCallsOutOfOrderChangeNothing(t *testing.T) {
	v := readVectors(t).XX
	a, b := v.sides(t, XX)
	out := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrOrder) {
			t.Errorf("%s: got %v, want %v", what, err, ErrOrder)
		}
	}
	_, err := a.ReadMessage(v.Messages[1])
	out("read before the first write", err)
	_, err = b.WriteMessage(nil, nil)
	out("write before the first read", err)
	_, err = a.Split()
	out("split at the start", err)
	dst := []byte("kept")
	for i := range v.Messages {
		w, r := a, b
		if i == 1 {
			w, r = b, a
		}
		if _, err := w.WriteMessage(nil, nil); err != nil {
			t.Fatal(err)
		}
		if !w.Done() {
			got, err := w.WriteMessage(dst, nil)
			out("write twice", err)
			if string(got) != "kept" {
				t.Errorf("a refused write returned %q", got)
			}
			_, err = w.Split()
			out("split in the middle", err)
		}
		if _, err := r.ReadMessage(v.Messages[i]); err != nil {
			t.Fatal(err)
		}
		_, err := r.ReadMessage(v.Messages[i])
		out("read twice", err)
	}
	for _, h := range []*Handshake{a, b} {
		_, err = h.WriteMessage(nil, nil)
		out("write after the end", err)
		_, err = h.ReadMessage(v.Messages[2])
		out("read after the end", err)
		if s, err := h.Split(); err != nil || s.Hash != [64]byte(v.HandshakeHash) {
			t.Errorf("split after all that: %x, %v", s.Hash, err)
		}
	}
}

// smallOrder are the points whose order divides eight, in every encoding that
// decodes (libsodium's ge25519_has_small_order).
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// badKeys are encodings that no honest key has, by what is wrong with them.
func badKeys(t testing.TB) map[string]Key {
	t.Helper()
	bad := map[string]Key{}
	for i, s := range smallOrder {
		raw, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		bad[fmt.Sprintf("small order %d", i)] = Key(raw)
	}
	// An honest key plus a point of each small order is on the curve, but not
	// in the subgroup.
	honest, err := new(edwards25519.Point).SetBytes(ptr(seeded(1).Public)[:])
	if err != nil {
		t.Fatal(err)
	}
	off := 0
	for _, s := range smallOrder {
		raw, _ := hex.DecodeString(s)
		small, err := new(edwards25519.Point).SetBytes(raw)
		if err != nil || small.Equal(identity) == 1 {
			continue
		}
		bad["off the subgroup "+s] = Key(new(edwards25519.Point).Add(honest, small).Bytes())
		off++
	}
	if off < 7 {
		t.Fatalf("%d points of small order decode, want at least the 7 there are", off)
	}
	// A y of 2^255-19 and more stands for a smaller one.
	for y := byte(0xed); y != 0; y++ {
		k := Key(bytes.Repeat([]byte{0xff}, 32))
		k[0], k[31] = y, 0x7f
		bad[fmt.Sprintf("not canonical %x", y)] = k
	}
	// No point has a y of 2.
	bad["not on the curve"] = Key{2}
	return bad
}

func ptr[T any](v T) *T { return &v }

func TestNoPointOfSmallOrderIsAKey(t *testing.T) {
	for what, key := range badKeys(t) {
		if _, err := dh(seeded(2), key); !errors.Is(err, ErrKey) {
			t.Errorf("dh with %s, %x: got %v, want %v", what, key, err, ErrKey)
		}
		// As an ephemeral key it arrives in the first message.
		for _, p := range []Pattern{XX, IK} {
			b := begin(t, Config{Pattern: p, Static: seeded(2)})
			_, err := b.ReadMessage(append(key[:], make([]byte, 96)...))
			if err == nil {
				_, err = b.WriteMessage(nil, nil)
			}
			if !errors.Is(err, ErrKey) {
				t.Errorf("%v with the ephemeral key %s: got %v", p, what, err)
			}
		}
		// As a static key it can be encrypted and sent like any other.
		imposter := seeded(1)
		imposter.Public = key
		for _, p := range []Pattern{XX, IK} {
			a := begin(t, Config{Pattern: p, Initiator: true, Static: imposter, Remote: seeded(2).Public})
			if err := run(a, begin(t, Config{Pattern: p, Static: seeded(2)}), nil); !errors.Is(err, ErrKey) {
				t.Errorf("%v with the static key %s: got %v", p, what, err)
			}
		}
		if key == (Key{}) {
			continue
		}
		a := begin(t, Config{Pattern: IK, Initiator: true, Static: seeded(1), Remote: key})
		if _, err := a.WriteMessage(nil, nil); !errors.Is(err, ErrKey) {
			t.Errorf("IK to %s: got %v", what, err)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, c := range []Config{
		{Pattern: XX},
		{Pattern: XX, Static: KeyPair{Public: seeded(1).Public}},
		{Pattern: IK, Initiator: true, Static: seeded(1)},
		{Pattern: 2, Static: seeded(1)},
	} {
		if h, err := New(c); err == nil || h != nil {
			t.Errorf("New(%+v) went well", c)
		}
	}
	broken := errors.New("no more luck")
	h := begin(t, Config{Initiator: true, Static: seeded(1), Random: io.MultiReader(strings.NewReader("too few"), errReader{broken})})
	if _, err := h.WriteMessage(nil, nil); !errors.Is(err, broken) {
		t.Errorf("write without randomness: %v", err)
	}
	if Pattern(7).String() != "Pattern(7)" || XX.String() != "XX" || IK.String() != "IK" {
		t.Error("patterns do not print as their names")
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestSecretsAreNotPrinted(t *testing.T) {
	pair := seeded(1)
	a := begin(t, Config{Pattern: XX, Initiator: true, Static: pair})
	b := begin(t, Config{Pattern: XX, Static: seeded(2)})
	if err := run(a, b, nil); err != nil {
		t.Fatal(err)
	}
	s, _ := a.Split()
	text := fmt.Sprintf("%v %+v %#v %s %v %+v %#v", pair, pair, pair, pair, s, s, s)
	for _, secret := range [][]byte{pair.secret.Bytes(), s.Tx[:], s.Rx[:]} {
		if strings.Contains(text, hex.EncodeToString(secret)) || strings.Contains(text, fmt.Sprint(secret)) {
			t.Error("a secret was printed")
		}
	}
	if got := (KeyPair{Public: pair.Public}).String(); got != pair.Public.String() {
		t.Errorf("a public half prints as %s", got)
	}
	key, err := ParseKey(pair.Public.String())
	if err != nil || key != pair.Public {
		t.Errorf("ParseKey = %v, %v", key, err)
	}
}

// FuzzHandshake hands any bytes to a side in place of a message. It must not
// panic, must take nothing but the real message where that is authenticated,
// and must be over once it refused one.
func FuzzHandshake(f *testing.F) {
	v := readVectors(f)
	for _, p := range []Pattern{XX, IK} {
		for i, m := range v.handshake(p).Messages {
			f.Add(uint8(p), uint8(i), []byte(m))
			f.Add(uint8(p), uint8(i), []byte(m[:len(m)-1]))
		}
	}
	for _, key := range badKeys(f) {
		f.Add(uint8(XX), uint8(0), key[:])
	}
	f.Fuzz(func(t *testing.T, pattern, which uint8, in []byte) {
		p := Pattern(pattern) % 2
		hv := v.handshake(p)
		i := int(which) % len(hv.Messages)
		a, b := hv.sides(t, p)
		writer, reader := a, b
		for n := range i {
			msg, err := writer.WriteMessage(nil, hv.payload(n))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reader.ReadMessage(msg); err != nil {
				t.Fatal(err)
			}
			writer, reader = reader, writer
		}
		kept := bytes.Clone(in)
		payload, err := reader.ReadMessage(in)
		if !bytes.Equal(in, kept) {
			t.Error("reading changed the message")
		}
		if err != nil {
			if payload != nil || reader.failed == nil {
				t.Errorf("refused with %v, but goes on", err)
			}
			if _, err := reader.Split(); !errors.Is(err, ErrFailed) {
				t.Errorf("split after a failure: %v", err)
			}
			return
		}
		if p == XX && i == 0 {
			return // nothing in it is authenticated
		}
		if !bytes.Equal(in, hv.Messages[i]) {
			t.Errorf("%v: took %x for message %d", p, in, i+1)
		}
	})
}

func BenchmarkXX(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		x, _ := New(Config{Initiator: true, Static: seeded(1)})
		y, _ := New(Config{Static: seeded(2)})
		if err := run(x, y, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDH(b *testing.B) {
	local, remote := seeded(1), seeded(2).Public
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dh(local, remote); err != nil {
			b.Fatal(err)
		}
	}
}
