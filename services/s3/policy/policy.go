// Package policy reads bucket policies of S3 and says what they let whom do.
//
//	p, err := policy.Parse(text, "photos")
//	switch p.Decide(policy.Request{Action: "s3:GetObject", Resource: policy.ARN("photos", "a.jpg")}) {
//	case policy.Allow: …
//
// It knows the elements Effect, Principal, NotPrincipal, Action, NotAction, Resource,
// NotResource and Condition ("IAM JSON policy elements reference"). It knows nothing
// of keys' rights or of access control lists.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// MaxSize is how many bytes a policy may have.
const MaxSize = 20 << 10

// An Effect is what a policy says to a request.
type Effect int

// What a policy says. Deny goes before Allow.
const (
	Silent Effect = iota
	Allow
	Deny
)

// A Request is who wants to do what.
type Request struct {
	// Account and User are the principal: an app and an access key. Anonymous ones
	// have none.
	Anonymous     bool
	Account, User string
	Action        string // such as s3:GetObject
	Resource      string // as ARN makes it
	// Values returns the values of a condition key, whose name is in lower case, or
	// none.
	Values func(key string) []string
}

// ARN is the resource name of a bucket, or of an object.
func ARN(bucket, key string) string {
	if key == "" {
		return "arn:aws:s3:::" + bucket
	}
	return "arn:aws:s3:::" + bucket + "/" + key
}

// A Policy is one that was read.
type Policy struct{ statements []statement }

type statement struct {
	effect       Effect
	principals   []string // "*", accounts' and users' names as ARNs or alone
	notPrincipal bool
	actions      []string // in lower case
	notAction    bool
	resources    []string
	notResource  bool
	conditions   []condition
	narrow       bool // a condition keeps it from being public
}

// A problem is what is wrong with a policy, in the words of S3.
type problem string

func (p problem) Error() string { return string(p) }

// ErrSyntax says that a policy is no JSON object.
var ErrSyntax error = problem("This policy contains invalid Json")

// Problem returns the words of S3 for an error of Parse.
func Problem(err error) string {
	var p problem
	if errors.As(err, &p) {
		return string(p)
	}
	return "Policy has invalid syntax"
}

// words is a string or a list of them.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// raw is a policy as it is written.
type raw struct {
	Version   *string
	ID        string `json:"Id"`
	Statement statements
}

type statements []rawStatement

func (s *statements) UnmarshalJSON(b []byte) error {
	var one rawStatement
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		if err := strict(b, &one); err != nil {
			return err
		}
		*s = statements{one}
		return nil
	}
	return strict(b, (*[]rawStatement)(s))
}

type rawStatement struct {
	Sid          string
	Effect       string
	Principal    json.RawMessage
	NotPrincipal json.RawMessage
	Action       words
	NotAction    words
	Resource     words
	NotResource  words
	Condition    map[string]map[string]json.RawMessage
}

func strict(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return ErrSyntax
	}
	return nil
}

