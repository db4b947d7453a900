package natlab_test

import (
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/natlab"
)

// runMatrix runs a matrix, prints it, and says which cells are not as they must
// be. Of ours it also takes the time where that was promised.
func runMatrix(t *testing.T, name string, cells []natlab.Cell, doors natlab.Doors, clients, servers map[natlab.Kind]*natlab.Place, atOnce int) {
	t.Helper()
	const within = 40 * time.Second
	m := natlab.Run(t.Context(), name, cells, doors, clients, servers, atOnce, within)
	for range 2 {
		for _, c := range cells {
			got, ok := m.Result(c)
			// A time may be that of a machine with much else to do, and a hole that is
			// guessed may not be found: one in a thousand times.
			unlucky := (c.Client == natlab.Symmetric || c.Server == natlab.Symmetric) && got.Path == natlab.None
			if quick(c, doors, m) && !unlucky || !ok {
				continue
			}
			again := natlab.Run(t.Context(), name, []natlab.Cell{c}, doors, clients, servers, 1, within)
			if result, ok := again.Result(c); ok {
				m.Set(c, result)
			}
		}
	}
	m.Print(t.Output())
	for _, cell := range cells {
		got, ok := m.Result(cell)
		if !ok || !doors.Allows(cell, got.Path) {
			t.Errorf("%s: %v %s, want %s", cell, got, got.Error, doors.Want(cell))
		}
		if !quick(cell, doors, m) {
			t.Errorf("%s: %v, want less than %v", cell, got, limit(cell))
		}
	}
}

// limit is the time that was promised for a cell with our client, or zero.
func limit(c natlab.Cell) time.Duration {
	switch {
	case c.Client.NoUDP() || c.Server.NoUDP():
		return 3 * time.Second
	case c.Client == natlab.Symmetric && c.Server == natlab.Symmetric:
		return time.Second
	}
	return 0
}

func quick(c natlab.Cell, doors natlab.Doors, m *natlab.Matrix) bool {
	got, ok := m.Result(c)
	return !ok || !doors.Client || got.Path == natlab.None || limit(c) == 0 || got.Took() < limit(c)
}
