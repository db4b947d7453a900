package expr

import (
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A Change is a part of an update: to set, remove, add to or delete from what is
// at a path.
type Change struct {
	Do   string // "SET", "REMOVE", "ADD", "DELETE"
	Path Path
	Type item.Type // of the value, if it is known before

	value *operand
}

// An operand is what something is set to.
type operand struct {
	op    string // "path", "value", "+", "-", "if_not_exists", "list_append"
	path  Path
	value item.Value
	args  []*operand
}

// An Update is what is done to an item.
type Update struct {
	Changes []Change
	Paths   []Path
	Nested  map[string]bool // attributes that are looked into
}

// ParseUpdate reads an update.
func ParseUpdate(text string, names *Names) (*Update, error) {
	s, err := newScanner(text, names, "SET", "REMOVE", "ADD", "DELETE")
	if err != nil {
		return nil, err
	}
	p := updateParser{scanner: s, problems: problems{}}
	var changes []Change
	seen := map[string]bool{}
	for s.tok.kind != 'e' || len(changes) == 0 {
		if s.tok.kind != 'i' || !s.keyword() {
			return nil, s.syntax()
		}
		do := strings.ToUpper(s.tok.text)
		s.advance()
		for {
			c, err := p.change(do)
			if err != nil {
				return nil, err
			}
			changes = append(changes, c)
			if !s.take(",") {
				break
			}
		}
		if seen[do] {
			p.add("section", `The "`+do+`" section can only be used once in an update expression;`)
		}
		seen[do] = true
	}
	if p.paths.overlap != "" {
		p.add("pathOverlap", p.paths.overlap)
	}
	if p.paths.conflict != "" {
		p.add("pathConflict", p.paths.conflict)
	}
	if err := p.first("reserved", "unknownFunction", "section", "attrName", "attrVal", "pathOverlap", "pathConflict", "operand", "function"); err != nil {
		return nil, err
	}
	return &Update{changes, p.paths.list, s.nested}, nil
}

type updateParser struct {
	*scanner
	problems
	paths paths
}

func (p *updateParser) change(do string) (c Change, err error) {
	c.Do = do
	if c.Path, err = p.path(p.problems, "attrName"); err != nil {
		return c, err
	}
	switch do {
	case "SET":
		if !p.take("=") {
			return c, p.syntax()
		}
		if c.value, err = p.sum(); err != nil {
			return c, err
		}
		c.Type = c.value.typ()
	case "ADD", "DELETE":
		if p.tok.kind != ':' {
			return c, p.syntax()
		}
		c.value = p.placeholder()
		c.Type = c.value.value.Type
		if name := longNames[c.Type]; name != "" && !(do == "ADD" && c.Type == item.N) {
			p.add("operand", "Incorrect operand type for operator or function; operator: "+do+", operand type: "+name)
		}
	}
	p.paths.add(c.Path)
	return c, p.count()
}

// longNames are those of the types that are no sets.
var longNames = map[item.Type]string{
	item.S: "STRING", item.N: "NUMBER", item.B: "BINARY", item.NULL: "NULL", item.BOOL: "BOOLEAN", item.L: "LIST", item.M: "MAP",
}

// placeholder takes the value's placeholder that is here.
func (p *updateParser) placeholder() *operand {
	v, ok := item.Value{}, false
	if _, failed := p.problems["attrVal"]; !failed {
		if v, ok = p.names.value(p.tok.text); !ok {
			p.add("attrVal", "An expression attribute value used in expression is not defined; attribute value: "+p.tok.text)
		}
	}
	p.advance()
	return &operand{op: "value", value: v}
}

// sum reads a value to set, which may be one sum or difference. It may stand in
// parentheses, and so may its parts.
func (p *updateParser) sum() (*operand, error) {
	x, err := p.part(true)
	if err != nil || x.op == "+" || x.op == "-" {
		return x, err
	}
	return p.rest(x)
}

func (p *updateParser) rest(x *operand) (*operand, error) {
	op := p.tok.text
	if op != "+" && op != "-" {
		return x, nil
	}
	p.advance()
	y, err := p.part(false)
	if err != nil {
		return nil, err
	}
	out := &operand{op: op, args: []*operand{x, y}}
	p.function(out)
	return out, p.count()
}

// part reads an operand. In parentheses there may be a sum, if one is meant.
func (p *updateParser) part(sum bool) (*operand, error) {
	switch {
	case p.take("("):
		x, err := p.part(sum)
		if err == nil && sum && x.op != "+" && x.op != "-" {
			x, err = p.rest(x)
		}
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.syntax()
		}
		return x, nil
	case p.tok.kind == ':':
		return p.placeholder(), nil
	case !p.isName():
		return nil, p.syntax()
	}
	first := p.tok
	p.advance()
	if first.kind == '#' || p.tok.text != "(" {
		if strings.HasPrefix(first.text, "_") {
			p.tok = first
			return nil, p.syntax()
		}
		raw, err := p.steps([]rawStep{{first, -1}})
		if err != nil {
			return nil, err
		}
		return &operand{op: "path", path: p.resolve(raw, p.problems, "attrName")}, nil
	}
	if strings.HasPrefix(first.text, "_") {
		p.tok = first
		return nil, p.syntax()
	}
	p.advance()
	out := &operand{op: first.text}
	for {
		x, err := p.part(false)
		if err != nil {
			return nil, err
		}
		out.args = append(out.args, x)
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return nil, p.syntax()
		}
	}
	p.function(out)
	return out, p.count()
}

