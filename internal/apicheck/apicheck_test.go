package apicheck

import (
	"testing"
)

const document = `{"openapi":"3.1.0","paths":{"/a":{"get":{"responses":{
	"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}},
	"204":{},
	"default":{"content":{"application/json":{"schema":{"type":"string","enum":["bad"]}}}}}}}},
	"components":{"schemas":{"A":{"type":"object","required":["n"],"properties":{
		"n":{"type":"integer","minimum":0},"at":{"type":"string","format":"date-time"},"f":{"type":"number"},"b":{"type":"boolean"},
		"list":{"type":"array","items":{"type":"string","enum":["x"]}},"any":{},"all":{"allOf":[{"type":"string"}]},
		"map":{"type":"object","additionalProperties":{"type":"integer"}},"lost":{"$ref":"#/components/schemas/B"},"odd":{"oneOf":[]}}}}}}`

func TestChecksBite(t *testing.T) {
	d, err := Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	const json = "application/json"
	for _, c := range []struct {
		status     int
		kind, body string
		good       bool
	}{
		{200, json, `{"n":1}`, true},
		{200, json, `{"n":1,"at":"2026-11-23T16:00:00Z","list":["x"],"f":1.5,"b":true,"any":[1],"all":"x","map":{"a":1}}`, true},
		{204, "", ``, true},
		{404, json, `"bad"`, true},

		{200, json, `{}`, false}, {200, json, `[]`, false}, {200, json, `{`, false}, {200, json, `{"n":-1}`, false}, {200, json, `{"n":1.5}`, false},
		{200, json, `{"n":"1"}`, false}, {200, json, `{"n":1,"more":1}`, false}, {200, json, `{"n":1,"at":"now"}`, false},
		{200, json, `{"n":1,"list":null}`, false}, {200, json, `{"n":1,"list":["y"]}`, false}, {200, json, `{"n":1,"f":"x"}`, false},
		{200, json, `{"n":1,"b":1}`, false}, {200, json, `{"n":1,"all":1}`, false}, {200, json, `{"n":1,"map":{"a":"b"}}`, false},
		{200, json, `{"n":1,"lost":1}`, false}, {200, json, `{"n":1,"odd":1}`, false}, {200, json, `{"n":null}`, false},
		{200, "text/plain", `{"n":1}`, false}, {204, "", `x`, false}, {201, json, `{"n":1}`, false}, {404, json, `"good"`, false},
	} {
		if err := d.Check("GET", "/a", c.status, c.kind, []byte(c.body)); (err == nil) != c.good {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
	}
	if d.Check("POST", "/a", 200, json, []byte(`{"n":1}`)) == nil || d.Check("GET", "/b", 200, json, []byte(`{"n":1}`)) == nil {
		t.Error("what is not in the document may be asked")
	}
	for _, text := range []string{`{`, `{"openapi":"3.0.0","paths":{"/a":{}}}`, `{"openapi":"3.1.0"}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s is a document", text)
		}
	}
}
