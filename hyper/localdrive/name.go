package localdrive

import (
	"fmt"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// What is the most that file systems can have, in bytes.
const (
	maxName = 255
	maxPath = 4096
)

// Check returns ErrName unless a path can be that of a file here: one of a drive,
// with names that mean nothing else on this system.
func (f *Folder) Check(path string) error { return checkPath(path, windows) }

func checkPath(path string, windows bool) error {
	if clean, err := hyperdrive.CleanPath(path); err != nil || clean != path {
		return fmt.Errorf("%w: %q is no path of a drive", ErrName, path)
	}
	if len(path) > maxPath {
		return fmt.Errorf("%w: %.40q… has %d bytes, %d are allowed", ErrName, path, len(path), maxPath)
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if len(name) > maxName {
			return fmt.Errorf("%w: %.40q… has %d bytes, %d are allowed", ErrName, name, len(name), maxName)
		}
		if isTemp(name) {
			return fmt.Errorf("%w: %q is that of a temporary file", ErrName, name)
		}
		if why := BadOnWindows(name); windows && why != "" {
			return fmt.Errorf("%w: %q %s", ErrName, name, why)
		}
	}
	return nil
}

// BadOnWindows returns why a name can't be that of a file on Windows, or means
// another file or a device there; "" if it can.
func BadOnWindows(name string) string {
	for _, r := range name {
		if r < ' ' || strings.ContainsRune(`<>:"|?*\`, r) {
			return fmt.Sprintf("has %q, which Windows does not allow", r)
		}
	}
	if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return "ends in a dot or a space, which Windows leaves out"
	}
	base, _, _ := strings.Cut(name, ".")
	switch base = strings.ToUpper(strings.TrimRight(base, " ")); base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return "is a device on Windows"
	}
	if number, ok := strings.CutPrefix(base, "COM"); ok && isPort(number) {
		return "is a device on Windows"
	}
	if number, ok := strings.CutPrefix(base, "LPT"); ok && isPort(number) {
		return "is a device on Windows"
	}
	return ""
}

func isPort(number string) bool {
	switch number {
	case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
		return true
	}
	return false
}
