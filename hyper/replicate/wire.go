package replicate

import (
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// protocol names what the channels speak; older peers use the alias.
const (
	protocol = "hypercore/alpha"
	alias    = "hypercore"
)

// Protocols are the names that peers may ask for a log by.
var Protocols = []string{protocol, alias}

// The messages of the protocol, by their numbers (hypercore lib/replicator.js).
const (
	msgSync = iota
	msgRequest
	msgCancel
	msgData
	msgNoData
	msgWant
	msgUnwant
	msgBitfield
	msgRange
	msgExtension
	messages
)

var messageNames = [messages]string{"sync", "request", "cancel", "data", "noData", "want", "unwant", "bitfield", "range", "extension"}

// Limits of what is read.
const (
	maxBitfieldWords = 1 << 16 // one batch of wants
	maxExtensionName = 256
)

// A handshake opens a channel (hypercore lib/messages.js, wire.handshake).
type handshake struct {
	seeks      bool // understands requests for a byte
	capability [32]byte
}

func (h *handshake) encode() []byte {
	b := compact.AppendUint(nil, flags(h.seeks))
	return append(b, h.capability[:]...)
}

func readHandshake(b []byte) (h handshake, err error) {
	d := compact.NewDecoder(b)
	h.seeks = d.Uint()&1 != 0
	h.capability = d.Fixed32()
	return h, wireError("handshake", &d)
}

// flags packs booleans, the first into the lowest bit.
func flags(set ...bool) (n uint64) {
	for i, f := range set {
		if f {
			n |= 1 << i
		}
	}
	return n
}

func wireError(what string, d *compact.Decoder) error {
	if err := d.Err(); err != nil {
		return fmt.Errorf("read %s message: %w", what, err)
	}
	return nil // more bytes are of a newer version
}

// A syncMessage says where a side is.
type syncMessage struct {
	fork, length uint64
	remoteLength uint64 // of the other side, as known; 0 if the forks differ
	canUpgrade   bool   // can prove its length from the other side's
	uploading    bool
	downloading  bool
	hasManifest  bool
	allowPush    bool // takes data that it has not asked for
}

func (m *syncMessage) append(b []byte) []byte {
	b = compact.AppendUint(b, flags(m.canUpgrade, m.uploading, m.downloading, m.hasManifest, m.allowPush))
	b = compact.AppendUint(b, m.fork)
	b = compact.AppendUint(b, m.length)
	return compact.AppendUint(b, m.remoteLength)
}

func readSync(b []byte) (m syncMessage, err error) {
	d := compact.NewDecoder(b)
	f := d.Uint()
	m = syncMessage{
		fork: d.Uint(), length: d.Uint(), remoteLength: d.Uint(),
		canUpgrade: f&1 != 0, uploading: f&2 != 0, downloading: f&4 != 0, hasManifest: f&8 != 0, allowPush: f&16 != 0,
	}
	return m, wireError("sync", &d)
}

// A requestMessage asks for a proof.
type requestMessage struct {
	id       uint64
	fork     uint64
	want     merkle.Request
	manifest bool
	priority uint64
}

func (m *requestMessage) append(b []byte) []byte {
	w := &m.want
	b = compact.AppendUint(b, flags(w.Block != nil, w.Hash != nil, w.Seek != nil, w.Upgrade != nil, m.manifest, m.priority != 0))
	b = compact.AppendUint(b, m.id)
	b = compact.AppendUint(b, m.fork)
	for _, n := range [...]*merkle.NodeRequest{w.Block, w.Hash} {
		if n != nil {
			b = compact.AppendUint(b, n.Index)
			b = compact.AppendUint(b, n.Nodes)
		}
	}
	if w.Seek != nil {
		b = compact.AppendUint(b, w.Seek.Bytes)
		b = compact.AppendUint(b, w.Seek.Padding)
	}
	if w.Upgrade != nil {
		b = compact.AppendUint(b, w.Upgrade.Start)
		b = compact.AppendUint(b, w.Upgrade.Length)
	}
	if m.priority != 0 {
		b = compact.AppendUint(b, m.priority)
	}
	return b
}

func readRequest(b []byte) (m requestMessage, err error) {
	d := compact.NewDecoder(b)
	f := d.Uint()
	m.id, m.fork, m.manifest = d.Uint(), d.Uint(), f&16 != 0
	if f&1 != 0 {
		m.want.Block = &merkle.NodeRequest{Index: d.Uint(), Nodes: d.Uint()}
	}
	if f&2 != 0 {
		m.want.Hash = &merkle.NodeRequest{Index: d.Uint(), Nodes: d.Uint()}
	}
	if f&4 != 0 {
		m.want.Seek = &merkle.SeekRequest{Bytes: d.Uint(), Padding: d.Uint()}
	}
	if f&8 != 0 {
		m.want.Upgrade = &merkle.UpgradeRequest{Start: d.Uint(), Length: d.Uint()}
	}
	if f&32 != 0 {
		m.priority = d.Uint()
	}
	return m, wireError("request", &d)
}

// Reasons of a noData message.
const (
	notAvailable   = 1
	invalidRequest = 2
)

func appendNoData(b []byte, request, reason uint64) []byte {
	b = compact.AppendUint(b, request)
	b = compact.AppendUint(b, flags(reason != 0))
	if reason != 0 {
		b = compact.AppendUint(b, reason)
	}
	return b
}

func readNoData(b []byte) (request, reason uint64, err error) {
	d := compact.NewDecoder(b)
	request = d.Uint()
	if d.Len() > 0 && d.Uint()&1 != 0 {
		reason = d.Uint()
	}
	return request, reason, wireError("noData", &d)
}

func readCancel(b []byte) (request uint64, err error) {
	d := compact.NewDecoder(b)
	request = d.Uint()
	return request, wireError("cancel", &d)
}

// A wantMessage asks to be told which blocks of a range the other side has, and
// gets; with any, of one block in it.
type wantMessage struct {
	start, length uint64
	any           bool
}

func (m *wantMessage) append(b []byte) []byte {
	b = compact.AppendUint(b, m.start)
	b = compact.AppendUint(b, m.length)
	if m.any {
		b = compact.AppendUint(b, 1)
	}
	return b
}

func readWant(b []byte) (m wantMessage, err error) {
	d := compact.NewDecoder(b)
	m.start, m.length = d.Uint(), d.Uint()
	if d.Len() > 0 {
		m.any = d.Uint()&1 != 0
	}
	return m, wireError("want", &d)
}

func appendBitfield(b []byte, start uint64, words []uint32) []byte {
	return compact.AppendUint32Array(compact.AppendUint(b, start), words)
}

func readBitfield(b []byte) (start uint64, words []uint32, err error) {
	d := compact.NewDecoder(b)
	start, words = d.Uint(), d.Uint32Array(maxBitfieldWords)
	if start%32 != 0 {
		d.Fail("bitfield", fmt.Errorf("it starts at %d, which is no multiple of 32", start))
	}
	return start, words, wireError("bitfield", &d)
}

func appendRange(b []byte, drop bool, r runs.Range) []byte {
	b = compact.AppendUint(b, flags(drop, r.Len() == 1))
	b = compact.AppendUint(b, r.Start)
	if r.Len() != 1 {
		b = compact.AppendUint(b, r.Len())
	}
	return b
}

func readRange(b []byte) (drop bool, r runs.Range, err error) {
	d := compact.NewDecoder(b)
	f := d.Uint()
	r.Start = d.Uint()
	n := uint64(1)
	if f&2 == 0 {
		n = d.Uint()
	}
	if r.Start > merkle.MaxSize || n > merkle.MaxSize {
		d.Fail("range", compact.ErrTooLarge)
	}
	r.End = r.Start + n
	return f&1 != 0, r, wireError("range", &d)
}

func appendExtension(b []byte, name string, payload []byte) []byte {
	return append(compact.AppendString(b, name), payload...)
}

func readExtension(b []byte) (name string, payload []byte, err error) {
	d := compact.NewDecoder(b)
	name = d.String(maxExtensionName)
	return name, d.Rest(), wireError("extension", &d)
}
