package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// escape is bytes as text on one line that a terminal can show and unescape
// reads back: what is no letter is written as \n, \t, \x1b or \u202e, and a
// backslash as two.
func escape(p []byte) string {
	s := strconv.Quote(string(p))
	return strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`)
}

// oneLine is text without what a terminal would obey and not show: names come from
// other machines. A backslash stays one.
func oneLine(s string) string { return strings.ReplaceAll(escape([]byte(s)), `\\`, `\`) }

// unescape returns the bytes that escape has written.
func unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			return append(out, s...), nil
		}
		out, s = append(out, s[:i]...), s[i:]
		r, isRune, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			return nil, fmt.Errorf(`\%s begins no escape such as \n, \x1b or \\`, escape([]byte(s[1:min(len(s), 4)])))
		}
		if isRune {
			out = utf8.AppendRune(out, r)
		} else {
			out = append(out, byte(r))
		}
		s = rest
	}
}

func unhex(s string) ([]byte, error) {
	p, err := hex.DecodeString(s)
	if err != nil {
		return nil, errors.New("it is not hex")
	}
	return p, nil
}

// shellWord is a word as a shell wants it.
func shellWord(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/:@%+=,-", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !safe(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// jsonBytes returns bytes as fields in JSON: as text if they are, else in base64.
func jsonBytes(p []byte) (text *string, base64 []byte) {
	if !utf8.Valid(p) {
		return nil, p
	}
	s := string(p)
	return &s, nil
}

// A numberFlag is the value of a flag that may be left out.
type numberFlag struct {
	n   uint64
	set bool
}

// Set reads the number.
func (v *numberFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxIndex {
		return errors.New("it is not a number")
	}
	*v = numberFlag{n, true}
	return nil
}

// String returns the number, empty if there is none.
func (v *numberFlag) String() string {
	if !v.set {
		return ""
	}
	return strconv.FormatUint(v.n, 10)
}

// Type says what the flag takes.
func (v *numberFlag) Type() string { return "number" }

// limit is the number as a limit, of which 0 is none.
func (v *numberFlag) limit() (int, error) {
	if v.set && v.n == 0 {
		return 0, wrong("--limit 10", "it would be nothing", "wrong --limit %q", "0")
	}
	return int(min(v.n, math.MaxInt)), nil
}

// A textFlag is the value of a flag that may be left out.
type textFlag struct {
	s   string
	set bool
}

// Set keeps the text.
func (v *textFlag) Set(s string) error {
	*v = textFlag{s, true}
	return nil
}

// String returns the text.
func (v *textFlag) String() string { return v.s }

// Type says what the flag takes.
func (v *textFlag) Type() string { return "text" }
