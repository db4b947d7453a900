package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// jsonLine is a value of our own as JSON, with a new line at its end. Letters that
// a terminal would not show as such are escaped.
func jsonLine(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("bevy: " + err.Error())
	}
	if !bytes.ContainsFunc(b.Bytes(), unseen) {
		return b.Bytes()
	}
	var out []byte
	for _, r := range b.String() {
		if !unseen(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, half := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, half)
		}
	}
	return out
}

// unseen reports whether a letter of JSON had better be escaped.
func unseen(r rune) bool { return r > '~' && !strconv.IsPrint(r) }

// fold breaks lines that are longer than a terminal is wide between words. What
// comes below begins where the last cell does, or behind the label.
func fold(text string, width int) string {
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		indent := 0
		if at := strings.LastIndex(line[:min(len(line), width/2)], "  "); at >= 0 {
			indent = at + 2
		} else if label, _, ok := strings.Cut(line, ": "); ok && !strings.Contains(label, " ") && len(label) < width/4 {
			indent = len(label) + 2
		}
		for utf8.RuneCountInString(line) > width {
			at := strings.LastIndexByte(string([]rune(line)[:width+1]), ' ')
			if at <= indent {
				break // a word that is too long, such as an address, stays whole
			}
			b.WriteString(strings.TrimRight(line[:at], " ") + "\n")
			line = strings.Repeat(" ", indent) + line[at+1:]
		}
		b.WriteString(line)
	}
	return b.String()
}

// folded is a text for a stream: folded if that is a terminal.
func folded(stream any, text string) string {
	if !isTerminal(stream) {
		return text
	}
	return fold(text, width(stream))
}

// count is a number as people read it: 1,234,567.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is a number of things.
func plural(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if stem, ok := strings.CutSuffix(thing, "ry"); ok {
		return count(n) + " " + stem + "ries"
	}
	return count(n) + " " + thing + "s"
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		f /= 1024
		switch {
		case f < 9.95:
			return fmt.Sprintf("%.1f %s", f, unit)
		case f < 1023.5 || unit == "TiB":
			return fmt.Sprintf("%.0f %s", f, unit)
		}
	}
	panic("bevy: unreachable")
}

// minutes is a time span as m:ss or h:mm:ss.
func minutes(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// parseSize reads a number of bytes: 512, 64KiB, 1MiB.
func parseSize(s string) (uint64, error) {
	number, unit := s, uint64(1)
	for _, u := range []struct {
		name  string
		bytes uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}} {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return 0, fmt.Errorf("%q is not a size such as 512, 64KiB or 1MiB", s)
	}
	return n * unit, nil
}

// parseIndex reads a number of blocks.
func parseIndex(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxIndex {
		return 0, fmt.Errorf("%q is not a block's number", s)
	}
	return n, nil
}

// maxIndex is the largest number in the format.
const maxIndex = 1<<53 - 1

// openEnd is the end of "10-": whatever the log's length is.
const openEnd = math.MaxUint64

// maxRanges bounds how many ranges one list may have.
const maxRanges = 10_000

// parseBlocks reads a list of blocks and of ranges that include their last:
// 3, 10-20, 30-. What it returns is without the end, as everywhere else.
func parseBlocks(s string) ([]hypercore.Range, error) {
	var ranges []hypercore.Range
	for part := range strings.SplitSeq(s, ",") {
		if len(ranges) == maxRanges {
			return nil, fmt.Errorf("a list has more than %s ranges", count(maxRanges))
		}
		first, last, isRange := strings.Cut(part, "-")
		from, err := parseIndex(first)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of blocks such as 3,10-20,30-", s)
		}
		r := hypercore.Range{Start: from, End: from + 1}
		if isRange && last == "" {
			r.End = openEnd
		} else if isRange {
			to, err := parseIndex(last)
			if err != nil || to < from {
				return nil, fmt.Errorf("%q is not a list of blocks such as 3,10-20,30-", s)
			}
			r.End = to + 1
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// blockList is a range as parseBlocks reads it.
func blockList(r hypercore.Range) string {
	if r.Len() == 1 {
		return strconv.FormatUint(r.Start, 10)
	}
	return fmt.Sprintf("%d-%d", r.Start, r.End-1)
}

// within returns ranges without an open end, or an error if a range has blocks
// that a log of that length has not.
func within(ranges []hypercore.Range, length uint64) ([]hypercore.Range, error) {
	out := make([]hypercore.Range, len(ranges))
	for i, r := range ranges {
		if r.End == openEnd {
			r.End = max(length, r.Start)
		}
		if r.Start > length || r.End > length {
			return nil, fmt.Errorf("there is no block %s: the log has %s", count(max(r.Start, r.End-1)), plural(length, "block"))
		}
		out[i] = r
	}
	return out, nil
}

// union returns ranges in order, those that overlap or touch as one.
func union(ranges []hypercore.Range) (out []hypercore.Range) {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b hypercore.Range) int { return cmp.Compare(a.Start, b.Start) })
	for _, r := range sorted {
		if last := len(out) - 1; last >= 0 && r.Start <= out[last].End {
			out[last].End = max(out[last].End, r.End)
		} else if r.Len() > 0 {
			out = append(out, r)
		}
	}
	return out
}

// short is the beginning of a key, enough to tell it from others by eye.
func short(k hypercore.Key) string { return k.String()[:shortKey] }

const shortKey = 8

// colored is a text in a colour that follows from a key.
func colored(k hypercore.Key, text string) string {
	// The 216 colours of the cube, without those too dark to read on black or too
	// bright to read on white.
	c := 16 + 36*(1+int(k[0])%4) + 6*(1+int(k[1])%3) + (1 + int(k[2])%4)
	return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[0m", c, text)
}

// quoted is a log's name as it is spoken of: its name, or its short key.
func quoted(name string, k hypercore.Key) string {
	if name != "" {
		return strconv.Quote(name)
	}
	return short(k)
}
