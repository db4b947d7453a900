package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// schemaVersion is that of what is kept of a table: docs/formats/dynamodb.md.
const schemaVersion = 1

// A schema is all there is to know of a table but its items. It is never changed,
// only replaced.
type schema struct {
	Version    int         `json:"version"`
	Name       string      `json:"name"`
	ID         string      `json:"id"`
	Created    int64       `json:"created"` // milliseconds, as all times here
	Attributes []attribute `json:"attributes"`
	Keys       []keyPart   `json:"keys"`
	Local      []*index    `json:"local,omitempty"`
	Global     []*index    `json:"global,omitempty"`
	NextIndex  uint32      `json:"nextIndex"`
	// Dropped are the numbers of indexes whose entries are still to be removed.
	Dropped    []uint32          `json:"dropped,omitempty"`
	OnDemand   bool              `json:"onDemand,omitempty"`
	OnDemandAt int64             `json:"onDemandAt,omitempty"`
	Capacity   capacityUnits     `json:"capacity"`
	Protected  bool              `json:"protected,omitempty"`
	Class      string            `json:"class,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	TTL        string            `json:"ttl,omitempty"` // the attribute; none is off
	// Turning is there while TTL is being turned on or off.
	Turning *turning    `json:"turning,omitempty"`
	Stream  *streamInfo `json:"stream,omitempty"`
	// Past are the streams before it, the oldest first, for as long as records are kept.
	Past     []streamInfo  `json:"past,omitempty"`
	Recovery int64         `json:"recovery,omitempty"` // since when there is point-in-time recovery
	Restored *restoredFrom `json:"restored,omitempty"`
}

type attribute struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type keyPart struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // "HASH" or "RANGE"
}

// An index is one of the others of a table.
type index struct {
	Number     uint32        `json:"number"` // never used again
	Name       string        `json:"name"`
	Keys       []keyPart     `json:"keys"`
	Projection string        `json:"projection"`
	Include    []string      `json:"include,omitempty"`
	Filling    bool          `json:"filling,omitempty"` // not all items are in it yet
	Capacity   capacityUnits `json:"capacity"`
	local      bool
}

type capacityUnits struct {
	Read      int64 `json:"read"`
	Write     int64 `json:"write"`
	Increased int64 `json:"increased,omitempty"`
	Decreased int64 `json:"decreased,omitempty"`
	Decreases int64 `json:"decreases,omitempty"`
}

// streamInfo is the stream that a table has or had.
type streamInfo struct {
	Label string `json:"label"`
	View  string `json:"view"`
	On    bool   `json:"on"`
	First uint64 `json:"first"` // the number of its first record
	// End is the number of the first record after it, of one that is past.
	End uint64 `json:"end,omitempty"`
}

// streamLabel is how a stream is called: by when it was made.
const streamLabel = "2006-01-02T15:04:05.000"

// made is when the stream was made, in milliseconds since 1970.
func (i *streamInfo) made() int64 {
	at, err := time.Parse(streamLabel, i.Label)
	if err != nil {
		return 0
	}
	return millis(at)
}

// streams are all streams that can be read, the oldest first.
func (s *schema) streams() []streamInfo {
	if s.Stream == nil {
		return s.Past
	}
	return append(slices.Clone(s.Past), *s.Stream)
}

// stream finds one of the streams, and returns when the next one was made; 0 if there
// is none.
func (s *schema) stream(label string) (i *streamInfo, until int64) {
	all := s.streams()
	for n := range all {
		if all[n].Label != label {
			continue
		}
		if n+1 < len(all) {
			until = all[n+1].made()
		}
		return &all[n], until
	}
	return nil, 0
}

// turning is that times of items are still to be noted, or to be forgotten.
type turning struct {
	Attribute string `json:"attribute"`
	Since     int64  `json:"since"`
}

type restoredFrom struct {
	Backup string `json:"backup,omitempty"`
	Table  string `json:"table,omitempty"`
	Time   int64  `json:"time"`
}

func (s *schema) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has nothing that JSON can't say
	}
	return append([]byte{schemaVersion}, b...)
}

func readSchema(ctx context.Context, r Reader) (*schema, error) {
	b, err := r.Get(ctx, []byte{keyTable})
	if err != nil {
		return nil, err
	}
	s := new(schema)
	if len(b) == 0 || b[0] != schemaVersion {
		return nil, errors.New("a table of a newer version")
	}
	if err := json.Unmarshal(b[1:], s); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	for _, x := range s.Local {
		x.local = true
	}
	return s, nil
}

// unfinished reports whether something is left to do that takes many appends: fill.
func (s *schema) unfinished() bool {
	return len(s.Dropped) > 0 || len(s.filling()) > 0 || s.Turning != nil
}

// with returns a copy that f has changed. Indexes are to be replaced, not changed.
func (s *schema) with(f func(*schema)) *schema {
	next := *s
	next.Local, next.Global = slices.Clone(s.Local), slices.Clone(s.Global)
	next.Dropped = slices.Clone(s.Dropped)
	f(&next)
	return &next
}

// typeOf is the type of an attribute that is part of a key.
func (s *schema) typeOf(name string) item.Type {
	for _, a := range s.Attributes {
		if a.Name == name {
			return item.TypeOf(a.Type)
		}
	}
	return item.None
}

// indexes returns all indexes, global ones first as DynamoDB looks at them.
func (s *schema) indexes() []*index { return slices.Concat(s.Global, s.Local) }

func (s *schema) index(name string) *index {
	for _, x := range s.indexes() {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// keyTypeOf returns the type that an attribute must have for the sake of an index.
func (s *schema) keyTypeOf(name string) (item.Type, bool) {
	for _, x := range s.indexes() {
		for i, k := range x.Keys {
			if k.Name == name && !(x.local && i == 0) {
				return s.typeOf(name), true
			}
		}
	}
	return item.None, false
}

// names returns the names of the attributes of a key.
func names(keys []keyPart) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.Name
	}
	return out
}

// rangeName is the name of the key's second attribute, or "".
func rangeName(keys []keyPart) string {
	if len(keys) > 1 {
		return keys[1].Name
	}
	return ""
}

// keyOf returns the attributes of an item that are its key.
func (s *schema) keyOf(i item.Item) item.Item {
	out := make(item.Item, len(s.Keys))
	for _, k := range s.Keys {
		out[k.Name] = i[k.Name]
	}
	return out
}

// project returns what of an item is in an index.
func (x *index) project(s *schema, i item.Item) item.Item {
	if x.Projection == "ALL" {
		return i
	}
	out := item.Item{}
	for _, list := range [][]string{names(x.Keys), names(s.Keys), x.Include} {
		for _, name := range list {
			if v, ok := i[name]; ok {
				out[name] = v
			}
		}
	}
	return out
}

// Checks of keys.

func mismatch() *Error { return invalid("The provided key element does not match the schema") }

// checkKey looks at the key of an item.
func (s *schema) checkKey(key item.Item) error {
	if len(key) != len(s.Keys) {
		return mismatch()
	}
	for i, k := range s.Keys {
		if err := s.checkKeyPart(key, k.Name, i == 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *schema) checkKeyPart(key item.Item, name string, hash bool) error {
	v, ok := key[name]
	if !ok || v.Type != s.typeOf(name) {
		return mismatch()
	}
	if v.Text == "" {
		return invalid(badValues + emptyKey(v, name))
	}
	return checkKeySize(v, hash)
}

func emptyKey(v item.Value, name string) string {
	what := "string"
	if v.Type == item.B {
		what = "binary"
	}
	return "The AttributeValue for a key attribute cannot contain an empty " + what + " value. Key: " + name
}

// checkIndexKeySize looks at the size of a key of an index.
func checkIndexKeySize(x *index, name string, v item.Value) error {
	for _, k := range x.Keys {
		hash := k.Kind == "HASH"
		if k.Name != name || checkKeySize(v, hash) == nil {
			continue
		}
		limit := 1024
		if hash {
			limit = 2048
		}
		return invalid("One or more parameter values are not valid. A value specified for a secondary index key is not supported. "+
			"The AttributeValue for a key attribute has exceeded the size limit of %d bytes. Key: %s IndexName: %s", limit, name, x.Name)
	}
	return nil
}

func checkKeySize(v item.Value, hash bool) error {
	switch {
	case v.Type == item.N:
	case hash && len(v.Text) > 2048:
		return invalid(badValues + "Size of hashkey has exceeded the maximum size limit of2048 bytes")
	case !hash && len(v.Text) > 1024:
		return invalid(badValues + "Aggregated size of all range keys has exceeded the size limit of 1024 bytes")
	}
	return nil
}

// checkItem looks at the keys of an item that is put.
func (s *schema) checkItem(i item.Item) error {
	for j, k := range s.Keys {
		v, ok := i[k.Name]
		want := s.typeOf(k.Name)
		switch {
		case !ok:
			return invalid(badValues + "Missing the key " + k.Name + " in the item")
		case v.Type != want:
			return invalid(badValues+"Type mismatch for key %s expected: %s actual: %s", k.Name, want, v.Type)
		case v.Text == "":
			return invalid("One or more parameter values are not valid. " + emptyKey(v, k.Name))
		}
		if err := checkKeySize(v, j == 0); err != nil {
			return err
		}
	}
	return s.eachIndexKey(func(x *index, name string) error {
		v, ok := i[name]
		if want := s.typeOf(name); ok && v.Type != want {
			return wrongIndexType(x, name, want, v.Type)
		}
		if ok && v.Text == "" {
			return invalid("One or more parameter values are not valid. A value specified for a secondary index key is not supported. " +
				emptyKey(v, name) + " IndexName: " + x.Name)
		}
		if ok {
			return checkIndexKeySize(x, name, v)
		}
		return nil
	})
}

func wrongIndexType(x *index, name string, want, have item.Type) error {
	return invalid(badValues+"Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", name, want, have, x.Name)
}

// eachIndexKey calls f for the attributes that are keys of indexes.
func (s *schema) eachIndexKey(f func(x *index, name string) error) error {
	for _, x := range s.indexes() {
		for i, k := range x.Keys {
			if x.local && i == 0 {
				continue
			}
			if err := f(x, k.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNested looks for paths that go into keys.
func (s *schema) checkNested(nested map[string]bool) error {
	if len(nested) == 0 {
		return nil
	}
	const words = "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
	for _, k := range s.Keys {
		if nested[k.Name] {
			return invalid(words + "Key: " + k.Name)
		}
	}
	return s.eachIndexKey(func(_ *index, name string) error {
		if nested[name] {
			return invalid(words + "IndexKey: " + name)
		}
		return nil
	})
}

// seconds is a time as DynamoDB writes it.
func seconds(ms int64) json.Number { return json.Number(fmt.Sprintf("%d.%03d", ms/1000, ms%1000)) }

func millis(t time.Time) int64 { return t.UnixMilli() }
