//go:build !linux

package natlab

import "errors"

// Check says why there can be no lab here.
func Check() error { return errors.New("a lab needs Linux") }
