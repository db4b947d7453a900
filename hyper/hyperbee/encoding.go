package hyperbee

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// An Encoding says how keys or values of a type are bytes. It may be used by any
// goroutine.
//
// Those here are what hyperbee calls binary, utf-8 (ascii is a part of it) and
// json, and what the npm package index-encoder makes of one number. In hyperbee's
// hex and base64 only the program sees text: in the log are bytes, as in Binary.
type Encoding[T any] interface {
	// Encode returns the bytes of a value, which may be the value's own. For a value
	// of a tree nil means none; a key is never none.
	Encode(T) ([]byte, error)
	// Decode returns the value of bytes, and may keep them.
	Decode([]byte) (T, error)
}

var (
	// Binary is bytes. A nil value is none.
	Binary Encoding[[]byte] = binaryEncoding{}
	// UTF8 is text.
	UTF8 Encoding[string] = utf8Encoding{}
	// Uint is numbers up to 2^53-1. As keys they are in their order.
	Uint Encoding[uint64] = uintEncoding{}
)

// JSON is for values: as keys they would be in no good order.
func JSON[T any]() Encoding[T] { return jsonEncoding[T]{} }

type binaryEncoding struct{}

func (binaryEncoding) Encode(b []byte) ([]byte, error) { return b, nil }
func (binaryEncoding) Decode(b []byte) ([]byte, error) { return b, nil }

type utf8Encoding struct{}

func (utf8Encoding) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (utf8Encoding) Decode(b []byte) (string, error) { return string(b), nil }

type jsonEncoding[T any] struct{}

// Encode writes <, > and & as they are, as JSON.stringify does.
func (jsonEncoding[T]) Encode(v T) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (jsonEncoding[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// The first byte of a Uint is the number itself, or one of these and then the
// number in as many bytes.
const (
	uint16Tag = 0xfc
	uint32Tag = 0xfd
	uint64Tag = 0xfe
)

type uintEncoding struct{}

func (uintEncoding) Encode(v uint64) ([]byte, error) {
	switch {
	case v < uint16Tag:
		return []byte{byte(v)}, nil
	case v <= 1<<16-1:
		return binary.BigEndian.AppendUint16([]byte{uint16Tag}, uint16(v)), nil
	case v <= 1<<32-1:
		return binary.BigEndian.AppendUint32([]byte{uint32Tag}, uint32(v)), nil
	case v <= maxNumber:
		return binary.BigEndian.AppendUint64([]byte{uint64Tag}, v), nil
	}
	return nil, fmt.Errorf("the number %d is larger than 2^53-1", v)
}

func (uintEncoding) Decode(b []byte) (v uint64, err error) {
	switch {
	case len(b) == 1 && b[0] < uint16Tag:
		return uint64(b[0]), nil
	case len(b) == 3 && b[0] == uint16Tag:
		return uint64(binary.BigEndian.Uint16(b[1:])), nil
	case len(b) == 5 && b[0] == uint32Tag:
		return uint64(binary.BigEndian.Uint32(b[1:])), nil
	case len(b) == 9 && b[0] == uint64Tag:
		if v = binary.BigEndian.Uint64(b[1:]); v <= maxNumber {
			return v, nil
		}
	}
	return 0, errors.New("it is not a number")
}
