package blindrelay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

func TestMessagesAreThoseOfBlindRelay(t *testing.T) {
	text, err := os.ReadFile("testdata/blind-relay.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		BlindRelay struct {
			Protocol string
			Messages []string
			Vectors  []struct {
				Type  string
				Value struct {
					IsInitiator bool
					Token       string
					ID          uint32
				}
				Hex string
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	v := file.BlindRelay
	if v.Protocol != protocol || v.Messages[messagePair] != "pair" || v.Messages[messageUnpair] != "unpair" || len(v.Vectors) == 0 {
		t.Errorf("the channel is %+v", v)
	}
	for _, v := range v.Vectors {
		want, _ := hex.DecodeString(v.Hex)
		var got []byte
		var token Token
		switch v.Type {
		case "pair":
			m, err := decodePair(want)
			if err != nil || m.initiator != v.Value.IsInitiator || m.id != v.Value.ID {
				t.Errorf("pair %s is read as %v, %d, %v", v.Hex, m.initiator, m.id, err)
			}
			token, got = m.token, m.append(nil)
		case "unpair":
			var err error
			if token, err = decodeUnpair(want); err != nil {
				t.Error(err)
			}
			got = appendUnpair(nil, token)
		default:
			t.Fatalf("a message of type %q", v.Type)
		}
		if hex.EncodeToString(token[:]) != v.Value.Token || !bytes.Equal(got, want) {
			t.Errorf("%s %s is written as %x", v.Type, v.Hex, got)
		}
	}
}

func TestMessagesThatAreNoneAreRefused(t *testing.T) {
	long := pairMessage{true, Token{1}, 0xffffffff}.append(nil)
	for n := range len(long) {
		if _, err := decodePair(long[:n]); err == nil {
			t.Errorf("the first %d of %d bytes of a message are taken for one", n, len(long))
		}
	}
	wide := append(append([]byte{1}, make([]byte, 32)...), 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0)
	if m, err := decodePair(wide); err == nil {
		t.Errorf("an id of over 32 bits is taken for %d", m.id)
	}
	if _, err := decodeUnpair(long[:32]); err == nil {
		t.Error("half a token is taken for one")
	}
}

func TestTokensArePrintedAsSecrets(t *testing.T) {
	token, err := NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%s", "%#v", "%+v"} {
		if got := fmt.Sprintf(format, token); got != "[token redacted]" {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if _, err := NewToken(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a token of 31 bytes")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(pairMessage{true, Token{1}, 7}.append(nil))
	f.Add(appendUnpair(nil, Token{2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodePair(b); err == nil {
			if again, err := decodePair(m.append(nil)); err != nil || again != m {
				t.Errorf("%+v is read back as %+v, %v", m, again, err)
			}
		}
		if token, err := decodeUnpair(b); err == nil {
			if again, err := decodeUnpair(appendUnpair(nil, token)); err != nil || again != token {
				t.Errorf("a token is read back as another, %v", err)
			}
		}
	})
}
