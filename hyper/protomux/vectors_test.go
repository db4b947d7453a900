package protomux

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
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

// vectorFile is testdata/protomux.json: frames that the npm package wrote, and
// those of a session between two hypercores.
type vectorFile struct {
	Frames []struct {
		Name   string
		Frames []bin
	}
	Transcript struct {
		DiscoveryKey bin
		Frames       []struct {
			From    string
			Hex     bin
			Decoded []struct {
				Channel uint64
				Type    string
				Open    *struct {
					ID        uint64
					Protocol  string
					ChannelID bin
				}
			}
		}
	}
}

func readVectors(t testing.TB) (v vectorFile) {
	t.Helper()
	text, err := os.ReadFile("testdata/protomux.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Frames) != 7 || len(v.Transcript.Frames) != 32 {
		t.Fatalf("%d frames and %d of a session, want 7 and 32", len(v.Frames), len(v.Transcript.Frames))
	}
	return v
}

func TestFramesAreThoseOfProtomux(t *testing.T) {
	v := readVectors(t)
	m := New(Options{})
	var c, c2 *Channel
	for i, step := range []func(){
		func() {
			c = mustOpen(t, m, ChannelOptions{Protocol: "test/proto", ID: bytes.Repeat([]byte{1}, 32), Handshake: compact.AppendString(nil, "hi")})
		},
		func() {
			send(t, c, 0, string(compact.AppendString(nil, "hello")))
			send(t, c, 1, string(compact.AppendUint(nil, 300)))
		},
		func() { c2 = mustOpen(t, m, ChannelOptions{Protocol: "noid"}) },
		func() {
			m.Cork()
			send(t, c, 0, string(compact.AppendString(nil, "a")))
			send(t, c, 0, string(compact.AppendString(nil, "b")))
			send(t, c2, 0, "raw")
			send(t, c, 1, string(compact.AppendUint(nil, 1)))
			m.Uncork()
		},
		func() {
			m.Cork()
			mustOpen(t, m, ChannelOptions{Protocol: "third"}).Close()
			m.Uncork()
		},
		func() { c2.Close() },
		func() {
			m = New(Options{})
			if err := m.Receive(openFrame(1, "unknown")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		step()
		got := taken(m)
		if len(got) != len(v.Frames[i].Frames) {
			t.Fatalf("%s: %d frames, want %d", v.Frames[i].Name, len(got), len(v.Frames[i].Frames))
		}
		for n, want := range v.Frames[i].Frames {
			if !bytes.Equal(got[n], want) {
				t.Errorf("%s: got %x, want %x", v.Frames[i].Name, got[n], want)
			}
		}
	}
}

// What hypercores said to each other is read as the npm package reads it, and
// written again byte for byte.
func TestARecordedSessionReplays(t *testing.T) {
	v := readVectors(t).Transcript
	names := []string{"sync", "request", "cancel", "data", "noData", "want", "unwant", "bitfield", "range", "extension"}
	for _, side := range []string{"a", "b"} {
		reader, writer := New(Options{}), New(Options{})
		var again func() // writes what was read
		var replay []func()
		var c *Channel
		seen := []string{}
		o := ChannelOptions{Protocol: "hypercore/alpha", Aliases: []string{"hypercore"}, ID: v.DiscoveryKey}
		o.OnOpen = func(_ *Channel, handshake []byte) error {
			h := bytes.Clone(handshake)
			seen = append(seen, "open")
			replay = append(replay, func() {
				c = mustOpen(t, writer, ChannelOptions{Protocol: "hypercore/alpha", ID: v.DiscoveryKey, Handshake: h})
			})
			return nil
		}
		for number, name := range names {
			o.Messages = append(o.Messages, func(_ *Channel, p []byte) error {
				seen = append(seen, name)
				payload := string(p)
				replay = append(replay, func() { send(t, c, number, payload) })
				return nil
			})
		}
		reader.Pair("hypercore/alpha", nil, func(r *Request) {
			if !bytes.Equal(r.ID, v.DiscoveryKey) {
				t.Errorf("asked for %x", r.ID)
			}
			mustOpen(t, reader, o)
		})
		frames := 0
		for i, f := range v.Frames {
			if !strings.HasPrefix(f.From, side) {
				continue
			}
			frames++
			if err := reader.Receive(f.Hex); err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
			var want []string
			for _, d := range f.Decoded {
				if d.Open != nil {
					d.Type = "open"
				}
				want = append(want, d.Type)
			}
			if got := strings.Join(seen, " "); got != strings.Join(want, " ") {
				t.Errorf("frame %d: read %s, want %s", i, got, want)
			}
			again = func() {
				for _, step := range replay {
					step()
				}
			}
			if bytes.HasPrefix(f.Hex, []byte{0, controlBatch}) {
				writer.Cork()
				again()
				writer.Uncork()
			} else {
				again()
			}
			if got := taken(writer); len(got) != 1 || !bytes.Equal(got[0], f.Hex) {
				t.Errorf("frame %d: wrote %x, want %x", i, got, f.Hex)
			}
			seen, replay = nil, nil
		}
		if frames < 10 {
			t.Errorf("only %d frames from %s", frames, side)
		}
	}
}
