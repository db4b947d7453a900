package sigv4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// The example "GET Object" of "Authenticating requests" in the S3 API reference
// has a range as well; this is "GET Bucket (List Objects)".
func TestSignIsAsTheReferenceHasIt(t *testing.T) {
	r, err := http.NewRequest("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	if err := Sign(r, sha256.Sum256(nil), "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", at); err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7") {
		t.Errorf("%s", got)
	}
}

func TestSignedRequestsAreVerified(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	v := &Verifier{Service: "s3", Clock: clock.NewFake(now), Keys: func(context.Context, string) (Key, error) { return Key{Secret: "secret"}, nil }}
	body := "what is sent"
	for _, to := range []string{"/bucket/a%20b/%C3%A4?list-type=2&prefix=a%2Fb+c&x", "/", "/b/a//b"} {
		r, err := http.NewRequest("PUT", "http://127.0.0.1:7070"+to, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := Sign(r, sha256.Sum256([]byte(body)), "key", "secret", "auto", now); err != nil {
			t.Fatal(err)
		}
		signed, err := v.Verify(r)
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		if got, err := io.ReadAll(signed.Body); err != nil || string(got) != body {
			t.Errorf("%s: %q, %v", to, got, err)
		}
	}
}

func TestSigningKeysAreBounded(t *testing.T) {
	var keys signingKeys
	for i := range 3 * maxSigningKeys {
		of := signingOf{"secret", fmt.Sprint(i / 2), "us-east-1", "s3"}
		if got := keys.get(of); !bytes.Equal(got, signingKey(of.secret, of.date, of.region, of.service)) {
			t.Fatalf("another key for %v", of)
		}
		if len(keys.made) > maxSigningKeys {
			t.Fatalf("%d keys are kept", len(keys.made))
		}
	}
}
