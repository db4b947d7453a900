package udx_test

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/udx"
)

// Two streams that know of one another from somewhere else.
func Example() {
	u := udx.New(udx.Options{})
	here, err := u.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udx.SocketOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer here.Close()
	there, err := u.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udx.SocketOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer there.Close()

	a, _ := u.NewStream(udx.StreamOptions{})
	b, _ := u.NewStream(udx.StreamOptions{})
	a.Connect(here, b.ID(), there.LocalAddr())
	b.Connect(there, a.ID(), here.LocalAddr())

	fmt.Fprint(a, "hello")
	a.Close()
	text, err := io.ReadAll(b)
	b.Close()
	fmt.Println(string(text), err)
	// Output: hello <nil>
}
