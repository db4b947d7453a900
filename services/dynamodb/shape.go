package dynamodb

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A kind is what a member of a request must be.
type kind uint8

const (
	kString kind = iota
	kBool
	kInteger
	kLong
	kDouble
	kValue      // an attribute's value in a list or a map
	kFieldValue // and in a field
	kList
	kParamList // lists and maps of which Java says in other words what is wrong
	kMap
	kParamMap
	kStruct      // a structure in a list or a map
	kFieldStruct // and in a field
)

// A shape is what a member of a request must be like. The zero values of its
// limits are none.
type shape struct {
	kind   kind
	name   string // of the type in the words of Java
	fields []field
	of     *shape // what a list or a map has

	required  bool // looked at before all others
	tableName bool
	notNull   bool
	enum      []string
	name3     bool // of the letters of names, and of a length when long says so
	minValue  *float64
	maxValue  *float64
	minLen    int
	maxLen    int
	keys      bool // of a map are names of tables
	late      bool // a problem that is the only one is told in other words
	values    int  // the most elements that each list of a map may have
	java      bool // values are shown as Java does
}

// A field is a member of a structure by its name.
type field struct {
	name string
	shape
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

const nameWords = "[a-zA-Z0-9_.-]+"

// paramWords is what Java says of something simple where a collection should be.
const paramWords = item.SerializationError("class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base of loader 'bootstrap')")

// checkStruct looks at the types of a structure's members, in the order of the
// shape, and returns the structure with these members alone.
func checkStruct(n *item.Node, fields []field) (*item.Node, error) {
	out := &item.Node{Kind: item.Object, Keys: make([]string, 0, len(n.Keys)), List: make([]*item.Node, 0, len(n.Keys))}
	for i := range fields {
		f := &fields[i]
		have := n.Get(f.name)
		if have == nil {
			continue
		}
		have, err := f.check(have)
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, f.name)
		out.List = append(out.List, have)
	}
	return out, nil
}

// check looks at the type of a member.
func (s *shape) check(n *item.Node) (*item.Node, error) {
	if n.Kind == item.Null && s.kind != kValue {
		return n, nil
	}
	var err error
	switch s.kind {
	case kString:
		_, err = item.AsString(n)
	case kBool:
		var b bool
		b, err = item.AsBool(n)
		n = &item.Node{Kind: item.Bool, Bool: b}
	case kInteger, kLong, kDouble:
		java := [...]string{kInteger: "Integer", kLong: "Long", kDouble: "Double"}[s.kind]
		var f float64
		f, err = item.AsInteger(n, java)
		if s.kind == kDouble {
			f = n.Num
		}
		n = &item.Node{Kind: item.Number64, Num: f}
	case kValue, kFieldValue:
		err = item.AsValue(n, s.kind == kFieldValue)
	case kStruct, kFieldStruct:
		if err = item.CheckStruct(n, s.name, s.kind == kFieldStruct); err == nil {
			return checkStruct(n, s.fields)
		}
	default:
		return s.checkMany(n)
	}
	return n, err
}

