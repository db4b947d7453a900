//go:build !amd64 || purego

package salsa

// everyWay runs f: there is one way.
func everyWay[T any](t T, f func(T)) { f(t) }
