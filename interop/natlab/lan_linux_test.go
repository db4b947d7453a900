package natlab_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/natlab"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// Two on one LAN, whose NAT does not let them reach each other from outside,
// find their local addresses through the DHT.
func TestPeersOnOneLANMeetThere(t *testing.T) {
	nodepeer.Require(t)
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	l := newLab(t)
	for i, c := range []struct {
		client, server starter
		network        natlab.Network
	}{{l.nodeJS, l.nodeJS, l.node}, {l.ours, l.ours, l.own}, {l.ours, l.nodeJS, l.node}, {l.nodeJS, l.ours, l.own}} {
		site, err := l.Site(fmt.Sprint("home", i), natlab.PortRestricted)
		if err != nil {
			t.Fatal(err)
		}
		var subjects [2]natlab.Subject
		for j, start := range []starter{c.client, c.server} {
			host, err := site.Host(fmt.Sprint("host", i, j))
			if err != nil {
				t.Fatal(err)
			}
			p, err := start(host)
			if err != nil {
				t.Fatal(err)
			}
			subjects[j] = natlab.Process(p, c.network)
		}
		key, err := subjects[1].Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := subjects[0].Connect(t.Context(), key, false, 20*time.Second)
		if err != nil || got.Path != natlab.LAN {
			t.Errorf("pair %d: %v %s, %v, want lan", i, got, got.Error, err)
		}
		t.Logf("pair %d: %v", i, got)
	}
}

// Two on a LAN without a router, with nothing but each other, meet within a
// second.
func TestPeersMeetWithoutInternet(t *testing.T) {
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	lab, err := natlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	var took time.Duration
	for try := range 3 { // the machine may have much else to do
		island, err := lab.Island(fmt.Sprint("island", try))
		if err != nil {
			t.Fatal(err)
		}
		var machines [2]machine
		for i := range machines {
			host, err := island.Host(fmt.Sprint("host", try, i))
			if err != nil {
				t.Fatal(err)
			}
			machines[i] = machine{host}
		}
		if took = meet(t, machines[0], machines[1]); took < time.Second {
			t.Logf("met after %v", took)
			return
		}
	}
	t.Errorf("met after %v, want less than a second", took)
}
