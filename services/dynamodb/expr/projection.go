package expr

import (
	"maps"
	"slices"
	"strconv"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A Projection is which parts of items are wanted.
type Projection struct {
	Paths  []Path
	Nested map[string]bool // attributes that are looked into
}

// ParseProjection reads a projection.
func ParseProjection(text string, names *Names) (*Projection, error) {
	s, err := newScanner(text, names)
	if err != nil {
		return nil, err
	}
	found, all := problems{}, paths{}
	for {
		path, err := s.path(found, "attrNameVal")
		if err != nil {
			return nil, err
		}
		all.add(path)
		if !s.take(",") {
			break
		}
	}
	if s.tok.kind != 'e' {
		return nil, s.syntax()
	}
	if err := found.first("reserved", "attrNameVal"); err != nil {
		return nil, err
	}
	if err := all.problem(); err != nil {
		return nil, err
	}
	return &Projection{all.list, s.nested}, nil
}

// path reads a path.
func (s *scanner) path(p problems, name string) (Path, error) {
	if !s.isName() {
		return nil, s.syntax()
	}
	first := s.tok
	s.advance()
	raw, err := s.steps([]rawStep{{first, -1}})
	if err != nil {
		return nil, err
	}
	return s.resolve(raw, p, name), nil
}

func (p *paths) problem() error {
	if p.overlap != "" {
		return Problem(p.overlap)
	}
	if p.conflict != "" {
		return Problem(p.conflict)
	}
	return nil
}

// Pick returns the parts of an item that paths lead to. What is not there is left
// out, and lists are closed up.
func Pick(i item.Item, all []Path) item.Item {
	root := &wanted{}
	for _, p := range all {
		if v, ok := Get(i, p); ok {
			root.add(p, v)
		}
	}
	out := root.value().Map
	if out == nil {
		return item.Item{}
	}
	return out
}

// A wanted is a place on the way to values that are wanted.
type wanted struct {
	value_ *item.Value
	names  map[string]*wanted
	places map[int]*wanted
}

func (w *wanted) add(p Path, v item.Value) {
	for _, s := range p {
		next := new(wanted)
		if s.Index >= 0 {
			if w.places == nil {
				w.places = map[int]*wanted{}
			}
			if have, ok := w.places[s.Index]; ok {
				next = have
			}
			w.places[s.Index] = next
		} else {
			if w.names == nil {
				w.names = map[string]*wanted{}
			}
			if have, ok := w.names[s.Name]; ok {
				next = have
			}
			w.names[s.Name] = next
		}
		w = next
	}
	w.value_ = &v
}

func (w *wanted) value() item.Value {
	if w.value_ != nil {
		return *w.value_
	}
	if w.places != nil {
		list := make([]item.Value, 0, len(w.places))
		for _, i := range slices.Sorted(maps.Keys(w.places)) {
			list = append(list, w.places[i].value())
		}
		return item.Value{Type: item.L, List: list}
	}
	out := make(item.Item, len(w.names))
	for name, next := range w.names {
		out[name] = next.value()
	}
	return item.Value{Type: item.M, Map: out}
}
