// Package item has the values of DynamoDB: what they are in JSON, how they
// compare, how many bytes they count, and which of them are refused in which
// words.
//
//	v, problem, err := item.Read([]byte(`{"N":"1.50"}`))
//	v.Text                    // "1.5"
//	string(v.AppendJSON(nil)) // `{"N":"1.5"}`
package item

import (
	"slices"
	"strings"
	"unicode/utf16"
)

// A Type is one of the types of values, in the order in which DynamoDB looks for
// them.
type Type uint8

// The types.
const (
	None Type = iota
	S
	B
	N
	BOOL
	NULL
	BS
	NS
	SS
	L
	M
)

var typeNames = [...]string{"", "S", "B", "N", "BOOL", "NULL", "BS", "NS", "SS", "L", "M"}

// String is the type's name in JSON.
func (t Type) String() string { return typeNames[t] }

// TypeOf is the type of a name, or None.
func TypeOf(name string) Type {
	return Type(max(0, slices.Index(typeNames[:], name)))
}

// A Value is an attribute's value. Text is that of S and N, and the bytes of B;
// Set has the same for sets.
type Value struct {
	Type Type
	Text string
	Bool bool
	Set  []string
	List []Value
	Map  Item

	more []Value // of other types, which is refused
}

// An Item is attributes by their names.
type Item map[string]Value

// Text returns a string.
func Text(s string) Value { return Value{Type: S, Text: s} }

// Num returns a number that is written already as [Number.String] does.
func Num(s string) Value { return Value{Type: N, Text: s} }

// Number is the number of a value of type N.
func (v Value) Number() Number {
	n, _ := ParseNumber(v.Text)
	return n
}

// Clone returns a copy that shares nothing that can be changed.
func (v Value) Clone() Value {
	v.Set = slices.Clone(v.Set)
	if v.List != nil {
		list := make([]Value, len(v.List))
		for i, e := range v.List {
			list[i] = e.Clone()
		}
		v.List = list
	}
	if v.Map != nil {
		v.Map = v.Map.Clone()
	}
	return v
}

// Clone returns a copy that shares nothing that can be changed.
func (i Item) Clone() Item {
	if i == nil {
		return nil
	}
	out := make(Item, len(i))
	for name, v := range i {
		out[name] = v.Clone()
	}
	return out
}

// Equal reports whether two items are the same.
func (i Item) Equal(o Item) bool {
	if len(i) != len(o) {
		return false
	}
	for name, v := range i {
		w, ok := o[name]
		if !ok || !v.Equal(w) {
			return false
		}
	}
	return true
}

// Equal reports whether two values are the same. Sets have no order.
func (v Value) Equal(o Value) bool {
	if v.Type != o.Type {
		return false
	}
	switch v.Type {
	case SS, NS, BS:
		if len(v.Set) != len(o.Set) {
			return false
		}
		for _, e := range v.Set {
			if !slices.Contains(o.Set, e) {
				return false
			}
		}
		return true
	case L:
		return slices.EqualFunc(v.List, o.List, Value.Equal)
	case M:
		return v.Map.Equal(o.Map)
	case BOOL:
		return v.Bool == o.Bool
	}
	return v.Text == o.Text
}

// Compare compares two values of one type, if it has an order.
func (v Value) Compare(o Value) (c int, ok bool) {
	if v.Type != o.Type {
		return 0, false
	}
	switch v.Type {
	case N:
		return v.Number().Cmp(o.Number()), true
	case S, B:
		return strings.Compare(v.Text, o.Text), true
	}
	return 0, false
}

// Contains reports whether a value has another in it: as a part of a text, or as
// an element.
func (v Value) Contains(o Value) bool {
	switch v.Type {
	case S, B:
		return o.Type == v.Type && strings.Contains(v.Text, o.Text)
	case SS, NS, BS:
		return o.Type == v.Type.element() && slices.Contains(v.Set, o.Text)
	case L:
		return slices.ContainsFunc(v.List, o.Equal)
	}
	return false
}

