package hyperdht

import (
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// The commands of hyperdht (lib/constants.js).
const (
	cmdPeerHandshake = iota
	cmdPeerHolepunch
	cmdFindPeer
	cmdLookup
	cmdAnnounce
	cmdUnannounce
	cmdMutablePut
	cmdMutableGet
	cmdImmutablePut
	cmdImmutableGet
	cmdPlugin
)

// The error codes of handshakes, and of storage from 16 on.
const (
	codeNone            = 0
	codeAborted         = 1
	codeVersionMismatch = 2
	codeTryLater        = 3
	codeSeqReused       = 16
	codeSeqTooLow       = 17
)

// Modes of messages that are relayed: who sent them on.
const (
	fromClient = iota
	fromServer
	fromRelay
	fromSecondRelay
	modeReply
)

// maxAddrs is the most addresses taken from one list of a message. Two or three
// are usual, and a datagram holds a few hundred.
const maxAddrs = 256

// maxValue is the most bytes of a value in a message, which is one datagram.
const maxValue = 1 << 16

// none is no address.
var none netip.AddrPort

func appendAddr(b []byte, a netip.AddrPort) []byte { return compact.AppendIPv4Address(b, a) }

func appendAddrs(b []byte, l []netip.AddrPort) []byte {
	return compact.AppendArray(b, l, compact.AppendIPv4Address)
}

func readAddrs(d *compact.Decoder) []netip.AddrPort {
	return compact.DecodeArray(d, maxAddrs, (*compact.Decoder).IPv4Address)
}

// only4 leaves out what can't be written in four bytes.
func only4(l []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range l {
		if a.Addr().Unmap().Is4() {
			out = append(out, a)
		}
	}
	return out
}

// A handshakeMsg carries half of a Noise handshake, as PEER_HANDSHAKE.
type handshakeMsg struct {
	mode        int
	noise       []byte
	peer, relay netip.AddrPort
}

func (m handshakeMsg) append(b []byte) []byte {
	flags := bit(0, m.peer.IsValid()) | bit(1, m.relay.IsValid())
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, uint64(m.mode))
	b = compact.AppendOptionalBuffer(b, m.noise)
	if m.peer.IsValid() {
		b = appendAddr(b, m.peer)
	}
	if m.relay.IsValid() {
		b = appendAddr(b, m.relay)
	}
	return b
}

func readHandshake(b []byte) (m handshakeMsg, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	m.mode = small(&d)
	m.noise = d.OptionalBuffer(maxValue)
	if has(flags, 0) {
		m.peer = d.IPv4Address()
	}
	if has(flags, 1) {
		m.relay = d.IPv4Address()
	}
	return m, d.Err()
}

// A holepunchMsg carries a sealed punchMsg, as PEER_HOLEPUNCH.
type holepunchMsg struct {
	mode    int
	id      uint64
	payload []byte
	peer    netip.AddrPort
}

func (m holepunchMsg) append(b []byte) []byte {
	b = compact.AppendUint(b, bit(0, m.peer.IsValid()))
	b = compact.AppendUint(b, uint64(m.mode))
	b = compact.AppendUint(b, m.id)
	b = compact.AppendOptionalBuffer(b, m.payload)
	if m.peer.IsValid() {
		b = appendAddr(b, m.peer)
	}
	return b
}

func readHolepunch(b []byte) (m holepunchMsg, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	m.mode = small(&d)
	m.id = d.Uint()
	m.payload = d.OptionalBuffer(maxValue)
	if has(flags, 0) {
		m.peer = d.IPv4Address()
	}
	return m, d.Err()
}

// A relayInfo is a node that passes messages on to a server, and the address
// that the server has for that node.
type relayInfo struct{ relay, peer netip.AddrPort }

// A relayThrough names a blind relay and what to ask it for.
type relayThrough struct {
	version uint64
	key     noise.Key
	token   [32]byte
}

// A noisePayload is what is inside of both halves of a handshake.
type noisePayload struct {
	version    uint64
	code       uint64
	firewall   Firewall
	hasPunch   bool
	punchID    uint64
	relays     []relayInfo
	addrs4     []netip.AddrPort
	addrs6     []netip.AddrPort
	udx        *udxInfo
	stream     uint64 // version of secret-stream; zero is none
	through    *relayThrough
	relayAddrs []netip.AddrPort
}

// A udxInfo tells the stream that packets for the sender go to.
type udxInfo struct {
	version  uint64
	reusable bool
	id       uint32
	seq      uint64
}

