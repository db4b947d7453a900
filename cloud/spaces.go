package cloud

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNoSpace: there is no such space.
	ErrNoSpace = errors.New("no such space")
	// ErrExists: there is a space of that kind and name in the app already.
	ErrExists = errors.New("there is one of that name already")
	// ErrName: the name can't be used.
	ErrName = errors.New("invalid name")
)

// maxName is the most bytes of a space's name.
const maxName = 255

// CheckName tells whether a space can have a name: 1 to 255 bytes of UTF-8 that
// can be printed, without a slash.
func CheckName(name string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unprintable) {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

// Make makes a space. Its ID is chosen here.
func (c *Cloud) Make(ctx context.Context, info SpaceInfo) (*Space, error) {
	id, err := newID(c.random)
	if err != nil {
		return nil, err
	}
	info.ID = id
	return c.makeSpace(ctx, info)
}

// makeSpace makes a space that has its ID.
func (c *Cloud) makeSpace(ctx context.Context, info SpaceInfo) (*Space, error) {
	if err := CheckName(info.Name); err != nil {
		return nil, fmt.Errorf("make a %s: %w", info.Kind, err)
	}
	if info.Kind != Folder && info.Kind != Table {
		return nil, fmt.Errorf("make a %s: there is no such kind", info.Kind)
	}
	info.Removed = false
	c.naming.Lock()
	defer c.naming.Unlock()
	if _, err := c.Find(info.Kind, info.App, info.Name); err == nil {
		return nil, fmt.Errorf("make the %s %q: %w", info.Kind, info.Name, ErrExists)
	}
	if err := c.putInfo(ctx, info); err != nil {
		return nil, fmt.Errorf("make the %s %q: %w", info.Kind, info.Name, err)
	}
	s, err := c.Space(info.ID)
	if err != nil {
		return nil, err
	}
	return s, s.Write(ctx)
}

// putInfo says what a space is, and has this device know it.
func (c *Cloud) putInfo(ctx context.Context, info SpaceInfo) error {
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := c.put(ctx, spaceKeys+info.ID, b); err != nil {
		return err
	}
	return c.refresh(ctx)
}

// Update changes what the cloud knows about a space: its name, its options, and
// whether it was removed. What was removed can be taken back as long as it is
// kept.
func (c *Cloud) Update(ctx context.Context, id string, change func(*SpaceInfo)) error {
	c.naming.Lock()
	defer c.naming.Unlock()
	c.mu.Lock()
	info, ok := c.infos[id]
	c.mu.Unlock()
	if !ok {
		return fmt.Errorf("change space %s: %w", id, ErrNoSpace)
	}
	before := info
	change(&info)
	info.ID, info.Kind = before.ID, before.Kind
	if err := CheckName(info.Name); err != nil {
		return fmt.Errorf("change the %s %q: %w", info.Kind, before.Name, err)
	}
	if other, err := c.Find(info.Kind, info.App, info.Name); err == nil && other.ID != id && !info.Removed {
		return fmt.Errorf("change the %s %q: %w", info.Kind, info.Name, ErrExists)
	}
	if err := c.putInfo(ctx, info); err != nil {
		return fmt.Errorf("change the %s %q: %w", info.Kind, before.Name, err)
	}
	return nil
}

// Find finds a space by its name, or by its id. Of several that got one name on
// several devices at once the one with the lowest id has it; the others are
// found by id.
func (c *Cloud) Find(kind Kind, app, name string) (SpaceInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *SpaceInfo
	for id, info := range c.infos {
		if info.Kind == kind && info.App == app && !info.Removed && (info.Name == name || id == name) && (found == nil || id < found.ID) {
			found = &info
		}
	}
	if found == nil {
		return SpaceInfo{}, fmt.Errorf("find the %s %q: %w", kind, name, ErrNoSpace)
	}
	return *found, nil
}

// Spaces returns the spaces of a kind, in all apps, by app and name, without
// those that were removed.
func (c *Cloud) Spaces(kind Kind) (list []SpaceInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, info := range c.infos {
		if info.Kind == kind && !info.Removed {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b SpaceInfo) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// SpaceInfo returns what a space is, also of one that was removed, by its id.
func (c *Cloud) SpaceInfo(id string) (SpaceInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, ok := c.infos[id]
	return info, ok
}

// Space returns a space by its id. It is open as long as the cloud is.
func (c *Cloud) Space(id string) (*Space, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.spaces[id]
	if s == nil {
		return nil, fmt.Errorf("open space %s: %w", id, ErrNoSpace)
	}
	return s, nil
}

// Keep returns what a device does with a space.
func (c *Cloud) Keep(device noise.Key, space string) Keep {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keeps[hypercore.Key(device)][space]
}

// Kept is Keep, and tells whether the device has said anything about the space.
func (c *Cloud) Kept(device noise.Key, space string) (Keep, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keeps[hypercore.Key(device)][space]
	return k, ok
}

// SetKeep says what this device does with a space.
func (c *Cloud) SetKeep(ctx context.Context, space string, k Keep) error {
	key := keepKeys + c.secrets.pair().Public.String() + "/" + space
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := c.put(ctx, key, b); err != nil {
		return err
	}
	return c.refresh(ctx)
}

// Setting returns a setting that belongs to the cloud, and whether there is one.
func (c *Cloud) Setting(ctx context.Context, name string, into any) (bool, error) {
	e, err := c.control.tree.Get(ctx, []byte(settingKeys+name))
	if errors.Is(err, tree.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, into)
	}
	if err != nil {
		return false, fmt.Errorf("read setting %s: %w", name, err)
	}
	return true, nil
}

// SetSetting sets it; nil takes it away.
func (c *Cloud) SetSetting(ctx context.Context, name string, value any) error {
	var b []byte
	if value != nil {
		var err error
		if b, err = json.Marshal(value); err != nil {
			return err
		}
	}
	if err := c.put(ctx, settingKeys+name, b); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// all returns the spaces that are open, with that of the control tree.
func (c *Cloud) all() []*Space {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(slices.Collect(maps.Values(c.spaces)), c.control)
}

// Holdings returns what this device has, by space.
func (c *Cloud) Holdings() map[string]Holding {
	all := map[string]Holding{}
	for _, s := range c.all() {
		all[s.Info().ID] = s.Holding()
	}
	return all
}

// Holding returns what this device has of the space.
func (s *Space) Holding() Holding {
	sparse := s.cloud.Keep(s.cloud.Self(), s.Info().ID).Sparse
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Holding{Trees: map[hypercore.Key]uint64{}, Sparse: sparse}
	for key, w := range s.writers {
		h.Trees[key] = w.Tree.Contiguous()
	}
	if s.missing != nil {
		h.Missing = s.missing()
	}
	return h
}

// SetMissing sets what counts the bytes of contents that are not here.
func (s *Space) SetMissing(f func() int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing = f
}

// Told sends what this device has to the devices that are connected. It is to be
// called when that has changed, and not more than about once in a second.
func (c *Cloud) Told() {
	for _, p := range c.Peers() {
		p.sendHoldings(p.channel)
	}
}

// Covers reports whether who has this holding has all that another one has.
func (h Holding) Covers(other Holding) bool {
	for key, n := range other.Trees {
		if h.Trees[key] < n {
			return false
		}
	}
	return h.Missing == 0 && !h.Sparse
}

// DeviceName returns what people call a device.
func (c *Cloud) DeviceName(device noise.Key) string {
	c.mu.Lock()
	r := c.roster
	c.mu.Unlock()
	if d, ok := r.Device(device); ok {
		return d.Name
	}
	return hypercore.Key(device).String()[:8]
}

// Device finds a device that is in, by its name or the beginning of its key.
func (c *Cloud) Device(word string) (identity.Device, error) {
	var found []identity.Device
	for _, d := range c.Devices() {
		key := hypercore.Key(d.Key).String()
		if d.Status == identity.In && (d.Name == word || len(word) >= 6 && strings.HasPrefix(key, word)) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return identity.Device{}, fmt.Errorf("find device %q: %w", word, ErrNoDevice)
	case 1:
		return found[0], nil
	}
	return identity.Device{}, fmt.Errorf("find device %q: %d of them: %w", word, len(found), ErrManyDevices)
}
