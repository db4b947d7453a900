package dhtrpc

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// public is a node that takes part, at 198.51.100.7.
func public(t testing.TB) *rig {
	r := newRig(t, config{public: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), testPort), ephemeral: Never, open: true})
	if r.m.outside || !r.m.bootstrapped {
		t.Fatal("the node does not take part")
	}
	return r
}

// started is a request of the rig's that is on its way.
func (r *rig) started(to netip.AddrPort, done func(Reply, error)) message {
	r.t.Helper()
	r.m.ask(Peer{Addr: to}, internal(CommandPing, nil), done)
	return r.one()
}

func TestAnAnswerCountsOnlyFromWhoWasAsked(t *testing.T) {
	r := public(t)
	to := addrOf(1)
	answers := 0
	asked := r.started(to, func(_ Reply, err error) {
		if err != nil {
			t.Error(err)
		}
		answers++
	})
	wrong := asked
	wrong.tid++
	r.answer(addrOf(2), asked)
	r.answer(netip.AddrPortFrom(to.Addr(), to.Port()+1), asked)
	r.answer(to, wrong)
	if answers != 0 || r.m.table.size != 0 {
		t.Fatalf("%d wrong answers were taken, and %d nodes", answers, r.m.table.size)
	}
	r.answer(to, asked)
	r.answer(to, asked)
	if answers != 1 || r.m.table.size != 1 || len(r.m.requests) != 0 {
		t.Errorf("%d answers, %d nodes, %d requests, want 1, 1, 0", answers, r.m.table.size, len(r.m.requests))
	}
}

func TestTransactionsAreRandom(t *testing.T) {
	r := public(t)
	var steps []int
	last := 0
	for i := range 50 {
		m := r.started(addrOf(i), func(Reply, error) {})
		steps = append(steps, int(m.tid)-last)
		last = int(m.tid)
	}
	slices.Sort(steps)
	if n := len(slices.Compact(steps)); n < 45 {
		t.Errorf("50 transactions have %d different steps", n)
	}
}

func TestARequestIsSentAgainAndGivenUp(t *testing.T) {
	r := public(t)
	var err error
	r.m.ask(Peer{Addr: addrOf(1)}, internal(CommandPing, nil), func(_ Reply, e error) { err = e })
	var first []byte
	for i := range 1 + maxRetries {
		out := r.take()
		if len(out) != 1 || out[0].to != addrOf(1) || first != nil && !bytes.Equal(first, out[0].data) {
			t.Fatalf("time %d: sends %v", i, out)
		}
		first = out[0].data
		if err != nil {
			t.Fatal(err)
		}
		r.pass(firstTimeout)
	}
	if !errors.Is(err, ErrTimeout) || len(r.take()) != 0 || r.m.stats.Timeouts != 1 || r.m.stats.Repeats != maxRetries {
		t.Errorf("got %v, %+v", err, r.m.stats)
	}
}

func TestTheWindowHoldsRequestsBack(t *testing.T) {
	r := public(t)
	done := 0
	for i := range 3 * defaultWindow {
		r.m.ask(Peer{Addr: addrOf(i)}, internal(CommandPing, nil), func(_ Reply, err error) {
			if err == nil {
				done++
			}
		})
	}
	sent := r.sent()
	if len(sent) != defaultWindow {
		t.Fatalf("%d were sent at once, want %d", len(sent), defaultWindow)
	}
	r.answer(addrOf(0), sent[0])
	next := r.sent()
	if len(next) != 1 {
		t.Fatalf("an answer lets %d go, want 1", len(next))
	}
	byTo := map[netip.AddrPort]message{}
	for sent = append(sent, next...); done < 3*defaultWindow && len(sent) > 0; sent = r.sent() {
		for _, m := range sent {
			byTo[m.to] = m
			r.answer(m.to, m)
		}
	}
	if done != 3*defaultWindow || len(byTo) != 3*defaultWindow || r.m.waiting != nil {
		t.Errorf("%d of %d were answered", done, 3*defaultWindow)
	}
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	r := public(t)
	var failed error
	for i := range maxRequests + 1 {
		r.m.ask(Peer{Addr: addrOf(i)}, internal(CommandPing, nil), func(_ Reply, err error) { failed = err })
	}
	if !errors.Is(failed, ErrBusy) || len(r.m.requests) != maxRequests {
		t.Errorf("%d are under way, %v", len(r.m.requests), failed)
	}
	failed = nil
	r.m.suspend(r.now)
	if !errors.Is(failed, ErrSuspended) || len(r.m.requests) != 0 || !r.m.deadline().IsZero() {
		t.Errorf("after it was suspended %d are under way, %v", len(r.m.requests), failed)
	}
}

