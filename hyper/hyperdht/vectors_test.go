package hyperdht

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// bin is binary data, which the vectors have in hex.
type bin []byte

func (b *bin) UnmarshalJSON(text []byte) error {
	var s *string
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		return err
	}
	raw, err := hex.DecodeString(*s)
	*b = raw
	return err
}

func (b bin) ptr() *[32]byte {
	if b == nil {
		return nil
	}
	return (*[32]byte)(b)
}

type addrVector struct {
	Host netip.Addr
	Port uint16
}

func (a *addrVector) addr() netip.AddrPort {
	if a == nil {
		return none
	}
	return netip.AddrPortFrom(a.Host, a.Port)
}

func addrsOf(l []addrVector) (out []netip.AddrPort) {
	if l == nil {
		return nil
	}
	out = []netip.AddrPort{}
	for _, a := range l {
		out = append(out, a.addr())
	}
	return out
}

type peerVector struct {
	PublicKey      bin
	RelayAddresses []addrVector
}

func (p *peerVector) record() *peerRecord {
	return &peerRecord{noise.Key(p.PublicKey), addrsOf(p.RelayAddresses)}
}

type vectorFile struct {
	Namespaces    map[string]bin
	AnnounceFixed struct {
		Target, Token, NodeID bin
		KeyPair               struct{ Seed bin }
	}
	Announces  []announceVector
	Unannounce announceVector
	Mutable    struct {
		KeyPair                                    struct{ Seed bin }
		Seq                                        uint64
		Value, Target, SignableEncoding, Signature bin
		PutRequest, GetResponse                    bin
	}
	FindPeerTarget struct{ PublicKey, Target bin }
	Messages       []struct {
		Type  string
		Value json.RawMessage
		Hex   bin
	}
	HyperdhtAddress []struct {
		Value struct {
			Key   bin
			Nodes []addrVector
		}
		Hex bin
	}
	SecurePayload struct {
		Secret, Plain, Sealed bin
	}
}

type announceVector struct {
	Value struct {
		Peer               *peerVector
		Refresh, Signature bin
		Bump               uint64
	}
	Hex, AnnounceHex bin
}