func (m *noisePayload) append(b []byte) []byte {
	flags := bit(0, m.hasPunch) | bit(1, len(m.addrs4) > 0) | bit(2, len(m.addrs6) > 0) | bit(3, m.udx != nil) |
		bit(4, m.stream != 0) | bit(5, m.through != nil) | bit(6, len(m.relayAddrs) > 0)
	b = compact.AppendUint(b, 1)
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, m.code)
	b = compact.AppendUint(b, uint64(m.firewall))
	if m.hasPunch {
		b = compact.AppendUint(b, m.punchID)
		b = compact.AppendArray(b, m.relays, func(b []byte, r relayInfo) []byte {
			return appendAddr(appendAddr(b, r.relay), r.peer)
		})
	}
	if len(m.addrs4) > 0 {
		b = appendAddrs(b, m.addrs4)
	}
	if len(m.addrs6) > 0 {
		b = compact.AppendArray(b, m.addrs6, compact.AppendIPv6Address)
	}
	if m.udx != nil {
		b = compact.AppendUint(b, 1)
		b = compact.AppendUint(b, bit(0, m.udx.reusable))
		b = compact.AppendUint(b, uint64(m.udx.id))
		b = compact.AppendUint(b, m.udx.seq)
	}
	if m.stream != 0 {
		b = compact.AppendUint(b, 1)
	}
	if m.through != nil {
		b = compact.AppendUint(b, 1)
		b = compact.AppendUint(b, 0)
		b = compact.AppendFixed32(b, (*[32]byte)(&m.through.key))
		b = compact.AppendFixed32(b, &m.through.token)
	}
	if len(m.relayAddrs) > 0 {
		b = appendAddrs(b, m.relayAddrs)
	}
	return b
}

func readNoisePayload(b []byte) (m noisePayload, err error) {
	d := compact.NewDecoder(b)
	m.version = d.Uint()
	if m.version != 1 {
		return m, d.Err() // what follows is not known
	}
	flags := d.Uint()
	m.code = d.Uint()
	m.firewall = readFirewall(&d)
	if m.hasPunch = has(flags, 0); m.hasPunch {
		m.punchID = d.Uint()
		m.relays = compact.DecodeArray(&d, maxAddrs, func(d *compact.Decoder) relayInfo {
			return relayInfo{d.IPv4Address(), d.IPv4Address()}
		})
	}
	if has(flags, 1) {
		m.addrs4 = readAddrs(&d)
	}
	if has(flags, 2) {
		m.addrs6 = compact.DecodeArray(&d, maxAddrs, (*compact.Decoder).IPv6Address)
	}
	if has(flags, 3) {
		u := udxInfo{version: d.Uint()}
		u.reusable = has(d.Uint(), 0)
		id := d.Uint()
		if id > 1<<32-1 {
			d.Fail("stream id", compact.ErrTooLarge)
		}
		u.id, u.seq = uint32(id), d.Uint()
		m.udx = &u
	}
	if has(flags, 4) {
		m.stream = d.Uint()
	}
	if has(flags, 5) {
		r := relayThrough{version: d.Uint()}
		d.Uint() // flags
		r.key, r.token = d.Fixed32(), d.Fixed32()
		m.through = &r
	}
	if has(flags, 6) {
		m.relayAddrs = readAddrs(&d)
	}
	return m, d.Err()
}

// A punchMsg is what the two sides tell one another while they punch.
type punchMsg struct {
	code        uint64
	firewall    Firewall
	round       uint64
	connected   bool
	punching    bool
	addrs       []netip.AddrPort // nil is not known
	remote      netip.AddrPort   // where the sender has sent a packet to already
	token       *[32]byte        // to be sent back, which proves the address
	remoteToken *[32]byte
}

func (m *punchMsg) append(b []byte) []byte {
	flags := bit(0, m.connected) | bit(1, m.punching) | bit(2, m.addrs != nil) | bit(3, m.remote.IsValid()) |
		bit(4, m.token != nil) | bit(5, m.remoteToken != nil)
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, m.code)
	b = compact.AppendUint(b, uint64(m.firewall))
	b = compact.AppendUint(b, m.round)
	if m.addrs != nil {
		b = appendAddrs(b, m.addrs)
	}
	if m.remote.IsValid() {
		b = appendAddr(b, m.remote)
	}
	if m.token != nil {
		b = compact.AppendFixed32(b, m.token)
	}
	if m.remoteToken != nil {
		b = compact.AppendFixed32(b, m.remoteToken)
	}
	return b
}

