package main

import "testing"

// builtBevy is a folder with what buildBevy builds.
func builtBevy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := buildBevy(t.Context(), work{dir: dir}); err != nil {
		t.Fatal(err)
	}
	return dir
}
