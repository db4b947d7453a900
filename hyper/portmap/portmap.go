// Package portmap asks the router for a port that leads to this machine, so
// that others can connect without punching holes: by PCP (RFC 6887), NAT-PMP
// (RFC 6886) or UPnP, whichever the router knows.
//
//	m, err := portmap.Map(ctx, portmap.UDP, 49737, portmap.Options{})
//	addr := m.External() // until m.OnChange says another
//	err = m.Close()
//
// IPv4 only: where there is IPv6, nothing is to be mapped.
package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A Protocol is what a port is of.
type Protocol uint8

// The protocols, by their numbers.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns the name that UPnP has for it.
func (p Protocol) String() string {
	if p == TCP {
		return "TCP"
	}
	return "UDP"
}

// ErrNone means that no router answered, or that none of them maps ports.
var ErrNone = errors.New("no router that maps ports")

const (
	// probeTime is how long routers have to answer, mapTime how long to map.
	probeTime = 2500 * time.Millisecond
	mapTime   = 2500 * time.Millisecond
	// grace is how much longer a better protocol may take than another.
	grace = 250 * time.Millisecond
	// lifetime is what is asked for. It is renewed after half of it.
	lifetime    = time.Hour
	minLifetime = time.Minute
	// retryTime is between attempts to renew that fail.
	retryTime = time.Minute
)

// Options say how to ask. The zero value is right.
type Options struct {
	// Gateway is the router: the machine's usual one if it is zero.
	Gateway netip.Addr
	// Suggest is the port outside to ask for: the one inside if it is zero.
	Suggest uint16
	// Clock and Random are the machine's if they are nil.
	Clock  clock.Clock
	Random io.Reader

	// For tests: where PCP and NAT-PMP are spoken, and where UPnP is looked for.
	pcpPort uint16
	ssdp    netip.AddrPort
}

// A method is a way to map.
type method interface {
	name() string
	// probe finds out whether the router knows it.
	probe(ctx context.Context) error
	// mapPort makes or renews the mapping. A lifetime of zero takes it away.
	mapPort(ctx context.Context, suggest netip.AddrPort, life time.Duration) (netip.AddrPort, time.Duration, error)
}

// A Mapping is a port of the router that leads to this machine. Its methods
// may be called by any goroutine.
type Mapping struct {
	method method
	clock  clock.Clock

	mu       sync.Mutex
	external netip.AddrPort
	life     time.Duration
	expires  time.Time
	changed  func(netip.AddrPort)
	timer    clock.Timer
	closed   bool
	renewing sync.WaitGroup
}

// Map maps a port. All protocols are tried side by side, and it takes at most
// five seconds. The end of ctx ends the attempt; later it changes nothing.
func Map(ctx context.Context, p Protocol, port uint16, o Options) (*Mapping, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Suggest == 0 {
		o.Suggest = port
	}
	methods, err := methodsFor(p, port, o)
	if err != nil {
		return nil, fmt.Errorf("map %v port %d: %w", p, port, err)
	}
	m, err := try(ctx, methods, o)
	if err != nil {
		return nil, fmt.Errorf("map %v port %d: %w", p, port, err)
	}
	return m, nil
}

func methodsFor(p Protocol, port uint16, o Options) (list []method, err error) {
	var gateways []netip.Addr
	if o.Gateway.IsValid() {
		gateways = []netip.Addr{o.Gateway}
	} else {
		gateways = findGateways()
	}
	if o.pcpPort == 0 {
		o.pcpPort = 5351
	}
	for _, g := range gateways {
		at := netip.AddrPortFrom(g, o.pcpPort)
		c, err := newPCP(wire{o.Clock, at}, p, port, o.Random)
		if err != nil {
			return nil, err
		}
		list = append(list, c, &natpmp{wire{o.Clock, at}, p, port})
	}
	return append(list, &upnp{clock: o.Clock, gateways: gateways, protocol: p, port: port, group: o.ssdp, random: o.Random}), nil
}

// within is context.WithTimeout by a clock.
func within(ctx context.Context, c clock.Clock, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := c.AfterFunc(d, func() { cancel(fmt.Errorf("no answer within %v", d)) })
	return ctx, func() {
		t.Stop()
		cancel(nil)
	}
}

