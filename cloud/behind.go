package cloud

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
)

// A device whose disk was put back to an earlier state knows nothing of what it
// wrote since, and would write it differently: its logs would fork. Its peers know.
// So two devices compare the logs that either of them writes before they carry
// them: each says how long its own are, and the other one answers with what it has
// of them, signed by the logs' own key. If that is more, or something else, the
// device is behind. It carries its old logs no further, and begins anew as another
// device, to which they are another's: so what it lost comes back.

// A Former is a device that this one was before it found that it was a copy, or
// behind.
type Former struct {
	Device hypercore.Key `json:"device"`
	// Behind says that others had more of its logs; otherwise its store was a copy.
	Behind bool      `json:"behind,omitempty"`
	Time   time.Time `json:"time"`
}

// maxFormer is how many are remembered.
const maxFormer = 16

// Former returns the devices that this one was before, the last one last.
func (c *Cloud) Former() []Former {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Former(nil), c.secrets.Former...)
}

// Mended returns how often logs have become what others have of them. What is
// remembered elsewhere by their blocks is wrong when that is another number.
func (c *Cloud) Mended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets.Mended
}

// A signedHead is what a device has of a log: its length, and the tree's roots with
// the signature of who writes it.
type signedHead struct {
	Log       hypercore.Key `json:"log"`
	Fork      uint64        `json:"fork,omitempty"`
	Length    uint64        `json:"length"`
	Roots     []byte        `json:"roots"`
	Signature []byte        `json:"signature"`
	Marks     []mark        `json:"marks,omitempty"`
}

// A mark is the hash of the first blocks of a log.
type mark struct {
	Length uint64 `json:"length"`
	Hash   []byte `json:"hash"`
}

// maxRoots is more than a tree has.
const maxRoots = 64

// ownLogs are the logs that this device writes.
func (c *Cloud) ownLogs() map[hypercore.Key]*hypercore.Log {
	return c.logsOf(func(w *writer) bool { return w.Own })
}

func (c *Cloud) logsOf(is func(*writer) bool) map[hypercore.Key]*hypercore.Log {
	logs := map[hypercore.Key]*hypercore.Log{}
	for _, s := range c.all() {
		for _, w := range s.open() {
			if !is(w) {
				continue
			}
			for _, l := range []*hypercore.Log{w.Tree, w.Content} {
				if l != nil {
					logs[l.Key()] = l
				}
			}
		}
	}
	return logs
}

// checkedLocked tells whether a device that is connected has nothing of this
// device's logs that is not here. c.mu is held.
func (c *Cloud) checkedLocked(device noise.Key) bool {
	if c.secrets.Behind {
		return false
	}
	for p := range c.peers {
		if p.checked && noise.Key(p.key) == device {
			return true
		}
	}
	return false
}

// sendMine says how long the logs are that this device writes.
func (p *Peer) sendMine(ch *protomux.Channel) {
	if !p.member {
		return
	}
	lengths := map[hypercore.Key]uint64{}
	for key, l := range p.cloud.ownLogs() {
		lengths[key] = l.Length()
	}
	if b, err := json.Marshal(lengths); err == nil {
		_ = ch.Send(messageMine, b) // the end of the channel says it, too
	}
}

// onMine answers what is here of the logs that the other device writes.
func (p *Peer) onMine(ch *protomux.Channel, b []byte) error {
	if !p.member {
		return nil
	}
	if len(b) > maxHoldings {
		return fmt.Errorf("lengths of logs, %d bytes", len(b))
	}
	var lengths map[hypercore.Key]uint64
	if err := json.Unmarshal(b, &lengths); err != nil {
		return fmt.Errorf("read lengths of logs: %w", err)
	}
	p.cloud.do(func() { // the connection must not wait for the disk
		heads := []signedHead{}
		theirs := p.cloud.logsOf(func(w *writer) bool { return w.Device == p.key })
		for key, length := range lengths {
			if l := theirs[key]; l != nil && l.Length() > 0 {
				heads = append(heads, headOf(l, length))
			}
		}
		b, err := json.Marshal(heads)
		for err == nil && len(b) > maxHoldings {
			heads = heads[:len(heads)/2] // what it does not hear of is taken for the same
			b, err = json.Marshal(heads)
		}
		if err == nil {
			_ = ch.Send(messageHeads, b) // the end of the channel says it, too
		}
	})
	return nil
}