// element is the type of the elements of a set.
func (t Type) element() Type {
	switch t {
	case SS:
		return S
	case NS:
		return N
	case BS:
		return B
	}
	return None
}

// Len is what size() returns, if the value has a size.
func (v Value) Len() (n int, ok bool) {
	switch v.Type {
	case S:
		for _, r := range v.Text {
			n += max(1, utf16.RuneLen(r))
		}
		return n, true
	case B:
		return len(v.Text), true
	case SS, NS, BS:
		return len(v.Set), true
	case L:
		return len(v.List), true
	case M:
		return len(v.Map), true
	}
	return 0, false
}

// Size is how many bytes a value counts.
func (v Value) Size() (n int) {
	switch v.Type {
	case S, B:
		return len(v.Text)
	case N:
		return v.Number().storedSize()
	case SS, BS:
		for _, e := range v.Set {
			n += len(e)
		}
	case NS:
		for _, e := range v.Set {
			n += Num(e).Size()
		}
	case NULL, BOOL:
		return 1
	case L:
		n = 3
		for _, e := range v.List {
			n += 1 + e.Size()
		}
	case M:
		n = 3 + len(v.Map) + v.Map.Size()
	}
	return n
}

// Size is how many bytes an item counts for the limit of 400 KB and for capacity.
func (i Item) Size() (n int) {
	for name, v := range i {
		n += len(name) + v.Size()
	}
	return n
}

// pageSize is what a value counts for the limit of a page, as far as that is
// known: names are counted by one byte, lengths are written before the values.
func (v Value) pageSize() int {
	switch v.Type {
	case S:
		switch n := len(v.Text); {
		case n < 128:
			return n + 1
		case n < 16384:
			return n + 2
		default:
			return n + 3
		}
	case B, N:
		return v.Size() + 1
	case SS, NS, BS:
		return v.Size() + len(v.Set) + 1
	case BOOL:
		return 2
	case NULL:
		return 0
	case L:
		n := 3
		for _, e := range v.List {
			n += 1 + e.pageSize()
		}
		return n
	case M:
		n := 3 + len(v.Map)
		for _, e := range v.Map {
			n += 1 + e.pageSize()
		}
		return n
	}
	return 0
}

// PageSize is how many bytes of a page of 1 MB an item takes whose range key is
// that attribute.
func (i Item) PageSize(rangeKey string) int {
	size, key := 0, 0
	for name, v := range i {
		if name == rangeKey {
			key = v.Size()
			continue
		}
		size += 1 + v.pageSize()
	}
	return 2 + size + (1+(1+size)/3072)*(18+key)
}

// A RangeError says that a number can't be stored.
type RangeError string

func (e RangeError) Error() string { return string(e) }

// Add returns the sum of two numbers, or with minus the difference.
func (v Value) Add(o Value, minus bool) (Value, error) {
	sum, problem := v.Number().Add(o.Number(), minus)
	if problem != "" {
		return Value{}, RangeError(problem)
	}
	return Num(sum.String()), nil
}

// Plus adds to a number, or to a set, or to a list.
func Plus(have, v Value) (Value, error) {
	switch have.Type {
	case N:
		return have.Add(v, false)
	case L:
		have.List = slices.Concat(have.List, v.List)
	default:
		have.Set = slices.Clone(have.Set)
		for _, e := range v.Set {
			if !slices.Contains(have.Set, e) {
				have.Set = append(have.Set, e)
			}
		}
	}
	return have, nil
}

// Subtract takes from a set. Nothing is left of one that would be empty.
func Subtract(have, v Value) Value {
	left := slices.DeleteFunc(slices.Clone(have.Set), func(e string) bool { return slices.Contains(v.Set, e) })
	if len(left) == 0 {
		return Value{}
	}
	have.Set = left
	return have
}
