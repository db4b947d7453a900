//go:build !purego

package salsa

import "testing"

// everyWay runs f with each kind of vectors that there is, and without.
func everyWay[T interface {
	Run(string, func(T)) bool
	Cleanup(func())
}](t T, f func(T)) {
	hasWide, hasWidest := wide, widest
	t.Cleanup(func() { wide, widest = hasWide, hasWidest })
	t.Run("without vectors", func(t T) {
		wide, widest = false, false
		f(t)
	})
	if hasWide {
		t.Run("wide", func(t T) {
			wide, widest = true, false
			f(t)
		})
	}
	if hasWidest {
		t.Run("widest", func(t T) {
			wide, widest = true, true
			f(t)
		})
	}
}

var _ = everyWay[*testing.T]