func TestOnlyWhoAnswersComesIntoTheTable(t *testing.T) {
	r := public(t)
	from := addrOf(1)
	r.ask(from, true, message{internal: true, command: CommandPing})
	sent := r.sent()
	if r.m.table.size != 0 {
		t.Fatal("a node is in the table that may not exist")
	}
	if len(sent) != 2 || sent[0].reply == sent[1].reply {
		t.Fatalf("sends %+v, want an answer and a ping", sent)
	}
	ping := sent[0]
	if ping.reply {
		ping = sent[1]
	}
	r.answer(from, ping)
	if r.m.table.get(NodeID(from)) == nil {
		t.Error("a node that answered is not in the table")
	}
	r.ask(from, true, message{internal: true, command: CommandPing})
	if m := r.one(); !m.reply {
		t.Error("a node that is known is pinged")
	}
	// What was sent in its name keeps no node that is gone, and tells nothing of
	// our address.
	host, before := r.m.nat.Host(), r.m.nat.Size()
	for range 600 {
		r.pass(time.Second)
		r.ask(from, true, message{internal: true, command: CommandPing})
		r.take()
	}
	if r.m.table.size != 0 || r.m.nat.Host() != host || r.m.nat.Size() != before {
		t.Errorf("%d nodes that are gone stay, and our address is %v of %d", r.m.table.size, r.m.nat.Host(), r.m.nat.Size())
	}
	// One that says another's id is nobody.
	other := NodeID(addrOf(3))
	r.receive(r.m.server, addrOf(2), (&message{internal: true, to: from, id: &other}).append(nil))
	if m := r.one(); !m.reply {
		t.Error("a node with a wrong id is pinged")
	}
}

func TestAFloodOfNodesThatDoNotExistFillsNothing(t *testing.T) {
	r := public(t)
	most := 0
	for i := range 6_000 {
		r.ask(addrOf(i), true, message{internal: true, command: CommandPing})
		most = max(most, len(r.m.requests))
		if i%100 == 0 {
			r.pass(time.Second)
		}
	}
	if r.m.table.size != 0 || most > maxChecks {
		t.Errorf("%d nodes in the table, up to %d requests under way", r.m.table.size, most)
	}
}

func TestATableIsNotTakenOverByOneNetwork(t *testing.T) {
	r := public(t)
	flood := func() (in int) {
		for i := range 10_000 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), uint16(1000+i))
			r.ask(from, true, message{internal: true, command: CommandPing})
			for _, m := range r.sent() {
				if !m.reply {
					r.answer(m.to, m) // it does exist, all of it
				}
			}
			if i%50 == 0 {
				r.pass(time.Second)
			}
		}
		for n := r.m.nodes.oldest; n != nil; n = n.next {
			if n.net == networkOf(netip.MustParseAddr("203.0.113.1")) {
				in++
			}
		}
		return in
	}
	in := flood()
	for i, row := range r.m.table.rows {
		if len(row) > maxPerNet {
			t.Errorf("row %d has %d nodes of one network", i, len(row))
		}
	}
	if in == 0 {
		t.Error("nobody came in, the test is wrong")
	}
}

// Who floods has no place of a node that answers.
func TestNodesThatAnswerStay(t *testing.T) {
	r := public(t)
	honest := map[netip.AddrPort]bool{}
	meet := func(a netip.AddrPort) {
		r.ask(a, true, message{internal: true, command: CommandPing})
		for sent := r.sent(); len(sent) > 0; sent = r.sent() {
			for _, m := range sent {
				if !m.reply && (m.to.Addr().As4()[0] != 25 || honest[m.to]) {
					r.answer(m.to, m)
				}
			}
		}
	}
	for i := range 200 {
		a := addrOf(i)
		honest[a] = true
		meet(a)
		r.pass(time.Second)
	}
	before := map[ID]bool{}
	for n := r.m.nodes.oldest; n != nil; n = n.next {
		before[n.id] = true
	}
	for i := range 5000 {
		ip := addrOf(i).Addr().As4()
		ip[0] = 26
		meet(netip.AddrPortFrom(netip.AddrFrom4(ip), 5))
		if i%20 == 0 {
			r.pass(time.Second)
			for _, m := range r.sent() {
				r.answer(m.to, m)
			}
		}
	}
	for id := range before {
		if r.m.table.get(id) == nil {
			t.Fatal("a node that answers was replaced")
		}
	}
}

