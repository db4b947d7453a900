// Package interop proves compatibility against the real npm packages, running.
//
// It has tests only. They start interop/node/peer.js, which holds the packages at the exact versions of
// interop/node/package-lock.json, and compare both sides: values, bytes, proofs and refusals. The tests are skipped
// where the packages are not installed (`npm ci` in interop/node); with BEVY_INTEROP=1 they fail instead.
//
// Most are random. Their seeds are fixed, and -seed gives another; BEVY_LONG=1 does more of everything. Where the
// reference is wrong, a comment says so and the test allows for that and no more.
package interop
