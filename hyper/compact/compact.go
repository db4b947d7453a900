// Package compact reads and writes the primitives of compact-encoding, the
// byte format under every message and record of the Hypercore stack, and the
// z-base-32 ids that name its keys.
//
// It is a port of the npm packages compact-encoding 3.5, z32 1.1 and
// hypercore-id-encoding 1.3. What they write this package reads, and the
// other way round; the golden files in testdata come from them. It knows no
// message: those live with the package that speaks them.
//
// Writing appends to a slice, reading goes through a [Decoder] that keeps its
// first error, so a message needs one check at its end:
//
//	b := compact.AppendUint(nil, 42)
//	b = compact.AppendString(b, "hello")
//	d := compact.NewDecoder(b)
//	n, s := d.Uint(), d.String(100)
//	err := d.Finish()
//
// Writing takes values the program made itself. A value that has no encoding,
// such as a number over [MaxUint], is a broken invariant and panics. Reading
// takes bytes from outside: it never panics, and checks every length and
// count against its limit and against the bytes there are before it allocates.
package compact

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"time"
)

// Bounds of the format, set by what a JavaScript number holds exactly.
const (
	// MaxUint is the largest value of the variable-length uint: 2^53 - 1.
	MaxUint = 1<<53 - 1
	// MaxInt is the largest value of the variable-length int: 2^52 - 1.
	MaxInt = 1<<52 - 1
	// MinInt is the smallest value of the variable-length int: -2^52.
	MinInt = -1 << 52
	// MaxItems is the most items an array may have.
	MaxItems = 0x100000
)

// The kinds of error a [Decoder] reports. They come wrapped with the name of
// what was being read: test with [errors.Is].
var (
	// ErrShort means that the input ended inside a value.
	ErrShort = errors.New("input too short")
	// ErrTooLarge means that a length or count is over its limit.
	ErrTooLarge = errors.New("over the limit")
	// ErrInvalid means that the bytes are not an encoding of such a value.
	ErrInvalid = errors.New("invalid encoding")
)

// Pair is one entry of a string record. Records keep the order of their
// entries, as JavaScript objects do.
type Pair struct {
	Key, Value string
}

// SizeUint is the number of bytes [AppendUint] writes for n.
func SizeUint(n uint64) int {
	switch {
	case n <= 0xfc:
		return 1
	case n <= 0xffff:
		return 3
	case n <= 0xffffffff:
		return 5
	}
	return 9
}

// SizeInt is the number of bytes [AppendInt] writes for n.
func SizeInt(n int64) int { return SizeUint(zigzag(n)) }

// SizeBuffer is the number of bytes [AppendBuffer], [AppendString] and
// [AppendFrame] write for n bytes of content.
func SizeBuffer(n int) int { return SizeUint(uint64(n)) + n }

// AppendUint appends n in one, three, five or nine bytes. It panics if n is
// over [MaxUint].
func AppendUint(b []byte, n uint64) []byte {
	if n <= 0xfc {
		return append(b, byte(n))
	}
	return appendLongUint(b, n)
}

func appendLongUint(b []byte, n uint64) []byte {
	if n <= 0xffff {
		return append(b, 0xfd, byte(n), byte(n>>8))
	}
	if n <= 0xffffffff {
		return binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	}
	if n > MaxUint {
		panic("compact: uint over 2^53-1")
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xff), n)
}

// AppendInt appends n as the uint of its zigzag form (0, -1, 1, -2, 2 become
// 0, 1, 2, 3, 4). It panics if n is under [MinInt] or over [MaxInt].
func AppendInt(b []byte, n int64) []byte {
	if n < MinInt || n > MaxInt {
		panic("compact: int outside -2^52 to 2^52-1")
	}
	return AppendUint(b, zigzag(n))
}

func zigzag(n int64) uint64   { return uint64(n)<<1 ^ uint64(n>>63) }
func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// AppendUint8 appends n as one byte.
func AppendUint8(b []byte, n uint8) []byte { return append(b, n) }

// AppendUint16 appends n as two bytes, little endian. Ports are written so.
func AppendUint16(b []byte, n uint16) []byte { return binary.LittleEndian.AppendUint16(b, n) }

// AppendUint24 appends n as three bytes, little endian. It panics if n is
// wider than that.
func AppendUint24(b []byte, n uint32) []byte { return appendWide(b, uint64(n), 3) }

// AppendUint32 appends n as four bytes, little endian.
func AppendUint32(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }

// AppendUint40 appends n as five bytes, little endian. It panics if n is wider
// than that.
func AppendUint40(b []byte, n uint64) []byte { return appendWide(b, n, 5) }

// AppendUint48 appends n as six bytes, little endian. It panics if n is wider
// than that.
func AppendUint48(b []byte, n uint64) []byte { return appendWide(b, n, 6) }

// AppendUint56 appends n as seven bytes, little endian. It panics if n is
// wider than that. JavaScript refuses to read one over [MaxUint].
func AppendUint56(b []byte, n uint64) []byte { return appendWide(b, n, 7) }

// AppendUint64 appends n as eight bytes, little endian. JavaScript reads one
// over [MaxUint] only as a biguint64.
func AppendUint64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

