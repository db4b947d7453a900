package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// v2 is a verifier for the examples of "Signing and authenticating REST requests".
func v2() *Verifier {
	return &Verifier{Service: "s3", Keys: keysOf("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), Clock: clock.NewFake(time.Date(2007, 3, 27, 19, 40, 0, 0, time.UTC))}
}

func TestExamplesOfVersion2AreRight(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, query, date, signature string
		kind                                 string
		want                                 Kind
	}{
		"get":             {"GET", "/awsexamplebucket1/photos/puppy.jpg", "", "Tue, 27 Mar 2007 19:36:42 +0000", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", "", ""},
		"list":            {"GET", "/awsexamplebucket1/", "prefix=photos&max-keys=50&marker=puppy", "Tue, 27 Mar 2007 19:42:41 +0000", "m0WP8eCtspQl5Ahe6L1SozdX9YA=", "", ""},
		"acl":             {"GET", "/awsexamplebucket1/", "acl", "Tue, 27 Mar 2007 19:44:46 +0000", "82ZHiFIjc+WbcwFKGUVEQspPn+0=", "", ""},
		"another address": {"GET", "/awsexamplebucket1/photos/kitten.jpg", "", "Tue, 27 Mar 2007 19:36:42 +0000", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", "", Mismatch},
		"another type":    {"GET", "/awsexamplebucket1/photos/puppy.jpg", "", "Tue, 27 Mar 2007 19:36:42 +0000", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", "a/b", Mismatch},
		"late":            {"GET", "/awsexamplebucket1/photos/puppy.jpg", "", "Tue, 27 Mar 2007 18:36:42 +0000", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", "", Skewed},
		"no date":         {"GET", "/awsexamplebucket1/photos/puppy.jpg", "", "", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", "", Denied},
	} {
		r := httptest.NewRequest(c.method, "http://s3.example"+c.path+"?"+c.query, nil)
		r.Header.Set("Date", c.date)
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		r.Header.Set("Authorization", "AWS AKIAIOSFODNN7EXAMPLE:"+c.signature)
		if !IsV2(r) {
			t.Errorf("%s: it is none of version 2", name)
		}
		signed, err := v2().VerifyV2(r, c.path)
		e := new(Error)
		errors.As(err, &e)
		if e.Kind != c.want || err == nil && signed.AccessKey != "AKIAIOSFODNN7EXAMPLE" {
			t.Errorf("%s: %v, want %q: %s", name, err, c.want, strings.ReplaceAll(e.ToSign, "\n", "|"))
		}
	}
}

func TestPresignedAddressesOfVersion2AreLookedAt(t *testing.T) {
	path := "/awsexamplebucket1/photos/puppy.jpg"
	h := hmac.New(sha1.New, []byte("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
	h.Write([]byte("GET\n\n\n1175139620\n" + path + "?response-content-type=a/b&versionId=1"))
	signature := url.QueryEscape(base64.StdEncoding.EncodeToString(h.Sum(nil)))
	for query, want := range map[string]Kind{
		"&Expires=1175139620&versionId=1&response-content-type=a%2Fb&other=1": "",
		"&Expires=1175139620&versionId=2&response-content-type=a%2Fb":         Mismatch,
		"&Expires=1175139621&versionId=1&response-content-type=a%2Fb":         Mismatch,
		"&Expires=1075139620&versionId=1&response-content-type=a%2Fb":         Expired,
		"": Denied,
	} {
		r := httptest.NewRequest("GET", "http://s3.example"+path+"?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature="+signature+query, nil)
		signed, err := v2().VerifyV2(r, path)
		e := new(Error)
		errors.As(err, &e)
		if e.Kind != want || err == nil && !signed.Presigned {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}
