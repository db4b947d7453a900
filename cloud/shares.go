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
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// shareVersion is that of the rows of shares, in docs/formats/cloud.md.
const shareVersion = 1

// Bounds of what is taken in of shares, of what one device says.
const (
	maxShares   = 1 << 12
	maxStopped  = 1 << 14
	maxShareRow = 16 << 10 // bytes
)

// keepOver is for how long a share is listed that is over.
const keepOver = 30 * 24 * time.Hour

// ErrNoShare: there is no such share, or it was stopped.
var ErrNoShare = errors.New("no such share")

// A Share is a part of a folder that whoever has a link may use. The link itself
// is kept nowhere: it can't be had again.
type Share struct {
	Grant   identity.Grant
	Name    string // for people; may be empty
	File    bool   // it is of one file, and not of a folder
	Created time.Time
}

// ID names the share, to stop it.
func (s Share) ID() identity.CapabilityID { return s.Grant.ID() }

// Rights are what the share is for.
func (s Share) Rights() identity.Rights { return s.Grant[len(s.Grant)-1].Rights() }

// Over tells whether the share's time has passed.
func (s Share) Over(now time.Time) bool {
	until := s.Rights().Until
	return !until.IsZero() && !now.Before(until)
}

// shareRow is a share in the control tree.
type shareRow struct {
	Version int       `json:"version"`
	Grant   []byte    `json:"grant"`
	Name    string    `json:"name,omitempty"`
	File    bool      `json:"file,omitempty"`
	Created time.Time `json:"created"`
}

// readShare reads a share, if a device that keeps to the rules can have said it.
// Who may give what is looked at when it is used.
func readShare(id string, b []byte) (s Share, err error) {
	var r shareRow
	if len(b) > maxShareRow {
		return s, fmt.Errorf("%w: share %.100q has %d bytes", errRecord, id, len(b))
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return s, err
	}
	s = Share{Name: r.Name, File: r.File, Created: r.Created}
	if r.Version != shareVersion {
		return s, fmt.Errorf("%w: share %.100q is of version %d", errRecord, id, r.Version)
	}
	if s.Grant, err = identity.DecodeGrant(r.Grant); err != nil {
		return s, err
	}
	if s.ID().String() != id || s.Name != "" && CheckName(s.Name) != nil || s.File && s.Rights().Prefix == "" {
		return s, fmt.Errorf("%w: share %.100q", errRecord, id)
	}
	return s, nil
}

// readShares reads what each device says about shares: a share that any of them
// has stopped stays stopped, whatever the others say.
func (c *Cloud) readShares(ctx context.Context, st *state) error {
	st.shares, st.stopped = map[noise.Key][]Share{}, map[string]bool{}
	for _, w := range c.control.open() {
		taken := 0
		for e, err := range w.says.RangeAll(ctx, under(shareRows)) {
			if err != nil {
				return fmt.Errorf("read the control log of %s: %w", w.Device, err)
			}
			if e.Value == nil {
				continue
			}
			s, err := readShare(string(e.Key[len(shareRows):]), e.Value)
			if err != nil || taken == maxShares {
				c.log.Debug("left out of the control tree", "key", fmt.Sprintf("%.200q", e.Key), "by", w.Device, "err", err)
				continue
			}
			taken++
			holder := s.Rights().Holder
			all := st.shares[holder]
			switch i := slices.IndexFunc(all, func(o Share) bool { return o.ID() == s.ID() }); {
			case i < 0:
				st.shares[holder] = append(all, s)
			case noise.Key(w.Device) == s.Grant[0].Issuer:
				all[i] = s // whoever said it again, its name is the issuer's to choose
			}
		}
		taken = 0
		for e, err := range w.says.RangeAll(ctx, under(stoppedShareRows)) {
			if err != nil {
				return fmt.Errorf("read the control log of %s: %w", w.Device, err)
			}
			if id := string(e.Key[len(stoppedShareRows):]); goodShareID(id) && taken < maxStopped {
				taken++
				st.stopped[id] = true
			}
		}
	}
	for _, all := range st.shares {
		slices.SortFunc(all, byAge) // the same for each device
	}
	return nil
}

func byAge(a, b Share) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID().String(), b.ID().String()))
}

func goodShareID(id string) bool {
	_, err := noise.ParseKey(id)
	return err == nil
}

// Shares returns the shares that were not stopped, the oldest first, also those
// that are over. Those by devices that are not in any more are left out.
func (c *Cloud) Shares() []Share {
	c.mu.Lock()
	all := slices.Concat(slices.Collect(maps.Values(c.shares))...)
	stopped, roster := c.stopped, c.roster
	c.mu.Unlock()
	all = slices.DeleteFunc(all, func(s Share) bool {
		return stopped[s.ID().String()] || !roster.MayAdmit(s.Grant[0].Issuer)
	})
	slices.SortFunc(all, byAge)
	return all
}

