package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestSeedsMakeKeysOfTheirOwn(t *testing.T) {
	seed := Seed(bytes.Repeat([]byte{7}, 32))
	// These must never change: clouds are named by them.
	if got, want := NewOwner(seed).Cloud().String(), "e16ikuwdqw8n1jnaa1wotsyuyfdotm69ybhi5k9433umdjxrr5ay"; got != want {
		t.Errorf("the owner of 0707… has the cloud %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%x", [32]byte(seed.Derive("store"))), "97299990cc58d0be007df9be252e278358e6d0e73bff3d7ffb86dc26dc39c4fc"; got != want {
		t.Errorf("derived %s, want %s", got, want)
	}
	seen := map[Seed]string{seed: "itself"}
	for _, name := range []string{"", "a", "b", "owner", "owner\x00", "store"} {
		d := seed.Derive(name)
		if other, ok := seen[d]; ok {
			t.Errorf("%q derives the same as %q", name, other)
		}
		seen[d] = name
	}
	if a, err := NewSeed(rand.Reader); err != nil || a == (Seed{}) {
		t.Errorf("a new seed: %v", err)
	}
	if _, err := NewSeed(bytes.NewReader(make([]byte, 31))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too few random bytes: %v", err)
	}
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	seed := Seed(bytes.Repeat([]byte{0xab}, 32))
	owner := NewOwner(seed)
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).Info("x", "seed", seed, "owner", owner, "keys", owner.KeyPair())
	}
	for _, v := range []any{seed, &seed, owner, &owner, []Seed{seed}, struct{ S Seed }{seed}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T is written as %s", v, b)
		}
	}
	for _, secret := range []string{"abab", "ABAB", "171", "[171 171"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q was printed", secret)
		}
	}
	if n := strings.Count(log.String(), "redacted]"); n < 6*8 {
		t.Errorf("redacted %d times", n)
	}
}