// function checks a call or a sum.
func (p *updateParser) function(o *operand) {
	if _, failed := p.problems["unknownFunction"]; failed {
		return
	}
	want := item.N
	switch o.op {
	case "+", "-":
	case "list_append":
		want = item.L
	case "if_not_exists":
		want = item.None
	default:
		p.add("unknownFunction", "Invalid function name; function: "+o.op)
		return
	}
	switch {
	case len(o.args) != 2:
		p.add("function", wrongCount(o.op, len(o.args)))
	case want == item.None:
		if o.args[0].op != "path" {
			p.add("function", noPath(o.op))
		}
	default:
		for _, a := range o.args {
			if a.op == "list_append" {
				p.add("function", "The function is not allowed to be used this way in an expression; function: list_append")
			}
			if a.op == "value" && a.value.Type != item.None && a.value.Type != want {
				p.add("function", wrongType(o.op, a.value.Type.String()))
			}
		}
	}
}

// typ is the type of an operand, if it is known before.
func (o *operand) typ() item.Type {
	switch o.op {
	case "value":
		return o.value.Type
	case "+", "-":
		return item.N
	case "list_append":
		return item.L
	case "if_not_exists":
		if len(o.args) == 2 {
			return o.args[1].typ()
		}
	}
	return item.None
}

// Why an update can't be done to an item.
const (
	errWrongType = Problem("An operand in the update expression has an incorrect data type")
	errNoValue   = Problem("The provided expression refers to an attribute that does not exist in the item")
	errNoPlace   = Problem("The document path provided in the update expression is invalid for update")
	// ErrIndexType says that a key of an index would be of a wrong type.
	ErrIndexType = Problem("The update expression attempted to update the secondary index key to unsupported type")
)

// eval is the value of an operand.
func (o *operand) eval(i item.Item) (item.Value, error) {
	switch o.op {
	case "value":
		return o.value, nil
	case "path":
		if v, ok := Get(i, o.path); ok {
			return v, nil
		}
		return item.Value{}, errNoValue
	case "if_not_exists":
		if v, ok := Get(i, o.args[0].path); ok {
			return v, nil
		}
		return o.args[1].eval(i)
	}
	want := item.N
	if o.op == "list_append" {
		want = item.L
	}
	var args [2]item.Value
	for j, a := range o.args {
		v, err := a.eval(i)
		if err != nil {
			return v, err
		}
		if v.Type != want {
			return v, errWrongType
		}
		args[j] = v
	}
	if want == item.L {
		return item.Value{Type: item.L, List: slices.Concat(args[0].List, args[1].List)}, nil
	}
	return args[0].Add(args[1], o.op == "-")
}

// Removes reports whether an update only takes away.
func (u *Update) Removes() bool {
	return !slices.ContainsFunc(u.Changes, func(c Change) bool { return c.Do == "SET" || c.Do == "ADD" })
}

