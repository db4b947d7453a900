package blindrelay

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
)

var start = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func TestSecondSideMakesTheLink(t *testing.T) {
	b := newBook(Limits{}.orDefaults())
	a, c := b.enter(noise.Key{1}), b.enter(noise.Key{2})
	if made, refused := b.pair(start, a, pairMessage{true, Token{1}, 7}); made != nil || refused {
		t.Fatalf("the first side: %v, %v", made, refused)
	}
	if made, refused := b.pair(start, a, pairMessage{true, Token{1}, 9}); made != nil || refused {
		t.Fatalf("the first side again: %v, %v", made, refused)
	}
	if made, refused := b.pair(start, c, pairMessage{true, Token{1}, 8}); made != nil || !refused {
		t.Fatalf("another first side: %v, %v", made, refused)
	}
	if made, refused := b.pair(start, c, pairMessage{false, Token{2}, 8}); made != nil || refused {
		t.Fatalf("another token: %v, %v", made, refused)
	}
	made, refused := b.pair(start, c, pairMessage{false, Token{1}, 8})
	if made == nil || refused {
		t.Fatal("the second side makes no link")
	}
	if made.sides[1] != (side{a, 7}) || made.sides[0] != (side{c, 8}) {
		t.Errorf("the link is %+v", made)
	}
	if again, refused := b.pair(start, c, pairMessage{false, Token{1}, 10}); again != nil || refused {
		t.Errorf("the second side again: %v, %v", again, refused)
	}
	if ended := b.leave(a); len(ended) != 1 || ended[0] != made || b.links != 0 || len(c.links) != 0 || len(c.waiting) != 1 {
		t.Errorf("with one side gone %v ends, %d links are left", ended, b.links)
	}
}

// One client may be both sides, as it may in the reference.
func TestBothSidesMayBeOneClient(t *testing.T) {
	b := newBook(Limits{}.orDefaults())
	a := b.enter(noise.Key{1})
	b.pair(start, a, pairMessage{true, Token{1}, 7})
	made, _ := b.pair(start, a, pairMessage{false, Token{1}, 8})
	if made == nil || len(a.links) != 1 {
		t.Fatal("no link with oneself")
	}
	if _, ended := b.unpair(a, Token{1}); len(ended) != 1 || b.links != 0 {
		t.Errorf("%d links end", len(ended))
	}
}

// Whatever clients do, the book stays within its limits and what it counts is
// what there is.
func TestBookStaysWithinItsLimits(t *testing.T) {
	limits := Limits{Sessions: 6, SessionsPerKey: 2, Pairings: 9, PairingsPerSession: 3, Links: 5, LinksPerSession: 2, TokenLife: time.Minute}
	rng := rand.New(rand.NewPCG(1, 2))
	b := newBook(limits.orDefaults())
	now := start
	var parties []*party
	made, refused, expired, cancelled := 0, 0, 0, 0
	for range 20_000 {
		now = now.Add(time.Duration(rng.IntN(3)) * time.Second)
		switch op := rng.IntN(20); {
		case op < 2:
			if p := b.enter(noise.Key{byte(rng.IntN(4))}); p != nil {
				parties = append(parties, p)
			}
		case len(parties) == 0:
		case op < 3:
			i := rng.IntN(len(parties))
			b.leave(parties[i])
			if b.leave(parties[i]) != nil {
				t.Fatal("a client leaves twice")
			}
			parties = append(parties[:i], parties[i+1:]...)
		case op < 5:
			w, ended := b.unpair(parties[rng.IntN(len(parties))], Token{byte(rng.IntN(30))})
			if w != nil || ended != nil {
				cancelled++
			}
		case op < 6:
			for _, w := range b.expire(now) {
				if expired++; w.until.After(now) {
					t.Fatal("a token expires early")
				}
			}
			if next, ok := b.next(); ok && !next.After(now) {
				t.Fatal("a token is left that should have expired")
			}
		default:
			m := pairMessage{rng.IntN(2) == 0, Token{byte(rng.IntN(30))}, rng.Uint32()}
			l, no := b.pair(now, parties[rng.IntN(len(parties))], m)
			if l != nil {
				made++
			}
			if no {
				refused++
			}
		}
		check(t, b, parties)
	}
	if made < 100 || refused < 100 || expired < 100 || cancelled < 100 {
		t.Errorf("%d made, %d refused, %d expired, %d cancelled: too few to say something", made, refused, expired, cancelled)
	}
	for _, p := range parties {
		b.leave(p)
	}
	if len(b.parties)+len(b.byKey)+len(b.waiting)+len(b.oldest)+b.links != 0 {
		t.Errorf("with everybody gone there is %+v", b)
	}
}

func check(t *testing.T, b *book, parties []*party) {
	t.Helper()
	links, waiting := map[*link]bool{}, map[*pairing]bool{}
	for _, p := range parties {
		if !b.parties[p] || len(p.links) > b.limits.LinksPerSession || len(p.waiting) > b.limits.PairingsPerSession+b.limits.Pairings {
			t.Fatalf("%d links and %d pairings of a client", len(p.links), len(p.waiting))
		}
		for l := range p.links {
			links[l] = true
		}
		for token, w := range p.waiting {
			if b.waiting[token] != w || w.gone {
				t.Fatal("a client waits for what the book doesn't have")
			}
			waiting[w] = true
		}
	}
	if len(b.parties) != len(parties) || len(parties) > b.limits.Sessions || b.links != len(links) || b.links > b.limits.Links ||
		len(b.waiting) != len(waiting) || len(b.waiting) > b.limits.Pairings || len(b.oldest) > 2*len(b.waiting)+16 {
		t.Fatalf("%d clients, %d of %d links, %d of %d pairings, %d by age", len(b.parties), b.links, len(links), len(b.waiting), len(waiting), len(b.oldest))
	}
	for _, n := range b.byKey {
		if n > b.limits.SessionsPerKey {
			t.Fatalf("%d clients of one key", n)
		}
	}
}
