package blindrelay

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/udx"
)

// NewServer returns a relay that joins streams of o.UDX, which must be open for
// as long as the relay is.
func NewServer(o Options) *Server {
	return newServer(joinStreams(o.UDX), o)
}

// joinStreams makes wires of streams. A stream learns where its peer is from
// the connection of the peer, or else from the first packet that comes for it:
// who knows its number has it from the relay.
func joinStreams(u *udx.UDX) joiner {
	return func(peers [2]peer, closed func()) (wire, error) {
		w := &streams{}
		for i, p := range peers {
			end := &w[i]
			end.made.Lock()
			s, err := u.NewStream(udx.StreamOptions{
				Relay: func(size int) bool {
					end.heard.Store(true)
					return p.meter.pass(size)
				},
				Firewall: func(socket *udx.Socket, from netip.AddrPort) bool {
					end.made.Lock() // somebody may have guessed the number
					defer end.made.Unlock()
					return end.Connected() || end.Connect(socket, p.id, from) == nil
				},
				Remote: end.follow,
			})
			end.Stream = s
			end.made.Unlock()
			if err == nil {
				if p.conn != nil && p.conn.Connected() {
					err = s.Connect(p.conn.Socket(), p.id, p.conn.RemoteAddrPort())
				}
			}
			if err != nil {
				w.close()
				return nil, fmt.Errorf("open a stream to relay: %w", err)
			}
		}
		for i := range w {
			if err := w[i].RelayTo(w[1-i].Stream); err != nil {
				w.close()
				return nil, err
			}
		}
		for i := range w {
			w[i].OnClose(func(error) { closed() })
		}
		return w, nil
	}
}

// streams are a wire.
type streams [2]end

// An end is the stream to one peer.
type end struct {
	*udx.Stream
	made  sync.Mutex  // held until Stream is there
	heard atomic.Bool // something has come from the peer
}

// follow sends to another port of the peer: its NAT has forgotten the one
// before. Another address may be anybody's, unless it is the first.
func (e *end) follow(from netip.AddrPort) {
	if !e.heard.Load() || from.Addr() == e.RemoteAddrPort().Addr() {
		e.ChangeRemote(e.Socket(), e.RemoteID(), from, nil) // the next packet tries again
	}
}

func (w *streams) ids() [2]uint32 { return [2]uint32{w[0].ID(), w[1].ID()} }

func (w *streams) close() {
	for i := range w {
		if w[i].Stream != nil {
			w[i].Destroy()
		}
	}
}
