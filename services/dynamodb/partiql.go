package dynamodb

import (
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// Statements in PartiQL, as far as DynamoDB knows it: SELECT, INSERT, UPDATE and
// DELETE on one table. They are turned into the requests that do the same.

// maxStatement bounds a statement.
const maxStatement = 8192

// A statement is one that was read, with its conditions and changes as
// expressions.
type statement struct {
	verb       string // "SELECT", "INSERT", "UPDATE", "DELETE", "EXISTS"
	table      string
	index      string
	projection []string
	item       item.Item
	where      []conjunct // that all have to be met
	sets       map[string][]string
	returning  string
	descending bool
	ordered    bool

	names  []string     // of placeholders #0, #1, …
	values []item.Value // of :0, :1, …
}

// A conjunct is a condition, and if it is on one attribute which and how.
type conjunct struct {
	text  string
	name  string // of the attribute
	op    string // "=", "<", "between", "begins_with", …
	value item.Value
	heads []string // of all paths in it
}

type sqlToken struct {
	kind byte // 'i' identifier, 'q' quoted one, 's' string, 'n' number, 'e' end, or a sign
	text string
}

// A sqlParser reads a statement.
type sqlParser struct {
	tokens []sqlToken
	at     int
	params []item.Value
	s      *statement
	heads  []string
	depth  int
}

func badStatement(format string, args ...any) error {
	return invalid("Statement wasn't well formed, can't be processed: "+format, args...)
}

// readStatement reads a statement whose question marks stand for params.
func readStatement(text string, params []item.Value) (*statement, error) {
	if len(text) > maxStatement {
		return nil, badStatement("it is longer than 8192 bytes")
	}
	tokens, err := sqlTokens(text)
	if err != nil {
		return nil, err
	}
	p := &sqlParser{tokens: tokens, params: params, s: &statement{sets: map[string][]string{}}}
	if err := p.statement(); err != nil {
		return nil, err
	}
	if p.tok().text == ";" {
		p.at++
	}
	if p.tok().kind != 'e' {
		return nil, p.unexpected()
	}
	if len(p.params) > 0 {
		return nil, invalid("Number of parameters in request and statement don't match.")
	}
	return p.s, nil
}

func sqlTokens(text string) (out []sqlToken, err error) {
	for i := 0; i < len(text); {
		c := text[i]
		from := i
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
			continue
		case c == '\'' || c == '"':
			var b strings.Builder
			for i++; ; i++ {
				if i == len(text) {
					return nil, badStatement("a quote does not end")
				}
				if text[i] == c {
					if i+1 == len(text) || text[i+1] != c {
						break
					}
					i++
				}
				b.WriteByte(text[i])
			}
			i++
			kind := byte('s')
			if c == '"' {
				kind = 'q'
			}
			out = append(out, sqlToken{kind, b.String()})
			continue
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_':
			for i < len(text) && (text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z' || text[i] == '_' || text[i] >= '0' && text[i] <= '9') {
				i++
			}
			out = append(out, sqlToken{'i', text[from:i]})
			continue
		case c >= '0' && c <= '9' || c == '.' && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9':
			for i < len(text) && (strings.IndexByte("0123456789.eE", text[i]) >= 0 || (text[i] == '+' || text[i] == '-') && text[i-1]|0x20 == 'e') {
				i++
			}
			out = append(out, sqlToken{'n', text[from:i]})
			continue
		}
		if i++; i < len(text) {
			switch text[from : i+1] {
			case "<=", ">=", "<>", "!=", "<<", ">>", "||":
				i++
			}
		}
		out = append(out, sqlToken{text[from], text[from:i]})
	}
	return append(out, sqlToken{'e', "<EOF>"}), nil
}

func (p *sqlParser) tok() sqlToken { return p.tokens[p.at] }

func (p *sqlParser) unexpected() error { return badStatement("unexpected %q", p.tok().text) }