func TestAnswersToUnprovenSourcesAreBounded(t *testing.T) {
	r := public(t)
	for i := range 300 {
		a := addrOf(i)
		r.m.insert(newNode(a))
	}
	target := NodeID(addrOf(1000))
	victim := addrPort("203.0.113.9:53")
	in, out, largest := 0, 0, 0.0
	const seconds = 60
	for range seconds {
		for range 100 {
			q := message{internal: true, command: CommandFindNode, target: &target}
			in += len(q.appendTo(victim))
			r.ask(victim, false, q)
			for _, p := range r.take() {
				if p.to == victim {
					out += len(p.data)
					largest = max(largest, float64(len(p.data))/float64(len(q.appendTo(victim))))
				}
			}
		}
		r.pass(time.Second)
		r.take()
	}
	t.Logf("%d bytes came in %d s and %d went out: %.2f; a single answer is up to %.2f", in, seconds, out, float64(out)/float64(in), largest)
	if limit := in + budgetBurst + seconds*budgetRate; out > limit {
		t.Errorf("%d bytes went out, want at most %d", out, limit)
	}
	for r.m.budget.take(r.now.Sub(r.m.start), victim.Addr(), 1) {
	}
	// What is left of an answer is of use.
	r.ask(victim, false, message{internal: true, command: CommandFindNode, target: &target})
	if m := r.one(); len(m.closer) != 5 {
		t.Errorf("a trimmed answer is %+v", m)
	}
	// A proven source gets all.
	token := r.m.tokens.at(r.now, 0, victim.Addr())
	r.ask(victim, false, message{internal: true, command: CommandFindNode, target: &target, token: &token})
	if m := r.one(); len(m.closer) != K || m.id == nil {
		t.Errorf("who has a token gets %+v", m)
	}
	// One with a token of somebody else is told so, in no more bytes than it sent.
	token[0]++
	r.ask(victim, false, message{internal: true, command: CommandFindNode, target: &target, token: &token})
	if m := r.one(); m.code != CodeInvalidToken || m.token == nil {
		t.Errorf("who has a wrong token gets %+v", m)
	}
	ping := message{internal: true, command: CommandPing}
	r.ask(victim, false, ping)
	if p := r.take(); len(p) != 1 || len(p[0].data) > len(ping.appendTo(victim)) {
		t.Errorf("a ping is answered with %v", p)
	}
}

// appendTo writes a message to an address.
func (m *message) appendTo(a netip.AddrPort) []byte {
	m.to = a
	return m.append(nil)
}

func TestAnAnswerThatCannotBeSmallIsNotSent(t *testing.T) {
	var got *incoming
	r := public(t)
	r.m.handle = func(in *incoming) { got = in }
	from := addrPort("203.0.113.9:53")
	sent := 0
	for range 1000 {
		r.ask(from, false, message{command: 7, value: []byte("x")})
		r.m.reply(got, answer{value: make([]byte, 1000), token: true})
		for _, p := range r.take() {
			sent += len(p.data)
		}
	}
	if sent == 0 || sent > budgetBurst+1000*14 {
		t.Errorf("%d bytes were sent", sent)
	}
	r.m.relay(got, make([]byte, 1000), from, r.m.server)
	if len(r.take()) != 0 {
		t.Error("and another is passed on")
	}
}

func TestDelayedPingsAreBounded(t *testing.T) {
	r := public(t)
	for i := range 2 * maxDelayed {
		r.ask(addrOf(i), false, message{internal: true, command: CommandDelayedPing, value: []byte{0x10, 0x27, 0, 0}})
	}
	r.ask(addrOf(0), false, message{internal: true, command: CommandDelayedPing, value: []byte{0x11, 0x27, 0, 0}}) // over 10 s
	r.pass(MaxPingDelay - time.Millisecond)
	if early := r.sent(); len(early) != 0 {
		t.Fatalf("%d answers came early", len(early))
	}
	r.pass(time.Millisecond)
	if n := len(r.take()); n != maxDelayed || r.m.delayed != 0 {
		t.Errorf("%d answers, want %d", n, maxDelayed)
	}
	r.ask(addrOf(1), false, message{internal: true, command: CommandDelayedPing, value: []byte{100, 0, 0, 0}})
	r.pass(100 * time.Millisecond)
	if m := r.one(); !m.reply {
		t.Errorf("sends %+v", m)
	}
}

