package policy

import (
	"fmt"
	"strings"
	"testing"
)

// statementOf is a policy of one statement.
func statementOf(rest string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"` + rest + `}]}`
}

func TestPoliciesSayWhatTheySay(t *testing.T) {
	anybody := Request{Anonymous: true, Action: "s3:GetObject", Resource: ARN("b", "a/x.jpg")}
	ann := Request{Account: "app", User: "ann", Action: "s3:GetObject", Resource: ARN("b", "a/x.jpg")}
	with := func(r Request, values ...string) Request {
		r.Values = func(key string) []string {
			var out []string
			for i := 0; i < len(values); i += 2 {
				if values[i] == key {
					out = append(out, values[i+1])
				}
			}
			return out
		}
		return r
	}
	one := func(effect, principal, action, resource string) string {
		return fmt.Sprintf(`{"Statement":{"Effect":%q,"Principal":%s,"Action":%q,"Resource":%q}}`, effect, principal, action, resource)
	}
	all := "arn:aws:s3:::b/*"
	condition := func(c string) string { return statementOf(`,"Condition":{` + c + `}`) }
	for name, c := range map[string]struct {
		policy string
		r      Request
		want   Effect
	}{
		"anybody":             {one("Allow", `"*"`, "s3:GetObject", all), anybody, Allow},
		"AWS star":            {one("Allow", `{"AWS":"*"}`, "s3:GetObject", all), anybody, Allow},
		"star action":         {one("Allow", `"*"`, "s3:*", all), anybody, Allow},
		"any action":          {one("Allow", `"*"`, "*", "*"), anybody, Allow},
		"action's case":       {one("Allow", `"*"`, "S3:getobject", all), anybody, Allow},
		"another action":      {one("Allow", `"*"`, "s3:PutObject", all), anybody, Silent},
		"pattern of actions":  {one("Allow", `"*"`, "s3:Get*", all), anybody, Allow},
		"one object":          {one("Allow", `"*"`, "s3:GetObject", "arn:aws:s3:::b/a/x.jpg"), anybody, Allow},
		"another object":      {one("Allow", `"*"`, "s3:GetObject", "arn:aws:s3:::b/c*"), anybody, Silent},
		"pattern of objects":  {one("Allow", `"*"`, "s3:GetObject", "arn:aws:s3:::b/?/*.jpg"), anybody, Allow},
		"denied":              {one("Deny", `"*"`, "s3:GetObject", all), ann, Deny},
		"a user":              {one("Allow", `{"AWS":"ann"}`, "s3:GetObject", all), ann, Allow},
		"a user's ARN":        {one("Allow", `{"AWS":"arn:aws:iam::app:user/ann"}`, "s3:GetObject", all), ann, Allow},
		"another user's ARN":  {one("Allow", `{"AWS":"arn:aws:iam::app:user/bob"}`, "s3:GetObject", all), ann, Silent},
		"an account":          {one("Allow", `{"AWS":["x","arn:aws:iam::app:root"]}`, "s3:GetObject", all), ann, Allow},
		"another account":     {one("Allow", `{"AWS":"arn:aws:iam::b:root"}`, "s3:GetObject", all), ann, Silent},
		"a user, anonymous":   {one("Allow", `{"AWS":"ann"}`, "s3:GetObject", all), anybody, Silent},
		"denied but to ann":   {`{"Statement":{"Effect":"Deny","NotPrincipal":{"AWS":"ann"},"Action":"s3:*","Resource":"*"}}`, ann, Silent},
		"denied to others":    {`{"Statement":{"Effect":"Deny","NotPrincipal":{"AWS":"ann"},"Action":"s3:*","Resource":"*"}}`, anybody, Deny},
		"not that action":     {`{"Statement":{"Effect":"Allow","Principal":"*","NotAction":"s3:PutObject","Resource":"*"}}`, anybody, Allow},
		"not this action":     {`{"Statement":{"Effect":"Allow","Principal":"*","NotAction":"s3:Get*","Resource":"*"}}`, anybody, Silent},
		"not that resource":   {`{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::b/secret/*"}}`, anybody, Allow},
		"not this resource":   {`{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::b/a/*"}}`, anybody, Silent},
		"deny goes first":     {`{"Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*"},{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}`, anybody, Deny},
		"address":             {condition(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), with(anybody, "aws:sourceip", "10.2.3.4"), Allow},
		"another address":     {condition(`"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::1"]}`), with(anybody, "aws:sourceip", "11.2.3.4"), Silent},
		"IPv6":                {condition(`"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::1"]}`), with(anybody, "aws:sourceip", "::1"), Allow},
		"not address":         {condition(`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), with(anybody, "aws:sourceip", "10.2.3.4"), Silent},
		"like":                {condition(`"StringLike":{"aws:Referer":"http://www.example.com/*"}`), with(anybody, "aws:referer", "http://www.example.com/a"), Allow},
		"not there":           {condition(`"StringLike":{"aws:Referer":"http://www.example.com/*"}`), anybody, Silent},
		"if exists":           {condition(`"StringLikeIfExists":{"aws:Referer":"http://www.example.com/*"}`), anybody, Allow},
		"not equals, absent":  {condition(`"StringNotEquals":{"s3:x-amz-acl":"private"}`), anybody, Allow},
		"not equals":          {condition(`"StringNotEquals":{"s3:x-amz-acl":["a","private"]}`), with(anybody, "s3:x-amz-acl", "private"), Silent},
		"bool":                {condition(`"Bool":{"aws:SecureTransport":false}`), with(anybody, "aws:securetransport", "false"), Allow},
		"bool as text":        {condition(`"Bool":{"aws:SecureTransport":"true"}`), with(anybody, "aws:securetransport", "false"), Silent},
		"number":              {condition(`"NumericLessThanEquals":{"s3:max-keys":10}`), with(anybody, "s3:max-keys", "10"), Allow},
		"larger number":       {condition(`"NumericLessThan":{"s3:max-keys":"10"}`), with(anybody, "s3:max-keys", "10"), Silent},
		"date":                {condition(`"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}`), with(anybody, "aws:currenttime", "2026-11-23T00:00:00Z"), Allow},
		"null":                {condition(`"Null":{"s3:x-amz-acl":"true"}`), anybody, Allow},
		"null, there":         {condition(`"Null":{"s3:x-amz-acl":true}`), with(anybody, "s3:x-amz-acl", "private"), Silent},
		"all values":          {condition(`"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`), with(anybody, "s3:requestobjecttagkeys", "a", "s3:requestobjecttagkeys", "c"), Silent},
		"any value":           {condition(`"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]}`), with(anybody, "s3:requestobjecttagkeys", "c", "s3:requestobjecttagkeys", "a"), Allow},
		"both conditions":     {condition(`"StringEquals":{"s3:prefix":"a"},"Bool":{"aws:SecureTransport":"true"}`), with(anybody, "s3:prefix", "a", "aws:securetransport", "false"), Silent},
		"many stars are fast": {one("Allow", `"*"`, "s3:GetObject", "arn:aws:s3:::b/"+strings.Repeat("*a", 400)+"z"), Request{Action: "s3:GetObject", Resource: ARN("b", strings.Repeat("a", 1024))}, Silent},
	} {
		p, err := Parse([]byte(c.policy), "b")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := p.Decide(c.r); got != c.want {
			t.Errorf("%s: said %d, want %d", name, got, c.want)
		}
	}
}

func TestBadPoliciesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ policy, want string }{
		"no JSON":           {`hello`, "first byte must be"},
		"a list":            {`[]`, "first byte must be"},
		"empty":             {``, "first byte must be"},
		"cut off":           {`{"Statement":`, "invalid Json"},
		"nothing in it":     {`{"Statement":[]}`, "Statement is empty"},
		"no version":        {`{"Version":"","Statement":[{}]}`, "valid version"},
		"no actions":        {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":[],"Resource":"*"}]}`, "invalid action"},
		"lower case":        {statementOf(`,"Condition":{"stringequals":{"s3:prefix":"a"}}`), "Condition type : stringequals"},
		"no such key":       {statementOf(`,"Condition":{"StringEquals":{"s3:colour":"a"}}`), "condition key"},
		"unknown element":   {`{"Statement":[],"X":1}`, "invalid syntax"},
		"no statement":      {`{"Version":"2012-10-17"}`, "required field Statement"},
		"version":           {`{"Version":"2020-01-01","Statement":[{}]}`, "valid version"},
		"effect":            {`{"Statement":[{"Effect":"allow"}]}`, "Invalid effect"},
		"principal":         {`{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`, "Principal"},
		"text principal":    {`{"Statement":[{"Effect":"Allow","Principal":"","Action":"s3:*","Resource":"*"}]}`, "Invalid principal"},
		"not principal":     {`{"Statement":[{"Effect":"Allow","NotPrincipal":"*","Action":"s3:*","Resource":"*"}]}`, "NotPrincipal"},
		"action":            {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:Fly","Resource":"*"}]}`, "invalid action"},
		"another service":   {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"ec2:*","Resource":"*"}]}`, "invalid action"},
		"another bucket":    {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::c/*"}]}`, "invalid resource"},
		"no ARN":            {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"b"}]}`, "invalid resource"},
		"does not fit":      {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b"}]}`, "does not apply"},
		"does not fit 2":    {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b/*"}]}`, "does not apply"},
		"condition":         {statementOf(`,"Condition":{"StringsEqual":{"s3:prefix":"a"}}`), "Condition type"},
		"condition key":     {statementOf(`,"Condition":{"StringEquals":{"prefix":"a"}}`), "condition key"},
		"address":           {statementOf(`,"Condition":{"IpAddress":{"aws:SourceIp":"everywhere"}}`), "Invalid IP address"},
		"value":             {statementOf(`,"Condition":{"StringEquals":{"s3:prefix":{"a":1}}}`), "invalid syntax"},
		"more after it":     {`{"Statement":[]}{}`, "invalid Json"},
		"too long":          {`{"Id":"` + strings.Repeat("x", MaxSize) + `"}`, "maximum allowed"},
		"action, notaction": {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","NotAction":"s3:*","Resource":"*"}]}`, "invalid syntax"},
	} {
		_, err := Parse([]byte(c.policy), "b")
		if err == nil || !strings.Contains(Problem(err), c.want) {
			t.Errorf("%s: %v, want something with %q", name, err, c.want)
		}
	}
}

func TestPublicIsWhatAnybodyMayDo(t *testing.T) {
	for policy, want := range map[string]bool{
		statementOf(``): true,
		statementOf(`,"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`):     false,
		statementOf(`,"Condition":{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}`):      true,
		statementOf(`,"Condition":{"StringLike":{"aws:Referer":"http://a/*"}}`):     true,
		strings.Replace(statementOf(``), `"Allow"`, `"Deny"`, 1):                    false,
		strings.Replace(statementOf(``), `"*"`, `{"AWS":"arn:aws:iam::a:root"}`, 1): false,
	} {
		p, err := Parse([]byte(policy), "b")
		if err != nil {
			t.Errorf("%s: %v", policy, err)
		} else if got := p.Public(); got != want {
			t.Errorf("%s: public %v, want %v", policy, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(statementOf(``)), "a")
	f.Add([]byte(statementOf(`,"Condition":{"IpAddress":{"aws:SourceIp":["10.0.0.0/8"]},"Bool":{"aws:SecureTransport":true}}`)), "10.0.0.1")
	f.Fuzz(func(t *testing.T, text []byte, value string) {
		p, err := Parse(text, "b")
		if err != nil {
			if Problem(err) == "" {
				t.Fatalf("nothing is said of %v", err)
			}
			return
		}
		r := Request{Account: "a", User: "u", Action: "s3:GetObject", Resource: ARN("b", value), Values: func(string) []string { return []string{value} }}
		p.Public()
		if said := p.Decide(r); said < Silent || said > Deny {
			t.Fatalf("said %d", said)
		}
	})
}
