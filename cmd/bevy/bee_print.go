package main

import (
	"bufio"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// An entryName is an entry's key in JSON.
type entryName struct {
	Entry       *string `json:"entry,omitempty"` // if it is text
	EntryBase64 []byte  `json:"entryBase64,omitempty"`
}

func nameOf(key []byte) (n entryName) {
	n.Entry, n.EntryBase64 = jsonBytes(key)
	return n
}

// An entryValue is an entry's value in JSON; both fields are left out if it has
// none.
type entryValue struct {
	Value       *string `json:"value,omitempty"` // if it is text
	ValueBase64 []byte  `json:"valueBase64,omitempty"`
}

func valueOf(value []byte) (v entryValue) {
	if value != nil {
		v.Value, v.ValueBase64 = jsonBytes(value)
	}
	return v
}

// A beeWriter prints what comes of a bee.
type beeWriter struct {
	*bee
	*lineWriter
}

// print opens the bee to print something of it.
func (b *bee) print(ctx context.Context, word string, f func(context.Context, *beeWriter) error) error {
	return b.open(ctx, reading, word, func(ctx context.Context) error {
		return b.lines(b.log, func(w *lineWriter) error { return f(ctx, &beeWriter{b, w}) })
	})
}

// A lineWriter prints what comes of a log, line by line.
type lineWriter struct {
	out   *bufio.Writer
	width int  // of the terminal that it goes to; 0 if it goes elsewhere
	slow  bool // the next line may take a while
}

// lines calls f to print something of a log.
func (a *app) lines(l *log, f func(*lineWriter) error) error {
	w := &lineWriter{out: a.buffered(), slow: l.net != nil}
	if isTerminal(a.stdout) {
		w.width = width(a.stdout)
	}
	err := f(w)
	if e := w.out.Flush(); err == nil {
		err = written(e)
	}
	return err
}

// line prints cells with tabs between them; or, on a terminal, as much as it has
// room for.
func (w *lineWriter) line(cells ...string) error {
	line := strings.Join(cells, "\t")
	if w.width > 0 {
		line = cut(strings.Join(cells, "  "), w.width)
	}
	return w.end(w.out.WriteString(line + "\n"))
}

// object prints a value as JSON.
func (w *lineWriter) object(v any) error { return w.end(w.out.Write(jsonLine(v))) }

func (w *lineWriter) end(_ int, err error) error {
	if err == nil && w.slow {
		err = w.out.Flush()
	}
	return written(err)
}

// cells are an entry's key, and its value if it has one.
func (w *beeWriter) cells(e hyperbee.Entry) []string {
	if e.Value == nil {
		return []string{w.text(e.Key)}
	}
	return []string{w.text(e.Key), w.text(e.Value)}
}

// cut is the beginning of a line that is too long for a terminal.
func cut(line string, width int) string {
	if len(line) < width || utf8.RuneCountInString(line) < width {
		return line
	}
	n := 0
	for i := range line {
		if n++; n >= width-1 {
			return line[:i] + "…"
		}
	}
	return line
}
