package sigv4

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxPolicy bounds a policy.
const maxPolicy = 20 << 10

// A Posted is a form that was verified.
type Posted struct {
	Principal, AccessKey string
	// MinLength and MaxLength are how long the policy lets the file be.
	MinLength, MaxLength int64
}

// VerifyForm verifies the fields of a form, by their names in lower case, without
// the file, whose length has to be looked at by the caller. bucket is that of the
// address.
func (v *Verifier) VerifyForm(ctx context.Context, fields map[string]string, bucket string) (*Posted, error) {
	policy, ok := fields["policy"]
	if policy == "" && ok {
		return nil, fail(BadPolicy, "Invalid Policy: Expecting '{' but found End-of-Input")
	}
	if !ok {
		return nil, noField("policy")
	}
	if len(policy) > maxPolicy {
		return nil, fail(BadPolicy, "The policy is too long")
	}
	if fields["x-amz-algorithm"] == "" && fields["awsaccesskeyid"] != "" {
		key, err := v.key(ctx, fields["awsaccesskeyid"])
		if err != nil {
			return nil, err
		}
		return v.verifyFormV2(fields, key, bucket)
	}
	for _, name := range []string{"x-amz-algorithm", "x-amz-credential", "x-amz-signature", "x-amz-date"} {
		if fields[name] == "" {
			return nil, noField(name)
		}
	}
	if fields["x-amz-algorithm"] != algorithm {
		return nil, about(Malformed, "X-Amz-Algorithm", "Only AWS4-HMAC-SHA256 is supported")
	}
	s := &signature{signature: fields["x-amz-signature"]}
	var err error
	if s.at, err = time.Parse(timeFormat, fields["x-amz-date"]); err != nil {
		return nil, about(Malformed, "X-Amz-Date", "X-Amz-Date must be formated via ISO8601 Long format")
	}
	if err := v.setCredential(s, fields["x-amz-credential"], Malformed); err != nil {
		return nil, err
	}
	key, err := v.key(ctx, s.accessKey)
	if err != nil {
		return nil, err
	}
	if !same(sign(signingKey(key.Secret, s.date, s.region, s.service), policy), s.signature) {
		return nil, &Error{Kind: Mismatch, Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
			ToSign: policy, AccessKey: s.accessKey, Signature: s.signature}
	}
	out := &Posted{Principal: key.Principal, AccessKey: s.accessKey, MaxLength: math.MaxInt64}
	return out, v.checkPolicy(policy, fields, bucket, out)
}

func noField(name string) error {
	return about(Missing, name, "Bucket POST must contain a field named '%s'.  If it is specified, please check the order of the fields.", name)
}

// checkPolicy looks whether a form is as its policy says.
func (v *Verifier) checkPolicy(encoded string, fields map[string]string, bucket string, out *Posted) error {
	text, err := base64.StdEncoding.DecodeString(encoded)
	// The names count as they are written, other than encoding/json sees it in structs.
	var parts map[string]json.RawMessage
	var expiration string
	var conditions []json.RawMessage
	switch {
	case err != nil:
		return fail(BadPolicy, "Invalid Policy: invalid Base64 encoding.")
	case json.Unmarshal(text, &parts) != nil:
		return fail(BadPolicy, "Invalid Policy: Invalid JSON.")
	}
	for name := range parts {
		if name != "expiration" && name != "conditions" {
			return fail(BadPolicy, "Invalid Policy: Unexpected: %q", name)
		}
	}
	switch {
	case parts["expiration"] == nil:
		return fail(BadPolicy, "Invalid Policy: Policy missing expiration.")
	case json.Unmarshal(parts["expiration"], &expiration) != nil:
		return fail(BadPolicy, "Invalid Policy: Invalid 'expiration' value: '%.40s'", parts["expiration"])
	case parts["conditions"] == nil:
		return fail(BadPolicy, "Invalid Policy: Policy missing conditions.")
	case json.Unmarshal(parts["conditions"], &conditions) != nil:
		return fail(BadPolicy, "Invalid Policy: Invalid 'conditions' value: must be a List.")
	case len(conditions) == 0:
		return fail(BadPolicy, "Invalid Policy: Policy missing conditions.")
	}
	end, err := time.Parse(time.RFC3339, expiration)
	if err != nil {
		return fail(BadPolicy, "Invalid Policy: Invalid 'expiration' value: '%.40s'", expiration)
	}
	if v.now().After(end) {
		return fail(Denied, "Invalid according to Policy: Policy expired.")
	}
	value := func(name string) string {
		if name == "bucket" {
			return bucket
		}
		return fields[name]
	}
	spoken := map[string]bool{}
	for _, raw := range conditions {
		if err := checkCondition(raw, value, spoken, out); err != nil {
			return err
		}
	}
	if !spoken["bucket"] {
		return fail(Denied, "Invalid according to Policy: Extra input fields: bucket")
	}
	free := []string{"policy", "x-amz-signature", "signature", "file", "awsaccesskeyid"}
	for name := range fields {
		if !spoken[name] && !slices.Contains(free, name) && !strings.HasPrefix(name, "x-ignore-") && !strings.HasPrefix(name, "x-amz-checksum-") {
			return fail(Denied, "Invalid according to Policy: Extra input fields: %s", name)
		}
	}
	return nil
}

