package hyperdht

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestEveryPairOfNATsConnects holds the path of each pair. What has no path
// says why, and is there for relays.
func TestEveryPairOfNATsConnects(t *testing.T) {
	for _, from := range places {
		for _, to := range places {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				inWorld(t, 8, func(t *testing.T, w *world) {
					server := w.peer(to.host(w), Options{})
					s := w.listen(server, ServerOptions{})
					client := w.peer(from.host(w), Options{})
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					start := time.Now()
					c, err := client.Connect(ctx, s.Key(), ConnectOptions{})
					if from.name == "symmetric" && to.name == "symmetric" {
						if !errors.Is(err, ErrBothRandom) {
							t.Fatalf("connect: %v, want %v", err, ErrBothRandom)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					took := time.Since(start)
					t.Logf("%v: %v", took, c.Path())
					// Where no ports have to be guessed it takes a few round trips.
					if from.name != "symmetric" && to.name != "symmetric" && took > 150*time.Millisecond {
						t.Errorf("connected after %v", took)
					}
					want := PathPunched
					if from.name == "open" || to.name == "open" {
						want = PathDirect
					}
					if got := c.Path().Kind; got != want {
						t.Errorf("path is %v, want %v", c.Path(), want)
					}
					talk(t, c)
				})
			})
		}
	}
}
