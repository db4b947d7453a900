package natlab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sync"
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
	Through bool    `json:"through,omitempty"`
	Timeout float64 `json:"timeout,omitempty"` // in ms
}

func (p params) within() time.Duration { return time.Duration(p.Timeout * float64(time.Millisecond)) }

func (s *process) Listen(ctx context.Context) (string, error) {
	var made struct{ Key string }
	err := s.p.Call(ctx, "listen", params{Network: s.network}, &made)
	return made.Key, err
}

func (s *process) Connect(ctx context.Context, key string, through bool, within time.Duration) (result Result, err error) {
	with := params{Network: s.network, Key: key, Through: through, Timeout: float64(within.Milliseconds())}
	err = s.p.Call(ctx, "connect", with, &result)
	return result, err
}

func (s *process) Again(ctx context.Context, within time.Duration) (result Result, err error) {
	err = s.p.Call(ctx, "again", params{Timeout: float64(within.Milliseconds())}, &result)
	return result, err
}

func (s *process) Drop(ctx context.Context) error { return s.p.Call(ctx, "drop", nil, nil) }

// Serve makes this process a subject: it answers the calls on in until that
// ends. Open makes a subject for a network when it is first called for that.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(Network) Subject) error {
	var (
		mu      sync.Mutex // guards subject, on and out
		subject Subject
		on      Network // of subject
		calls   sync.WaitGroup
	)
	defer calls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	say := func(v any) error {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = out.Write(append(line, '\n'))
		return err
	}
	of := func(n Network) Subject {
		mu.Lock()
		defer mu.Unlock()
		// Calls that are about what is there bring no network.
		if subject == nil || n.Bootstrap != nil && !reflect.DeepEqual(n, on) {
			subject, on = open(n), n
		}
		return subject
	}
	if err := say(map[string]any{"ready": true}); err != nil {
		return err
	}
	lines := json.NewDecoder(in)
	for {
		var call struct {
			ID     uint64 `json:"id"`
			Method string `json:"method"`
			Params params `json:"params"`
		}
		if err := lines.Decode(&call); err != nil {
			if err == io.EOF {
				err = nil
			}
			return err
		}
		calls.Go(func() {
			result, err := answer(ctx, of, call.Method, call.Params)
			reply := map[string]any{"id": call.ID, "result": result}
			if err != nil {
				reply = map[string]any{"id": call.ID, "error": map[string]string{"message": err.Error()}}
			}
			if say(reply) != nil {
				cancel() // nobody hears it
			}
		})
	}
}

func answer(ctx context.Context, of func(Network) Subject, method string, p params) (any, error) {
	s := of(p.Network)
	switch method {
	case "listen":
		key, err := s.Listen(ctx)
		return map[string]string{"key": key}, err
	case "connect":
		return s.Connect(ctx, p.Key, p.Through, p.within())
	case "again":
		return s.Again(ctx, p.within())
	case "drop":
		return nil, s.Drop(ctx)
	}
	return nil, fmt.Errorf("no method is named %q", method)
}
