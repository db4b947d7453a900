package lawtest

import (
	"fmt"
	"strings"
	"testing"
)

// tiny is a tree of one file.
func tiny(t *testing.T, name, text string) []*file {
	t.Helper()
	f, err := parse(name, text)
	if err != nil {
		t.Fatal(err)
	}
	return []*file{f}
}

// A law that catches nothing is no law: each is shown what it must refuse and
// what it must let through.
func TestSourceLawsBite(t *testing.T) {
	for _, c := range []struct {
		law   func([]*file) []string
		what  string
		path  string
		text  string
		broke bool
	}{
		{importsGoDown, "up inside hyper", "hyper/merkle/a.go", `package merkle; import _ "` + module + `/hyper/storage"`, true},
		{importsGoDown, "down inside hyper", "hyper/storage/a.go", `package storage; import _ "` + module + `/hyper/merkle"`, false},
		{importsGoDown, "corestore to replicate", "hyper/corestore/a.go", `package corestore; import _ "` + module + `/hyper/replicate"`, false},
		{importsGoDown, "replicate to corestore", "hyper/replicate/a.go", `package replicate; import _ "` + module + `/hyper/corestore"`, true},
		{importsGoDown, "clock to compact", "hyper/clock/a.go", `package clock; import _ "` + module + `/hyper/compact"`, true},
		{importsGoDown, "up in a test", "hyper/merkle/a_test.go", `package merkle; import _ "` + module + `/hyper/storage"`, true},
		{importsGoDown, "within a family", "hyper/storage/disk/a.go", `package disk; import _ "` + module + `/hyper/storage"`, false},
		{importsGoDown, "hyper to internal", "hyper/noise/a.go", `package noise; import _ "` + module + `/internal/nodepeer"`, true},
		{importsGoDown, "a hyper test to internal", "hyper/noise/a_test.go", `package noise; import _ "` + module + `/internal/nodepeer"`, false},
		{importsGoDown, "internal to hyper", "internal/nodepeer/a.go", `package nodepeer; import _ "` + module + `/hyper/noise"`, true},
		{importsGoDown, "internal to internal", "internal/nodepeer/a.go", `package nodepeer; import _ "` + module + `/internal/leak"`, false},
		{importsGoDown, "hyper to cloud", "hyper/mdns/a.go", `package mdns; import _ "` + module + `/cloud"`, true},
		{importsGoDown, "door to door", "services/s3/a.go", `package s3; import _ "` + module + `/services/http"`, true},
		{importsGoDown, "door to a part of it", "services/s3/a.go", `package s3; import _ "` + module + `/services/s3/sign"`, false},
		{importsGoDown, "swarm to a door", "swarm/a.go", `package swarm; import _ "` + module + `/services/s3"`, true},
		{importsGoDown, "node to a door", "node/a.go", `package node; import _ "` + module + `/services/s3"`, false},
		{importsGoDown, "node to the root", "node/a.go", `package node; import _ "` + module + `"`, true},
		{importsGoDown, "command to the root", "cmd/bevy/a.go", `package main; import _ "` + module + `"`, false},
		{importsGoDown, "command to bench", "cmd/bevy/a.go", `package main; import _ "` + module + `/bench"`, true},
		{importsGoDown, "anyone to a command", "bench/a.go", `package main; import _ "` + module + `/cmd/bevy"`, true},
		{importsGoDown, "no floor", "util/a.go", `package util`, true},
		{importsGoDown, "no floor in hyper", "hyper/clockwork/a.go", `package clockwork`, true},
		{importsGoDown, "a module whose name begins like ours", "hyper/noise/a.go", `package noise; import _ "` + module + `er/internal"`, false},

		{noCgo, "cgo", "cmd/bevy/a.go", `package main; import "C"`, true},
		{noCgo, "no cgo", "cmd/bevy/a.go", `package main; import "fmt"`, false},

		{packageComments, "none", "hyper/noise/a.go", "package noise", true},
		{packageComments, "not in the usual form", "hyper/noise/a.go", "// Noise does things.\npackage noise", true},
		{packageComments, "a comment", "hyper/noise/a.go", "// Package noise shakes hands.\npackage noise", false},
		{packageComments, "a command", "cmd/bevy/a.go", "// Bevy is a cloud.\npackage main", false},
		{packageComments, "tests only", "hyper/noise/a_test.go", "package noise_test", false},

		{timeSeam, "now", "hyper/noise/a.go", `package noise; import "time"; var x = time.Now()`, true},
		{timeSeam, "now as a value", "hyper/noise/a.go", `package noise; import "time"; var x = time.Now`, true},
		{timeSeam, "now under another name", "hyper/noise/a.go", `package noise; import clock "time"; var x = clock.Now()`, true},
		{timeSeam, "sleep", "cmd/bevy/a.go", `package main; import "time"; func f() { time.Sleep(1) }`, true},
		{timeSeam, "since", "hyper/noise/a.go", `package noise; import "time"; var x = time.Since`, true},
		{timeSeam, "dot", "hyper/noise/a.go", `package noise; import . "time"; var x = Now()`, true},
		{timeSeam, "in the seam", "hyper/clock/a.go", `package clock; import "time"; var x = time.Now()`, false},
		{timeSeam, "in a test", "hyper/noise/a_test.go", `package noise; import "time"; var x = time.Now()`, false},
		{timeSeam, "durations", "hyper/noise/a.go", `package noise; import "time"; var x = time.UnixMilli(5).Add(time.Second)`, false},
		{timeSeam, "a field of that name", "hyper/noise/a.go", `package noise; type c struct{ Now int }; func f(time c) int { return time.Now }`, false},

		{netSeam, "net", "hyper/udx/a.go", `package udx; import "net"`, true},
		{netSeam, "http", "internal/leak/a.go", `package leak; import "net/http"`, true},
		{netSeam, "under http", "cloud/a.go", `package cloud; import "net/http/httptest"`, true},
		{netSeam, "addresses", "hyper/udx/a.go", `package udx; import "net/netip"`, false},
		{netSeam, "a door", "services/s3/a.go", `package s3; import "net/http"`, false},
		{netSeam, "the Node gear", "internal/nodepeer/a.go", `package nodepeer; import "net"`, false},

		{noWeakRandom, "math/rand", "hyper/noise/a.go", `package noise; import "math/rand"`, true},
		{noWeakRandom, "math/rand/v2", "hyper/noise/a.go", `package noise; import "math/rand/v2"`, true},
		{noWeakRandom, "in a test", "hyper/noise/a_test.go", `package noise; import "math/rand/v2"`, false},
		{noWeakRandom, "crypto/rand", "hyper/noise/a.go", `package noise; import "crypto/rand"`, false},

		{noNotes, "a note", "node/a.go", "package node\n// TO" + "DO: later", true},
		{noNotes, "in a block", "node/a.go", "package node\n/* x\nFIX" + "ME */", true},
		{noNotes, "another word", "node/a.go", "package node\n// TO" + "DOS was a shell", false},

		{docComments, "func", "hyper/noise/a.go", "package noise\nfunc Dial() {}", true},
		{docComments, "method", "hyper/noise/a.go", "package noise\n// C.\ntype C int\nfunc (C) Dial() {}", true},
		{docComments, "generic method", "hyper/noise/a.go", "package noise\n// C.\ntype C[K, V any] int\nfunc (*C[K, V]) Dial() {}", true},
		{docComments, "method of a hidden type", "hyper/noise/a.go", "package noise\ntype c int\nfunc (c) Dial() {}", false},
		{docComments, "text of an error", "hyper/noise/a.go", "package noise\n// E.\ntype E int\nfunc (E) Error() string { return \"\" }", false},
		{docComments, "func named as a method of errors", "hyper/noise/a.go", "package noise\nfunc Unwrap() {}", true},
		{docComments, "type", "hyper/noise/a.go", "package noise\ntype C int", true},
		{docComments, "type in a group", "hyper/noise/a.go", "package noise\n// Types.\ntype (\nC int\n)", true},
		{docComments, "interface method", "hyper/noise/a.go", "package noise\n// C.\ntype C interface { Dial() }", true},
		{docComments, "const", "hyper/noise/a.go", "package noise\nconst Max = 1", true},
		{docComments, "consts in a group", "hyper/noise/a.go", "package noise\n// Limits.\nconst (\nMax = 1\nMin = 2\n)", false},
		{docComments, "var with a comment behind it", "hyper/noise/a.go", "package noise\nvar (\nMax = 1 // most\n)", false},
		{docComments, "hidden", "hyper/noise/a.go", "package noise\nfunc dial() {}", false},
		{docComments, "outside hyper", "node/a.go", "package node\nfunc Dial() {}", false},
	} {
		breaches := c.law(tiny(t, c.path, c.text))
		if got := len(breaches) > 0; got != c.broke {
			t.Errorf("%s in %s: got breach %v, want %v\n%s\n%q", c.what, c.path, got, c.broke, c.text, breaches)
		}
	}
}

