package blindrelay

import (
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/udx"
)

// NewServer returns a relay that joins streams of o.UDX, which must be open for
// as long as the relay is.
func NewServer(o Options) *Server {
	return newServer(joinStreams(o.UDX), o)
}

// joinStreams makes wires of streams. A stream learns where its peer is from
// the first packet that comes for it: who knows its number has it from the
// relay.
func joinStreams(u *udx.UDX) joiner {
	return func(ids [2]uint32, meters [2]*meter, closed func()) (wire, error) {
		w := &streams{}
		for i := range w {
			var err error
			w[i], err = u.NewStream(udx.StreamOptions{
				Relay: meters[i].pass,
				Firewall: func(socket *udx.Socket, from netip.AddrPort) bool {
					return w[i].Connected() || w[i].Connect(socket, ids[i], from) == nil
				},
				Remote: func(from netip.AddrPort) { w.follow(i, from) },
			})
			if err != nil {
				w.close()
				return nil, fmt.Errorf("open a stream to relay: %w", err)
			}
		}
		for i, s := range w {
			if err := s.RelayTo(w[1-i]); err != nil {
				w.close()
				return nil, err
			}
		}
		w[0].OnClose(func(error) { closed() })
		w[1].OnClose(func(error) { closed() })
		return w, nil
	}
}

// streams are a wire.
type streams [2]*udx.Stream

// follow sends to another port of a peer: its NAT has forgotten the one before.
// Another address may be anybody's.
func (w *streams) follow(i int, from netip.AddrPort) {
	if s := w[i]; from.Addr() == s.RemoteAddrPort().Addr() {
		s.ChangeRemote(s.Socket(), s.RemoteID(), from, nil) // the next packet tries again
	}
}

func (w *streams) ids() [2]uint32 { return [2]uint32{w[0].ID(), w[1].ID()} }

func (w *streams) close() {
	for _, s := range w {
		if s != nil {
			s.Destroy()
		}
	}
}
