package replicate

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// bin is binary data, which the vectors have in hex.
type bin []byte

func (b *bin) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*b = raw
	return err
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// again reads a message and writes it.
func again(number int, b []byte) ([]byte, error) {
	switch number {
	case msgSync:
		m, err := readSync(b)
		return m.append(nil), err
	case msgRequest:
		m, err := readRequest(b)
		return m.append(nil), err
	case msgCancel:
		id, err := readCancel(b)
		return compact.AppendUint(nil, id), err
	case msgData:
		d, err := readData(b)
		if err != nil {
			return nil, err
		}
		return d.proof.AppendData(nil, d.id), nil
	case msgNoData:
		id, reason, err := readNoData(b)
		return appendNoData(nil, id, reason), err
	case msgWant, msgUnwant:
		m, err := readWant(b)
		return m.append(nil), err
	case msgBitfield:
		start, words, err := readBitfield(b)
		return appendBitfield(nil, start, words), err
	case msgRange:
		drop, r, err := readRange(b)
		return appendRange(nil, drop, r), err
	case msgExtension:
		name, payload, err := readExtension(b)
		return appendExtension(nil, name, payload), err
	}
	return nil, nil
}

// A vector is a message as the npm package hypercore wrote it.
type vector struct {
	Type  string
	ID    *int `json:"messageId"`
	Hex   bin
	Value struct {
		// sync, request and data
		ID, Fork, Length, RemoteLength, Start, Priority uint64
		CanUpgrade, Uploading, Downloading, HasManifest bool
		AllowPush, Any, Drop, Seeks                     bool
		Block, Hash                                     *struct{ Index, Nodes json.RawMessage }
		Seek                                            *struct{ Bytes, Padding uint64 }
		Upgrade                                         *struct{ Start, Length uint64 }
		Manifest                                        any
		Request, Reason                                 uint64
		Capability, Message                             bin
		Bitfield                                        []uint32
		Name                                            string
	}
}

