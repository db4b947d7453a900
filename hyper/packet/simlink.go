package packet

import "time"

// A Link is a line, one way. The zero value loses nothing and takes no time.
type Link struct {
	// Delay is how long a packet takes, and Jitter up to how much longer. Jitter
	// leaves packets in order.
	Delay, Jitter time.Duration
	// Loss, Duplicate and Reorder are the shares of packets that are lost, come
	// twice, and are held back so that later ones overtake them. A Loss of 1 is a
	// network without UDP.
	Loss, Duplicate, Reorder float64
	// Rate is how many bits pass in a second, as many as there are if it is 0; and
	// Queue how many bytes there may be before it, with the packet that is being
	// sent; by default what passes in 100 ms. What does not fit is lost.
	Rate, Queue int
	// MTU is the size of the largest IP packet, with its headers. Larger ones are
	// lost without a word, unless they may be cut.
	MTU int
}

// A line is a Link and what is on it.
type line struct {
	Link
	free time.Duration // when the last packet in the queue is sent
	last time.Duration // when the last packet arrives
}

// timed tells whether the order matters in which packets come to the line.
func (l *line) timed() bool { return l.Rate > 0 || l.Jitter > 0 }

// crossLocked takes f over a line, or returns why it is lost.
func (s *Sim) crossLocked(l *line, f *flight) (lost string) {
	size := len(f.data) + 28
	if f.to.Addr().Is6() {
		size += 20
	}
	if l.MTU > 0 && size > l.MTU && !f.fragment {
		return "mtu"
	}
	if s.chance(l.Loss) {
		return "loss"
	}
	if l.Rate > 0 {
		queue := l.Queue
		if queue == 0 {
			queue = l.Rate / 8 / 10
		}
		start := max(f.at, l.free)
		waiting := float64(start-f.at) / float64(time.Second) * float64(l.Rate) / 8
		if start > f.at && int(waiting)+size > queue {
			return "queue"
		}
		l.free = start + time.Duration(float64(size)*8/float64(l.Rate)*float64(time.Second))
		f.at = l.free
	}
	f.at += l.Delay
	if l.Jitter > 0 {
		f.at = max(l.last, f.at+time.Duration(s.below(int64(l.Jitter))))
		l.last = f.at
	}
	if s.chance(l.Reorder) {
		f.at += 1 + time.Duration(s.below(int64(max(l.Delay, time.Millisecond))))
	}
	if s.chance(l.Duplicate) {
		s.pushLocked(s.copyLocked(f))
	}
	return ""
}
