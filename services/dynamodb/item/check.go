package item

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// A SerializationError says that a request has not the types it must have.
type SerializationError string

func (e SerializationError) Error() string { return string(e) }

// The words for what is not where it belongs.
const (
	notHere        = SerializationError("Start of structure or map found where not expected")
	unexpectedType = SerializationError("Unexpected field type")
	modelPackage   = "com.amazonaws.dynamodb.v20120810."
)

// AsString takes a node for a string.
func AsString(n *Node) (string, error) {
	if n.Kind == String {
		return n.Str, nil
	}
	return "", wrongScalar(n, "String")
}

// wrongScalar is the complaint about a node that should be something simple.
func wrongScalar(n *Node, want string) error {
	switch n.Kind {
	case Bool:
		return SerializationError(strings.ToUpper(fmt.Sprint(n.Bool)) + "_VALUE cannot be converted to " + want)
	case Number64:
		if n.Num == math.Trunc(n.Num) {
			return SerializationError("NUMBER_VALUE cannot be converted to " + want)
		}
		return SerializationError("DECIMAL_VALUE cannot be converted to " + want)
	case String:
		return SerializationError("STRING_VALUE cannot be converted to " + want)
	case Array:
		return SerializationError("Unrecognized collection type class java.lang." + want)
	}
	return notHere
}

// AsBool takes a node for a truth.
func AsBool(n *Node) (bool, error) {
	switch n.Kind {
	case Bool:
		return n.Bool, nil
	case String:
		switch strings.ToUpper(n.Str) {
		case "TRUE", "1", "YES":
			return true, nil
		case "FALSE", "0", "NO":
			return false, nil
		}
		return false, SerializationError("Unexpected token received from parser")
	}
	return false, wrongScalar(n, "Boolean")
}

// AsInteger takes a node for a number of a type of Java.
func AsInteger(n *Node, java string) (float64, error) {
	if n.Kind == Number64 {
		return math.Floor(n.Num), nil
	}
	return 0, wrongScalar(n, java)
}

// asBlob takes a node for bytes.
func asBlob(n *Node) (string, error) {
	switch n.Kind {
	case Bool, Number64:
		return "", SerializationError("only base-64-encoded strings are convertible to bytes")
	case Array:
		return "", SerializationError("Unrecognized collection type class java.nio.ByteBuffer")
	case Object:
		return "", notHere
	}
	if len(n.Str)%4 != 0 {
		return "", SerializationError(fmt.Sprint("Base64 encoded length is expected a multiple of 4 bytes but found: ", len(n.Str)))
	}
	b, err := base64.StdEncoding.Strict().DecodeString(n.Str)
	if err != nil || strings.ContainsAny(n.Str, "\r\n") {
		return "", SerializationError("Invalid last non-pad Base64 character dectected")
	}
	return string(b), nil
}

// CheckList takes a node for a list.
func CheckList(n *Node) error {
	switch n.Kind {
	case Bool, Number64, String:
		return unexpectedType
	case Object:
		return notHere
	}
	return nil
}

// CheckMap takes a node for a map of some type of Java.
func CheckMap(n *Node, of string) error {
	switch n.Kind {
	case Bool, Number64, String:
		return unexpectedType
	case Array:
		if !strings.Contains(of, ".") {
			of = modelPackage + of
		}
		return SerializationError("Unrecognized collection type java.util.Map<java.lang.String, " + of + ">")
	}
	return nil
}

// CheckStruct takes a node for a structure; one of a list or a map is complained
// of in other words than that of a field.
func CheckStruct(n *Node, name string, field bool) error {
	switch n.Kind {
	case Bool, Number64, String:
		if field {
			return unexpectedType
		}
		return SerializationError("Unexpected value type in payload")
	case Array:
		return SerializationError("Unrecognized collection type class " + modelPackage + name)
	}
	return nil
}

// AsValue takes a node for an attribute's value, and keeps it in the node. It is
// not valid before [Value.Check] says so.
func AsValue(n *Node, field bool) error {
	v, err := asValue(n, field)
	if err == nil {
		n.Val = &v
	}
	return err
}

func asValue(n *Node, field bool) (v Value, err error) {
	if n.Kind == Null {
		return v, nil
	}
	if err := CheckStruct(n, "AttributeValue", field); err != nil {
		return v, err
	}
	if len(n.Keys) == 1 {
		if t := TypeOf(n.Keys[0]); t != None && n.List[0].Kind != Null {
			err = v.read(t, n.List[0])
		}
		return v, err
	}
	for t := S; t <= M; t++ {
		of := n.Get(t.String())
		if of == nil {
			continue
		}
		var one Value
		if err := one.read(t, of); err != nil {
			return v, err
		}
		if v.Type == None {
			v = one
		} else {
			v.more = append(v.more, one)
		}
	}
	return v, nil
}

