package protomux

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// taken are the frames that a mux has to send.
func taken(m *Mux) (frames [][]byte) {
	var f Frames
	m.Take(&f)
	for frame := range f.All() {
		frames = append(frames, bytes.Clone(frame))
	}
	return frames
}

// carry carries frames between two muxes until neither has any.
func carry(t testing.TB, a, b *Mux) {
	t.Helper()
	for {
		x, y := taken(a), taken(b)
		if len(x)+len(y) == 0 {
			a.Dispatch()
			b.Dispatch()
			return
		}
		for _, f := range x {
			if err := b.Receive(f); err != nil {
				t.Fatalf("receive %x: %v", f, err)
			}
		}
		for _, f := range y {
			if err := a.Receive(f); err != nil {
				t.Fatalf("receive %x: %v", f, err)
			}
		}
	}
}

// diary keeps what functions of channels were called with.
type diary []string

func (d *diary) add(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// take returns what was kept, and forgets it.
func (d *diary) take() string {
	s := strings.Join(*d, "; ")
	*d = nil
	return s
}

// options are those of a channel that keeps a diary.
func (d *diary) options(protocol, id, handshake string) ChannelOptions {
	return ChannelOptions{
		Protocol: protocol, ID: []byte(id), Handshake: []byte(handshake),
		Messages: []func(*Channel, []byte) error{
			func(_ *Channel, p []byte) error { d.add("0 %s", p); return nil },
			nil,
			func(_ *Channel, p []byte) error { d.add("2 %s", p); return nil },
		},
		OnOpen:  func(_ *Channel, h []byte) error { d.add("open %s", h); return nil },
		OnClose: func(_ *Channel, reason error) { d.add("close %v", reason) },
	}
}

func mustOpen(t testing.TB, m *Mux, o ChannelOptions) *Channel {
	t.Helper()
	c, err := m.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t testing.TB, c *Channel, message int, payload string) {
	t.Helper()
	if err := c.Send(message, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// expectIdle checks that nothing is left of any channel.
func expectIdle(t testing.TB, m *Mux) {
	t.Helper()
	if len(m.groups) != 0 || len(m.free) != len(m.local) || m.inlets != 0 || m.waiting != 0 || len(m.Channels()) != 0 {
		t.Errorf("left over: %d groups, %d of %d numbers, %d inlets, %d bytes", len(m.groups), len(m.local)-len(m.free), len(m.local), m.inlets, m.waiting)
	}
	for _, i := range m.remote {
		if i != nil {
			t.Errorf("number %d of the other side is in use", i.id)
		}
	}
}

func TestChannelsOpenCarryAndClose(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	var x, y diary
	c := mustOpen(t, a, x.options("p", "id", "from a"))
	d := mustOpen(t, b, y.options("p", "id", "from b"))
	if c.Opened() || c.Closed() || !a.Has("p", []byte("id")) || a.Has("p", nil) || c.Protocol() != "p" || string(c.ID()) != "id" || c.Mux() != a {
		t.Error("a channel does not know what it is")
	}
	send(t, c, 0, "early") // before b has answered
	carry(t, a, b)
	if !c.Opened() || !d.Opened() {
		t.Error("the channel is not open")
	}
	send(t, c, 2, "two")
	send(t, c, 1, "nobody listens")
	send(t, c, 3, "of a newer version")
	if err := d.Send(0, []byte("in "), nil, []byte("parts")); err != nil {
		t.Fatal(err)
	}
	carry(t, a, b)
	check(t, "b", y.take(), "open from a; 0 early; 2 two")
	check(t, "a", x.take(), "open from b; 0 in parts")
	send(t, c, 0, "last")
	c.Close()
	c.Close()
	if err := c.Send(0); !errors.Is(err, ErrClosed) {
		t.Errorf("send on a closed channel: %v", err)
	}
	carry(t, a, b)
	check(t, "b", y.take(), "0 last; close channel closed")
	check(t, "a", x.take(), "close <nil>")
	if d.Opened() || !d.Closed() || a.Has("p", []byte("id")) {
		t.Error("the channel is not closed")
	}
	expectIdle(t, a)
	expectIdle(t, b)
}

func TestRequestsAreOpenedHeldOrRejected(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	var x, y diary
	// Nobody is paired.
	mustOpen(t, a, x.options("none", "", ""))
	carry(t, a, b)
	check(t, "a", x.take(), "close channel rejected")
	// Somebody is, and says no, or nothing.
	b.Pair("p", nil, func(r *Request) { y.add("asked %s %s %s", r.Protocol, r.ID, r.Handshake); r.Reject(); r.Reject() })
	b.Pair("p", []byte("ignored"), func(r *Request) { y.add("ignored %s", r.ID) })
	send(t, mustOpen(t, a, x.options("p", "1", "hello")), 0, "lost")
	mustOpen(t, a, x.options("p", "ignored", ""))
	carry(t, a, b)
	check(t, "b", y.take(), "asked p 1 hello; ignored ignored")
	check(t, "a", x.take(), "close channel rejected; close channel rejected")
	expectIdle(t, a)
	expectIdle(t, b)
	// Somebody opens at once.
	b.Pair("p", nil, func(r *Request) { mustOpen(t, b, y.options(r.Protocol, string(r.ID), "at once")) })
	c := mustOpen(t, a, x.options("p", "2", "hello"))
	send(t, c, 0, "pipelined")
	carry(t, a, b)
	check(t, "b", y.take(), "open hello; 0 pipelined")
	check(t, "a", x.take(), "open at once")
	c.Close()
	carry(t, a, b)
	x.take()
	y.take()
	// Somebody takes their time. What came meanwhile is not lost, even if the
	// other side has closed the channel meanwhile.
	b.Pair("p", nil, (*Request).Hold)
	c = mustOpen(t, a, x.options("p", "3", "hello"))
	send(t, c, 0, "early")
	send(t, c, 2, "bird")
	carry(t, a, b)
	check(t, "before the answer", y.take(), "")
	c.Close()
	carry(t, a, b)
	mustOpen(t, b, y.options("p", "3", "late"))
	b.Dispatch()
	check(t, "after the answer", y.take(), "open hello; 0 early; 2 bird; close channel closed")
	carry(t, a, b)
	check(t, "a", x.take(), "close <nil>")
	expectIdle(t, a)
	expectIdle(t, b)
	// Or says no, late.
	var held *Request
	b.Pair("p", nil, func(r *Request) { r.Hold(); held = r })
	mustOpen(t, a, x.options("p", "4", ""))
	carry(t, a, b)
	held.Reject()
	carry(t, a, b)
	check(t, "a", x.take(), "close channel rejected")
	expectIdle(t, a)
	expectIdle(t, b)
	b.Unpair("p", nil)
	b.Unpair("p", []byte("ignored"))
	mustOpen(t, a, x.options("p", "ignored", ""))
	carry(t, a, b)
	check(t, "after Unpair", x.take()+y.take(), "close channel rejected")
}

func TestOneChannelForEachProtocolAndIDUnlessShared(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	var x, y diary
	mustOpen(t, a, x.options("p", "1", ""))
	if _, err := a.Open(x.options("p", "1", "")); !errors.Is(err, ErrExists) {
		t.Errorf("open twice: %v", err)
	}
	mustOpen(t, a, x.options("p", "2", ""))
	mustOpen(t, a, x.options("q", "1", ""))
	shared := func(d *diary, n int) ChannelOptions {
		o := d.options("s", "", fmt.Sprint(n))
		o.Shared = true
		return o
	}
	var ours []*Channel
	for n := range 3 {
		ours = append(ours, mustOpen(t, a, shared(&x, n)))
	}
	for n := range 3 {
		mustOpen(t, b, shared(&y, n))
	}
	carry(t, a, b)
	check(t, "shared channels meet in order", y.take(), "open 0; open 1; open 2")
	send(t, ours[1], 0, "one")
	carry(t, a, b)
	check(t, "b", y.take(), "0 one")
}

func TestAliasesAreAnswered(t *testing.T) {
	for _, old := range []string{"first", "second"} {
		a, b := New(Options{}), New(Options{})
		var x, y diary
		alias := x.options("new", "1", "")
		alias.Aliases = []string{"older", "old"}
		if old == "first" {
			mustOpen(t, b, y.options("old", "1", "hello"))
			a.Pair("old", nil, func(*Request) { mustOpen(t, a, alias) })
			b.Pair("new", nil, func(*Request) { t.Error("asked for what is there") })
		} else {
			mustOpen(t, a, alias)
			b.Pair("new", nil, (*Request).Hold)
			for _, f := range taken(a) {
				if err := b.Receive(f); err != nil {
					t.Fatal(err)
				}
			}
			mustOpen(t, b, y.options("old", "1", "hello"))
		}
		for _, f := range taken(b) {
			if err := a.Receive(f); err != nil {
				t.Fatal(err)
			}
		}
		check(t, old, x.take(), "open hello")
		if !a.Has("new", []byte("1")) || !a.Has("old", []byte("1")) {
			t.Error("an alias is not a name")
		}
	}
}

// A number is used again once the other side knows that it is free, the one
// freed last first.
func TestNumbersAreUsedAgainOnceTheOtherSideKnows(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	b.Pair("p", nil, func(r *Request) { mustOpen(t, b, ChannelOptions{Protocol: "p", ID: r.ID}) })
	open := func(id string) *Channel { return mustOpen(t, a, ChannelOptions{Protocol: "p", ID: []byte(id)}) }
	c1, c2, c3 := open("1"), open("2"), open("3")
	carry(t, a, b)
	c1.Close()
	c3.Close()
	c4, c5, c6 := open("4"), open("5"), open("6")
	if got, want := []uint64{c2.port.id, c4.port.id, c5.port.id, c6.port.id}, []uint64{2, 3, 1, 4}; !slices.Equal(got, want) {
		t.Errorf("numbers %d, want %d", got, want)
	}
	// Not yet answered: 4 stays taken.
	c6.Close()
	c7 := open("7")
	if c7.port.id != 5 {
		t.Errorf("number %d was used again before it was answered", c7.port.id)
	}
	carry(t, a, b)
	if c8 := open("8"); c8.port.id != 4 {
		t.Errorf("number %d, want 4", c8.port.id)
	}
	carry(t, a, b)
	for _, c := range a.Channels() {
		c.Close()
	}
	carry(t, a, b)
	expectIdle(t, a)
	expectIdle(t, b)
}

func TestABatchIsAnsweredByABatch(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	echo := func(c *Channel, p []byte) error { return c.Send(0, p) }
	got := ""
	c := mustOpen(t, a, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{
		func(_ *Channel, p []byte) error { got += string(p); return nil },
	}})
	mustOpen(t, b, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{echo}})
	carry(t, a, b)
	c.Cork()
	c.Cork()
	send(t, c, 0, "a")
	c.Uncork()
	send(t, c, 0, "b")
	send(t, c, 0, "c")
	if frames := taken(a); len(frames) != 0 {
		t.Errorf("corked, but %d frames are out", len(frames))
	}
	c.Uncork()
	frames := taken(a)
	if len(frames) != 1 {
		t.Fatalf("%d frames, want 1", len(frames))
	}
	if err := b.Receive(frames[0]); err != nil {
		t.Fatal(err)
	}
	answers := taken(b)
	if len(answers) != 1 || !bytes.HasPrefix(answers[0], []byte{0, controlBatch}) {
		t.Errorf("answers %x, want one batch", answers)
	}
	if err := a.Receive(answers[0]); err != nil || got != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
	a.Cork()
	a.Uncork()
	if frames := taken(a); len(frames) != 0 {
		t.Errorf("an empty batch is %x", frames)
	}
	// What is taken while corked is what came before.
	send(t, c, 0, "before")
	a.Cork()
	send(t, c, 0, "d")
	if frames := taken(a); len(frames) != 1 || !bytes.HasSuffix(frames[0], []byte("before")) {
		t.Errorf("taken while corked: %q", frames)
	}
	send(t, c, 0, "e")
	a.Uncork()
	if frames := taken(a); len(frames) != 1 || string(frames[0]) != "\x00\x00\x01\x02\x00d\x02\x00e" {
		t.Errorf("after uncork: %q", frames)
	}
	defer func() {
		if recover() == nil {
			t.Error("uncorked too often without a panic")
		}
	}()
	a.Uncork()
}

func TestBatchesAreBounded(t *testing.T) {
	a := New(Options{})
	c := mustOpen(t, a, ChannelOptions{Protocol: "p"})
	taken(a)
	c.Cork()
	for range 20 {
		if err := c.Send(0, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(0, make([]byte, MaxPayload)); err != nil {
		t.Fatal(err)
	}
	c.Uncork()
	total := 0
	for _, f := range taken(a) {
		if len(f) > MaxFrame {
			t.Errorf("a frame of %d bytes", len(f))
		}
		total += len(f)
	}
	if total < 20<<20+MaxPayload {
		t.Errorf("%d bytes in all", total)
	}
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	a := New(Options{MaxChannels: 3, MaxQueued: 1 << 20})
	long := strings.Repeat("x", maxName+1)
	for what, o := range map[string]ChannelOptions{
		"protocol":  {Protocol: long},
		"id":        {Protocol: "p", ID: []byte(long)},
		"handshake": {Protocol: "p", Handshake: make([]byte, MaxPayload)},
	} {
		if _, err := a.Open(o); !errors.Is(err, ErrTooLarge) {
			t.Errorf("open with too large a %s: %v", what, err)
		}
	}
	c := mustOpen(t, a, ChannelOptions{Protocol: "1"})
	mustOpen(t, a, ChannelOptions{Protocol: "2"})
	mustOpen(t, a, ChannelOptions{Protocol: "3"}).Close()
	if _, err := a.Open(ChannelOptions{Protocol: "4"}); !errors.Is(err, ErrTooMany) {
		t.Errorf("open one more than there may be: %v", err)
	}
	if err := c.Send(0, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("send too large a payload: %v", err)
	}
	sent := 0
	for c.Send(0, make([]byte, 1000)) == nil {
		sent++
	}
	if err := c.Send(0, make([]byte, 1000)); !errors.Is(err, ErrFull) || sent < 1000 || a.Drained() {
		t.Errorf("send after %d messages: %v, drained %v", sent, err, a.Drained())
	}
	drained := false
	c.o.OnDrain = func(*Channel) { drained = true }
	taken(a)
	a.Dispatch()
	if !a.Drained() || !drained || c.Send(0) != nil {
		t.Error("not drained when all is taken")
	}
}

func openFrame(id uint64, protocol string) []byte {
	b := compact.AppendUint([]byte{0, controlOpen}, id)
	return append(compact.AppendString(b, protocol), 0)
}

// A peer that opens ten thousand channels costs a bounded amount of memory and
// is told no. One that goes on forever is cut off.
func TestTenThousandChannelsCostABoundedAmountAndAreRejected(t *testing.T) {
	for what, notify := range map[string]func(*Request){"held": (*Request).Hold, "ignored": func(*Request) {}} {
		m := New(Options{MaxChannels: 500})
		m.Pair("p", nil, notify)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		rejected := 0
		var err error
		opened := 0
		for opened = 1; opened <= 10_000 && err == nil; opened++ {
			err = m.Receive(openFrame(uint64(opened), "p"))
			if m.inlets > 500 {
				t.Fatalf("%s: %d channels", what, m.inlets)
			}
			if opened == 1900 {
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
			rejected += len(taken(m))
		}
		if !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), "channel 2001") || opened != 2002 {
			t.Errorf("%s: after %d opens: %v", what, opened, err)
		}
		if want := map[string]int{"held": 1500, "ignored": 2000}[what]; rejected != want {
			t.Errorf("%s: %d rejected, want %d", what, rejected, want)
		}
		if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 1<<20 {
			t.Errorf("%s: %d bytes for 500 channels", what, used)
		}
	}
	// An honest opener is told, and goes on with those it got.
	a, b := New(Options{MaxChannels: 10_000}), New(Options{MaxChannels: 5_000})
	b.Pair("p", nil, func(r *Request) { mustOpen(t, b, ChannelOptions{Protocol: "p", ID: r.ID}) })
	rejected, opened := 0, 0
	for i := range 10_000 {
		mustOpen(t, a, ChannelOptions{
			Protocol: "p", ID: compact.AppendUint(nil, uint64(i)),
			OnOpen: func(*Channel, []byte) error { opened++; return nil },
			OnClose: func(_ *Channel, reason error) {
				if errors.Is(reason, ErrRejected) {
					rejected++
				}
			},
		})
	}
	carry(t, a, b)
	if opened != 5_000 || rejected != 5_000 {
		t.Errorf("%d opened and %d rejected, want 5000 each", opened, rejected)
	}
}

func TestARejectedPeerThatDoesNotReadIsCutOff(t *testing.T) {
	m := New(Options{MaxQueued: 1000})
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = m.Receive(openFrame(1, "nobody"))
	}
	if !errors.Is(err, ErrFull) || len(m.out.buf) > 1100 {
		t.Errorf("after %d opens: %v", n, err)
	}
}

func TestWhatIsKeptBeforeAChannelIsOpenIsBounded(t *testing.T) {
	m := New(Options{})
	m.Pair("p", nil, (*Request).Hold)
	if err := m.Receive(openFrame(1, "p")); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; !m.Paused(); n++ {
		if err := m.Receive([]byte{1, 0, 'x'}); err != nil {
			t.Fatal(err)
		}
	}
	if want := pauseBuffered / (perMessage + 1); n < want-1 || n > want+1 {
		t.Errorf("paused after %d messages, want about %d", n, want)
	}
	// A peer cannot get far beyond that, not even in one batch.
	batch := []byte{0, controlBatch, 1}
	for range 100_000 {
		batch = append(batch, 1, 0)
	}
	if err := m.Receive(batch); !errors.Is(err, ErrTooLarge) || m.waiting > maxBuffered+perMessage {
		t.Errorf("after a batch of 100,000 messages: %v, %d bytes", err, m.waiting)
	}
	// Who decides lets it go on.
	m = New(Options{})
	m.Pair("p", nil, (*Request).Hold)
	if err := m.Receive(openFrame(1, "p")); err != nil {
		t.Fatal(err)
	}
	if err := m.Receive(append([]byte{1, 0}, make([]byte, 40_000)...)); err != nil || !m.Paused() {
		t.Errorf("40,000 bytes: %v, paused %v", err, m.Paused())
	}
	got := 0
	mustOpen(t, m, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{func(_ *Channel, p []byte) error { got = len(p); return nil }}})
	m.Dispatch()
	if m.Paused() || got != 40_000 || m.waiting != 0 {
		t.Errorf("after the answer: paused %v, %d bytes arrived", m.Paused(), got)
	}
}

