package packet_test

import (
	"testing"

	"github.com/cloudbevy/bevy/hyper/packet"
)

func TestSystemWithoutSegments(t *testing.T) {
	defer packet.Without(false, true)()
	runSystem(t)
}

// Machines that are not Linux work like this, and sandboxes that refuse calls.
func TestSystemWithoutBatches(t *testing.T) {
	defer packet.Without(true, true)()
	runSystem(t)
}
