// Package expr reads and does the expressions of DynamoDB: conditions and filters,
// key conditions, projections and updates.
//
//	names := expr.NewNames(map[string]string{"#n": "name"}, nil)
//	cond, err := expr.ParseCondition("attribute_exists(#n)", names)
//	ok := cond.Match(it)
//
// Parsers look at each byte once, and bound what they build by the limits that
// DynamoDB has. What is wrong with an expression is told in DynamoDB's words, and
// of several things the one that it tells.
package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// What bounds an expression.
const (
	maxBytes     = 4096
	maxOperators = 300
	maxPath      = 32
)

// A Problem is why an expression is refused.
type Problem string

func (p Problem) Error() string { return string(p) }

// Names are the placeholders of a request.
type Names struct {
	names        map[string]string
	values       map[string]item.Value
	unusedNames  []string
	unusedValues []string
}

// NewNames returns the placeholders of a request, in their order there.
func NewNames(names map[string]string, nameOrder []string, values map[string]item.Value, valueOrder []string) *Names {
	return &Names{names, values, slices.Clone(nameOrder), slices.Clone(valueOrder)}
}

// Unused tells of placeholders that no expression has used, or nothing.
func (n *Names) Unused() string {
	if len(n.unusedNames) > 0 {
		return "Value provided in ExpressionAttributeNames unused in expressions: keys: {" + strings.Join(n.unusedNames, ", ") + "}"
	}
	if len(n.unusedValues) > 0 {
		return "Value provided in ExpressionAttributeValues unused in expressions: keys: {" + strings.Join(n.unusedValues, ", ") + "}"
	}
	return ""
}

func (n *Names) name(placeholder string) (string, bool) {
	name, ok := n.names[placeholder]
	if i := slices.Index(n.unusedNames, placeholder); i >= 0 {
		n.unusedNames = slices.Delete(n.unusedNames, i, i+1)
	}
	return name, ok
}

func (n *Names) value(placeholder string) (item.Value, bool) {
	v, ok := n.values[placeholder]
	if i := slices.Index(n.unusedValues, placeholder); i >= 0 {
		n.unusedValues = slices.Delete(n.unusedValues, i, i+1)
	}
	return v, ok
}

// A Step is a part of a path: a name, or the place in a list.
type Step struct {
	Name  string
	Index int // -1 for a name
}

// A Path leads to a value in an item. The first step is a name.
type Path []Step

// Of returns the path to an attribute.
func Of(name string) Path { return Path{{name, -1}} }

func (p Path) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, s := range p {
		if i > 0 {
			b.WriteString(", ")
		}
		if s.Index >= 0 {
			b.WriteString("[" + strconv.Itoa(s.Index) + "]")
		} else {
			b.WriteString(s.Name)
		}
	}
	b.WriteByte(']')
	return b.String()
}

// clash tells how two paths can't stand beside one another.
func clash(a, b Path) (overlap, conflict string) {
	for i := range min(len(a), len(b)) {
		if (a[i].Index < 0) != (b[i].Index < 0) {
			return "", "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: " + a.String() + ", path two: " + b.String()
		}
		if a[i] != b[i] {
			return "", ""
		}
	}
	return "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: " + a.String() + ", path two: " + b.String(), ""
}

// paths gathers the paths of an expression that may not clash.
type paths struct {
	list              []Path
	overlap, conflict string
}

func (p *paths) add(path Path) {
	if p.overlap != "" {
		return
	}
	for _, have := range p.list {
		overlap, conflict := clash(have, path)
		if conflict != "" {
			p.conflict = conflict
		}
		if overlap != "" {
			p.overlap = overlap
			return
		}
	}
	p.list = append(p.list, path)
}

// Get returns the value that a path leads to.
func Get(i item.Item, p Path) (v item.Value, ok bool) {
	v = item.Value{Type: item.M, Map: i}
	for _, s := range p {
		switch {
		case s.Index < 0 && v.Type == item.M:
			if v, ok = v.Map[s.Name]; !ok {
				return v, false
			}
		case s.Index >= 0 && v.Type == item.L && s.Index < len(v.List):
			v = v.List[s.Index]
		default:
			return item.Value{}, false
		}
	}
	return v, true
}

// A token is a piece of an expression.
type token struct {
	kind     byte // 'i' identifier, '#' and ':' placeholder, '0' number, 'e' end, 'x' no token, or the first byte of a sign
	text     string
	from, to int
}

// A scanner takes an expression apart.
type scanner struct {
	text      string
	names     *Names
	prev, tok token
	operators int
	nested    map[string]bool // heads of paths that are longer
	heads     map[string]bool
	words     []string // that are no names in this kind of expression
}

