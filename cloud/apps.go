package cloud

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// appVersion is that of the rows of apps and their keys, in docs/formats/cloud.md.
const appVersion = 1

// Bounds of what is taken in of apps.
const (
	maxApps      = 1 << 12
	maxAppKeys   = 1 << 14
	maxAppRow    = 16 << 10 // bytes
	maxRights    = 64       // of one key
	maxNote      = 255      // bytes
	maxPattern   = 255      // bytes
	appKeyBytes  = 11       // random ones of a key's name
	appKeyLetter = 18       // letters that are kept of them
)

// Errors about apps, which come wrapped.
var (
	// ErrNoApp: there is no such app.
	ErrNoApp = errors.New("no such app")
	// ErrNoAppKey: there is no such key, or it is over: revoked, or past its time.
	ErrNoAppKey = errors.New("no such access key")
)

// An App is who data belong to, beside the owner: each has spaces and access
// keys of its own. The owner's own has no name, and is always there.
type App struct {
	Name    string
	Created time.Time
}

// An AppSecret is the secret part of an access key, and does not print.
type AppSecret string

func (AppSecret) String() string   { return "[redacted]" }
func (AppSecret) GoString() string { return "[redacted]" }

// An AppKey lets programs that speak another service's protocol in at the doors
// of a node.
type AppKey struct {
	ID     string
	App    string
	Secret AppSecret
	// Rights are what it may do; who has none may do nothing.
	Rights []AppRight
	// Until is when it ends; zero is never.
	Until   time.Time
	Note    string
	Created time.Time
	Revoked bool
}

// An AppRight lets a key do something.
type AppRight struct {
	// Service is "s3" or "dynamodb"; empty is all of them.
	Service string `json:"service,omitempty"`
	// Name says which buckets or tables, with * for any letters.
	Name string `json:"name"`
	// Write lets it change what it may read, too.
	Write bool `json:"write,omitempty"`
}

// AllRights are those of who may do everything in an app.
func AllRights() []AppRight { return []AppRight{{Name: "*", Write: true}} }

// May tells whether the key may read, or also write, what has a name in a
// service. The name "*" asks for all of them.
func (k *AppKey) May(service, name string, write bool) bool {
	return slices.ContainsFunc(k.Rights, func(r AppRight) bool {
		return (r.Service == "" || r.Service == service) && (r.Write || !write) && matches(r.Name, name)
	})
}

// matches tells whether a pattern with * for any letters has a name.
func matches(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	name, ok := strings.CutPrefix(name, head)
	if !star || !ok {
		return ok && name == ""
	}
	parts := strings.Split(rest, "*")
	last := len(parts) - 1
	for _, part := range parts[:last] {
		if _, name, ok = strings.Cut(name, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(name, parts[last])
}

// appRow is an app in the control tree.
type appRow struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
}

// appKeyRow is an access key in the control tree.
type appKeyRow struct {
	Version int        `json:"version"`
	App     string     `json:"app,omitempty"`
	Secret  string     `json:"secret"`
	Rights  []AppRight `json:"rights"`
	Until   time.Time  `json:"until,omitzero"`
	Note    string     `json:"note,omitempty"`
	Created time.Time  `json:"created"`
}

// key returns the key of a row, if a device that keeps to the rules can have
// said it.
func (r *appKeyRow) key(id string) (AppKey, error) {
	k := AppKey{ID: id, App: r.App, Secret: AppSecret(r.Secret), Rights: r.Rights, Until: r.Until, Note: r.Note, Created: r.Created}
	switch err := checkAppKey(&k); {
	case r.Version != appVersion:
		return k, fmt.Errorf("%w: access key %.100q is of version %d", errRecord, id, r.Version)
	case err != nil:
		return k, fmt.Errorf("%w: access key %.100q: %w", errRecord, id, err)
	case !goodKeyID(id) || !goodSecret(r.Secret):
		return k, fmt.Errorf("%w: access key %.100q", errRecord, id)
	}
	return k, nil
}

// ErrRights: a key can't have such rights, or such a note.
var ErrRights = errors.New("invalid rights")

// checkAppKey tells whether a key may be as it is said to be.
func checkAppKey(k *AppKey) error {
	if k.App != "" && CheckName(k.App) != nil {
		return fmt.Errorf("%w: %q", ErrName, k.App)
	}
	if len(k.Rights) == 0 || len(k.Rights) > maxRights {
		return fmt.Errorf("%w: a key has 1 to %d of them", ErrRights, maxRights)
	}
	for _, r := range k.Rights {
		if r.Service != "" && r.Service != "s3" && r.Service != "dynamodb" {
			return fmt.Errorf("%w: there is no service %q", ErrRights, r.Service)
		}
		if len(r.Name) > maxPattern || CheckName(r.Name) != nil {
			return fmt.Errorf("%w: %q is no name", ErrRights, r.Name)
		}
	}
	if k.Note != "" && (len(k.Note) > maxNote || CheckName(strings.ReplaceAll(k.Note, "/", " ")) != nil) {
		return fmt.Errorf("%w: the note can't be printed, or has more than %d bytes", ErrRights, maxNote)
	}
	return nil
}

// keyPrefix is what the names of access keys begin with.
const keyPrefix = "BV"

var keyLetters = base32.StdEncoding.WithPadding(base32.NoPadding)

func goodKeyID(id string) bool {
	rest, ok := strings.CutPrefix(id, keyPrefix)
	outside := func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '2' || r > '7') }
	return ok && len(rest) == appKeyLetter && !strings.ContainsFunc(rest, outside)
}

