package udx

import "time"

const (
	// paceTick is how long sending pauses at least when it is ahead of its rate:
	// timers are no finer than that, and many packets at once cost less.
	paceTick = time.Millisecond
	// paceBurst is how much may go at once after a pause, as time at the rate.
	// Who waited for its turn and was woken late catches up with up to paceLate.
	paceBurst = 2 * time.Millisecond
	paceLate  = 25 * time.Millisecond
	// minBurst is what may go at once at any rate, in packets.
	minBurst = 10
)

// A pacer holds a stream to a rate. It is a bucket that fills with bytes as
// time goes by, and may be overdrawn by a packet.
type pacer struct {
	tokens float64
	at     time.Duration // when it was filled
	wait   time.Duration // when sending goes on, if it waits; or 0
}

// ready tells whether a packet may go, and notes when to try again if not.
func (p *pacer) ready(now time.Duration, rate float64, payload int) bool {
	most := paceBurst
	if p.wait != 0 {
		most = paceLate
	}
	bucket := max(rate*most.Seconds(), float64(minBurst*payload))
	p.tokens = min(p.tokens+rate*(now-p.at).Seconds(), bucket)
	p.at = now
	if p.tokens > 0 {
		p.wait = 0
		return true
	}
	if p.wait <= now {
		p.wait = now + max(paceTick, time.Duration(-p.tokens/rate*float64(time.Second)))
	}
	return false
}

func (p *pacer) spend(n int) { p.tokens -= float64(n) }