func (v *Value) read(t Type, n *Node) (err error) {
	v.Type = t
	switch t {
	case S, N:
		v.Text, err = AsString(n)
	case B:
		v.Text, err = asBlob(n)
	case BOOL, NULL:
		v.Bool, err = AsBool(n)
	case BS, NS, SS:
		if err = CheckList(n); err != nil {
			return err
		}
		v.Set = make([]string, 0, len(n.List))
		for _, e := range n.List {
			var s string
			if e.Kind == Null {
				continue
			}
			if t == BS {
				s, err = asBlob(e)
			} else {
				s, err = AsString(e)
			}
			if err != nil {
				return err
			}
			v.Set = append(v.Set, s)
		}
	case L:
		if err = CheckList(n); err != nil {
			return err
		}
		v.List = make([]Value, len(n.List))
		for i, e := range n.List {
			if v.List[i], err = asValue(e, false); err != nil {
				return err
			}
		}
	case M:
		if err = CheckMap(n, "AttributeValue"); err != nil {
			return err
		}
		v.Map = make(Item, len(n.Keys))
		for i, e := range n.List {
			var one Value
			if one, err = asValue(e, false); err != nil {
				return err
			}
			v.Map[n.Keys[i]] = one
		}
	}
	return err
}

// maxDepth is how deep lists and maps may lie in one another.
const maxDepth = 32

// invalid is how most complaints begin.
const invalid = "One or more parameter values were invalid: "

// Check tells why a value is refused, or nothing. It brings numbers into the one
// form that they have.
func (v *Value) Check() string { return v.check(0) }

func (v *Value) check(depth int) string {
	if v.Type == None {
		return "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
	}
	if problem := v.checkOne(depth); problem != "" {
		return problem
	}
	for i := range v.more {
		if problem := v.more[i].checkOne(depth); problem != "" {
			return problem
		}
	}
	if v.more != nil {
		return "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
	}
	return ""
}

func (v *Value) checkOne(depth int) string {
	switch v.Type {
	case N:
		return checkNumber(&v.Text)
	case NULL:
		if !v.Bool {
			return invalid + "Null attribute value types must have the value of true"
		}
	case SS, NS, BS:
		return v.checkSet()
	case L, M:
		if depth >= maxDepth {
			return "Nesting Levels have exceeded supported limits"
		}
		for i := range v.List {
			if problem := v.List[i].check(depth + 1); problem != "" {
				return problem
			}
		}
		return v.Map.check(depth + 1)
	}
	return ""
}

// check goes by the order of names.
func (i Item) check(depth int) string {
	for _, name := range slices.Sorted(maps.Keys(i)) {
		v := i[name]
		if problem := v.check(depth); problem != "" {
			return problem
		}
		i[name] = v
	}
	return ""
}

func checkNumber(s *string) string {
	if *s == "" {
		return "The parameter cannot be converted to a numeric value"
	}
	n, ok := ParseNumber(*s)
	if !ok {
		return "The parameter cannot be converted to a numeric value: " + *s
	}
	if problem := n.check(); problem != "" {
		return problem
	}
	*s = n.String()
	return ""
}

func (v *Value) checkSet() string {
	if len(v.Set) == 0 {
		switch v.Type {
		case SS:
			return invalid + "An string set  may not be empty"
		case NS:
			return invalid + "An number set  may not be empty"
		}
		return invalid + "Binary sets should not be empty"
	}
	if v.Type == NS {
		for i := range v.Set {
			if problem := checkNumber(&v.Set[i]); problem != "" {
				return problem
			}
		}
	}
	if !twice(v.Set) {
		return ""
	}
	switch v.Type {
	case NS:
		return "Input collection contains duplicates"
	case BS:
		return invalid + "Input collection [" + strings.Join(encoded(v.Set), ", ") + "]of type BS contains duplicates."
	}
	return invalid + "Input collection [" + strings.Join(v.Set, ", ") + "] contains duplicates."
}

func encoded(set []string) []string {
	out := make([]string, len(set))
	for i, s := range set {
		out[i] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	return out
}

// twice reports whether something is in a list more than once.
func twice(list []string) bool {
	if len(list) < 8 {
		for i, s := range list {
			if slices.Contains(list[:i], s) {
				return true
			}
		}
		return false
	}
	seen := make(map[string]struct{}, len(list))
	for _, s := range list {
		seen[s] = struct{}{}
	}
	return len(seen) < len(list)
}

// ReadItem reads an item that [Item.AppendJSON] wrote.
func ReadItem(text []byte) (Item, error) {
	n, ok := Parse(text)
	if !ok || n.Kind != Object {
		return nil, SerializationError("not an item")
	}
	for _, e := range n.List {
		if err := AsValue(e, false); err != nil {
			return nil, err
		}
	}
	return n.Item(), nil
}

// Check tells why the values of a node's members are refused, or nothing. They
// were taken for values before.
func (n *Node) Check() string {
	for _, e := range n.List {
		if problem := e.Val.Check(); problem != "" {
			return problem
		}
	}
	return ""
}

// Item returns the values of a node's members, which were taken for values before.
func (n *Node) Item() Item {
	if n == nil {
		return nil
	}
	out := make(Item, len(n.Keys))
	for i, e := range n.List {
		out[n.Keys[i]] = *e.Val
	}
	return out
}

// Read reads a value, and says why it would be refused.
func Read(text []byte) (v Value, problem string, err error) {
	n, ok := Parse(text)
	if !ok {
		return v, "", SerializationError("not JSON")
	}
	if v, err = asValue(n, false); err == nil {
		problem = v.Check()
	}
	return v, problem, err
}