// try asks all routers, and maps by the best method that one of them knows.
func try(ctx context.Context, methods []method, o Options) (*Mapping, error) {
	probing, cancel := within(ctx, o.Clock, probeTime)
	defer cancel()
	type result struct {
		at  int
		err error
	}
	results := make(chan result, len(methods))
	for i, m := range methods {
		go func() { results <- result{i, m.probe(probing)} }()
	}
	const (
		open = iota
		yes
		no
	)
	state := make([]int, len(methods))
	var errs []error
	patient, enough := true, make(chan struct{}, 1)
	var hurry clock.Timer
	defer func() {
		if hurry != nil {
			hurry.Stop()
		}
	}()
	for left := len(methods); left > 0; {
		select {
		case r := <-results:
			left--
			state[r.at] = yes
			if r.err != nil {
				state[r.at] = no
				errs = append(errs, fmt.Errorf("%s: %w", methods[r.at].name(), r.err))
			} else if hurry == nil {
				hurry = o.Clock.AfterFunc(grace, func() { enough <- struct{}{} })
			}
		case <-enough:
			patient = false
		}
		for i, s := range state {
			if s == open && patient {
				break // it is better than those behind it
			}
			if s != yes {
				continue
			}
			m, err := begin(ctx, methods[i], o)
			if err == nil {
				return m, nil
			}
			state[i] = no
			errs = append(errs, fmt.Errorf("%s: %w", methods[i].name(), err))
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("%w: %s", ErrNone, oneLine(errs))
}

// oneLine joins errors for people.
func oneLine(errs []error) string {
	var list []string
	for _, err := range errs {
		list = append(list, err.Error())
	}
	return strings.Join(list, "; ")
}

// begin maps, and renews from then on.
func begin(ctx context.Context, how method, o Options) (*Mapping, error) {
	ctx, cancel := within(ctx, o.Clock, mapTime)
	defer cancel()
	external, life, err := how.mapPort(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), o.Suggest), lifetime)
	if err == nil {
		err = sane(external)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	m := &Mapping{method: how, clock: o.Clock, external: external}
	m.mu.Lock()
	m.keepLocked(life)
	m.mu.Unlock()
	return m, nil
}

// sane checks what a router says.
func sane(a netip.AddrPort) error {
	if !a.Addr().Is4() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 {
		return fmt.Errorf("the router answers with %v", a)
	}
	return nil
}

// External is where the port is outside.
func (m *Mapping) External() netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.external
}

// Method names the protocol: PCP, NAT-PMP or UPnP.
func (m *Mapping) Method() string { return m.method.name() }

// Lifetime is for how long the router maps the port, if it is not renewed.
func (m *Mapping) Lifetime() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// Public reports whether the address is one of the internet. If it is not,
// there is another router behind the first, and the mapping is of no use there.
func (m *Mapping) Public() bool {
	a := m.External().Addr()
	shared := netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	return a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a)
}

// OnChange calls f when the port is elsewhere, and with the zero value when the
// router has taken it away. f must not block. There is one f.
func (m *Mapping) OnChange(f func(netip.AddrPort)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = f
}

// keepLocked sets the time to renew.
func (m *Mapping) keepLocked(life time.Duration) {
	m.life = max(life, minLifetime)
	m.expires = m.clock.Now().Add(m.life)
	m.wakeLocked(m.life / 2)
}

func (m *Mapping) wakeLocked(d time.Duration) {
	if m.closed {
		return
	}
	m.timer = m.clock.AfterFunc(d, m.renew)
}

// renew asks for the same again.
func (m *Mapping) renew() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.renewing.Add(1)
	defer m.renewing.Done()
	before := m.external
	m.mu.Unlock()

	ctx, cancel := within(context.Background(), m.clock, mapTime)
	external, life, err := m.method.mapPort(ctx, before, lifetime)
	cancel()
	if err == nil {
		err = sane(external)
	}

	m.mu.Lock()
	switch {
	case err == nil:
		m.external = external
		m.keepLocked(life)
	default:
		if !m.clock.Now().Before(m.expires) {
			m.external = netip.AddrPort{}
		}
		m.wakeLocked(retryTime)
	}
	after, changed := m.external, m.changed
	m.mu.Unlock()
	if changed != nil && after != before {
		changed(after)
	}
}

// Close takes the mapping away. It waits for the router's answer, at most for
// a few seconds. Closing again does nothing.
func (m *Mapping) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.timer.Stop()
	m.mu.Unlock()
	m.renewing.Wait()
	ctx, cancel := within(context.Background(), m.clock, mapTime)
	defer cancel()
	if _, _, err := m.method.mapPort(ctx, m.External(), 0); err != nil {
		return fmt.Errorf("unmap port: %s: %w", m.method.name(), err)
	}
	return nil
}
