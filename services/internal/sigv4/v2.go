package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Version 2 of signatures ("Signing and authenticating REST requests"), which some
// clients still make for presigned addresses and forms: HMAC-SHA1 with the secret
// itself.

// IsV2 reports whether a request is signed as it was before version 4.
func IsV2(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "AWS ") || strings.Contains(r.URL.RawQuery, "AWSAccessKeyId=")
}

// signedParams are the parameters that are part of what version 2 signs.
var signedParams = []string{"acl", "accelerate", "cors", "delete", "encryption", "lifecycle", "location", "logging", "notification", "object-lock", "partNumber", "policy", "requestPayment",
	"restore", "replication", "retention", "legal-hold", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
	"response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language", "response-content-type", "response-expires"}

// VerifyV2 verifies a request to S3 that is signed as it was before version 4, in its
// header or its query. path is the address as it was sent, with the bucket in front.
func (v *Verifier) VerifyV2(r *http.Request, path string) (*Signed, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(BadQuery, "The query can't be read")
	}
	s := &Signed{}
	var date, got string
	if rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS "); ok {
		s.AccessKey, got, _ = strings.Cut(strings.TrimSpace(rest), ":")
		if date, s.Time, err = v.dateV2(r.Header); err != nil {
			return nil, err
		}
	} else {
		s.AccessKey, got, date, s.Presigned = query.Get("AWSAccessKeyId"), query.Get("Signature"), query.Get("Expires"), true
		end, err := strconv.ParseInt(date, 10, 64)
		if err != nil || got == "" {
			return nil, fail(Denied, "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
		}
		if s.Time = v.now(); s.Time.Unix() > end {
			return nil, fail(Expired, "Request has expired")
		}
	}
	key, err := v.key(r.Context(), s.AccessKey)
	if err != nil {
		return nil, err
	}
	before, after := r.Method+"\n"+r.Header.Get("Content-MD5")+"\n"+r.Header.Get("Content-Type")+"\n"+date+"\n"+amzHeaders(r.Header), subresources(query)
	text := before + path + after
	// Some sign the name of a bucket with a slash that the address has not.
	if !sameV2(key.Secret, text, got) && !sameV2(key.Secret, before+path+"/"+after, got) {
		return nil, &Error{Kind: Mismatch, Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method.", ToSign: text}
	}
	s.Principal = key.Principal
	s.Body, err = v.Anonymous(r)
	return s, err
}

// dateV2 returns the date that was signed: none where it is among the headers of AWS.
func (v *Verifier) dateV2(h http.Header) (text string, at time.Time, err error) {
	text = h.Get("Date")
	said := text
	if amz := h.Get("X-Amz-Date"); amz != "" {
		said, text = amz, ""
	}
	at, err = http.ParseTime(said)
	for _, layout := range []string{time.RFC1123Z, timeFormat} {
		if err != nil {
			at, err = time.Parse(layout, said)
		}
	}
	if err != nil {
		return "", at, fail(Denied, "AWS authentication requires a valid Date or x-amz-date header")
	}
	if apart := at.Sub(v.now()); apart > skew || apart < -skew {
		return "", at, fail(Skewed, "The difference between the request time and the current time is too large.")
	}
	return text, at, nil
}

func sameV2(secret, text, got string) bool {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(text))
	want := base64.StdEncoding.EncodeToString(h.Sum(nil))
	return subtle.ConstantTimeCompare([]byte(want), []byte(got)) == 1
}

// amzHeaders are the headers of AWS, as version 2 signs them.
func amzHeaders(h http.Header) string {
	var lines []string
	for name, values := range h {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
			plain := make([]string, len(values))
			for i, value := range values {
				plain[i] = trim(value)
			}
			lines = append(lines, name+":"+strings.Join(plain, ",")+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func subresources(query url.Values) string {
	var parts []string
	for name, values := range query {
		if !slices.Contains(signedParams, name) {
			continue
		}
		if values[0] != "" {
			name += "=" + values[0]
		}
		parts = append(parts, name)
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "?" + strings.Join(parts, "&")
}

// verifyFormV2 verifies a form that was signed as it was before version 4.
func (v *Verifier) verifyFormV2(fields map[string]string, key Key, bucket string) (*Posted, error) {
	if fields["signature"] == "" {
		return nil, fail(Malformed, "Bucket POST must contain a field named 'Signature'.")
	}
	if !sameV2(key.Secret, fields["policy"], fields["signature"]) {
		return nil, fail(Mismatch, "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	}
	out := &Posted{Principal: key.Principal, AccessKey: fields["awsaccesskeyid"], MaxLength: math.MaxInt64}
	return out, v.checkPolicy(fields["policy"], fields, bucket, out)
}
