package compact

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"time"
)

// Decoder reads values one after the other from a byte slice. The first error
// stays: from then on every method returns the zero value, so a caller reads a
// whole message and asks once, with [Decoder.Err] or [Decoder.Finish].
//
// The slices that Buffer, OptionalBuffer, Fixed, Rest and Frame return are
// parts of the input. They live as long as it does and change when it does;
// copy what must stay. Appending to one does not write into the input.
//
// A Decoder is for one goroutine. Methods that allocate do so in proportion to
// the bytes that are there, not to what the bytes claim.
type Decoder struct {
	b    []byte // what is left; nil after an error
	err  error  // one of the kinds, nil until the first error
	what string // what was being read then
}

// NewDecoder returns a Decoder that reads b, which the caller does not change
// while it or what it returned is in use.
func NewDecoder(b []byte) Decoder { return Decoder{b: b} }

// Err returns the first error, or nil. It wraps [ErrShort], [ErrTooLarge] or
// [ErrInvalid].
func (d *Decoder) Err() error {
	if d.err == nil {
		return nil
	}
	return fmt.Errorf("decode %s: %w", d.what, d.err)
}

// Finish returns the first error, or one of kind [ErrInvalid] if bytes are
// left over. Do not use it on messages that newer peers may have made longer.
func (d *Decoder) Finish() error {
	if d.err == nil && len(d.b) > 0 {
		return fmt.Errorf("decode: %d bytes left over: %w", len(d.b), ErrInvalid)
	}
	return d.Err()
}

// Fail puts the Decoder into its error state, unless it is there already. It
// is for callers who find that a value they read makes no sense: what names
// the value, err is one of the kinds of this package.
func (d *Decoder) Fail(what string, err error) { d.fail(what, err) }

// Len returns the number of bytes left to read: 0 after an error.
func (d *Decoder) Len() int { return len(d.b) }

// Rest returns all bytes left, which may be none. They alias the input.
func (d *Decoder) Rest() []byte {
	p := d.b
	if d.err == nil {
		d.b = d.b[len(d.b):]
	}
	return p[:len(p):len(p)]
}

func (d *Decoder) fail(what string, err error) {
	if d.err == nil {
		d.b, d.err, d.what = nil, err, what
	}
}

