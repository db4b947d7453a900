package hyperswarm

import (
	"errors"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
)

type dhtNetwork struct {
	network
	keys noise.KeyPair
	dht  *hyperdht.DHT
}

func openLocal(s *Swarm, o mdns.Options) (local, error) { return nil, errors.ErrUnsupported }
