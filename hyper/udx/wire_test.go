package udx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// talk is testdata/udx.json: packets of two udx-native streams, by what they
// were told to do.
type talk struct {
	Steps []struct {
		Name    string
		Packets []spoken
	}
}

type spoken struct {
	From                 string
	TypeByte, DataOffset uint8
	ID, Rwnd, Seq, Ack   uint32
	Payload              json.RawMessage
	Sacks                [][2]uint32
	Hex                  string
	Dropped              bool
}

func readTalk(t *testing.T) (v talk) {
	t.Helper()
	raw, err := os.ReadFile("testdata/udx.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPacketsAreThoseOfUDXNative(t *testing.T) {
	count := 0
	for _, step := range readTalk(t).Steps {
		for _, p := range step.Packets {
			text, cut := strings.CutSuffix(p.Hex, "...")
			raw, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if cut { // the data is left out
				raw = append(raw, make([]byte, int(p.DataOffset))...)
			}
			h, blocks, data, ok := parse(raw)
			want := header{kind: p.TypeByte, offset: p.DataOffset, id: p.ID, window: p.Rwnd, seq: p.Seq, ack: p.Ack}
			if !ok || h != want {
				t.Errorf("%s: %x is %+v, %v, want %+v", step.Name, raw, h, ok, want)
				continue
			}
			again := make([]byte, headerSize)
			h.put(again)
			if !bytes.Equal(again, raw[:headerSize]) {
				t.Errorf("%+v is written as %x, want %x", h, again, raw[:headerSize])
			}
			var sacks [][2]uint32
			for ; len(blocks) > 0; blocks = blocks[8:] {
				b := getBlock(blocks)
				sacks = append(sacks, [2]uint32{b.start, b.end})
			}
			if !slices.Equal(sacks, p.Sacks) {
				t.Errorf("%x has blocks %v, want %v", raw, sacks, p.Sacks)
			}
			if payload := ""; json.Unmarshal(p.Payload, &payload) == nil && p.TypeByte&typeSACK == 0 && hex.EncodeToString(data) != payload {
				t.Errorf("%x has data %x, want %s", raw, data, payload)
			}
			count++
		}
	}
	if count < 40 {
		t.Errorf("only %d packets", count)
	}
}

// Two of our streams that are told the same send the same packets. They ack
// every second packet at least and not each one, and begin to look for the MTU a
// packet earlier.
func TestStreamsSayWhatThoseOfUDXNativeSay(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: 100 * time.Microsecond})
	e.ids, e.keep = [2]uint32{0x11111111, 0x22222222}, true
	e.join()
	write := func(from int, data []byte) {
		if e.cores[from].write(data) != len(data) {
			t.Fatal("no room")
		}
		e.with(from, nil)
	}
	end := func(from int) {
		e.cores[from].end()
		e.with(from, nil)
	}
	other := func() { // the streams of the last steps
		old := e
		e = newEnds(t, random(t, 2), old.cable)
		e.ids, e.keep = [2]uint32{3, 4}, true
		e.join()
	}
	do := []func(){
		func() { write(0, []byte("hello")) },
		func() { write(1, []byte("world")) },
		func() {
			e.with(0, func(out *outbox) {
				c := e.cores[0]
				p := out.add(c.path, headerSize+3, true)
				h := c.head(typeMessage)
				h.put(p)
				copy(p[headerSize:], "msg")
			})
		},
		func() { write(0, bytes.Repeat([]byte{7}, 5000)) },
		func() {
			first := true
			e.cable.pass = func(from int, h header, _ int) bool {
				drop := first && from == 0 && h.kind&typeData != 0
				first = first && !drop
				return !drop
			}
			write(0, bytes.Repeat([]byte{8}, 6000))
		},
		func() {
			e.cores[0].keepAlive = 50 * time.Millisecond
			e.cores[0].restKeepAlive(e.now)
		},
		func() {
			e.cores[0].keepAlive = 0
			e.cores[0].restKeepAlive(e.now)
			end(0)
			e.run(10 * time.Millisecond)
			end(1)
		},
		func() { other(); write(0, []byte("x")) },
		func() { e.with(0, func(out *outbox) { e.cores[0].destroy(e.now, out) }) },
	}
	for i, step := range readTalk(t).Steps {
		e.log, e.raw, e.from = nil, nil, nil
		do[i]()
		e.run(220 * time.Millisecond)
		var want, got [2][]string // of each side, without acks of data
		var lastWant, lastGot [2]string
		note := func(from int, raw []byte, all *[2][]string, last *[2]string) {
			h, _, _, _ := parse(append(raw, make([]byte, 255)...))
			raw[3] = 0       // padding
			clear(raw[8:12]) // udx-native's window is as large with bytes that wait to be read
			if text := hex.EncodeToString(raw[:min(len(raw), headerSize+10)]); h.kind&^typeSACK == 0 {
				last[from] = text
			} else if len(raw) > 100 || h.offset > 0 {
				all[from] = append(all[from], hex.EncodeToString(raw[:headerSize]))
			} else {
				all[from] = append(all[from], text)
			}
		}
		for _, p := range step.Packets {
			text, _ := strings.CutSuffix(p.Hex, "...")
			raw, _ := hex.DecodeString(text)
			note(int(p.From[0]-'A'), raw, &want, &lastWant)
		}
		for i, raw := range e.raw {
			if len(raw) > 84 {
				raw = raw[:headerSize] // as the golden file has it
			}
			note(e.from[i], bytes.Clone(raw), &got, &lastGot)
		}
		for from := range got {
			if !slices.Equal(got[from], want[from]) {
				t.Errorf("%s:\nside %d says %q\nwant %q", step.Name, from, got[from], want[from])
			}
			if lastGot[from] != lastWant[from] {
				t.Errorf("%s: the last ack of side %d is %s, want %s", step.Name, from, lastGot[from], lastWant[from])
			}
		}
	}
}