func TestABrokenRuleEndsTheMux(t *testing.T) {
	for _, c := range []struct{ what, frames string }{
		{"a number that is cut", "fd01"},
		{"no message number", "01"},
		{"open of 0", "0001000170"},
		{"open that skips a number", "000102017000"},
		{"open of a number in use", "000101017000 000101017100"},
		{"open that is cut", "0001010570"},
		{"open with a long name", "000101fdffff" + strings.Repeat("70", 0xffff) + "00"},
		{"reject of nothing", "000205"},
		{"reject of 0", "000200"},
		{"reject of what is open", "000101016f00 000201"},
		{"reject twice", "000201 000201"},
		{"reject that is cut", "0002"},
		{"close that is cut", "0003"},
		{"batch without a channel", "0000"},
		{"batch with a long message", "00000105006162"},
		{"batch in a batch", "00000005000001010000"},
		{"batch with half a number", "00000101fd"},
		{"batch that ends in a switch", "0000010101 00000100"},
	} {
		m := New(Options{})
		m.Pair("p", nil, (*Request).Hold)
		var d diary
		mustOpen(t, m, d.options("o", "", ""))
		var err error
		for _, f := range strings.Fields(c.frames) {
			frame, bad := hex.DecodeString(f)
			if bad != nil {
				t.Fatal(c.what, bad)
			}
			if err != nil {
				t.Fatalf("%s: ended early: %v", c.what, err)
			}
			err = m.Receive(frame)
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if again := m.Receive(nil); again == nil || !errors.Is(m.Err(), ErrProtocol) {
			t.Errorf("%s: goes on: %v", c.what, again)
		}
		if !strings.Contains(d.take(), "close ") {
			t.Errorf("%s: the channel was not told", c.what)
		}
		if _, err := m.Open(ChannelOptions{Protocol: "z"}); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: open after the end: %v", c.what, err)
		}
		if len(m.Channels()) != 0 || len(taken(m)) != 0 {
			t.Errorf("%s: not all is over", c.what)
		}
	}
}

