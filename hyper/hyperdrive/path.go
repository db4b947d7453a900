package hyperdrive

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// CleanPath returns a path as drives have it: absolute, with slashes, without
// empty parts, "." and "..", as unix-path-resolve makes it. Backslashes are
// slashes. ErrPath means that it leads out of the drive, is the drive itself, or
// is no text.
func CleanPath(p string) (string, error) {
	dir, err := cleanFolder(p)
	if err == nil && dir == "" {
		err = fmt.Errorf("%w: %q names no file", ErrPath, p)
	}
	return dir, err
}

// cleanFolder is CleanPath of a folder, without the slash at its end: "" is the
// drive itself.
func cleanFolder(p string) (string, error) {
	if isClean(p) {
		return p, nil
	}
	if !utf8.ValidString(p) || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("%w: %q is no text", ErrPath, p)
	}
	names := strings.FieldsFunc(p, isSlash)
	if first := strings.IndexFunc(p, isSlash); first > 0 && p[first-1] == ':' {
		// A volume, or a scheme.
		switch volume := p[:first]; {
		case utf8.RuneCountInString(volume) == 2 || volume == "file:":
			names = names[1:]
		default:
			names = splitSlashes(p)
			names = names[min(3, len(names)):]
		}
	}
	var out []string
	for _, name := range names {
		switch name {
		case "", ".":
		case "..":
			if len(out) == 0 {
				return "", fmt.Errorf("%w: %q leads out of the drive", ErrPath, p)
			}
			out = out[:len(out)-1]
		default:
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return "", nil
	}
	return "/" + strings.Join(out, "/"), nil
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

func splitSlashes(p string) []string { return strings.Split(strings.ReplaceAll(p, `\`, "/"), "/") }

// isClean reports whether a path is one of a file already.
func isClean(p string) bool {
	if len(p) < 2 || p[0] != '/' || path.Clean(p) != p || strings.ContainsAny(p, "\\\x00") {
		return false
	}
	return utf8.ValidString(p)
}

// resolve returns what a link at a path leads to, as file systems do: from the
// folder that the link is in.
func resolve(link, target string) (string, error) {
	if target == "" {
		return "", fmt.Errorf("%w: %q is a link to nothing", ErrPath, link)
	}
	if !isSlash(rune(target[0])) {
		target = path.Dir(link) + "/" + target
	}
	return cleanFolder(target)
}