func TestDependencyLawBites(t *testing.T) {
	gomod := "module m\n\nrequire example.org/one v1.0.0\nrequire (\n\texample.org/two/v2 v2.0.1\n\texample.org/three v0.1.0 // indirect\n\texample.org/four v0.1.0 // indirect\n)\n"
	files := tiny(t, "node/a.go", `package node; import _ "example.org/four/part"`)
	for why, want := range map[string]int{
		"":                                   3,
		"example.org/one example.org/two/v2": 1,
		"example.org/one example.org/two/v2 example.org/four": 0,
	} {
		if got := dependencies(files, gomod, why); len(got) != want {
			t.Errorf("why %q: got %q, want %d complaints", why, got, want)
		}
	}
}

func TestDocumentLawsBite(t *testing.T) {
	tests := testNames(tiny(t, "hyper/noise/a_test.go", "package noise\nfunc TestA() {}\nfunc BenchmarkB() {}\nfunc Testify() {}\nfunc (x) TestC() {}"))
	for _, c := range []struct {
		text  string
		broke bool
	}{
		{"| Promise | Test |\n|---|---|\n| it works | `TestA` |", false},
		{"| Promise | Test |\n|---|---|\n| it works | `hyper/noise.TestA`, `BenchmarkB` |", false},
		{"| Promise | Test |\n|---|---|\n| it works | `hyper/merkle.TestA` |", true},
		{"| Promise | Test |\n|---|---|\n| it works | `TestA`, `TestB` |", true},
		{"| Promise | Test |\n|---|---|\n| it works | `TestC` |", true},
		{"| Promise | Test |\n|---|---|\n| it works | `Testify` |", true},
		{"| Promise | Test |\n|---|---|\n| it works | soon |", true},
		{"no table", true},
	} {
		if got := promises(tests, c.text); (len(got) > 0) != c.broke {
			t.Errorf("%q: got %q, want a breach %v", c.text, got, c.broke)
		}
	}

	var rows []string
	for n := 1; n <= seedRows; n++ {
		rows = append(rows, fmt.Sprintf("| S%03d | a \\| b | not yet | |", n))
	}
	whole := strings.Join(rows, "\n")
	with := func(row string) string { return strings.Replace(whole, rows[4], row, 1) }
	for _, c := range []struct {
		what, text string
		want       int
	}{
		{"whole", whole, 0},
		{"a proof", with("| S005 | a | works | `TestA` |"), 0},
		{"partly with a proof", with("| S005 | a | partly | `BenchmarkB`; sets are missing |"), 0},
		{"no proof", with("| S005 | a | works | |"), 1},
		{"partly without", with("| S005 | a | partly | soon |"), 1},
		{"a proof that is not there", with("| S005 | a | works | `TestZ` |"), 1},
		{"another state", with("| S005 | a | nearly | `TestA` |"), 1},
		{"a row less", with(""), 1},
		{"a row twice", with(rows[4] + "\n" + rows[4]), 1},
		{"a row too many", with(rows[4] + "\n| S368 | a | not yet | |"), 1},
		{"a cell less", with("| S005 | a | not yet |"), 1},
	} {
		if got := seedMap(tests, c.text); len(got) != c.want {
			t.Errorf("%s: got %q, want %d complaints", c.what, got, c.want)
		}
	}
}