// checkMany looks at the types of a list or a map.
func (s *shape) checkMany(n *item.Node) (*item.Node, error) {
	var err error
	param := n.Kind == item.Bool || n.Kind == item.Number64 || n.Kind == item.String
	switch {
	case param && (s.kind == kParamList || s.kind == kParamMap):
		err = paramWords
	case s.kind == kList || s.kind == kParamList:
		err = item.CheckList(n)
	case s.kind == kParamMap && n.Kind == item.Array:
		err = item.SerializationError("Unrecognized collection type java.util.Map<java.lang.String, com.amazonaws.dynamodb.v20120810.AttributeValue>")
	default:
		err = item.CheckMap(n, s.name)
	}
	if err != nil {
		return nil, err
	}
	for i, e := range n.List {
		if n.List[i], err = s.of.check(e); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// A validator gathers what is wrong with values.
type validator struct {
	problems []string
	late     string // what is told of the only one
}

// most is how many problems are told.
const most = 10

// validate tells what is wrong with the values of a request, or nothing.
func validate(n *item.Node, fields []field) string {
	for i := range fields {
		f := &fields[i]
		have := n.Get(f.name)
		if f.required && have == nil {
			return "The parameter '" + f.name + "' is required but was not present in the request"
		}
		if f.tableName && have != nil && (len(have.Str) < 3 || len(have.Str) > 255) {
			return f.name + " must be at least 3 characters long and at most 255 characters long"
		}
	}
	var v validator
	v.fields(n, fields, "")
	if len(v.problems) == 0 {
		return ""
	}
	if len(v.problems) == 1 && v.late != "" {
		return v.late
	}
	s := ""
	if len(v.problems) > 1 {
		s = "s"
	}
	return fmt.Sprint(len(v.problems), " validation error", s, " detected: ", strings.Join(v.problems, "; "))
}

func (v *validator) fields(n *item.Node, fields []field, parent string) {
	for i := range fields {
		f := &fields[i]
		v.member(f.name, n.Get(f.name), &f.shape, parent)
	}
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func (v *validator) add(n *item.Node, path, problem string) {
	if len(v.problems) >= most {
		return
	}
	value := "null"
	if n != nil {
		value = "'" + shown(n, false) + "'"
	}
	v.problems = append(v.problems, "Value "+value+" at '"+path+"' failed to satisfy constraint: "+problem)
}

// member looks at a member whose type is right.
func (v *validator) member(name string, n *item.Node, s *shape, parent string) {
	if n != nil && n.Kind == item.Null {
		n = nil
	}
	if n == nil && !s.notNull {
		return
	}
	path := lowerFirst(name)
	if parent != "" {
		path = parent + "." + path
	}
	if n == nil {
		v.add(n, path, "Member must not be null")
		return
	}
	if s.minValue != nil && n.Num < *s.minValue {
		if s.late {
			v.late = "1 validation error detected: Value at '" + name + "' failed to satisfy constraint: Member must have value greater than or equal to " + number(*s.minValue)
		}
		v.add(n, path, "Member must have value greater than or equal to "+number(*s.minValue))
	}
	if s.maxValue != nil && n.Num > *s.maxValue {
		v.add(n, path, "Member must have value less than or equal to "+number(*s.maxValue))
	}
	if s.enum != nil && !contains(s.enum, n.Str) {
		v.add(n, path, "Member must satisfy enum value set: ["+strings.Join(s.enum, ", ")+"]")
	}
	if s.name3 && !namePattern.MatchString(n.Str) {
		v.add(n, path, "Member must satisfy regular expression pattern: "+nameWords)
	}
	length := len(n.Str)
	if n.Kind != item.String {
		length = len(n.List)
	}
	if s.minLen > 0 && length < s.minLen {
		v.add(n, path, "Member must have length greater than or equal to "+strconv.Itoa(s.minLen))
	}
	if s.maxLen > 0 && length > s.maxLen {
		show := n
		if s.java {
			show = javaList(n)
		}
		v.add(show, path, "Member must have length less than or equal to "+strconv.Itoa(s.maxLen))
	}
	v.many(n, s, path)
}

// many looks at what is in a member.
func (v *validator) many(n *item.Node, s *shape, path string) {
	if s.keys {
		for _, key := range n.Keys {
			if len(key) < 3 || len(key) > 255 || !namePattern.MatchString(key) {
				v.add(n, path, "Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length greater than or equal to 3, Member must satisfy regular expression pattern: "+nameWords+"]")
			}
		}
	}
	if s.values > 0 {
		for _, e := range n.List {
			if len(e.List) < 1 || len(e.List) > s.values {
				v.add(javaMap(n), path, "Map value must satisfy constraint: [Member must have length less than or equal to "+strconv.Itoa(s.values)+", Member must have length greater than or equal to 1]")
			}
		}
	}
	switch s.kind {
	case kStruct, kFieldStruct:
		v.fields(n, s.fields, path)
	case kList, kParamList, kMap, kParamMap:
		if s.of.kind == kValue {
			return
		}
		of := *s.of
		of.notNull = true
		for i, e := range n.List {
			name := strconv.Itoa(i + 1)
			if n.Kind == item.Object {
				name = n.Keys[i]
			}
			v.member("member", e, &of, path+"."+name)
		}
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// javaList shows elements of a key's schema.
func javaList(n *item.Node) *item.Node {
	parts := make([]string, len(n.List))
	for i, e := range n.List {
		parts[i] = "KeySchemaElement(attributeName=" + e.Get("AttributeName").String() + ", keyType=" + e.Get("KeyType").String() + ")"
	}
	return &item.Node{Kind: item.String, Str: "[" + strings.Join(parts, ", ") + "]"}
}

// javaMap shows a map of lists.
func javaMap(n *item.Node) *item.Node {
	parts := make([]string, len(n.List))
	for i, e := range n.List {
		parts[i] = n.Keys[i] + "=" + shown(e, false)
	}
	return &item.Node{Kind: item.String, Str: "{" + strings.Join(parts, ", ") + "}"}
}

// shown is how a complaint shows a value: lists in a way of their own, and what is
// in structures as JSON.
func shown(n *item.Node, inside bool) string {
	switch n.Kind {
	case item.String:
		if inside {
			return string(item.AppendString(nil, n.Str))
		}
		return n.Str
	case item.Number64:
		return number(n.Num)
	case item.Bool:
		return strconv.FormatBool(n.Bool)
	case item.Null:
		return "null"
	}
	if n.Val != nil {
		return string(n.Val.AppendJSON(nil))
	}
	parts := make([]string, len(n.List))
	for i, e := range n.List {
		parts[i] = shown(e, inside || n.Kind == item.Object)
		if n.Kind == item.Object {
			parts[i] = string(item.AppendString(nil, n.Keys[i])) + ":" + parts[i]
		}
	}
	if n.Kind == item.Object {
		return "{" + strings.Join(parts, ",") + "}"
	}
	if inside {
		return "[" + strings.Join(parts, ",") + "]"
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
