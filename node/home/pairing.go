package home

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// An invited is an invitation while its words are shown.
type invited struct {
	*pair.Invitation
	ctx   context.Context // ends when nobody is to join any more
	stop  context.CancelFunc
	ended chan struct{} // closed when it is over
	got   pair.Request  // who came, once ended
	err   error
}

// meeting makes a swarm that finds the other side of a code, and nobody else.
func (s *session) meeting(ctx context.Context, code words.Code, serve func(*hyperswarm.Conn)) (*hyperswarm.Swarm, error) {
	if s.swarm == nil {
		return nil, &client.Error{Code: client.CodeOffline, Message: "machines can't be paired", Cause: "this node has no network", Try: "bevy up without --offline"}
	}
	var seed [32]byte
	rand.Read(seed[:]) // which never fails
	sw, err := s.swarm.open(noise.NewKeyPair(seed), s.home.node.Clock(), serve)
	if err != nil {
		return nil, err
	}
	topic := pair.Topic(code)
	debug.FreeOSMemory() // which took much, on purpose, and is not soon to be needed again
	if _, err := sw.Join(topic, hyperswarm.JoinOptions{}); err != nil {
		return nil, errors.Join(err, sw.Close())
	}
	return sw, nil
}

// invite shows words, for one device to join by. Words that were shown before
// are dead then.
func (h *Home) invite(ctx context.Context) (*invited, error) {
	h.stopInviting()
	v := &invited{ended: make(chan struct{})}
	v.ctx, v.stop = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if v.Invitation, err = pair.NewInvitation(pair.InviteOptions{Clock: h.node.Clock(), Admit: func(ctx context.Context, r pair.Request) (a pair.Admission, err error) {
		err = h.use(ctx, func(s *session) error {
			a, err = s.cloud.Admit(ctx, r)
			return err
		})
		return a, err
	}}); err != nil {
		return nil, err
	}
	wait, err := h.awaitJoiner(v)
	if err != nil {
		v.stop()
		return nil, errors.Join(err, v.Close())
	}
	go h.keepInviting(v, wait)
	h.mu.Lock()
	h.invited = v
	h.mu.Unlock()
	return v, nil
}

// keepInviting waits until the words were used, or are dead. They outlive a session:
// somebody may be typing them while the cloud is opened again.
func (h *Home) keepInviting(v *invited, wait func() (over bool)) {
	defer close(v.ended) // which stopInviting waits for
	defer h.node.Busy("pairing")()
	for !wait() {
		var err error
		if wait, err = h.awaitJoiner(v); err != nil {
			v.err = err
			break
		}
	}
	v.stop()
	_ = v.Close()
	h.changed()
}

// awaitJoiner has who joins find this machine. The function it returns waits for them,
// and reports whether it is over: it is not if the session ended first.
func (h *Home) awaitJoiner(v *invited) (wait func() (over bool), err error) {
	s, done, err := h.acquire(v.ctx)
	if err != nil {
		return nil, err
	}
	sw, err := s.meeting(v.ctx, v.Code(), func(c *hyperswarm.Conn) {
		if err := v.Serve(s.ctx, c.Stream); err != nil {
			h.node.Log.Info("somebody came to join", "err", err)
		}
	})
	if err != nil {
		done()
		return nil, err
	}
	return func() bool {
		defer done()
		defer sw.Close()
		v.got, v.err = v.Wait(s.ctx)
		if v.err == nil {
			v.got.Name = s.cloud.DeviceName(v.got.Device) // another one, if its own was taken
			h.node.Say("%s has joined", v.got.Name)
		}
		return s.ctx.Err() == nil || !errors.Is(v.err, context.Canceled)
	}, nil
}

// stopInviting ends an invitation that is shown.
func (h *Home) stopInviting() {
	h.mu.Lock()
	v := h.invited
	h.invited = nil
	h.mu.Unlock()
	if v != nil {
		v.stop()
		_ = v.Close() // the words are dead
		<-v.ended
	}
}

// joiningFile, in the folder of the cloud, has the seed of the key pair that this
// device joins another cloud with, until it has.
const joiningFile = "joining"

// joiningKeys returns the seed for joining, the same until it was used.
func (h *Home) joiningKeys() (seed [32]byte, err error) {
	v := cloud.FileVault(filepath.Join(h.dir, joiningFile))
	if b, err := v.Load(); err == nil && len(b) == len(seed) {
		return [32]byte(b), nil
	}
	rand.Read(seed[:])
	return seed, v.Save(seed[:])
}

// joinCloud makes this device one of the cloud that shows the words.
func (h *Home) joinCloud(ctx context.Context, text, name string) (a pair.Admission, err error) {
	code, err := words.ParseCode(text)
	if err != nil {
		return a, &client.Error{Code: client.CodeUsage, Message: "these are not the words that bevy join shows", Cause: err.Error(), Try: "bevy join <word>-<word>-<word>-<word>-<word>-<word>"}
	}
	seed, err := h.joiningKeys()
	if err != nil {
		return a, err
	}
	if name == "" {
		name = h.deviceName()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	var s *session
	err = h.use(ctx, func(now *session) error {
		s = now
		if why := s.inUse(); why != "" {
			return &client.Error{Code: client.CodeConflict, Message: "this machine has a cloud of its own already", Cause: why, Try: "bevy join here, and the words on the other machine; or bevy leave first"}
		}
		j, err := pair.NewJoiner(pair.JoinOptions{
			Code: code, Device: noise.NewKeyPair(seed), Name: name, Clock: h.node.Clock(),
			Keep: func(a pair.Admission) error {
				o := h.cloudOptions()
				return cloud.Join(o, seed, a)
			},
		})
		if err != nil {
			return err
		}
		result := make(chan error, 1)
		sw, err := s.meeting(ctx, code, func(c *hyperswarm.Conn) {
			got, err := j.Join(ctx, c.Stream)
			switch {
			case err == nil:
				once.Do(func() { a = got; result <- nil })
			case errors.Is(err, pair.ErrWords), errors.Is(err, pair.ErrTries), errors.Is(err, pair.ErrDeclined), errors.Is(err, pair.ErrUsed), errors.Is(err, pair.ErrExpired):
				once.Do(func() { result <- err })
			}
		})
		if err != nil {
			return err
		}
		defer sw.Close()
		select {
		case err := <-result:
			return err
		case <-ctx.Done():
			return &client.Error{Code: client.CodeOffline, Message: "nobody with these words was found", Cause: context.Cause(ctx).Error(), Try: "bevy join on the other machine, and bevy netcheck on both"}
		case <-s.ctx.Done():
			return errors.New("the node is ending")
		}
	})
	if err != nil {
		if _, told := errors.AsType[*client.Error](err); !told {
			err = &client.Error{Code: client.CodeDenied, Message: "the other machine did not let this one in", Cause: err.Error(), Try: "bevy join there, for new words"}
		}
		return a, err
	}
	s.replace(false)
	return a, os.Remove(filepath.Join(h.dir, joiningFile))
}

// inUse says why what is in the cloud can't be given up; "" if nothing is.
func (s *session) inUse() string {
	for _, d := range s.cloud.Devices() {
		if d.Status == identity.In && d.Key != s.cloud.Self() {
			return "other machines are in it: " + d.Name
		}
	}
	for _, kind := range []cloud.Kind{cloud.Folder, cloud.Table} {
		if n := len(s.cloud.Spaces(kind)); n > 0 {
			return fmt.Sprintf("there is something in it: %s", s.cloud.Spaces(kind)[0].Name)
		}
	}
	return ""
}
