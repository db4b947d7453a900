// Package apicheck holds answers of an API to its OpenAPI 3.1 document, in
// tests. It knows the part of OpenAPI and of JSON Schema that the node's
// document uses, and fails on what it does not know.
//
//	d, err := apicheck.Parse(document)
//	err = d.Check("GET", "/api/v1/status", 200, "application/json", body)
package apicheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Document is an OpenAPI document.
type Document struct {
	OpenAPI    string
	Paths      map[string]map[string]Operation
	Components struct{ Schemas map[string]any }
}

// An Operation is something that the API can be asked.
type Operation struct {
	OperationID string
	Summary     string
	Security    []any
	Parameters  []Parameter
	RequestBody *Body
	Responses   map[string]Body
}

// A Parameter is one of the path or the query.
type Parameter struct {
	Name, In string
	Required bool
}

// A Body is what is sent, by its media type.
type Body struct {
	Content map[string]struct{ Schema any }
}

// Parse reads a document.
func Parse(b []byte) (*Document, error) {
	d := new(Document)
	if err := json.Unmarshal(b, d); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || len(d.Paths) == 0 {
		return nil, fmt.Errorf("no OpenAPI 3.1 document: %q with %d paths", d.OpenAPI, len(d.Paths))
	}
	return d, nil
}

// Check returns an error if an answer is not one that the document tells of. The
// path is that of the document, with its parameters.
func (d *Document) Check(method, path string, status int, contentType string, body []byte) error {
	op, ok := d.Paths[path][strings.ToLower(method)]
	if !ok {
		return errors.New("the document has no such operation")
	}
	said, ok := op.Responses[fmt.Sprint(status)]
	if !ok {
		said, ok = op.Responses["default"]
		ok = ok && status >= 400
	}
	if !ok {
		return fmt.Errorf("the document has no answer %d: %s", status, body)
	}
	if said.Content == nil {
		if len(body) != 0 {
			return fmt.Errorf("answers %q, want nothing", body)
		}
		return nil
	}
	content, ok := said.Content[contentType]
	if !ok {
		return fmt.Errorf("answers a %q: %s", contentType, body)
	}
	if content.Schema == nil {
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	return d.Conforms(content.Schema, v)
}

// Conforms returns an error if a value (as of encoding/json) is not one of a
// schema.
func (d *Document) Conforms(schema, value any) error { return d.conforms(schema, value, "answer") }

// known are the words of schemas that are understood, or say nothing of values.
var known = []string{
	"$ref", "allOf", "enum", "type", "format", "minimum", "items", "properties", "required", "additionalProperties", "contentEncoding", "description", "x-go",
}

func (d *Document) conforms(schema, v any, at string) error {
	m, _ := schema.(map[string]any)
	for word := range m {
		if !slices.Contains(known, word) {
			return fmt.Errorf("%s: its schema has %q, which is not understood here", at, word)
		}
	}
	if ref, ok := m["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		if d.Components.Schemas[name] == nil {
			return fmt.Errorf("%s: there is no schema %q", at, name)
		}
		return d.conforms(d.Components.Schemas[name], v, at)
	}
	all, _ := m["allOf"].([]any)
	for _, one := range all {
		if err := d.conforms(one, v, at); err != nil {
			return err
		}
	}
	if enum, ok := m["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", at, v, enum)
	}
	switch m["type"] {
	case nil:
		return nil
	case "array":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s: %v is no list", at, v)
		}
		for i, one := range list {
			if err := d.conforms(m["items"], one, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	case "object":
		return d.object(m, v, at)
	}
	if !simple(m, v) {
		return fmt.Errorf("%s: %v is no %v", at, v, m["type"])
	}
	return nil
}

// simple reports whether a value without parts is of its type.
func simple(m map[string]any, v any) bool {
	switch x := v.(type) {
	case string:
		if m["format"] == "date-time" {
			_, err := time.Parse(time.RFC3339, x)
			return err == nil && m["type"] == "string"
		}
		return m["type"] == "string"
	case bool:
		return m["type"] == "boolean"
	case float64:
		low, bounded := m["minimum"].(float64)
		whole := x == float64(int64(x))
		return (!bounded || x >= low) && (m["type"] == "number" || m["type"] == "integer" && whole)
	}
	return false
}

func (d *Document) object(m map[string]any, v any, at string) error {
	object, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %v is no object", at, v)
	}
	properties, _ := m["properties"].(map[string]any)
	needed, _ := m["required"].([]any)
	for _, name := range needed {
		if _, ok := object[fmt.Sprint(name)]; !ok {
			return fmt.Errorf("%s: %v is missing", at, name)
		}
	}
	for name, value := range object {
		schema, ok := properties[name]
		if !ok {
			if schema, ok = m["additionalProperties"]; !ok {
				return fmt.Errorf("%s: %q is not in the schema", at, name)
			}
		}
		if err := d.conforms(schema, value, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}
