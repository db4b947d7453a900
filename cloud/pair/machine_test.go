package pair

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/noise"
)

const frog = "stone river amount name salon frog"

// A run is both sides of an attempt, and what went between them.
type run struct {
	inviting *inviting
	joining  *joining
	said     []message // in order
}

func newRun(t testing.TB, invited, typed words.Code, atInviter, atJoiner link) *run {
	t.Helper()
	inviting, err := newInviting(invited, atInviter, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	joining, out, err := newJoining(typed, atJoiner, identity.Seed{3}.KeyPair(), "laptop", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &run{inviting, joining, out}
}

func linkOf(n byte) link { return link{[noise.HashSize]byte{n}, noise.Key{n, 1}, noise.Key{n, 2}} }

// play passes messages on until a side fails or all is said.
func (r *run) play(h *home) error {
	out := r.said
	for len(out) > 0 {
		m := out[0]
		out = out[1:]
		var answer []message
		var what event
		var err error
		if m.number%2 == 0 { // of the joiner
			answer, what, err = r.inviting.step(m.number, m.payload)
			if what == proven {
				a, e := h.admit(context.Background(), r.inviting.request)
				err = e
				answer = r.inviting.admit(a)
			}
		} else {
			answer, what, err = r.joining.step(m.number, m.payload)
			if what == admitted {
				answer = r.joining.done()
			}
		}
		if err != nil {
			return err
		}
		r.said = append(r.said, answer...)
		out = append(out, answer...)
		if what == confirmed {
			return nil
		}
	}
	return errors.New("nothing more is said")
}

func TestSidesMustAgreeOnWordsAndStream(t *testing.T) {
	h := newHome(t)
	c := code(t, frog)
	key := linkOf(1)
	key.joiner[0]++
	for name, tt := range map[string]struct {
		typed words.Code
		at    link
		want  error
	}{
		"the same":       {c, linkOf(1), nil},
		"another word":   {code(t, "stone river amount name salon fog"), linkOf(1), ErrWords},
		"another first":  {code(t, "stove river amount name salon frog"), linkOf(1), ErrWords},
		"another stream": {c, linkOf(2), ErrWords},
		"another key":    {c, key, ErrWords},
	} {
		r := newRun(t, c, tt.typed, linkOf(1), tt.at)
		if err := r.play(h); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if tt.want == nil && (len(r.said) != 5 || string(r.joining.admission.Payload) != "the cloud's key") {
			t.Errorf("%s: %d messages, %+v", name, len(r.said), r.joining.admission)
		}
	}
}

// At every step every other message ends the attempt, those of an earlier run
// included, and nobody is let in.
func TestOnlyTheNextMessageIsTaken(t *testing.T) {
	h := newHome(t)
	c := code(t, frog)
	earlier := newRun(t, c, c, linkOf(1), linkOf(1))
	if err := earlier.play(h); err != nil {
		t.Fatal(err)
	}
	bad := [][]byte{nil, {0}, make([]byte, 33), make([]byte, 4096), make([]byte, maxAdmission+1)}
	for _, m := range earlier.said {
		bad = append(bad, m.payload, append(bytes.Clone(m.payload), 0), m.payload[:len(m.payload)-1])
	}
	for reached := range 5 { // messages that go well before
		for number := range messages + 1 {
			for i, payload := range bad {
				if number != reached && i%5 != number%5 && os.Getenv("BEVY_LONG") == "" {
					continue // what is in a message of another number makes no difference
				}
				r := newRun(t, c, c, linkOf(1), linkOf(1))
				got := earlyRun(t, h, r, reached)
				side, step := "inviter", r.inviting.step
				if got%2 == 1 {
					side, step = "joiner", r.joining.step
				}
				// A share of another run is as good as any; what follows shows the
				// difference.
				if number == got && (number == messageHello || number == messageShare) && len(payload) == len(r.next(got)) && i > 2 {
					continue
				}
				out, what, err := step(number, payload)
				if err == nil || what != nothing || out != nil {
					t.Errorf("after %d messages the %s takes message %d, sample %d: event %d, %v", reached, side, number, i, what, err)
				}
				if _, what, err := step(got, r.next(got)); err == nil || what != nothing {
					t.Errorf("after %d messages and a bad one the %s goes on", reached, side)
				}
			}
		}
	}
}

// earlyRun lets the first messages go well, and returns the number of the next.
func earlyRun(t *testing.T, h *home, r *run, count int) int {
	t.Helper()
	for n := range count {
		m := r.said[n]
		var out []message
		var what event
		var err error
		if n%2 == 0 {
			out, what, err = r.inviting.step(m.number, m.payload)
		} else {
			out, what, err = r.joining.step(m.number, m.payload)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch what {
		case proven:
			a, _ := h.admit(context.Background(), r.inviting.request)
			out = r.inviting.admit(a)
		case admitted:
			out = r.joining.done()
		}
		r.said = append(r.said, out...)
	}
	return count
}

// next is the message that is to come.
func (r *run) next(number int) []byte {
	i := slices.IndexFunc(r.said, func(m message) bool { return m.number == number })
	if i < 0 {
		return nil
	}
	return r.said[i].payload
}

// A liar who knows the words may send anything that is well sealed.
func TestSealedLiesAreRefused(t *testing.T) {
	h := newHome(t)
	c := code(t, frog)
	honest := identity.Seed{3}.KeyPair()
	other := identity.Seed{4}.KeyPair()
	good := func(k keys) []byte { return appendRequest(k, honest, "laptop") }
	for name, lie := range map[string]func(k keys) []byte{
		"nothing":                func(keys) []byte { return nil },
		"cut":                    func(k keys) []byte { return good(k)[:50] },
		"more":                   func(k keys) []byte { return append(good(k), 0) },
		"a device it has not":    func(k keys) []byte { b := good(k); copy(b, other.Public[:]); return b },
		"a proof of another run": func(k keys) []byte { return appendRequest(append(keys{1}, k...), honest, "laptop") },
		"a long name":            func(k keys) []byte { return appendRequest(k, honest, strings.Repeat("x", identity.MaxName+1)) },
	} {
		r := newRun(t, c, c, linkOf(1), linkOf(1))
		earlyRun(t, h, r, 2)
		k := r.joining.keys
		if _, what, err := r.inviting.step(messageRequest, k.seal(keyRequestTag, keyRequestSeal, lie(k))); !errors.Is(err, ErrProtocol) || what != nothing {
			t.Errorf("request with %s: %v", name, err)
		}
	}
	mine := func(a Admission) Admission { return a }
	for name, lie := range map[string]func(a Admission) Admission{
		"honest":              mine,
		"no chain":            func(a Admission) Admission { a.Chain = nil; return a },
		"another's":           func(a Admission) Admission { a.Chain = a.Chain[:1]; return a },
		"without the owner":   func(a Admission) Admission { a.Chain = a.Chain[1:]; return a },
		"in another order":    func(a Admission) Admission { a.Chain = []identity.Certificate{a.Chain[1], a.Chain[0]}; return a },
		"a changed name":      func(a Admission) Admission { a.Chain[1].Name = "desktop"; return a },
		"of another cloud":    func(a Admission) Admission { a.Chain[0].Cloud[0]++; return a },
		"a chain without end": func(a Admission) Admission { a.Chain = slices.Repeat(a.Chain, 5); return a },
		"too much":            func(a Admission) Admission { a.Payload = make([]byte, MaxPayload+1); return a },
	} {
		r := newRun(t, c, c, linkOf(1), linkOf(1))
		earlyRun(t, h, r, 2)
		a, _ := h.admit(context.Background(), Request{honest.Public, "laptop"})
		a.Chain = slices.Clone(a.Chain)
		r.inviting.next = messageDone
		out := r.inviting.admit(lie(a))
		_, what, err := r.joining.step(messageAdmission, out[0].payload)
		if name == "honest" && (err != nil || what != admitted) || name != "honest" && (!errors.Is(err, ErrProtocol) || what != nothing) {
			t.Errorf("admission, %s: event %d, %v", name, what, err)
		}
	}
	if got := readReason([]byte{1}); got != ErrWords {
		t.Errorf("reason 1 is %v", got)
	}
	for _, b := range [][]byte{nil, {0}, {8}, {255}, {1, 1}} {
		if err := readReason(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("reason %v: %v", b, err)
		}
	}
	for i, reason := range reasons {
		if reason != nil && readReason(refusal(reason).payload) != reason {
			t.Errorf("reason %d does not come through", i)
		}
	}
	if got := readReason(refusal(errors.New("x")).payload); got != ErrProtocol {
		t.Errorf("an unknown reason is %v", got)
	}
}

// FuzzSides sends arbitrary messages to both sides: the first byte of each is its
// number. Nobody who doesn't know the words gets anything.
func FuzzSides(f *testing.F) {
	f.Add([]byte{}, []byte{})
	c := words.Code{}
	r := newRun(f, c, c, linkOf(1), linkOf(1))
	if out, _, err := r.inviting.step(messageHello, r.said[0].payload); err == nil {
		f.Add(r.said[0].payload, out[0].payload)
	}
	f.Add(make([]byte, 32), bytes.Repeat([]byte{255}, 64))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, order := range [][2]int{{messageHello, messageRequest}, {messageShare, messageAdmission}, {messageRefused, messageDone}, {messageAdmission, -1}} {
			r := newRun(t, c, c, linkOf(1), linkOf(1))
			for _, step := range []func(int, []byte) ([]message, event, error){r.inviting.step, r.joining.step} {
				for i, payload := range [][]byte{first, second} {
					if _, what, _ := step(order[i], payload); what != nothing && what != proving {
						t.Errorf("event %d", what)
					}
				}
			}
		}
		// What is sealed well may still be anything.
		k := keys(make([]byte, 64))
		if request, err := readRequest(k, first); err == nil && len(request.Name) > identity.MaxName {
			t.Errorf("a name of %d bytes", len(request.Name))
		}
		if a, err := readAdmission(identity.Key{1}, first); err == nil {
			t.Errorf("admitted a key without a secret half: %v", a)
		}
	})
}

var rewrite = flag.Bool("rewrite", false, "write testdata/run.json again")

// Two versions of the program have to understand each other: with the same
// randomness the same is said.
func TestRunKeepsItsBytes(t *testing.T) {
	const file = "testdata/run.json"
	c := code(t, frog)
	inviting, err1 := newInviting(c, linkOf(1), bytes.NewReader(bytes.Repeat([]byte{1}, 64)))
	joining, out, err2 := newJoining(c, linkOf(1), identity.Seed{3}.KeyPair(), "laptop", bytes.NewReader(bytes.Repeat([]byte{2}, 64)))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	r := &run{inviting, joining, out}
	if err := r.play(newHome(t)); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range r.said {
		got = append(got, hex.EncodeToString(m.payload))
	}
	if *rewrite {
		b, err := json.MarshalIndent(got, "", "\t")
		if err := errors.Join(err, os.WriteFile(file, append(b, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err := errors.Join(err, json.Unmarshal(b, &want)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
