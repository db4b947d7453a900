// Package cloudlab has the proof of "bevy up": real processes on machines of a
// laboratory of networks (internal/natlab), with real folders that people work in.
// In the long form their cables are pulled out, and they are killed in the middle of
// everything. Afterwards every folder must equal every other, and what was acknowledged must be
// there. There is nothing in it but tests:
//
//	go test ./interop/cloudlab                               # the short form
//	BEVY_SEED=7 go test -run TestLife ./interop/cloudlab     # the same again
//	BEVY_LONG=1 BEVY_LIFE=2h go test -timeout 0 -run TestLife ./interop/cloudlab
package cloudlab
