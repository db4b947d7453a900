package compact

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func Example() {
	b := AppendUint(nil, 42)
	b = AppendString(b, "hello")

	d := NewDecoder(b)
	n, s := d.Uint(), d.String(100)
	if err := d.Finish(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%x is %d and %q\n", b, n, s)
	// Output: 2a0568656c6c6f is 42 and "hello"
}

func ExampleDecodeArray() {
	type node struct{ index, size uint64 }
	b := AppendArray(nil, []node{{0, 5}, {2, 300}}, func(b []byte, n node) []byte {
		return AppendUint(AppendUint(b, n.index), n.size)
	})

	d := NewDecoder(b)
	nodes := DecodeArray(&d, 64, func(d *Decoder) node {
		return node{d.Uint(), d.Uint()}
	})
	fmt.Println(nodes, d.Finish())
	// Output: [{0 5} {2 300}] <nil>
}

func ExampleParseKey() {
	key, err := ParseKey("pear://tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy/docs")
	fmt.Printf("%x %v\n", key[:4], err)
	fmt.Println(FormatKey(key))
	// Output:
	// 8a88e3dd <nil>
	// tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy
}

func TestDecoderRefusesBadInput(t *testing.T) {
	deep := strings.Repeat("0701", maxDepth+1) + "00"
	for _, c := range []struct {
		what string
		hex  string
		read func(d *Decoder)
		want error
	}{
		{"uint over 2^53-1", "ff0000000000002000", func(d *Decoder) { d.Uint() }, ErrInvalid},
		{"no uint", "", func(d *Decoder) { d.Uint() }, ErrShort},
		{"buffer over its limit", "0461626364", func(d *Decoder) { d.Buffer(3) }, ErrTooLarge},
		{"buffer longer than the input", "05616263", func(d *Decoder) { d.Buffer(9) }, ErrShort},
		{"buffer with no limit", "00", func(d *Decoder) { d.Buffer(-1) }, ErrTooLarge},
		{"string with a huge length", "ffffffffffffff1f00", func(d *Decoder) { d.String(math.MaxInt) }, ErrShort},
		{"frame over its limit", "0461626364", func(d *Decoder) { d.Frame(3) }, ErrTooLarge},
		{"array over the format's limit", "fe01001000", func(d *Decoder) { DecodeArray(d, math.MaxInt, (*Decoder).Uint) }, ErrTooLarge},
		{"array over its limit", "03010203", func(d *Decoder) { DecodeArray(d, 2, (*Decoder).Uint) }, ErrTooLarge},
		{"array of more items than bytes", "05010203", func(d *Decoder) { DecodeArray(d, 9, (*Decoder).Uint) }, ErrShort},
		{"array that ends in an item", "02ff01", func(d *Decoder) { DecodeArray(d, 9, (*Decoder).Uint) }, ErrShort},
		{"words cut off", "020000000001", func(d *Decoder) { d.Uint32Array(9) }, ErrShort},
		{"bits cut off", "09ff", func(d *Decoder) { d.BitArray(9) }, ErrShort},
		{"record over its limit", "03000000000000", func(d *Decoder) { d.StringRecord(2, 9) }, ErrTooLarge},
		{"biguint over its limit", "020000000000000000", func(d *Decoder) { d.BigUint(8) }, ErrTooLarge},
		{"biguint cut off", "020000000000000000", func(d *Decoder) { d.BigUint(16) }, ErrShort},
		{"biguint of 2^50 words", "ff0000000000000400", func(d *Decoder) { d.BigInt(math.MaxInt) }, ErrShort},
		{"address of family 5", "050a0000010900", func(d *Decoder) { d.IPAddress() }, ErrInvalid},
		{"any of an unknown type", "0a", func(d *Decoder) { d.Any(9) }, ErrInvalid},
		{"any nested too deep", deep, func(d *Decoder) { d.Any(lots) }, ErrTooLarge},
		{"any over its limit", "0205" + "6162636465", func(d *Decoder) { d.Any(4) }, ErrTooLarge},
		{"any cut off", "02056162", func(d *Decoder) { d.Any(99) }, ErrShort},
		{"json that is none", "037b7d7d", func(d *Decoder) { d.JSON(9, new(any)) }, ErrInvalid},
		{"lexint with an exponent too large", "ff15000000000000", func(d *Decoder) { d.Lexint() }, ErrInvalid},
		{"lexint over 2^53-1", "ff14ffffffffffff", func(d *Decoder) { d.Lexint() }, ErrInvalid},
		{"lexint that is no whole number", "ff00000000000001", func(d *Decoder) { d.Lexint() }, ErrInvalid},
		{"lexint with an exponent of its own kind", "ffffffffffffffff", func(d *Decoder) { d.Lexint() }, ErrInvalid},
		{"fixed of a negative length", "00", func(d *Decoder) { d.Fixed(-1) }, ErrInvalid},
	} {
		d := NewDecoder(unhex(t, c.hex))
		c.read(&d)
		if err := d.Err(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
		if d.Len() != 0 || len(d.Rest()) != 0 {
			t.Errorf("%s: %d bytes left after the error, want none", c.what, d.Len())
		}
	}
}

func TestDecoderKeepsItsFirstError(t *testing.T) {
	d := NewDecoder([]byte{1, 5, 'a', 7, 7, 7})
	if got := d.Uint(); got != 1 {
		t.Errorf("uint before the error: got %d, want 1", got)
	}
	d.Buffer(4) // over its limit
	first := d.Err()
	if !errors.Is(first, ErrTooLarge) || !strings.Contains(first.Error(), "buffer") {
		t.Errorf("got %v, want a buffer over the limit", first)
	}
	for name, c := range codecs {
		got := c.decode(&d)
		var z Decoder
		want := c.decode(&z) // of no bytes: zero too
		if name != "frame(string)" && !same(got, want) {
			t.Errorf("%s after an error: got %v, want %v", name, got, want)
		}
	}
	f := d.Frame(9)
	if err := f.Err(); err == nil || err.Error() != first.Error() {
		t.Errorf("frame after an error: got %v, want %v", err, first)
	}
	d.Fail("later", ErrInvalid)
	if err := d.Finish(); err == nil || err.Error() != first.Error() {
		t.Errorf("got %v at last, want %v", err, first)
	}
}

func TestFinishWantsAllBytesRead(t *testing.T) {
	d := NewDecoder([]byte{1, 2})
	d.Uint()
	if err := d.Err(); err != nil {
		t.Errorf("Err: got %v, want nil", err)
	}
	if err := d.Finish(); !errors.Is(err, ErrInvalid) {
		t.Errorf("Finish with a byte left: got %v, want %v", err, ErrInvalid)
	}
	d.Rest()
	if err := d.Finish(); err != nil {
		t.Errorf("Finish after Rest: got %v, want nil", err)
	}
}

func TestAppendingToAnAliasLeavesTheInputAlone(t *testing.T) {
	in := []byte{1, 'a', 'b', 'c'}
	d := NewDecoder(in)
	p := d.Buffer(9)
	_ = append(p, 'X')
	if got, want := string(d.Rest()), "bc"; got != want {
		t.Errorf("input after the append: got %q, want %q", got, want)
	}
	if &p[0] != &in[1] {
		t.Error("Buffer copied, want an alias")
	}
}

func TestAcceptsLongFormsOfUint(t *testing.T) {
	for _, in := range []string{"fd0500", "fe05000000", "ff0500000000000000"} {
		d := NewDecoder(unhex(t, in))
		if got := d.Uint(); got != 5 || d.Finish() != nil {
			t.Errorf("%s: got %d, %v, want 5", in, got, d.Finish())
		}
	}
}

func TestFrameSkipsWhatANewerPeerAdded(t *testing.T) {
	d := NewDecoder(AppendUint(AppendFrame(nil, []byte{7, 8, 9}), 1))
	f := d.Frame(9)
	if got := f.Uint(); got != 7 || f.Err() != nil {
		t.Errorf("in the frame: got %d, %v, want 7", got, f.Err())
	}
	if got := d.Uint(); got != 1 || d.Finish() != nil {
		t.Errorf("after the frame: got %d, %v, want 1", got, d.Finish())
	}
}

func TestBoolIsTrueForOneOnly(t *testing.T) {
	for in, want := range map[byte]bool{0: false, 1: true, 2: false, 255: false} {
		d := NewDecoder([]byte{in})
		if got := d.Bool(); got != want {
			t.Errorf("%d: got %v, want %v", in, got, want)
		}
	}
}

func TestEmptyAndMissingBuffersDiffer(t *testing.T) {
	d := NewDecoder([]byte{0, 0})
	if got := d.Buffer(9); got == nil || len(got) != 0 {
		t.Errorf("Buffer: got %#v, want an empty one", got)
	}
	if got := d.OptionalBuffer(9); got != nil {
		t.Errorf("OptionalBuffer: got %#v, want nil", got)
	}
}

// The wanted bytes come from lexint.js, except for the three marked ones, for
// which it writes bytes that it cannot read.
func TestLexintOver32BitsIsThatOfTheReference(t *testing.T) {
	for _, c := range []struct {
		n    uint64
		want string
		read uint64
	}{
		{1 << 32, "feffffff05", 1 << 32},         // ours
		{1<<32 + 5, "feffffff0a", 1<<32 + 5},     // ours
		{1<<32 + 250, "feffffffff", 1<<32 + 250}, // ours
		{1<<32 + 251, "ff00080000000000", 1<<32 + 251},
		{1<<32 + 252, "ff00080000000800", 1<<32 + 252},
		{1 << 33, "ff000ffffff82800", 1 << 33},
		{1<<33 + 300, "ff0108000000c400", 1<<33 + 300},
		{1<<40 + 12345, "ff080800000179f0", 1<<40 + 12345},
		{1<<41 + 250, "ff080ffffffffff8", 1<<41 + 250},
		{1<<41 + 251, "ff09080000000000", 1<<41 + 251},
		{1<<44 - 1, "ff0b0fffffffff04", 1<<44 - 1},
		{1 << 48, "ff0f0ffffffffff0", 1<<48 - 5},
		{1<<53 - 1, "ff140fffffffffff", 1<<53 - 261},
	} {
		if got := hex.EncodeToString(AppendLexint(nil, c.n)); got != c.want {
			t.Errorf("encode %d: got %s, want %s", c.n, got, c.want)
		}
		d := NewDecoder(unhex(t, c.want))
		if got := d.Lexint(); got != c.read || d.Finish() != nil {
			t.Errorf("decode %s: got %d, %v, want %d", c.want, got, d.Finish(), c.read)
		}
	}
}

func TestLexintsSortAsTheirNumbers(t *testing.T) {
	var numbers []uint64
	for n := uint64(0); n < 70000; n++ {
		numbers = append(numbers, n)
	}
	for shift := 17; shift < 53; shift++ {
		for d := uint64(0); d < 600; d++ {
			numbers = append(numbers, 1<<shift+d-300)
		}
	}
	var last []byte
	for _, n := range numbers {
		b := AppendLexint(nil, n)
		order := bytes.Compare(last, b)
		if order > 0 || order == 0 && n < 1<<44 {
			t.Fatalf("%d: %x does not sort after %x", n, b, last)
		}
		last = b
	}
}

func TestWritingWhatHasNoEncodingPanics(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("[::1]:5")
	for what, write := range map[string]func(){
		"uint over 2^53-1":      func() { AppendUint(nil, MaxUint+1) },
		"int over 2^52-1":       func() { AppendInt(nil, MaxInt+1) },
		"int under -2^52":       func() { AppendInt(nil, MinInt-1) },
		"uint24 of 25 bits":     func() { AppendUint24(nil, 1<<24) },
		"uint40 of 41 bits":     func() { AppendUint40(nil, 1<<40) },
		"uint48 of 49 bits":     func() { AppendUint48(nil, 1<<48) },
		"uint56 of 57 bits":     func() { AppendUint56(nil, 1<<56) },
		"lexint over 2^53-1":    func() { AppendLexint(nil, MaxUint+1) },
		"negative biguint":      func() { AppendBigUint(nil, big.NewInt(-1)) },
		"array of 2^20+1 items": func() { AppendArray(nil, make([]bool, MaxItems+1), AppendBool) },
		"IPv6 as IPv4":          func() { AppendIPv4Address(nil, v6) },
		"IPv4 as IPv6":          func() { AppendIPv6Address(nil, v4) },
		"no address":            func() { AppendIPAddress(nil, netip.AddrPort{}) },
		"date out of range":     func() { AppendDate(nil, time.UnixMilli(MaxInt+1)) },
	} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "compact: ") {
					t.Errorf("%s: got panic %q, want one that begins with compact", what, s)
				}
			}()
			write()
			t.Errorf("%s: no panic", what)
		}()
	}
}

