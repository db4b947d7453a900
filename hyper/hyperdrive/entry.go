package hyperdrive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
)

// An Entry is a file or a link. It belongs to who got it.
type Entry struct {
	// Path is where it is, such as "/a/b".
	Path string
	// Seq is the version of the drive without it.
	Seq uint64
	// Executable says that the file is a program.
	Executable bool
	// Linkname is what a link leads to; no file has one.
	Linkname string
	// Blob is where the contents are; nil if there are none.
	Blob *hyperblobs.ID
	// Metadata is what its writer has to say besides, as JSON; nil for nothing.
	Metadata json.RawMessage
}

// IsLink reports whether the entry is a link.
func (e *Entry) IsLink() bool { return e.Linkname != "" }

// attributes is what of Metadata is ours. Peers in JavaScript keep it, and take
// no notice.
type attributes struct {
	ModTime string `json:"mtime"`
	Mode    string `json:"mode"`
}

// NewMetadata returns metadata that keep when a file was changed, and its
// permissions: {"mtime":"2026-11-23T10:00:00.123456789Z","mode":"0644"}. What is
// zero is left out.
func NewMetadata(modTime time.Time, mode fs.FileMode) json.RawMessage {
	var b []byte
	if !modTime.IsZero() {
		b = append(b, `{"mtime":"`...)
		b = modTime.UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	if perm := mode.Perm(); perm != 0 {
		if b == nil {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `"mode":"%04o"`, perm)
	}
	if b == nil {
		return nil
	}
	return append(b, '}')
}

func (e *Entry) attributes() (a attributes) {
	if len(e.Metadata) > 0 {
		_ = json.Unmarshal(e.Metadata, &a) // of somebody else, if it is not ours
	}
	return a
}

// ModTime returns when the file was changed, if its metadata say so, and the zero
// time otherwise.
func (e *Entry) ModTime() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.attributes().ModTime)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Mode returns the file's permissions: those in its metadata, else what is usual.
func (e *Entry) Mode() fs.FileMode {
	if e.IsLink() {
		return fs.ModeSymlink | 0o777
	}
	perm := fs.FileMode(0o644)
	if e.Executable {
		perm = 0o755
	}
	if n, err := strconv.ParseUint(e.attributes().Mode, 8, 9); err == nil {
		perm = fs.FileMode(n)
		if e.Executable != (perm&0o100 != 0) {
			perm ^= 0o100 // who changed the one may not have known of the other
		}
	}
	return perm
}

// Compare tells which of two entries of a drive is newer: it is negative if a is
// older than b.
func Compare(a, b Entry) int {
	switch {
	case a.Seq < b.Seq:
		return -1
	case a.Seq > b.Seq:
		return 1
	}
	return 0
}

// append appends the entry's value in the tree: the bytes of JSON.stringify, in
// the order in which hyperdrive makes it.
func (e *Entry) append(b []byte) ([]byte, error) {
	b = append(b, `{"executable":`...)
	b = strconv.AppendBool(b, e.Executable)
	b = append(b, `,"linkname":`...)
	if e.Linkname == "" {
		b = append(b, "null"...)
	} else {
		b = appendString(b, e.Linkname)
	}
	b = append(b, `,"blob":`...)
	if e.Blob == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, `{"blockOffset":`...)
		b = strconv.AppendUint(b, e.Blob.BlockOffset, 10)
		b = append(b, `,"byteOffset":`...)
		b = strconv.AppendUint(b, e.Blob.ByteOffset, 10)
		b = append(b, `,"blockLength":`...)
		b = strconv.AppendUint(b, e.Blob.BlockLength, 10)
		b = append(b, `,"byteLength":`...)
		b = strconv.AppendUint(b, e.Blob.ByteLength, 10)
		if e.Blob.BlockMap {
			b = append(b, `,"blockMap":true`...)
		}
		b = append(b, '}')
	}
	b = append(b, `,"metadata":`...)
	if len(e.Metadata) == 0 {
		b = append(b, "null"...)
	} else {
		out := bytes.NewBuffer(b)
		if err := json.Compact(out, e.Metadata); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		b = out.Bytes()
	}
	return append(b, '}'), nil
}

