package dhtrelay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// kinds are the messages by their numbers; that with data is read in parts.
var kinds = map[int]func() message{
	numHandshake: func() message { return &handshakeMsg{} }, numPing: func() message { return &pingMsg{} }, numPong: func() message { return &pingMsg{} },
	numConnect: func() message { return &connectMsg{} }, numConnection: func() message { return &connectionMsg{} },
	numConnected: func() message { return &connectedMsg{} }, numIncoming: func() message { return &incomingMsg{} },
	numDeny: func() message { return &numberMsg{} }, numAccept: func() message { return &numberMsg{} }, numDestroy: func() message { return &destroyMsg{} },
	numListen: func() message { return &listenMsg{} }, numListening: func() message { return &listeningMsg{} }, numClose: func() message { return &numberMsg{} },
	numClosed: func() message { return &numberMsg{} }, numOpen: func() message { return &openMsg{} }, numEnd: func() message { return &numberMsg{} },
	numResult: func() message { return &resultMsg{} }, numFinished: func() message { return &numberMsg{} }, numLookup: func() message { return &lookupMsg{} },
	numAnnounce: func() message { return &announceMsg{} }, numUnannounce: func() message { return &announceMsg{} },
	numSignAnnounce: func() message { return &signMsg{} }, numSignUnannounce: func() message { return &signMsg{} },
	numSignature: func() message { return &signatureMsg{} }, numNoiseSend: func() message { return &noiseSendMsg{} },
	numNoiseReceive: func() message { return &noiseReceiveMsg{} }, numNoiseReply: func() message { return &noiseReplyMsg{} },
}

// vector is a message of the npm package. Its value has fields by their names
// there.
type vector struct {
	MessageID *int
	Type      string
	Value     map[string]any
	Hex       string
}

