package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// A signer signs requests to a server as SDKs do, in the region us-east-1, on the day on which it was made.
type signer struct {
	service, host, day string
	id                 string // of the key
	key                []byte // of the day
}

func newSigner(service, host, id, secret string) *signer {
	s := &signer{service: service, host: host, day: time.Now().UTC().Format("20060102"), id: id, key: []byte("AWS4" + secret)}
	for _, part := range []string{s.day, "us-east-1", service, "aws4_request"} {
		s.key = hmacOf(s.key, part)
	}
	return s
}

// now is the time, and the scope of signatures.
func (s *signer) now() (at, scope string) {
	return time.Now().UTC().Format("20060102T150405Z"), s.day + "/us-east-1/" + s.service + "/aws4_request"
}

// sign returns the signature of a canonical request.
func (s *signer) sign(at, scope, request string) string {
	sum := sha256.Sum256([]byte(request))
	return hex.EncodeToString(hmacOf(s.key, fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", at, scope, sum)))
}

func hmacOf(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
