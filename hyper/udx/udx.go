// Package udx is reliable streams over UDP, packet for packet those of libudx.
package udx

import "time"

// Stats are counters of a stream since it was made, and how it stands.
type Stats struct {
	PacketsSent, PacketsReceived uint64
	BytesSent, BytesReceived     uint64 // with headers of the stream, without those of UDP and IP
	Lost                         uint64 // packets held for lost
	Resent                       uint64 // packets sent again
	Recoveries                   uint64 // times that loss was found without a timeout
	Timeouts                     uint64
	PacketsDropped               uint64 // that came, and couldn't be what the other side sent, or had no room

	RTT      time.Duration // smoothed; zero if not known yet
	MTU      int           // of the path, as found so far
	Window   int           // packets that may be in flight
	InFlight int           // packets that are
}

// A Socket is a UDP socket.
type Socket struct{}
