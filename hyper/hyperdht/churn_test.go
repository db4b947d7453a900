package hyperdht

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// TestRecordsStayFindableUnderChurn replaces most nodes of a DHT within its time,
// without a goodbye. What has an owner that cares is found all the time.
func TestRecordsStayFindableUnderChurn(t *testing.T) {
	nodes, servers, minutes := 20, 3, 24
	if os.Getenv("BEVY_LONG") != "" {
		nodes, servers, minutes = 200, 20, 180
	}
	const seed = 7
	t.Logf("seed %d, %d nodes", seed, nodes)
	rnd := rand.New(rand.NewPCG(seed, 0))
	inWorld(t, nodes, func(t *testing.T, w *world) {
		var served []*Server
		for i := range servers {
			d := w.peer(behind(packet.NATKind(i%3))(w), Options{})
			served = append(served, w.listen(d, ServerOptions{}))
		}
		client := w.peer(behind(packet.PortRestricted)(w), Options{})
		topic, members := hash([]byte("topic")), []noise.KeyPair{}
		for i := range 5 {
			members = append(members, noise.NewKeyPair([32]byte{byte(i), 1}))
		}
		announce := func() {
			for _, m := range members {
				if _, err := client.Announce(t.Context(), topic, m, AnnounceOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		announce()
		owner := noise.NewKeyPair([32]byte{99})
		if err := client.MutablePut(t.Context(), owner, 1, []byte("kept")); err != nil {
			t.Fatal(err)
		}
		replaced := 0
		for minute := 1; minute <= minutes; minute++ {
			time.Sleep(time.Minute)
			if minute%4 != 0 {
				i := 1 + rnd.IntN(len(w.nodes)-1) // the first is how others join
				gone := w.nodes[i].o.Network.(*packet.SimHost)
				gone.Move(nil)
				w.nodes[i] = w.peer(w.sim.Host(w.addr()), Options{Open: true, Node: true})
				replaced++
			}
			if minute%10 == 0 { // as hyperswarm does
				announce()
			}
			s := served[rnd.IntN(len(served))]
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
			if err != nil {
				t.Fatalf("minute %d: %v", minute, err)
			}
			talk(t, c)
			c.Close()
			found := map[noise.Key]bool{}
			if _, err := client.Lookup(t.Context(), topic, LookupOptions{Found: func(f Found) {
				for _, p := range f.Peers {
					found[p.Key] = true
				}
			}}); err != nil || len(found) != len(members) {
				t.Fatalf("minute %d: found %d of %d, %v", minute, len(found), len(members), err)
			}
			m, err := client.MutableGet(t.Context(), owner.Public, MutableOptions{Refresh: minute%20 == 0})
			if err != nil || string(m.Value) != "kept" {
				t.Fatalf("minute %d: %q, %v", minute, m.Value, err)
			}
		}
		t.Logf("%d nodes were replaced", replaced)
		for i, d := range w.nodes {
			if s := d.Stats(); s.Records > 2*len(members) || s.Forwards > 2*servers || s.Values > 4 {
				t.Errorf("node %d keeps %+v", i, s)
			}
		}
	})
}

// TestFloodsAreBounded has one machine announce, ask and shake hands without an
// end. Others go on.
func TestFloodsAreBounded(t *testing.T) {
	inWorld(t, 8, func(t *testing.T, w *world) {
		server := w.peer(w.sim.Host(w.addr()), Options{})
		s := w.listen(server, ServerOptions{MaxHandshakes: 40, PerSource: 10})
		evil := w.peer(w.sim.Host(w.addr()), Options{})
		for i := range 60 { // handshakes that lead nowhere, through a relay
			keys := noise.NewKeyPair([32]byte{byte(i), 2})
			h, err := newHandshake(keys, s.Key(), nil)
			if err != nil {
				t.Fatal(err)
			}
			hello, err := sendPayload(t.Context(), h, &noisePayload{udx: &udxInfo{version: 1, id: uint32(i + 1)}, stream: 1})
			if err != nil {
				t.Fatal(err)
			}
			target := s.target
			evil.node.Start(s.RelayAddresses()[1], callOf(cmdPeerHandshake, target, handshakeMsg{mode: fromClient, noise: hello}.append(nil)), noCall, noReply)
			time.Sleep(10 * time.Millisecond)
		}
		s.mu.Lock()
		under := len(s.byID)
		s.mu.Unlock()
		if under != 10 {
			t.Errorf("%d handshakes of one source are under way, want 10", under)
		}
		client := w.peer(w.sim.Host(w.addr()), Options{})
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatalf("somebody else: %v", err)
		}
		talk(t, c)
		c.Close()
		time.Sleep(30 * time.Second) // and then it is forgotten
		s.mu.Lock()
		under, sources := len(s.byID)+len(s.handshakes), len(s.sources)
		s.mu.Unlock()
		if under != 0 || sources != 0 {
			t.Errorf("%d handshakes of %d sources are remembered", under, sources)
		}
		for i := range 3000 { // nonsense to all
			d := w.nodes[i%len(w.nodes)]
			addr, _ := d.Node().RemoteAddr()
			junk := make([]byte, i%90)
			for j := range junk {
				junk[j] = byte(i * (j + 3))
			}
			evil.node.Start(addr, callOf(uint64(i%11), hash(junk), junk), noCall, noReply)
			if i%50 == 0 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		if c, err = client.Connect(t.Context(), s.Key(), ConnectOptions{}); err != nil {
			t.Fatalf("after nonsense: %v", err)
		}
		talk(t, c)
		c.Close()
	})
}

func TestStringsAreForPeople(t *testing.T) {
	if got := fmt.Sprint(FirewallUnknown, FirewallOpen, FirewallConsistent, FirewallRandom); got != "unknown open consistent random" {
		t.Error(got)
	}
	p := Path{Kind: PathRelayed, Addr: addrOf(1), Why: "because"}
	if got := p.String(); !slices.Contains([]string{"relayed through " + noise.Key{}.String() + " by 24.0.0.1:1001 (because)"}, got) {
		t.Error(got)
	}
}