func readVectors(t testing.TB) (v vectorFile) {
	t.Helper()
	text, err := os.ReadFile("testdata/dht.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNamespacesAreThoseOfTheReference(t *testing.T) {
	v := readVectors(t)
	for name, got := range map[string][32]byte{
		"ANNOUNCE": nsAnnounce, "UNANNOUNCE": nsUnannounce, "MUTABLE_PUT": nsMutablePut,
		"PEER_HANDSHAKE": nsHandshake, "PEER_HOLEPUNCH": nsHolepunch,
	} {
		if !bytes.Equal(got[:], v.Namespaces[name]) {
			t.Errorf("namespace %s is %x, want %x", name, got, v.Namespaces[name])
		}
	}
	if got := Target(noise.Key(v.FindPeerTarget.PublicKey)); !bytes.Equal(got[:], v.FindPeerTarget.Target) {
		t.Errorf("target is %x, want %x", got, v.FindPeerTarget.Target)
	}
}

// appender is a message to write; read reads one of its kind back.
type appender struct {
	value any
	write func() []byte
	read  func([]byte) (any, error)
}

func TestMessagesAreThoseOfTheReference(t *testing.T) {
	for i, m := range readVectors(t).Messages {
		a := messageOf(t, m.Type, m.Value)
		if got := a.write(); !bytes.Equal(got, m.Hex) {
			t.Errorf("message %d, %s: wrote %x, want %x", i, m.Type, got, m.Hex)
		}
		got, err := a.read(m.Hex)
		if err != nil || !reflect.DeepEqual(got, a.value) {
			t.Errorf("message %d, %s: read %+v, %v, want %+v", i, m.Type, got, err, a.value)
		}
		for n := range len(m.Hex) {
			if _, err := a.read(m.Hex[:n]); err == nil && !shortIsFine(m.Type, m.Hex, n) {
				t.Errorf("message %d, %s: read the first %d bytes of %d without an error", i, m.Type, n, len(m.Hex))
			}
		}
	}
}

// shortIsFine tells where a message may end early: before a bump.
func shortIsFine(kind string, b []byte, n int) bool {
	return kind == "lookupRawReply" && n == len(b)-1
}

func messageOf(t *testing.T, kind string, raw json.RawMessage) appender {
	t.Helper()
	var v struct {
		Mode                                      int
		Noise, Payload, Token, RemoteToken, Value bin
		PeerAddress, RelayAddress, RemoteAddress  *addrVector
		ID, Error, Round, Bump                    uint64
		Firewall                                  Firewall
		Connected, Punching                       bool
		Addresses, Addresses4, Addresses6         []addrVector
		Peers                                     []bin
		UDX                                       *struct {
			ReusableSocket bool
			ID             uint32
			Seq            uint64
		}
		SecretStream     *struct{}
		Plugin           string
		Version, Command uint64
		RelayThrough     *struct{ PublicKey, Token bin }
		peerVector
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("vector of %s: %v", kind, err)
	}
	switch kind {
	case "handshake":
		m := handshakeMsg{v.Mode, v.Noise, v.PeerAddress.addr(), v.RelayAddress.addr()}
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readHandshake(b) }}
	case "holepunch":
		m := holepunchMsg{v.Mode, v.ID, v.Payload, v.PeerAddress.addr()}
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readHolepunch(b) }}
	case "holepunchPayload":
		m := punchMsg{v.Error, v.Firewall, v.Round, v.Connected, v.Punching, addrsOf(v.Addresses), v.RemoteAddress.addr(), v.Token.ptr(), v.RemoteToken.ptr()}
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readPunch(b) }}
	case "noisePayload":
		m := noisePayload{version: 1, code: v.Error, firewall: v.Firewall, relayAddrs: addrsOf(v.RelayAddresses)}
		if len(v.Addresses4) > 0 {
			m.addrs4 = addrsOf(v.Addresses4)
		}
		if len(v.Addresses6) > 0 {
			m.addrs6 = addrsOf(v.Addresses6)
		}
		if v.UDX != nil {
			m.udx = &udxInfo{1, v.UDX.ReusableSocket, v.UDX.ID, v.UDX.Seq}
		}
		if v.SecretStream != nil {
			m.stream = 1
		}
		if v.RelayThrough != nil {
			m.through = &relayThrough{1, noise.Key(v.RelayThrough.PublicKey), [32]byte(v.RelayThrough.Token)}
		}
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readNoisePayload(b) }}
	case "peer":
		m := *v.record()
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readPeer(b) }}
	case "pluginRequest":
		m := pluginMsg{v.Plugin, v.Version, v.Command, v.Value}
		return appender{m, func() []byte { return m.append(nil) }, func(b []byte) (any, error) { return readPlugin(b) }}
	case "lookupRawReply":
		type lookup struct {
			peers []peerRecord
			bump  uint64
		}
		want := lookup{bump: v.Bump}
		var raw [][]byte
		for _, p := range v.Peers {
			raw = append(raw, p)
			peer, err := readPeer(p)
			if err != nil {
				t.Fatal(err)
			}
			want.peers = append(want.peers, peer)
		}
		return appender{want, func() []byte { return appendLookup(nil, raw, v.Bump) }, func(b []byte) (any, error) {
			peers, bump, err := readLookup(b)
			return lookup{peers, bump}, err
		}}
	}
	t.Fatalf("vector of unknown message %s", kind)
	return appender{}
}

func TestAnnouncementsAreSignedAsTheReferenceDoes(t *testing.T) {
	v := readVectors(t)
	f := v.AnnounceFixed
	keys := noise.NewKeyPair([32]byte(f.KeyPair.Seed))
	check := func(what string, ns [32]byte, a announceVector) {
		m := announceMsg{peer: a.Value.Peer.record(), refresh: a.Value.Refresh.ptr(), bump: a.Value.Bump}
		signable := announceSignable(ns, [32]byte(f.Target), [32]byte(f.Token), [32]byte(f.NodeID), *m.peer, m.refresh)
		m.signature = (*[64]byte)(keys.Sign(signable))
		want := append(a.Hex, a.AnnounceHex...) // one of them is there
		if got := m.append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: wrote %x, want %x", what, got, want)
		}
		got, err := readAnnounce(want)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: read %+v, %v, want %+v", what, got, err, m)
		}
		if !verify(keys.Public, signable, m.signature) {
			t.Errorf("%s: the signature does not verify", what)
		}
	}
	for i, a := range v.Announces {
		check(fmt.Sprint("announcement ", i), nsAnnounce, a)
	}
	check("unannouncement", nsUnannounce, v.Unannounce)
}