func number(t *testing.T, b json.RawMessage) (n uint64) {
	t.Helper()
	if err := json.Unmarshal(b, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMessagesAreThoseOfHypercore(t *testing.T) {
	var file struct{ Vectors []vector }
	readJSON(t, "wire.json", &file)
	seen := map[string]int{}
	for _, v := range file.Vectors {
		seen[v.Type]++
		x := &v.Value
		var got []byte
		switch v.Type {
		case "handshake":
			h := handshake{seeks: x.Seeks, capability: [32]byte(x.Capability)}
			got = h.encode()
			if back, err := readHandshake(v.Hex); err != nil || back != h {
				t.Errorf("%x is read as %+v, %v", v.Hex, back, err)
			}
		case "sync":
			m := syncMessage{fork: x.Fork, length: x.Length, remoteLength: x.RemoteLength, canUpgrade: x.CanUpgrade,
				uploading: x.Uploading, downloading: x.Downloading, hasManifest: x.HasManifest, allowPush: x.AllowPush}
			got = m.append(nil)
		case "request":
			m := requestMessage{id: x.ID, fork: x.Fork, priority: x.Priority, manifest: x.Manifest == true}
			if x.Block != nil {
				m.want.Block = &merkle.NodeRequest{Index: number(t, x.Block.Index), Nodes: number(t, x.Block.Nodes)}
			}
			if x.Hash != nil {
				m.want.Hash = &merkle.NodeRequest{Index: number(t, x.Hash.Index), Nodes: number(t, x.Hash.Nodes)}
			}
			if x.Seek != nil {
				m.want.Seek = &merkle.SeekRequest{Bytes: x.Seek.Bytes, Padding: x.Seek.Padding}
			}
			if x.Upgrade != nil {
				m.want.Upgrade = &merkle.UpgradeRequest{Start: x.Upgrade.Start, Length: x.Upgrade.Length}
			}
			got = m.append(nil)
		case "cancel":
			got = compact.AppendUint(nil, x.Request)
		case "data": // hyper/hypercore.TestProofMessageVectors looks inside
			got = v.Hex
		case "noData":
			got = appendNoData(nil, x.Request, x.Reason)
		case "want", "unwant":
			m := wantMessage{start: x.Start, length: x.Length, any: x.Any}
			got = m.append(nil)
		case "bitfield":
			got = appendBitfield(nil, x.Start, x.Bitfield)
		case "range":
			got = appendRange(nil, x.Drop, runs.Range{Start: x.Start, End: x.Start + x.Length})
		case "extension":
			got = appendExtension(nil, x.Name, x.Message)
		default:
			t.Fatalf("unknown message %s", v.Type)
		}
		if !bytes.Equal(got, v.Hex) {
			t.Errorf("%s %+v is written as %x, want %x", v.Type, *x, got, v.Hex)
		}
		if v.ID == nil {
			continue
		}
		if messageNames[*v.ID] != v.Type {
			t.Errorf("message %d is called %s, not %s", *v.ID, messageNames[*v.ID], v.Type)
		}
		if back, err := again(*v.ID, v.Hex); err != nil || !bytes.Equal(back, v.Hex) {
			t.Errorf("%s %x is read and written as %x, %v", v.Type, v.Hex, back, err)
		}
	}
	if len(seen) != 11 {
		t.Errorf("only %d kinds of message: %v", len(seen), seen)
	}
}

// What two hypercores said to each other is read, and written byte for byte; what
// the writer sent makes a log that is the writer's, past a truncation.
func TestARecordedSessionIsUnderstood(t *testing.T) {
	var file struct {
		Transcript struct {
			Key, DiscoveryKey bin
			Frames            []struct {
				From string
				Hex  bin
			}
			Final struct{ LengthA, ForkA uint64 }
		}
	}
	readJSON(t, "protomux.json", &file)
	session := file.Transcript
	key := hypercore.Key(session.Key)
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log, err := hypercore.Open(store, hypercore.Options{Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	counts := [messages]int{}
	for _, side := range []string{"a", "b"} {
		reader := protomux.New(protomux.Options{})
		o := protomux.ChannelOptions{Protocol: protocol, Aliases: []string{alias}, ID: session.DiscoveryKey}
		o.OnOpen = func(_ *protomux.Channel, b []byte) error {
			h, err := readHandshake(b)
			if err == nil && !bytes.HasPrefix(b, h.encode()) {
				t.Errorf("handshake %x is written as %x", b, h.encode())
			}
			return err
		}
		for number := range messages {
			o.Messages = append(o.Messages, func(_ *protomux.Channel, b []byte) error {
				counts[number]++
				back, err := again(number, b)
				if err != nil || !bytes.Equal(back, b) {
					t.Errorf("%s %x is read and written as %x, %v", messageNames[number], b, back, err)
				}
				if number == msgData {
					apply(t, log, b)
				}
				return nil
			})
		}
		reader.Pair(protocol, nil, func(*protomux.Request) {
			if _, err := reader.Open(o); err != nil {
				t.Error(err)
			}
		})
		for _, f := range session.Frames {
			if strings.HasPrefix(f.From, side) {
				if err := reader.Receive(f.Hex); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, number := range []int{msgSync, msgRequest, msgData, msgRange} {
		if counts[number] < 3 {
			t.Errorf("only %d %s messages", counts[number], messageNames[number])
		}
	}
	if log.Length() != session.Final.LengthA || log.Fork() != session.Final.ForkA {
		t.Errorf("length %d and fork %d, want %+v", log.Length(), log.Fork(), session.Final)
	}
	for i := range log.Length() {
		b, err := log.Get(context.Background(), i)
		if err != nil || !strings.HasPrefix(string(b), "block #") {
			t.Errorf("block %d is %q, %v", i, b, err)
		}
	}
}

// apply applies a data message to a log, as a change of fork if it is one.
func apply(t *testing.T, log *hypercore.Log, b []byte) {
	d, err := readData(b)
	if err != nil {
		t.Fatal(err)
	}
	if d.proof.Fork == log.Fork() {
		j := job{answers: []*answer{{proof: d.proof}}}
		j.run(t.Context(), log)
		if err = j.stored; err == nil {
			err = j.answers[0].err
		}
	} else {
		f := forkChange{proof: d.proof}
		err = f.run(t.Context(), log)
	}
	if err != nil {
		t.Errorf("%x: %v", b, err)
	}
}

// Numbers that no peer can mean are refused, before anything is done with them.
func TestMessagesOutOfBoundsAreRefused(t *testing.T) {
	over := []byte{0xff, 0, 0, 0, 0, 0, 0, 0x20, 0} // 2^53
	for what, m := range map[string]struct {
		number int
		b      []byte
	}{
		"a length over 2^53":            {msgSync, append([]byte{0, 0}, over...)},
		"a range that starts too late":  {msgRange, append([]byte{2}, over...)},
		"a range that ends too late":    {msgRange, append([]byte{0, 0}, over...)},
		"a bitfield between words":      {msgBitfield, appendBitfield(nil, 7, []uint32{1})},
		"a bitfield that starts late":   {msgBitfield, append(bytes.Clone(over), 0)},
		"a bitfield larger than a want": {msgBitfield, appendBitfield(nil, 0, make([]uint32, maxBitfieldWords+1))},
		"a name that is too long":       {msgExtension, appendExtension(nil, strings.Repeat("x", maxExtensionName+1), nil)},
		"a message that is cut off":     {msgRequest, []byte{1, 1, 0}},
	} {
		if _, err := again(m.number, m.b); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// FuzzWire reads any bytes as any message. What is read is written so that it is
// read as the same.
func FuzzWire(f *testing.F) {
	var file struct{ Vectors []vector }
	readJSON(f, "wire.json", &file)
	for _, v := range file.Vectors {
		if v.ID != nil {
			f.Add(uint8(*v.ID), []byte(v.Hex))
		}
	}
	f.Fuzz(func(t *testing.T, number uint8, b []byte) {
		n := int(number) % messages
		once, err := again(n, b)
		if err != nil {
			return
		}
		twice, err := again(n, once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s %x is written as %x, and that as %x, %v", messageNames[n], b, once, twice, err)
		}
	})
}
