package natlab

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// actor is a subject that does as it is told, and takes notes.
type actor struct {
	mu     sync.Mutex
	inUse  bool
	calls  []string
	result Result
	err    error
}

func (a *actor) call(name string) {
	a.mu.Lock()
	if a.inUse {
		panic("two cells use one place")
	}
	a.inUse = true
	a.calls = append(a.calls, name)
	a.mu.Unlock()
	time.Sleep(time.Second) // of the bubble
	a.mu.Lock()
	a.inUse = false
	a.mu.Unlock()
}

func (a *actor) Listen(context.Context) (string, error) {
	a.call("listen")
	return "key", a.err
}

func (a *actor) Connect(_ context.Context, key string, through bool, within time.Duration) (Result, error) {
	name := "connect " + key
	if through {
		name += " through"
	}
	a.call(name)
	return a.result, a.err
}

func (a *actor) Again(context.Context, time.Duration) (Result, error) { return Result{}, nil }

func (a *actor) Drop(context.Context) error {
	a.call("drop")
	return nil
}

func cast(kinds []Kind, result Result) map[Kind]*Place {
	places := make(map[Kind]*Place)
	for _, k := range kinds {
		a := &actor{result: result}
		places[k] = &Place{Kind: k, Subject: a, Flush: func() error { a.call("flush"); return nil }}
	}
	return places
}

func TestMatricesRunEachCellAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients, servers := cast(Kinds, Result{Path: Punched, Ms: 12.4}), cast(Kinds, Result{})
		servers[Double].Subject.(*actor).err = errors.New("no server here")
		started := time.Now()
		m := Run(t.Context(), "all", All(Kinds, Kinds), Doors{}, clients, servers, len(Kinds), time.Minute)
		// A cell takes 5 to 6 s, and ten go on at a time.
		if took := time.Since(started); took > 90*time.Second {
			t.Errorf("took %v, as if one cell waited for another", took)
		}
		for _, c := range All(Kinds, Kinds) {
			got, ok := m.Result(c)
			want := Result{Path: Punched, Ms: 12.4}
			if c.Server == Double {
				want = Result{Path: None, Error: "listen: no server here"}
			}
			if !ok || got != want {
				t.Errorf("%s = %+v, %v, want %+v", c, got, ok, want)
			}
		}
		calls := clients[Symmetric].Subject.(*actor).calls
		if n := len(calls); n != 2*len(Kinds)+len(Kinds)-1 {
			t.Errorf("the symmetric client got %d calls: %q", n, calls)
		}
		if through := slices.Index(calls, "connect key through"); through < 0 || slices.Contains(calls[through+1:], "connect key through") {
			t.Errorf("the symmetric client has one cell with a relay, not %q", calls)
		}
	})
}

func TestMatricesEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		cells := All(Kinds, []Kind{Open})
		m := Run(ctx, "short", cells, Doors{}, cast(Kinds, Result{}), cast(Kinds, Result{}), 3, time.Minute)
		done := 0
		for _, c := range cells {
			if _, ok := m.Result(c); ok {
				done++
			}
		}
		if done == 0 || done == len(cells) {
			t.Errorf("%d of %d cells were run", done, len(cells))
		}
	})
}

func TestMatricesPrint(t *testing.T) {
	m := &Matrix{Name: "some", results: map[Cell]Result{
		{Open, Symmetric}:      {Path: Direct, Ms: 3.6},
		{Symmetric, Symmetric}: {Path: Relayed, Ms: 100},
		{Symmetric, NoUDP}:     {Path: None, Ms: 5},
	}}
	var out bytes.Buffer
	m.Print(&out)
	want := `some: path and milliseconds
client \ server  symmetric    no-udp
open             direct 4     .
symmetric        relayed 100  none
`
	var got strings.Builder
	for line := range strings.Lines(out.String()) {
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestWhatCellsWant(t *testing.T) {
	both := Doors{Client: true, Server: true}
	for _, c := range []struct {
		doors Doors
		cell  Cell
		want  Path
		other Path // that is let through, too
	}{
		{Doors{}, Cell{Open, Open}, Direct, Punched},
		{Doors{}, Cell{Symmetric, Open}, Direct, Punched},
		{Doors{}, Cell{FullCone, Restricted}, Punched, ""},
		{Doors{}, Cell{Symmetric, PortRestricted}, Punched, ""},
		{Doors{}, Cell{Symmetric, Symmetric}, Relayed, ""},
		{Doors{}, Cell{Carrier, Carrier}, Relayed, ""},
		{Doors{}, Cell{Carrier, CarrierHairpin}, Punched, ""},
		{Doors{}, Cell{CarrierHairpin, CarrierHairpin}, Punched, ""},
		{Doors{}, Cell{NoUDP, Open}, None, ""},
		{Doors{Client: true}, Cell{NoUDP, Open}, Relayed, ""},
		{Doors{Client: true}, Cell{Open, OnlyTCP443}, None, ""},
		{both, Cell{NoUDP, OnlyTCP443}, Relayed, Direct},
		{both, Cell{Open, OnlyTCP443}, Relayed, Punched},
	} {
		if got := c.doors.Want(c.cell); got != c.want {
			t.Errorf("%+v: %s wants %s, not %s", c.doors, c.cell, got, c.want)
		}
		for _, p := range []Path{LAN, Direct, Punched, Relayed, None} {
			got := c.doors.Allows(c.cell, p)
			if p == c.want || p == c.other {
				if !got {
					t.Errorf("%+v: %s does not allow %s", c.doors, c.cell, p)
				}
			} else if got && !c.cell.Server.NoUDP() {
				t.Errorf("%+v: %s allows %s", c.doors, c.cell, p)
			}
		}
	}
}
