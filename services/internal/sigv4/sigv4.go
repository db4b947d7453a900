// Package sigv4 verifies AWS Signature Version 4: in the Authorization header, in
// the query of a presigned address, in the fields of a form (POST policy), and of
// bodies that come in signed chunks.
//
//	v := &sigv4.Verifier{Service: "s3", Keys: keys, Clock: clock.System}
//	signed, err := v.Verify(r)
//	_, err = io.Copy(object, signed.Body) // the body is as signed if this ends without an error
//
// For S3 it also verifies signatures of version 2, which some clients still make.
//
// It knows nothing of what the holder of a key may do. It keeps nothing: a request
// that is sent again within the fifteen minutes is accepted again, as AWS does.
//
// The rules are those of "Signature Version 4 signing process" of AWS General
// Reference, and of "Authenticating requests" of the S3 API reference.
package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A Kind is what is wrong with a request, by the codes of S3 where it has one.
type Kind string

// The kinds.
const (
	Missing    Kind = "MissingAuthenticationToken"
	Malformed  Kind = "AuthorizationHeaderMalformed"
	Incomplete Kind = "IncompleteSignature"
	BadQuery   Kind = "AuthorizationQueryParametersError"
	BadScope   Kind = "InvalidCredentialScope"
	UnknownKey Kind = "InvalidAccessKeyId"
	Mismatch   Kind = "SignatureDoesNotMatch"
	Skewed     Kind = "RequestTimeTooSkewed"
	Expired    Kind = "ExpiredRequest"
	Unsigned   Kind = "UnsignedHeaders"
	BadPayload Kind = "XAmzContentSHA256Mismatch"
	BadChunk   Kind = "InvalidChunk"
	Short      Kind = "IncompleteBody"
	NoLength   Kind = "MissingContentLength"
	BadPolicy  Kind = "InvalidPolicyDocument"
	Denied     Kind = "AccessDenied" // by a policy
	// BadHeader is an Authorization header that S3 does not know, NoDate a request that
	// does not say when it was made, BadHash a value of X-Amz-Content-Sha256 that is none.
	BadHeader  Kind = "InvalidArgument"
	NoDate     Kind = "MissingDate"
	BadHash    Kind = "InvalidSHA256"
	BadTrailer Kind = "MalformedTrailerError"
	BadStream  Kind = "InvalidRequest"
)

// An Error is why a request is refused.
type Error struct {
	Kind    Kind
	Message string
	// Value is what it is about: an access key, the names of headers, or a header's value.
	Value string
	// Canonical and ToSign are what was signed here, and AccessKey and Signature what was
	// given, for a Mismatch.
	Canonical, ToSign    string
	AccessKey, Signature string
}

func (e *Error) Error() string { return string(e.Kind) + ": " + e.Message }

func fail(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// about is fail with what it is about.
func about(kind Kind, value, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Value: value}
}

// ErrUnknownKey is what Keys returns for a key that there is not.
var ErrUnknownKey = errors.New("unknown access key")

// A Key is what is known of an access key.
type Key struct {
	Secret    string
	Principal string
}

// A Verifier verifies requests to a service. It must not be changed once it is
// used; its methods may be called by any goroutine.
type Verifier struct {
	// Service is the name in scopes, such as "s3" or "dynamodb".
	Service string
	// Region is the one in scopes; any if it is empty.
	Region string
	// Keys returns what is known of an access key.
	Keys func(ctx context.Context, accessKey string) (Key, error)
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock

	signing signingKeys
}

// skew is how far clocks may be apart.
const skew = 15 * time.Minute

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	terminator = "aws4_request"
)

// What bounds the work for a request.
const (
	maxHeader  = 16 << 10
	maxSigned  = 128 // headers
	maxExpires = 7 * 24 * 60 * 60
)

// A Signed is a request that was verified.
type Signed struct {
	Principal, AccessKey string
	Region               string
	Time                 time.Time
	Presigned            bool
	// Body is the request's body. Reading it to its end without an error means that
	// it is what was signed; nothing may be done with it before that.
	Body *Body
}

// signature is what a request says of how it was signed.
type signature struct {
	accessKey, date, region, service string
	headers                          []string
	signature                        string
	at                               time.Time
	presigned                        bool
	expires                          time.Duration
}

