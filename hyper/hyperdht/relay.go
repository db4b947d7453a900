package hyperdht

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// relayTimeout is how long a relay and the other side have to come together.
const relayTimeout = 15 * time.Second

// reach connects a link through a blind relay. It blocks until that has worked
// or failed; the relay is kept until there is a direct path.
func (l *link) reach(key noise.Key, initiator bool, token [32]byte) error {
	d := l.d
	d.count(func(s *Stats) { s.RelayAttempts++ })
	err := l.pair(key, initiator, token)
	d.count(func(s *Stats) {
		if err == nil {
			s.RelaySuccesses++
		} else {
			s.RelayAborts++
		}
	})
	if err != nil {
		return fmt.Errorf("reach it through relay %s: %w", key, err)
	}
	return nil
}

func (l *link) pair(key noise.Key, initiator bool, token [32]byte) error {
	ctx, stop := l.d.within(l.ctx, relayTimeout)
	defer stop()
	conn, err := l.d.Connect(ctx, key, ConnectOptions{RelayThrough: []noise.Key{}})
	if err != nil {
		return err
	}
	client, err := blindrelay.NewClient(conn)
	if err != nil {
		conn.Close()
		return err
	}
	g := &leg{conn: conn, close: client.Close}
	if !l.join(g) {
		g.close()
		return nil // there is a better path
	}
	id, err := client.Pair(ctx, initiator, blindrelay.Token(token), l.raw.ID())
	if err != nil {
		l.leave(g)
		if l.isDirect() {
			return nil
		}
		return err
	}
	if !l.useRelay(g, id) {
		l.leave(g)
	}
	return nil
}

// scheduleRelay decides when a client asks a relay: its own or the server's.
func (a *attempt) scheduleRelay(p *noisePayload) {
	if a.through == nil {
		return
	}
	wait := a.d.relayDelay
	if a.o.RelayNow || a.d.node.Randomized() || p.firewall == FirewallRandom {
		wait = 0
	}
	if wait <= 0 {
		a.startRelay()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.relayIn = a.d.clock.AfterFunc(wait, func() { a.startRelay() })
}

// startRelay asks the relay, if there is one to ask and it was not asked. It
// reports whether it did.
func (a *attempt) startRelay() bool {
	through := a.through
	if through == nil || a.link.isDirect() {
		return false
	}
	a.mu.Lock()
	if a.relayed || a.answer == nil || a.done {
		a.mu.Unlock()
		return false
	}
	a.relayed = true
	a.relaying++
	if a.relayIn != nil {
		a.relayIn.Stop()
	}
	a.mu.Unlock()
	return a.d.spawn(func() {
		err := a.link.reach(through.key, !a.theirs, through.token)
		a.mu.Lock()
		a.relaying--
		a.mu.Unlock()
		if err != nil && a.ctx.Err() == nil {
			a.fail(err)
		}
	})
}

// within returns a context that ends after a time of the DHT's clock.
func (d *DHT) within(parent context.Context, t time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	timer := d.clock.AfterFunc(t, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}
