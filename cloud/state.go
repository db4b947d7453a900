package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A state is what the control tree says.
type state struct {
	roster  *identity.Roster
	infos   map[string]SpaceInfo
	records map[string][]writerRecord // by space
	keeps   map[hypercore.Key]map[string]Keep
	apps    map[string]App
	appKeys map[string]AppKey
	shares  map[noise.Key][]Share // by the key that their links are of
	stopped map[string]bool       // capabilities that were taken back, by their ids
	// newest is the epoch of the newest key that this device has of those that were
	// given out; empty while there was none but the first. leaked says that somebody
	// has it who is not in any more, without who is in and has not got which of them.
	newest  string
	leaked  bool
	without map[string][]hypercore.Key
}

// A Keep is what a device does with a space.
type Keep struct {
	// Path is the folder on the device's disk that is kept the same as the space,
	// if there is one.
	Path string `json:"path,omitempty"`
	// Sparse says that contents come when they are read.
	Sparse bool `json:"sparse,omitempty"`
	// Published names the drive that everybody may read the space as, if there is
	// one: the device's own, and at random.
	Published string `json:"published,omitempty"`
}

// Bounds of what is taken in, so that no device fills another one's memory.
const (
	maxSpaces  = 1 << 16
	maxLogs    = 512              // of one device in one space
	maxRecords = identity.MaxLogs // of one device: all that a revocation can name
	maxKept    = 1 << 16          // spaces that one device keeps
)

// read reads the whole control tree. What makes no sense is left out: it can't
// be of a device that keeps to the rules.
//
// What is signed, or said by a device about itself, is read from what each
// device has said, so that no other one can take it back. The rest is what they
// say together.
func (c *Cloud) read(ctx context.Context) (*state, error) {
	st := &state{infos: map[string]SpaceInfo{}, records: map[string][]writerRecord{}, keeps: map[hypercore.Key]map[string]Keep{}}
	said := said{seen: map[string]bool{}, kept: map[[2]string]time.Time{}, checked: c.checked}
	for _, w := range c.control.open() {
		for _, prefix := range []string{certKeys, revocationKeys, sealedKeys, writerKeys, keepKeys} {
			for e, err := range w.says.RangeAll(ctx, under(prefix)) {
				if err != nil {
					return nil, fmt.Errorf("read the control log of %s: %w", w.Device, err)
				}
				if err := said.take(st, w.Device, e); err != nil {
					c.log.Debug("left out of the control tree", "key", fmt.Sprintf("%.200q", e.Key), "by", w.Device, "err", err)
				}
			}
		}
	}
	for e, err := range c.control.tree.Range(ctx, under(spaceKeys)) {
		if err != nil {
			return nil, fmt.Errorf("read the control tree: %w", err)
		}
		id := string(e.Key[len(spaceKeys):])
		var info SpaceInfo
		err := json.Unmarshal(e.Value, &info)
		if err == nil {
			err = info.check(id)
		}
		if err != nil || len(st.infos) == maxSpaces {
			c.log.Debug("left out of the control tree", "key", fmt.Sprintf("%.200q", e.Key), "err", err)
			continue
		}
		st.infos[id] = info
	}
	if err := c.readApps(ctx, st); err != nil {
		return nil, err
	}
	if err := c.readShares(ctx, st); err != nil {
		return nil, err
	}
	st.roster = c.newRoster(said.certs, said.revocations)
	st.takeRecords(said.records)
	c.checked = said.seen
	return st, c.takeKeys(st, said.sealed)
}

// under returns the range of the keys that begin with a prefix.
func under(prefix string) hyperbee.RangeOptions {
	end := []byte(prefix)
	end[len(end)-1]++
	return hyperbee.RangeOptions{Gte: []byte(prefix), Lt: end}
}

// said is what devices have said, each for itself.
type said struct {
	seen        map[string]bool // what was taken, as devices repeat one another
	checked     map[string]bool // what was taken the last time
	certs       []identity.Certificate
	revocations []identity.Revocation
	records     []writerRecord
	sealed      []sealedKey
	kept        map[[2]string]time.Time // when a device last said what it does with a space
}

