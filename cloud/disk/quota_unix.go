//go:build unix

package disk

import (
	"errors"
	"syscall"
)

// errQuota is of a user who has no space left.
var errQuota error = syscall.EDQUOT

// isReadOnly tells whether a disk takes no writes.
func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
