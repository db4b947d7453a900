package node

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// A schema is a part of the document.
type schema map[string]any

// schemas are those of named types.
type schemas map[string]schema

// openAPI makes the OpenAPI 3.1 document of the routes. A route that is there
// twice is an error.
func (n *Node) openAPI() ([]byte, error) {
	types := schemas{}
	paths := map[string]schema{}
	for _, r := range n.routes {
		path := client.Base + strings.ReplaceAll(r.Path, "...}", "}")
		if paths[path] == nil {
			paths[path] = schema{}
		}
		method := strings.ToLower(r.Method)
		if paths[path][method] != nil {
			return nil, fmt.Errorf("two routes are %s %s", r.Method, r.Path)
		}
		paths[path][method] = types.operation(r)
	}
	types.ref(typeOf[client.Event]())
	doc := schema{
		"openapi": "3.1.0",
		"info": schema{
			"title": "Bevy control API", "version": "1",
			"description": "On the control socket of a node, with all rights; on its port with a session: a cookie and the header " + client.KeyHeader + ".",
		},
		"paths": paths,
		"components": schema{
			"schemas": types,
			"securitySchemes": schema{
				"cookie": schema{"type": "apiKey", "in": "cookie", "name": "bevy-7070", "description": "with the number of the port"},
				"key":    schema{"type": "apiKey", "in": "header", "name": client.KeyHeader},
			},
		},
		"security": []schema{{"cookie": []string{}, "key": []string{}}},
	}
	return json.Marshal(doc)
}

// parameter is one in a path.
var parameter = regexp.MustCompile(`\{(\w+)(?:\.\.\.)?\}`)

func (s schemas) operation(r Route) schema {
	op := schema{"operationId": operationID(r), "summary": r.Doc, "responses": s.responses(r)}
	if r.Open {
		op["security"] = []schema{}
	}
	if list := s.parameters(r); len(list) > 0 {
		op["parameters"] = list
	}
	switch fields := fieldsOf(r.in); {
	case r.takes != "":
		op["requestBody"] = schema{"content": schema{r.takes: schema{}}}
	case fields.body != nil:
		op["requestBody"] = schema{"required": true, "content": schema{"application/json": schema{"schema": s.ref(r.in)}}}
	}
	return op
}

// operationID is what a route is called in programs: getSessions.
func operationID(r Route) string {
	id := strings.ToLower(r.Method)
	for _, word := range regexp.MustCompile(`[A-Za-z0-9]+`).FindAllString(r.Path, -1) {
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	return id
}

func (s schemas) parameters(r Route) (list []schema) {
	fields := fieldsOf(r.in)
	add := func(in string, f field) {
		t := r.in.Field(f.index)
		p := schema{"name": f.name, "in": in, "schema": s.ref(t.Type)}
		if doc := t.Tag.Get("doc"); doc != "" {
			p["description"] = doc
		}
		if in == "path" {
			p["required"] = true
		}
		list = append(list, p)
	}
	for _, f := range fields.path {
		add("path", f)
	}
	for _, f := range fields.query {
		add("query", f)
	}
	for _, m := range parameter.FindAllStringSubmatch(r.Path, -1) {
		if !slices.ContainsFunc(fields.path, func(f field) bool { return f.name == m[1] }) {
			panic("node: " + r.Path + ": the input has no field for {" + m[1] + "}")
		}
	}
	return list
}

func (s schemas) responses(r Route) schema {
	refused := schema{"description": "it did not work", "content": schema{"application/json": schema{"schema": s.ref(typeOf[client.Failure]())}}}
	switch {
	case r.gives != "":
		return schema{"200": schema{"description": "done", "content": schema{r.gives: schema{}}}, "default": refused}
	case r.out == nil || r.out == typeOf[None]():
		return schema{"204": schema{"description": "done"}, "default": refused}
	}
	done := schema{"description": "done", "content": schema{"application/json": schema{"schema": s.ref(r.out)}}}
	return schema{"200": done, "default": refused}
}

// enums are the values that a type has.
var enums = map[reflect.Type][]string{
	typeOf[client.Code]():     words(client.Codes),
	typeOf[client.Severity](): words(client.Severities),
}

func words[T ~string](list []T) (out []string) {
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// ref is the schema of a type, or a reference to it.
func (s schemas) ref(t reflect.Type) schema {
	switch {
	case t == typeOf[time.Time]():
		return schema{"type": "string", "format": "date-time"}
	case t == typeOf[json.RawMessage]():
		return schema{}
	case t.Kind() == reflect.Pointer:
		return s.ref(t.Elem())
	case t.Implements(typeOf[encoding.TextMarshaler]()) || reflect.PointerTo(t).Implements(typeOf[encoding.TextUnmarshaler]()):
		return schema{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		if values := enums[t]; values != nil {
			return schema{"type": "string", "enum": values}
		}
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return schema{"type": "integer", "minimum": 0}
	case reflect.Float64, reflect.Float32:
		return schema{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return schema{"type": "string", "contentEncoding": "base64"}
		}
		return schema{"type": "array", "items": s.ref(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.ref(t.Elem())}
	case reflect.Interface:
		return schema{}
	case reflect.Struct:
		return s.object(t)
	}
	panic("node: the API can't have the type " + t.String())
}

// object is the schema of a struct, by its name.
func (s schemas) object(t reflect.Type) schema {
	name := t.Name()
	ref := schema{"$ref": "#/components/schemas/" + name}
	if name == "" {
		panic("node: a type of the API has no name")
	}
	if s[name] != nil {
		if s[name]["x-go"] != t.String() {
			panic(fmt.Sprintf("node: two types of the API are called %s: %s and %s", name, s[name]["x-go"], t))
		}
		return ref
	}
	properties, needed := schema{}, []string{}
	s[name] = schema{"type": "object", "properties": properties, "x-go": t.String()}
	s.fields(t, properties, &needed)
	if len(needed) > 0 {
		s[name]["required"] = needed
	}
	return ref
}

func (s schemas) fields(t reflect.Type, properties schema, needed *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Tag.Get("json") == "" && f.Type.Kind() == reflect.Struct {
			s.fields(f.Type, properties, needed)
			continue
		}
		name := jsonName(f)
		if name == "" {
			continue
		}
		property := s.ref(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			property = schema{"description": doc, "allOf": []schema{property}}
		}
		properties[name] = property
		if required(f) {
			*needed = append(*needed, name)
		}
	}
}