// take takes what a device has said about a key. A value of nil takes back.
func (s *said) take(st *state, by hypercore.Key, e tree.Entry) error {
	kind, name, _ := strings.Cut(string(e.Key), "/")
	kind += "/"
	if kind == keepKeys {
		return s.takeKeep(st, by, name, e)
	}
	if e.Value == nil {
		return nil // the word stands
	}
	if kind == sealedKeys {
		k, err := readSealed(name, e.Value)
		if err != nil {
			return err
		}
		k.time, k.by = e.Time, by
		s.sealed = append(s.sealed, k)
		return nil
	}
	h := sha256.Sum256(e.Value)
	same := string(e.Key) + "\x00" + string(h[:])
	if s.seen[same] {
		return nil
	}
	switch kind {
	case certKeys:
		cert, err := identity.DecodeCertificate(e.Value)
		if err != nil {
			return err
		}
		s.certs = append(s.certs, cert)
	case revocationKeys:
		v, err := identity.DecodeRevocation(e.Value)
		if err != nil {
			return err
		}
		s.revocations = append(s.revocations, v)
	case writerKeys:
		space, log, _ := strings.Cut(name, "/")
		key, err := hypercore.ParseKey(log)
		if err != nil {
			return err
		}
		var r writerRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return err
		}
		if !s.checked[same] { // signatures take their time
			if err := r.check(space, key); err != nil {
				return err
			}
		}
		s.records = append(s.records, r)
	}
	s.seen[same] = true
	return nil
}

// takeKeep takes what a device says it does with a space. What others say of it
// does not count: a path is read from its disk.
func (s *said) takeKeep(st *state, by hypercore.Key, name string, e tree.Entry) error {
	device, space, _ := strings.Cut(name, "/")
	if device != by.String() || !goodID(space) {
		return fmt.Errorf("%w: keep %.100q", errRecord, name)
	}
	key := [2]string{device, space}
	if e.Time.Before(s.kept[key]) {
		return nil // another of its logs is newer
	}
	var k Keep
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &k); err != nil {
			return err
		}
	}
	if st.keeps[by] == nil {
		st.keeps[by] = map[string]Keep{}
	}
	if _, ok := st.keeps[by][space]; !ok && len(st.keeps[by]) == maxKept {
		return fmt.Errorf("%w: too many", errRecord)
	}
	s.kept[key] = e.Time
	st.keeps[by][space] = k
	return nil
}

// takeRecords takes the records of devices that are or were in: so many of each,
// the same on all devices.
func (st *state) takeRecords(records []writerRecord) {
	slices.SortFunc(records, func(a, b writerRecord) int { return bytes.Compare(a.Tree[:], b.Tree[:]) })
	records = slices.CompactFunc(records, func(a, b writerRecord) bool { return a.Tree == b.Tree })
	type place struct {
		device hypercore.Key
		space  string
	}
	logs := map[place]int{}
	for _, control := range []bool{true, false} {
		for _, r := range records {
			all, here := place{device: r.Device}, place{r.Device, r.Space}
			if (r.Space == controlSpace) != control || !known(st.roster, r.Device) || logs[here] == maxLogs || logs[all] == maxRecords {
				continue
			}
			logs[all]++
			logs[here]++
			st.records[r.Space] = append(st.records[r.Space], r)
		}
	}
}

