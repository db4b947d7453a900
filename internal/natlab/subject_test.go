package natlab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// said is a subject that says what it was asked.
type said struct{ network Network }

func (s said) Listen(context.Context) (string, error) { return s.network.Bootstrap[0], nil }

func (s said) Connect(_ context.Context, key string, through bool, within time.Duration) (Result, error) {
	if through {
		key += " through " + s.network.Relay.Key
	}
	return Result{Path: Relayed, Ms: float64(within.Milliseconds()), Error: key}, nil
}

func (s said) Again(context.Context, time.Duration) (Result, error) {
	return Result{Path: None}, errors.New("there is no connection")
}

func (s said) Drop(ctx context.Context) error {
	<-ctx.Done() // until the end
	return ctx.Err()
}

// Between the two ends of the lines a call is what it would be without them.
func TestProcessesAreSubjects(t *testing.T) {
	const child = "NATLAB_TEST_SUBJECT"
	if os.Getenv(child) != "" {
		err := Serve(context.Background(), os.Stdin, os.Stdout, func(n Network) Subject { return said{n} })
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcessesAreSubjects$")
	cmd.Env = append(os.Environ(), child+"=1")
	p := must(nodepeer.StartCommand(t.Context(), cmd))(t)
	s := Process(p, Network{Bootstrap: []string{"9.9.0.1:1"}, Relay: &Relay{Host: "9.9.1.1", Key: "ab"}})
	if key, err := s.Listen(t.Context()); key != "9.9.0.1:1" || err != nil {
		t.Errorf("Listen = %q, %v", key, err)
	}
	for through, want := range map[bool]string{false: "cd", true: "cd through ab"} {
		got, err := s.Connect(t.Context(), "cd", through, 1500*time.Millisecond)
		if want := (Result{Path: Relayed, Ms: 1500, Error: want}); got != want || err != nil {
			t.Errorf("Connect = %+v, %v, want %+v", got, err, want)
		}
	}
	other := Process(p, Network{Bootstrap: []string{"9.9.0.2:1"}})
	if key, err := other.Listen(t.Context()); key != "9.9.0.2:1" || err != nil {
		t.Errorf("Listen on another network = %q, %v", key, err)
	}
	if _, err := s.Again(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), "there is no connection") {
		t.Errorf("Again = %v", err)
	}
	if err := p.Call(t.Context(), "dance", nil, nil); err == nil || !strings.Contains(err.Error(), `"dance"`) {
		t.Errorf("an unknown method: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Drop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drop = %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err) // the end of the lines ends the call that hangs
	}
}