func TestWhatCrossesOnTheWayIsIgnored(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	var x, y diary
	c := mustOpen(t, a, x.options("p", "", ""))
	d := mustOpen(t, b, y.options("p", "", ""))
	carry(t, a, b)
	x.take()
	y.take()
	send(t, d, 0, "too late")
	c.Close()
	d.Close()
	carry(t, a, b)
	check(t, "closed on both sides", x.take()+y.take(), "close <nil>close <nil>")
	for _, frame := range []string{"", "0500", "000363", "0009", "00630102", "000300"} {
		raw, err := hex.DecodeString(frame)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Receive(raw); err != nil {
			t.Errorf("%s: %v", frame, err)
		}
	}
	expectIdle(t, a)
	expectIdle(t, b)
}

func TestAnErrorOfAFunctionEndsTheMux(t *testing.T) {
	broken := errors.New("cannot read that")
	for _, where := range []string{"open", "message"} {
		a, b := New(Options{}), New(Options{})
		fail := func(*Channel, []byte) error { return broken }
		var reason error
		o := ChannelOptions{Protocol: "p", OnClose: func(_ *Channel, err error) { reason = err }}
		if where == "open" {
			o.OnOpen = fail
		} else {
			o.Messages = []func(*Channel, []byte) error{fail}
		}
		mustOpen(t, b, o)
		send(t, mustOpen(t, a, ChannelOptions{Protocol: "p"}), 0, "x")
		var err error
		for _, f := range taken(a) {
			err = b.Receive(f)
		}
		if !errors.Is(err, broken) || !errors.Is(reason, broken) || !errors.Is(b.Err(), broken) {
			t.Errorf("%s: receive says %v, the channel got %v, the mux has %v", where, err, reason, b.Err())
		}
	}
}

