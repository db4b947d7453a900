package compact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// maxDepth is how deep arrays and objects nest in an any value.
const maxDepth = 64

// The type numbers of compact-encoding's any.
const (
	anyNull = iota
	anyBool
	anyString
	anyBuffer
	anyUint
	anyInt
	anyFloat64
	anyArray
	anyObject
	anyDate
	anyTypes // how many there are
)

// Field is one entry of an [Object].
type Field struct {
	Key   string
	Value any
}

// Object is an any value with named fields, in order.
type Object []Field

// Get returns the value of the last field with the name key, the one that
// counts in JavaScript.
func (o Object) Get(key string) (any, bool) {
	for i := len(o) - 1; i >= 0; i-- {
		if o[i].Key == key {
			return o[i].Value, true
		}
	}
	return nil, false
}

// AppendJSON appends v as JSON text with its length before it. The error is
// that of [json.Marshal]. Text is written without the HTML escapes of Go.
func AppendJSON(b []byte, v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return b, err
	}
	return AppendBuffer(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))), nil
}

// AppendAny appends a value that carries its own type: nil, bool, string,
// []byte, any Go integer, float64, []any, [Object], map[string]any (written in
// the order of its keys) or [time.Time]. A float64 that is a whole number is
// written as an integer where one can hold it, because JavaScript does not
// tell the two apart. Other types, integers outside [MinInt] to [MaxUint] and
// nesting deeper than 64 are errors, and b is returned as it was.
func AppendAny(b []byte, v any) ([]byte, error) {
	out, err := appendAny(b, v, maxDepth)
	if err != nil {
		return b, fmt.Errorf("encode any: %w", err)
	}
	return out, nil
}

func appendAny(b []byte, v any, depth int) ([]byte, error) {
	if depth < 0 {
		return nil, fmt.Errorf("nested too deep: %w", ErrTooLarge)
	}
	switch v := v.(type) {
	case nil:
		return append(b, anyNull), nil
	case bool:
		return AppendBool(append(b, anyBool), v), nil
	case string:
		return AppendString(append(b, anyString), v), nil
	case []byte:
		return AppendBuffer(append(b, anyBuffer), v), nil
	case int:
		return appendAnyInt(b, int64(v))
	case int8:
		return appendAnyInt(b, int64(v))
	case int16:
		return appendAnyInt(b, int64(v))
	case int32:
		return appendAnyInt(b, int64(v))
	case int64:
		return appendAnyInt(b, v)
	case uint:
		return appendAnyUint(b, uint64(v))
	case uint8:
		return appendAnyUint(b, uint64(v))
	case uint16:
		return appendAnyUint(b, uint64(v))
	case uint32:
		return appendAnyUint(b, uint64(v))
	case uint64:
		return appendAnyUint(b, v)
	case float32:
		return appendAnyFloat(b, float64(v))
	case float64:
		return appendAnyFloat(b, v)
	case []any:
		if len(v) > MaxItems {
			return nil, fmt.Errorf("array of %d: %w", len(v), ErrTooLarge)
		}
		b = AppendUint(append(b, anyArray), uint64(len(v)))
		for _, item := range v {
			var err error
			if b, err = appendAny(b, item, depth-1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case Object:
		if len(v) > MaxItems {
			return nil, fmt.Errorf("object of %d: %w", len(v), ErrTooLarge)
		}
		b = AppendUint(append(b, anyObject), uint64(len(v)))
		for _, f := range v {
			var err error
			if b, err = appendAny(AppendString(b, f.Key), f.Value, depth-1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case map[string]any:
		o := make(Object, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			o = append(o, Field{key, v[key]})
		}
		return appendAny(b, o, depth)
	case time.Time:
		ms := v.UnixMilli()
		if ms < MinInt || ms > MaxInt {
			return nil, fmt.Errorf("date %v: %w", v, ErrTooLarge)
		}
		return AppendInt(append(b, anyDate), ms), nil
	}
	return nil, fmt.Errorf("type %T: %w", v, ErrInvalid)
}

func appendAnyUint(b []byte, n uint64) ([]byte, error) {
	if n > MaxUint {
		return nil, fmt.Errorf("integer %d: %w", n, ErrTooLarge)
	}
	return AppendUint(append(b, anyUint), n), nil
}

func appendAnyInt(b []byte, n int64) ([]byte, error) {
	if n >= 0 {
		return appendAnyUint(b, uint64(n))
	}
	if n < MinInt {
		return nil, fmt.Errorf("integer %d: %w", n, ErrTooLarge)
	}
	return AppendInt(append(b, anyInt), n), nil
}

func appendAnyFloat(b []byte, f float64) ([]byte, error) {
	if f == math.Trunc(f) && f >= MinInt && f <= MaxUint {
		return appendAnyInt(b, int64(f))
	}
	return AppendFloat64(append(b, anyFloat64), f), nil
}

// Any reads a value that carries its own type and takes at most max bytes. It
// returns nil, bool, string, []byte (which aliases the input), uint64, int64,
// float64, []any, [Object] or [time.Time]. Nesting deeper than 64 is an error
// of kind [ErrTooLarge].
func (d *Decoder) Any(max int) any {
	const what = "any"
	if d.err != nil {
		return nil
	}
	if max < 0 {
		d.fail(what, ErrTooLarge)
		return nil
	}
	in := d.b
	cut := len(in) > max
	part := Decoder{b: in[:min(len(in), max)]}
	v := part.any(maxDepth)
	if part.err != nil {
		if cut && part.err == ErrShort {
			part.err = ErrTooLarge
		}
		d.fail(part.what, part.err)
		return nil
	}
	d.b = in[min(len(in), max)-len(part.b):]
	return v
}

func (d *Decoder) any(depth int) any {
	const (
		what  = "any"
		trust = 4 // counts nest here, so a claim is believed less
	)
	if depth < 0 {
		d.fail(what, ErrTooLarge)
		return nil
	}
	kind := d.Uint()
	if d.err != nil {
		return nil
	}
	if kind >= anyTypes {
		d.fail(what, ErrInvalid)
		return nil
	}
	switch kind {
	case anyBool:
		return d.Bool()
	case anyString:
		return d.String(math.MaxInt)
	case anyBuffer:
		return d.Buffer(math.MaxInt)
	case anyUint:
		return d.Uint()
	case anyInt:
		return d.Int()
	case anyFloat64:
		return d.Float64()
	case anyArray:
		return decodeArray(d, MaxItems, trust, func(d *Decoder) any { return d.any(depth - 1) })
	case anyObject:
		return Object(decodeArray(d, MaxItems, trust, func(d *Decoder) Field {
			key := d.String(math.MaxInt)
			return Field{key, d.any(depth - 1)}
		}))
	case anyDate:
		return d.Date()
	}
	return nil
}
