package mdns

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// service is the type of all instances (RFC 6763 §4.1.2), whatever they are
	// for.
	service = "_hyperlan._udp.local."
	domain  = ".local."

	// maxPacket is the largest message there may be (RFC 6762 §17).
	maxPacket = 9000
	// maxQuery is how large a query gets before known answers go into another.
	maxQuery = 1400

	// topBit is in a class: of a question it asks for an answer by unicast (RFC
	// 6762 §5.4), of a record it says that there are no others of its name and
	// type (§10.2).
	topBit = 1 << 15
)

// recordTTL is for how long others may remember. It is short for a service, as
// names change anyway.
const recordTTL = 10 * time.Minute

// kinds is a set of record kinds of an instance.
type kinds uint8

const (
	ptrKind  kinds = 1 << iota // the service has the instance
	srvKind                    // where it is
	txtKind                    // its tags
	addrKind                   // the addresses of its host
	allKinds = ptrKind | srvKind | txtKind | addrKind
)

// A message is what matters of one that came in.
type message struct {
	id        uint16
	response  bool
	truncated bool
	first     dnsmessage.Question // to be repeated to those who need that
	questions []question
	instances []instance // of all records but those of a probe, in the order of their first
	probed    []instance // what a probe wants to take
}

// A question is one that may be for us.
type question struct {
	name    string // in lower case
	kind    dnsmessage.Type
	unicast bool
}

// An instance is what one message says about an instance.
type instance struct {
	label string
	says  kinds
	ttl   time.Duration // of the PTR record, or the least of the others
	port  uint16
	tags  []tag
	addrs []netip.Addr // of the host with the label
}

// goodbye reports whether the instance is said to be gone.
func (i *instance) goodbye() bool { return i.says&ptrKind != 0 && i.ttl == 0 }

// parse reads a message. Records of others than ours are skipped.
func parse(data []byte) (m message, err error) {
	if len(data) > maxPacket {
		return m, fmt.Errorf("message of %d bytes", len(data))
	}
	var p dnsmessage.Parser
	h, err := p.Start(data)
	if err != nil {
		return m, err
	}
	// RFC 6762 §18.3 and §18.11: others are not for us.
	if h.OpCode != 0 || h.RCode != 0 {
		return m, fmt.Errorf("opcode %d and code %d", h.OpCode, h.RCode)
	}
	m.id, m.response, m.truncated = h.ID, h.Response, h.Truncated
	for {
		q, err := p.Question()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return m, err
		}
		if len(m.questions) == 0 {
			m.first = q
		}
		class := q.Class &^ topBit
		if class == dnsmessage.ClassINET || class == dnsmessage.ClassANY {
			m.questions = append(m.questions, question{strings.ToLower(q.Name.String()), q.Type, q.Class&topBit != 0})
		}
	}
	if m.instances, err = section(m.instances, p.Answer); err != nil {
		return m, err
	}
	into := &m.probed
	if m.response {
		into = &m.instances
	}
	if *into, err = section(*into, p.Authority); err != nil {
		return m, err
	}
	m.instances, err = section(m.instances, p.Additional)
	return m, err
}