// checkCondition looks at one condition: {"name": "value"}, ["eq", "$name",
// "value"], ["starts-with", "$name", "value"] or ["content-length-range", 1, 2].
func checkCondition(raw json.RawMessage, value func(string) string, spoken map[string]bool, out *Posted) error {
	var exact map[string]any
	if json.Unmarshal(raw, &exact) == nil {
		if len(exact) != 1 {
			return fail(BadPolicy, "Invalid Policy: Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
		}
		for name, want := range exact {
			text, ok := want.(string)
			if !ok {
				return fail(BadPolicy, "Invalid Policy: Invalid Simple-Condition: value must be a string.")
			}
			name = strings.ToLower(name)
			spoken[name] = true
			if value(name) != text {
				return fail(Denied, "Invalid according to Policy: Policy Condition failed: [\"eq\", %q, %.200q]", "$"+name, text)
			}
		}
		return nil
	}
	var list []any
	if json.Unmarshal(raw, &list) != nil {
		return fail(BadPolicy, "Invalid Policy: Invalid condition test: must be a List or Object.")
	}
	if len(list) == 0 {
		return fail(BadPolicy, "Invalid Policy: Invalid Condition: missing operation identifier.")
	}
	said, _ := list[0].(string)
	kind := strings.ToLower(said)
	switch {
	case kind != "eq" && kind != "starts-with" && kind != "content-length-range":
		return fail(BadPolicy, "Invalid Policy: Invalid Condition: unknown operation '%.40s'.", said)
	case len(list) != 3:
		return fail(BadPolicy, "Invalid Policy: Invalid %s: wrong number of arguments.", kind)
	}
	if kind == "content-length-range" {
		low, ok1 := length(list[1])
		high, ok2 := length(list[2])
		if !ok1 || !ok2 || low < 0 || high < low {
			return fail(BadPolicy, "Invalid Policy: Invalid content-length-range: the bounds make no sense.")
		}
		out.MinLength, out.MaxLength = max(out.MinLength, int64(low)), min(out.MaxLength, int64(min(high, 1<<62)))
		return nil
	}
	name, _ := list[1].(string)
	want, ok := list[2].(string)
	name, dollar := strings.CutPrefix(strings.ToLower(name), "$")
	if !ok || !dollar {
		return fail(BadPolicy, "Invalid Policy: Invalid %s: a field begins with '$', and its value is a string.", kind)
	}
	spoken[name] = true
	got := value(name)
	if kind == "eq" && got == want || kind == "starts-with" && (strings.HasPrefix(got, want) || name == "content-type" && eachStarts(got, want)) {
		return nil
	}
	return fail(Denied, "Invalid according to Policy: Policy Condition failed: %.200s", raw)
}

// length reads a bound, which some clients write as a string.
func length(v any) (float64, bool) {
	if text, ok := v.(string); ok {
		n, err := strconv.ParseUint(text, 10, 62)
		return float64(n), err == nil
	}
	n, ok := v.(float64)
	return n, ok
}

// eachStarts is for content types, which may be a list.
func eachStarts(list, want string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if !strings.HasPrefix(strings.TrimSpace(part), want) {
			return false
		}
	}
	return true
}
