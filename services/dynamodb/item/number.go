package item

import (
	"math/big"
	"strings"
)

// The largest and smallest exponents and the digits that a number may have.
const (
	maxExp    = 125
	minExp    = -130
	maxDigits = 38
)

// A Number is a decimal: Digits with a point after the first of them, times ten
// to the Exp. Digits neither begin nor end with a zero; zero has none.
type Number struct {
	Neg    bool
	Digits string
	Exp    int
}

// farExp stands for exponents that are out of any range.
const farExp = 1 << 20

// ParseNumber reads a number as JSON has it, with or without digits on either side
// of the point.
func ParseNumber(s string) (n Number, ok bool) {
	rest := s
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		n.Neg, rest = rest[0] == '-', rest[1:]
	}
	whole := digits(rest)
	rest = rest[len(whole):]
	var fraction string
	if rest != "" && rest[0] == '.' {
		fraction = digits(rest[1:])
		rest = rest[1+len(fraction):]
	}
	if whole == "" && fraction == "" {
		return Number{}, false
	}
	exp := 0
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		rest = rest[1:]
		down := rest != "" && rest[0] == '-'
		if rest != "" && (rest[0] == '-' || rest[0] == '+') {
			rest = rest[1:]
		}
		text := digits(rest)
		if text == "" {
			return Number{}, false
		}
		rest = rest[len(text):]
		for _, c := range []byte(text) {
			exp = min(exp*10+int(c-'0'), farExp)
		}
		if down {
			exp = -exp
		}
	}
	if rest != "" {
		return Number{}, false
	}
	all := whole + fraction
	lead := strings.TrimLeft(all, "0")
	n.Digits = strings.TrimRight(lead, "0")
	n.Exp = exp + len(whole) - 1 - (len(all) - len(lead))
	if n.Digits == "" {
		return Number{}, true
	}
	return n, true
}

// digits is what s begins with.
func digits(s string) string {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i]
}

const (
	tooLarge = "Number overflow. Attempting to store a number with magnitude larger than supported range"
	tooLong  = "Attempting to store more than 38 significant digits in a Number"
)

// check tells why a number can't be stored, or nothing.
func (n Number) check() string {
	switch {
	case n.Digits == "":
		return ""
	case n.Exp > maxExp:
		return tooLarge
	case n.Exp < minExp:
		return "Number underflow. Attempting to store a number with magnitude smaller than supported range"
	case len(n.Digits) > maxDigits:
		return tooLong
	}
	return ""
}

// String is the number without an exponent.
func (n Number) String() string {
	if n.Digits == "" {
		return "0"
	}
	var b strings.Builder
	if n.Neg {
		b.WriteByte('-')
	}
	switch d := n.Digits; {
	case n.Exp < 0:
		b.WriteString("0.")
		b.WriteString(strings.Repeat("0", -n.Exp-1))
		b.WriteString(d)
	case n.Exp >= len(d)-1:
		b.WriteString(d)
		b.WriteString(strings.Repeat("0", n.Exp-len(d)+1))
	default:
		b.WriteString(d[:n.Exp+1])
		b.WriteByte('.')
		b.WriteString(d[n.Exp+1:])
	}
	return b.String()
}

func (n Number) sign() int {
	switch {
	case n.Digits == "":
		return 0
	case n.Neg:
		return -1
	}
	return 1
}

// Cmp compares two numbers.
func (n Number) Cmp(o Number) int {
	a, b := n.sign(), o.sign()
	if a != b || a == 0 {
		return a - b
	}
	if n.Exp != o.Exp {
		return a * (n.Exp - o.Exp)
	}
	return a * strings.Compare(n.Digits, o.Digits)
}

// Add returns the sum, or with minus the difference, and why it can't be stored.
func (n Number) Add(o Number, minus bool) (sum Number, problem string) {
	low := min(n.Exp-len(n.Digits), o.Exp-len(o.Digits)) + 1
	a, b := n.scaled(low), o.scaled(low)
	if minus {
		b.Neg(b)
	}
	a.Add(a, b)
	sum, _ = ParseNumber(a.String())
	if sum.Digits != "" {
		sum.Exp += low
	}
	if problem = sum.check(); problem == tooLong {
		problem = tooLarge // these are DynamoDB's words for it
	}
	return sum, problem
}

// scaled is the number in units of ten to the low.
func (n Number) scaled(low int) *big.Int {
	out := new(big.Int)
	if n.Digits == "" {
		return out
	}
	out.SetString(n.Digits+strings.Repeat("0", n.Exp-len(n.Digits)+1-low), 10)
	if n.Neg {
		out.Neg(out)
	}
	return out
}

// The sortable form has a byte for the exponent of 100 and one for each two
// digits, none of which is 0. Numbers below zero have the complement, and 102 at
// the end so that the longer comes first.

// AppendSortable appends bytes that sort as numbers do. They are ended by
// something else: a 0 does.
func (n Number) AppendSortable(b []byte) []byte {
	if n.Digits == "" {
		return append(b, 0x80)
	}
	digits := n.Digits
	if n.Exp&1 == 0 {
		digits = "0" + digits // pairs are counted from the point
	}
	if len(digits)&1 == 1 {
		digits += "0"
	}
	exp := byte(floorHalf(n.Exp+2) - 64)
	if n.Neg {
		exp ^= 0xff
	}
	b = append(b, exp)
	for i := 0; i < len(digits); i += 2 {
		pair := (digits[i]-'0')*10 + digits[i+1] - '0'
		if n.Neg {
			b = append(b, 101-pair)
		} else {
			b = append(b, pair+1)
		}
	}
	if n.Neg && len(digits) < 40 {
		b = append(b, 102)
	}
	return b
}

func floorHalf(i int) int { return i >> 1 }

// storedSize is how many bytes a number counts.
func (n Number) storedSize() int {
	if n.Digits == "" {
		return 1
	}
	d := len(n.Digits)
	size := 1 + (d+1)/2
	if d%2 == 0 && n.Exp%2 == 0 {
		size++
	}
	if n.Neg {
		size++
	}
	return size
}
