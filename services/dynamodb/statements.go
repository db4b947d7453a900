package dynamodb

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

var (
	parameters     = list("Parameters", value)
	statementShape = []field{atMost(least(must(str("Statement")), 1), maxStatement), parameters, flag("ConsistentRead"), str("NextToken"),
		integer("Limit", 1), capacity, onFailure}
	batchStatementShape = []field{capacity, {"Statements", shape{kind: kList, notNull: true, minLen: 1, maxLen: 25,
		of: &shape{kind: kStruct, name: "BatchStatementRequest", fields: []field{must(str("Statement")), parameters, flag("ConsistentRead"), onFailure}}}}}
	transactStatementShape = []field{capacity, str("ClientRequestToken"), {"TransactStatements", shape{kind: kList, notNull: true, minLen: 1, maxLen: 100,
		of: &shape{kind: kStruct, name: "ParameterizedStatement", fields: []field{must(str("Statement")), parameters, onFailure}}}}}
)

// read reads the statement of a request.
func (r *request) statement() (*statement, error) {
	var params []item.Value
	if n := r.Get("Parameters"); n != nil {
		for _, e := range n.List {
			v := valueOf(e)
			if problem := v.Check(); problem != "" {
				return nil, invalid(problem)
			}
			params = append(params, *v)
		}
	}
	return readStatement(r.str("Statement"), params)
}

// places writes the placeholders that texts use.
func (s *statement) places(o *object, texts ...string) {
	var names object
	used := " " + strings.Join(texts, " ") + " "
	for i, name := range s.names {
		place := "#n" + itoa(i)
		if usesPlace(used, place) {
			names.str(place, name)
		}
	}
	values := item.Item{}
	for i, v := range s.values {
		place := ":v" + itoa(i)
		if usesPlace(used, place) {
			values[place] = v
		}
	}
	if names != nil {
		o.raw("ExpressionAttributeNames", names.end())
	}
	if len(values) > 0 {
		o.item("ExpressionAttributeValues", values)
	}
}

// usesPlace reports whether a placeholder is in a text, and not only a longer one.
func usesPlace(text, place string) bool {
	for {
		_, rest, ok := strings.Cut(text, place)
		if !ok {
			return false
		}
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			return true
		}
		text = rest
	}
}

// key takes the conditions apart into the key of one item and the rest.
func (s *statement) key(of *schema) (key item.Item, rest []conjunct, err error) {
	key = item.Item{}
	for _, c := range s.where {
		_, have := key[c.name]
		if c.op == "=" && !have && contains(names(of.Keys), c.name) {
			key[c.name] = c.value
		} else {
			rest = append(rest, c)
		}
	}
	if len(key) != len(of.Keys) {
		return nil, nil, invalid("Where clause does not contain a mandatory equality on all key attributes")
	}
	return key, rest, nil
}

// insertion is the Put of a statement.
func (s *statement) insertion(of *schema) *object {
	var o object
	o.str("TableName", s.table)
	o.item("Item", s.item)
	o.str("ConditionExpression", "attribute_not_exists(#n)")
	o.raw("ExpressionAttributeNames", []byte(`{"#n":`+string(item.AppendString(nil, of.Keys[0].Name))+`}`))
	return &o
}

// change is the Update or Delete of a statement.
func (s *statement) change(of *schema) (*object, error) {
	key, rest, err := s.key(of)
	if err != nil {
		return nil, err
	}
	var o object
	o.str("TableName", s.table)
	o.item("Key", key)
	var texts []string
	condition := joined(rest)
	if s.verb == "UPDATE" {
		exists := "attribute_exists(" + s.placeName(of.Keys[0].Name) + ")"
		if condition == "" {
			condition = exists
		} else {
			condition = exists + " AND (" + condition + ")"
			if len(rest) == 1 && strings.HasPrefix(rest[0].text, "(") {
				condition = exists + " AND " + rest[0].text
			}
		}
		var update string
		for _, do := range []string{"SET", "REMOVE", "ADD", "DELETE"} {
			if list := s.sets[do]; list != nil {
				update += do + " " + strings.Join(list, ", ") + " "
			}
		}
		o.str("UpdateExpression", update)
		texts = append(texts, update)
	}
	if s.verb == "EXISTS" && condition == "" {
		condition = "attribute_exists(" + s.placeName(of.Keys[0].Name) + ")"
	}
	if condition != "" {
		o.str("ConditionExpression", condition)
	}
	s.places(&o, append(texts, condition)...)
	return &o, nil
}

