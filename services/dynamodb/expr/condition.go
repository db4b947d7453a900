package expr

import (
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A Node is a part of a condition: a path, a value, a function or an operator.
type Node struct {
	Op    string // "path", "value", the name of a function, a comparator, "between", "in", "and", "or", "not"
	Path  Path
	Value item.Value
	Args  []*Node

	fn      bool
	parens  bool      // it stands in parentheses
	returns item.Type // of a function
}

// A Condition is what an item is asked.
type Condition struct {
	Root   *Node
	Nested map[string]bool // attributes that are looked into
	Heads  map[string]bool // attributes that are looked at
}

// ParseCondition reads a condition, a filter or a key condition.
func ParseCondition(text string, names *Names) (*Condition, error) {
	s, err := newScanner(text, names, "BETWEEN", "IN", "AND", "OR", "NOT")
	if err != nil {
		return nil, err
	}
	p := conditionParser{scanner: s, problems: problems{}}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if s.tok.kind != 'e' || !root.condition() {
		return nil, s.syntax()
	}
	p.misusedSize(root)
	if err := p.first("parens", "unknownFunction", "misusedFunction", "reserved", "condition"); err != nil {
		return nil, err
	}
	return &Condition{root, s.nested, s.heads}, nil
}

type conditionParser struct {
	*scanner
	problems
	depth int
}

// condition reports whether a node says yes or no, or is a function, which is
// another problem if it does not.
func (n *Node) condition() bool { return n.fn || n.Op != "path" && n.Op != "value" }

func (n *Node) operand() bool { return n.fn || n.Op == "path" || n.Op == "value" }

func (p *conditionParser) or() (*Node, error) {
	return p.chain("OR", "or", p.and)
}

func (p *conditionParser) and() (*Node, error) {
	return p.chain("AND", "and", p.not)
}

// chain reads what a word joins.
func (p *conditionParser) chain(word, op string, part func() (*Node, error)) (*Node, error) {
	left, err := part()
	if err != nil || !p.word(word) {
		return left, err
	}
	all := []*Node{left}
	for p.word(word) {
		if !all[len(all)-1].condition() {
			return nil, p.syntax()
		}
		if err := p.count(); err != nil {
			return nil, err
		}
		p.advance()
		right, err := part()
		if err != nil {
			return nil, err
		}
		all = append(all, right)
	}
	if !all[len(all)-1].condition() {
		return nil, p.syntax()
	}
	for _, n := range slices.Backward(all) {
		p.misusedSize(n)
	}
	return &Node{Op: op, Args: all}, nil
}

func (p *conditionParser) not() (*Node, error) {
	if !p.word("NOT") {
		return p.comparison()
	}
	if err := p.count(); err != nil {
		return nil, err
	}
	p.advance()
	n, err := p.not()
	if err != nil {
		return nil, err
	}
	if !n.condition() {
		return nil, p.syntax()
	}
	p.misusedSize(n)
	return &Node{Op: "not", Args: []*Node{n}}, nil
}

func (p *conditionParser) misusedSize(n *Node) {
	if n.fn && n.Op == "size" {
		p.add("misusedFunction", "The function is not allowed to be used this way in an expression; function: size")
	}
}

var comparators = []string{"=", "<>", "<", "<=", ">", ">="}

func (p *conditionParser) comparison() (*Node, error) {
	x, err := p.operandOrGroup()
	if err != nil {
		return nil, err
	}
	switch {
	case p.tok.kind != 'i' && slices.Contains(comparators, p.tok.text):
		op := p.tok.text
		args, err := p.operands(x, 1, "")
		if err != nil {
			return nil, err
		}
		p.misused(args)
		p.distinct(op, args)
		if op != "=" && op != "<>" {
			p.ordered(op, args)
		}
		return p.finish(&Node{Op: op, Args: args}), nil
	case p.word("BETWEEN"):
		args, err := p.operands(x, 2, "AND")
		if err != nil {
			return nil, err
		}
		p.misused(args)
		p.bounds(args[1], args[2])
		p.ordered("BETWEEN", args)
		return p.finish(&Node{Op: "between", Args: args}), nil
	case p.word("IN"):
		if !x.operand() {
			return nil, p.syntax()
		}
		if err := p.count(); err != nil {
			return nil, err
		}
		p.advance()
		list, err := p.arguments()
		if err != nil {
			return nil, err
		}
		args := append([]*Node{x}, list...)
		p.misused(args)
		return p.finish(&Node{Op: "in", Args: args}), nil
	}
	if x.fn && !x.parens {
		p.finish(x)
	}
	return x, nil
}

// operands reads what stands right of an operator, joined by a word.
func (p *conditionParser) operands(x *Node, n int, word string) ([]*Node, error) {
	if !x.operand() {
		return nil, p.syntax()
	}
	if err := p.count(); err != nil {
		return nil, err
	}
	p.advance()
	args := []*Node{x}
	for i := range n {
		if i > 0 {
			if !p.word(word) {
				return nil, p.syntax()
			}
			p.advance()
		}
		y, err := p.operandOnly()
		if err != nil {
			return nil, err
		}
		args = append(args, y)
	}
	return args, nil
}

// finish keeps the first problem of the comparisons so far.
func (p *conditionParser) finish(n *Node) *Node {
	if err := p.first("attrNameVal", "operand", "distinct", "function"); err != nil {
		p.add("condition", err.Error())
	}
	return n
}

func (p *conditionParser) operandOnly() (*Node, error) {
	n, err := p.operandOrGroup()
	if err == nil && !n.operand() {
		return nil, p.syntax()
	}
	return n, err
}

// operandOrGroup reads a path, a value, a function, or what is in parentheses.
func (p *conditionParser) operandOrGroup() (*Node, error) {
	switch {
	case p.tok.text == "(":
		if p.depth++; p.depth > 2*maxOperators {
			return nil, p.syntax()
		}
		p.advance()
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.syntax()
		}
		p.depth--
		if n.parens {
			p.add("parens", "The expression has redundant parentheses;")
		}
		if n.Op == "path" && (p.tok.text == "." || p.tok.text == "[") {
			raw := make([]rawStep, len(n.Path), len(n.Path)+1)
			for i, s := range n.Path {
				raw[i].index, raw[i].text = s.Index, s.Name
			}
			more, err := p.steps(raw)
			if err != nil {
				return nil, err
			}
			rest := p.resolve(append([]rawStep{{index: -1}}, more[len(n.Path):]...), p.problems, "attrNameVal")
			path := append(n.Path, rest[1:]...)
			delete(p.nested, "")
			delete(p.heads, "")
			p.nested[path[0].Name] = true
			return &Node{Op: "path", Path: path}, nil
		}
		if n.fn && !n.parens {
			p.finish(n)
		}
		n.parens = true
		return n, nil
	case p.tok.kind == ':':
		v, ok := item.Value{}, false
		if _, failed := p.problems["attrNameVal"]; !failed {
			if v, ok = p.names.value(p.tok.text); !ok {
				p.add("attrNameVal", "An expression attribute value used in expression is not defined; attribute value: "+p.tok.text)
			}
		}
		p.advance()
		return &Node{Op: "value", Value: v}, nil
	case p.isName():
		return p.nameOrFunction()
	}
	return nil, p.syntax()
}

