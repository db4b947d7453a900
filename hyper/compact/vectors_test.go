package compact

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vector is one entry of testdata/compact-encoding.json: what the npm package
// wrote for a value.
type vector struct {
	Encoding string
	Value    json.RawMessage
	Hex      string
}

// codec is how a vector's value is read from JSON and goes both ways.
type codec struct {
	value  func(t *testing.T, raw json.RawMessage) any
	encode func(b []byte, v any) []byte
	decode func(d *Decoder) any
}

func codecOf[T any](value func(*testing.T, json.RawMessage) T, encode func([]byte, T) []byte, decode func(*Decoder) T) codec {
	return codec{
		value: func(t *testing.T, raw json.RawMessage) any { return value(t, raw) },
		encode: func(b []byte, v any) []byte {
			x, _ := v.(T) // nil in an any value is not a T
			return encode(b, x)
		},
		decode: func(d *Decoder) any { return decode(d) },
	}
}

const lots = 1 << 20

var codecs = map[string]codec{
	"uint":           codecOf(uintValue[uint64], AppendUint, (*Decoder).Uint),
	"int":            codecOf(intValue, AppendInt, (*Decoder).Int),
	"uint8":          codecOf(uintValue[uint8], AppendUint8, (*Decoder).Uint8),
	"uint16":         codecOf(uintValue[uint16], AppendUint16, (*Decoder).Uint16),
	"uint24":         codecOf(uintValue[uint32], AppendUint24, (*Decoder).Uint24),
	"uint32":         codecOf(uintValue[uint32], AppendUint32, (*Decoder).Uint32),
	"uint40":         codecOf(uintValue[uint64], AppendUint40, (*Decoder).Uint40),
	"uint48":         codecOf(uintValue[uint64], AppendUint48, (*Decoder).Uint48),
	"uint56":         codecOf(uintValue[uint64], AppendUint56, (*Decoder).Uint56),
	"uint64":         codecOf(uintValue[uint64], AppendUint64, (*Decoder).Uint64),
	"uint32be":       codecOf(uintValue[uint32], AppendUint32BE, (*Decoder).Uint32BE),
	"uint64be":       codecOf(uintValue[uint64], AppendUint64BE, (*Decoder).Uint64BE),
	"lexint":         codecOf(uintValue[uint64], AppendLexint, (*Decoder).Lexint),
	"biguint":        codecOf(bigValue, AppendBigUint, func(d *Decoder) *big.Int { return d.BigUint(lots) }),
	"bigint":         codecOf(bigValue, AppendBigInt, func(d *Decoder) *big.Int { return d.BigInt(lots) }),
	"float32":        codecOf(jsonValue[float32], AppendFloat32, (*Decoder).Float32),
	"float64":        codecOf(jsonValue[float64], AppendFloat64, (*Decoder).Float64),
	"buffer":         codecOf(hexValue, AppendBuffer, func(d *Decoder) []byte { return d.Buffer(lots) }),
	"optionalBuffer": codecOf(hexValue, AppendOptionalBuffer, func(d *Decoder) []byte { return d.OptionalBuffer(lots) }),
	"string":         codecOf(jsonValue[string], AppendString, func(d *Decoder) string { return d.String(lots) }),
	"bool":           codecOf(jsonValue[bool], AppendBool, (*Decoder).Bool),
	"fixed32": codecOf(
		func(t *testing.T, raw json.RawMessage) [32]byte { return [32]byte(hexValue(t, raw)) },
		func(b []byte, v [32]byte) []byte { return AppendFixed32(b, &v) },
		(*Decoder).Fixed32),
	"array(uint)": codecOf(jsonValue[[]uint64],
		func(b []byte, v []uint64) []byte { return AppendArray(b, v, AppendUint) },
		func(d *Decoder) []uint64 { return DecodeArray(d, lots, (*Decoder).Uint) }),
	"uint32array": codecOf(jsonValue[[]uint32], AppendUint32Array, func(d *Decoder) []uint32 { return d.Uint32Array(lots) }),
	"bitarray":    codecOf(jsonValue[[]bool], AppendBitArray, func(d *Decoder) []bool { return d.BitArray(lots) }),
	"frame(string)": codecOf(jsonValue[string],
		func(b []byte, v string) []byte { return AppendFrame(b, AppendString(nil, v)) },
		func(d *Decoder) string {
			f := d.Frame(lots)
			s := f.String(lots)
			if err := f.Finish(); err != nil {
				return err.Error()
			}
			return s
		}),
	"date": codecOf(
		func(t *testing.T, raw json.RawMessage) time.Time { return time.UnixMilli(intValue(t, raw)).UTC() },
		AppendDate, (*Decoder).Date),
	"any":         codecOf(anyValue, mustAppendAny, func(d *Decoder) any { return d.Any(lots) }),
	"ipv4Address": codecOf(addrValue, AppendIPv4Address, (*Decoder).IPv4Address),
	"ipv6Address": codecOf(addrValue, AppendIPv6Address, (*Decoder).IPv6Address),
	"ipAddress":   codecOf(addrValue, AppendIPAddress, (*Decoder).IPAddress),
	"raw.string": codecOf(jsonValue[string],
		func(b []byte, v string) []byte { return append(b, v...) },
		func(d *Decoder) string { return string(d.Rest()) }),
	"stringRecord": codecOf(pairsValue, AppendStringRecord, func(d *Decoder) []Pair { return d.StringRecord(lots, lots) }),
	"json": codecOf(jsonValue[orderedAB],
		func(b []byte, v orderedAB) []byte {
			b, err := AppendJSON(b, v)
			if err != nil {
				panic(err)
			}
			return b
		},
		func(d *Decoder) (v orderedAB) { d.JSON(lots, &v); return v }),
}

