package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// What is kept of events, for those who come back and those who are slow.
	maxEvents     = 1024
	maxEventBytes = 1 << 20
	// maxEvent bounds the data of one.
	maxEvent = 64 << 10
	// recentEvents is how many a status tells of.
	recentEvents = 20
)

// A hub keeps the last events. Who follows it has a place in it and no queue:
// a follower that is too slow misses events, and is told so.
type hub struct {
	clock clock.Clock
	epoch string // of this process: a place in another one's events means nothing

	mu     sync.Mutex
	events []client.Event // the oldest first
	bytes  int
	first  uint64        // the number of events[0]
	grown  chan struct{} // closed with the next event
}

func newHub(c clock.Clock) *hub {
	return &hub{clock: c, epoch: strconv.FormatInt(c.Now().UnixMicro(), 36), first: 1, grown: make(chan struct{})}
}

// publish adds an event. What can't be JSON is a mistake of the caller.
func (h *hub) publish(kind string, data any) {
	var b json.RawMessage
	if data != nil {
		var err error
		if b, err = json.Marshal(data); err != nil {
			panic("node: event " + kind + ": " + err.Error())
		}
		if len(b) > maxEvent {
			b = nil
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := client.Event{ID: h.id(h.first + uint64(len(h.events))), Kind: kind, Time: h.clock.Now(), Data: b}
	h.events = append(h.events, e)
	h.bytes += len(b)
	drop := 0
	for len(h.events)-drop > maxEvents || h.bytes > maxEventBytes {
		h.bytes -= len(h.events[drop].Data)
		drop++
	}
	h.events = slices.Delete(h.events, 0, drop)
	h.first += uint64(drop)
	close(h.grown)
	h.grown = make(chan struct{})
}

func (h *hub) id(n uint64) string { return fmt.Sprintf("%s-%d", h.epoch, n) }

// now is the place after the last event.
func (h *hub) now() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id(h.first + uint64(len(h.events)) - 1)
}

// after returns the events after a place, and a channel that is closed when
// there are more. If events are missing between, the first one is a Reset.
func (h *hub) after(place string) ([]client.Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.first + uint64(len(h.events))
	epoch, number, _ := strings.Cut(place, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || epoch != h.epoch || n >= next || n+1 < h.first {
		return []client.Event{{ID: h.id(next - 1), Kind: client.Reset, Time: h.clock.Now()}}, h.grown
	}
	return slices.Clone(h.events[n+1-h.first:]), h.grown
}

// recent returns the last things that were said, newest first.
func (h *hub) recent() (list []client.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range slices.Backward(h.events) {
		if e.Kind == client.Said && len(list) < recentEvents {
			list = append(list, e)
		}
	}
	return list
}
