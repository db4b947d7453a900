package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A Log is one of the logs that a cloud is made of.
type Log struct {
	Key   hypercore.Key
	Space string // its id
	// Device is who writes it.
	Device hypercore.Key
	// Content says that it has contents of files, which other logs name.
	Content bool
	// Removed says that its space was.
	Removed bool
}

// Logs returns the logs of the cloud: those that name contents before those with
// the contents. Whoever copies them in this order, each as it is when its turn
// comes, has all that is named in the copy.
func (c *Cloud) Logs(ctx context.Context) (list []Log, err error) {
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[hypercore.Key]bool{{}: true} // no content
	var contents []Log
	for id := range c.records {
		list, contents = c.appendLogs(list, contents, id, seen)
	}
	slices.SortFunc(list, byKey)
	slices.SortFunc(contents, byKey)
	return append(list, contents...), nil
}

// LogsOf returns the logs of a space, as far as they are known now, likewise.
func (c *Cloud) LogsOf(id string) []Log {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, contents := c.appendLogs(nil, nil, id, map[hypercore.Key]bool{{}: true})
	return append(list, contents...)
}

// appendLogs adds the logs of a space that were not seen. The caller holds mu.
func (c *Cloud) appendLogs(list, contents []Log, id string, seen map[hypercore.Key]bool) (_, _ []Log) {
	removed := c.infos[id].Removed
	for _, r := range c.records[id] {
		if !seen[r.Tree] {
			seen[r.Tree] = true
			list = append(list, Log{Key: r.Tree, Space: id, Device: r.Device, Removed: removed})
		}
		if !seen[r.Content] {
			seen[r.Content] = true
			contents = append(contents, Log{Key: r.Content, Space: id, Device: r.Device, Content: true, Removed: removed})
		}
	}
	return list, contents
}

func byKey(a, b Log) int { return slices.Compare(a.Key[:], b.Key[:]) }

// Root returns what leads to everything in the logs, for Learn. It is no secret
// to who has these.
func (c *Cloud) Root() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := root{Control: c.someControl()}
	seen := map[string]bool{}
	for _, w := range r.Control {
		for _, cert := range c.roster.Chain(noise.Key(w.Device)) {
			if b := cert.Encode(); !seen[string(b)] {
				seen[string(b)] = true
				r.Certificates = append(r.Certificates, b)
			}
		}
	}
	return json.Marshal(r)
}

// root is what Root returns: some control logs, and why their writers are in.
type root struct {
	Control      []writerRecord `json:"control"`
	Certificates [][]byte       `json:"certificates"`
}

// Learn has the device read what other devices of the cloud have said, from logs
// that came into its store by another way than from them. With them and its
// owner's seed a cloud is back where no other device is left.
func (c *Cloud) Learn(ctx context.Context, b []byte) error {
	var w root
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf("read the root of the cloud: %w", err)
	}
	if len(w.Control) == 0 || len(w.Control) > maxControl || len(w.Certificates) > maxControl*identity.MaxDepth {
		return errors.New("read the root of the cloud: it names no logs")
	}
	entries := map[string][]byte{}
	for _, b := range w.Certificates {
		cert, err := identity.DecodeCertificate(b)
		if err != nil {
			return fmt.Errorf("read the root of the cloud: %w", err)
		}
		entries[certKey(cert)] = b
	}
	for _, r := range w.Control {
		if err := r.check(controlSpace, r.Tree); err != nil {
			return fmt.Errorf("read the root of the cloud: %w", err)
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		entries[writerKeys+controlSpace+"/"+r.Tree.String()] = b
	}
	if err := c.putAll(ctx, entries); err != nil {
		return fmt.Errorf("learn of the logs of a cloud: %w", err)
	}
	return c.refresh(ctx)
}

// SealForOwner encrypts a message that the owner's seed opens.
func (c *Cloud) SealForOwner(message []byte) ([]byte, error) {
	return seal(message, hypercore.Key(c.ID()), c.random)
}

// UnsealAsOwner opens what was sealed for an owner, and reports whether it was.
func UnsealAsOwner(seed identity.Seed, sealed []byte) ([]byte, bool) {
	return unseal(sealed, seed.Derive("owner"))
}
