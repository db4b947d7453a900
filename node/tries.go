package node

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// Tries to guess a secret: so many at once, and one more each while.
const maxTries, tryEvery, maxTriers = 10, 6 * time.Second, 1024

// Tries bound how often somebody may guess, by where requests come from.
type Tries struct {
	clock clock.Clock

	mu       sync.Mutex
	networks map[netip.Prefix]*bucket
}

// A bucket has the tries that someone has left.
type bucket struct {
	left  int
	since time.Time
}

// NewTries returns bounds that nobody has reached.
func NewTries(c clock.Clock) *Tries {
	return &Tries{clock: c, networks: map[netip.Prefix]*bucket{}}
}

// From is where a request comes from.
func From(r *http.Request) netip.Addr { return remoteIP(r) }

// Take counts a try, and reports whether it may be made.
func (t *Tries) Take(from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	network := networkOf(from)
	b := t.networks[network]
	if b == nil {
		for p, old := range t.networks {
			if len(t.networks) >= maxTriers || now.Sub(old.since) > maxTries*tryEvery {
				delete(t.networks, p)
			}
		}
		b = &bucket{left: maxTries, since: now}
		t.networks[network] = b
	}
	more := int(now.Sub(b.since) / tryEvery)
	b.left = min(b.left+more, maxTries)
	b.since = b.since.Add(time.Duration(more) * tryEvery)
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

// Return gives a try back that was none: who made it knew the secret.
func (t *Tries) Return(from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.networks[networkOf(from)]; b != nil {
		b.left = min(b.left+1, maxTries)
	}
}

// networkOf is what one who has an address can be taken to have.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
