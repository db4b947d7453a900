package sigv4

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// received is a request as a server gets it that was sent as r.
func received(t *testing.T, r *http.Request, body string) *http.Request {
	t.Helper()
	got := httptest.NewRequest(r.Method, r.URL.RequestURI(), strings.NewReader(body))
	got.Host = r.URL.Host
	got.Header = r.Header.Clone()
	return got
}

func TestWhatTheSDKSignsIsLetIn(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	creds := aws.Credentials{AccessKeyID: "AK", SecretAccessKey: "secret"}
	rng := rand.New(rand.NewPCG(1, 1))
	alphabet := []rune("aZ09-._~ /+%&=?#:@!$'()*,;[]äλ語")
	text := func(n int) string {
		out := make([]rune, rng.IntN(n))
		for i := range out {
			out[i] = alphabet[rng.IntN(len(alphabet))]
		}
		return string(out)
	}
	for i := range 600 {
		service := []string{"s3", "dynamodb"}[i%2]
		body := text(30)
		u := url.URL{Scheme: "http", Host: "bucket.example:9000", Path: "/" + text(20)}
		if service != "s3" {
			u.Path = "/" + strings.Trim(strings.NewReplacer("/", "", ".", "").Replace(u.Path), " ")
		}
		presigned := service == "s3" && i%3 == 0
		if service == "s3" {
			u.RawPath = encode(u.Path, true) // as the client of S3 does, and others don't
		}
		if presigned {
			body = ""
		}
		query := url.Values{}
		for range rng.IntN(4) {
			query.Add("k"+text(5), text(8))
		}
		u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
		r, err := http.NewRequest([]string{"GET", "PUT"}[i/2%2], u.String(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Meta-Note", "  a  "+fmt.Sprint(i)+"   b ")
		sum := sha256.Sum256([]byte(body))
		payload := hex.EncodeToString(sum[:])
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
		v := &Verifier{Service: service, Keys: keysOf("AK", "secret"), Clock: clock.NewFake(now)}
		if presigned {
			q := r.URL.Query()
			q.Set("X-Amz-Expires", "60")
			r.URL.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
			r.Header.Del("X-Amz-Meta-Note")
			signed, header, err := signer.PresignHTTP(context.Background(), creds, r, unsignedPayload, service, "us-east-1", now)
			if err != nil {
				t.Fatal(err)
			}
			if r, err = http.NewRequest(r.Method, signed, nil); err != nil {
				t.Fatal(err)
			}
			for name := range header {
				if name != "Host" {
					r.Header.Set(name, header.Get(name))
				}
			}
		} else {
			r.Header.Set("X-Amz-Content-Sha256", payload)
			if err := signer.SignHTTP(context.Background(), creds, r, payload, service, "us-east-1", now); err != nil {
				t.Fatal(err)
			}
		}
		got := received(t, r, body)
		var signed *Signed
		if service == "s3" {
			if signed, err = v.Verify(got); err == nil {
				_, err = io.ReadAll(signed.Body)
			}
		} else {
			signed, err = v.VerifyBody(got, []byte(body))
		}
		if err != nil {
			t.Errorf("%s %s: %v", service, r.URL, err)
		} else if signed.AccessKey != "AK" {
			t.Errorf("%s %s: %+v", service, r.URL, signed)
		}
	}
}