// Parse reads the policy of a bucket. Its errors are told by Problem.
func Parse(text []byte, bucket string) (*Policy, error) {
	if len(text) > MaxSize {
		return nil, problem("Policy exceeds the maximum allowed document size.")
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, problem("Policies must be valid JSON and the first byte must be '{'")
	}
	if !json.Valid(text) {
		return nil, ErrSyntax
	}
	var in raw
	if err := strict(text, &in); err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if in.Version != nil && *in.Version != "2012-10-17" && *in.Version != "2008-10-17" {
		return nil, problem("The policy must contain a valid version string")
	}
	if in.Statement == nil {
		return nil, problem("Missing required field Statement")
	}
	if len(in.Statement) == 0 {
		return nil, problem("Could not parse the policy: Statement is empty!")
	}
	p := &Policy{}
	for _, r := range in.Statement {
		s, err := r.read(bucket)
		if err != nil {
			return nil, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func (r *rawStatement) read(bucket string) (statement, error) {
	var s statement
	switch r.Effect {
	case "Allow":
		s.effect = Allow
	case "Deny":
		s.effect = Deny
	case "":
		return s, problem("Missing required field Effect")
	default:
		return s, problem("Invalid effect: " + r.Effect)
	}
	who := r.Principal
	if r.NotPrincipal != nil {
		if who != nil {
			return s, problem("Policy has invalid syntax")
		}
		if s.effect == Allow {
			return s, problem("Allow with NotPrincipal is not allowed.")
		}
		who, s.notPrincipal = r.NotPrincipal, true
	}
	var err error
	if s.principals, err = principals(who); err != nil {
		return s, err
	}
	if s.actions, s.notAction, err = oneOf(r.Action, r.NotAction, "Action"); err != nil {
		return s, err
	}
	if s.resources, s.notResource, err = oneOf(r.Resource, r.NotResource, "Resource"); err != nil {
		return s, err
	}
	if err := s.checkNames(bucket); err != nil {
		return s, err
	}
	return s, s.readConditions(r.Condition)
}

func oneOf(is, not words, name string) ([]string, bool, error) {
	switch {
	case len(is) > 0 && len(not) > 0:
		return nil, false, problem("Policy has invalid syntax")
	case len(is) > 0:
		return is, false, nil
	case len(not) > 0:
		return not, true, nil
	case is != nil || not != nil:
		return nil, false, problem("Policy has invalid " + strings.ToLower(name))
	}
	return nil, false, problem("Missing required field " + name)
}

// principals reads who a statement is about.
func principals(b []byte) ([]string, error) {
	invalid := problem("Invalid principal in policy")
	if b == nil {
		return nil, problem("Missing required field Principal")
	}
	var list words
	if json.Unmarshal(b, &list) == nil {
		if len(list) == 0 || slices.Contains(list, "") {
			return nil, invalid
		}
		return list, nil
	}
	var kinds map[string]words
	if json.Unmarshal(b, &kinds) != nil || len(kinds) == 0 {
		return nil, invalid
	}
	var out []string
	for kind, list := range kinds {
		switch kind {
		case "AWS", "CanonicalUser":
		case "Service", "Federated":
			continue // there are none here
		default:
			return nil, invalid
		}
		if len(list) == 0 || slices.Contains(list, "") {
			return nil, invalid
		}
		out = append(out, list...)
	}
	return out, nil
}

// checkNames looks whether actions and resources are such as this bucket can have,
// and fit.
func (s *statement) checkNames(bucket string) error {
	onBucket, onObjects := false, false
	for i, a := range s.actions {
		name, ok := cutPrefixFold(a, "s3:")
		if a == "*" {
			name, ok = "*", true
		}
		if !ok || name == "" || !known(name) {
			return problem("Policy has invalid action")
		}
		b, o := levels(name)
		onBucket, onObjects = onBucket || b, onObjects || o
		s.actions[i] = strings.ToLower(a)
	}
	bucketNamed, objectsNamed := false, false
	for _, r := range s.resources {
		rest, ok := strings.CutPrefix(r, "arn:aws:s3:::")
		if !ok {
			if r != "*" {
				return problem("Policy has invalid resource")
			}
			bucketNamed, objectsNamed = true, true
			continue
		}
		name, _, object := strings.Cut(rest, "/")
		if !s.notResource && !like(name, bucket) {
			return problem("Policy has invalid resource")
		}
		objectsNamed = objectsNamed || object || strings.HasSuffix(name, "*")
		bucketNamed = bucketNamed || !object
	}
	if !s.notAction && !s.notResource && !(onBucket && bucketNamed || onObjects && objectsNamed) {
		return problem("Action does not apply to any resource(s) in statement")
	}
	return nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// Decide returns what the policy says to a request.
func (p *Policy) Decide(r Request) Effect {
	said := Silent
	for i := range p.statements {
		s := &p.statements[i]
		if s.effect > said && s.takes(r) {
			said = s.effect
		}
	}
	return said
}

func (s *statement) takes(r Request) bool {
	if s.isFor(r) == s.notPrincipal {
		return false
	}
	action := strings.ToLower(r.Action)
	if slices.ContainsFunc(s.actions, func(a string) bool { return like(a, action) }) == s.notAction {
		return false
	}
	if slices.ContainsFunc(s.resources, func(a string) bool { return like(a, r.Resource) }) == s.notResource {
		return false
	}
	for _, c := range s.conditions {
		if !c.holds(r) {
			return false
		}
	}
	return true
}

// isFor reports whether the caller is named. An account stands for all of its users.
func (s *statement) isFor(r Request) bool {
	return slices.ContainsFunc(s.principals, func(p string) bool {
		if p == "*" {
			return true
		}
		if r.Anonymous {
			return false
		}
		if rest, ok := strings.CutPrefix(p, "arn:aws:iam::"); ok {
			account, name, _ := strings.Cut(rest, ":")
			return name == "root" && account == r.Account || strings.TrimPrefix(name, "user/") == r.User && (account == r.Account || account == "")
		}
		return p == r.User || p == r.Account
	})
}

// Public reports whether the policy lets anybody do something, as S3's public access
// block understands it ("The meaning of public").
func (p *Policy) Public() bool {
	return slices.ContainsFunc(p.statements, func(s statement) bool {
		return s.effect == Allow && slices.Contains(s.principals, "*") && !s.narrow
	})
}

// like matches a pattern with * and ?, in linear time for each star.
func like(pattern, s string) bool {
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// parseTime reads a date of a condition.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02", "2006-01-02T15:04Z"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
