package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/cloudbevy/bevy/hyper/portmap"
)

// A server of UDP port 49737 asks to be reached from outside.
func Example() {
	m, err := portmap.Map(context.Background(), portmap.UDP, 49737, portmap.Options{})
	if errors.Is(err, portmap.ErrNone) {
		fmt.Println("the router maps no ports")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println("reachable at", m.External(), "by", m.Method(), "from the internet:", m.Public())
}
