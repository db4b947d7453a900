package hyperdht

import (
	"net/netip"
	"testing"
)

// BenchmarkConnect connects by key on loopback and says one word each way.
func BenchmarkConnect(b *testing.B) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var boot []string
	open := func(o Options) *DHT {
		o.Bind, o.Port, o.Bootstrap = loopback, -1, boot
		if boot == nil {
			o.Public, o.Bootstrap = netip.AddrPortFrom(loopback, 0), []string{}
		}
		d, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { d.Close() })
		if err := d.Bootstrapped(b.Context()); err != nil {
			b.Fatal(err)
		}
		if boot == nil {
			boot = []string{d.Node().ServerSocket().LocalAddr().String()}
		}
		return d
	}
	for range 10 {
		open(Options{Open: true, Node: true})
	}
	server, client := open(Options{}), open(Options{})
	// All come from one address, and each handshake is remembered for seconds.
	s, err := server.Listen(b.Context(), server.KeyPair(), ServerOptions{Serve: echo, MaxHandshakes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := client.Connect(b.Context(), s.Key(), ConnectOptions{})
		if err == nil {
			err = c.WriteMessage([]byte("hello"))
		}
		if err == nil {
			_, err = c.ReadMessage(nil)
		}
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
