package dynamodb

import (
	"errors"
	"net/http"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
)

// Key is what is known of an access key.
type Key = sigv4.Key

// ErrUnknownKey is what a [Verifier]'s Keys returns for a key that there is not.
var ErrUnknownKey = sigv4.ErrUnknownKey

// A Verifier verifies signatures. Its Service is "dynamodb".
type Verifier = sigv4.Verifier

// kinds are the types of errors of signatures.
var kinds = map[sigv4.Kind]string{
	sigv4.Missing:    "MissingAuthenticationTokenException",
	sigv4.Malformed:  "IncompleteSignatureException",
	sigv4.Incomplete: "IncompleteSignatureException",
	sigv4.BadQuery:   "IncompleteSignatureException",
	sigv4.UnknownKey: "UnrecognizedClientException",
}

// Authorize is for [Options].Authorize: it lets in who signs with a key.
func Authorize(v *Verifier) func(*http.Request, []byte) (string, error) {
	return func(r *http.Request, body []byte) (string, error) {
		signed, err := v.VerifyBody(r, body)
		if err == nil {
			return signed.Principal, nil
		}
		e := new(sigv4.Error)
		if !errors.As(err, &e) {
			return "", err
		}
		out := &Error{Type: "InvalidSignatureException", Message: e.Message}
		if t, ok := kinds[e.Kind]; ok {
			out.Type = t
		}
		if e.Kind == sigv4.UnknownKey {
			out.Message = "The security token included in the request is invalid."
		}
		return "", out
	}
}