func goodSecret(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && len(b) == 30
}

// readApps reads apps and their keys: what all devices say together. A key that
// any device has revoked stays revoked, whatever the others say.
func (c *Cloud) readApps(ctx context.Context, st *state) error {
	st.apps, st.appKeys = map[string]App{}, map[string]AppKey{}
	for e, err := range c.control.tree.Range(ctx, under(appRows)) {
		if err != nil {
			return fmt.Errorf("read the apps: %w", err)
		}
		name := string(e.Key[len(appRows):])
		var r appRow
		if len(e.Value) > maxAppRow || json.Unmarshal(e.Value, &r) != nil || r.Version != appVersion || CheckName(name) != nil || len(st.apps) == maxApps {
			c.log.Debug("left out of the control tree", "key", fmt.Sprintf("%.200q", e.Key))
			continue
		}
		st.apps[name] = App{name, r.Created}
	}
	for e, err := range c.control.tree.Range(ctx, under(appKeyRows)) {
		if err != nil {
			return fmt.Errorf("read the keys of apps: %w", err)
		}
		id := string(e.Key[len(appKeyRows):])
		var r appKeyRow
		var k AppKey
		err := json.Unmarshal(e.Value, &r)
		if err == nil {
			k, err = r.key(id)
		}
		if err != nil || len(e.Value) > maxAppRow || len(st.appKeys) == maxAppKeys {
			c.log.Debug("left out of the control tree", "key", fmt.Sprintf("%.200q", e.Key), "err", err)
			continue
		}
		st.appKeys[id] = k
	}
	for _, w := range c.control.open() {
		for e, err := range w.says.RangeAll(ctx, under(revokedKeyRows)) {
			if err != nil {
				return fmt.Errorf("read the control log of %s: %w", w.Device, err)
			}
			id := string(e.Key[len(revokedKeyRows):])
			if k, ok := st.appKeys[id]; ok {
				k.Revoked = true
				st.appKeys[id] = k
			}
		}
	}
	return nil
}

// Apps returns the apps by name, first the owner's own, which has none.
func (c *Cloud) Apps() []App {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []App{{}}
	for _, a := range c.apps {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b App) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// HasApp tells whether there is an app.
func (c *Cloud) HasApp(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return name == "" || c.apps[name].Name == name
}

// MakeApp makes an app: ErrExists if there is one of that name.
func (c *Cloud) MakeApp(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("make an app: %w", err)
	}
	c.naming.Lock()
	defer c.naming.Unlock()
	if c.HasApp(name) {
		return fmt.Errorf("make the app %q: %w", name, ErrExists)
	}
	b, err := json.Marshal(appRow{appVersion, c.clock.Now().UTC()})
	if err == nil {
		err = c.put(ctx, appRows+name, b)
	}
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fmt.Errorf("make the app %q: %w", name, err)
	}
	return nil
}

// RemoveApp removes an app with its keys and its spaces. The data of the spaces
// stay until they are past what is kept.
func (c *Cloud) RemoveApp(ctx context.Context, name string) error {
	c.naming.Lock()
	defer c.naming.Unlock()
	if name == "" || !c.HasApp(name) {
		return fmt.Errorf("remove the app %q: %w", name, ErrNoApp)
	}
	entries := map[string][]byte{appRows + name: nil}
	for _, k := range c.AppKeys(name) {
		entries[revokedKeyRows+k.ID] = c.revocationRow()
	}
	for _, kind := range []Kind{Folder, Table} {
		for _, info := range c.Spaces(kind) {
			if info.App != name {
				continue
			}
			info.Removed = true
			b, err := json.Marshal(info)
			if err != nil {
				return err
			}
			entries[spaceKeys+info.ID] = b
		}
	}
	err := c.putAll(ctx, entries)
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove the app %q: %w", name, err)
	}
	return nil
}