func (s *signature) scope() string {
	return s.date + "/" + s.region + "/" + s.service + "/" + terminator
}

// Verify verifies a request of a service whose clients hash bodies before they
// send them, as those of S3 do. The body is verified while it is read.
func (v *Verifier) Verify(r *http.Request) (*Signed, error) {
	s, err := v.parse(r)
	if err != nil {
		return nil, err
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if s.presigned {
		if payload == "" {
			payload = r.URL.Query().Get("X-Amz-Content-Sha256")
		}
		if payload == "" {
			payload = unsignedPayload
		}
	}
	if payload == "" {
		return nil, fail(Malformed, "Missing required header for this request: x-amz-content-sha256")
	}
	if !goodPayload(payload) && !s.presigned { // one that is presigned was not signed for it
		return nil, about(BadHash, payload, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.")
	}
	key, signing, err := v.check(r, s, payload)
	if err != nil {
		return nil, err
	}
	body, err := newBody(r, payload, &chain{signing, s.at.Format(timeFormat), s.scope(), s.signature})
	if err != nil {
		return nil, err
	}
	return &Signed{key.Principal, s.accessKey, s.region, s.at, s.presigned, body}, nil
}

// Anonymous returns the body of a request without a signature. It may come in chunks
// that are not signed.
func (v *Verifier) Anonymous(r *http.Request) (*Body, error) {
	payload := r.Header.Get("X-Amz-Content-Sha256")
	switch payload {
	case "":
		payload = unsignedPayload
	case signedChunks, signedTrailer:
		return nil, fail(BadStream, "Anonymous requests don't support this x-amz-content-sha256 value. Please use UNSIGNED-PAYLOAD or STREAMING-UNSIGNED-PAYLOAD-TRAILER.")
	}
	return newBody(r, payload, nil)
}

// VerifyBody verifies a request whose body was read already.
func (v *Verifier) VerifyBody(r *http.Request, body []byte) (*Signed, error) {
	s, err := v.parse(r)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	key, _, err := v.check(r, s, hex.EncodeToString(sum[:]))
	if err != nil {
		return nil, err
	}
	return &Signed{Principal: key.Principal, AccessKey: s.accessKey, Region: s.region, Time: s.at, Presigned: s.presigned}, nil
}

// parse reads how a request was signed.
func (v *Verifier) parse(r *http.Request) (*signature, error) {
	header := r.Header.Get("Authorization")
	if len(header) > maxHeader || len(r.URL.RawQuery) > maxHeader {
		return nil, fail(Malformed, "The authorization header or the query is too long")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(BadQuery, "The query can't be read")
	}
	inQuery := query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature")
	switch {
	case header != "" && inQuery:
		return nil, fail(Malformed, "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the Authorization header should be specified")
	case inQuery:
		return v.parseQuery(query)
	case header == "":
		return nil, fail(Missing, "Request is missing Authentication Token")
	}
	return v.parseHeader(r, header)
}

func (v *Verifier) parseHeader(r *http.Request, header string) (*signature, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	if v.Service == "s3" {
		if err := s3Header(header, kind, rest); err != nil {
			return nil, err
		}
	}
	if kind != algorithm {
		if strings.HasPrefix(kind, "AWS4-") {
			return nil, fail(Incomplete, "Unsupported AWS 'algorithm': '%.40s'", kind)
		}
		return nil, fail(Missing, "Request is missing Authentication Token")
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := params[name]; !ok || twice {
			return nil, fail(Incomplete, "'%.80s' not a valid key=value pair (missing equal-sign) in Authorization header", strings.TrimSpace(part))
		}
		params[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if params[name] == "" {
			return nil, fail(Incomplete, "Authorization header requires '%s' parameter.", name)
		}
	}
	s := &signature{signature: params["Signature"]}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(timeFormat, date)
	if date == "" {
		at, err = http.ParseTime(r.Header.Get("Date"))
	}
	if err != nil && v.Service == "s3" {
		return nil, fail(NoDate, "AWS authentication requires a valid Date or x-amz-date header.")
	}
	if err != nil {
		return nil, fail(Incomplete, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	s.at = at.UTC()
	if err := s.setHeaders(params["SignedHeaders"], Malformed); err != nil {
		return nil, err
	}
	return s, v.setCredential(s, params["Credential"], Malformed)
}

// s3Header refuses a header in the words of S3.
func s3Header(header, kind, rest string) error {
	switch {
	case kind == algorithm && rest == "", !strings.Contains(header, " "):
		return about(BadHeader, header, "Authorization header is invalid -- one and only one ' ' (space) required.")
	case kind != algorithm:
		return about(BadHeader, kind, "Unsupported Authorization Type")
	}
	parts := strings.Split(rest, ",")
	if len(parts) != 3 {
		return fail(Malformed, "the authorization header requires three components: Credential, SignedHeaders, and Signature.")
	}
	params := map[string]string{}
	for _, part := range parts {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" {
			return fail(Malformed, "the authorization component %q is malformed.", strings.TrimSpace(part))
		}
		params[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if params[name] == "" {
			return fail(Malformed, "missing %s.", name)
		}
	}
	return nil
}

func (v *Verifier) parseQuery(query url.Values) (*signature, error) {
	if query.Get("X-Amz-Algorithm") == "AWS4-ECDSA-P256-SHA256" {
		return nil, fail(BadQuery, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"")
	}
	if query.Get("X-Amz-Algorithm") != algorithm {
		return nil, fail(BadQuery, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256\"")
	}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date", "X-Amz-Expires"} {
		if query.Get(name) == "" || len(query[name]) > 1 {
			return nil, fail(BadQuery, "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	s := &signature{signature: query.Get("X-Amz-Signature"), presigned: true}
	seconds, err := strconv.Atoi(query.Get("X-Amz-Expires"))
	switch {
	case err != nil:
		return nil, fail(BadQuery, "X-Amz-Expires should be a number")
	case seconds < 0:
		return nil, fail(BadQuery, "X-Amz-Expires must be non-negative")
	case seconds > maxExpires:
		return nil, fail(BadQuery, "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	s.expires = time.Duration(seconds) * time.Second
	if s.at, err = time.Parse(timeFormat, query.Get("X-Amz-Date")); err != nil {
		return nil, fail(BadQuery, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
	}
	if err := s.setHeaders(query.Get("X-Amz-SignedHeaders"), BadQuery); err != nil {
		return nil, err
	}
	return s, v.setCredential(s, query.Get("X-Amz-Credential"), BadQuery)
}

func (s *signature) setHeaders(list string, kind Kind) error {
	s.headers = strings.Split(list, ";")
	if len(s.headers) > maxSigned || !slices.IsSorted(s.headers) || list != strings.ToLower(list) {
		return fail(kind, "The signed headers must be lower case, sorted, and not too many")
	}
	if !slices.Contains(s.headers, "host") {
		return fail(kind, "'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return nil
}

// setCredential takes a credential apart. An access key may have slashes in it.
func (v *Verifier) setCredential(s *signature, credential string, kind Kind) error {
	parts := strings.Split(credential, "/")
	if len(parts) < 5 && v.Service == "s3" {
		return fail(BadScope, "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
	}
	if len(parts) < 5 {
		return fail(kind, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%.80s'", credential)
	}
	n := len(parts) - 4
	if v.Service == "s3" {
		return v.setScope(s, parts[:n], parts[n:])
	}
	s.accessKey = strings.Join(parts[:n], "/")
	s.date, s.region, s.service = parts[n], parts[n+1], parts[n+2]
	switch {
	case s.service != v.Service:
		return fail(BadScope, "Credential should be scoped to correct service: '%s'.", v.Service)
	case v.Region != "" && s.region != v.Region:
		return fail(BadScope, "Credential should be scoped to a valid region, not '%.40s'.", s.region)
	case parts[n+3] != terminator:
		return fail(BadScope, "Credential should be scoped with a valid terminator: 'aws4_request', not '%.40s'.", parts[n+3])
	case s.date != s.at.Format("20060102"):
		return fail(BadScope, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%.20s' != '%s'.",
			s.date, s.at.Format("20060102"))
	}
	return nil
}

// setScope is setCredential in the words of S3.
func (v *Verifier) setScope(s *signature, key, scope []string) error {
	s.accessKey = strings.Join(key, "/")
	s.date, s.region, s.service = scope[0], scope[1], scope[2]
	_, err := time.Parse("20060102", s.date)
	switch {
	case scope[3] != terminator:
		return fail(BadScope, "incorrect terminal %q. This endpoint uses \"aws4_request\".", scope[3])
	case s.service != v.Service:
		return fail(BadScope, "incorrect service %q. This endpoint belongs to \"s3\".", s.service)
	case err != nil:
		return fail(BadScope, "incorrect date format %q. This date in the credential must be in the format \"yyyyMMdd\".", s.date)
	case v.Region != "" && s.region != v.Region:
		return fail(BadScope, "the region %q is wrong; expecting %q", s.region, v.Region)
	case s.date != s.at.Format("20060102") && s.presigned:
		return fail(BadQuery, "Invalid credential date %q. This date is not the same as X-Amz-Date: %q.", s.date, s.at.Format("20060102"))
	case s.date != s.at.Format("20060102"):
		return fail(BadScope, "Invalid credential date. Date is not the same as X-Amz-Date.")
	}
	return nil
}

// check verifies the signature of a request whose payload is hashed to that.
func (v *Verifier) check(r *http.Request, s *signature, payload string) (Key, []byte, error) {
	if err := v.checkTime(s); err != nil {
		return Key{}, nil, err
	}
	if err := s.checkSigned(r); err != nil {
		return Key{}, nil, err
	}
	key, err := v.key(r.Context(), s.accessKey)
	if err != nil {
		return Key{}, nil, err
	}
	canonical, err := canonicalRequest(r, s, payload, v.Service == "s3")
	if err != nil {
		return Key{}, nil, err
	}
	sum := sha256.Sum256([]byte(canonical))
	toSign := algorithm + "\n" + s.at.Format(timeFormat) + "\n" + s.scope() + "\n" + hex.EncodeToString(sum[:])
	signing := v.signing.get(signingOf{key.Secret, s.date, s.region, s.service})
	if !same(sign(signing, toSign), s.signature) {
		return Key{}, nil, &Error{Kind: Mismatch, Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
			Canonical: canonical, ToSign: toSign, AccessKey: s.accessKey, Signature: s.signature}
	}
	return key, signing, nil
}

func (v *Verifier) key(ctx context.Context, accessKey string) (Key, error) {
	key, err := v.Keys(ctx, accessKey)
	if errors.Is(err, ErrUnknownKey) {
		return Key{}, about(UnknownKey, accessKey, "The AWS Access Key Id you provided does not exist in our records.")
	}
	if err != nil {
		return Key{}, fmt.Errorf("look up access key: %w", err)
	}
	return key, nil
}

func (v *Verifier) now() time.Time {
	if v.Clock == nil {
		return clock.System.Now()
	}
	return v.Clock.Now()
}

func (v *Verifier) checkTime(s *signature) error {
	now := v.now()
	switch ahead := s.at.Sub(now); {
	case ahead > skew:
		return fail(Skewed, "The difference between the request time and the current time is too large.")
	case s.presigned && now.After(s.at.Add(s.expires)):
		return fail(Expired, "Request has expired")
	case !s.presigned && -ahead > skew:
		return fail(Skewed, "The difference between the request time and the current time is too large.")
	}
	return nil
}

// checkSigned refuses requests with headers of AWS that were not signed: whoever
// is in between could have put them there.
func (s *signature) checkSigned(r *http.Request) error {
	var unsigned []string
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(s.headers, name) {
			if name == "x-amz-content-sha256" && s.presigned {
				continue // the signature is over its value anyway
			}
			unsigned = append(unsigned, name)
		}
	}
	if len(unsigned) > 0 {
		slices.Sort(unsigned)
		return about(Unsigned, strings.Join(unsigned, ", "), "There were headers present in the request which were not signed")
	}
	return nil
}

// same compares signatures in a time that says nothing of them.
func same(want []byte, got string) bool {
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(want)), []byte(got)) == 1
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// signingKey is the key of a day, a region and a service.
func signingKey(secret, date, region, service string) []byte {
	return sign(sign(sign(sign([]byte("AWS4"+secret), date), region), service), terminator)
}