func TestDownHintsMakeANodeLook(t *testing.T) {
	r := public(t)
	down := addrOf(1)
	r.m.insert(newNode(down))
	v := readVectors(t)
	hint := unhex(t, v.DownHintValue)
	ip := down.Addr().As4()
	value := append(ip[:], byte(down.Port()), byte(down.Port()>>8))
	if len(hint) != len(value) {
		t.Fatalf("a hint is %x, want one like %x", value, hint)
	}
	pings := 0
	for i := range 100 {
		r.ask(addrOf(10+i), false, message{internal: true, command: CommandDownHint, value: value})
		for _, m := range r.sent() {
			if !m.reply {
				pings++
			}
		}
	}
	if pings != 1 {
		t.Errorf("100 hints led to %d pings, want 1", pings)
	}
	for i := range 20 {
		a := addrOf(200 + i)
		r.m.insert(newNode(a))
		ip := a.Addr().As4()
		r.ask(addrOf(1000+i), false, message{internal: true, command: CommandDownHint, value: append(ip[:], byte(a.Port()), byte(a.Port()>>8))})
	}
	if r.m.checks != maxChecks {
		t.Errorf("20 nodes that may be down are asked %d at a time, want %d", r.m.checks, maxChecks)
	}
	r.pass(10 * time.Second)
	if r.m.table.get(NodeID(down)) != nil {
		t.Error("a node that is down stays")
	}
}

func TestCommandsThatNobodyKnowsAreRefused(t *testing.T) {
	r := public(t)
	r.ask(addrOf(1), false, message{command: 7})
	if m := r.one(); m.code != CodeUnknownCommand {
		t.Errorf("got %+v", m)
	}
	r.ask(addrOf(1), false, message{internal: true, command: 99})
	if m := r.one(); m.code != CodeUnknownCommand {
		t.Errorf("got %+v", m)
	}
}

func TestRequestsThatMakeNoSenseAreIgnored(t *testing.T) {
	r := public(t)
	for _, m := range []message{
		{internal: true, command: CommandFindNode},
		{internal: true, command: CommandPingNAT},
		{internal: true, command: CommandPingNAT, value: []byte{1}},
		{internal: true, command: CommandPingNAT, value: []byte{0, 0}},
		{internal: true, command: CommandDownHint, value: []byte{1, 2, 3, 4, 5}},
		{internal: true, command: CommandDelayedPing, value: []byte{1, 2, 3}},
	} {
		r.ask(addrOf(1), false, m)
		if out := r.take(); len(out) != 0 {
			t.Errorf("%+v is answered", m)
		}
	}
	for _, from := range []string{"0.0.0.0:5", "1.2.3.4:0", "[2001:db8::1]:5"} {
		r.receive(r.m.server, addrPort(from), (&message{internal: true, to: addrOf(1)}).append(nil))
		if out := r.take(); len(out) != 0 {
			t.Errorf("%s is answered", from)
		}
	}
}

func TestPingNATIsAnsweredToTheOtherPort(t *testing.T) {
	r := public(t)
	r.ask(addrPort("203.0.113.1:1000"), false, message{internal: true, command: CommandPingNAT, value: unhex(t, readVectors(t).PingNATValue)})
	out := r.take()
	if len(out) != 1 || out[0].to != addrPort("203.0.113.1:49737") {
		t.Errorf("sends %v", out)
	}
}

func TestSleepMakesAllNodesOld(t *testing.T) {
	r := newRig(t, config{public: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), testPort), open: true})
	r.m.outside = false
	for i := range 5 {
		r.m.insert(newNode(addrOf(i)))
	}
	var events []Event
	r.m.notify = func(e Event) { events = append(events, e) }
	// The machine slept: the next tick comes much too late.
	r.now = r.now.Add(time.Hour)
	r.m.advance(r.now)
	r.settle()
	if !slices.Contains(events, WokeUp) || !slices.Contains(events, BackOutside) || !r.m.outside {
		t.Fatalf("events are %v", events)
	}
	if r.m.tick < 2*oldTicks || (r.m.tick+2)&7 != 0 {
		t.Errorf("after waking up it is tick %d", r.m.tick)
	}
	r.take()
	asked := map[netip.AddrPort]bool{}
	for range 3 {
		r.pass(tickTime)
		for _, p := range r.take() {
			asked[p.to] = true
		}
	}
	if len(asked) != 5 {
		t.Errorf("%d of 5 nodes were asked after waking up", len(asked))
	}
}

