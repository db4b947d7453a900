package node

import (
	"context"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/client"
)

// testOptions are those of a node in a folder of its own.
func testOptions(t *testing.T) Options {
	t.Helper()
	paths, err := FindPaths("linux", map[string]string{"BEVY_HOME": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return Options{Paths: paths, Version: "test", Listen: []string{"127.0.0.1:0"}}
}

// openNode opens a node that the end of the test closes.
func openNode(t *testing.T, o Options) *Node {
	t.Helper()
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// dial is a client of a node's owner.
func dial(t *testing.T, n *Node) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), Control(n.Paths()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// signIn is a client that has signed in at the port.
func signIn(t *testing.T, n *Node) *client.Client {
	t.Helper()
	c, err := client.SignIn(t.Context(), n.Link().URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNodeAnswersItsOwnerUntilItIsStopped(t *testing.T) {
	o := testOptions(t)
	n := openNode(t, o)
	c := dial(t, n)
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Node.Version != "test" || status.Node.Address != n.Address() || status.Paths.Socket != o.Paths.Socket() {
		t.Errorf("status is %+v", status)
	}
	again, err := Open(t.Context(), o)
	var running *RunningError
	if !errors.As(err, &running) || running.Record.Address != n.Address() || running.Record.PID == 0 {
		t.Fatalf("a second node on one store: %v, %v", again, err)
	}
	if !Running(n.opts.Paths) {
		t.Error("nobody has the store while a node runs")
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Wait(context.Background()); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if Running(n.opts.Paths) {
		t.Error("somebody has the store after the node has ended")
	}
	if _, err := client.Dial(t.Context(), Control(o.Paths)); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
	if r, err := ReadRecord(o.Paths); err != nil || r.Ended != "stopped" {
		t.Errorf("the record is %+v, %v", r, err)
	}
}

func TestPagesHaveTheAPIAfterSignIn(t *testing.T) {
	n := openNode(t, testOptions(t))
	c := signIn(t, n)
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := c.Sessions(t.Context())
	if err != nil || len(list.Sessions) != 1 || !list.Sessions[0].Current {
		t.Fatalf("sessions are %+v, %v", list, err)
	}
	place := n.events.now()
	n.Say("a word")
	for e, err := range c.Events(t.Context(), place) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == client.Said {
			break
		}
	}
}
