// Package udx is reliable streams over UDP, packet for packet those of libudx,
// so that its peers can be udx-native ones. It encrypts nothing, shakes no
// hands and finds nobody: two sides that know one another's addresses and the
// ids of their streams, from somewhere else, connect them.
//
//	u := udx.New(udx.Options{})
//	socket, err := u.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udx.SocketOptions{})
//	stream, err := u.NewStream(udx.StreamOptions{})
//	// … tell the other side stream.ID(), and learn its id and address …
//	err = stream.Connect(socket, id, addr)
//
// A stream is a [net.Conn] and a [transport.Conn] then. Many of them share a
// socket, with each other and with datagrams of other kinds, which the socket's
// Receive gets.
//
// # What it does
//
// Every packet of data is acked, with SACK blocks when some are missing. Loss
// is found by RACK-TLP (RFC 8985), and in the end by timeouts, the seventh of
// which ends the stream; BBR paces what goes out. The path's MTU is looked for
// with padded packets of data, and again if it seems to have shrunk. Streams move
// to other addresses ([Stream.ChangeRemote]), are passed on to others
// ([Stream.RelayTo]), and send datagrams beside their bytes
// ([Stream.SendMessage]).
//
// UDX knows no secrets: who guesses the id of a stream and where it stands can
// end it. A packet that can't be the other side's, by its seq and its ack, is
// dropped, which libudx does not do.
//
// # What it costs
//
// A stream has no goroutine; a socket has one that reads. A stream with nothing
// on its way has no timer either, unless it sends heartbeats, and no buffers.
// At most 4 MiB wait to be read and 16 MiB to be acked; or 16 MiB to be read, if a
// reader was fast enough to fill a line for which 4 MiB are too little. A peer that
// ignores our window can make it twice as much.
package udx

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// Options are of a [UDX]. The zero value is the machine's.
type Options struct {
	Network packet.Network // packet.System
	Clock   clock.Clock    // clock.System
	Random  io.Reader      // crypto/rand
}

// A UDX is a table of streams, and the sockets that they go over. Its methods
// may be called by any goroutine, as those of its sockets and streams.
type UDX struct {
	network packet.Network
	clock   clock.Clock
	start   time.Time

	mu      sync.RWMutex // taken last of all
	random  io.Reader
	streams map[uint32]*Stream
}

// New returns a UDX without streams.
func New(o Options) *UDX {
	if o.Network == nil {
		o.Network = packet.System
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	return &UDX{
		network: o.Network,
		clock:   o.Clock,
		// For a core, zero is no time.
		start:   o.Clock.Now().Add(-time.Second),
		random:  o.Random,
		streams: map[uint32]*Stream{},
	}
}

// now is the time as cores have it.
func (u *UDX) now() time.Duration { return u.clock.Now().Sub(u.start) }

// LocalAddrs returns the addresses of this machine, as
// [packet.Network.LocalAddrs] does.
func (u *UDX) LocalAddrs() ([]netip.Addr, error) { return u.network.LocalAddrs() }

// NewStream returns a stream with a new id. It takes what its firewall lets in,
// and waits to be connected. It has to be closed.
func (u *UDX) NewStream(o StreamOptions) (*Stream, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		var b [12]byte
		if _, err := io.ReadFull(u.random, b[:]); err != nil {
			return nil, fmt.Errorf("choose the id of a stream: %w", err)
		}
		id := binary.LittleEndian.Uint32(b[:])
		if _, taken := u.streams[id]; taken || id == 0 {
			continue
		}
		s := newStream(u, id, binary.LittleEndian.Uint64(b[4:]), o)
		u.streams[id] = s
		return s, nil
	}
}

func (u *UDX) stream(id uint32) *Stream {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.streams[id]
}

func (u *UDX) forget(s *Stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.streams[s.id] == s { // the id may be another's by now
		delete(u.streams, s.id)
	}
}

// Stats are counters of a stream since it was made, and how it stands. Those of
// a stream that is relayed count what was passed on.
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
	Silence  time.Duration // since the last packet came; zero if there was none
}
