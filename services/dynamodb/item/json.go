package item

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Kind is what JSON knows.
type Kind uint8

// The kinds of nodes.
const (
	Null Kind = iota
	Bool
	Number64
	String
	Array
	Object
)

// A Node is a piece of JSON. Val is set once the node was taken for a value.
type Node struct {
	Kind Kind
	Bool bool
	Num  float64
	Str  string
	List []*Node  // of an array, or the values of an object
	Keys []string // of an object
	Val  *Value
}

// maxNesting bounds the recursion of everything that goes through JSON.
const maxNesting = 200

// Parse reads JSON.
func Parse(text []byte) (*Node, bool) {
	p := parser{text: string(text)} // the one copy that all strings are parts of
	// Most values have a colon before them.
	p.more = min(1+strings.Count(p.text[:min(len(p.text), 4<<10)], ":"), 32)
	n, ok := p.value(0)
	if p.space(); !ok || p.at != len(text) {
		return nil, false
	}
	return n, true
}

// Get returns a member of an object, or nil if it is null or not there.
func (n *Node) Get(key string) *Node {
	if n == nil || n.Kind != Object {
		return nil
	}
	if i := slices.Index(n.Keys, key); i >= 0 && n.List[i].Kind != Null {
		return n.List[i]
	}
	return nil
}

// String is the text of a string; of others there is none.
func (n *Node) String() string {
	if n == nil {
		return ""
	}
	return n.Str
}

// set puts a member, in place of one of the same name.
func (n *Node) set(key string, v *Node, index map[string]int) {
	i := -1
	if index != nil {
		if have, ok := index[key]; ok {
			i = have
		}
	} else {
		i = slices.Index(n.Keys, key)
	}
	if i >= 0 {
		n.List[i] = v
		return
	}
	if index != nil {
		index[key] = len(n.Keys)
	}
	n.Keys = append(n.Keys, key)
	n.List = append(n.List, v)
}

type parser struct {
	text string
	at   int
	// To be handed out: what most objects need.
	nodes []Node
	more  int // how many come next
	names []string
	ptrs  []*Node
}

// room gives an object room for so many members, after which it takes its own.
func (p *parser) room(n *Node, members int) {
	if len(p.names) < members {
		p.names, p.ptrs = make([]string, 16), make([]*Node, 16)
	}
	n.Keys, n.List = p.names[:0:members], p.ptrs[:0:members]
	p.names, p.ptrs = p.names[members:], p.ptrs[members:]
}

func (p *parser) node(k Kind) *Node {
	if len(p.nodes) == 0 {
		p.nodes = make([]Node, p.more)
		p.more = 16
	}
	n := &p.nodes[0]
	p.nodes = p.nodes[1:]
	n.Kind = k
	return n
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return
		}
	}
}

// next reports whether c comes next, and takes it.
func (p *parser) next(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) word(w string) bool {
	if len(p.text)-p.at < len(w) || p.text[p.at:p.at+len(w)] != w {
		return false
	}
	p.at += len(w)
	return true
}

func (p *parser) value(depth int) (*Node, bool) {
	p.space()
	if p.at == len(p.text) || depth > maxNesting {
		return nil, false
	}
	switch p.text[p.at] {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		s, ok := p.str()
		n := p.node(String)
		n.Str = s
		return n, ok
	case 't':
		n := p.node(Bool)
		n.Bool = true
		return n, p.word("true")
	case 'f':
		return p.node(Bool), p.word("false")
	case 'n':
		return p.node(Null), p.word("null")
	}
	return p.number()
}

func (p *parser) object(depth int) (*Node, bool) {
	p.at++
	n := p.node(Object)
	if p.next('}') {
		return n, true
	}
	if depth < 2 {
		p.room(n, 4)
	} else {
		p.room(n, 1) // it is a value, most of the time
	}
	var index map[string]int
	for {
		p.space()
		if p.at == len(p.text) || p.text[p.at] != '"' {
			return nil, false
		}
		key, ok := p.str()
		if !ok || !p.next(':') {
			return nil, false
		}
		v, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		if len(n.Keys) == 16 && index == nil {
			index = make(map[string]int)
			for i, k := range n.Keys {
				index[k] = i
			}
		}
		n.set(key, v, index)
		if p.next('}') {
			return n, true
		}
		if !p.next(',') {
			return nil, false
		}
	}
}