func (p *conditionParser) nameOrFunction() (*Node, error) {
	first := p.tok
	p.advance()
	if first.kind == 'i' && p.tok.text == "(" {
		if err := p.count(); err != nil {
			return nil, err
		}
		args, err := p.arguments()
		if err != nil {
			return nil, err
		}
		p.misused(args)
		n := &Node{Op: first.text, Args: args, fn: true}
		n.returns = p.function(n)
		return n, nil
	}
	if strings.HasPrefix(first.text, "_") {
		p.tok = first
		return nil, p.syntax()
	}
	raw, err := p.steps([]rawStep{{first, -1}})
	if err != nil {
		return nil, err
	}
	return &Node{Op: "path", Path: p.resolve(raw, p.problems, "attrNameVal")}, nil
}

// arguments reads a list in parentheses.
func (p *conditionParser) arguments() ([]*Node, error) {
	if !p.take("(") {
		return nil, p.syntax()
	}
	var args []*Node
	for {
		n, err := p.operandOnly()
		if err != nil {
			return nil, err
		}
		args = append(args, n)
		if p.take(")") {
			return args, nil
		}
		if !p.take(",") {
			return nil, p.syntax()
		}
	}
}

func (p *conditionParser) misused(args []*Node) {
	for _, a := range args {
		if a.fn && a.Op != "size" {
			p.add("misusedFunction", "The function is not allowed to be used this way in an expression; function: "+a.Op)
		}
	}
}

