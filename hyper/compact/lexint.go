package compact

import "math/bits"

// Integers that sort as bytes in the order of their values, from
// compact-encoding lexint.js. Up to 250 a value is its own byte; above, the
// value less 251 follows big endian after a prefix that tells its width. Wider
// than four bytes it is a binary exponent and 44 bits of mantissa.
const (
	lexBase     = 251
	lexFloat    = 255
	lexExps     = 53 - 32 // exponents are below this
	lexMantissa = 6       // bytes
	lexShift    = 11
)

// AppendLexint appends n so that encodings sort as their numbers do. It panics
// if n is over [MaxUint]. As in the reference only the highest 44 bits of a
// number over 2^44 survive.
//
// The reference writes bytes that it cannot read for the 251 numbers from 2^32
// on. They are written here in the four-byte form, which it reads.
func AppendLexint(b []byte, n uint64) []byte {
	if n > MaxUint {
		panic("compact: lexint over 2^53-1")
	}
	if n < lexBase {
		return append(b, byte(n))
	}
	x := n - lexBase
	switch {
	case n < 1<<8:
		return append(b, lexBase, byte(x))
	case n < 1<<16:
		return append(b, lexBase+1, byte(x>>8), byte(x))
	case n < 1<<24:
		return append(b, lexBase+2, byte(x>>16), byte(x>>8), byte(x))
	case x < 1<<32:
		return append(b, lexBase+3, byte(x>>24), byte(x>>16), byte(x>>8), byte(x))
	}
	exp := bits.Len64(x) - 1 - 32
	m := x << lexShift >> exp
	return append(b, lexFloat, byte(exp), byte(m>>40), byte(m>>32), byte(m>>24), byte(m>>16), byte(m>>8), byte(m))
}

// Lexint reads a number that [AppendLexint] wrote.
func (d *Decoder) Lexint() uint64 {
	const what = "lexint"
	prefix := d.take(1, what)
	if prefix == nil {
		return 0
	}
	if prefix[0] < lexBase {
		return uint64(prefix[0])
	}
	if prefix[0] != lexFloat {
		return bigEndian(d.take(int(prefix[0])-lexBase+1, what)) + lexOffset(d)
	}
	p := d.take(1+lexMantissa, what)
	if p == nil {
		return 0
	}
	exp, m := int(p[0]), bigEndian(p[1:])
	if exp >= lexExps {
		d.fail(what, ErrInvalid)
		return 0
	}
	up, down := max(exp-lexShift, 0), max(lexShift-exp, 0)
	n := m << up >> down
	if n<<down>>up != m || n > MaxUint-lexBase {
		d.fail(what, ErrInvalid)
		return 0
	}
	return n + lexBase
}

// lexOffset is what to add to a number just read: nothing after an error.
func lexOffset(d *Decoder) uint64 {
	if d.err != nil {
		return 0
	}
	return lexBase
}

func bigEndian(p []byte) uint64 {
	var n uint64
	for _, c := range p {
		n = n<<8 | uint64(c)
	}
	return n
}
