package sigv4

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
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
	policy := fields["policy"]
	if policy == "" {
		return nil, fail(Missing, "The form has no policy")
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
	if fields["x-amz-algorithm"] != algorithm {
		return nil, fail(Malformed, "x-amz-algorithm only supports \"AWS4-HMAC-SHA256\"")
	}
	s := &signature{signature: fields["x-amz-signature"]}
	var err error
	if s.at, err = time.Parse(timeFormat, fields["x-amz-date"]); err != nil {
		return nil, fail(Malformed, "x-amz-date must be in the ISO8601 Long Format")
	}
	if err := v.setCredential(s, fields["x-amz-credential"], Malformed); err != nil {
		return nil, err
	}
	key, err := v.key(ctx, s.accessKey)
	if err != nil {
		return nil, err
	}
	if !same(sign(signingKey(key.Secret, s.date, s.region, s.service), policy), s.signature) {
		return nil, fail(Mismatch, "The signature of the policy does not match")
	}
	out := &Posted{Principal: key.Principal, AccessKey: s.accessKey, MaxLength: math.MaxInt64}
	return out, v.checkPolicy(policy, fields, bucket, out)
}

// checkPolicy looks whether a form is as its policy says.
func (v *Verifier) checkPolicy(encoded string, fields map[string]string, bucket string, out *Posted) error {
	text, err := base64.StdEncoding.DecodeString(encoded)
	// The names count as they are written, other than encoding/json sees it in structs.
	var parts map[string]json.RawMessage
	var expiration string
	var conditions []json.RawMessage
	if err != nil || json.Unmarshal(text, &parts) != nil {
		return fail(BadPolicy, "Invalid Policy: Invalid JSON.")
	}
	if json.Unmarshal(parts["conditions"], &conditions) != nil || len(conditions) == 0 {
		return fail(BadPolicy, "Invalid Policy: Policy missing conditions.")
	}
	if json.Unmarshal(parts["expiration"], &expiration) != nil {
		return fail(BadPolicy, "Invalid Policy: Policy missing expiration.")
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
	free := []string{"policy", "x-amz-signature", "signature", "file", "bucket", "awsaccesskeyid"}
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
	failed := fail(Denied, "Invalid according to Policy: Policy Condition failed: %.200s", raw)
	var exact map[string]string
	if json.Unmarshal(raw, &exact) == nil {
		if len(exact) == 0 {
			return fail(BadPolicy, "Invalid Policy: Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
		}
		for name, want := range exact {
			name = strings.ToLower(name)
			spoken[name] = true
			if value(name) != want {
				return failed
			}
		}
		return nil
	}
	var list []any
	if json.Unmarshal(raw, &list) != nil || len(list) != 3 {
		return fail(BadPolicy, "A condition of the policy can't be read")
	}
	kind, _ := list[0].(string)
	kind = strings.ToLower(kind)
	if kind == "content-length-range" {
		low, ok1 := list[1].(float64)
		high, ok2 := list[2].(float64)
		if !ok1 || !ok2 || low < 0 || high < low {
			return fail(BadPolicy, "A condition of the policy can't be read")
		}
		out.MinLength, out.MaxLength = max(out.MinLength, int64(low)), min(out.MaxLength, int64(min(high, 1<<62)))
		return nil
	}
	name, _ := list[1].(string)
	want, ok := list[2].(string)
	name, dollar := strings.CutPrefix(strings.ToLower(name), "$")
	if !ok || !dollar {
		return fail(BadPolicy, "A condition of the policy can't be read")
	}
	spoken[name] = true
	switch got := value(name); {
	case kind == "eq" && got == want:
	case kind == "starts-with" && (strings.HasPrefix(got, want) || name == "content-type" && eachStarts(got, want)):
	case kind != "eq" && kind != "starts-with":
		return fail(BadPolicy, "A condition of the policy can't be read")
	default:
		return failed
	}
	return nil
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
