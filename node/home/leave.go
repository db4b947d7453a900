package home

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/node"
)

// leaveRoutes hangs into the node how machines leave the cloud.
func (h *Home) leaveRoutes() {
	h.node.Route(
		node.Call("DELETE", "/machines/{machine}", "Take a machine out of the cloud", h.removeMachine),
		node.Call("POST", "/machines/{machine}/removals", "Take a machine out of the cloud by the owner's words", h.removeByWords),
		node.Call("POST", "/leave", "Take this machine out of its cloud", h.leave),
	)
}

func (h *Home) removeMachine(ctx context.Context, in client.MachineRequest) (node.None, error) {
	return node.None{}, h.take(ctx, in.Machine, func(s *session, d identity.Device) error { return s.cloud.Revoke(ctx, d.Key) })
}

func (h *Home) removeByWords(ctx context.Context, in client.RemoveMachine) (node.None, error) {
	if !node.BySocket(ctx) {
		return node.None{}, &client.Error{Code: client.CodeDenied, Message: "no words are taken here", Cause: "only a program of their owner on the machine itself gives them", Try: "bevy machines rm " + in.Machine + " --words"}
	}
	seed, err := words.ParseSeed(in.Words)
	if err != nil {
		return node.None{}, &client.Error{Code: client.CodeUsage, Message: "these are not the words of a cloud", Cause: err.Error(), Try: "the words that bevy keys show has printed, in their order"}
	}
	return node.None{}, h.take(ctx, in.Machine, func(s *session, d identity.Device) error {
		return s.cloud.RevokeBy(ctx, d.Key, identity.NewOwner(seed))
	})
}

// take takes a machine out of the cloud.
func (h *Home) take(ctx context.Context, word string, revoke func(*session, identity.Device) error) error {
	return h.use(ctx, func(s *session) error {
		d, err := s.cloud.Device(word)
		if err != nil {
			return noMachine(word, err)
		}
		err = revoke(s, d)
		refused := &client.Error{Code: client.CodeDenied, Message: fmt.Sprintf("%s can't be taken out of the cloud", d.Name)}
		switch {
		case errors.Is(err, cloud.ErrLeans):
			refused.Cause = "this machine is in by its word alone"
			refused.Try = "bevy machines rm " + word + " --words, and the owner's 24 words; or the same without on the machine that has them"
			return refused.Because(err)
		case errors.Is(err, cloud.ErrOwner):
			refused.Cause = "the words are those of another cloud"
			refused.Try = "the words that bevy keys show has printed on the machine where this cloud was made"
			return refused.Because(err)
		case err != nil:
			return err
		}
		h.node.Say("%s was taken out of the cloud", d.Name)
		return nil
	})
}

// telling is how long others may take to hear that this machine leaves.
const telling = 15 * time.Second

// leave takes this machine out of its cloud. Its folders stay on the disk as they
// are; all else that it has of the cloud goes, and it begins an empty one.
func (h *Home) leave(ctx context.Context, in client.Leave) (out client.Left, err error) {
	err = h.use(ctx, func(s *session) error {
		out.Folders = []string{}
		for _, info := range s.cloud.Spaces(cloud.Folder) {
			if path := s.cloud.Keep(s.cloud.Self(), info.ID).Path; path != "" {
				out.Folders = append(out.Folders, path)
			}
		}
		if d, ok := s.self(); ok && d.Status == identity.In {
			if why := s.needed(); why != "" && !in.Force {
				return &client.Error{
					Code: client.CodeConflict, Message: "this machine can't leave", Cause: why,
					Try: "bevy status, and bevy leave once it says safe; --force gives up what nobody else has",
				}
			}
			if err := s.quit(ctx); err != nil {
				return err
			}
		}
		h.node.Say("this machine has left the cloud")
		s.replace(true)
		return nil
	})
	return out, err
}

