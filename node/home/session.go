package home

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/node/bridge"
	"github.com/cloudbevy/bevy/services/feed"
)

// A session is a cloud while it is open, with all that depends on it.
type session struct {
	home    *Home
	cloud   *cloud.Cloud
	swarm   *swarm         // nil if there is none
	drives  *bridge.Drives // of others, while they are read
	feeds   *feed.Feeds    // of this machine
	archive *archive

	ctx      context.Context
	stop     context.CancelFunc
	work     sync.WaitGroup
	users    sync.WaitGroup // of calls that use it
	again    chan struct{}  // something has changed
	replaced chan struct{}  // closed when another cloud is to be opened

	replacing sync.Once // closes replaced
	quitted   bool      // set before: this cloud was left

	mu       sync.Mutex
	folders  map[string]*kept                       // by the ids of their spaces
	seen     map[string]time.Time                   // when devices were connected last
	holdings map[noise.Key]map[string]cloud.Holding // what devices said last
	raised   map[[2]string]bool                     // notices of folders, by code and name
	counted  time.Time                              // when counts were taken
	counts   map[string][2]uint64                   // bytes up and down, by device
	speeds   map[string]rate
}

// open opens the cloud with its folders and connections.
func (h *Home) open(ctx context.Context) (s *session, err error) {
	c, err := h.openCloud(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the cloud: %w", err)
	}
	s = &session{home: h, cloud: c, again: make(chan struct{}, 1), replaced: make(chan struct{}), folders: map[string]*kept{},
		seen: map[string]time.Time{}, holdings: map[noise.Key]map[string]cloud.Holding{}, speeds: map[string]rate{}}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.archive = &archive{session: s}
	s.drives = bridge.NewDrives(bridge.DrivesOptions{Open: s.openDrive, Clock: h.node.Clock()})
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if !h.options.Offline {
		if s.swarm, err = s.join(); err != nil {
			return nil, err
		}
	}
	if err := s.openFolders(); err != nil {
		return nil, err
	}
	if err := s.openFeeds(); err != nil {
		return nil, err
	}
	s.work.Go(s.follow)
	s.work.Go(s.keepHouse)
	s.work.Go(s.keepBackups)
	s.work.Go(s.tend)
	s.poke()
	return s, nil
}

// poke has follow look at what has changed.
func (s *session) poke() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// keepHouse frees contents that are past what is kept, once a day.
func (s *session) keepHouse() {
	for sleep(s.ctx, s.home.node.Clock(), houseEvery) {
		if err := s.secure(s.ctx); err != nil {
			s.home.node.Log.Warn("nothing is freed while a backup with what was freed before can't be made", "err", err)
			continue
		}
		for _, k := range s.all() {
			swept, err := k.folder.Clear(s.ctx, folder.Retention{})
			switch {
			case s.ctx.Err() != nil:
				return
			case err != nil:
				s.home.node.Log.Warn("cannot free what is past what is kept", "folder", k.space.Info().Name, "err", err)
			case swept.Bytes > 0:
				s.home.node.Log.Info("freed what is past what is kept", "folder", k.space.Info().Name, "bytes", swept.Bytes)
			}
		}
	}
}

// houseEvery is the time between two cleanings.
const houseEvery = 24 * time.Hour

// calm is how long changes are collected before others are told of them.
const calm = 300 * time.Millisecond

// follow does what changes of the cloud ask for, until the session ends.
func (s *session) follow() {
	peers, cannot := 0, ""
	for {
		select {
		case <-s.again:
		case <-s.ctx.Done():
			return
		}
		switch err := s.openFolders(); {
		case err == nil:
			cannot = ""
		case err.Error() != cannot: // which is tried again with each change
			cannot = err.Error()
			s.home.node.Log.Warn("cannot open a folder", "err", err)
		}
		if named, err := s.cloud.NameApart(s.ctx); err != nil {
			s.home.node.Log.Warn("two machines have one name", "err", err)
		} else if named {
			s.home.node.Say("this machine is called %s now, as another one had its name", s.cloud.DeviceName(s.cloud.Self()))
		}
		s.meet()
		n := len(s.cloud.Peers())
		if n > peers {
			for _, k := range s.all() {
				k.met()
			}
		}
		peers = n
		s.notices()
		// What this device has is on the disk before others hear of it.
		if err := s.home.store.Sync(); err == nil {
			s.cloud.Told()
		}
		s.home.node.Publish(client.Changed, nil)
		if !sleep(s.ctx, s.home.node.Clock(), calm) {
			return
		}
	}
}

var sleep = clock.Sleep

// over reports whether another session is about to take its place.
func (s *session) over() bool {
	select {
	case <-s.cloud.Stale():
	case <-s.replaced:
	default:
		return false
	}
	return true
}

// close ends the session, once nobody uses it any more.
func (s *session) close() (err error) {
	s.stop()
	s.archive.stop()
	s.users.Wait()
	err = s.drives.Close()
	if s.swarm != nil {
		err = errors.Join(err, s.swarm.close())
	}
	s.work.Wait()
	s.mu.Lock()
	folders := s.folders
	s.folders = nil
	s.mu.Unlock()
	for _, k := range folders {
		err = errors.Join(err, k.close())
	}
	return errors.Join(err, s.cloud.Close())
}
