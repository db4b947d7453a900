//go:build !linux && !darwin

package disk

// bootID would name the time since the machine was started.
func bootID() string { return "" }