// take returns the next n bytes, or nil and an error. n is not negative.
func (d *Decoder) take(n int, what string) []byte {
	if n > len(d.b) || d.err != nil {
		d.fail(what, ErrShort)
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

// length reads a count and checks it against max and against what the bytes
// left can hold at most, perByte items to each byte.
func (d *Decoder) length(max, perByte int, what string) int {
	n := d.Uint()
	if d.err != nil {
		return 0
	}
	if max < 0 || n > uint64(max) {
		d.fail(what, ErrTooLarge)
		return 0
	}
	if n > uint64(len(d.b))*uint64(perByte) {
		d.fail(what, ErrShort)
		return 0
	}
	return int(n)
}

// Uint reads a variable-length uint. Longer forms than needed are accepted, a
// value over [MaxUint] is not.
func (d *Decoder) Uint() uint64 {
	if len(d.b) > 0 && d.b[0] <= 0xfc {
		n := uint64(d.b[0])
		d.b = d.b[1:]
		return n
	}
	return d.longUint()
}

func (d *Decoder) longUint() uint64 {
	const what = "uint"
	p := d.take(1, what)
	if p == nil {
		return 0
	}
	switch p[0] {
	case 0xfd:
		if p = d.take(2, what); p != nil {
			return uint64(binary.LittleEndian.Uint16(p))
		}
	case 0xfe:
		if p = d.take(4, what); p != nil {
			return uint64(binary.LittleEndian.Uint32(p))
		}
	default:
		if p = d.take(8, what); p == nil {
			return 0
		}
		if n := binary.LittleEndian.Uint64(p); n <= MaxUint {
			return n
		}
		d.fail(what, ErrInvalid)
	}
	return 0
}

// Int reads a variable-length int.
func (d *Decoder) Int() int64 { return unzigzag(d.Uint()) }

// Uint8 reads one byte.
func (d *Decoder) Uint8() uint8 { return uint8(d.wide(1, "uint8")) }

// Uint16 reads two bytes, little endian.
func (d *Decoder) Uint16() uint16 { return uint16(d.wide(2, "uint16")) }

// Uint24 reads three bytes, little endian.
func (d *Decoder) Uint24() uint32 { return uint32(d.wide(3, "uint24")) }

// Uint32 reads four bytes, little endian.
func (d *Decoder) Uint32() uint32 { return uint32(d.wide(4, "uint32")) }

// Uint40 reads five bytes, little endian.
func (d *Decoder) Uint40() uint64 { return d.wide(5, "uint40") }

// Uint48 reads six bytes, little endian.
func (d *Decoder) Uint48() uint64 { return d.wide(6, "uint48") }

// Uint56 reads seven bytes, little endian: any value, also over [MaxUint].
func (d *Decoder) Uint56() uint64 { return d.wide(7, "uint56") }

// Uint64 reads eight bytes, little endian: any value, also over [MaxUint].
func (d *Decoder) Uint64() uint64 { return d.wide(8, "uint64") }

// Uint32BE reads four bytes, big endian.
func (d *Decoder) Uint32BE() uint32 { return uint32(bigEndian(d.take(4, "uint32be"))) }

// Uint64BE reads eight bytes, big endian: any value, also over [MaxUint].
func (d *Decoder) Uint64BE() uint64 { return bigEndian(d.take(8, "uint64be")) }

// wide reads a little-endian number of up to eight bytes.
func (d *Decoder) wide(size int, what string) uint64 {
	p := d.take(size, what)
	var n uint64
	for i := len(p) - 1; i >= 0; i-- {
		n = n<<8 | uint64(p[i])
	}
	return n
}

// BigUint reads a biguint of at most max bytes. It returns nil on error.
func (d *Decoder) BigUint(max int) *big.Int {
	const what = "biguint"
	words := d.Uint()
	if d.err == nil && (max < 0 || words > uint64(max)/8) {
		d.fail(what, ErrTooLarge)
	}
	if d.err == nil && words > uint64(len(d.b))/8 {
		d.fail(what, ErrShort)
	}
	if d.err != nil {
		return nil
	}
	p := append([]byte(nil), d.take(8*int(words), what)...)
	reverse(p)
	return new(big.Int).SetBytes(p)
}

// BigInt reads a bigint of at most max bytes. It returns nil on error.
func (d *Decoder) BigInt(max int) *big.Int {
	n := d.BigUint(max)
	if n == nil {
		return nil
	}
	odd := n.Bit(0) == 1
	n.Rsh(n, 1)
	if odd {
		n.Not(n)
	}
	return n
}

// Float32 reads four bytes of IEEE 754, little endian.
func (d *Decoder) Float32() float32 { return math.Float32frombits(uint32(d.wide(4, "float32"))) }

// Float64 reads eight bytes of IEEE 754, little endian.
func (d *Decoder) Float64() float64 { return math.Float64frombits(d.wide(8, "float64")) }

// Bool reads one byte and reports whether it is 1.
func (d *Decoder) Bool() bool { return d.wide(1, "bool") == 1 }

// Fixed returns the next n bytes, which alias the input. A negative n is an
// error of kind [ErrInvalid].
func (d *Decoder) Fixed(n int) []byte {
	if n < 0 {
		d.fail("fixed", ErrInvalid)
		return nil
	}
	return d.take(n, "fixed")
}

// Fixed32 reads 32 bytes: a key, a hash.
func (d *Decoder) Fixed32() [32]byte {
	var v [32]byte
	copy(v[:], d.take(len(v), "fixed32"))
	return v
}

// Fixed64 reads 64 bytes: a signature.
func (d *Decoder) Fixed64() [64]byte {
	var v [64]byte
	copy(v[:], d.take(len(v), "fixed64"))
	return v
}

// Buffer reads a length of at most max and returns that many bytes, which
// alias the input. An empty buffer is not nil; nil means an error.
func (d *Decoder) Buffer(max int) []byte {
	n := d.length(max, 1, "buffer")
	if d.err != nil {
		return nil
	}
	return d.take(n, "buffer")
}

// OptionalBuffer reads like [Decoder.Buffer] and returns nil for an empty one.
func (d *Decoder) OptionalBuffer(max int) []byte {
	if p := d.Buffer(max); len(p) > 0 {
		return p
	}
	return nil
}

// Frame reads a length of at most max bytes and returns a Decoder for the
// message inside, which has its own error: check that too. After an error of d
// it has the error of d. Bytes that the caller leaves in it are skipped.
func (d *Decoder) Frame(max int) Decoder {
	n := d.length(max, 1, "frame")
	if d.err != nil {
		return Decoder{err: d.err, what: d.what}
	}
	return Decoder{b: d.take(n, "frame")}
}

// String reads a string of at most max bytes. It is not checked to be UTF-8.
func (d *Decoder) String(max int) string {
	n := d.length(max, 1, "string")
	return string(d.take(n, "string"))
}

// Uint32Array reads a count of at most max and that many uint32.
func (d *Decoder) Uint32Array(max int) []uint32 {
	const what = "uint32array"
	n := d.length(max, 1, what)
	if d.err != nil {
		return nil
	}
	p := d.take(4*n, what)
	if p == nil {
		return nil
	}
	words := make([]uint32, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(p[4*i:])
	}
	return words
}

// BitArray reads a count of at most max and that many bits.
func (d *Decoder) BitArray(max int) []bool {
	const what = "bitarray"
	n := d.length(max, 8, what)
	if d.err != nil {
		return nil
	}
	p := d.take((n+7)/8, what)
	bits := make([]bool, n)
	for i := range bits {
		bits[i] = p[i/8]>>(i%8)&1 == 1
	}
	return bits
}

// StringRecord reads at most max pairs, in the order they were written and
// with their doubles. Each key and value is at most size bytes.
func (d *Decoder) StringRecord(max, size int) []Pair {
	return DecodeArray(d, max, func(d *Decoder) Pair {
		key := d.String(size)
		return Pair{Key: key, Value: d.String(size)}
	})
}

// DecodeArray reads a count of at most max, and of [MaxItems], and each item
// with f. Every item takes at least one byte, or the count is refused. It
// returns nil on error.
func DecodeArray[T any](d *Decoder, max int, f func(*Decoder) T) []T {
	const trust = 256
	return decodeArray(d, max, trust, f)
}

// decodeArray believes a count, which is only a claim, for up to trust items.
// Past them the slice grows with what is really there.
func decodeArray[T any](d *Decoder, max, trust int, f func(*Decoder) T) []T {
	n := d.length(min(max, MaxItems), 1, "array")
	if d.err != nil {
		return nil
	}
	items := make([]T, 0, min(n, trust))
	for range n {
		item := f(d)
		if d.err != nil {
			return nil
		}
		items = append(items, item)
	}
	return items
}

// Date reads milliseconds since 1970 and returns the time in UTC.
func (d *Decoder) Date() time.Time {
	ms := d.Int()
	if d.err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// IPv4Address reads four bytes of address and a port.
func (d *Decoder) IPv4Address() netip.AddrPort {
	p := d.take(6, "ipv4 address")
	if p == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p)), binary.LittleEndian.Uint16(p[4:]))
}

// IPv6Address reads sixteen bytes of address and a port.
func (d *Decoder) IPv6Address() netip.AddrPort {
	p := d.take(18, "ipv6 address")
	if p == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(p)), binary.LittleEndian.Uint16(p[16:]))
}

// IPAddress reads a family, 4 or 6, and an address of that family. Another
// family is an error of kind [ErrInvalid].
func (d *Decoder) IPAddress() netip.AddrPort {
	const what = "ip address"
	switch d.wide(1, what) {
	case 4:
		return d.IPv4Address()
	case 6:
		return d.IPv6Address()
	}
	d.fail(what, ErrInvalid)
	return netip.AddrPort{}
}

// JSON reads a string of at most max bytes and unmarshals it into v, with the
// rules of [json.Unmarshal]. Text that does not fit v is an error of kind
// [ErrInvalid], and v may then be filled in part.
func (d *Decoder) JSON(max int, v any) {
	const what = "json"
	n := d.length(max, 1, what)
	p := d.take(n, what)
	if d.err != nil {
		return
	}
	if err := json.Unmarshal(p, v); err != nil {
		d.fail(what, fmt.Errorf("%w: %w", ErrInvalid, err))
	}
}
