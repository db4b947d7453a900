// Package lawtest holds the laws of the house over the whole module, as
// ordinary tests. It has no code of its own and nothing imports it.
//
// Each law is a function from the files of the tree to what breaks it, and
// each complaint says why the law is there. Run them with
//
//	go test ./internal/lawtest
//
// The floors, and so the order in which packages may import one another, are
// the table in floors_test.go. A new package needs its line there: where it
// stands is a decision, not an accident.
package lawtest