// reading is the Query or the Scan of a statement.
func (s *statement) reading(of *schema) (operation string, o *object, err error) {
	keys := of.Keys
	o = new(object)
	o.str("TableName", s.table)
	if s.index != "" {
		x := of.index(s.index)
		if x == nil {
			return "", nil, invalid("The table does not have the specified index: " + s.index)
		}
		keys = x.Keys
		o.str("IndexName", s.index)
	}
	condition, filter := split(s.where, keys)
	projection := strings.Join(s.projection, ", ")
	operation = "Scan"
	if condition != "" {
		operation = "Query"
		o.str("KeyConditionExpression", condition)
		if s.descending {
			o.raw("ScanIndexForward", []byte("false"))
		}
	}
	if filter != "" {
		o.str("FilterExpression", filter)
	}
	if projection != "" {
		o.str("ProjectionExpression", projection)
	}
	s.places(o, condition, filter, projection)
	if operation == "Scan" && s.ordered {
		return "", nil, invalid("Must have WHERE clause in the statement when using ORDER BY clause.")
	}
	return operation, o, nil
}

// flat is an item of a SELECT: what was taken out of a map stands by its own name.
func (s *statement) flat(n *item.Node) *item.Node {
	if !slices.ContainsFunc(s.projection, func(p string) bool { return strings.Contains(p, ".") }) {
		return n
	}
	out := &item.Node{Kind: item.Object}
	for _, p := range s.projection {
		names := strings.Split(p, ".")
		if strings.Contains(p, "[") {
			names = names[:1]
		}
		v, name := n, ""
		for i, place := range names {
			if i > 0 {
				v = v.Get("M")
			}
			place, _, _ = strings.Cut(strings.TrimPrefix(place, "#n"), "[")
			number, err := strconv.Atoi(place)
			if err != nil || number >= len(s.names) {
				return n
			}
			name = s.names[number]
			v = v.Get(name)
		}
		if v != nil && out.Get(name) == nil {
			out.Keys, out.List = append(out.Keys, name), append(out.List, v)
		}
	}
	return out
}

// split takes conditions apart into those on keys and the others. If they can't be
// those of a query, all are a filter.
func split(where []conjunct, keys []keyPart) (condition, filter string) {
	var hash, sort string
	var rest []conjunct
	if n := hashes(keys); n > 1 || len(keys) > n+1 {
		return "", joined(where) // a key with several attributes in a part is not looked at
	}
	for _, c := range where {
		switch {
		case c.name == keys[0].Name && c.op == "=" && hash == "":
			hash = c.text
		case c.name != "" && c.name == rangeName(keys) && c.op != "<>" && c.op != "" && sort == "":
			sort = " AND " + c.text
		default:
			for _, k := range keys {
				if contains(c.heads, k.Name) {
					return "", joined(where)
				}
			}
			rest = append(rest, c)
		}
	}
	if hash == "" {
		return "", joined(where)
	}
	return hash + sort, joined(rest)
}

// ask does a request that a statement was turned into.
func (d *Door) ask(ctx context.Context, operation string, o *object) (*item.Node, error) {
	root, ok := item.Parse(o.end())
	if !ok {
		return nil, errSerialization
	}
	out, err := d.perform(ctx, operations[operation], root)
	if err != nil {
		return nil, err
	}
	answer, ok := item.Parse(out)
	if !ok {
		return nil, errSerialization
	}
	return answer, nil
}

// schemaOfTable is that of a table by its name.
func (d *Door) schemaOfTable(ctx context.Context, name string) (*schema, error) {
	t, err := d.useForItems(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.release(t)
	return t.now.Load(), nil
}

// A statementResult is what a statement returns.
type statementResult struct {
	items    []*item.Node
	next     *item.Node
	consumed *item.Node
}

// execute does a statement.
func (d *Door) execute(ctx context.Context, r *request) (s *statement, out statementResult, err error) {
	if s, err = r.statement(); err != nil {
		return nil, out, err
	}
	of, err := d.schemaOfTable(ctx, s.table)
	if err != nil {
		return s, out, err
	}
	var o *object
	var operation string
	switch s.verb {
	case "SELECT":
		operation, o, err = s.reading(of)
		if err == nil {
			err = r.pass(o)
		}
	case "INSERT":
		operation, o = "PutItem", s.insertion(of)
	case "UPDATE", "DELETE":
		operation = map[string]string{"UPDATE": "UpdateItem", "DELETE": "DeleteItem"}[s.verb]
		o, err = s.change(of)
		if err == nil && s.returning != "" {
			o.str("ReturnValues", s.returning)
		}
	default:
		err = badStatement("EXISTS is for transactions")
	}
	if err != nil {
		return s, out, err
	}
	if v := r.str("ReturnConsumedCapacity"); v != "" {
		o.str("ReturnConsumedCapacity", v)
	}
	if v := r.str("ReturnValuesOnConditionCheckFailure"); v != "" && s.verb != "SELECT" {
		o.str("ReturnValuesOnConditionCheckFailure", v)
	}
	answer, err := d.ask(ctx, operation, o)
	if e := new(Error); errors.As(err, &e) && s.verb == "INSERT" && e.Type == "ConditionalCheckFailedException" {
		err = &Error{Type: "DuplicateItemException", Message: "Duplicate primary key exists in table"}
	}
	if err != nil {
		return s, out, err
	}
	out.consumed = answer.Get("ConsumedCapacity")
	if n := answer.Get("Items"); n != nil {
		out.items = n.List
		for i := range out.items {
			out.items[i] = s.flat(out.items[i])
		}
	}
	if n := answer.Get("Attributes"); n != nil {
		out.items = []*item.Node{n}
	}
	out.next = answer.Get("LastEvaluatedKey")
	return s, out, nil
}

// pass writes what a statement's request says about pages.
func (r *request) pass(o *object) error {
	if r.flag("ConsistentRead") {
		o.raw("ConsistentRead", []byte("true"))
	}
	if r.has("Limit") {
		o.int("Limit", r.int("Limit"))
	}
	if token := r.str("NextToken"); token != "" {
		key, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return invalid("Invalid NextToken")
		}
		if _, ok := item.Parse(key); !ok {
			return invalid("Invalid NextToken")
		}
		o.raw("ExclusiveStartKey", key)
	}
	return nil
}