// refresh takes in what the control tree says now.
func (c *Cloud) refresh(ctx context.Context) error {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	var st *state
	for more := true; more; { // what a new writer says may name another one
		var err error
		if st, err = c.read(ctx); err != nil {
			return err
		}
		more = false
		for _, r := range st.records[controlSpace] {
			if c.control.has(r.Tree) {
				continue
			}
			if c.try(c.control, r); ctx.Err() != nil {
				return context.Cause(ctx)
			}
			more = more || c.control.has(r.Tree)
		}
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return tree.ErrClosed
	}
	c.state = *st
	for _, records := range st.records { // also of spaces that are not opened
		for _, r := range records {
			c.private[r.Tree] = true
			if r.Content != (hypercore.Key{}) {
				c.private[r.Content] = true
			}
		}
	}
	self := c.secrets.pair().Public
	var opened []*Space
	for id, info := range st.infos {
		s := c.spaces[id]
		switch {
		case s == nil && info.Removed:
			continue
		case s == nil:
			s = c.newSpace(info)
			c.spaces[id] = s
		}
		opened = append(opened, s)
	}
	c.mu.Unlock()
	var errs []error
	for _, s := range opened {
		id := s.Info().ID
		s.mu.Lock()
		s.info = st.infos[id]
		s.mu.Unlock()
		for _, r := range st.records[id] {
			if s.has(r.Tree) {
				continue
			}
			own := r.Device == self && r.Tree == c.newRecord(s.Info()).Tree
			if err := s.add(r, own); err != nil {
				errs = append(errs, fmt.Errorf("open space %s: %w", s.Info().Name, err))
			}
		}
	}
	errs = append(errs, c.setLimits(append(opened, c.control), st.roster), c.roll(ctx, st))
	c.regard()
	c.tell()
	return errors.Join(errs...)
}

// roll goes on with the newest key of the cloud, if this device does not use it
// yet: with new logs, once the cloud was opened again.
func (c *Cloud) roll(ctx context.Context, st *state) error {
	self := c.Self()
	if !st.roster.Has(self) {
		return nil
	}
	select {
	case <-c.stale:
		return nil // the new logs are chosen
	default:
	}
	if st.leaked && st.roster.MayAdmit(self) {
		// Two devices were revoked at the same time, by two others who gave each
		// the key to the one the other had revoked; or who gave out the last one, or
		// has left, is not in any more.
		entries := map[string][]byte{}
		if err := c.newEpoch(entries, func(noise.Key) bool { return true }); err != nil {
			return err
		}
		return c.putAll(ctx, entries) // which leads to the next look
	}
	if len(st.without) > 0 {
		// They were let in while others, who did not know of them, changed the key.
		entries := map[string][]byte{}
		c.mu.Lock()
		var err error
		for epoch, devices := range st.without {
			if err == nil {
				err = c.hand(entries, epoch, c.secrets.Keys[epoch], devices...)
			}
		}
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if err := c.putAll(ctx, entries); err != nil {
			return fmt.Errorf("hand out the key of the cloud: %w", err)
		}
	}
	c.mu.Lock()
	same := st.newest == c.secrets.Epoch
	c.mu.Unlock()
	if same || st.newest == "" { // there was none but the first
		return nil
	}
	writer, err := newID(c.random)
	if err != nil {
		return err
	}
	c.writing.Lock() // nobody begins logs meanwhile
	defer c.writing.Unlock()
	c.mu.Lock()
	next := *c.secrets
	next.Writer, next.Epoch, next.Before = writer, st.newest, c.someControl()
	c.mu.Unlock()
	// The old log tells of the new one, for devices that are not here now.
	r := (&Cloud{store: c.store, secrets: &next}).newRecord(c.control.info)
	if err := c.putRecord(ctx, r); err != nil {
		return fmt.Errorf("go on with the new key: %w", err)
	}
	// And it has the new key for those who can read this log alone: others may
	// have handed it out in logs that are encrypted with it.
	entries := map[string][]byte{}
	c.mu.Lock()
	for _, d := range st.roster.Devices() {
		if d.Status == identity.In && d.Key != self && err == nil {
			err = c.hand(entries, st.newest, c.secrets.Keys[st.newest], hypercore.Key(d.Key))
		}
	}
	c.mu.Unlock()
	if err == nil {
		err = c.putAll(ctx, entries)
	}
	if err != nil {
		return fmt.Errorf("go on with the new key: %w", err)
	}
	c.mu.Lock()
	c.next = &next
	if err = c.save(); err != nil {
		c.next = nil
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("go on with the new key: %w", err)
	}
	c.again.Do(func() { close(c.stale) })
	return nil
}

// Stale is closed when the cloud must be closed and opened again, because this
// device begins new logs. Until then what is written goes to the old ones.
func (c *Cloud) Stale() <-chan struct{} { return c.stale }
