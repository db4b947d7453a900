package dynamodb

import (
	"regexp"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/expr"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A request is one whose types and values are right.
type request struct {
	*item.Node

	cond    *expr.Condition // of ConditionExpression
	keyCond *expr.Condition
	filter  *expr.Condition
	update  *expr.Update
	project *expr.Projection
	parts   []action // of a transaction

	// The item that was asked for last, which nobody changes.
	itemName string
	itemMade item.Item
}

func (r *request) has(name string) bool { return r.Get(name) != nil }

func (r *request) str(name string) string {
	if n := r.Get(name); n != nil {
		return n.Str
	}
	return ""
}

func (r *request) flag(name string) bool {
	n := r.Get(name)
	return n != nil && n.Bool
}

func (r *request) int(name string) int {
	if n := r.Get(name); n != nil {
		return int(min(n.Num, 1<<31))
	}
	return 0
}

func (r *request) strings(name string) []string { return texts(r.Get(name)) }

func texts(n *item.Node) []string {
	if n == nil {
		return nil
	}
	out := make([]string, len(n.List))
	for i, e := range n.List {
		out[i] = e.Str
	}
	return out
}

func (r *request) item(name string) item.Item {
	if name != r.itemName {
		r.itemName, r.itemMade = name, r.Get(name).Item()
	}
	return r.itemMade
}

// checkParams looks for parameters that don't go together. KeyConditions may stand
// beside expressions, as long as there is no KeyConditionExpression.
func (r *request) checkParams(expressions, old []string) error {
	given := func(list []string) (out []string) {
		for _, name := range list {
			if r.has(name) {
				out = append(out, name)
			}
		}
		return out
	}
	have := given(expressions)
	if len(have) > 0 {
		if r.has("KeyConditions") && !r.has("KeyConditionExpression") {
			old = slices.DeleteFunc(slices.Clone(old), func(s string) bool { return s == "KeyConditions" })
		}
		if both := given(old); len(both) > 0 {
			return invalid("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {" +
				strings.Join(both, ", ") + "} Expression parameters: {" + strings.Join(have, ", ") + "}")
		}
	} else if r.has("ExpressionAttributeNames") {
		return invalid("ExpressionAttributeNames can only be specified when using expressions")
	}
	withValues := slices.DeleteFunc(slices.Clone(expressions), func(s string) bool { return s == "ProjectionExpression" })
	if len(withValues) > 0 && r.has("ExpressionAttributeValues") && len(given(withValues)) == 0 {
		verb := "is"
		if len(withValues) > 1 {
			verb = "are"
		}
		return invalid("ExpressionAttributeValues can only be specified when using expressions: " + strings.Join(withValues, " and ") + " " + verb + " null")
	}
	return nil
}

var (
	namePlace  = regexp.MustCompile(`^#[0-9a-zA-Z_]+$`)
	valuePlace = regexp.MustCompile(`^:[0-9a-zA-Z_]+$`)
)

// parse reads the expressions of a request.
func (r *request) parse() error {
	names, err := r.names()
	if err != nil {
		return err
	}
	for _, e := range []struct {
		name string
		read func(text string) error
	}{
		{"UpdateExpression", func(s string) (err error) { r.update, err = expr.ParseUpdate(s, names); return err }},
		{"ConditionExpression", func(s string) (err error) { r.cond, err = expr.ParseCondition(s, names); return err }},
		{"KeyConditionExpression", func(s string) (err error) { r.keyCond, err = expr.ParseCondition(s, names); return err }},
		{"FilterExpression", func(s string) (err error) { r.filter, err = expr.ParseCondition(s, names); return err }},
		{"ProjectionExpression", func(s string) (err error) { r.project, err = expr.ParseProjection(s, names); return err }},
	} {
		if !r.has(e.name) {
			continue
		}
		if err := e.read(r.str(e.name)); err != nil {
			return invalid("Invalid " + e.name + ": " + err.Error())
		}
	}
	return refuse(names.Unused())
}

// names reads the placeholders.
func (r *request) names() (*expr.Names, error) {
	names, values := r.Get("ExpressionAttributeNames"), r.Get("ExpressionAttributeValues")
	var nameMap map[string]string
	var valueMap item.Item
	var nameOrder, valueOrder []string
	if names != nil {
		if len(names.Keys) == 0 {
			return nil, invalid("ExpressionAttributeNames must not be empty")
		}
		nameMap, nameOrder = map[string]string{}, names.Keys
		for i, key := range names.Keys {
			if !namePlace.MatchString(key) {
				return nil, invalid(`ExpressionAttributeNames contains invalid key: Syntax error; key: "` + key + `"`)
			}
			nameMap[key] = names.List[i].Str
			if err := checkName(nameMap[key]); err != nil {
				return nil, err
			}
		}
	}
	if values != nil {
		if len(values.Keys) == 0 {
			return nil, invalid("ExpressionAttributeValues must not be empty")
		}
		valueOrder = values.Keys
		for _, key := range values.Keys {
			if !valuePlace.MatchString(key) {
				return nil, invalid(`ExpressionAttributeValues contains invalid key: Syntax error; key: "` + key + `"`)
			}
		}
		for i, key := range values.Keys {
			if problem := valueOf(values.List[i]).Check(); problem != "" {
				return nil, invalid("ExpressionAttributeValues contains invalid value: " + problem + " for key " + key)
			}
		}
		valueMap = values.Item()
	}
	return expr.NewNames(nameMap, nameOrder, valueMap, valueOrder), nil
}

// valueOf is the value of a node that was taken for one.
func valueOf(n *item.Node) *item.Value {
	if n.Val == nil {
		n.Val = new(item.Value)
	}
	return n.Val
}

// checkValues looks at the values of a map.
func (r *request) checkValues(name string) error {
	n := r.Get(name)
	if n == nil {
		return nil
	}
	for _, name := range n.Keys {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return refuse(n.Check())
}

// maxName is how many bytes the name of an attribute may have.
const maxName = 65535

// checkName looks at the name of an attribute.
func checkName(name string) error {
	switch {
	case name == "":
		return invalid(badValues + "Empty attribute name")
	case len(name) > maxName:
		return invalid(badValues + "Attribute name is too large, must be less than 65536 bytes")
	}
	return nil
}

// checkToGet looks for names that AttributesToGet has twice.
func (r *request) checkToGet() error {
	list := r.strings("AttributesToGet")
	for i, name := range list {
		if err := checkName(name); err != nil {
			return err
		}
		if slices.Contains(list[:i], name) {
			return invalid(badValues + "Duplicate value in attribute name: " + name)
		}
	}
	return nil
}

// paths is what of items is wanted; nil is all.
func (r *request) paths() []expr.Path {
	if r.project != nil {
		return r.project.Paths
	}
	var out []expr.Path
	for _, name := range r.strings("AttributesToGet") {
		out = append(out, expr.Of(name))
	}
	return out
}

// A filter is a condition of the old kind.
type filter struct {
	name   string
	op     string
	values []item.Value
}

// filters reads conditions of the old kind, which were checked.
func (r *request) filters(name string) (out []filter) {
	n := r.Get(name)
	if n == nil {
		return nil
	}
	for i, c := range n.List {
		f := filter{name: n.Keys[i], op: "EQ"}
		if list := c.Get("AttributeValueList"); list != nil {
			for _, v := range list.List {
				f.values = append(f.values, *v.Val)
			}
		} else if v := c.Get("Value"); v != nil {
			f.values = []item.Value{*v.Val}
		}
		if op := c.Get("ComparisonOperator"); op != nil {
			f.op = op.Str
		}
		if exists := c.Get("Exists"); exists != nil && !exists.Bool {
			f.op = "NULL"
		}
		out = append(out, f)
	}
	return out
}

// matches reports whether an item is as all filters say, or with or any.
func matches(i item.Item, filters []filter, or bool) bool {
	for _, f := range filters {
		if expr.Compare(f.op, i[f.name], f.values) == or {
			return or
		}
	}
	return !or || len(filters) == 0
}

// met reports whether an item is as the conditions of a request say.
func (r *request) met(i item.Item) bool {
	if r.cond != nil {
		return r.cond.Match(i)
	}
	return matches(i, r.filters("Expected"), r.str("ConditionalOperator") == "OR")
}

// conditional reports whether there are conditions.
func (r *request) conditional() bool { return r.cond != nil || r.has("Expected") }

// kept reports whether a filter lets an item through.
func (r *request) kept(i item.Item, old string) bool {
	if r.filter != nil {
		return r.filter.Match(i)
	}
	return matches(i, r.filters(old), r.str("ConditionalOperator") == "OR")
}

const wrongBetween = "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"

const notOneType = badValues + "AttributeValues inside AttributeValueList must be of same type"

// arguments tells whether an operator takes so many values.
func arguments(op string, n int) bool {
	switch op {
	case "NULL", "NOT_NULL":
		return n == 0
	case "IN":
		return n > 0
	case "BETWEEN":
		return n == 2
	}
	return n == 1
}

func sameType(values []item.Value) bool {
	return !slices.ContainsFunc(values, func(v item.Value) bool { return v.Type != values[0].Type })
}

// checkExpected looks at conditions on what is to be changed.
func (r *request) checkExpected() error {
	n := r.Get("Expected")
	if n == nil || len(n.List) == 0 {
		if r.has("ConditionalOperator") && r.cond == nil {
			return invalid("ConditionalOperator cannot be used without Filter or Expected")
		}
		return nil
	}
	for i, c := range n.List {
		if err := checkExpected(n.Keys[i], c); err != nil {
			return err
		}
	}
	return nil
}

func checkExpected(name string, c *item.Node) error {
	list, value, op, exists := c.Get("AttributeValueList"), c.Get("Value"), c.Get("ComparisonOperator"), c.Get("Exists")
	switch {
	case list != nil && value != nil:
		return invalid(badValues + "Value and AttributeValueList cannot be used together for Attribute: " + name)
	case op != nil:
		return checkExpectedOp(name, op.Str, list, value, exists)
	case list != nil:
		return invalid(badValues + "AttributeValueList can only be used with a ComparisonOperator for Attribute: " + name)
	case (exists == nil || exists.Bool) && value == nil:
		shown := "null"
		if exists != nil {
			shown = "true"
		}
		return invalid(badValues + "Value must be provided when Exists is " + shown + " for Attribute: " + name)
	case exists != nil && !exists.Bool && value != nil:
		return invalid(badValues + "Value cannot be used when Exists is false for Attribute: " + name)
	case value != nil:
		return refuse(value.Val.Check())
	}
	return nil
}

func checkExpectedOp(name, op string, list, value, exists *item.Node) error {
	if exists != nil {
		return invalid(badValues + "Exists and ComparisonOperator cannot be used together for Attribute: " + name)
	}
	if op != "NULL" && op != "NOT_NULL" && list == nil && value == nil {
		return invalid(badValues + "Value or AttributeValueList must be used with ComparisonOperator: " + op + " for Attribute: " + name)
	}
	var values []item.Value
	if value != nil {
		values = []item.Value{*value.Val}
	}
	if list != nil {
		values = nil
		for _, v := range list.List {
			values = append(values, *valueOf(v))
		}
	}
	switch {
	case !arguments(op, len(values)):
		return invalid(badValues + "Invalid number of argument(s) for the " + op + " ComparisonOperator")
	case list == nil || len(values) == 0:
		return nil
	case !sameType(values):
		return invalid(notOneType)
	}
	for _, v := range list.List {
		if problem := v.Val.Check(); problem != "" {
			return invalid(problem)
		}
	}
	return filter{name, op, values}.check()
}

// checkConditions looks at filters of the old kind.
func (r *request) checkConditions(name string) error {
	n := r.Get(name)
	if n == nil {
		return nil
	}
	for i, c := range n.List {
		f := filter{name: n.Keys[i], op: c.Get("ComparisonOperator").Str}
		if list := c.Get("AttributeValueList"); list != nil {
			for _, v := range list.List {
				if problem := valueOf(v).Check(); problem != "" {
					return invalid(problem)
				}
				f.values = append(f.values, *v.Val)
			}
		}
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}

func (f filter) check() error {
	if !arguments(f.op, len(f.values)) {
		return invalid(badValues + "Invalid number of argument(s) for the " + f.op + " ComparisonOperator")
	}
	if len(f.values) == 0 {
		return nil
	}
	if !sameType(f.values) {
		return invalid(notOneType)
	}
	types := []item.Type{item.S, item.N, item.B}
	if f.op == "BEGINS_WITH" {
		types = []item.Type{item.S, item.B}
	}
	for _, v := range f.values {
		if f.op != "EQ" && f.op != "NE" && !slices.Contains(types, v.Type) {
			return invalid(badValues + "ComparisonOperator " + f.op + " is not valid for " + v.Type.String() + " AttributeValue type")
		}
	}
	if f.op == "BETWEEN" && expr.Compare("GT", f.values[0], f.values[1:]) {
		return invalid(wrongBetween)
	}
	return nil
}

// The conditions on keys.

var keyOps = map[string]string{
	"=": "EQ", "<": "LT", "<=": "LE", ">": "GT", ">=": "GE", "between": "BETWEEN", "begins_with": "BEGINS_WITH",
}

var turned = map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// keyFilters takes a key condition apart.
func keyFilters(n *expr.Node, out *[]filter) error {
	switch n.Op {
	case "and":
		for _, a := range n.Args {
			if err := keyFilters(a, out); err != nil {
				return err
			}
		}
		return nil
	case "or", "not", "in", "<>":
		return invalid("Invalid operator used in KeyConditionExpression: " + strings.ToUpper(n.Op))
	case "attribute_exists", "attribute_not_exists", "attribute_type", "contains":
		return invalid("Invalid operator used in KeyConditionExpression: " + n.Op)
	}
	if (n.Op == "between" || n.Op == "begins_with") && n.Args[0].Op != "path" {
		op := n.Op
		if op == "between" {
			op = "BETWEEN"
		}
		return invalid("Invalid condition in KeyConditionExpression: " + op + " operator must have the key attribute as its first operand")
	}
	f := filter{op: n.Op}
	at := -1
	for i, a := range n.Args {
		switch {
		case a.Op == "path" && at >= 0:
			return invalid("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition")
		case a.Op == "path" && len(a.Path) > 1:
			return invalid("KeyConditionExpressions cannot have conditions on nested attributes")
		case a.Op == "path":
			f.name, at = a.Path[0].Name, i
		case a.Op == "size":
			return invalid("KeyConditionExpressions cannot contain nested operations")
		default:
			f.values = append(f.values, a.Value)
		}
	}
	if at < 0 {
		return invalid("Invalid condition in KeyConditionExpression: No key attribute specified")
	}
	if slices.ContainsFunc(*out, func(have filter) bool { return have.name == f.name }) {
		return invalid("KeyConditionExpressions must only contain one condition per key")
	}
	if at > 0 {
		f.op = turned[f.op]
	}
	f.op = keyOps[f.op]
	*out = append(*out, f)
	return nil
}
