package blindrelay

import (
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A meter counts what is passed on, and says when that is too much.
type meter struct {
	clock clock.Clock
	rate  int64  // bytes a second; zero is without a limit
	above *meter // has to agree, and counts, too

	mu                      sync.Mutex // comes before that of above
	budget                  int64      // bytes that may pass at once
	since                   time.Time  // when budget was that
	bytes, packets, dropped uint64
}

func newMeter(c clock.Clock, rate int64, above *meter) *meter {
	return &meter{clock: c, rate: rate, above: above, budget: rate, since: c.Now()}
}

// pass reports whether a packet may pass. What was saved up is at most what
// passes within a second.
func (m *meter) pass(size int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate > 0 {
		now := m.clock.Now()
		if gone := min(now.Sub(m.since), time.Second); gone > 0 {
			m.budget = min(m.rate, m.budget+int64(float64(m.rate)*gone.Seconds()))
			m.since = now
		}
		if m.budget <= 0 {
			m.dropped++
			if m.above != nil {
				m.above.drop()
			}
			return false
		}
	}
	if m.above != nil && !m.above.pass(size) {
		m.dropped++
		return false
	}
	m.budget -= int64(size) // a packet may be larger than what is left
	m.bytes += uint64(size)
	m.packets++
	return true
}

func (m *meter) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped++
}

func (m *meter) counts() (bytes, packets, dropped uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes, m.packets, m.dropped
}