func (p *conditionParser) distinct(op string, args []*Node) {
	if len(args) == 2 && args[0].Op == "path" && args[1].Op == "path" && slices.Equal(args[0].Path, args[1].Path) {
		p.add("distinct", "The first operand must be distinct from the remaining operands for this operator or function; operator: "+
			op+", first operand: "+args[0].Path.String())
	}
}

// ordered looks for values that have no order.
func (p *conditionParser) ordered(op string, args []*Node) {
	for _, a := range args {
		if t := a.Value.Type; a.Op == "value" && t != item.None && t != item.S && t != item.N && t != item.B {
			p.add("function", wrongType(op, t.String()))
		}
	}
}

// bounds looks at those of BETWEEN.
func (p *conditionParser) bounds(low, high *Node) {
	if low.Op != "value" || high.Op != "value" || low.Value.Type == item.None || high.Value.Type == item.None {
		return
	}
	text := func(n *Node) string {
		return "AttributeValue: {" + n.Value.Type.String() + ":" + show(n.Value) + "}"
	}
	what := "; lower bound operand: " + text(low) + ", upper bound operand: " + text(high)
	if low.Value.Type != high.Value.Type {
		p.add("function", "The BETWEEN operator requires same data type for lower and upper bounds"+what)
	} else if c, ok := low.Value.Compare(high.Value); ok && c > 0 {
		p.add("function", "The BETWEEN operator requires upper bound to be greater than or equal to lower bound"+what)
	}
}

// show is a value in a complaint.
func show(v item.Value) string {
	if v.Type == item.S || v.Type == item.N {
		return v.Text
	}
	text := string(v.AppendJSON(nil))
	_, text, _ = strings.Cut(text, ":")
	return strings.Trim(strings.TrimSuffix(text, "}"), `"`)
}

// arity of the functions.
var arity = map[string]int{
	"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "contains": 2, "size": 1,
}

// valueTypes is how the names of all types are told.
const valueTypes = "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}"

// function checks a call and returns what type it is of.
func (p *conditionParser) function(n *Node) item.Type {
	if _, failed := p.problems["unknownFunction"]; failed {
		return item.None
	}
	want, known := arity[n.Op]
	switch {
	case n.Op == "if_not_exists" || n.Op == "list_append":
		p.add("unknownFunction", "The function is not allowed in a condition expression; function: "+n.Op)
		return item.None
	case !known:
		p.add("unknownFunction", "Invalid function name; function: "+n.Op)
		return item.None
	}
	if _, failed := p.problems["operand"]; failed {
		return item.None
	}
	if want != len(n.Args) {
		p.add("operand", wrongCount(n.Op, len(n.Args)))
		return item.None
	}
	p.distinct(n.Op, n.Args)
	if _, failed := p.problems["function"]; failed {
		return item.None
	}
	switch n.Op {
	case "attribute_exists", "attribute_not_exists":
		if n.Args[0].Op != "path" {
			p.add("function", noPath(n.Op))
			return item.None
		}
		return item.None
	case "begins_with":
		for _, a := range n.Args {
			if t := a.typ(); t != item.None && t != item.S && t != item.B {
				p.add("function", wrongType(n.Op, t.String()))
				return item.None
			}
		}
	case "attribute_type":
		a := n.Args[1]
		if t := a.typ(); t != item.S {
			name := t.String()
			if t == item.None {
				name = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
			}
			p.add("function", wrongType(n.Op, name))
			return item.None
		}
		if item.TypeOf(a.Value.Text) == item.None {
			p.add("function", "Invalid attribute type name found; type: "+a.Value.Text+", valid types: "+valueTypes)
			return item.None
		}
	case "size":
		if t := n.Args[0].typ(); t == item.N || t == item.BOOL || t == item.NULL {
			p.add("function", wrongType(n.Op, t.String()))
			return item.None
		}
		return item.N
	}
	return item.BOOL
}