func TestFunctionsMayUseTheMux(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	var d diary
	b.Pair("p", nil, func(r *Request) {
		o := d.options("p", string(r.ID), "")
		o.Messages[0] = func(c *Channel, p []byte) error {
			d.add("got %s", p)
			c.Close()
			d.add("sends %v", c.Send(0))
			if r.ID[0] == '1' {
				mustOpen(t, b, d.options("q", "", "nested"))
			}
			return nil
		}
		mustOpen(t, b, o)
	})
	c := mustOpen(t, a, ChannelOptions{Protocol: "p", ID: []byte("1")})
	send(t, c, 0, "one")
	send(t, c, 0, "dropped")
	carry(t, a, b)
	check(t, "b", d.take(), "open ; got one; sends send message 0 of p: channel closed; close <nil>; close channel rejected")
	if !c.Closed() {
		t.Error("not closed")
	}
}

// Two muxes that open, close, send and batch at random agree in the end on
// what is open, have lost nothing, and use no number for good.
func TestRandomSessionsAgree(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var sides [2]*Mux
		var channels [2]map[string]*Channel
		var sent, received [2][]string
		for s := range sides {
			sides[s], channels[s] = New(Options{}), map[string]*Channel{}
		}
		open := func(s int, id string) {
			key := id
			c, err := sides[s].Open(ChannelOptions{
				Protocol: "p", ID: []byte(id),
				Messages: []func(*Channel, []byte) error{func(_ *Channel, p []byte) error {
					received[s] = append(received[s], string(p))
					return nil
				}},
				OnClose: func(c *Channel, _ error) {
					if channels[s][key] == c {
						delete(channels[s], key)
					}
				},
			})
			if err == nil {
				channels[s][key] = c
			}
		}
		for s := range sides {
			sides[s].Pair("p", nil, func(r *Request) {
				if r.ID[0]%3 == byte(s) {
					return // reject
				}
				open(s, string(r.ID))
			})
		}
		var inFlight [2][][]byte
		step := func(s int) {
			inFlight[s] = append(inFlight[s], taken(sides[s])...)
			if len(inFlight[s]) > 0 && rng.IntN(2) == 0 {
				if err := sides[1-s].Receive(inFlight[s][0]); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				inFlight[s] = inFlight[s][1:]
			}
		}
		for n := range 300 {
			s := rng.IntN(2)
			id := string(rune('a' + rng.IntN(6)))
			switch rng.IntN(6) {
			case 0, 1:
				open(s, id)
			case 2:
				if c := channels[s][id]; c != nil && rng.IntN(2) == 0 {
					c.Close()
				}
			case 3, 4:
				if c := channels[s][id]; c != nil {
					m := fmt.Sprint(n)
					if rng.IntN(3) == 0 {
						c.Cork()
						send(t, c, 0, m)
						send(t, c, 1, "x")
						c.Uncork()
					} else {
						send(t, c, 0, m)
					}
					sent[1-s] = append(sent[1-s], m)
				}
			}
			step(rng.IntN(2))
			sides[s].Dispatch()
		}
		flush := func() {
			for len(inFlight[0])+len(inFlight[1]) > 0 || sides[0].out.Len()+sides[1].out.Len() > 0 {
				step(0)
				step(1)
			}
		}
		flush()
		for s := range sides {
			at := 0
			for _, m := range received[s] {
				i := slices.Index(sent[s][at:], m)
				if i < 0 {
					t.Fatalf("seed %d: side %d received %s, which was not sent, or out of order", seed, s, m)
				}
				at += i + 1
			}
			for id, c := range channels[s] {
				if !c.Opened() || channels[1-s][id] == nil {
					t.Errorf("seed %d: side %d has %s open alone", seed, s, id)
				}
				c.Close()
			}
		}
		flush()
		expectIdle(t, sides[0])
		expectIdle(t, sides[1])
		if t.Failed() {
			return
		}
	}
}

