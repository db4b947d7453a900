package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// A document is XML that is being written. Unlike encoding/xml it keeps what XML 1.0
// has no characters for, as S3 does: as references.
type document struct {
	b    []byte
	open []string
}

// newDocument begins a document with its outermost element.
func newDocument(root string) *document {
	d := bare(root)
	d.b = append(d.b[:len(d.b)-1], ` xmlns="`+namespace+`">`...)
	return d
}

// bare begins a document without a name space.
func bare(root string) *document {
	d := &document{b: make([]byte, 0, 512)}
	d.b = append(d.b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"...)
	d.in(root)
	return d
}

// in begins an element, out ends the last one that was begun.
func (d *document) in(name string) {
	d.b = append(append(append(d.b, '<'), name...), '>')
	d.open = append(d.open, name)
}

func (d *document) out() {
	last := len(d.open) - 1
	d.b = append(append(append(d.b, "</"...), d.open[last]...), '>')
	d.open = d.open[:last]
}

// put writes an element with a text in it.
func (d *document) put(name, text string) {
	d.b = append(append(append(d.b, '<'), name...), '>')
	d.b = escape(d.b, text)
	d.b = append(append(append(d.b, "</"...), name...), '>')
}

// some is put for texts that are not empty.
func (d *document) some(name, text string) {
	if text != "" {
		d.put(name, text)
	}
}

func (d *document) number(name string, n int64)    { d.put(name, strconv.FormatInt(n, 10)) }
func (d *document) truth(name string, v bool)      { d.put(name, strconv.FormatBool(v)) }
func (d *document) time(name string, at time.Time) { d.put(name, stamp(at)) }
func (d *document) etag(name string, plain string) { d.put(name, quote(plain)) }

// grantee writes the head of a grantee, which is the only element with attributes.
func (d *document) grantee(kind string) {
	d.b = append(d.b, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="`+kind+`">`...)
	d.open = append(d.open, "Grantee")
}

// bytes ends all that is open.
func (d *document) bytes() []byte {
	for len(d.open) > 0 {
		d.out()
	}
	return d.b
}

// escape appends a text as XML has it.
func escape(b []byte, text string) []byte {
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		var as string
		size := 1
		switch {
		case c == '&':
			as = "&amp;"
		case c == '<':
			as = "&lt;"
		case c == '>':
			as = "&gt;"
		case c == '"':
			as = "&quot;"
		case c < 0x20 && c != '\t' && c != '\n' || c == 0x7f:
			as = "&#x" + strconv.FormatInt(int64(c), 16) + ";"
		case c >= utf8.RuneSelf:
			var r rune
			if r, size = utf8.DecodeRuneInString(text[i:]); r == utf8.RuneError && size == 1 || r == 0xfffe || r == 0xffff {
				as = "\uFFFD"
			}
		}
		if as != "" {
			b = append(append(b, text[start:i]...), as...)
			start = i + size
		}
		i += size
	}
	return append(b, text[start:]...)
}

// stamp is a time as it is in XML.
func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func quote(etag string) string { return `"` + etag + `"` }

// decode reads XML whose outermost element has that name. It must hold nothing
// after it.
func decode(text []byte, root string, into any) error {
	dec := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := dec.Token()
		if err != nil {
			return fail("MalformedXML")
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			if _, directive := token.(xml.Directive); directive {
				return fail("MalformedXML") // no entities of a document's own
			}
			continue
		}
		if start.Name.Local != root || dec.DecodeElement(into, &start) != nil {
			return fail("MalformedXML")
		}
		break
	}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if text, ok := token.(xml.CharData); err != nil || ok && len(bytes.TrimSpace(text)) > 0 {
			return fail("MalformedXML")
		}
		if _, ok := token.(xml.StartElement); ok {
			return fail("MalformedXML")
		}
	}
}