func wrongCount(op string, n int) string {
	return "Incorrect number of operands for operator or function; operator or function: " + op + ", number of operands: " + string(rune('0'+n%10))
}

func noPath(op string) string {
	return "Operator or function requires a document path; operator or function: " + op
}

func wrongType(op, t string) string {
	return "Incorrect operand type for operator or function; operator or function: " + op + ", operand type: " + t
}

// typ is the type of an operand, if it is known.
func (n *Node) typ() item.Type {
	if n.fn {
		return n.returns
	}
	return n.Value.Type
}

// Match reports whether an item is as the condition says.
func (c *Condition) Match(i item.Item) bool { return c.Root.match(i) }

func (n *Node) match(i item.Item) bool {
	switch n.Op {
	case "and":
		return !slices.ContainsFunc(n.Args, func(a *Node) bool { return !a.match(i) })
	case "or":
		return slices.ContainsFunc(n.Args, func(a *Node) bool { return a.match(i) })
	case "not":
		return !n.Args[0].match(i)
	}
	x, ok := n.Args[0].eval(i)
	switch n.Op {
	case "attribute_exists":
		return ok
	case "attribute_not_exists":
		return !ok
	}
	more := make([]item.Value, len(n.Args)-1)
	for j, a := range n.Args[1:] {
		more[j], _ = a.eval(i)
	}
	return Compare(n.Op, x, more)
}

// eval is the value of an operand.
func (n *Node) eval(i item.Item) (item.Value, bool) {
	switch {
	case n.Op == "path":
		return Get(i, n.Path)
	case n.fn: // size
		v, _ := n.Args[0].eval(i)
		size, ok := v.Len()
		if !ok {
			return item.Value{}, false
		}
		return item.Num(itoa(size)), true
	}
	return n.Value, true
}

// Compare does a comparison, by its name in expressions or the older one in
// capitals. A value of no type is none.
func Compare(op string, x item.Value, more []item.Value) bool {
	var y item.Value
	if len(more) > 0 {
		y = more[0]
	}
	ordered := func(yes func(c int) bool) bool {
		c, ok := x.Compare(y)
		return ok && yes(c)
	}
	switch op {
	case "=", "EQ":
		return x.Type != item.None && x.Equal(y)
	case "<>", "NE":
		return x.Type == item.None || !x.Equal(y)
	case "<", "LT":
		return ordered(func(c int) bool { return c < 0 })
	case "<=", "LE":
		return ordered(func(c int) bool { return c <= 0 })
	case ">", "GT":
		return ordered(func(c int) bool { return c > 0 })
	case ">=", "GE":
		return ordered(func(c int) bool { return c >= 0 })
	case "between", "BETWEEN":
		if len(more) < 2 {
			return false
		}
		high, ok := x.Compare(more[1])
		return ok && high <= 0 && ordered(func(c int) bool { return c >= 0 })
	case "in", "IN":
		return x.Type != item.None && slices.ContainsFunc(more, x.Equal)
	case "contains", "CONTAINS":
		return y.Type != item.None && x.Contains(y)
	case "NOT_CONTAINS":
		return x.Type != item.None && !x.Contains(y)
	case "begins_with", "BEGINS_WITH":
		return x.Type == y.Type && x.Type != item.None && strings.HasPrefix(x.Text, y.Text)
	case "attribute_type":
		return x.Type != item.None && x.Type.String() == y.Text
	case "NULL":
		return x.Type == item.None
	case "NOT_NULL":
		return x.Type != item.None
	}
	return false
}