// AppKeys returns the keys of an app that were not revoked, the oldest first.
func (c *Cloud) AppKeys(app string) (list []AppKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.appKeys {
		if k.App == app && !k.Revoked {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b AppKey) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return list
}

// FindAppKey returns a key that is good now: ErrNoAppKey if it is not.
func (c *Cloud) FindAppKey(id string) (AppKey, error) {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.appKeys[id]
	if !ok || k.Revoked || k.Over(now) || k.App != "" && c.apps[k.App].Name == "" {
		return AppKey{}, fmt.Errorf("find access key %.40q: %w", id, ErrNoAppKey)
	}
	return k, nil
}

// Over tells whether the time of the key has passed.
func (k *AppKey) Over(now time.Time) bool { return !k.Until.IsZero() && !now.Before(k.Until) }

// MakeAppKey makes a key. Its ID and secret are chosen here.
func (c *Cloud) MakeAppKey(ctx context.Context, k AppKey) (AppKey, error) {
	fail := func(err error) (AppKey, error) { return AppKey{}, fmt.Errorf("make an access key: %w", err) }
	if err := checkAppKey(&k); err != nil {
		return fail(err)
	}
	if !c.HasApp(k.App) {
		return fail(fmt.Errorf("%q: %w", k.App, ErrNoApp))
	}
	var random [appKeyBytes + 1 + 30]byte
	if _, err := io.ReadFull(c.random, random[:]); err != nil {
		return fail(err)
	}
	k.ID = keyPrefix + keyLetters.EncodeToString(random[:appKeyBytes+1])[:appKeyLetter]
	k.Secret = AppSecret(base64.RawURLEncoding.EncodeToString(random[appKeyBytes+1:]))
	k.Created, k.Revoked = c.clock.Now().UTC(), false
	b, err := json.Marshal(appKeyRow{appVersion, k.App, string(k.Secret), k.Rights, k.Until.UTC(), k.Note, k.Created})
	if err == nil && len(b) > maxAppRow {
		err = fmt.Errorf("%w: they are too long", ErrRights)
	}
	if err == nil {
		err = c.put(ctx, appKeyRows+k.ID, b)
	}
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fail(err)
	}
	return k, nil
}

// RevokeAppKey takes a key back, for good. It is not good any more on this device
// when RevokeAppKey returns, and on others as soon as they hear of it.
func (c *Cloud) RevokeAppKey(ctx context.Context, id string) error {
	c.mu.Lock()
	k, ok := c.appKeys[id]
	c.mu.Unlock()
	if !ok || k.Revoked {
		return fmt.Errorf("revoke access key %.40q: %w", id, ErrNoAppKey)
	}
	err := c.put(ctx, revokedKeyRows+id, c.revocationRow())
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fmt.Errorf("revoke access key %s: %w", id, err)
	}
	return nil
}

// revocationRow says when a key was revoked, which is for people.
func (c *Cloud) revocationRow() []byte {
	return fmt.Appendf(nil, `{"version":%d,"time":%q}`, appVersion, c.clock.Now().UTC().Format(time.RFC3339))
}

// MakeNamed makes a space that all devices make alike: those that make one of the
// same kind, app and name without knowing of each other have made one space. It
// is ErrExists if there is one of that name already.
func (c *Cloud) MakeNamed(ctx context.Context, info SpaceInfo) (*Space, error) {
	c.mu.Lock()
	for n := 0; ; n++ { // what was removed under the name is another space
		info.ID = namedID(info, n)
		if have, ok := c.infos[info.ID]; !ok || !have.Removed {
			break
		}
	}
	c.mu.Unlock()
	return c.makeSpace(ctx, info)
}

// namedID is the id of the nth space of a name.
func namedID(info SpaceInfo, n int) string {
	h := sha256.Sum256([]byte("bevy cloud named space 1\x00" + strconv.Quote(string(info.Kind)) + strconv.Quote(info.App) + strconv.Quote(info.Name) + strconv.Itoa(n)))
	return hex.EncodeToString(h[:16])
}
