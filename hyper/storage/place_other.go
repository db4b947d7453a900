//go:build !unix

package storage

// folderNumber has no portable source here: the path stands for it.
func folderNumber(string) (uint64, bool) { return 0, false }