// A NewShare says what to share.
type NewShare struct {
	Space   string // a folder's id
	Prefix  string // the path of a file or folder in it; empty is all of it
	File    bool   // it is that of a file
	Actions identity.Actions
	Until   time.Time // zero is no end
	Name    string
}

// MakeShare shares a part of a folder. Only the link that it returns opens the
// share.
func (c *Cloud) MakeShare(ctx context.Context, n NewShare) (identity.Link, Share, error) {
	fail := func(err error) (identity.Link, Share, error) {
		return identity.Link{}, Share{}, fmt.Errorf("share a part of space %s: %w", n.Space, err)
	}
	if n.Name != "" {
		if err := CheckName(n.Name); err != nil {
			return fail(err)
		}
	}
	c.mu.Lock()
	info, ok := c.infos[n.Space]
	roster := c.roster
	c.mu.Unlock()
	self := c.KeyPair()
	switch {
	case !ok || info.Removed || info.Kind != Folder:
		return fail(ErrNoSpace)
	case !roster.MayAdmit(self.Public):
		return fail(fmt.Errorf("this device may give no rights: %w", identity.ErrDenied))
	}
	link, err := identity.NewLink(c.random)
	if err != nil {
		return fail(err)
	}
	g, err := identity.NewGrant(self, identity.Capability{
		Cloud: c.ID(), Kind: identity.Folder, Resource: n.Space, Prefix: n.Prefix, Actions: n.Actions, Until: n.Until, Holder: link.Keys().Public,
	})
	if err != nil {
		return fail(err)
	}
	s := Share{g, n.Name, n.File, c.clock.Now().UTC()}
	b, err := json.Marshal(shareRow{shareVersion, g.Encode(), n.Name, n.File, s.Created})
	if err != nil {
		return fail(err)
	}
	entries := c.forgetShares(self.Public)
	entries[shareRows+s.ID().String()] = b
	if err := c.putAll(ctx, entries); err != nil {
		return fail(err)
	}
	if err := c.refresh(ctx); err != nil {
		return fail(err)
	}
	return link, s, nil
}

// forgetShares returns what this device has to say to leave room: of its own
// shares those that nobody can use any more.
func (c *Cloud) forgetShares(self noise.Key) map[string][]byte {
	entries := map[string][]byte{}
	past := c.clock.Now().Add(-keepOver)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range slices.Concat(slices.Collect(maps.Values(c.shares))...) {
		if id := s.ID().String(); s.Grant[0].Issuer == self && (c.stopped[id] || s.Over(past)) {
			entries[shareRows+id] = nil
		}
	}
	return entries
}

// rules are what grants of the cloud are held against.
func (c *Cloud) rules() identity.Rules {
	c.mu.Lock()
	defer c.mu.Unlock()
	stopped := c.stopped
	return identity.Rules{Roster: c.roster, Now: c.clock.Now(), Revoked: func(id identity.CapabilityID) bool { return stopped[id.String()] }}
}

// OpenShare returns the share of a link, with its whole grant, and what the link is
// good for now. It fails with ErrNoShare if the cloud knows of none, and else as
// identity.Grant.Verify does.
func (c *Cloud) OpenShare(link identity.Link) (Share, identity.Rights, error) {
	// What is looked for is the public half: how long that takes tells nothing.
	kept := link.Kept()
	c.mu.Lock()
	all := c.shares[kept]
	c.mu.Unlock()
	err := ErrNoShare
	for _, s := range all { // one, unless a device means harm: then the oldest that is good
		var g identity.Grant
		var rights identity.Rights
		if g, rights, err = link.Open(s.Grant, c.rules()); err == nil {
			s.Grant = g
			return s, rights, nil
		}
	}
	return Share{}, identity.Rights{}, fmt.Errorf("open a share: %w", err)
}

// StopShare takes a capability back, for good, with all that was derived from it:
// a share, or what a link of one handed on. It is over on this device when StopShare
// returns, and on others as soon as they hear of it.
func (c *Cloud) StopShare(ctx context.Context, id identity.CapabilityID) error {
	c.mu.Lock()
	stopped := c.stopped[id.String()]
	c.mu.Unlock()
	if stopped {
		return fmt.Errorf("stop share %s: %w", id, ErrNoShare)
	}
	err := c.put(ctx, stoppedShareRows+id.String(), fmt.Appendf(nil, `{"version":%d,"time":%q}`, shareVersion, c.clock.Now().UTC().Format(time.RFC3339)))
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fmt.Errorf("stop share %s: %w", id, err)
	}
	return nil
}
