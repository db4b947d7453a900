package hyperdht

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// FuzzMessages reads anything as each of the messages. What can be read can be
// written, and reads the same again.
func FuzzMessages(f *testing.F) {
	for _, m := range readVectors(f).Messages {
		for kind := range byte(10) {
			f.Add(kind, []byte(m.Hex))
		}
	}
	for _, a := range readVectors(f).Announces {
		f.Add(byte(6), []byte(a.AnnounceHex))
	}
	f.Add(byte(7), []byte(readVectors(f).Mutable.PutRequest))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		var m any
		var err error
		var write func() []byte
		var read func([]byte) (any, error)
		switch kind % 10 {
		case 0:
			var v handshakeMsg
			v, err = readHandshake(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readHandshake(b) }
		case 1:
			var v holepunchMsg
			v, err = readHolepunch(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readHolepunch(b) }
		case 2:
			var v noisePayload
			v, err = readNoisePayload(b)
			if v.version != 1 || v.stream > 1 || v.udx != nil && v.udx.version != 1 || v.through != nil && v.through.version != 1 {
				return // written by a newer peer
			}
			// An empty list is written as none.
			v.addrs4, v.addrs6, v.relayAddrs = nonEmpty(v.addrs4), nonEmpty(v.addrs6), nonEmpty(v.relayAddrs)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readNoisePayload(b) }
		case 3:
			var v punchMsg
			v, err = readPunch(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readPunch(b) }
		case 4:
			var v peerRecord
			v, err = readPeer(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readPeer(b) }
		case 5:
			peers, bump, err := readLookup(b)
			if err != nil {
				return
			}
			var raw [][]byte
			for _, p := range peers {
				raw = append(raw, p.append(nil))
			}
			again, bump2, err := readLookup(appendLookup(nil, raw, bump))
			if err != nil || bump2 != bump || len(again) != len(peers) {
				t.Fatalf("%+v is %+v, %v", peers, again, err)
			}
			return
		case 6:
			var v announceMsg
			v, err = readAnnounce(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readAnnounce(b) }
		case 9:
			var v Address
			v, err = ParseAddress(b)
			v.Nodes = nonEmpty(v.Nodes)
			m, write, read = v, func() []byte { return v.Append(nil) }, func(b []byte) (any, error) { return ParseAddress(b) }
		case 8:
			var v pluginMsg
			v, err = readPlugin(b)
			m, write, read = v, func() []byte { return v.append(nil) }, func(b []byte) (any, error) { return readPlugin(b) }
		case 7:
			var v mutableMsg
			v, err = readMutableRequest(b)
			m, write, read = v, func() []byte { return v.appendRequest(nil) }, func(b []byte) (any, error) { return readMutableRequest(b) }
		}
		if err != nil {
			return
		}
		again, err := read(write())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v is written and read as %+v, %v", m, again, err)
		}
	})
}

func nonEmpty[T any](l []T) []T {
	if len(l) == 0 {
		return nil
	}
	return l
}

// FuzzRecords gives a node values that others send it, under the target that
// they are for and under another.
func FuzzRecords(f *testing.F) {
	v := readVectors(f)
	for _, a := range v.Announces {
		f.Add(byte(0), []byte(a.AnnounceHex))
	}
	f.Add(byte(1), []byte(v.Unannounce.Hex))
	f.Add(byte(2), []byte(v.Mutable.PutRequest))
	f.Add(byte(3), []byte{0})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		k := newKeeper()
		keys := noise.NewKeyPair([32]byte{1})
		topic := hash([]byte("topic"))
		k.announces(topic, keys, addrOf(9), nil)
		for _, target := range [][32]byte{topic, hash(b), Target(keys.Public), [32]byte(v.Mutable.Target)} {
			switch kind % 4 {
			case 0:
				k.announce(k.now, target, k.token, k.id, addrOf(9), b)
			case 1:
				k.unannounce(target, k.token, k.id, b)
			case 2:
				k.mutablePut(k.now, target, addrOf(9), b)
			case 3:
				k.mutableGet(k.now, target, b)
			}
		}
		if peers, _ := k.peers(t, topic); len(peers) != 1 || peers[0].key != keys.Public {
			t.Fatalf("the record of another is %+v now", peers)
		}
	})
}

// FuzzSealed opens anything as a sealed message.
func FuzzSealed(f *testing.F) {
	v := readVectors(f).SecurePayload
	f.Add([]byte(v.Sealed))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &sealer{secret: [32]byte(v.Secret)}
		if m, err := s.open(b); err == nil && !bytes.Equal(b, v.Sealed) {
			t.Fatalf("%x opens as %+v", b, m)
		}
	})
}

// FuzzPunch runs every punch to its end: it sends a bounded number of packets,
// to addresses of the other side alone.
func FuzzPunch(f *testing.F) {
	f.Add(byte(2), byte(3), true, true)
	f.Add(byte(3), byte(2), false, true)
	f.Add(byte(2), byte(2), false, false)
	f.Fuzz(func(t *testing.T, local, remote byte, initiator, verified bool) {
		addrs := []remoteAddr{{addrOf(1), verified}, {addrOf(2), false}}
		p := newPunch(Firewall(local), Firewall(remote), addrs, initiator)
		rnd := chance(local + remote)
		sent := 0
		for i := 0; ; i++ {
			out, wait, done := p.step(rnd)
			for _, b := range out {
				if b.to.Addr() != addrs[0].addr.Addr() && (b.to != addrs[1].addr || p.strategy != strategyConsistent) {
					t.Fatal(fmt.Sprint("probe to ", b.to))
				}
				if b.socket < 0 || b.socket >= birthdaySockets {
					t.Fatalf("socket %d", b.socket)
				}
			}
			sent += len(out)
			if done {
				break
			}
			if wait <= 0 || i > 2*randomTries {
				t.Fatalf("step %d waits %v", i, wait)
			}
		}
		if sent > randomTries+birthdaySockets {
			t.Fatalf("%d packets", sent)
		}
	})
}