// word takes a keyword, if it is here.
func (p *sqlParser) word(w string) bool {
	if t := p.tok(); t.kind != 'i' || !strings.EqualFold(t.text, w) {
		return false
	}
	p.at++
	return true
}

// sign takes a sign, if it is here.
func (p *sqlParser) sign(s string) bool {
	if t := p.tok(); t.text != s || strings.IndexByte("iqsn", t.kind) >= 0 {
		return false
	}
	p.at++
	return true
}

// all takes what has to be here: signs and words.
func (p *sqlParser) all(words ...string) error {
	for _, w := range words {
		if !p.word(w) && !p.sign(w) {
			return p.unexpected()
		}
	}
	return nil
}

func (p *sqlParser) name() (string, error) {
	if t := p.tok(); t.kind == 'i' || t.kind == 'q' {
		p.at++
		return t.text, nil
	}
	return "", p.unexpected()
}

func (p *sqlParser) statement() error {
	switch {
	case p.word("SELECT"):
		return p.selects()
	case p.word("EXISTS"):
		if err := p.all("(", "SELECT"); err != nil {
			return err
		}
		if err := p.selects(); err != nil {
			return err
		}
		p.s.verb = "EXISTS"
		return p.all(")")
	case p.word("INSERT"):
		return p.insert()
	case p.word("UPDATE"):
		return p.update()
	case p.word("DELETE"):
		p.s.verb = "DELETE"
		if err := p.all("FROM"); err != nil {
			return err
		}
		if err := p.from(); err != nil {
			return err
		}
		return p.whereAndReturning()
	}
	return p.unexpected()
}

func (p *sqlParser) from() (err error) {
	if p.s.table, err = p.name(); err == nil && p.sign(".") {
		p.s.index, err = p.name()
	}
	return err
}

func (p *sqlParser) selects() error {
	p.s.verb = "SELECT"
	if !p.sign("*") {
		for {
			path, err := p.path()
			if err != nil {
				return err
			}
			p.s.projection = append(p.s.projection, path)
			if !p.sign(",") {
				break
			}
		}
	}
	if err := p.all("FROM"); err != nil {
		return err
	}
	if err := p.from(); err != nil {
		return err
	}
	if err := p.whereClause(); err != nil {
		return err
	}
	if p.word("ORDER") {
		if err := p.all("BY"); err != nil {
			return err
		}
		if _, err := p.name(); err != nil {
			return err
		}
		p.s.ordered = true
		if p.s.descending = p.word("DESC"); !p.s.descending {
			p.word("ASC")
		}
	}
	return nil
}

func (p *sqlParser) insert() error {
	p.s.verb = "INSERT"
	if err := p.all("INTO"); err != nil {
		return err
	}
	if err := p.from(); err != nil {
		return err
	}
	if err := p.all("VALUE"); err != nil {
		return err
	}
	v, err := p.literal()
	if err == nil && v.Type != item.M {
		err = badStatement("what is inserted must be a tuple")
	}
	p.s.item = v.Map
	return err
}

func (p *sqlParser) update() error {
	p.s.verb = "UPDATE"
	if err := p.from(); err != nil {
		return err
	}
	for {
		switch {
		case p.word("SET"):
			for {
				if err := p.set(); err != nil {
					return err
				}
				if !p.sign(",") {
					break
				}
			}
		case p.word("REMOVE"):
			for {
				path, err := p.path()
				if err != nil {
					return err
				}
				p.s.sets["REMOVE"] = append(p.s.sets["REMOVE"], path)
				if !p.sign(",") {
					break
				}
			}
		default:
			if len(p.s.sets) == 0 {
				return p.unexpected()
			}
			return p.whereAndReturning()
		}
	}
}