func (d *Door) executeStatement(ctx context.Context, r *request) ([]byte, error) {
	_, res, err := d.execute(ctx, r)
	if err != nil {
		return nil, err
	}
	var o object
	o.nodes("Items", res.items)
	if res.next != nil {
		key := shown(res.next, true)
		o.raw("LastEvaluatedKey", []byte(key))
		o.str("NextToken", base64.StdEncoding.EncodeToString([]byte(key)))
	}
	if res.consumed != nil {
		o.raw("ConsumedCapacity", []byte(shown(res.consumed, true)))
	}
	return o.end(), nil
}

// nodes writes a list.
func (o *object) nodes(name string, list []*item.Node) {
	o.name(name)
	*o = append(*o, '[')
	for i, n := range list {
		if i > 0 {
			*o = append(*o, ',')
		}
		*o = append(*o, shown(n, true)...)
	}
	*o = append(*o, ']')
}

func (d *Door) batchExecuteStatement(ctx context.Context, r *request) ([]byte, error) {
	var o object
	o.name("Responses")
	o = append(o, '[')
	for i, n := range r.Get("Statements").List {
		if i > 0 {
			o = append(o, ',')
		}
		s, res, err := d.execute(ctx, &request{Node: n})
		var one object
		if s != nil {
			one.str("TableName", s.table)
		}
		e := new(Error)
		switch {
		case errors.As(err, &e):
			var in object
			code := strings.TrimSuffix(e.Type, "Exception")
			if code == "Validation" {
				code = "ValidationError"
			}
			in.str("Code", code)
			in.str("Message", e.Message)
			one.raw("Error", in.end())
		case err != nil:
			return nil, err
		case len(res.items) > 0:
			one.raw("Item", []byte(shown(res.items[0], true)))
		}
		o = append(o, one.end()...)
	}
	o = append(o, ']')
	return o.end(), nil
}

func (d *Door) executeTransaction(ctx context.Context, r *request) ([]byte, error) {
	var items []byte
	reading := 0
	all := r.Get("TransactStatements").List
	for i, n := range all {
		s, err := (&request{Node: n}).statement()
		if err != nil {
			return nil, err
		}
		of, err := d.schemaOfTable(ctx, s.table)
		if err != nil {
			return nil, err
		}
		var o *object
		kind := map[string]string{"SELECT": "Get", "INSERT": "Put", "UPDATE": "Update", "DELETE": "Delete", "EXISTS": "ConditionCheck"}[s.verb]
		switch s.verb {
		case "INSERT":
			o = s.insertion(of)
		case "SELECT":
			reading++
			o, err = s.getting(of)
		default:
			o, err = s.change(of)
		}
		if err != nil {
			return nil, err
		}
		if i > 0 {
			items = append(items, ',')
		}
		var one object
		one.raw(kind, o.end())
		items = append(items, one.end()...)
	}
	operation := "TransactWriteItems"
	if reading > 0 {
		operation = "TransactGetItems"
		if reading != len(all) {
			return nil, invalid("Transaction request cannot include both read and write operations")
		}
	}
	var o object
	o.raw("TransactItems", append(append([]byte{'['}, items...), ']'))
	if token := r.str("ClientRequestToken"); token != "" && reading == 0 {
		o.str("ClientRequestToken", token)
	}
	answer, err := d.ask(ctx, operation, &o)
	if err != nil {
		return nil, err
	}
	var out object
	responses := answer.Get("Responses")
	if responses == nil {
		responses = &item.Node{Kind: item.Array}
		for range all {
			responses.List = append(responses.List, &item.Node{Kind: item.Object})
		}
	}
	out.nodes("Responses", responses.List)
	return out.end(), nil
}

// getting is the Get of a statement.
func (s *statement) getting(of *schema) (*object, error) {
	key, rest, err := s.key(of)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, invalid("Where clause of a SELECT in a transaction may have the key only")
	}
	var o object
	o.str("TableName", s.table)
	o.item("Key", key)
	if p := strings.Join(s.projection, ", "); p != "" {
		o.str("ProjectionExpression", p)
		s.places(&o, p)
	}
	return &o, nil
}