func newScanner(text string, names *Names, words ...string) (*scanner, error) {
	if text == "" {
		return nil, Problem("The expression can not be empty;")
	}
	if len(text) > maxBytes {
		return nil, Problem("Expression size has exceeded the maximum allowed size; expression size: " + strconv.Itoa(len(text)))
	}
	s := &scanner{text: text, names: names, words: words, nested: map[string]bool{}, heads: map[string]bool{}}
	s.advance()
	s.prev = token{}
	return s, nil
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// advance goes to the next token.
func (s *scanner) advance() {
	s.prev = s.tok
	i := s.tok.to
	for i < len(s.text) && strings.IndexByte(" \t\r\n", s.text[i]) >= 0 {
		i++
	}
	from := i
	if i == len(s.text) {
		s.tok = token{'e', "<EOF>", i, i}
		return
	}
	kind := s.text[i]
	i++
	part := func() {
		for i < len(s.text) && (letter(s.text[i]) || digit(s.text[i])) {
			i++
		}
	}
	switch c := kind; {
	case letter(c) && c != '_': // which no name begins with
		kind = 'i'
		part()
	case c == '#' || c == ':':
		part()
	case digit(c):
		kind = '0'
		for i < len(s.text) && digit(s.text[i]) {
			i++
		}
	case (c == '<' || c == '>') && i < len(s.text) && (s.text[i] == '=' || c == '<' && s.text[i] == '>'):
		i++
	case strings.IndexByte("()[],.=<>+-", c) < 0:
		kind = 'x'
	}
	s.tok = token{kind, s.text[from:i], from, i}
}

// syntax is the complaint about the token that is here.
func (s *scanner) syntax() error {
	here, from := s.tok, s.prev.from
	if s.prev.kind == 0 {
		from = here.from
	}
	s.advance()
	near := strings.TrimSpace(s.text[from:s.tok.to])
	return Problem(fmt.Sprintf("Syntax error; token: %q, near: %q", here.text, near))
}

// word reports whether a keyword is here.
func (s *scanner) word(w string) bool {
	return s.tok.kind == 'i' && strings.EqualFold(s.tok.text, w) && !s.glued()
}

// glued reports whether the token goes on with a placeholder, as no keyword does.
func (s *scanner) glued() bool {
	return s.tok.to < len(s.text) && (s.text[s.tok.to] == '#' || s.text[s.tok.to] == ':')
}

// take goes on if a sign is here.
func (s *scanner) take(sign string) bool {
	if s.tok.text != sign || s.tok.kind == 'i' {
		return false
	}
	s.advance()
	return true
}

// keyword reports whether the identifier that is here can be none.
func (s *scanner) keyword() bool {
	return !s.glued() && slices.ContainsFunc(s.words, func(w string) bool { return strings.EqualFold(w, s.tok.text) })
}

// isName reports whether a name of a path is here.
func (s *scanner) isName() bool {
	return s.tok.kind == '#' || s.tok.kind == 'i' && !s.keyword()
}

// A rawStep is a step whose placeholder is not looked up yet.
type rawStep struct {
	token
	index int
}

// steps reads what follows the first name of a path.
func (s *scanner) steps(path []rawStep) ([]rawStep, error) {
	for {
		switch {
		case s.take("["):
			if s.tok.kind != '0' {
				return nil, s.syntax()
			}
			i, err := strconv.Atoi(s.tok.text)
			if err != nil || i > 1<<30 {
				return nil, Problem("List index is not within the allowable range; index: [" + s.tok.text + "]")
			}
			path = append(path, rawStep{index: i})
			s.advance()
			if !s.take("]") {
				return nil, s.syntax()
			}
		case s.take("."):
			if !s.isName() {
				return nil, s.syntax()
			}
			path = append(path, rawStep{s.tok, -1})
			s.advance()
		default:
			if len(path) > maxPath {
				return nil, Problem("The document path has too many nesting elements; nesting levels: " + strconv.Itoa(len(path)))
			}
			return path, nil
		}
	}
}

// problems are what is wrong with an expression, each kind told once at most.
type problems map[string]string

func (p problems) add(kind, problem string) {
	if _, ok := p[kind]; !ok {
		p[kind] = problem
	}
}

// first returns the one that is told.
func (p problems) first(order ...string) error {
	for _, kind := range order {
		if problem, ok := p[kind]; ok {
			return Problem(problem)
		}
	}
	return nil
}

// resolve looks up the names of a path. Problems go to kinds "reserved" and name.
func (s *scanner) resolve(raw []rawStep, p problems, name string) Path {
	path := make(Path, 0, len(raw))
	for _, r := range raw {
		step := Step{r.text, r.index}
		switch r.kind {
		case 'i':
			if reserved[strings.ToUpper(r.text)] {
				p.add("reserved", "Attribute name is a reserved keyword; reserved keyword: "+r.text)
			}
		case '#':
			if _, failed := p[name]; failed {
				break
			}
			found, ok := s.names.name(r.text)
			if !ok {
				p.add(name, "An expression attribute name used in the document path is not defined; attribute name: "+r.text)
			}
			step.Name = found
		default:
			step.Name = ""
		}
		path = append(path, step)
	}
	if len(path) > 1 {
		s.nested[path[0].Name] = true
	}
	s.heads[path[0].Name] = true
	return path
}

// count bounds the operators.
func (s *scanner) count() error {
	if s.operators++; s.operators > maxOperators {
		return Problem("The expression contains too many operators; operator count: " + strconv.Itoa(s.operators))
	}
	return nil
}