func TestSendingAndReceivingDoNotAllocate(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	c := mustOpen(t, a, ChannelOptions{Protocol: "p"})
	n := 0
	mustOpen(t, b, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{func(_ *Channel, p []byte) error { n += len(p); return nil }}})
	carry(t, a, b)
	payload := make([]byte, 100)
	var f Frames
	allocs := testing.AllocsPerRun(100, func() {
		if err := c.Send(0, payload); err != nil {
			t.Fatal(err)
		}
		a.Take(&f)
		for frame := range f.All() {
			if err := b.Receive(frame); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a message", allocs)
	}
}

// FuzzReceive hands frames of any bytes to a mux. It must not panic, must keep
// its books, and be over once it fails.
func FuzzReceive(f *testing.F) {
	for _, v := range readVectors(f).Frames {
		for _, frame := range v.Frames {
			f.Add([]byte(frame), []byte{0, 3, 1})
		}
	}
	for _, frame := range readVectors(f).Transcript.Frames {
		f.Add([]byte(frame.Hex), []byte{0, 2, 1})
	}
	f.Add(openFrame(1, "held"), []byte{0, 3, 1})
	f.Add(openFrame(1, "taken"), []byte{1, 0, 1})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		m := New(Options{MaxChannels: 8})
		calls := 0
		o := func(protocol string) ChannelOptions {
			return ChannelOptions{
				Protocol: protocol, Shared: true,
				Messages: []func(*Channel, []byte) error{
					func(c *Channel, p []byte) error { calls++; return nil },
					func(c *Channel, p []byte) error { c.Close(); return nil },
				},
			}
		}
		m.Pair("held", nil, (*Request).Hold)
		m.Pair("taken", nil, func(r *Request) { m.Open(o("taken")) })
		mustOpen(t, m, o("ours"))
		kept := [][]byte{bytes.Clone(one), bytes.Clone(two)}
		for i, frame := range [][]byte{one, two, one} {
			err := m.Receive(frame)
			if !bytes.Equal(frame, kept[i%2]) {
				t.Fatal("receive changed the frame")
			}
			if (err != nil) != (m.Err() != nil) || err != nil && len(m.Channels()) != 0 {
				t.Fatalf("%v, but %v, and %d channels", err, m.Err(), len(m.Channels()))
			}
			books(t, m)
		}
		held, err := m.Open(o("held"))
		m.Dispatch()
		if err == nil && held.Closed() != (held.port.channel == nil) {
			t.Error("a channel is closed and open")
		}
		books(t, m)
		m.Close()
		m.Dispatch()
		books(t, m)
	})
}

