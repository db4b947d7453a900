package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A condition is one key of one operator. It holds if one of its wants does, for the
// values of the request.
type condition struct {
	test     func(want, got string) bool
	negative bool // it holds if no want does
	key      string
	wants    []string
	ifExists bool
	each     quantifier
	null     bool
}

type quantifier int

const (
	one quantifier = iota
	forAll
	forAny
)

// operators are the tests of conditions by their names. Those with "Not" are the
// opposites of others.
var operators = map[string]struct {
	test     func(want, got string) bool
	negative bool
}{
	"StringEquals":              {func(w, g string) bool { return w == g }, false},
	"StringNotEquals":           {func(w, g string) bool { return w == g }, true},
	"StringEqualsIgnoreCase":    {strings.EqualFold, false},
	"StringNotEqualsIgnoreCase": {strings.EqualFold, true},
	"StringLike":                {like, false},
	"StringNotLike":             {like, true},
	"ArnEquals":                 {like, false},
	"ArnNotEquals":              {like, true},
	"ArnLike":                   {like, false},
	"ArnNotLike":                {like, true},
	"NumericEquals":             {numeric(func(c int) bool { return c == 0 }), false},
	"NumericNotEquals":          {numeric(func(c int) bool { return c == 0 }), true},
	"NumericLessThan":           {numeric(func(c int) bool { return c < 0 }), false},
	"NumericLessThanEquals":     {numeric(func(c int) bool { return c <= 0 }), false},
	"NumericGreaterThan":        {numeric(func(c int) bool { return c > 0 }), false},
	"NumericGreaterThanEquals":  {numeric(func(c int) bool { return c >= 0 }), false},
	"DateEquals":                {date(func(c int) bool { return c == 0 }), false},
	"DateNotEquals":             {date(func(c int) bool { return c == 0 }), true},
	"DateLessThan":              {date(func(c int) bool { return c < 0 }), false},
	"DateLessThanEquals":        {date(func(c int) bool { return c <= 0 }), false},
	"DateGreaterThan":           {date(func(c int) bool { return c > 0 }), false},
	"DateGreaterThanEquals":     {date(func(c int) bool { return c >= 0 }), false},
	"Bool":                      {strings.EqualFold, false},
	"BinaryEquals":              {func(w, g string) bool { return w == g }, false},
	"IpAddress":                 {address, false},
	"NotIpAddress":              {address, true},
	"Null":                      {nil, false},
}

// numeric compares what a request has with what is wanted.
func numeric(ok func(int) bool) func(want, got string) bool {
	return func(want, got string) bool {
		w, err1 := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		return err1 == nil && err2 == nil && ok(order(g, w))
	}
}

func order(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func date(ok func(int) bool) func(want, got string) bool {
	return func(want, got string) bool {
		w, ok1 := parseTime(want)
		g, ok2 := parseTime(got)
		return ok1 && ok2 && ok(g.Compare(w))
	}
}

// network reads an address, or a range of them.
func network(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), err == nil
}

func address(want, got string) bool {
	n, ok := network(want)
	a, err := netip.ParseAddr(got)
	return ok && err == nil && n.Contains(a.Unmap())
}

// narrowing are the keys that keep a statement for anybody from being public.
var narrowing = []string{"aws:sourceip", "aws:sourcearn", "aws:sourceaccount", "aws:sourcevpc", "aws:sourcevpce", "aws:principalarn", "aws:principalaccount", "aws:principalorgid", "aws:userid", "aws:username"}

// readConditions reads the conditions of a statement.
func (s *statement) readConditions(in map[string]map[string]json.RawMessage) error {
	for operator, keys := range in {
		for key, raw := range keys {
			c, err := readCondition(operator, key, raw)
			if err != nil {
				return err
			}
			s.conditions = append(s.conditions, c)
			for _, n := range narrowing {
				if c.key == n && !c.negative && !c.null && !open(c.wants) {
					s.narrow = true
				}
			}
		}
	}
	return nil
}

// open reports whether a list has a want that takes about everything.
func open(wants []string) bool {
	for _, w := range wants {
		if p, ok := network(w); w == "*" || ok && p.Bits() == 0 {
			return true
		}
	}
	return false
}

func readCondition(operator, key string, raw json.RawMessage) (condition, error) {
	c := condition{key: strings.ToLower(key)}
	name := operator
	if rest, ok := strings.CutPrefix(name, "ForAllValues:"); ok {
		name, c.each = rest, forAll
	} else if rest, ok := strings.CutPrefix(name, "ForAnyValue:"); ok {
		name, c.each = rest, forAny
	}
	name, c.ifExists = strings.CutSuffix(name, "IfExists")
	op, ok := operators[name]
	if !ok || name == "Null" && c.ifExists {
		return c, problem("Invalid Condition type : " + operator)
	}
	c.test, c.negative, c.null = op.test, op.negative, name == "Null"
	if !knownKey(c.key) {
		return c, problem("Policy has an invalid condition key")
	}
	var err error
	if c.wants, err = scalars(raw); err != nil {
		return c, problem("Policy has invalid syntax")
	}
	for _, w := range c.wants {
		if !c.fits(name, w) && strings.HasSuffix(name, "IpAddress") {
			return c, problem("Invalid IP address in Conditions")
		}
		if !c.fits(name, w) {
			return c, problem(fmt.Sprintf("Invalid value for condition %s", operator))
		}
	}
	return c, nil
}

// fits reports whether a want is one of its operator.
func (c *condition) fits(name, want string) bool {
	switch {
	case strings.HasSuffix(name, "IpAddress"):
		_, ok := network(want)
		return ok
	case strings.HasPrefix(name, "Date"):
		_, ok := parseTime(want)
		return ok
	case strings.HasPrefix(name, "Numeric"):
		_, err := strconv.ParseFloat(want, 64)
		return err == nil
	case name == "Bool" || c.null:
		return strings.EqualFold(want, "true") || strings.EqualFold(want, "false")
	}
	return true
}

// scalars reads a string, a number, a truth, or a list of them.
func scalars(raw json.RawMessage) ([]string, error) {
	var list []any
	if json.Unmarshal(raw, &list) != nil {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		list = []any{v}
	}
	out := make([]string, len(list))
	for i, v := range list {
		switch v := v.(type) {
		case string:
			out[i] = v
		case bool:
			out[i] = strconv.FormatBool(v)
		case float64:
			out[i] = strconv.FormatFloat(v, 'f', -1, 64)
		default:
			return nil, fmt.Errorf("a value of a condition is %T", v)
		}
	}
	return out, nil
}

func (c condition) holds(r Request) bool {
	var got []string
	if r.Values != nil {
		got = r.Values(c.key)
	}
	if c.null {
		return len(c.wants) > 0 && strings.EqualFold(c.wants[0], strconv.FormatBool(len(got) == 0))
	}
	if len(got) == 0 {
		return c.ifExists || c.negative || c.each == forAll
	}
	for _, g := range got {
		if c.one(g) != (c.each == forAll) {
			return c.each != forAll
		}
	}
	return c.each == forAll
}

// one reports whether the condition holds for a value.
func (c condition) one(got string) bool {
	for _, w := range c.wants {
		if c.test(w, got) {
			return !c.negative
		}
	}
	return c.negative
}