// section adds what the records that next returns say to a list of instances.
func section(list []instance, next func() (dnsmessage.Resource, error)) ([]instance, error) {
	for {
		r, err := next()
		if err == dnsmessage.ErrSectionDone {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if r.Header.Class&^topBit != dnsmessage.ClassINET {
			continue
		}
		name := strings.ToLower(r.Header.Name.String())
		ttl := min(time.Duration(r.Header.TTL)*time.Second, recordTTL)
		switch body := r.Body.(type) {
		case *dnsmessage.PTRResource:
			label, ok := instanceLabel(strings.ToLower(body.PTR.String()))
			if i := find(&list, label, ok && name == service); i != nil {
				i.says |= ptrKind
				i.ttl = ttl
			}
		case *dnsmessage.SRVResource:
			label, ok := instanceLabel(name)
			host, same := hostLabel(strings.ToLower(body.Target.String()))
			if i := find(&list, label, ok && same && host == label); i != nil {
				i.saw(srvKind, ttl)
				i.port = body.Port
			}
		case *dnsmessage.TXTResource:
			label, ok := instanceLabel(name)
			if i := find(&list, label, ok); i != nil {
				i.saw(txtKind, ttl)
				i.tags = tagsOf(body.TXT)
			}
		case *dnsmessage.AResource:
			label, ok := hostLabel(name)
			if i := find(&list, label, ok); i != nil {
				i.address(netip.AddrFrom4(body.A), ttl)
			}
		case *dnsmessage.AAAAResource:
			label, ok := hostLabel(name)
			if i := find(&list, label, ok); i != nil {
				i.address(netip.AddrFrom16(body.AAAA), ttl)
			}
		}
	}
}

// find returns the instance with the label in the list, where it adds it if
// that is needed, or nil if it is not wanted.
func find(list *[]instance, label string, wanted bool) *instance {
	if !wanted {
		return nil
	}
	for i := range *list {
		if (*list)[i].label == label {
			return &(*list)[i]
		}
	}
	*list = append(*list, instance{label: label, ttl: recordTTL})
	return &(*list)[len(*list)-1]
}

func (i *instance) saw(k kinds, ttl time.Duration) {
	if i.says&ptrKind == 0 {
		i.ttl = min(i.ttl, ttl)
	}
	i.says |= k
}

// address takes one that can be connected to.
func (i *instance) address(a netip.Addr, ttl time.Duration) {
	if a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return
	}
	i.saw(addrKind, ttl)
	if len(i.addrs) < maxAddrs {
		i.addrs = append(i.addrs, a)
	}
}

// instanceLabel takes the label off the name of an instance.
func instanceLabel(name string) (string, bool) {
	label, ok := strings.CutSuffix(name, "."+service)
	_, known := saltOf(label)
	return label, ok && known
}

// hostLabel takes the label off the name of a host.
func hostLabel(name string) (string, bool) {
	label, ok := strings.CutSuffix(name, domain)
	_, known := saltOf(label)
	return label, ok && known
}

// asks tells which records of the instance with the label a question is for.
func (q *question) asks(label string) kinds {
	var of kinds
	switch q.name {
	case service:
		of = ptrKind
	case label + "." + service:
		of = srvKind | txtKind
	case label + domain:
		of = addrKind
	}
	switch q.kind {
	case dnsmessage.TypeALL:
	case dnsmessage.TypePTR:
		of &= ptrKind
	case dnsmessage.TypeSRV:
		of &= srvKind
	case dnsmessage.TypeTXT:
		of &= txtKind
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		of &= addrKind
	default:
		of = 0
	}
	return of
}

// own is what a node says about itself.
type own struct {
	label string
	port  uint16
	text  []string
	addrs []netip.Addr
}

// A composer writes one message. Names of ours always fit.
type composer struct {
	b   dnsmessage.Builder
	err error
}

func compose(h dnsmessage.Header) *composer {
	c := &composer{b: dnsmessage.NewBuilder(make([]byte, 0, 512), h)}
	c.b.EnableCompression()
	return c
}

func (c *composer) do(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *composer) finish() []byte {
	data, err := c.b.Finish()
	c.do(err)
	if c.err != nil {
		panic("mdns: " + c.err.Error())
	}
	return data
}

func name(parts ...string) dnsmessage.Name { return dnsmessage.MustNewName(strings.Join(parts, "")) }

func header(n dnsmessage.Name, ttl time.Duration, flush bool) dnsmessage.ResourceHeader {
	h := dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: uint32(ttl / time.Second)}
	if flush {
		h.Class |= topBit
	}
	return h
}

