package home

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/node/bridge"
)

// bridgeCache bounds the bytes of answers that the bridge for browsers keeps.
const bridgeCache = 8 << 20

// doors opens the bridge for browsers, that of shared links, and the doors for other
// programs.
func (h *Home) doors() {
	h.signedDoors()
	h.shareDoor()
	b := bridge.New(bridge.Options{Resolver: h, Clock: h.node.Clock(), Log: h.node.Log, CacheBytes: bridgeCache})
	h.node.Door(node.Door{Name: "bridge", Match: bridge.Addressed, Handler: b})
}

// Resolve implements bridge.Resolver. A folder of the cloud is for those who have
// signed in, a drive for everybody who knows its key.
func (h *Home) Resolve(ctx context.Context, r *http.Request, name, at string) (source bridge.Source, release func(), err error) {
	key, notKey := hypercore.ParseKey(name)
	if notKey != nil && !h.node.SignedIn(r) {
		return nil, nil, fmt.Errorf("%s: %w", name, fs.ErrPermission)
	}
	s, done, err := h.acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", bridge.ErrUnreachable, err)
	}
	close := func() {}
	if notKey == nil {
		source, close, err = s.drives.Get(ctx, key, at, true)
	} else {
		source, close, err = s.folderSource(ctx, name, at)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return source, func() { close(); done() }, nil
}

// folderSource returns a folder of the cloud, as it was at a moment if at is one.
func (s *session) folderSource(ctx context.Context, name, at string) (bridge.Source, func(), error) {
	k, err := s.findFolder(name)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	o := bridge.FolderOptions{ID: k.space.Info().ID}
	if at == "" {
		return bridge.NewFolder(k.folder, o), func() {}, nil
	}
	old, err := k.moment(ctx, at)
	if err != nil {
		return nil, nil, fmt.Errorf("%s@%s: %w", name, at, bridge.ErrBadTime)
	}
	o.ID += "@" + at
	return bridge.NewFolder(old, o), func() { old.Close() }, nil
}

// openDrive opens a drive for as long as somebody reads it, and looks for others
// who have it.
func (s *session) openDrive(_ context.Context, key hypercore.Key) (*hyperdrive.Drive, func() error, error) {
	d, err := hyperdrive.Open(s.home.store, hyperdrive.Options{Key: &key, Cache: s.home.cache})
	if err != nil {
		return nil, nil, err
	}
	if s.swarm == nil || d.Writable() {
		return d, d.Close, nil
	}
	interest, err := s.swarm.Join(hyperswarm.Topic(key.Discovery()), hyperswarm.JoinOptions{})
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	found := s.home.store.FindingPeers() // who reads waits for the first of them
	ctx, cancel := context.WithCancel(s.ctx)
	timer := s.home.node.Clock().AfterFunc(finding, cancel)
	s.work.Go(func() {
		defer found()
		for ; ; s.swarm.Refresh() { // who has it may not have been announced yet
			_ = interest.Flushed(ctx)
			if s.hasPeer(key) || !sleep(ctx, s.home.node.Clock(), lookAgain) || s.hasPeer(key) {
				return
			}
		}
	})
	return d, func() error {
		timer.Stop()
		cancel()
		s.forget(interest)
		return d.Close()
	}, nil
}

// hasPeer tells whether somebody who has a log is connected.
func (s *session) hasPeer(log hypercore.Key) bool {
	for _, p := range s.home.store.Peers() {
		if p.Log == log && p.Open {
			return true
		}
	}
	return false
}

// lookAgain is the time between two searches for somebody who has a drive.
const lookAgain = 500 * time.Millisecond

// finding bounds how long peers of a drive are looked for before it is said that
// there are none.
const finding = 15 * time.Second

// forget ends an interest. Others need not be told in time: what was announced
// ends by itself.
func (s *session) forget(d *hyperswarm.Discovery) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	timer := s.home.node.Clock().AfterFunc(time.Second, cancel)
	defer timer.Stop()
	_ = d.Close(ctx)
}
