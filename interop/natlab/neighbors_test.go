package natlab_test

import (
	"testing"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// Two customers of one carrier are seen from the same address outside, and in
// most homes machines have the same addresses inside. So the other's address at
// home is one's own, or that of somebody else at home. Node.js takes that for
// the other and connects to itself.
func TestNeighborsWithTheSameAddressesMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, network, _ := newMemoryWithDHT(t, clock.System)
		m.alike = true
		kinds := []natlab.Kind{natlab.Carrier, natlab.CarrierHairpin}
		cells := []natlab.Cell{{Client: kinds[0], Server: kinds[0]}, {Client: kinds[1], Server: kinds[1]}}
		runMatrix(t, "neighbors", cells, natlab.Doors{}, m.places(kinds, network, nil), m.places(kinds, network, nil), 1)
	})
}
