//go:build !linux

package disk

import "os"

// renameNew is not to be had here.
func renameNew(*os.Root, string, string) (bool, error) { return false, nil }