func TestBootstrapNodesAreParsed(t *testing.T) {
	for s, want := range map[string]seed{
		"192.0.2.1:49737":              {addr: netip.MustParseAddr("192.0.2.1"), port: 49737},
		"node.example:1":               {name: "node.example", port: 1},
		"192.0.2.1@node.example:49737": {addr: netip.MustParseAddr("192.0.2.1"), name: "node.example", port: 49737},
	} {
		if got, err := parseSeed(s); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "192.0.2.1", "192.0.2.1:", ":5", "192.0.2.1:0", "192.0.2.1:65536", "x@node.example:5", "2001:db8::1:5"} {
		if got, err := parseSeed(s); err == nil {
			t.Errorf("%q was taken as %+v", s, got)
		}
	}
}

// A name is looked up if the address before it does not answer.
func TestANameIsLookedUpWhenTheAddressIsDead(t *testing.T) {
	for _, alive := range []bool{true, false} {
		var looked []string
		s, err := parseSeed("192.0.2.1@node.example:49737")
		if err != nil {
			t.Fatal(err)
		}
		c := config{seeds: []seed{s}, lookup: func(name string, done func([]netip.Addr)) {
			looked = append(looked, name)
			done([]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")})
		}}
		r := newRig(t, c)
		asked := map[netip.AddrPort]bool{}
		for range 20 {
			for sent := r.sent(); len(sent) > 0; sent = r.sent() {
				for _, m := range sent {
					asked[m.to] = true
					if alive || m.to == addrPort("192.0.2.2:49737") {
						r.answer(m.to, m)
					}
				}
			}
			r.pass(time.Second)
		}
		if len(looked) > 0 == alive || asked[addrPort("192.0.2.2:49737")] == alive || !r.m.bootstrapped || r.m.nodes.length != 1 {
			t.Errorf("alive %v: looked up %v, asked %v, %d nodes", alive, looked, asked, r.m.nodes.length)
		}
	}
}

func TestWhatTheUserDoesNotTakeIsBounded(t *testing.T) {
	r := public(t)
	handled := 0
	r.m.handle = func(*incoming) { handled++ }
	for range 2 * maxHandling {
		// The user is busy: nobody makes calls.
		r.m.receive(r.now, r.m.server, addrOf(1), (&message{command: 7, to: addrOf(2)}).append(nil))
	}
	if len(r.m.calls) != maxHandling {
		t.Errorf("%d requests wait, want %d", len(r.m.calls), maxHandling)
	}
	r.settle()
	r.ask(addrOf(1), false, message{command: 7})
	if handled != maxHandling+1 {
		t.Errorf("%d requests were handled, want %d", handled, maxHandling+1)
	}
}

func TestCancelledRequestsDoNotPileUp(t *testing.T) {
	r := public(t)
	for range 5 * maxRequests {
		q, err := r.m.request(Peer{Addr: addrOf(1)}, internal(CommandPing, nil), func(Reply, error) {})
		if err != nil {
			t.Fatal(err)
		}
		q.send()
		if len(r.m.requests) > 10 {
			q.cancel()
			for range 2 {
				r.m.window.sent() // it stays full
			}
		}
		r.take()
	}
	if len(r.m.waiting) > 2*maxRequests+1 {
		t.Errorf("%d requests wait", len(r.m.waiting))
	}
}

// A name that is found after its query is over is of no use.
func TestANameThatIsFoundTooLate(t *testing.T) {
	var found []func([]netip.Addr)
	r := newRig(t, config{seeds: []seed{{name: "node.example", port: 5}}, lookup: func(_ string, done func([]netip.Addr)) { found = append(found, done) }})
	r.m.suspend(r.now)
	if len(found) == 0 {
		t.Fatal("nothing was looked up")
	}
	for _, f := range found {
		f([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
	}
	if out := r.take(); len(out) != 0 {
		t.Errorf("a suspended node sends %v", out)
	}
	r.m.bind(r.now, &rigSocket{"client"}, &rigSocket{"server"}, testPort)
	r.settle()
	found[len(found)-1]([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if m := r.one(); m.to != addrPort("192.0.2.1:5") {
		t.Errorf("asks %v", m.to)
	}
}

// Two parts of a network that forgot each other find together at the nodes by
// which they were entered, so those are asked now and then.
func TestTheBootstrapNodesAreNotForgotten(t *testing.T) {
	entry := addrPort("192.0.2.1:49737")
	s, err := parseSeed(entry.String())
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, config{seeds: []seed{s}})
	r.pass(time.Minute)
	for i := range 200 {
		r.m.insert(newNode(addrOf(i)))
	}
	times := 0
	for range 2 * seedEvery {
		r.take()
		r.m.refresh()
		for _, m := range r.sent() {
			if m.to == entry {
				times++
			}
		}
		for len(r.m.queries) > 0 {
			r.m.queries[0].finish(nil)
		}
	}
	if times != 2 {
		t.Errorf("of %d refreshes %d began at the bootstrap node, want 2", 2*seedEvery, times)
	}
}

func TestAProbeTellsWhetherTheServerSocketIsReachable(t *testing.T) {
	here := netip.MustParseAddr("198.51.100.7")
	to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(here, port) }
	elsewhere := addrPort("198.51.100.8:49737")
	for _, c := range []struct {
		what  string
		saw   []netip.AddrPort // what each that answered saw
		came  int              // how many of those came to the server socket
		asked int
		want  bool
	}{
		{"all see it", []netip.AddrPort{to(testPort), to(testPort), to(testPort), to(testPort), to(testPort)}, 5, 5, true},
		{"three of five see it", []netip.AddrPort{to(testPort), to(testPort), to(testPort)}, 3, 5, true},
		{"two of five see it", []netip.AddrPort{to(testPort), to(testPort)}, 2, 5, false},
		{"answers came to the other socket", []netip.AddrPort{to(testPort), to(testPort), to(testPort)}, 2, 5, false},
		{"one of one sees it", []netip.AddrPort{to(testPort)}, 1, 1, true},
		{"at another port", []netip.AddrPort{to(5), to(5), to(5)}, 3, 5, false},
		{"at different ports", []netip.AddrPort{to(5), to(6), to(7)}, 3, 5, false},
		{"at another address than the client socket", []netip.AddrPort{elsewhere, elsewhere, elsewhere}, 3, 5, false},
	} {
		r := newRig(t, config{})
		r.m.nat.Add(to(1000))
		p := &probe{came: map[netip.Addr]bool{}}
		var pongs []Reply
		for i, a := range c.saw {
			pongs = append(pongs, Reply{From: Peer{Addr: addrOf(i)}, To: a})
			if i < c.came {
				p.came[addrOf(i).Addr()] = true
			}
		}
		if nat := r.m.probed(p, pongs, c.asked); (nat != nil) != c.want || c.want && (nat.Host() != here || nat.Port() != testPort) {
			t.Errorf("%s: got %+v, want %v", c.what, nat, c.want)
		}
	}
}

// A query that is told where to look does not go further before it has heard
// from there, and asks the table if what it was told is stale.
func TestCachedNodesAreGivenAChance(t *testing.T) {
	for _, stale := range []bool{false, true} {
		r := public(t)
		known := addrOf(5000)
		r.m.insert(newNode(known))
		var cached []netip.AddrPort
		for i := range 30 {
			cached = append(cached, addrOf(i))
		}
		over := false
		q := r.m.query(querySpec{target: ID{1}, call: Call{Internal: true, Command: CommandFindNode}, nodes: cached, done: func(err error) { over = err == nil }})
		first := r.sent()
		if len(first) != defaultConcurrency {
			t.Fatalf("%d nodes are asked at first, want %d", len(first), defaultConcurrency)
		}
		asked := map[netip.AddrPort]bool{}
		for _, m := range first {
			asked[m.to] = true
		}
		if !stale {
			for i, m := range first {
				r.answer(m.to, m)
				next := r.sent()
				if want := i == len(first)-1 || len(first)-i-1 < slowly; len(next) > 0 != want {
					t.Errorf("after %d answers %d more are asked", i+1, len(next))
				}
				for _, m := range next {
					asked[m.to] = true
				}
			}
		}
		for range 100 {
			r.pass(time.Second)
			for _, m := range r.sent() {
				asked[m.to] = asked[m.to] || m.target != nil && *m.target == ID{1}
			}
		}
		if !over || asked[known] != stale {
			t.Errorf("stale %v: over %v, the table was asked %v, %d visits", stale, over, asked[known], q.visits)
		}
	}
}