// set reads a change: a = b, or a = set_add(a, b).
func (p *sqlParser) set() error {
	path, err := p.path()
	if err != nil {
		return err
	}
	if err := p.all("="); err != nil {
		return err
	}
	for word, do := range map[string]string{"set_add": "ADD", "set_delete": "DELETE"} {
		if !p.word(word) {
			continue
		}
		if err := p.all("("); err != nil {
			return err
		}
		if _, err := p.path(); err != nil {
			return err
		}
		if err := p.all(","); err != nil {
			return err
		}
		v, err := p.literal()
		if err != nil {
			return err
		}
		p.s.sets[do] = append(p.s.sets[do], path+" "+p.place(v))
		return p.all(")")
	}
	text, err := p.operand()
	if err != nil {
		return err
	}
	for _, sign := range []string{"+", "-"} {
		if p.sign(sign) {
			more, err := p.operand()
			if err != nil {
				return err
			}
			text += " " + sign + " " + more
			break
		}
	}
	p.s.sets["SET"] = append(p.s.sets["SET"], path+" = "+text)
	return nil
}

func (p *sqlParser) whereAndReturning() error {
	if err := p.whereClause(); err != nil {
		return err
	}
	if p.s.where == nil {
		return invalid("Where clause does not contain a mandatory equality on all key attributes")
	}
	if !p.word("RETURNING") {
		return nil
	}
	which := ""
	for _, w := range []string{"ALL", "MODIFIED"} {
		if p.word(w) {
			which = map[string]string{"ALL": "ALL", "MODIFIED": "UPDATED"}[w]
		}
	}
	for _, w := range []string{"OLD", "NEW"} {
		if p.word(w) {
			which += "_" + w
		}
	}
	p.s.returning = which
	return p.all("*")
}

func (p *sqlParser) whereClause() error {
	if !p.word("WHERE") {
		return nil
	}
	all, err := p.conjunction()
	if err == nil && p.word("OR") {
		text := joined(all)
		heads := headsOf(all)
		for again := true; again; again = p.word("OR") {
			more, err := p.conjunction()
			if err != nil {
				return err
			}
			text += " OR " + joined(more)
			heads = append(heads, headsOf(more)...)
		}
		all = []conjunct{{text: text, heads: heads}}
	}
	p.s.where = all
	return err
}

func joined(all []conjunct) string {
	parts := make([]string, len(all))
	for i, c := range all {
		parts[i] = c.text
		if len(all) > 1 && strings.Contains(c.text, " OR ") {
			parts[i] = "(" + c.text + ")"
		}
	}
	return strings.Join(parts, " AND ")
}

func headsOf(all []conjunct) (out []string) {
	for _, c := range all {
		out = append(out, c.heads...)
	}
	return out
}

func (p *sqlParser) conjunction() (all []conjunct, err error) {
	for {
		p.heads = nil
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		c.heads = p.heads
		all = append(all, c)
		if !p.word("AND") {
			return all, nil
		}
	}
}

