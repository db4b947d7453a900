package dhtrpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"testing"
)

// vectors is testdata/dht.json, written by dht-rpc and hyperdht.
type vectors struct {
	NodeIDs []struct {
		Host    string
		Port    uint16
		Encoded string
		ID      string
	}
	RequestsByReference []struct {
		Name, Hex string
		Decoded   packetVector
	}
	Exchanges []struct {
		Name, Request, Reply         string
		RequestDecoded, ReplyDecoded packetVector
	}
	PingNATValue, DownHintValue string
}

type addrVector struct {
	Host string
	Port uint16
}

func (a addrVector) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(a.Host), a.Port)
}

type packetVector struct {
	Type, Flags int
	TID         uint16
	To          addrVector
	ID, Token   *string
	Internal    bool
	Command     uint64
	Target      *string
	Value       *string
	CloserNodes []addrVector
	Error       uint64
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/dht.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexOf[T ~[32]byte](id *T) *string {
	if id == nil {
		return nil
	}
	raw := [32]byte(*id)
	s := hex.EncodeToString(raw[:])
	return &s
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

func TestNodeIDsAreThoseOfTheReference(t *testing.T) {
	v := readVectors(t)
	for _, n := range v.NodeIDs {
		id := NodeID(addrVector{n.Host, n.Port}.addr())
		if got := hex.EncodeToString(id[:]); got != n.ID {
			t.Errorf("%s:%d has id %s, want %s", n.Host, n.Port, got, n.ID)
		}
	}
	if len(v.NodeIDs) == 0 {
		t.Error("no vectors")
	}
}

func TestPacketsAreThoseOfTheReferenceByteForByte(t *testing.T) {
	v := readVectors(t)
	check := func(name, packet string, want packetVector) {
		t.Run(name, func(t *testing.T) {
			raw := unhex(t, packet)
			m, err := parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.append(nil); !bytes.Equal(got, raw) {
				t.Errorf("written again it is\n%x, want\n%x", got, raw)
			}
			var value *string
			if m.value != nil {
				s := hex.EncodeToString(m.value)
				value = &s
			}
			if m.reply != (want.Type == kindReply) || m.tid != want.TID || m.to != want.To.addr() || !same(hexOf(m.id), want.ID) ||
				!same(hexOf(m.token), want.Token) || !same(value, want.Value) {
				t.Errorf("got %+v, want %+v", m, want)
			}
			if m.internal != want.Internal || m.command != want.Command || !same(hexOf(m.target), want.Target) || m.code != want.Error {
				t.Errorf("got %+v, want %+v", m, want)
			}
			var closer []netip.AddrPort
			for _, a := range want.CloserNodes {
				closer = append(closer, a.addr())
			}
			if !slices.Equal(m.closer, closer) {
				t.Errorf("got closer nodes %v, want %v", m.closer, closer)
			}
		})
	}
	for _, r := range v.RequestsByReference {
		check(r.Name, r.Hex, r.Decoded)
	}
	for _, e := range v.Exchanges {
		check(e.Name+", request", e.Request, e.RequestDecoded)
		check(e.Name+", reply", e.Reply, e.ReplyDecoded)
	}
	if len(v.RequestsByReference) < 3 || len(v.Exchanges) < 20 {
		t.Error("vectors are missing")
	}
}

// A fresh node answers the requests that were captured as the reference did, but
// for ids and tokens, which are each node's own.
func TestAnswersAreThoseOfTheReference(t *testing.T) {
	for _, e := range readVectors(t).Exchanges {
		if !e.RequestDecoded.Internal {
			continue
		}
		r := newRig(t, config{public: e.RequestDecoded.To.addr(), ephemeral: Never, open: true})
		want, err := parse(unhex(t, e.Reply))
		if err != nil {
			t.Fatal(err)
		}
		if want.closer != nil {
			// The reference knew the client that it had been shown before.
			r.m.insert(newNode(want.closer[0]))
		}
		r.receive(r.m.server, want.to, unhex(t, e.Request))
		var got []byte
		for _, p := range r.take() {
			if p.to == want.to && p.data[0] == kindReply {
				got = p.data
			}
		}
		if hex.EncodeToString(got) != e.Reply {
			t.Errorf("%s: answered\n%x, want\n%s", e.Name, got, e.Reply)
		}
	}
}

func TestShortAndStrangePacketsAreRefused(t *testing.T) {
	for _, e := range readVectors(t).Exchanges {
		for _, packet := range []string{e.Request, e.Reply} {
			raw := unhex(t, packet)
			for n := range raw {
				if m, err := parse(raw[:n]); err == nil {
					t.Fatalf("%d of %d bytes of %x were read as %+v", n, len(raw), raw, m)
				}
			}
			for _, kind := range []byte{0, 1, 2, 4, 0x23, 0xff} {
				raw[0] = kind
				if _, err := parse(raw); err == nil {
					t.Fatalf("a packet of kind %x was read", kind)
				}
			}
		}
	}
}

func TestBytesBehindAPacketAreIgnored(t *testing.T) {
	raw := append(unhex(t, readVectors(t).Exchanges[0].Request), 1, 2, 3)
	if _, err := parse(raw); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range readVectors(f).Exchanges {
		f.Add(unhex(f, e.Request))
		f.Add(unhex(f, e.Reply))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parse(raw)
		if err != nil {
			return
		}
		written := m.append(nil)
		again, err := parse(written)
		if err != nil {
			t.Fatalf("%x was read, and what is written of it not: %v", raw, err)
		}
		if twice := again.append(nil); !bytes.Equal(twice, written) {
			t.Fatalf("%x was written as %x and then as %x", raw, written, twice)
		}
		if len(m.closer) > K {
			t.Fatalf("%d closer nodes", len(m.closer))
		}
	})
}
