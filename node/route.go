package node

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/client"
)

// None is the input of a call that takes nothing, and the output of one that
// answers nothing.
type None = struct{}

// maxBody bounds the body of a call that does not say otherwise.
const maxBody = 1 << 20

// A Route is one thing that a node can be asked. The table of them makes the
// OpenAPI document.
type Route struct {
	Method string
	Path   string // below /api/v1, with parameters such as /folders/{id}
	Doc    string // a few words; the first is a verb

	// MaxBody bounds the body, 0 is 1 MiB. Open calls need no sign-in.
	MaxBody int64
	Open    bool

	in, out reflect.Type // None is nothing
	takes   string       // media type of the body, if it is no JSON
	gives   string       // media type of the answer, if it is no JSON
	serve   func(w http.ResponseWriter, r *http.Request) error
}

// Call makes a route of a function from In to Out. Fields of In that have a tag
// path:"…" or query:"…" are read from the URL, those with json:"…" from the
// body; a tag doc:"…" goes into the document. Fields are required unless they
// are pointers or have omitempty or omitzero; those of a query never are. An
// error is sent as FailureOf says.
func Call[In, Out any](method, path, doc string, f func(context.Context, In) (Out, error)) Route {
	r := Route{Method: method, Path: path, Doc: doc, in: reflect.TypeFor[In](), out: reflect.TypeFor[Out]()}
	fields := fieldsOf(r.in) // a mistake in a tag shows at once
	r.serve = func(w http.ResponseWriter, req *http.Request) error {
		var in In
		if err := readInput(req, reflect.ValueOf(&in).Elem(), fields); err != nil {
			return err
		}
		out, err := f(req.Context(), in)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, out)
	}
	return r
}

// Raw makes a route that writes the answer by itself, and reads the body unless
// In has fields of JSON. takes and gives are media types of the body and the
// answer, "" for JSON or none. An error that f returns is sent if nothing was yet.
func Raw[In any](method, path, doc, takes, gives string, f func(w http.ResponseWriter, r *http.Request, in In) error) Route {
	r := Route{Method: method, Path: path, Doc: doc, in: reflect.TypeFor[In](), takes: takes, gives: gives}
	fields := fieldsOf(r.in)
	r.serve = func(w http.ResponseWriter, req *http.Request) error {
		var in In
		if err := readInput(req, reflect.ValueOf(&in).Elem(), fields); err != nil {
			return err
		}
		return f(w, req, in)
	}
	return r
}

// A caller is who asks.
type caller struct {
	owner   bool   // by the socket
	session string // the id of it, else
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// BySocket reports whether a call came by the socket, from the owner's own
// programs, and not from a page.
func BySocket(ctx context.Context) bool { return callerOf(ctx).owner }

// A field is one of an input.
type field struct {
	index    int
	name     string
	required bool
}

type inputFields struct {
	path, query []field
	body        []field // nil: there is none
}

func fieldsOf(t reflect.Type) (f inputFields) {
	if t.Kind() != reflect.Struct {
		panic("node: input " + t.String() + " is no struct")
	}
	for i := range t.NumField() {
		s := t.Field(i)
		one := field{index: i, required: required(s)}
		switch {
		case s.Tag.Get("path") != "":
			one.name = s.Tag.Get("path")
			f.path = append(f.path, one)
		case s.Tag.Get("query") != "":
			one.name = s.Tag.Get("query")
			f.query = append(f.query, one)
		case jsonName(s) != "":
			one.name = jsonName(s)
			f.body = append(f.body, one)
		default:
			panic("node: field " + t.String() + "." + s.Name + " has no tag")
		}
	}
	return f
}

// jsonName is the name of a field in JSON, or "".
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func required(f reflect.StructField) bool {
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return f.Type.Kind() != reflect.Pointer && !strings.Contains(options, "omit")
}

func usage(cause, format string, args ...any) *client.Error {
	return &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf(format, args...), Cause: cause, Try: "GET " + client.Base + "/openapi.json says what it takes"}
}

func readInput(r *http.Request, in reflect.Value, fields inputFields) error {
	for _, f := range fields.path {
		if err := setText(in.Field(f.index), r.PathValue(f.name)); err != nil {
			return usage(err.Error(), "wrong %q in the path", f.name)
		}
	}
	query := r.URL.Query()
	for _, f := range fields.query {
		if !query.Has(f.name) {
			continue
		}
		if err := setText(in.Field(f.index), query.Get(f.name)); err != nil {
			return usage(err.Error(), "wrong %q in the query", f.name)
		}
	}
	if fields.body == nil {
		return nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return usage("its Content-Type is not application/json", "wrong body")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return bodyError(err)
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		return usage(err.Error(), "wrong body")
	}
	for _, f := range fields.body {
		raw, ok := given[f.name]
		delete(given, f.name)
		if !ok && f.required {
			return usage("it is missing", "wrong %q in the body", f.name)
		}
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, in.Field(f.index).Addr().Interface()); err != nil {
			return usage(err.Error(), "wrong %q in the body", f.name)
		}
	}
	for name := range given {
		return usage("there is no such field", "wrong %q in the body", name)
	}
	return nil
}

func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		e := usage(fmt.Sprintf("it has more than %d bytes", large.Limit), "the body is too large")
		e.Status = http.StatusRequestEntityTooLarge
		return e
	}
	return usage(err.Error(), "cannot read the body")
}

// setText sets a field to what a text says.
func setText(v reflect.Value, s string) error {
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return t.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is not true or false", s)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint64:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetUint(n)
	default:
		panic("node: a parameter can't be of type " + v.Type().String())
	}
	return nil
}

// answer sends a value as JSON, or nothing if it is None.
func answer(w http.ResponseWriter, status int, out any) error {
	if out == (any)(None{}) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	v := reflect.ValueOf(&out).Elem()
	b, err := json.Marshal(noNulls(v).Interface())
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}

// noNulls returns a value with empty lists where there are none: readers are
// spared a case.
func noNulls(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		return noNulls(v.Elem())
	case reflect.Pointer:
		if v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return v
		}
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(noNulls(v.Elem()))
		return p
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		c.Set(v)
		for i := range c.NumField() {
			if f := c.Field(i); f.CanSet() {
				f.Set(noNulls(f))
			}
		}
		return c
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return v
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(noNulls(v.Index(i)))
		}
		return c
	}
	return v
}