type orderedAB struct {
	A int   `json:"a"`
	B []any `json:"b"`
}

func TestEncodesAndDecodesLikeCompactEncoding(t *testing.T) {
	vectors := readVectors(t)
	if got, want := len(vectors), 129; got != want {
		t.Errorf("%d vectors, want %d", got, want)
	}
	for _, v := range vectors {
		c, ok := codecs[v.Encoding]
		if !ok {
			t.Errorf("no codec for %s", v.Encoding)
			continue
		}
		want, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		value := c.value(t, v.Value)
		if got := c.encode(nil, value); !bytes.Equal(got, want) {
			t.Errorf("encode %s %s: got %x, want %x", v.Encoding, v.Value, got, want)
		}
		if got := c.encode([]byte("before"), value); !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("append %s %s: got %x, want %x after the prefix", v.Encoding, v.Value, got, want)
		}
		d := NewDecoder(want)
		if got := c.decode(&d); !same(got, value) || d.Finish() != nil {
			t.Errorf("decode %s %x: got %v, %v, want %v", v.Encoding, want, got, d.Finish(), value)
		}
		if v.Encoding == "raw.string" {
			continue
		}
		for cut := range want {
			d := NewDecoder(want[:cut])
			c.decode(&d)
			if d.Err() == nil && v.Encoding != "frame(string)" {
				t.Errorf("decode %s: no error for %d of %d bytes", v.Encoding, cut, len(want))
			}
		}
	}
}

func TestSizesAreWhatIsWritten(t *testing.T) {
	for _, v := range readVectors(t) {
		switch v.Encoding {
		case "uint":
			n := uintValue[uint64](t, v.Value)
			if got, want := SizeUint(n), len(v.Hex)/2; got != want {
				t.Errorf("SizeUint(%d): got %d, want %d", n, got, want)
			}
		case "int":
			n := intValue(t, v.Value)
			if got, want := SizeInt(n), len(v.Hex)/2; got != want {
				t.Errorf("SizeInt(%d): got %d, want %d", n, got, want)
			}
		case "buffer":
			p := hexValue(t, v.Value)
			if got, want := SizeBuffer(len(p)), len(v.Hex)/2; got != want {
				t.Errorf("SizeBuffer(%d): got %d, want %d", len(p), got, want)
			}
		}
	}
}

