package mdns

import (
	"bytes"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// What RFC 6762 says about times, and what keeps a storm small.
const (
	port = 5353

	probeEvery    = 250 * time.Millisecond // §8.1
	probeCount    = 3
	announceEvery = time.Second // §8.3
	announceCount = 2
	maxConflicts  = 15 // in conflictTime, or probing waits for conflictWait (§8.1)
	conflictTime  = 10 * time.Second
	conflictWait  = 5 * time.Second

	minDelay, maxDelay         = 20 * time.Millisecond, 120 * time.Millisecond  // of answers (§6) and first queries (§5.2)
	minTruncated, maxTruncated = 400 * time.Millisecond, 500 * time.Millisecond // §7.2
	minRepeat                  = time.Second                                    // of a record on a link (§6)
	firstQuery, maxQueryWait   = time.Second, time.Hour                         // between queries (§5.2)
	goodbyeTime                = time.Second                                    // §10.1
	stale                      = 80                                             // percent of a TTL after which it is asked again (§5.2)

	// A link takes and sends at most that many packets a second, and a burst of
	// burst packets.
	sendRate, receiveRate, burst = 10, 200, 40

	maxInstances  = 512 // that are remembered
	maxFromSource = 16  // of those, from one address
	maxAddrs      = 8   // of an instance, and of us
	maxTaken      = 2   // queries of others that stand for ours, one after another
	minRotate     = 45 * time.Minute
	rotateJitter  = 30 * time.Minute
)

// A link is a network interface and a family of addresses, on which there is a
// multicast group.
type link struct {
	id       int
	zone     string         // for link-local addresses of IPv6
	prefixes []netip.Prefix // our addresses on it, and who is on it
	group    netip.AddrPort
	machine  bool // it does not leave the machine
}

// direct is the link of messages that go to one node and not to a group.
const direct = -1

// An outgoing packet is to be sent on a link.
type outgoing struct {
	link int
	to   netip.AddrPort
	data []byte
}

// A finding says where a peer of a topic is.
type finding struct {
	peer Peer
	lost bool
}

// A core is multicast DNS without sockets and clock. It is told of what comes
// in and what time it is; after each call its caller sends what out returns,
// hands on what found returns, and calls tick at the time of due.
type core struct {
	random io.Reader
	links  map[int]*linkState
	direct linkState           // has rates only
	local  map[netip.Addr]bool // our addresses on all links

	announced []Topic
	port      uint16
	salt      salt
	past      []pastSalt // which others may still use, latest last
	text      []string
	said      bool // that these are the names
	rotateAt  time.Time
	conflicts []time.Time // of late

	browsed []Topic
	cache   map[string]*remembered

	packets  []outgoing
	findings []finding
}

// A pastSalt is one that was ours.
type pastSalt struct {
	salt  salt
	until time.Time // when handshakes under it are over
}

const (
	pastTime = time.Minute
	maxPast  = 8
)

// salts are those under which handshakes may begin.
func (c *core) salts(now time.Time) []salt {
	list := []salt{c.salt}
	for _, p := range c.past {
		if now.Before(p.until) {
			list = append(list, p.salt)
		}
	}
	return list
}

// isOwn reports whether a label is or was a moment ago ours.
func (c *core) isOwn(label string) bool {
	return label == c.salt.label() || slices.ContainsFunc(c.past, func(p pastSalt) bool { return p.salt.label() == label })
}

// linkState is what a link is about to do.
type linkState struct {
	link
	in, out bucket

	// What we say about ourselves.
	probes, announces int
	next              time.Time // of these two; zero if both are done
	sent              map[kinds]time.Time
	asked             kinds     // to be answered
	answer            time.Time // when
	asker             netip.Addr
	several           bool // who have asked

	// What we ask.
	query time.Time // zero if nobody browses
	wait  time.Duration
	taken int
}

// remembered is an instance of somebody else.
type remembered struct {
	label   string
	from    netip.Addr // who said it first
	tags    []tag
	sources map[int]source // by link
	ttl     time.Duration
	refresh time.Time // when to ask for it again
	expires time.Time
	told    map[Topic][]netip.AddrPort // what was found
}

// A source says on a link where an instance is.
type source struct {
	from  netip.Addr
	addrs []netip.AddrPort
}

func newCore(random io.Reader) *core {
	return &core{random: random, links: map[int]*linkState{}, cache: map[string]*remembered{}, direct: linkState{link: link{id: direct}}}
}

// A bucket lets pass what comes at a rate.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time, rate float64) bool {
	if b.at.IsZero() {
		b.left = burst
	}
	b.left = min(burst, b.left+rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// between returns a random time from a to b.
func (c *core) between(a, b time.Duration) time.Duration {
	return a + time.Duration(below(c.random, uint64(b-a)+1))
}

// setLinks says which links there are. If they have changed, the node takes a
// new name, so that nobody can follow it from one network to another.
func (c *core) setLinks(now time.Time, links []link) {
	changed := len(links) != len(c.links)
	for _, l := range links {
		old := c.links[l.id]
		changed = changed || old == nil || old.zone != l.zone || old.group != l.group || !slices.Equal(old.prefixes, l.prefixes)
	}
	if !changed {
		return
	}
	c.goodbye(now)
	old := c.links
	c.links, c.local = map[int]*linkState{}, map[netip.Addr]bool{}
	for _, l := range links {
		s := &linkState{link: l}
		if was := old[l.id]; was != nil {
			s.in, s.out = was.in, was.out
		}
		c.links[l.id] = s
		for _, p := range l.prefixes {
			c.local[p.Addr()] = true
		}
	}
	for _, r := range c.cache {
		maps.DeleteFunc(r.sources, func(id int, _ source) bool { return id != direct && c.links[id] == nil })
	}
	c.rename(now)
	c.ask(now)
}

// announce says of which topics this node is, all of them, and where it can be
// reached.
func (c *core) announce(now time.Time, topics []Topic, port uint16) {
	c.goodbye(now)
	c.announced, c.port = slices.Clone(topics), port
	c.rename(now)
}

// browse says which topics to look for.
func (c *core) browse(now time.Time, topics []Topic) {
	more := slices.ContainsFunc(topics, func(t Topic) bool { return !slices.Contains(c.browsed, t) })
	c.browsed = slices.Clone(topics)
	for _, r := range c.cache {
		maps.DeleteFunc(r.told, func(t Topic, _ []netip.AddrPort) bool { return !slices.Contains(topics, t) })
		c.tell(r)
	}
	if more || len(topics) == 0 {
		c.ask(now)
	}
}

// ask begins to query on all links.
func (c *core) ask(now time.Time) {
	for _, l := range c.sorted() {
		l.query, l.wait = time.Time{}, firstQuery
		if len(c.browsed) > 0 {
			l.query = now.Add(c.between(minDelay, maxDelay))
		}
	}
}

// sorted are the links in an order that is the same each time.
func (c *core) sorted() []*linkState {
	return slices.SortedFunc(maps.Values(c.links), func(a, b *linkState) int { return a.id - b.id })
}

// rename takes new names and begins to probe for them.
func (c *core) rename(now time.Time) {
	if c.said {
		c.past = append(c.past, pastSalt{c.salt, now.Add(pastTime)})
		c.past = c.past[max(0, len(c.past)-maxPast):]
	}
	c.salt, c.said = newSalt(c.random), false
	c.text = text(c.salt.tags(c.announced, c.random))
	c.rotateAt = now.Add(c.between(minRotate, minRotate+rotateJitter))
	c.probe(now.Add(c.between(0, probeEvery)))
}

// probe begins at a time.
func (c *core) probe(at time.Time) {
	for _, l := range c.links {
		l.probes, l.announces, l.asked = 0, 0, 0
		l.sent = map[kinds]time.Time{}
		l.next = time.Time{}
		if len(c.announced) > 0 {
			l.next = at
		}
	}
}

// goodbye takes back what was said on all links.
func (c *core) goodbye(now time.Time) {
	if len(c.announced) == 0 {
		return
	}
	for _, l := range c.sorted() {
		if l.probes > 0 {
			c.send(now, l, c.own(l).response(allKinds, 0))
		}
	}
}

// own is what this node says on a link.
func (c *core) own(l *linkState) *own {
	o := &own{label: c.salt.label(), port: c.port, text: c.text}
	for _, p := range l.prefixes {
		if len(o.addrs) < maxAddrs {
			o.addrs = append(o.addrs, p.Addr())
		}
	}
	return o
}

// settled reports whether the names are ours on a link.
func (c *core) settled(l *linkState) bool { return len(c.announced) > 0 && l.probes == probeCount }

// send sends to the group of a link, and reports whether the rate let it.
func (c *core) send(now time.Time, l *linkState, data []byte) bool {
	if !l.out.take(now, sendRate) {
		return false
	}
	c.packets = append(c.packets, outgoing{l.id, l.group, data})
	return true
}

// receive takes a packet that came by a link.
func (c *core) receive(now time.Time, id int, from netip.AddrPort, data []byte) {
	l := c.links[id]
	if l == nil || !l.in.take(now, receiveRate) || !l.near(from.Addr()) {
		return
	}
	m, err := parse(data)
	if err != nil {
		return
	}
	if m.response {
		// RFC 6762 §6: a response comes from the port of multicast DNS.
		if from.Port() == port {
			c.answered(now, l, from, &m)
		}
		return
	}
	// What a probe wants to be is as good to us as what it will be: who it is
	// says the handshake.
	c.learn(now, l, from, m.probed)
	c.contest(now, l, from, m.probed)
	c.questioned(now, l, from, &m)
}

// near reports whether an address is on the link (RFC 6762 §11).
func (l *linkState) near(a netip.Addr) bool {
	if l.machine {
		return true // whatever address of it is in the packet
	}
	a = a.WithZone("")
	return a.Is6() && a.IsLinkLocalUnicast() || slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// questioned answers a query.
func (c *core) questioned(now time.Time, l *linkState, from netip.AddrPort, m *message) {
	c.takenFor(l, from, m)
	if !c.settled(l) {
		return
	}
	o := c.own(l)
	var multi, uni kinds
	for _, q := range m.questions {
		of := q.asks(o.label)
		// RFC 6762 §5.4: those who asked for it get it alone, unless the others
		// have not heard it for long.
		if q.unicast && now.Sub(l.sent[ptrKind]) < recordTTL/4 {
			uni |= of
		} else {
			multi |= of
		}
	}
	if from.Port() != port {
		if of := multi | uni; of != 0 && l.out.take(now, sendRate) {
			c.packets = append(c.packets, outgoing{l.id, from, o.legacy(m.id, m.first, of)})
		}
		return
	}
	if knows(m, o.label) {
		multi &^= ptrKind
		uni &^= ptrKind
		if len(m.questions) == 0 && l.asker == from.Addr() && !l.several {
			l.asked &^= ptrKind // the rest of a query (§7.2)
		}
	}
	if uni != 0 && l.out.take(now, sendRate) {
		c.packets = append(c.packets, outgoing{l.id, from, o.response(uni, recordTTL)})
	}
	if multi == 0 {
		return
	}
	at := now
	switch {
	case m.truncated:
		at = now.Add(c.between(minTruncated, maxTruncated))
	case multi&ptrKind != 0:
		at = now.Add(c.between(minDelay, maxDelay))
	}
	l.several = l.asked != 0 && (l.several || l.asker != from.Addr())
	if l.asked == 0 || at.Before(l.answer) {
		l.answer = at
	}
	l.asked, l.asker = l.asked|multi, from.Addr()
	c.tick(now)
}

// knows reports whether a query has our PTR record among its known answers,
// and for long enough (RFC 6762 §7.1).
func knows(m *message, label string) bool {
	return slices.ContainsFunc(m.instances, func(i instance) bool {
		return i.label == label && i.says&ptrKind != 0 && i.ttl >= recordTTL/2
	})
}

// takenFor lets the query of somebody else stand for ours (RFC 6762 §7.3): if
// it leaves out no more answers than ours would. Who asks all the time does
// not keep us from asking for ever.
func (c *core) takenFor(l *linkState, from netip.AddrPort, m *message) {
	if l.query.IsZero() || m.truncated || from.Port() != port || l.taken == maxTaken || c.isLocal(from) {
		return // what comes from this machine may be our own
	}
	same := slices.ContainsFunc(m.questions, func(q question) bool {
		return q.name == service && q.asks("") == ptrKind && !q.unicast
	})
	for i := range m.instances {
		label := m.instances[i].label
		same = same && (c.cache[label] != nil || label == c.salt.label())
	}
	if same {
		l.taken++
		c.asked(l, l.query)
	}
}

// asked sets the time of the query after the one at a time.
func (c *core) asked(l *linkState, at time.Time) {
	l.query = at.Add(l.wait)
	l.wait = min(2*l.wait, maxQueryWait)
}

// isLocal reports whether a packet came from this machine.
func (c *core) isLocal(from netip.AddrPort) bool { return c.local[from.Addr().WithZone("")] }

// contest looks for others with our names.
func (c *core) contest(now time.Time, l *linkState, from netip.AddrPort, list []instance) {
	o := c.own(l)
	for _, i := range list {
		if i.label != o.label || len(c.announced) == 0 || c.isLocal(from) {
			continue // what comes from this machine we have said ourselves, maybe on another link
		}
		if !c.said || i.same(o) {
			continue
		}
		// Names are random: who has ours wants to be mistaken for us. Nobody is
		// attached to them, so there is no need to find out who was first.
		c.conflicts = append(c.conflicts, now)
		c.rename(now)
		late := slices.IndexFunc(c.conflicts, func(t time.Time) bool { return now.Sub(t) < conflictTime })
		c.conflicts = slices.Delete(c.conflicts, 0, late)
		if len(c.conflicts) >= maxConflicts {
			c.conflicts = c.conflicts[1:]
			c.probe(now.Add(conflictWait))
		}
		return
	}
}

// same reports whether a claim says what we say.
func (i *instance) same(o *own) bool {
	for _, a := range i.addrs {
		if !slices.Contains(o.addrs, a) {
			return false
		}
	}
	return (i.says&srvKind == 0 || i.port == o.port) && (i.says&txtKind == 0 || slices.Equal(i.tags, tagsOf(o.text)))
}

// answered takes a response.
func (c *core) answered(now time.Time, l *linkState, from netip.AddrPort, m *message) {
	own := c.salt.label()
	for _, i := range m.instances {
		if i.label == own && !i.goodbye() && c.isLocal(from) {
			l.asked &^= i.says // it was just said (RFC 6762 §7.4)
		}
	}
	c.contest(now, l, from, m.instances)
	c.learn(now, l, from, m.instances)
}

// learn remembers instances.
func (c *core) learn(now time.Time, l *linkState, from netip.AddrPort, list []instance) {
	for _, i := range list {
		if c.isOwn(i.label) {
			continue
		}
		r := c.cache[i.label]
		if r != nil {
			// Who heard a name can say it too; who said it first on a link is right.
			if s, known := r.sources[l.id]; known && s.from != from.Addr() {
				continue
			}
		}
		if i.goodbye() {
			if r != nil && r.expires.After(now.Add(goodbyeTime)) {
				r.expires, r.refresh = now.Add(goodbyeTime), time.Time{}
			}
			continue
		}
		// All there is to know comes at once, by the rules of the format; a record
		// alone only keeps alive what is known.
		whole := i.says&(srvKind|txtKind) == srvKind|txtKind && i.port != 0 && i.ttl > 0
		if whole && l.id == direct {
			i.addrs, i.port = []netip.Addr{from.Addr()}, from.Port()
		}
		whole = whole && len(i.addrs) > 0
		if r == nil {
			if !whole {
				continue
			}
			if r = c.admit(i, from.Addr()); r == nil {
				continue
			}
		}
		if whole {
			r.tags = i.tags
			r.sources[l.id] = source{from.Addr(), i.at(l.zone)}
		}
		r.ttl = max(i.ttl, time.Second)
		r.expires = now.Add(r.ttl)
		// RFC 6762 §5.2: not all ask at the same moment.
		r.refresh = now.Add(r.ttl * (stale + time.Duration(below(c.random, 3))) / 100)
		c.tell(r)
	}
}

// at returns where an instance is.
func (i *instance) at(zone string) (list []netip.AddrPort) {
	for _, a := range i.addrs {
		if a.Is6() && a.IsLinkLocalUnicast() {
			a = a.WithZone(zone)
		}
		list = append(list, netip.AddrPortFrom(a, i.port))
	}
	return list
}

// admit makes room for an instance that is not known yet. It returns nil if
// there is none.
func (c *core) admit(i instance, from netip.Addr) *remembered {
	same := 0
	var oldest, worst *remembered
	for _, r := range c.cache {
		if r.from == from {
			same++
			if oldest == nil || r.expires.Before(oldest.expires) {
				oldest = r
			}
		}
		if len(r.told) == 0 && (worst == nil || r.expires.Before(worst.expires)) {
			worst = r
		}
	}
	switch {
	case same >= maxFromSource:
		c.forget(oldest)
	case len(c.cache) < maxInstances:
	case worst == nil || len(c.match(i.label, i.tags)) == 0:
		return nil
	default:
		c.forget(worst)
	}
	r := &remembered{label: i.label, from: from, sources: map[int]source{}, told: map[Topic][]netip.AddrPort{}}
	c.cache[i.label] = r
	return r
}

// forget drops an instance.
func (c *core) forget(r *remembered) {
	r.tags = nil
	c.tell(r)
	delete(c.cache, r.label)
}

// match returns those of the topics looked for that an instance has.
func (c *core) match(label string, tags []tag) (topics []Topic) {
	s, ok := saltOf(label)
	if !ok || len(tags) == 0 {
		return nil
	}
	for _, t := range c.browsed {
		if slices.Contains(tags, s.tag(t)) {
			topics = append(topics, t)
		}
	}
	return topics
}

// tell reports where an instance is, for each topic that it has and that is
// looked for, if that is news.
func (c *core) tell(r *remembered) {
	var addrs []netip.AddrPort
	for _, id := range slices.Sorted(maps.Keys(r.sources)) {
		for _, a := range r.sources[id].addrs {
			if !slices.Contains(addrs, a) && len(addrs) < maxAddrs {
				addrs = append(addrs, a)
			}
		}
	}
	s, _ := saltOf(r.label)
	topics := c.match(r.label, r.tags)
	for _, t := range topics {
		if len(addrs) > 0 && !slices.Equal(r.told[t], addrs) {
			r.told[t] = addrs
			c.findings = append(c.findings, finding{peer: Peer{Topic: t, Addrs: addrs, salt: s}})
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(r.told), func(a, b Topic) int { return bytes.Compare(a[:], b[:]) }) {
		if len(addrs) == 0 || !slices.Contains(topics, t) {
			c.findings = append(c.findings, finding{peer: Peer{Topic: t, Addrs: r.told[t], salt: s}, lost: true})
			delete(r.told, t)
		}
	}
}

// receiveDirect takes a message that came to the socket of this node and not
// to a group: a query of one who remembers us or, if we have asked, the answer
// to ours.
func (c *core) receiveDirect(now time.Time, from netip.AddrPort, data []byte, asked bool) {
	if !c.isNear(from.Addr()) || !c.direct.in.take(now, receiveRate) {
		return
	}
	m, err := parse(data)
	if err != nil {
		return
	}
	if m.response {
		if asked {
			c.learn(now, &c.direct, from, m.instances)
		}
		return
	}
	var of kinds
	for _, q := range m.questions {
		of |= q.asks(c.salt.label())
	}
	if of != 0 && len(c.announced) > 0 && c.direct.out.take(now, sendRate) {
		c.packets = append(c.packets, outgoing{direct, from, c.own(&c.direct).legacy(m.id, m.first, of)})
	}
}

// isNear reports whether an address can be that of somebody on our networks.
func (c *core) isNear(a netip.Addr) bool {
	a = a.WithZone("")
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return true
	}
	for _, l := range c.links {
		if l.near(a) {
			return true
		}
	}
	return false
}

// tick does what is due.
func (c *core) tick(now time.Time) {
	if len(c.announced) > 0 && !now.Before(c.rotateAt) {
		c.goodbye(now)
		c.rename(now)
	}
	for _, l := range c.sorted() {
		c.step(now, l)
	}
	for _, r := range c.cache {
		if !now.Before(r.expires) {
			c.forget(r)
		}
	}
}

// step does what is due on a link.
func (c *core) step(now time.Time, l *linkState) {
	o := c.own(l)
	if !l.next.IsZero() && !now.Before(l.next) {
		switch {
		case l.probes < probeCount:
			if c.send(now, l, o.probe()) {
				l.probes++
				c.said = true
			}
			l.next = now.Add(probeEvery)
		default:
			if c.send(now, l, o.response(allKinds, recordTTL)) {
				l.announces++
				l.said(now, allKinds)
			}
			l.next = now.Add(announceEvery)
			if l.announces == announceCount {
				l.next = time.Time{}
			}
		}
	}
	if l.asked != 0 && !now.Before(l.answer) {
		if wait := l.quiet(now, l.asked); wait > 0 {
			l.answer = now.Add(wait)
		} else if of := l.asked; c.send(now, l, o.response(of, recordTTL)) {
			l.said(now, of)
			l.asked = 0
		} else {
			l.asked = 0 // who needs it asks again
		}
	}
	if l.query.IsZero() {
		return
	}
	if !now.Before(l.query) || c.isStale(now, l) {
		l.taken = 0
		for _, data := range query(c.known(now, l)) {
			c.send(now, l, data)
		}
		c.asked(l, now)
		for _, r := range c.cache {
			if _, here := r.sources[l.id]; here && !now.Before(r.refresh) {
				r.refresh = now.Add(r.ttl / 20)
			}
		}
	}
}

// said remembers when records were sent.
func (l *linkState) said(now time.Time, of kinds) {
	for k := ptrKind; k < allKinds; k <<= 1 {
		if of&k != 0 {
			l.sent[k] = now
		}
	}
}

// quiet returns how long records have to wait, so that none is sent twice in a
// second.
func (l *linkState) quiet(now time.Time, of kinds) (wait time.Duration) {
	for k := ptrKind; k < allKinds; k <<= 1 {
		if at, ok := l.sent[k]; ok && of&k != 0 {
			wait = max(wait, at.Add(minRepeat).Sub(now))
		}
	}
	return wait
}

// isStale reports whether an instance that matters and was heard on the link
// is to be asked for again.
func (c *core) isStale(now time.Time, l *linkState) bool {
	for _, r := range c.cache {
		if at, ok := c.refreshAt(r, l); ok && !now.Before(at) {
			return true
		}
	}
	return false
}

func (c *core) refreshAt(r *remembered, l *linkState) (time.Time, bool) {
	_, here := r.sources[l.id]
	return r.refresh, here && len(r.told) > 0 && !r.refresh.IsZero()
}

// known are the answers that a query on a link says not to repeat.
func (c *core) known(now time.Time, l *linkState) (list []known) {
	if c.settled(l) && l.announces > 0 {
		list = append(list, known{c.salt.label(), recordTTL}) // or we would answer ourselves
	}
	for label, r := range c.cache {
		left := r.expires.Sub(now)
		if _, here := r.sources[l.id]; here && left > recordTTL/2 {
			list = append(list, known{label, left})
		}
	}
	slices.SortFunc(list, func(a, b known) int { return bytes.Compare([]byte(a.label), []byte(b.label)) })
	return list
}

// due returns when tick is to be called. It is zero if nothing is to come.
func (c *core) due() (at time.Time) {
	first := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if len(c.announced) > 0 && len(c.links) > 0 {
		first(c.rotateAt)
	}
	for _, l := range c.links {
		first(l.next)
		first(l.query)
		if l.asked != 0 {
			first(l.answer)
		}
	}
	for _, r := range c.cache {
		first(r.expires)
		for _, l := range c.links {
			if t, ok := c.refreshAt(r, l); ok && !l.query.IsZero() {
				first(t)
			}
		}
	}
	return at
}

// take returns what is to be sent and what was found since the last call.
func (c *core) take() ([]outgoing, []finding) {
	packets, findings := c.packets, c.findings
	c.packets, c.findings = nil, nil
	return packets, findings
}