func TestMutableValuesAreSignedAsTheReferenceDoes(t *testing.T) {
	v := readVectors(t).Mutable
	keys := noise.NewKeyPair([32]byte(v.KeyPair.Seed))
	m := mutableMsg{key: keys.Public, seq: v.Seq, value: v.Value}
	copy(m.signature[:], keys.Sign(mutableSignable(m.seq, m.value)))
	if got := m.appendRequest(nil); !bytes.Equal(got, v.PutRequest) {
		t.Errorf("wrote request %x, want %x", got, v.PutRequest)
	}
	if got := m.appendResponse(nil); !bytes.Equal(got, v.GetResponse) {
		t.Errorf("wrote response %x, want %x", got, v.GetResponse)
	}
	got, err := readMutableRequest(v.PutRequest)
	if err != nil || !reflect.DeepEqual(got, m) || !verifyMutable(got.key, got) {
		t.Errorf("read request %+v, %v, want %+v", got, err, m)
	}
	if got.value[0] ^= 1; verifyMutable(got.key, got) {
		t.Error("another value has a valid signature")
	}
}

func TestAddressesAreThoseOfTheReference(t *testing.T) {
	for _, v := range readVectors(t).HyperdhtAddress {
		want := Address{noise.Key(v.Value.Key), addrsOf(v.Value.Nodes)}
		if got := want.Append(nil); !bytes.Equal(got, v.Hex) {
			t.Errorf("wrote %x, want %x", got, v.Hex)
		}
		if got, err := ParseAddress(v.Hex); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v, %v, want %+v", got, err, want)
		}
		if got, err := ParseAddress(v.Value.Key); err != nil || got.Key != want.Key || got.Nodes != nil {
			t.Errorf("read %+v, %v from a key", got, err)
		}
		if _, err := ParseAddress(v.Hex[:35]); err == nil {
			t.Error("read an address that is cut short")
		}
	}
}

func TestSealedPayloadsAreThoseOfTheReference(t *testing.T) {
	v := readVectors(t).SecurePayload
	s, err := newSealer([32]byte(v.Secret), bytes.NewReader(append(make([]byte, 32), v.Sealed[:24]...)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.open(v.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.append(nil); !bytes.Equal(got, v.Plain) {
		t.Errorf("opened %x, want %x", got, v.Plain)
	}
	if got, err := s.seal(&m); err != nil || !bytes.Equal(got, v.Sealed) {
		t.Errorf("sealed %x, %v, want %x", got, err, v.Sealed)
	}
	v.Sealed[30] ^= 1
	if _, err := s.open(v.Sealed); err == nil {
		t.Error("opened a payload that was changed")
	}
}

func TestHandshakeCarriesPayloads(t *testing.T) {
	server := noise.NewKeyPair([32]byte{1})
	client := noise.NewKeyPair([32]byte{2})
	a, err := newHandshake(client, server.Public, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newHandshake(server, noise.Key{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	hello := noisePayload{version: 1, firewall: FirewallOpen, udx: &udxInfo{version: 1, id: 7}}
	m1, err := sendPayload(ctx, a, &hello)
	if err != nil {
		t.Fatal(err)
	}
	got, err := receivePayload(ctx, b, m1)
	if err != nil || !reflect.DeepEqual(got, hello) || b.Remote() != client.Public {
		t.Fatalf("server read %+v of %s, %v", got, b.Remote(), err)
	}
	m2, err := sendPayload(ctx, b, &noisePayload{code: codeAborted})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := receivePayload(ctx, a, m2); err != nil || got.code != codeAborted {
		t.Fatalf("client read %+v, %v", got, err)
	}
	if a.HolepunchSecret() != b.HolepunchSecret() || a.HolepunchSecret() == [32]byte{} {
		t.Error("the two sides have different secrets")
	}
	c, err := newHandshake(noise.NewKeyPair([32]byte{3}), noise.Key{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receivePayload(ctx, c, m1); err == nil {
		t.Error("a server read a handshake that was for another")
	}
}

var epoch = time.UnixMilli(1_700_000_000_000)