// Apply does an update to an item, which is left in pieces if that fails. If there
// was none, what is only to be removed may be anywhere. keyType returns the type that an
// attribute must have for the sake of indexes.
func (u *Update) Apply(i item.Item, made bool, keyType func(name string) (item.Type, bool)) error {
	values := make([]item.Value, len(u.Changes))
	for j, c := range u.Changes {
		if c.Do == "SET" {
			v, err := c.value.eval(i)
			if err != nil {
				return err
			}
			values[j] = v.Clone()
		} else if c.value != nil {
			values[j] = c.value.value
		}
	}
	root := item.Value{Type: item.M, Map: i}
	holes := false
	made = made && u.Removes()
	for _, j := range u.order() {
		c := u.Changes[j]
		if c.Do == "SET" && len(c.Path) == 1 {
			if want, ok := keyType(c.Path[0].Name); ok && want != values[j].Type {
				return ErrIndexType
			}
		}
		if c.Do == "REMOVE" && made {
			continue
		}
		if err := change(&root, c.Path, func(have item.Value) (item.Value, error) {
			return alter(c.Do, have, values[j])
		}); err != nil {
			return err
		}
		holes = holes || len(c.Path) > 1
	}
	if holes {
		closeUp(&root)
	}
	return nil
}

// order is that in which changes are done: what goes to the end of a list goes
// there by its number.
func (u *Update) order() []int {
	last := func(j int) int { p := u.Changes[j].Path; return p[len(p)-1].Index }
	out, elements := make([]int, len(u.Changes)), []int(nil)
	for j := range out {
		if out[j] = j; last(j) >= 0 {
			elements = append(elements, j)
		}
	}
	by := slices.Clone(elements)
	slices.SortStableFunc(by, func(a, b int) int { return last(a) - last(b) })
	for i, j := range elements {
		out[j] = by[i]
	}
	return out
}

// gone marks an element of a list that was removed, until all is done: places are
// those that there were before.
var gone = item.Value{Type: item.L, Text: "gone"}

func isGone(v item.Value) bool { return v.Type == item.L && v.Text == "gone" }

// change replaces what is at a path.
func change(v *item.Value, p Path, f func(item.Value) (item.Value, error)) error {
	s, last := p[0], len(p) == 1
	if s.Index < 0 {
		if v.Type != item.M {
			return errNoPlace
		}
		have, ok := v.Map[s.Name]
		if !ok && !last {
			return errNoPlace
		}
		if !last {
			err := change(&have, p[1:], f)
			v.Map[s.Name] = have
			return err
		}
		out, err := f(have)
		if err != nil {
			return err
		}
		if out.Type == item.None {
			delete(v.Map, s.Name)
		} else {
			v.Map[s.Name] = out
		}
		return nil
	}
	if v.Type != item.L || s.Index >= len(v.List) && !last {
		return errNoPlace
	}
	if !last {
		return change(&v.List[s.Index], p[1:], f)
	}
	var have item.Value
	if s.Index < len(v.List) {
		have = v.List[s.Index]
	}
	out, err := f(have)
	switch {
	case err != nil:
		return err
	case s.Index >= len(v.List):
		if out.Type != item.None {
			v.List = append(v.List, out)
		}
	case out.Type == item.None:
		v.List[s.Index] = gone
	default:
		v.List[s.Index] = out
	}
	return nil
}

// closeUp removes what is gone.
func closeUp(v *item.Value) {
	v.List = slices.DeleteFunc(v.List, isGone)
	for i := range v.List {
		closeUp(&v.List[i])
	}
	for name, e := range v.Map {
		if e.Type == item.L || e.Type == item.M {
			closeUp(&e)
			v.Map[name] = e
		}
	}
}

// alter is what one change makes of a value; no type is no value.
func alter(do string, have, v item.Value) (item.Value, error) {
	switch do {
	case "SET":
		return v, nil
	case "REMOVE":
		return item.Value{}, nil
	case "DELETE":
		if have.Type == item.None {
			return have, nil
		}
		if have.Type != v.Type {
			return have, errWrongType
		}
		return item.Subtract(have, v), nil
	}
	if have.Type == item.None {
		return v, nil
	}
	if have.Type != v.Type {
		return have, errWrongType
	}
	return item.Plus(have, v)
}