// condition reads one condition.
func (p *sqlParser) condition() (c conjunct, err error) {
	if p.depth++; p.depth > 100 {
		return c, badStatement("it is too deep")
	}
	defer func() { p.depth-- }()
	if p.word("NOT") {
		inner, err := p.condition()
		return conjunct{text: "NOT (" + inner.text + ")"}, err
	}
	if p.sign("(") {
		outer := p.heads
		all, err := p.conjunction()
		heads := append(outer, headsOf(all)...)
		text := joined(all)
		for err == nil && p.word("OR") {
			var more []conjunct
			if more, err = p.conjunction(); err == nil {
				text += " OR " + joined(more)
				heads = append(heads, headsOf(more)...)
			}
		}
		p.heads = heads
		if err == nil {
			err = p.all(")")
		}
		if len(all) == 1 && !strings.Contains(text, " ") {
			return conjunct{text: text}, err
		}
		return conjunct{text: "(" + text + ")"}, err
	}
	first := p.at
	left, err := p.operand()
	if err != nil {
		return c, err
	}
	name := p.plainName(first)
	switch {
	case p.word("IS"):
		not := p.word("NOT")
		switch {
		case p.word("MISSING"):
			c.text = map[bool]string{false: "attribute_not_exists(", true: "attribute_exists("}[not] + left + ")"
		case p.word("NULL"):
			c.text = "attribute_type(" + left + ", " + p.place(item.Text("NULL")) + ")"
			if not {
				c.text = "NOT " + c.text
			}
		default:
			return c, p.unexpected()
		}
		return c, nil
	case p.word("BETWEEN"):
		low, err := p.operand()
		if err != nil {
			return c, err
		}
		if err := p.all("AND"); err != nil {
			return c, err
		}
		high, err := p.operand()
		return conjunct{text: left + " BETWEEN " + low + " AND " + high, name: name, op: "between"}, err
	case p.word("IN"):
		return p.in(left)
	}
	if strings.HasPrefix(left, "begins_with(") || strings.HasPrefix(left, "contains(") || strings.HasPrefix(left, "attribute_") {
		c.text = left
		if strings.HasPrefix(left, "begins_with(") {
			c.op, c.name = "begins_with", p.plainName(first+2)
		}
		return c, nil
	}
	for _, op := range []string{"=", "<>", "!=", "<=", ">=", "<", ">"} {
		if !p.sign(op) {
			continue
		}
		if op == "!=" {
			op = "<>"
		}
		right, err := p.operand()
		c = conjunct{text: left + " " + op + " " + right, name: name, op: op}
		if strings.HasPrefix(right, ":") {
			i, _ := strconv.Atoi(right[2:])
			c.value = p.s.values[i]
		} else {
			c.name = ""
		}
		return c, err
	}
	return c, p.unexpected()
}

func (p *sqlParser) in(left string) (conjunct, error) {
	end := ")"
	if p.sign("[") {
		end = "]"
	} else if err := p.all("("); err != nil {
		return conjunct{}, err
	}
	var list []string
	for {
		text, err := p.operand()
		if err != nil {
			return conjunct{}, err
		}
		list = append(list, text)
		if !p.sign(",") {
			break
		}
	}
	return conjunct{text: left + " IN (" + strings.Join(list, ", ") + ")"}, p.all(end)
}

// plainName is the attribute that a token is, if it is nothing else.
func (p *sqlParser) plainName(at int) string {
	if at >= len(p.tokens) || p.tokens[at].kind != 'i' && p.tokens[at].kind != 'q' {
		return ""
	}
	switch p.tokens[at+1].text {
	case ".", "[", "(":
		return ""
	}
	return p.tokens[at].text
}

var sqlFunctions = map[string]string{
	"begins_with": "begins_with", "contains": "contains", "size": "size", "attribute_type": "attribute_type",
	"list_append": "list_append", "if_not_exists": "if_not_exists", "attribute_exists": "attribute_exists", "attribute_not_exists": "attribute_not_exists",
}

// operand reads a path, a value or a function, as an expression has it.
func (p *sqlParser) operand() (string, error) {
	t := p.tok()
	if t.kind == 'i' || t.kind == 'q' {
		if name, ok := sqlFunctions[strings.ToLower(t.text)]; ok && t.kind == 'i' && p.tokens[p.at+1].text == "(" {
			p.at += 2
			var args []string
			for {
				if p.depth++; p.depth > 100 {
					return "", badStatement("it is too deep")
				}
				text, err := p.operand()
				p.depth--
				if err != nil {
					return "", err
				}
				args = append(args, text)
				if !p.sign(",") {
					break
				}
			}
			return name + "(" + strings.Join(args, ", ") + ")", p.all(")")
		}
		switch strings.ToLower(t.text) {
		case "true", "false", "null":
		default:
			return p.path()
		}
		if t.kind == 'q' {
			return p.path()
		}
	}
	v, err := p.literal()
	if err != nil {
		return "", err
	}
	return p.place(v), nil
}

