// Package natlab has the tests of who reaches whom: peers of ours and of
// Node.js on sites of all kinds of internal/natlab, through their NATs. There
// is nothing in it but tests; docs/natlab.md says how to run and read them.
package natlab
