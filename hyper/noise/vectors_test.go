package noise

import (
	"bytes"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// bin is binary data, which the vectors have in hex.
type bin []byte

func (b *bin) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*b = raw
	return err
}

type pairVector struct{ Seed, PublicKey bin }

func (v pairVector) pair() KeyPair { return NewKeyPair([32]byte(v.Seed)) }

// handshakeVector is a handshake of noise-handshake with fixed keys.
type handshakeVector struct {
	Protocol                         string
	Prologue                         bin
	InitiatorStatic, ResponderStatic pairVector
	InitiatorEphemeral               pairVector
	ResponderEphemeral               pairVector
	Payloads                         []struct{ Hex bin }
	Messages                         []bin
	HandshakeHash, InitiatorTx       bin
	InitiatorRx                      bin
}

type vectorFile struct {
	Primitives struct {
		DH []struct {
			Local           pairVector
			RemotePublicKey bin
			Output          bin
		}
		HMAC []struct{ Key, Data, Out bin } `json:"hmacBlake2b512"`
		HKDF []struct {
			Salt, IKM bin
			Outputs   []bin
		}
	}
	XX, IK handshakeVector
}

func readVectors(t testing.TB) (v vectorFile) {
	t.Helper()
	text, err := os.ReadFile("testdata/noise.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (f vectorFile) handshake(p Pattern) handshakeVector {
	if p == IK {
		return f.IK
	}
	return f.XX
}

// payload is what goes into message i.
func (v handshakeVector) payload(i int) []byte {
	if i < len(v.Payloads) {
		return v.Payloads[i].Hex
	}
	return nil
}

// sides returns both sides of a handshake that writes the vector's messages.
func (v handshakeVector) sides(t testing.TB, p Pattern) (initiator, responder *Handshake) {
	t.Helper()
	return begin(t, Config{
			Pattern: p, Initiator: true, Static: v.InitiatorStatic.pair(), Remote: Key(v.ResponderStatic.PublicKey),
			Prologue: v.Prologue, Random: bytes.NewReader(v.InitiatorEphemeral.Seed),
		}), begin(t, Config{
			Pattern: p, Static: v.ResponderStatic.pair(),
			Prologue: v.Prologue, Random: bytes.NewReader(v.ResponderEphemeral.Seed),
		})
}

func begin(t testing.TB, c Config) *Handshake {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandshakesAreThoseOfNoiseHandshakeByteForByte(t *testing.T) {
	file := readVectors(t)
	for _, p := range []Pattern{XX, IK} {
		v := file.handshake(p)
		name := patterns[p].initialHash[:len(v.Protocol)]
		if string(name) != v.Protocol {
			t.Errorf("%v is %q, want %q", p, name, v.Protocol)
		}
		initiator, responder := v.sides(t, p)
		writer, reader := initiator, responder
		for i, want := range v.Messages {
			if !writer.MyTurn() || reader.MyTurn() || writer.Done() || reader.Done() {
				t.Fatalf("%v message %d: wrong turn", p, i+1)
			}
			got, err := writer.WriteMessage([]byte("before"), v.payload(i))
			if err != nil {
				t.Fatalf("%v: %v", p, err)
			}
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Fatalf("%v message %d: got %x, want %x after the prefix", p, i+1, got, want)
			}
			kept := bytes.Clone(want)
			payload, err := reader.ReadMessage(want)
			if err != nil || !bytes.Equal(payload, v.payload(i)) {
				t.Fatalf("%v message %d: read %x, %v, want %x", p, i+1, payload, err, v.payload(i))
			}
			if !bytes.Equal(kept, want) {
				t.Errorf("%v message %d: reading changed it", p, i+1)
			}
			writer, reader = reader, writer
		}
		checkSession(t, initiator, Session{
			Initiator: true, Local: Key(v.InitiatorStatic.PublicKey), Remote: Key(v.ResponderStatic.PublicKey),
			Tx: [32]byte(v.InitiatorTx), Rx: [32]byte(v.InitiatorRx), Hash: [64]byte(v.HandshakeHash),
		})
		checkSession(t, responder, Session{
			Local: Key(v.ResponderStatic.PublicKey), Remote: Key(v.InitiatorStatic.PublicKey),
			Tx: [32]byte(v.InitiatorRx), Rx: [32]byte(v.InitiatorTx), Hash: [64]byte(v.HandshakeHash),
		})
	}
}

func checkSession(t *testing.T, h *Handshake, want Session) {
	t.Helper()
	for range 2 {
		got, err := h.Split()
		if err != nil || got != want {
			t.Errorf("split: got %#v %x %x, %v, want %#v %x %x", got, got.Tx, got.Hash, err, want, want.Tx, want.Hash)
		}
	}
	if key, ok := h.RemoteStatic(); !ok || key != want.Remote || !h.Done() || h.MyTurn() {
		t.Errorf("remote static %v %v, done %v, my turn %v", key, ok, h.Done(), h.MyTurn())
	}
}

func TestSharedSecretsAreThoseOfLibsodium(t *testing.T) {
	for _, v := range readVectors(t).Primitives.DH {
		pair := v.Local.pair()
		if got, want := pair.Public, Key(v.Local.PublicKey); got != want {
			t.Errorf("public key of seed %x: got %x, want %x", v.Local.Seed, got, want)
		}
		got, err := dh(pair, Key(v.RemotePublicKey))
		if err != nil || !bytes.Equal(got[:], v.Output) {
			t.Errorf("dh(%x, %x): got %x, %v, want %x", v.Local.Seed, v.RemotePublicKey, got, err, v.Output)
		}
	}
}

func TestKeysAreDerivedAsNoiseHandshakeDoes(t *testing.T) {
	prim := readVectors(t).Primitives
	for _, v := range prim.HMAC {
		mac := hmac.New(newHash, v.Key)
		mac.Write(v.Data)
		if got := mac.Sum(nil); !bytes.Equal(got, v.Out) {
			t.Errorf("hmac(%x, %x): got %x, want %x", v.Key, v.Data, got, v.Out)
		}
	}
	for _, v := range prim.HKDF {
		s := symmetric{chain: [64]byte(v.Salt)}
		first, second := s.derive(v.IKM)
		if !bytes.Equal(first[:], v.Outputs[0]) || !bytes.Equal(second, v.Outputs[1]) {
			t.Errorf("hkdf(%x, %x): got %x and %x, want %x", v.Salt, v.IKM, first, second, v.Outputs)
		}
	}
}