// AppendUint32BE appends n as four bytes, big endian.
func AppendUint32BE(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

// AppendUint64BE appends n as eight bytes, big endian.
func AppendUint64BE(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func appendWide(b []byte, n uint64, size int) []byte {
	if n>>(8*size) != 0 {
		panic("compact: number too wide for its field")
	}
	for range size {
		b = append(b, byte(n))
		n >>= 8
	}
	return b
}

// AppendBigUint appends n as a count of 64-bit words and the words, both
// little endian. It panics if n is negative.
func AppendBigUint(b []byte, n *big.Int) []byte {
	if n.Sign() < 0 {
		panic("compact: negative biguint")
	}
	words := (n.BitLen() + 63) / 64
	b = AppendUint(b, uint64(words))
	at := len(b)
	b = append(b, make([]byte, 8*words)...)
	n.FillBytes(b[at:])
	reverse(b[at:])
	return b
}

// AppendBigInt appends n as the biguint of its zigzag form.
func AppendBigInt(b []byte, n *big.Int) []byte {
	z := new(big.Int).Lsh(n, 1)
	if n.Sign() < 0 {
		z.Neg(z).Sub(z, big.NewInt(1))
	}
	return AppendBigUint(b, z)
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

// AppendFloat32 appends f as its IEEE 754 bits, little endian.
func AppendFloat32(b []byte, f float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
}

// AppendFloat64 appends f as its IEEE 754 bits, little endian.
func AppendFloat64(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

// AppendBool appends one byte, 1 for true.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendBuffer appends the length of p and p.
func AppendBuffer(b, p []byte) []byte {
	return append(AppendUint(b, uint64(len(p))), p...)
}

// AppendOptionalBuffer appends p like [AppendBuffer]. A nil and an empty p are
// the same one byte: the other side reads nil.
func AppendOptionalBuffer(b, p []byte) []byte { return AppendBuffer(b, p) }

// AppendFrame appends body, an encoded message, with its length before it.
func AppendFrame(b, body []byte) []byte { return AppendBuffer(b, body) }

// AppendString appends the length of s in bytes and s. It should be UTF-8;
// other bytes are kept as they are, but JavaScript shows U+FFFD for them.
func AppendString(b []byte, s string) []byte {
	return append(AppendUint(b, uint64(len(s))), s...)
}

// AppendFixed32 appends the 32 bytes of v.
func AppendFixed32(b []byte, v *[32]byte) []byte { return append(b, v[:]...) }

// AppendFixed64 appends the 64 bytes of v.
func AppendFixed64(b []byte, v *[64]byte) []byte { return append(b, v[:]...) }

// AppendArray appends the number of items and each item as f appends it. It
// panics if there are more than [MaxItems], which no decoder would take.
func AppendArray[T any](b []byte, items []T, f func([]byte, T) []byte) []byte {
	if len(items) > MaxItems {
		panic("compact: array over 0x100000 items")
	}
	b = AppendUint(b, uint64(len(items)))
	for _, item := range items {
		b = f(b, item)
	}
	return b
}

// AppendUint32Array appends the number of words and each as a uint32.
func AppendUint32Array(b []byte, words []uint32) []byte {
	b = AppendUint(b, uint64(len(words)))
	for _, w := range words {
		b = AppendUint32(b, w)
	}
	return b
}

// AppendBitArray appends the number of bits and the bits, eight to a byte,
// lowest first.
func AppendBitArray(b []byte, bits []bool) []byte {
	b = AppendUint(b, uint64(len(bits)))
	for i, bit := range bits {
		if i%8 == 0 {
			b = append(b, 0)
		}
		if bit {
			b[len(b)-1] |= 1 << (i % 8)
		}
	}
	return b
}

// AppendStringRecord appends the number of pairs and each key and value, in
// the order given.
func AppendStringRecord(b []byte, pairs []Pair) []byte {
	b = AppendUint(b, uint64(len(pairs)))
	for _, p := range pairs {
		b = AppendString(AppendString(b, p.Key), p.Value)
	}
	return b
}

// AppendDate appends t as an int of milliseconds since 1970. It panics if
// those are outside [MinInt] to [MaxInt], some 142,000 years away.
func AppendDate(b []byte, t time.Time) []byte { return AppendInt(b, t.UnixMilli()) }

// AppendIPv4Address appends four bytes of address and a little-endian port. An
// IPv4 address in its IPv6-mapped form is unmapped. It panics on any other.
func AppendIPv4Address(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if !ip.Is4() {
		panic("compact: not an IPv4 address: " + a.Addr().String())
	}
	raw := ip.As4()
	return AppendUint16(append(b, raw[:]...), a.Port())
}

// AppendIPv6Address appends sixteen bytes of address and a little-endian port.
// The zone is not written. It panics on an IPv4 address.
func AppendIPv6Address(b []byte, a netip.AddrPort) []byte {
	if !a.Addr().Is6() {
		panic("compact: not an IPv6 address: " + a.Addr().String())
	}
	raw := a.Addr().As16()
	return AppendUint16(append(b, raw[:]...), a.Port())
}

// AppendIPAddress appends the family, 4 or 6, and the address as
// [AppendIPv4Address] or [AppendIPv6Address] does.
func AppendIPAddress(b []byte, a netip.AddrPort) []byte {
	if a.Addr().Is4() {
		return AppendIPv4Address(append(b, 4), a)
	}
	return AppendIPv6Address(append(b, 6), a)
}
