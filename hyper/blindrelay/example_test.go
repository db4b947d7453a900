package blindrelay_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// Two peers send each other something through a relay, which has the address
// 24.0.1.1:4000.
func Example() {
	ctx := context.Background()
	internet := packet.NewSim(clock.System, 1)
	open := func(last byte) (*udx.UDX, *udx.Socket) {
		host := internet.Host(netip.AddrFrom4([4]byte{24, 0, last, 1}))
		u := udx.New(udx.Options{Network: host})
		socket, err := u.Listen(netip.AddrPortFrom(host.Addr(), 4000), udx.SocketOptions{})
		if err != nil {
			fmt.Println(err)
		}
		return u, socket
	}
	relayUDX, relaySocket := open(1)
	defer relaySocket.Close()
	relay := blindrelay.NewServer(blindrelay.Options{UDX: relayUDX})
	defer relay.Close()

	token, _ := blindrelay.NewToken(nil)
	heard := [2]string{}
	var both, met sync.WaitGroup
	met.Add(2)
	for i := range 2 {
		both.Go(func() {
			// A connection to the relay, which would be one of hyper/hyperdht.
			a, b := transport.Pipe()
			go func() {
				conn, err := secretstream.Server(ctx, b, secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{9})})
				if err == nil {
					relay.Serve(ctx, conn)
				}
			}()
			conn, err := secretstream.Client(ctx, a, secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{byte(i)})})
			if err != nil {
				fmt.Println(err)
				return
			}
			client, _ := blindrelay.NewClient(conn)
			defer client.Close()

			u, socket := open(byte(2 + i))
			defer socket.Close()
			stream, _ := u.NewStream(udx.StreamOptions{})
			id, err := client.Pair(ctx, i == 1, token, stream.ID())
			if err == nil {
				err = stream.Connect(socket, id, relaySocket.LocalAddr())
			}
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Fprintf(stream, "peer %d", i)
			buf := make([]byte, 100)
			n, _ := stream.Read(buf)
			heard[i] = string(buf[:n])
			met.Done()
			met.Wait() // what goes through the relay ends with either of the two
			stream.Destroy()
		})
	}
	both.Wait()
	fmt.Printf("%q\n", heard)
	// Output: ["peer 1" "peer 0"]
}
