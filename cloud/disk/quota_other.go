//go:build !unix

package disk

import "errors"

var errQuota = errors.New("over quota")

func isReadOnly(error) bool { return false }
