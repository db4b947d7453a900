package natlab

import (
	"context"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A Network is what subjects must know of the network that they are on. Its JSON
// is part of what processes are called with.
type Network struct {
	Bootstrap []string `json:"bootstrap"` // nodes of the DHT
	Relay     *Relay   `json:"relay,omitempty"`
	Door      string   `json:"door,omitempty"` // the URL of a WebSocket door
}

// A Relay is a blind relay.
type Relay struct {
	Host string `json:"host"`
	Key  string `json:"key"`
}

// Process is the subject that a process is: one that takes the calls that
// interop/node/natlab.js lists, whatever it is written in.
func Process(p *nodepeer.Process, network Network) Subject { return &process{p, network} }

type process struct {
	p       *nodepeer.Process
	network Network
}

// params are of all calls.
type params struct {
	Network
	Key     string  `json:"key,omitempty"`
	Timeout float64 `json:"timeout,omitempty"` // in ms
}

func (s *process) Listen(ctx context.Context) (string, error) {
	var made struct{ Key string }
	err := s.p.Call(ctx, "listen", params{Network: s.network}, &made)
	return made.Key, err
}

func (s *process) Connect(ctx context.Context, key string, through bool, within time.Duration) (result Result, err error) {
	with := params{Network: s.network, Key: key, Timeout: float64(within.Milliseconds())}
	if !through {
		with.Relay = nil
	}
	err = s.p.Call(ctx, "connect", with, &result)
	return result, err
}

func (s *process) Again(ctx context.Context, within time.Duration) (result Result, err error) {
	err = s.p.Call(ctx, "again", params{Timeout: float64(within.Milliseconds())}, &result)
	return result, err
}

func (s *process) Drop(ctx context.Context) error { return s.p.Call(ctx, "drop", nil, nil) }
