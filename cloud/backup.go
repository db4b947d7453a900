package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Log is one of the logs that a cloud is made of.
type Log struct {
	Key   hypercore.Key
	Space string // its id
	// Content says that it has contents of files, which other logs name.
	Content bool
}

// Logs returns the logs of the cloud, but of spaces that were removed: those
// that name contents before those with the contents. Whoever copies them in this
// order, each as it is when its turn comes, has all that is named in the copy.
func (c *Cloud) Logs(ctx context.Context) (list []Log, err error) {
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[hypercore.Key]bool{{}: true} // no content
	var contents []Log
	for id, records := range c.records {
		if c.infos[id].Removed {
			continue
		}
		for _, r := range records {
			if !seen[r.Tree] {
				seen[r.Tree] = true
				list = append(list, Log{Key: r.Tree, Space: id})
			}
			if !seen[r.Content] {
				seen[r.Content] = true
				contents = append(contents, Log{Key: r.Content, Space: id, Content: true})
			}
		}
	}
	slices.SortFunc(list, byKey)
	slices.SortFunc(contents, byKey)
	return append(list, contents...), nil
}

func byKey(a, b Log) int { return slices.Compare(a.Key[:], b.Key[:]) }

// Root returns what Recover needs, beside the logs and the owner's seed. It is
// no secret to who has these.
func (c *Cloud) Root() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.Marshal(welcome{Control: c.someControl()})
}

// Recover makes a device of an owner's cloud where no other one may be left: the
// cloud's logs are in the store, and a device that had them gave the root. The
// logs are read as those of others.
func Recover(ctx context.Context, o Options, seed identity.Seed, root []byte) (*Cloud, error) {
	var w welcome
	if err := json.Unmarshal(root, &w); err != nil {
		return nil, fmt.Errorf("read the root of the cloud: %w", err)
	}
	if len(w.Control) == 0 || len(w.Control) > maxControl {
		return nil, errors.New("read the root of the cloud: it names no logs")
	}
	return create(ctx, o, &seed, w.Control)
}

// SealForOwner encrypts a message that the owner's seed opens.
func (c *Cloud) SealForOwner(message []byte) ([]byte, error) {
	return seal(message, hypercore.Key(c.ID()), c.random)
}

// UnsealAsOwner opens what was sealed for an owner, and reports whether it was.
func UnsealAsOwner(seed identity.Seed, sealed []byte) ([]byte, bool) {
	return unseal(sealed, seed.Derive("owner"))
}
