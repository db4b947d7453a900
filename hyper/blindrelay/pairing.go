package blindrelay

import (
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// A book is what a relay knows of who wants to be joined to whom. It is a
// plain value: time comes in as an argument, and what is to be done comes out.
// Whoever has it calls its methods one at a time.
type book struct {
	limits  Limits
	parties map[*party]bool
	byKey   map[noise.Key]int // parties
	waiting map[Token]*pairing
	oldest  []*pairing // by age; those with gone set are waiting no more
	links   int
}

// A party is a client of the relay.
type party struct {
	key     noise.Key
	waiting map[Token]*pairing
	links   map[*link]bool
}

// A pairing is a token that one side has shown, or both sides of one party.
type pairing struct {
	token Token
	until time.Time
	sides [2]*side // the responder and the initiator
	gone  bool
}

// A side is one end of a pairing: a party, and the id of its UDX stream.
type side struct {
	party *party
	id    uint32
}

// A link is a pairing that was made.
type link struct {
	token Token
	sides [2]side
}

func newBook(limits Limits) *book {
	return &book{limits: limits, parties: map[*party]bool{}, byKey: map[noise.Key]int{}, waiting: map[Token]*pairing{}}
}

// enter takes a client in, or returns nil if there are too many.
func (b *book) enter(key noise.Key) *party {
	if len(b.parties) >= b.limits.Sessions || b.byKey[key] >= b.limits.SessionsPerKey {
		return nil
	}
	p := &party{key: key, waiting: map[Token]*pairing{}, links: map[*link]bool{}}
	b.parties[p] = true
	b.byKey[key]++
	return p
}

// leave forgets a client, and returns the links that end with it.
func (b *book) leave(p *party) (ended []*link) {
	if !b.parties[p] {
		return nil
	}
	delete(b.parties, p)
	if b.byKey[p.key]--; b.byKey[p.key] == 0 {
		delete(b.byKey, p.key)
	}
	return b.clear(p)
}

// idle reports whether a client waits for nothing and has no link.
func (p *party) idle() bool { return len(p.waiting) == 0 && len(p.links) == 0 }

// pair takes what a client asks for. It returns the link if that was the
// second of two sides, and whether it is refused. A side that is there already
// stays as it is.
func (b *book) pair(now time.Time, p *party, m pairMessage) (made *link, refused bool) {
	at := 0
	if m.initiator {
		at = 1
	}
	if p.has(m.token, at) {
		return nil, false
	}
	w := b.waiting[m.token]
	if w != nil && w.sides[at] != nil {
		return nil, w.sides[at].party != p
	}
	if w == nil {
		if len(b.waiting) >= b.limits.Pairings || len(p.waiting) >= b.limits.PairingsPerSession || len(p.links) >= b.limits.LinksPerSession {
			return nil, true
		}
		w = &pairing{token: m.token, until: now.Add(b.limits.TokenLife)}
		w.sides[at] = &side{p, m.id}
		b.waiting[m.token], p.waiting[m.token] = w, w
		b.oldest = append(b.oldest, w)
		return nil, false
	}
	w.sides[at] = &side{p, m.id}
	if b.links >= b.limits.Links || b.isFull(w.sides[0].party) || b.isFull(w.sides[1].party) {
		w.sides[at] = nil
		return nil, true
	}
	b.forget(w)
	made = &link{m.token, [2]side{*w.sides[0], *w.sides[1]}}
	b.links++
	for _, s := range made.sides {
		s.party.links[made] = true
	}
	return made, false
}

func (b *book) isFull(p *party) bool { return len(p.links) >= b.limits.LinksPerSession }

// has reports whether the client has that side of a link with the token.
func (p *party) has(token Token, at int) bool {
	for l := range p.links {
		if l.token == token && l.sides[at].party == p {
			return true
		}
	}
	return false
}

// unpair takes a token back, whoever knows it, and returns what ends with it:
// the pairing, or else the links of the client.
func (b *book) unpair(p *party, token Token) (cancelled *pairing, ended []*link) {
	if w := b.waiting[token]; w != nil {
		b.forget(w)
		return w, nil
	}
	for l := range p.links {
		if l.token == token {
			b.end(l)
			ended = append(ended, l)
		}
	}
	return nil, ended
}

// forget ends the waiting for a token.
func (b *book) forget(w *pairing) {
	delete(b.waiting, w.token)
	for _, s := range w.sides {
		if s != nil {
			delete(s.party.waiting, w.token)
		}
	}
	w.gone = true
	for len(b.oldest) > 0 && b.oldest[0].gone {
		b.oldest[0] = nil
		b.oldest = b.oldest[1:]
	}
	if len(b.oldest) > 2*len(b.waiting)+16 {
		kept := make([]*pairing, 0, len(b.waiting))
		for _, w := range b.oldest {
			if !w.gone {
				kept = append(kept, w)
			}
		}
		b.oldest = kept
	}
}

// end forgets a link. It reports whether it was there.
func (b *book) end(l *link) bool {
	if !l.sides[0].party.links[l] {
		return false
	}
	for _, s := range l.sides {
		delete(s.party.links, l)
	}
	b.links--
	return true
}

// expire forgets tokens whose time has come, and returns them.
func (b *book) expire(now time.Time) (expired []*pairing) {
	for len(b.oldest) > 0 && !b.oldest[0].until.After(now) {
		w := b.oldest[0]
		b.forget(w)
		expired = append(expired, w)
	}
	return expired
}

// next tells when expire has something to do; false if it hasn't.
func (b *book) next() (time.Time, bool) {
	if len(b.oldest) == 0 {
		return time.Time{}, false
	}
	return b.oldest[0].until, true
}

// has reports whether there is the link still.
func (b *book) has(l *link) bool { return l.sides[0].party.links[l] }

// clear forgets all of a client but itself, and returns the links that end.
func (b *book) clear(p *party) (ended []*link) {
	for _, w := range p.waiting {
		b.forget(w)
	}
	for l := range p.links {
		b.end(l)
		ended = append(ended, l)
	}
	return ended
}
