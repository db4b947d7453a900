package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
)

// A Removed is a space or an app that was removed, and can be brought back.
type Removed struct {
	Info SpaceInfo // of a space
	App  string    // the name of an app; "" if it is a space
	Time time.Time // when it was removed
}

// Removed returns what was removed and is in no app that was: that comes back with
// its app.
func (c *Cloud) Removed(ctx context.Context) (list []Removed, err error) {
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	var gone []SpaceInfo
	for _, info := range c.infos {
		if info.Removed && (info.App == "" || c.apps[info.App].Name != "") {
			gone = append(gone, info)
		}
	}
	c.mu.Unlock()
	for _, info := range gone {
		e, err := c.control.tree.Get(ctx, []byte(spaceKeys+info.ID))
		if err != nil {
			return nil, fmt.Errorf("list what was removed: %w", err)
		}
		list = append(list, Removed{Info: info, Time: e.Time})
	}
	apps, err := c.removedApps(ctx)
	if err != nil {
		return nil, fmt.Errorf("list what was removed: %w", err)
	}
	for _, a := range apps {
		list = append(list, a.Removed)
	}
	return list, nil
}

// A removedApp is an app at one of the times that it was removed.
type removedApp struct {
	Removed
	row    []byte
	spaces map[string][]byte // what is to be said of those that went with it, by their keys
}

// removedApps returns all that can be brought back.
func (c *Cloud) removedApps(ctx context.Context) (list []removedApp, err error) {
	c.mu.Lock()
	infos := c.infos // which are replaced, not changed
	c.mu.Unlock()
	type removal struct {
		app string
		at  int64
	}
	spaces := map[removal]map[string][]byte{}
	for id, info := range infos {
		if !info.Removed || info.App == "" {
			continue
		}
		e, err := c.control.tree.Get(ctx, []byte(spaceKeys+id))
		if err != nil {
			return nil, err
		}
		at := removal{info.App, e.Time.UnixNano()}
		if spaces[at] == nil {
			spaces[at] = map[string][]byte{}
		}
		info.Removed = false
		if spaces[at][spaceKeys+id], err = json.Marshal(info); err != nil {
			return nil, err
		}
	}
	for e, err := range c.control.tree.RangeAll(ctx, under(appRows)) {
		name := strings.TrimPrefix(string(e.Key), appRows)
		if err == nil && CheckName(name) != nil {
			continue
		}
		var was []byte
		var last removedApp
		for e, herr := range c.control.tree.History(ctx, tree.HistoryOptions{Key: e.Key}) {
			if err = errors.Join(err, herr); err != nil {
				break
			}
			if e.Value == nil && was != nil {
				last = removedApp{Removed{App: name, Time: e.Time}, was, spaces[removal{name, e.Time.UnixNano()}]}
				if len(last.spaces) > 0 {
					list = append(list, last)
				}
			}
			was = e.Value
		}
		if err != nil {
			return nil, err
		}
		if was == nil && last.App != "" && len(last.spaces) == 0 {
			list = append(list, last) // it had nothing, and is the one that is missed
		}
	}
	return list, nil
}

// BringBackSpace makes a space what it was before it was removed, under another name
// if name is not "". It is ErrNoApp if its app is not there, and ErrExists if another
// space has the name.
func (c *Cloud) BringBackSpace(ctx context.Context, id, name string) error {
	info, ok := c.SpaceInfo(id)
	if ok && !c.HasApp(info.App) {
		return fmt.Errorf("bring back the %s %q: the app %q: %w", info.Kind, info.Name, info.App, ErrNoApp)
	}
	return c.Update(ctx, id, func(i *SpaceInfo) {
		i.Removed = false
		if name != "" {
			i.Name = name
		}
	})
}

// BringBackApp makes an app again that was removed at a time, as Removed has it, with
// the spaces that went with it. Its keys were taken back for good. It is ErrNoApp if
// none was removed then, and ErrExists if there is another one by now.
func (c *Cloud) BringBackApp(ctx context.Context, name string, removed time.Time) error {
	fail := func(err error) error { return fmt.Errorf("bring back the app %q: %w", name, err) }
	c.naming.Lock()
	defer c.naming.Unlock()
	if c.HasApp(name) {
		return fail(ErrExists)
	}
	apps, err := c.removedApps(ctx)
	if err != nil {
		return fail(err)
	}
	i := slices.IndexFunc(apps, func(a removedApp) bool { return a.App == name && a.Time.Equal(removed) })
	if i < 0 {
		return fail(ErrNoApp)
	}
	entries := map[string][]byte{appRows + name: apps[i].row}
	maps.Copy(entries, apps[i].spaces)
	if err = c.putAll(ctx, entries); err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}