func (p *parser) array(depth int) (*Node, bool) {
	p.at++
	n := p.node(Array)
	if p.next(']') {
		return n, true
	}
	for {
		v, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		n.List = append(n.List, v)
		if p.next(']') {
			return n, true
		}
		if !p.next(',') {
			return nil, false
		}
	}
}

func (p *parser) number() (*Node, bool) {
	start := p.at
	p.next('-')
	whole := p.run()
	if whole == 0 || whole > 1 && p.text[p.at-whole] == '0' {
		return nil, false
	}
	if p.at < len(p.text) && p.text[p.at] == '.' {
		p.at++
		if p.run() == 0 {
			return nil, false
		}
	}
	if p.at < len(p.text) && (p.text[p.at] == 'e' || p.text[p.at] == 'E') {
		p.at++
		if p.at < len(p.text) && (p.text[p.at] == '-' || p.text[p.at] == '+') {
			p.at++
		}
		if p.run() == 0 {
			return nil, false
		}
	}
	n := p.node(Number64)
	n.Num, _ = strconv.ParseFloat(p.text[start:p.at], 64) // out of range is infinite
	return n, true
}

// run skips digits and returns how many.
func (p *parser) run() (n int) {
	for p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '9' {
		p.at++
		n++
	}
	return n
}

func (p *parser) str() (string, bool) {
	p.at++
	start, ascii := p.at, byte(0)
	for p.at < len(p.text) {
		c := p.text[p.at]
		ascii |= c
		switch {
		case c == '"':
			s := p.text[start:p.at]
			p.at++
			if ascii >= utf8.RuneSelf && !utf8.ValidString(s) {
				return string([]rune(s)), true
			}
			return s, true
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return "", false
		}
		p.at++
	}
	return "", false
}

// escaped reads a string on from its first backslash.
func (p *parser) escaped(start int) (string, bool) {
	out := append(make([]byte, 0, p.at-start+32), p.text[start:p.at]...)
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return string([]rune(string(out))), true
			}
			return string(out), true
		case c < 0x20:
			return "", false
		case c != '\\':
			out = append(out, c)
			continue
		}
		if p.at == len(p.text) {
			return "", false
		}
		c = p.text[p.at]
		p.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := p.hex()
			if !ok {
				return "", false
			}
			if utf16.IsSurrogate(r) {
				at := p.at
				if p.word(`\u`) {
					low, ok := p.hex()
					if !ok {
						return "", false
					}
					if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
						p.at = at
					}
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", false
		}
	}
	return "", false
}

func (p *parser) hex() (rune, bool) {
	if len(p.text)-p.at < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	p.at += 4
	return rune(n), err == nil
}

const hexDigits = "0123456789abcdef"

// AppendString appends a string as JSON.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

func appendBinary(b []byte, s string) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, []byte(s))
	return append(b, '"')
}

// AppendJSON appends a value as DynamoDB writes it.
func (v Value) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	b = v.appendMember(b)
	for _, m := range v.more {
		b = m.appendMember(append(b, ','))
	}
	return append(b, '}')
}

func (v Value) appendMember(b []byte) []byte {
	if v.Type == None {
		return b
	}
	b = append(append(append(b, '"'), v.Type.String()...), '"', ':')
	switch v.Type {
	case S, N:
		return AppendString(b, v.Text)
	case B:
		return appendBinary(b, v.Text)
	case BOOL, NULL:
		return strconv.AppendBool(b, v.Bool)
	case M:
		return v.Map.AppendJSON(b)
	}
	b = append(b, '[')
	for i, e := range v.List {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.AppendJSON(b)
	}
	for i, e := range v.Set {
		if i > 0 {
			b = append(b, ',')
		}
		if v.Type == BS {
			b = appendBinary(b, e)
		} else {
			b = AppendString(b, e)
		}
	}
	return append(b, ']')
}

// AppendJSON appends an item as DynamoDB writes it, with its names in order.
func (i Item) AppendJSON(b []byte) []byte {
	var few [16]string
	names := slices.AppendSeq(few[:0], maps.Keys(i))
	slices.Sort(names)
	b = append(b, '{')
	for j, name := range names {
		if j > 0 {
			b = append(b, ',')
		}
		b = append(AppendString(b, name), ':')
		b = i[name].AppendJSON(b)
	}
	return append(b, '}')
}
