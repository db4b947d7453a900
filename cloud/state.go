package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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
	// newest is the epoch of the newest key that this device has of those that were
	// given out; empty while there was none but the first. leaked says that somebody
	// has it who is not in any more.
	newest string
	leaked bool
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

// read reads the whole control tree. What makes no sense is left out: it can't
// be of a device that keeps to the rules.
func (c *Cloud) read(ctx context.Context) (*state, error) {
	st := &state{infos: map[string]SpaceInfo{}, records: map[string][]writerRecord{}, keeps: map[hypercore.Key]map[string]Keep{}}
	certs, revocations := [][]byte{}, [][]byte{}
	var sealed []sealedKey
	for e, err := range c.control.tree.Range(ctx, hyperbee.RangeOptions{}) {
		if err != nil {
			return nil, fmt.Errorf("read the control tree: %w", err)
		}
		if err := st.take(e, &certs, &revocations, &sealed); err != nil {
			c.log.Debug("left out of the control tree", "key", string(e.Key), "err", err)
		}
	}
	return st, c.finish(st, certs, revocations, sealed)
}

// take takes one entry of the control tree.
func (st *state) take(e tree.Entry, certs, revocations *[][]byte, sealed *[]sealedKey) error {
	kind, name, _ := strings.Cut(string(e.Key), "/")
	switch kind + "/" {
	case certKeys:
		*certs = append(*certs, e.Value)
		for _, o := range e.Others {
			*certs = append(*certs, o.Value)
		}
	case revocationKeys:
		*revocations = append(*revocations, e.Value)
		for _, o := range e.Others {
			*revocations = append(*revocations, o.Value)
		}
	case sealedKeys:
		k, err := readSealed(name, e.Value)
		if err != nil {
			return err
		}
		k.time = e.Time
		*sealed = append(*sealed, k)
	case spaceKeys:
		var info SpaceInfo
		if err := json.Unmarshal(e.Value, &info); err != nil {
			return err
		}
		if info.ID != name || name == "" || name == controlSpace {
			return fmt.Errorf("%w: space %s", errRecord, name)
		}
		st.infos[name] = info
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
		if err := r.check(space, key); err != nil {
			return err
		}
		st.records[space] = append(st.records[space], r)
	case keepKeys:
		device, space, _ := strings.Cut(name, "/")
		key, err := hypercore.ParseKey(device)
		if err != nil {
			return err
		}
		var k Keep
		if err := json.Unmarshal(e.Value, &k); err != nil {
			return err
		}
		if st.keeps[key] == nil {
			st.keeps[key] = map[string]Keep{}
		}
		st.keeps[key][space] = k
	}
	return nil
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
			if c.control.has(r.Tree) || !known(st.roster, r.Device) {
				continue
			}
			if err := c.control.add(r, false); err != nil {
				return err
			}
			more = more || c.control.has(r.Tree)
		}
	}
	c.mu.Lock()
	if c.spaces == nil {
		c.mu.Unlock()
		return errors.New("the cloud is closed")
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
			if s.has(r.Tree) || !known(st.roster, r.Device) {
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
	if st.newest == "" || !st.roster.Has(self) {
		return nil
	}
	select {
	case <-c.stale:
		return nil // the new logs are chosen
	default:
	}
	if st.leaked && st.roster.MayAdmit(self) {
		// Two devices were revoked at the same time, by two others who gave each
		// the key to the one the other had revoked.
		entries := map[string][]byte{}
		if err := c.newEpoch(entries, func(noise.Key) bool { return true }); err != nil {
			return err
		}
		return c.putAll(ctx, entries) // which leads to the next look
	}
	c.mu.Lock()
	same := st.newest == c.secrets.Epoch
	c.mu.Unlock()
	if same {
		return nil
	}
	writer, err := newID(c.random)
	if err != nil {
		return err
	}
	c.writing.Lock() // nobody begins logs meanwhile
	defer c.writing.Unlock()
	next := *c.secrets
	next.Writer, next.Epoch, next.Before = writer, st.newest, st.records[controlSpace]
	// The old log tells of the new one, for devices that are not here now.
	r := (&Cloud{store: c.store, secrets: &next}).newRecord(c.control.info)
	if err := c.putRecord(ctx, r); err != nil {
		return fmt.Errorf("go on with the new key: %w", err)
	}
	if err := next.save(c.vault); err != nil {
		return fmt.Errorf("go on with the new key: %w", err)
	}
	close(c.stale)
	return nil
}

// Stale is closed when the cloud must be closed and opened again, because this
// device begins new logs. Until then what is written goes to the old ones.
func (c *Cloud) Stale() <-chan struct{} { return c.stale }