func TestAnyWritesWhatJavaScriptWould(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{int8(-7), "050d"},
		{uint16(7), "0407"},
		{int64(MinInt), "05ffffffffffffff1f00"},
		{2.0, "0402"},
		{-2.0, "0503"},
		{math.Copysign(0, -1), "0400"},
		{math.Inf(1), "06000000000000f07f"},
		{float64(1 << 60), "06000000000000b043"},
		{float32(1.5), "06000000000000f83f"},
		{map[string]any{"b": nil, "a": true}, "0802016101010162" + "00"},
		{[]any{}, "0700"},
		{Object{}, "0800"},
		{time.UnixMilli(1), "0902"},
	} {
		b, err := AppendAny(nil, c.v)
		if got := hex.EncodeToString(b); err != nil || got != c.want {
			t.Errorf("%T %v: got %s, %v, want %s", c.v, c.v, got, err, c.want)
		}
	}
}

func TestAnyRefusesWhatItCannotHold(t *testing.T) {
	var deep any
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		v    any
		want error
	}{
		{struct{}{}, ErrInvalid},
		{[]any{1, []string{"x"}}, ErrInvalid},
		{Object{{"k", func() {}}}, ErrInvalid},
		{uint64(MaxUint + 1), ErrTooLarge},
		{int64(MinInt - 1), ErrTooLarge},
		{time.UnixMilli(MinInt - 1), ErrTooLarge},
		{make([]any, MaxItems+1), ErrTooLarge},
		{make(Object, MaxItems+1), ErrTooLarge},
		{deep, ErrTooLarge},
	} {
		b, err := AppendAny([]byte("kept"), c.v)
		if !errors.Is(err, c.want) || string(b) != "kept" {
			t.Errorf("%T: got %q, %v, want the input and %v", c.v, b, err, c.want)
		}
	}
}

