package home

import (
	"path/filepath"
	"testing"

	"github.com/cloudbevy/bevy/client"
)

// Who has read the words joins by them, also when the cloud was opened again since;
// and what was begun before that is done.
func TestWordsOutliveASession(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("docs/a.txt", "hello")
	a.add("docs", "")
	var v client.Invitation
	a.do("POST", "/invitation", nil, &v)
	first := a.home.now()
	first.replace(false)
	<-first.ctx.Done()
	b.do("POST", "/join", client.JoinRequest{Words: v.Words}, nil)
	a.until("the other has joined", func() bool {
		a.do("GET", "/invitation", nil, &v)
		return v.State == "joined" && v.Machine == "attic"
	})
	// It begins to write to a folder while its own session ends.
	b.until("the folder", func() bool { return b.folder("docs").Name != "" })
	if err := b.home.use(t.Context(), func(s *session) error {
		s.replace(false)
		<-s.ctx.Done()
		_, err := s.addFolder(t.Context(), filepath.Join(b.dir, "mine"), "docs", false)
		return err
	}); err != nil {
		t.Error(err)
	}
	b.until("the file", func() bool { return b.reads("mine/a.txt") == "hello" })
	// Words that nobody has used are dead when the node ends.
	a.do("POST", "/invitation", nil, &v)
	a.down()
	a.up()
	if err := a.Do(t.Context(), "GET", "/invitation", nil, &v); err == nil {
		t.Errorf("the words are %s", v.State)
	}
}

// Who asks once a session is to end asks the next one.
func TestACallWaitsForTheNextSession(t *testing.T) {
	a := newMachine(t, "", "laptop")
	first := a.home.now()
	first.replace(false)
	if err := a.home.use(t.Context(), func(s *session) error {
		if s == first {
			t.Error("it is the session that is to end")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
