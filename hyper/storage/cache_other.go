//go:build !linux

package storage

import "github.com/cockroachdb/pebble/v2/vfs"

// dropFromCache is left to the system here.
func dropFromCache(vfs.File) {}