// books checks that what is counted is there.
func books(t *testing.T, m *Mux) {
	t.Helper()
	inlets, waiting := 0, 0
	for _, i := range m.remote {
		if i == nil {
			continue
		}
		inlets++
		if i.channel == nil {
			waiting += i.size()
		}
	}
	used := 0
	for _, p := range m.local {
		if p != nil {
			used++
		}
	}
	if inlets != m.inlets || inlets > 8+len(m.local) || waiting != m.waiting || used != len(m.local)-len(m.free) || m.corked != 0 || m.batching {
		t.Fatalf("%d inlets, counted %d; %d bytes, counted %d; %d numbers, counted %d; %d corks", inlets, m.inlets, waiting, m.waiting, used, len(m.local)-len(m.free), m.corked)
	}
}

func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{100, 65536} {
		for _, batch := range []int{1, 16} {
			b.Run(fmt.Sprintf("%d bytes, %d a frame", size, batch), func(b *testing.B) {
				x, y := New(Options{}), New(Options{})
				c := mustOpen(b, x, ChannelOptions{Protocol: "p"})
				mustOpen(b, y, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{func(*Channel, []byte) error { return nil }}})
				carry(b, x, y)
				payload := make([]byte, size)
				var f Frames
				b.SetBytes(int64(size * batch))
				b.ReportAllocs()
				for b.Loop() {
					if batch > 1 {
						c.Cork()
					}
					for range batch {
						if err := c.Send(0, payload); err != nil {
							b.Fatal(err)
						}
					}
					if batch > 1 {
						c.Uncork()
					}
					x.Take(&f)
					for frame := range f.All() {
						if err := y.Receive(frame); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