func (c *composer) pointer(label string, ttl time.Duration) {
	c.do(c.b.PTRResource(header(name(service), ttl, false), dnsmessage.PTRResource{PTR: name(label, ".", service)}))
}

// records writes records of o into the section that was begun.
func (c *composer) records(o *own, of kinds, ttl time.Duration, flush bool) {
	inst, host := name(o.label, ".", service), name(o.label, domain)
	if of&ptrKind != 0 {
		c.pointer(o.label, ttl)
	}
	if of&srvKind != 0 {
		c.do(c.b.SRVResource(header(inst, ttl, flush), dnsmessage.SRVResource{Port: o.port, Target: host}))
	}
	if of&txtKind != 0 {
		c.do(c.b.TXTResource(header(inst, ttl, flush), dnsmessage.TXTResource{TXT: o.text}))
	}
	if of&addrKind == 0 {
		return
	}
	for _, a := range o.addrs {
		if a.Is4() {
			c.do(c.b.AResource(header(host, ttl, flush), dnsmessage.AResource{A: a.As4()}))
		} else {
			c.do(c.b.AAAAResource(header(host, ttl, flush), dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
}

// response is a message with answers, and with the rest of what there is to
// know behind them (RFC 6763 §12.1).
func (o *own) response(of kinds, ttl time.Duration) []byte {
	c := compose(dnsmessage.Header{Response: true, Authoritative: true})
	c.do(c.b.StartAnswers())
	c.records(o, of, ttl, true)
	if of&ptrKind != 0 && of != allKinds && ttl > 0 {
		c.do(c.b.StartAdditionals())
		c.records(o, allKinds&^of, ttl, true)
	}
	return c.finish()
}

// legacyTTL is how long those may remember who don't know multicast DNS.
const legacyTTL = 10 * time.Second

// legacy answers a question that did not come from the port of multicast DNS
// (RFC 6762 §6.7).
func (o *own) legacy(id uint16, q dnsmessage.Question, of kinds) []byte {
	c := compose(dnsmessage.Header{ID: id, Response: true, Authoritative: true})
	c.do(c.b.StartQuestions())
	q.Class &^= topBit
	c.do(c.b.Question(q))
	c.do(c.b.StartAnswers())
	c.records(o, of, legacyTTL, false)
	if of&ptrKind != 0 && of != allKinds {
		c.do(c.b.StartAdditionals())
		c.records(o, allKinds&^of, legacyTTL, false)
	}
	return c.finish()
}

// probe asks whether the names of o are taken, and says what for (RFC 6762
// §8.1).
func (o *own) probe() []byte {
	c := compose(dnsmessage.Header{})
	c.do(c.b.StartQuestions())
	for _, n := range []dnsmessage.Name{name(o.label, ".", service), name(o.label, domain)} {
		c.do(c.b.Question(dnsmessage.Question{Name: n, Type: dnsmessage.TypeALL, Class: dnsmessage.ClassINET | topBit}))
	}
	c.do(c.b.StartAuthorities())
	c.records(o, allKinds&^ptrKind, recordTTL, false)
	return c.finish()
}

// A known answer is one that a query says not to repeat.
type known struct {
	label string
	ttl   time.Duration
}

// query asks for all instances, in as many messages as the known answers take
// (RFC 6762 §7.2).
func query(answers []known) (messages [][]byte) {
	const each = 60 // bytes of a PTR record with a label, at most
	for first := true; first || len(answers) > 0; first = false {
		n := min(len(answers), (maxQuery-100)/each)
		c := compose(dnsmessage.Header{Truncated: n < len(answers)})
		c.do(c.b.StartQuestions())
		if first {
			c.do(c.b.Question(dnsmessage.Question{Name: name(service), Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}))
		}
		c.do(c.b.StartAnswers())
		for _, a := range answers[:n] {
			c.pointer(a.label, a.ttl)
		}
		messages = append(messages, c.finish())
		answers = answers[n:]
	}
	return messages
}