func readPunch(b []byte) (m punchMsg, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	m.code = d.Uint()
	m.firewall = readFirewall(&d)
	m.round = d.Uint()
	m.connected, m.punching = has(flags, 0), has(flags, 1)
	if has(flags, 2) {
		m.addrs = readAddrs(&d)
	}
	if has(flags, 3) {
		m.remote = d.IPv4Address()
	}
	if has(flags, 4) {
		t := d.Fixed32()
		m.token = &t
	}
	if has(flags, 5) {
		t := d.Fixed32()
		m.remoteToken = &t
	}
	return m, d.Err()
}

// A peerRecord is what nodes keep about a peer that announced itself.
type peerRecord struct {
	key    noise.Key
	relays []netip.AddrPort
}

func (m peerRecord) append(b []byte) []byte {
	b = compact.AppendFixed32(b, (*[32]byte)(&m.key))
	return appendAddrs(b, m.relays)
}

func readPeerFrom(d *compact.Decoder) peerRecord {
	return peerRecord{d.Fixed32(), readAddrs(d)}
}

func readPeer(b []byte) (peerRecord, error) {
	d := compact.NewDecoder(b)
	m := readPeerFrom(&d)
	return m, d.Err()
}

// appendLookup appends the answer to LOOKUP: records as they were announced.
func appendLookup(b []byte, records [][]byte, bump uint64) []byte {
	b = compact.AppendArray(b, records, func(b, r []byte) []byte { return append(b, r...) })
	return compact.AppendUint(b, bump)
}

func readLookup(b []byte) (peers []peerRecord, bump uint64, err error) {
	d := compact.NewDecoder(b)
	peers = compact.DecodeArray(&d, maxAddrs, readPeerFrom)
	if d.Len() > 0 {
		bump = d.Uint()
	}
	return peers, bump, d.Err()
}

// An announceMsg is the value of ANNOUNCE and UNANNOUNCE.
type announceMsg struct {
	peer      *peerRecord
	refresh   *[32]byte
	signature *[64]byte
	bump      uint64
}

func (m announceMsg) append(b []byte) []byte {
	flags := bit(0, m.peer != nil) | bit(1, m.refresh != nil) | bit(2, m.signature != nil) | bit(3, m.bump != 0)
	b = compact.AppendUint(b, flags)
	if m.peer != nil {
		b = m.peer.append(b)
	}
	if m.refresh != nil {
		b = compact.AppendFixed32(b, m.refresh)
	}
	if m.signature != nil {
		b = compact.AppendFixed64(b, m.signature)
	}
	if m.bump != 0 {
		b = compact.AppendUint(b, m.bump)
	}
	return b
}

func readAnnounce(b []byte) (m announceMsg, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	if has(flags, 0) {
		p := readPeerFrom(&d)
		m.peer = &p
	}
	if has(flags, 1) {
		r := d.Fixed32()
		m.refresh = &r
	}
	if has(flags, 2) {
		s := d.Fixed64()
		m.signature = &s
	}
	if has(flags, 3) {
		m.bump = d.Uint()
	}
	return m, d.Err()
}

// A mutableMsg is a signed value that may be replaced by one of a higher seq.
// Requests to put it begin with the key, answers don't have that.
type mutableMsg struct {
	key       noise.Key
	seq       uint64
	value     []byte
	signature [64]byte
}

func (m *mutableMsg) appendRequest(b []byte) []byte {
	return m.appendResponse(compact.AppendFixed32(b, (*[32]byte)(&m.key)))
}

func (m *mutableMsg) appendResponse(b []byte) []byte {
	b = compact.AppendUint(b, m.seq)
	b = compact.AppendOptionalBuffer(b, m.value)
	return compact.AppendFixed64(b, &m.signature)
}

func readMutableRequest(b []byte) (m mutableMsg, err error) {
	d := compact.NewDecoder(b)
	m.key = d.Fixed32()
	m.read(&d)
	return m, d.Err()
}

func readMutableResponse(b []byte) (m mutableMsg, err error) {
	d := compact.NewDecoder(b)
	m.read(&d)
	return m, d.Err()
}

func (m *mutableMsg) read(d *compact.Decoder) {
	m.seq = d.Uint()
	m.value = d.OptionalBuffer(maxValue)
	m.signature = d.Fixed64()
}

func readFirewall(d *compact.Decoder) Firewall {
	return Firewall(min(d.Uint(), 255))
}

func small(d *compact.Decoder) int { return int(min(d.Uint(), 255)) }

func bit(n int, on bool) uint64 {
	if on {
		return 1 << n
	}
	return 0
}

func has(flags uint64, n int) bool { return flags>>n&1 != 0 }
