package disk

import (
	"crypto/rand"
	"encoding/hex"
	"path"
	"strings"
)

// IgnoreFile is the file at the top of a folder that says what in it is left
// alone. It is a file of the folder like others.
const IgnoreFile = ".bevyignore"

// maxIgnore bounds how much of an ignore file is read.
const maxIgnore = 1 << 20

// Our temporary files: .bevy-0123456789abcdef.tmp
const (
	tempPrefix = ".bevy-"
	tempSuffix = ".tmp"
	tempRandom = 8 // bytes
)

// newTemp returns a name for a temporary file.
func newTemp() string {
	var b [tempRandom]byte
	_, _ = rand.Read(b[:]) // never fails
	return tempPrefix + hex.EncodeToString(b[:]) + tempSuffix
}

// isTemp tells whether a name is that of a temporary file, in any case.
func isTemp(name string) bool {
	if len(name) != len(tempPrefix)+2*tempRandom+len(tempSuffix) {
		return false
	}
	name = strings.ToLower(name)
	middle, ok := strings.CutPrefix(name, tempPrefix)
	middle, ok2 := strings.CutSuffix(middle, tempSuffix)
	return ok && ok2 && strings.Trim(middle, "0123456789abcdef") == ""
}

// A rule is a line of an ignore file.
type rule struct {
	names   []string // what the names of a path must match; "**" any number of them
	negate  bool
	dirOnly bool
}

// rules are those of an ignore file, in gitignore's syntax.
type rules []rule

func parseIgnore(text string) (out rules) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if !strings.HasSuffix(line, `\ `) {
			line = strings.TrimRight(line, " \t")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		var r rule
		if line[0] == '!' {
			r.negate = true
			line = line[1:]
		}
		if rest, ok := strings.CutSuffix(line, "/"); ok {
			r.dirOnly = true
			line = rest
		}
		anchored := strings.Contains(line, "/")
		line = strings.TrimPrefix(line, "/")
		if line == "" {
			continue
		}
		if !anchored {
			r.names = append(r.names, "**")
		}
		for name := range strings.SplitSeq(line, "/") {
			if name == "**" && len(r.names) > 0 && r.names[len(r.names)-1] == "**" {
				continue
			}
			r.names = append(r.names, gitToPath(name))
		}
		out = append(out, r)
	}
	return out
}

// gitToPath turns a pattern for a name into one of package path: only the sign
// for "none of these" differs.
func gitToPath(name string) string { return strings.ReplaceAll(name, "[!", "[^") }

// ignores tells whether a path is left alone; those in folders that are, are
// not asked for. The last rule that matches counts.
func (rs rules) ignores(p string, dir bool) bool {
	if len(rs) == 0 || p == "" {
		return false
	}
	names := strings.Split(p[1:], "/")
	for i := len(rs) - 1; i >= 0; i-- {
		if r := rs[i]; (dir || !r.dirOnly) && matches(r.names, names) {
			return !r.negate
		}
	}
	return false
}

// ignoresIn is ignores for a path that may be in a folder that is left alone.
func (rs rules) ignoresIn(p string, dir bool) bool {
	if len(rs) == 0 || p == "" {
		return false
	}
	for i := 1; i < len(p); i++ {
		if p[i] == '/' && rs.ignores(p[:i], true) {
			return true
		}
	}
	return rs.ignores(p, dir)
}

// matches goes on from the last "**" when it does not match, so that it takes no
// more than the product of the lengths.
func matches(pattern, names []string) bool {
	star, from := -1, 0
	at, n := 0, 0
	for n < len(names) {
		if at < len(pattern) && pattern[at] == "**" {
			if at == len(pattern)-1 {
				return true // a folder's "**" is all that is in it
			}
			star, from = at, n
			at++
			continue
		}
		if at < len(pattern) {
			if ok, err := path.Match(pattern[at], names[n]); ok && err == nil {
				at++
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		at, n = star+1, from
	}
	return at == len(pattern)
}