// place returns a placeholder for a value.
func (p *sqlParser) place(v item.Value) string {
	p.s.values = append(p.s.values, v)
	return ":v" + strconv.Itoa(len(p.s.values)-1)
}

// path reads a path, and returns it with placeholders.
func (p *sqlParser) path() (string, error) {
	name, err := p.name()
	if err != nil {
		return "", err
	}
	p.heads = append(p.heads, name)
	out := p.s.placeName(name)
	for {
		switch {
		case p.sign("."):
			name, err := p.name()
			if err != nil {
				return "", err
			}
			out += "." + p.s.placeName(name)
		case p.sign("["):
			t := p.tok()
			if t.kind != 'n' {
				return "", p.unexpected()
			}
			p.at++
			out += "[" + t.text + "]"
			if err := p.all("]"); err != nil {
				return "", err
			}
		default:
			return out, nil
		}
	}
}

func (s *statement) placeName(name string) string {
	for i, have := range s.names {
		if have == name {
			return "#n" + strconv.Itoa(i)
		}
	}
	s.names = append(s.names, name)
	return "#n" + strconv.Itoa(len(s.names)-1)
}

// literal reads a value.
func (p *sqlParser) literal() (v item.Value, err error) {
	if p.depth++; p.depth > 100 {
		return v, badStatement("it is too deep")
	}
	defer func() { p.depth-- }()
	switch t := p.tok(); {
	case p.sign("?"):
		if len(p.params) == 0 {
			return v, invalid("Number of parameters in request and statement don't match.")
		}
		v, p.params = p.params[0], p.params[1:]
		return v, nil
	case t.kind == 's':
		p.at++
		return item.Text(t.text), nil
	case t.kind == 'n', t.text == "-":
		p.at++
		text := t.text
		if text == "-" {
			text += p.tok().text
			p.at++
		}
		v = item.Value{Type: item.N, Text: text}
		return v, refuse(v.Check())
	case p.word("true"), p.word("false"):
		return item.Value{Type: item.BOOL, Bool: strings.EqualFold(t.text, "true")}, nil
	case p.word("null"):
		return item.Value{Type: item.NULL, Bool: true}, nil
	case p.sign("["):
		list, err := p.list("]")
		return item.Value{Type: item.L, List: list}, err
	case p.sign("<<"):
		list, err := p.list(">>")
		if err != nil {
			return v, err
		}
		return setOf(list)
	case p.sign("{"):
		return p.tuple()
	}
	return v, p.unexpected()
}

func (p *sqlParser) list(end string) (out []item.Value, err error) {
	out = []item.Value{}
	for !p.sign(end) {
		if len(out) > 0 {
			if err := p.all(","); err != nil {
				return nil, err
			}
		}
		v, err := p.literal()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func setOf(list []item.Value) (v item.Value, err error) {
	for _, e := range list {
		t := map[item.Type]item.Type{item.S: item.SS, item.N: item.NS, item.B: item.BS}[e.Type]
		if t == item.None || v.Type != item.None && v.Type != t {
			return v, badStatement("the values of a set must be of one type")
		}
		v.Type = t
		v.Set = append(v.Set, e.Text)
	}
	if v.Type == item.None {
		return v, badStatement("a set may not be empty")
	}
	return v, refuse(v.Check())
}

func (p *sqlParser) tuple() (item.Value, error) {
	out := item.Value{Type: item.M, Map: item.Item{}}
	for !p.sign("}") {
		if len(out.Map) > 0 {
			if err := p.all(","); err != nil {
				return out, err
			}
		}
		t := p.tok()
		if t.kind != 's' && t.kind != 'q' && t.kind != 'i' {
			return out, p.unexpected()
		}
		p.at++
		if err := p.all(":"); err != nil {
			return out, err
		}
		v, err := p.literal()
		if err != nil {
			return out, err
		}
		if _, twice := out.Map[t.text]; twice {
			return out, badStatement("%q is there twice", t.text)
		}
		out.Map[t.text] = v
	}
	return out, nil
}