// appendString appends a string as JSON.stringify does: encoding/json escapes
// more.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s { // what is no UTF-8 comes as U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ':
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// parse reads a value of the tree into the entry, which then has parts of it.
func (e *Entry) parse(value []byte) error {
	if e.parseUsual(value) {
		return nil
	}
	// As any other JSON, of somebody who writes it in another way.
	var v *struct {
		Executable bool            `json:"executable"`
		Linkname   *string         `json:"linkname"`
		Metadata   json.RawMessage `json:"metadata"`
		Blob       *struct {
			BlockOffset uint64 `json:"blockOffset"`
			ByteOffset  uint64 `json:"byteOffset"`
			BlockLength uint64 `json:"blockLength"`
			ByteLength  uint64 `json:"byteLength"`
			BlockMap    bool   `json:"blockMap"`
		} `json:"blob"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	if v == nil {
		return errors.New("it has no value")
	}
	e.Executable = v.Executable
	if v.Linkname != nil {
		e.Linkname = *v.Linkname
	}
	if v.Blob != nil {
		e.Blob = &hyperblobs.ID{
			BlockOffset: v.Blob.BlockOffset, BlockLength: v.Blob.BlockLength,
			ByteOffset: v.Blob.ByteOffset, ByteLength: v.Blob.ByteLength, BlockMap: v.Blob.BlockMap,
		}
	}
	if string(v.Metadata) != "null" {
		e.Metadata = v.Metadata
	}
	return nil
}

// parseUsual reads a value that is written as hyperdrive does. That is all of
// them, and several times as fast as reading any JSON.
func (e *Entry) parseUsual(value []byte) bool {
	p := parser{value, true}
	var out Entry
	p.word(`{"executable":`)
	out.Executable = p.bool()
	p.word(`,"linkname":`)
	if !p.has("null") {
		out.Linkname = p.string()
	}
	p.word(`,"blob":`)
	if !p.has("null") {
		id := new(hyperblobs.ID)
		p.word(`{"blockOffset":`)
		id.BlockOffset = p.uint()
		p.word(`,"byteOffset":`)
		id.ByteOffset = p.uint()
		p.word(`,"blockLength":`)
		id.BlockLength = p.uint()
		p.word(`,"byteLength":`)
		id.ByteLength = p.uint()
		id.BlockMap = p.has(`,"blockMap":true`)
		p.word("}")
		out.Blob = id
	}
	p.word(`,"metadata":`)
	if !p.ok {
		return false
	}
	if !p.has("null}") || len(p.rest) > 0 {
		end := len(p.rest) - 1
		if end < 0 || p.rest[end] != '}' || !json.Valid(p.rest[:end]) || len(bytes.TrimSpace(p.rest[:end])) < end {
			return false
		}
		out.Metadata = p.rest[:end:end]
	}
	e.Executable, e.Linkname, e.Blob, e.Metadata = out.Executable, out.Linkname, out.Blob, out.Metadata
	return true
}

// A parser reads what is usual; ok is false once something is not.
type parser struct {
	rest []byte
	ok   bool
}

// has takes a word if it comes next.
func (p *parser) has(word string) bool {
	if len(p.rest) < len(word) || string(p.rest[:len(word)]) != word {
		return false
	}
	p.rest = p.rest[len(word):]
	return true
}

func (p *parser) word(word string) { p.ok = p.ok && p.has(word) }

func (p *parser) bool() bool {
	if p.has("true") {
		return true
	}
	p.word("false")
	return false
}

// string reads a string that nothing is escaped in.
func (p *parser) string() string {
	p.word(`"`)
	n := bytes.IndexByte(p.rest, '"')
	if n < 0 {
		p.ok = false
		return ""
	}
	s := p.rest[:n]
	for _, c := range s {
		p.ok = p.ok && c != '\\' && c >= ' '
	}
	p.ok = p.ok && utf8.Valid(s)
	p.rest = p.rest[n+1:]
	return string(s)
}

// uint reads a number without a sign, a fraction and leading zeros.
func (p *parser) uint() (n uint64) {
	i := 0
	for ; i < len(p.rest) && '0' <= p.rest[i] && p.rest[i] <= '9'; i++ {
		if n > math.MaxUint64/10-1 {
			p.ok = false
			return 0
		}
		n = n*10 + uint64(p.rest[i]-'0')
	}
	if i == 0 || i > 1 && p.rest[0] == '0' {
		p.ok = false
		return 0
	}
	p.rest = p.rest[i:]
	return n
}
