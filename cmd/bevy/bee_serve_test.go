package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// serveBee serves a bee from this process, and returns what it printed first, a
// line of JSON for each of n events.
func serveBee(t *testing.T, env []string, n int, args ...string) (events []door) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out, said := io.Pipe()
	done := make(chan int, 1)
	var talk screen
	go func() {
		done <- run(ctx, append([]string{"hyper", "bee", "serve", "--json", "--listen", "127.0.0.1:0"}, args...), nil, said, &talk, env)
		said.Close()
	}()
	t.Cleanup(func() {
		stop()
		if exit := <-done; exit != 0 {
			t.Errorf("serve: got exit code %d, want 0\n%s", exit, &talk)
		}
	})
	lines := bufio.NewReader(out)
	for range n {
		line, err := lines.ReadBytes('\n')
		var e door
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil || e.Event != "listening" {
			t.Fatalf("serve printed %q, %v\n%s", line, err, &talk)
		}
		events = append(events, e)
	}
	go io.Copy(io.Discard, lines)
	return events
}

// levelClient talks to a door.
func levelClient(t *testing.T, d door) func(request string) (reply string) {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), d.Address, &websocket.DialOptions{Subprotocols: []string{"bevy-level", "bevy-token." + d.Token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	ask := func(request string) string {
		t.Helper()
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(request)); err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		_, reply, err := ws.Read(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		return strings.TrimSpace(string(reply))
	}
	if reply := ask(`{"id":1,"op":"hello","version":1}`); !strings.HasPrefix(reply, `{"id":1,"version":1,`) {
		t.Fatalf("hello: got %s", reply)
	}
	return ask
}

// What comes in by the door is in the bee, and at once with those who read it as
// peers; whoever follows it opens a door that is read-only.
func TestBeeIsServed(t *testing.T) {
	env, key, _ := newBee(t, 1)
	events := serveBee(t, env, 2, "a", "--tcp", "127.0.0.1:0", "--sub", "s")
	tcp, here := events[0].Address, events[1]
	if len(here.Token) < 20 {
		t.Errorf("the token is %q, which is short", here.Token)
	}
	ask := levelClient(t, here)
	if got := ask(`{"id":2,"op":"put","key":"name","value":"lenka"}`); got != `{"id":2}` {
		t.Fatalf("put: got %s", got)
	}

	var talk bytes.Buffer
	if got, exit := command(t, []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}, nil, &talk, "hyper", "bee", "get", key, "name", "--sub", "s", "--peer", tcp); got != "lenka" || exit != 0 {
		t.Errorf("get of a peer: got %q and exit code %d, want the value\n%s", got, exit, &talk)
	}
	other := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store"), "BEVY_TOKEN=of-our-own"}
	there := serveBee(t, other, 1, key, "--peer", tcp)[0]
	if there.Token != "of-our-own" {
		t.Errorf("got the token %q, want the one that was given", there.Token)
	}
	follow := levelClient(t, there)
	if got := follow(`{"id":2,"op":"get","key":"s\u0000name"}`); got != `{"id":2,"value":"lenka"}` {
		t.Errorf("get at the other door: got %s", got)
	}
	if got := follow(`{"id":3,"op":"put","key":"x","value":"y"}`); !strings.Contains(got, `"LEVEL_READONLY"`) {
		t.Errorf("put at the other door: got %s, want that it is read-only", got)
	}
}
