package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// How long a service waits before it is started again, at first and at most.
	firstWait, lastWait = 100 * time.Millisecond, time.Minute
	// A service that lives this long has recovered.
	healthy = time.Minute
	// A service that fails so often without recovering has a notice.
	crashLoop = 4
	// maxStack bounds what is kept of a panic.
	maxStack = 16 << 10
)

// An Account is what a service, or a door, uses. It is counted by who knows.
type Account struct {
	Requests, In, Out atomic.Uint64                 // requests, bytes
	Memory            atomic.Pointer[func() uint64] // bytes, if it can tell
}

// usage is what the account says.
func (a *Account) usage() client.Usage {
	u := client.Usage{Requests: a.Requests.Load(), In: a.In.Load(), Out: a.Out.Load()}
	if f := a.Memory.Load(); f != nil {
		u.Memory = (*f)()
	}
	return u
}

// A service is a part of the node that runs.
type service struct {
	name    string
	account *Account
	run     func(context.Context) error

	state    string
	since    time.Time
	restarts int
	failures int // since it last lived long
	crash    *client.Crash
}

// A supervisor runs services, and starts again what fails.
type supervisor struct {
	clock   clock.Clock
	log     *slog.Logger
	notices *Notices
	publish func(kind string, data any)
	running sync.WaitGroup

	mu  sync.Mutex
	all []*service
}

// add runs a service until the context ends or run returns nil. When run
// fails or panics it is called again, after a while that grows.
func (s *supervisor) add(ctx context.Context, name string, run func(context.Context) error) *Account {
	one := &service{name: name, account: new(Account), run: run}
	s.mu.Lock()
	s.all = append(s.all, one)
	s.mu.Unlock()
	s.running.Go(func() {
		pprof.Do(ctx, pprof.Labels("service", name), func(ctx context.Context) { s.keep(ctx, one) })
	})
	return one.account
}

func (s *supervisor) keep(ctx context.Context, one *service) {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		began := s.clock.Now()
		s.turn(one, "running")
		calm := s.clock.AfterFunc(healthy, func() { s.recovered(one) })
		err := runSafely(ctx, one.run)
		calm.Stop()
		if ctx.Err() != nil || err == nil {
			s.turn(one, "ended")
			s.notices.Clear("service-crashes", one.name)
			return
		}
		if s.clock.Now().Sub(began) >= healthy {
			wait = firstWait
		}
		s.failed(one, err, wait)
		again := make(chan struct{})
		t := s.clock.AfterFunc(wait, func() { close(again) })
		select {
		case <-again:
		case <-ctx.Done():
			t.Stop()
			s.turn(one, "ended")
			return
		}
	}
}

func (s *supervisor) turn(one *service, state string) {
	s.mu.Lock()
	one.state, one.since = state, s.clock.Now()
	info := one.info(nil)
	s.mu.Unlock()
	s.publish(client.Serviced, info)
}

// recovered is called when a service has lived long.
func (s *supervisor) recovered(one *service) {
	s.mu.Lock()
	one.failures = 0
	s.mu.Unlock()
	s.notices.Clear("service-crashes", one.name)
}

func (s *supervisor) failed(one *service, err error, wait time.Duration) {
	now := s.clock.Now()
	crash := &client.Crash{Time: now, Error: err.Error()}
	if p, ok := err.(*panicError); ok {
		crash.Stack = string(p.stack)
	}
	s.mu.Lock()
	one.failures++
	one.restarts++
	one.crash, one.state, one.since = crash, "waiting", now
	failures, info := one.failures, one.info(nil)
	s.mu.Unlock()
	s.log.Error("service failed", "service", one.name, "err", err, "again", wait)
	s.publish(client.Serviced, info)
	if failures >= crashLoop {
		s.notices.Raise(client.Notice{
			Code: "service-crashes", Subject: one.name, Severity: client.Problem,
			Text: fmt.Sprintf("%s fails again and again: %s", one.name, firstLine(err.Error())),
			Fix:  "bevy status --json",
		})
	}
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i]
		}
	}
	return s
}

// A panicError is a panic of a service.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func runSafely(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			err = &panicError{v, stack[:min(len(stack), maxStack)]}
		}
	}()
	return run(ctx)
}

// info is what is told of a service. The caller holds s.mu.
func (one *service) info(goroutines map[string]int) client.Service {
	u := one.account.usage()
	u.Goroutines = goroutines[one.name]
	return client.Service{Name: one.name, State: one.state, Since: one.since, Restarts: one.restarts, Usage: u, Crash: one.crash}
}

// list tells of all services, by name.
func (s *supervisor) list(goroutines map[string]int) (list []client.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		list = append(list, one.info(goroutines))
	}
	slices.SortFunc(list, func(a, b client.Service) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
