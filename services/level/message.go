package level

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// A request is a message of a client: docs/formats/level-door.md says what
// belongs to which operation.
type request struct {
	ID       uint64       `json:"id"`
	Op       string       `json:"op"`
	Version  int          `json:"version,omitempty"`
	Key      data         `json:"key,omitzero"`
	Value    data         `json:"value,omitzero"`
	Keys     list[data]   `json:"keys,omitzero"`
	Changes  list[change] `json:"changes,omitzero"`
	Gt       data         `json:"gt,omitzero"`
	Gte      data         `json:"gte,omitzero"`
	Lt       data         `json:"lt,omitzero"`
	Lte      data         `json:"lte,omitzero"`
	Reverse  bool         `json:"reverse,omitempty"`
	Limit    *int         `json:"limit,omitempty"`
	Only     string       `json:"only,omitempty"`
	Snapshot uint64       `json:"snapshot,omitempty"`
	Iterator uint64       `json:"iterator,omitempty"`
	Size     int          `json:"size,omitempty"`
	Seek     data         `json:"seek,omitzero"`
}

// A change is one operation of a batch.
type change struct {
	Type  string `json:"type"`
	Key   data   `json:"key"`
	Value data   `json:"value,omitzero"`
}

// A reply is the answer to the request with its number.
type reply struct {
	ID         uint64   `json:"id"`
	Version    int      `json:"version,omitempty"`
	MaxMessage int      `json:"maxMessage,omitempty"`
	Value      data     `json:"value,omitzero"`
	Keys       []data   `json:"keys,omitzero"`
	Values     []data   `json:"values,omitzero"`
	Has        []bool   `json:"has,omitzero"`
	End        bool     `json:"end,omitempty"`
	Error      *problem `json:"error,omitempty"`
}

// A problem is why a request failed.
type problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// maxSafe is the largest whole number that JavaScript can tell from the next.
const maxSafe = 1<<53 - 1

// parse reads a request. When it is not one, the number that it has is still
// returned, 0 if it has none that can be answered.
func parse(message []byte) (request, error) {
	var r request
	err := strictly(message, &r)
	if err != nil {
		var some struct {
			ID uint64 `json:"id"`
		}
		if json.Unmarshal(message, &some) != nil {
			return request{}, err
		}
		r = request{ID: some.ID}
	}
	if r.ID == 0 || r.ID > maxSafe {
		return request{}, errors.Join(err, errors.New("a request has an id from 1 to 2^53-1"))
	}
	return r, err
}

// strictly reads JSON that has nothing that v has no place for: what is taken
// no notice of, such as a bound with a typing error, might have mattered.
func strictly(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("text is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something behind the JSON value")
	}
	return nil
}

// data is a key or a value: in JSON a string if it is UTF-8, and otherwise an
// object with its base64. It is nil for null.
type data []byte

// binary is the JSON of data that is no text.
type binary struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (b data) MarshalJSON() ([]byte, error) {
	switch {
	case b == nil:
		return []byte("null"), nil
	case !utf8.Valid(b):
		return json.Marshal(binary{b})
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(string(b))
	return out.Bytes(), err
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *data) UnmarshalJSON(raw []byte) error {
	switch raw[0] {
	case 'n':
		*b = nil
	case '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		*b = append(data{}, text...)
	default:
		var o binary
		if err := strictly(raw, &o); err != nil {
			return err
		}
		if o.Base64 == nil {
			return errors.New("an object has base64")
		}
		*b = o.Base64
	}
	return nil
}

// maxList is the most elements of a list: they take more memory here than on
// the wire.
const maxList = 100_000

// A list is one that is not too long.
type list[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *list[T]) UnmarshalJSON(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("not a list"), err)
	}
	*l = list[T]{}
	for d.More() {
		if len(*l) == maxList {
			return fmt.Errorf("a list has more than %d elements", maxList)
		}
		var e T
		if err := d.Decode(&e); err != nil {
			return err
		}
		*l = append(*l, e)
	}
	return nil
}