func readVectors(t testing.TB) (order []string, vectors []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/dht-relay.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		DHTRelay struct {
			Protocol string
			Order    []string
			Vectors  []vector
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if file.DHTRelay.Protocol != protocol {
		t.Fatalf("the protocol is %q", file.DHTRelay.Protocol)
	}
	return file.DHTRelay.Order, file.DHTRelay.Vectors
}

func TestMessagesAreThoseOfDHTRelay(t *testing.T) {
	order, vectors := readVectors(t)
	if len(order) != numMessages || order[numNoiseReply] != "noiseReply" || order[numData] != "data" {
		t.Errorf("the order of messages is %q", order)
	}
	for _, v := range vectors {
		want, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if v.Type == "data" {
			sameData(t, v, want)
			continue
		}
		var m message = &foundMsg{}
		if v.MessageID != nil {
			if *v.MessageID != slices.Index(order, v.Type) {
				t.Errorf("%s has the number %d", v.Type, *v.MessageID)
			}
			m = kinds[*v.MessageID]()
		}
		if err := read(want, m); err != nil {
			t.Errorf("%s %s: %v", v.Type, v.Hex, err)
			continue
		}
		if got := write(m); !bytes.Equal(got, want) {
			t.Errorf("%s %s is written as %x", v.Type, v.Hex, got)
		}
		sameValue(t, v, m)
	}
}

func sameData(t *testing.T, v vector, want []byte) {
	var chunks []any
	alias := uint32(0)
	err := readData(want, func(a uint32, chunk []byte) bool {
		alias = a
		chunks = append(chunks, hex.EncodeToString(chunk))
		return true
	})
	if err != nil || float64(alias) != v.Value["alias"] || !reflect.DeepEqual(chunks, v.Value["data"]) {
		t.Errorf("data %s is read as %d, %v, %v", v.Hex, alias, chunks, err)
	}
	if got := append(dataHead(1, 3), "abc"...); !bytes.Equal(got, []byte{1, 0, 0, 0, 1, 3, 'a', 'b', 'c'}) {
		t.Errorf("data is written as %x", got)
	}
}

// sameValue compares the fields of a message with those that the npm package
// had for it, by the names there.
func sameValue(t *testing.T, v vector, m message) {
	t.Helper()
	names := map[string]string{
		"publicKey": "key", "secretKey": "secret", "remotePublicKey": "remote", "remoteAlias": "remote", "serverAlias": "server", "handshakeHash": "hash",
		"handshakeId": "handshakeID", "isInitiator": "initiator", "remoteStreamAlias": "stream", "remoteId": "remoteID", "holepunchSecret": "secret",
		"peerId": "peer", "relayAddresses": "addrs", "error": "reason",
	}
	for name, want := range v.Value {
		switch name {
		case "host", "port", "from", "to", "peers":
			continue // addresses are compared as bytes
		}
		if n, ok := names[name]; ok {
			name = n
		}
		f := reflect.ValueOf(m).Elem().FieldByName(name)
		if !f.IsValid() && reflect.TypeOf(m) == reflect.TypeFor[*numberMsg]() {
			f = reflect.ValueOf(m).Elem().Field(0)
		}
		if !f.IsValid() {
			t.Errorf("%s: %T has no %s", v.Type, m, name)
			continue
		}
		var got any
		switch f.Kind() {
		case reflect.Bool:
			got = f.Bool()
		case reflect.Uint32:
			got = float64(f.Uint())
		case reflect.String:
			got = f.String()
		case reflect.Array, reflect.Slice:
			raw := make([]byte, f.Len())
			for i := range raw {
				raw[i] = byte(f.Index(i).Uint())
			}
			got = hex.EncodeToString(raw)
		}
		if got != want {
			t.Errorf("%s: %s is %v, want %v", v.Type, name, got, want)
		}
	}
}

// samples are messages with everything in them.
func samples() map[int][]message {
	key, addr := noise.Key{1, 2}, netip.MustParseAddrPort("10.1.2.3:456")
	return map[int][]message{
		numHandshake:      {&handshakeMsg{key: key}, &handshakeMsg{custodial: true, key: key, secret: [64]byte{7}}},
		numPing:           {&pingMsg{}},
		numConnect:        {&connectMsg{alias: 5, key: key, remote: noise.Key{9}}, &connectMsg{custodial: true, alias: 1 << 31, secret: [64]byte{7}}},
		numConnection:     {&connectionMsg{alias: 5, server: 6, remote: key, handshakeID: 7}, &connectionMsg{custodial: true, hash: [64]byte{8}}},
		numConnected:      {&connectedMsg{1, 2}},
		numIncoming:       {&incomingMsg{1, 2, key, []byte("payload")}},
		numDestroy:        {&destroyMsg{paired: true, alias: 7}, &destroyMsg{alias: 8, reason: "because"}},
		numListen:         {&listenMsg{alias: 1, key: key}, &listenMsg{custodial: true, secret: [64]byte{9}}},
		numListening:      {&listeningMsg{1, 2, addr}},
		numOpen:           {&openMsg{alias: 1, remote: 2, handshakeID: 3}, &openMsg{custodial: true, hash: [64]byte{4}}},
		numEnd:            {&numberMsg{1<<32 - 1}},
		numResult:         {&resultMsg{1, []byte{2}}},
		numLookup:         {&lookupMsg{1, [32]byte{2}}},
		numAnnounce:       {&announceMsg{id: 1, topic: [32]byte{2}, key: key}, &announceMsg{custodial: true, secret: [64]byte{3}}},
		numSignAnnounce:   {&signMsg{1, 2, [32]byte{3}, make([]byte, 32), []netip.AddrPort{addr}}},
		numSignature:      {&signatureMsg{1, make([]byte, 64)}},
		numNoiseSend:      {&noiseSendMsg{true, 1, 2, []byte{3}}, &noiseSendMsg{id: 1, payload: []byte{}}},
		numNoiseReceive:   {&noiseReceiveMsg{id: 1, server: 2, payload: []byte{3}}, &noiseReceiveMsg{initiator: true, id: 1, payload: []byte{}}},
		numNoiseReply:     {&noiseReplyMsg{id: 1, payload: []byte{2}, remote: key}, &noiseReplyMsg{initiator: true, complete: true, id: 1, payload: []byte{2}, remoteID: [32]byte{3}, secret: [32]byte{4}}},
		numSignUnannounce: {&signMsg{peer: []byte{}}},
	}
}

func TestMessagesAreReadAsWritten(t *testing.T) {
	for number, list := range samples() {
		for _, m := range list {
			b := write(m)
			again := kinds[number]()
			if err := read(b, again); err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("%+v is read as %+v, %v", m, again, err)
			}
			if err := read(append(bytes.Clone(b), 1, 2, 3), again); err != nil {
				t.Errorf("%T of a newer side: %v", m, err)
			}
			for n := range len(b) {
				if read(b[:n], kinds[number]()) == nil {
					t.Errorf("the first %d of %d bytes of %T are taken for one", n, len(b), m)
				}
			}
		}
	}
	f := &foundMsg{[32]byte{1}, []byte{2}, []byte{3}, netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("6.7.8.9:10"), []hyperdht.Peer{{Key: noise.Key{4}, RelayAddresses: []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:1")}}}}
	again := &foundMsg{}
	if err := read(write(f), again); err != nil || !reflect.DeepEqual(again, f) {
		t.Errorf("%+v is read as %+v, %v", f, again, err)
	}
}

// What is too much is refused before it takes memory, and what has no room in
// a message is left out.
func TestListsAreBounded(t *testing.T) {
	many := compact.AppendUint(append(make([]byte, 8+32), 0), maxAddrs+1)
	if err := read(append(many, make([]byte, 6*(maxAddrs+1))...), &signMsg{}); err == nil {
		t.Errorf("%d addresses are taken", maxAddrs+1)
	}
	if err := read(compact.AppendUint(append(make([]byte, 8+32), 0), 1<<40), &signMsg{}); err == nil {
		t.Error("2^40 addresses are believed")
	}
	if err := read(write(&noiseSendMsg{payload: make([]byte, maxNoise+1)}), &noiseSendMsg{}); err == nil {
		t.Error("a payload that no handshake has is taken")
	}
	six := &listeningMsg{addr: netip.MustParseAddrPort("[2001:db8::1]:7")}
	if err := read(write(six), six); err != nil || six.addr != netip.MustParseAddrPort("0.0.0.0:7") {
		t.Errorf("an IPv6 address becomes %v, %v", six.addr, err)
	}
	empty := append(dataHead(1, 0)[:4], 0xfe, 0xff, 0xff, 0xff, 0xff)
	n := 0
	if err := readData(append(empty, make([]byte, 1000)...), func(uint32, []byte) bool { n++; return true }); err == nil || n != 1000 {
		t.Errorf("%d chunks of 1000, %v", n, err)
	}
}

func FuzzMessages(f *testing.F) {
	for number, list := range samples() {
		for _, m := range list {
			f.Add(number, write(m))
		}
	}
	f.Add(numData, append(dataHead(1, 3), "abc"...))
	f.Add(numMessages, write(&foundMsg{peers: []hyperdht.Peer{{}}}))
	f.Fuzz(func(t *testing.T, number int, b []byte) {
		var m, again message = &foundMsg{}, &foundMsg{}
		if number == numData {
			total := 0
			readData(b, func(_ uint32, chunk []byte) bool { total += len(chunk); return true })
			if total > len(b) {
				t.Errorf("%d bytes of data in %d", total, len(b))
			}
			return
		}
		if kind := kinds[number]; kind != nil {
			m, again = kind(), kind()
		}
		if read(b, m) != nil {
			return
		}
		if err := read(write(m), again); err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v is read back as %+v, %v", m, again, err)
		}
	})
}