// headOf returns what is here of a log that somebody else writes, who says that it
// has a length.
func headOf(l *hypercore.Log, length uint64) signedHead {
	h := l.Head()
	out := signedHead{Log: l.Key(), Fork: h.Fork, Length: h.Length, Roots: hypercore.AppendNodes(nil, h.Roots), Signature: h.Signature}
	// Some lengths to find by where two histories part: ever fewer of them the
	// further back it is.
	end := min(length, h.Length)
	for back := uint64(0); back <= end; back = max(1, 2*back) {
		if hash, err := l.TreeHash(end - back); err == nil {
			out.Marks = append(out.Marks, mark{end - back, hash[:]})
		}
	}
	return out
}

// onHeads hears what the other device has of the logs that this one writes.
func (p *Peer) onHeads(ch *protomux.Channel, b []byte) error {
	if !p.member || p.compared {
		return nil
	}
	p.compared = true
	if len(b) > maxHoldings {
		return fmt.Errorf("heads of logs of %d bytes", len(b))
	}
	var heads []signedHead
	if err := json.Unmarshal(b, &heads); err != nil {
		return fmt.Errorf("read heads of logs: %w", err)
	}
	c := p.cloud
	c.do(func() {
		behind, err := c.compare(heads)
		if err != nil {
			c.log.Warn("a device says what can't be of this one's logs", "device", p.key, "err", err)
			p.mux.Close()
			return
		}
		if len(behind) > 0 {
			if err := c.fallBehind(behind); err != nil {
				c.log.Error("this device is behind what others have of it, and can't begin anew", "err", err)
			}
			return
		}
		c.mu.Lock()
		p.checked = true
		c.mu.Unlock()
		c.store.Offer(noise.Key(p.key))
		_ = ch.Send(messageOffered, nil) // the end of the channel says it, too
	})
	return nil
}

// onOffered hears that the other device's logs can be had.
func (p *Peer) onOffered(*protomux.Channel, []byte) error {
	if !p.member {
		return nil
	}
	c := p.cloud
	c.mu.Lock()
	p.offered = true
	c.mu.Unlock()
	for _, s := range c.all() {
		s.connected()
	}
	c.tell()
	return nil
}

// do does something that takes a while, unless the cloud is closed.
func (c *Cloud) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Go(f)
	}
}

// compare returns those of the heads that can't be had of this device's logs as
// they are here. An error means that who sent them lies.
func (c *Cloud) compare(heads []signedHead) (behind []signedHead, err error) {
	own := c.ownLogs()
	for _, h := range heads {
		l := own[h.Log]
		if l == nil {
			continue
		}
		differs, err := h.differs(l)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", h.Log, err)
		}
		if differs {
			behind = append(behind, h)
		}
	}
	return behind, nil
}

// tree is the tree of the log as it is there.
func (h *signedHead) tree() (merkle.Tree, error) {
	d := compact.NewDecoder(h.Roots)
	return merkle.Tree{Fork: h.Fork, Length: h.Length, Roots: hypercore.ReadNodes(&d, maxRoots)}, d.Err()
}

// common returns how many first blocks a log has in common with what it is there,
// or fewer.
func (h *signedHead) common(l *hypercore.Log) (n uint64) {
	for _, m := range h.Marks {
		if hash, err := l.TreeHash(m.Length); err == nil && m.Length > n && m.Length <= h.Length && bytes.Equal(hash[:], m.Hash) {
			n = m.Length
		}
	}
	return n
}

// differs tells whether a log has become something else than it is here.
func (h *signedHead) differs(l *hypercore.Log) (bool, error) {
	tree, err := h.tree()
	if err != nil {
		return false, err
	}
	if h.Length <= l.Length() {
		hash, err := l.TreeHash(h.Length)
		if err != nil || h.Fork == l.Fork() && hash == tree.Hash() {
			return false, err
		}
	}
	// Nobody but who has the log's key can say so.
	return true, l.Verifier().Verify(&merkle.Batch{Tree: tree}, h.Signature)
}

// fallBehind has this device begin anew, as others have more of its logs, or
// something else. Nobody gets the old ones from it any more.
func (c *Cloud) fallBehind(heads []signedHead) error {
	own := c.ownLogs()
	var lost []lostLog
	for _, h := range heads {
		l := lostLog{h, h.common(own[h.Log])}
		l.Head.Marks = nil
		lost = append(lost, l)
		c.log.Warn("others have more of a log of this device", "log", h.Log, "length", own[h.Log].Length(), "theirs", h.Length, "common", l.From)
	}
	c.mu.Lock()
	if c.secrets.Behind || c.closed {
		c.mu.Unlock()
		return nil
	}
	c.secrets.Behind, c.secrets.Lost = true, append(c.secrets.Lost, lost...)
	err := c.save()
	peers := slices.Collect(maps.Keys(c.peers))
	c.mu.Unlock()
	for _, p := range peers {
		p.mux.Close()
	}
	c.again.Do(func() { close(c.stale) })
	return err
}