func TestIDsAreThoseOfHypercoreIDEncoding(t *testing.T) {
	var file struct {
		IDs []struct{ Hex, Z32, Pear string }
		Z32 []struct{ Hex, Z32 string } `json:"z32misc"`
	}
	readJSON(t, "testdata/crypto.json", &file)
	if len(file.IDs) == 0 || len(file.Z32) == 0 {
		t.Fatal("no id vectors")
	}
	for _, v := range file.IDs {
		key := [32]byte(unhex(t, v.Hex))
		if got := FormatKey(key); got != v.Z32 {
			t.Errorf("FormatKey(%s): got %s, want %s", v.Hex, got, v.Z32)
		}
		for _, s := range []string{v.Z32, v.Hex, strings.ToUpper(v.Hex), scheme + v.Z32, scheme + v.Hex, scheme + v.Z32 + "/a/b"} {
			if got, err := ParseKey(s); err != nil || got != key {
				t.Errorf("ParseKey(%q): got %x, %v, want %s", s, got, err, v.Hex)
			}
		}
	}
	for _, v := range file.Z32 {
		b := unhex(t, v.Hex)
		if got := EncodeZ32(b); got != v.Z32 {
			t.Errorf("EncodeZ32(%s): got %s, want %s", v.Hex, got, v.Z32)
		}
		if got, err := DecodeZ32(v.Z32); err != nil || !bytes.Equal(got, b) {
			t.Errorf("DecodeZ32(%s): got %x, %v, want %s", v.Z32, got, err, v.Hex)
		}
	}
}

// same is reflect.DeepEqual, but big integers are compared by value.
func same(a, b any) bool {
	x, ok1 := a.(*big.Int)
	y, ok2 := b.(*big.Int)
	if ok1 && ok2 {
		return x.Cmp(y) == 0
	}
	return reflect.DeepEqual(a, b)
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	var file struct{ Vectors []vector }
	readJSON(t, "testdata/compact-encoding.json", &file)
	return file.Vectors
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func jsonValue[T any](t *testing.T, raw json.RawMessage) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}

// number is the text of a number, which the files quote if it is large.
func number(raw json.RawMessage) string {
	return strings.TrimSuffix(strings.Trim(string(raw), `"`), "n")
}

func uintValue[T uint8 | uint16 | uint32 | uint64](t *testing.T, raw json.RawMessage) T {
	t.Helper()
	n, err := strconv.ParseUint(number(raw), 10, 64)
	if err != nil || uint64(T(n)) != n {
		t.Fatalf("%s: %v", raw, err)
	}
	return T(n)
}

func intValue(t *testing.T, raw json.RawMessage) int64 {
	t.Helper()
	n, err := strconv.ParseInt(number(raw), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return n
}

func bigValue(t *testing.T, raw json.RawMessage) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(number(raw), 10)
	if !ok {
		t.Fatalf("%s is not a number", raw)
	}
	return n
}

func hexValue(t *testing.T, raw json.RawMessage) []byte {
	t.Helper()
	if s := jsonValue[*string](t, raw); s != nil {
		return unhex(t, *s)
	}
	return nil
}

func addrValue(t *testing.T, raw json.RawMessage) netip.AddrPort {
	t.Helper()
	a := jsonValue[struct {
		Host netip.Addr
		Port uint16
	}](t, raw)
	return netip.AddrPortFrom(a.Host, a.Port)
}

func pairsValue(t *testing.T, raw json.RawMessage) []Pair {
	t.Helper()
	var pairs []Pair
	for _, f := range anyValue(t, raw).(Object) {
		pairs = append(pairs, Pair{f.Key, f.Value.(string)})
	}
	return pairs
}

// anyValue turns JSON into what Any returns. The one buffer in the file, "62",
// is written as hex there.
func anyValue(t *testing.T, raw json.RawMessage) any {
	t.Helper()
	if string(raw) == `"62"` {
		return []byte("b")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, err := anyToken(dec)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}

func anyToken(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Number:
		if n, err := strconv.ParseUint(token.String(), 10, 64); err == nil {
			return n, nil
		}
		if n, err := token.Int64(); err == nil {
			return n, nil
		}
		return token.Float64()
	case json.Delim:
		var list []any
		object := Object{}
		for dec.More() {
			v, err := anyToken(dec)
			if err != nil {
				return nil, err
			}
			if token == '[' {
				list = append(list, v)
				continue
			}
			value, err := anyToken(dec)
			if err != nil {
				return nil, err
			}
			object = append(object, Field{v.(string), value})
		}
		if _, err := dec.Token(); err != nil {
			return nil, err
		}
		if token == '[' {
			return list, nil
		}
		return object, nil
	default:
		return token, nil
	}
}

func mustAppendAny(b []byte, v any) []byte {
	b, err := AppendAny(b, v)
	if err != nil {
		panic(err)
	}
	return b
}