func TestAnyReadsJustItsOwnBytes(t *testing.T) {
	b := AppendUint(mustAppendAny(nil, Object{{"k", "old"}, {"k", "new"}}), 9)
	d := NewDecoder(b)
	v, ok := d.Any(lots).(Object)
	if got, found := v.Get("k"); !ok || !found || got != "new" {
		t.Errorf("got %v, want the last k", v)
	}
	if _, found := v.Get("none"); found {
		t.Error("found a field that is not there")
	}
	if got := d.Uint(); got != 9 || d.Finish() != nil {
		t.Errorf("after it: got %d, %v, want 9", got, d.Finish())
	}
}

func TestJSONIsWrittenWithoutHTMLEscapes(t *testing.T) {
	b, err := AppendJSON(nil, "a<b>&c")
	if want := "\x08\"a<b>&c\""; err != nil || string(b) != want {
		t.Errorf("got %q, %v, want %q", b, err, want)
	}
	if b, err := AppendJSON([]byte("kept"), func() {}); err == nil || string(b) != "kept" {
		t.Errorf("a function: got %q, %v, want the input and an error", b, err)
	}
}

func TestMappedIPv4IsWrittenAsIPv4(t *testing.T) {
	a := netip.MustParseAddrPort("[::ffff:1.2.3.4]:5")
	if got, want := hex.EncodeToString(AppendIPv4Address(nil, a)), "010203040500"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	z := strings.Repeat("y", z32KeyLen)
	for _, s := range []string{
		"", "y", z + "y", z[1:], z + "/a", strings.ToUpper(z), z[1:] + "l", z[1:] + "é",
		strings.Repeat("g", hexKeyLen), "pear:/" + z, "pear://", "pear://pear://" + z, "pear://" + z + "?x",
	} {
		if key, err := ParseKey(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %x, %v, want %v", s, key, err, ErrInvalid)
		}
	}
}

// The wanted bytes come from the npm package z32.
func TestZ32OfOddLengthsIsThatOfTheReference(t *testing.T) {
	for s, want := range map[string]string{
		"y": "00", "a": "c0", "9": "f8", "99": "ff", "999": "fffe", "9999": "ffff", "99999": "ffffff",
		"999999": "fffffffc", "9999999": "ffffffff", "99999999": "ffffffffff", "999999999": "fffffffffff8",
		"yd9": "00fe", "cftyy": "616200", "abc": "c058",
	} {
		if b, err := DecodeZ32(s); err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%s: got %x, %v, want %s", s, b, err, want)
		}
	}
}
