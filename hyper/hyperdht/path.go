package hyperdht

import (
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// A PathKind says what is between two peers.
type PathKind uint8

// The kinds of path, best first.
const (
	// PathLAN is the local network, or the same machine.
	PathLAN PathKind = iota
	// PathDirect is one where a side could be reached as it is.
	PathDirect
	// PathPunched is one through holes that were punched into NATs.
	PathPunched
	// PathRelayed is one through a blind relay.
	PathRelayed
)

// String returns the word for it.
func (k PathKind) String() string { return [...]string{"lan", "direct", "punched", "relayed"}[k&3] }

// A Path says how a connection goes.
type Path struct {
	// Kind is what is between the peers.
	Kind PathKind
	// Relay is the key of the relay of a relayed path.
	Relay noise.Key
	// Addr is where packets are sent to: the other side, or the relay.
	Addr netip.AddrPort
	// Why says why the path is not a better one, in words for people. It is empty
	// if there is none better.
	Why string
}

// String describes the path in a line.
func (p Path) String() string {
	s := p.Kind.String()
	if p.Kind == PathRelayed {
		s += " through " + p.Relay.String()
	}
	s += " by " + p.Addr.String()
	if p.Why != "" {
		s += " (" + p.Why + ")"
	}
	return s
}