// needed says what would be lost if this machine left; "" if nothing is.
func (s *session) needed() string {
	if _, here, shown := s.cloud.Seed(); here && !shown {
		return "the words of the cloud are here alone, and nobody has seen them: bevy keys show"
	}
	var alone []string
	tables := s.tableNames(s.ctx)
	for _, kind := range []cloud.Kind{cloud.Folder, cloud.Table} {
		for _, info := range s.cloud.Spaces(kind) {
			space, err := s.cloud.Space(info.ID)
			if err != nil {
				continue
			}
			if !s.elsewhere(space) {
				c := s.checkOf(cloud.Log{Space: info.ID}, tables)
				switch c.Kind {
				case "tables":
					c.Name = "the list of tables"
				case "table":
					c.Name = "the table " + c.Name
				}
				alone = append(alone, c.Name)
			}
		}
	}
	if len(alone) > 0 {
		return "nobody else is known to have all of " + strings.Join(alone, ", ")
	}
	if others := s.others(); others > 0 && len(s.cloud.Peers()) == 0 {
		return "no other machine is connected, so that none would hear of it"
	}
	return ""
}

// others counts the other machines that are in.
func (s *session) others() (n int) {
	for _, d := range s.cloud.Devices() {
		if d.Status == identity.In && d.Key != s.cloud.Self() {
			n++
		}
	}
	return n
}

// elsewhere tells whether another machine has all that this one has of a space.
func (s *session) elsewhere(space *cloud.Space) bool {
	own := space.Holding()
	for _, d := range s.cloud.Devices() {
		if d.Status != identity.In || d.Key == s.cloud.Self() {
			continue
		}
		if h, ok := s.holdingsOf(d.Key)[space.Info().ID]; ok && h.Covers(own) {
			return true
		}
	}
	return false
}

// quit has this machine keep nothing any more and revoke itself, and waits until
// somebody has heard of it.
func (s *session) quit(ctx context.Context) error {
	for _, k := range s.all() {
		if s.cloud.Keep(s.cloud.Self(), k.space.Info().ID) != (cloud.Keep{}) {
			if err := s.dropFolder(ctx, k, false); err != nil {
				return err
			}
		}
	}
	heard := map[hypercore.Key]bool{}
	for _, p := range s.cloud.Peers() {
		heard[p.Key()] = true
	}
	if err := s.cloud.Revoke(ctx, s.cloud.Self()); err != nil {
		return err
	}
	if len(heard) == 0 {
		return nil
	}
	// Who hears of it ends the connection, or says that it has it.
	late := make(chan struct{})
	timer := s.home.node.Clock().AfterFunc(telling, func() { close(late) })
	defer timer.Stop()
	for {
		s.poke()
		left := 0
		for _, p := range s.cloud.Peers() {
			if heard[p.Key()] {
				left++
			}
		}
		if left < len(heard) {
			return nil
		}
		tick := make(chan struct{})
		next := s.home.node.Clock().AfterFunc(calm, func() { close(tick) })
		select {
		case <-tick:
		case <-late:
			return nil // they are told by what the machine does not do any more
		case <-ctx.Done():
			next.Stop()
			return context.Cause(ctx)
		}
	}
}

// replace ends the session, for another cloud. With left, what is here of this one
// goes.
func (s *session) replace(left bool) {
	s.replacing.Do(func() {
		s.quitted = left
		close(s.replaced)
	})
}

// forget removes what is here of the cloud of a session that has ended.
func (h *Home) forget(s *session) error {
	for _, f := range s.cloud.Former() {
		h.node.Notices.Clear(anotherMachine, hypercore.Key(f.Device).String()[:8])
	}
	for key := range s.raised {
		h.node.Notices.Clear(key[0], key[1])
	}
	h.node.Notices.Clear("revoked", "")
	if err := os.Remove(filepath.Join(h.dir, secretsFile)); err != nil {
		return err
	}
	var keys []hypercore.Key
	for info, err := range h.store.Logs() {
		if err != nil {
			return fmt.Errorf("remove what is left of the cloud: %w", err)
		}
		keys = append(keys, info.Key)
	}
	for _, key := range keys {
		if err := h.store.Delete(key); err != nil { // nobody can read it any more
			h.node.Log.Warn("cannot remove a log of the cloud that was left", "log", key, "err", err)
		}
	}
	return nil
}
