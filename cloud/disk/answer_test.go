package disk

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowFolder is one that takes long to begin to write, if it has been told so.
type slowFolder struct {
	*fakeFolder
	begun, on chan struct{}
}

func (s *slowFolder) batch(ctx context.Context) (batch, error) {
	if s.begun != nil {
		s.begun <- struct{}{}
		<-s.on
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.fakeFolder.batch(ctx)
}

// What somebody has answered is done, also if they wait no longer for it.
func TestAnswerIsCarriedOutWithoutWhoGaveIt(t *testing.T) {
	var cloud *slowFolder
	rounds := make(chan struct{}, 100)
	a := newDevice(t, "a", func(c *config) {
		cloud = &slowFolder{fakeFolder: c.source.(*fakeFolder)}
		c.source = cloud
		c.changed = func() { rounds <- struct{}{} }
	})
	for i := range 12 {
		a.write("/d/"+string(rune('a'+i)), "x")
	}
	a.sync()
	<-rounds
	a.remove("/d")
	a.again() // so that it looks at everything
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer func() { stop(); work.Wait() }()
	work.Go(func() { _ = a.k.Run(ctx) })
	<-rounds
	a.wantNotice(CodeMassDelete)

	cloud.begun, cloud.on = make(chan struct{}), make(chan struct{})
	waiting, leave := context.WithCancel(t.Context())
	answered := make(chan error)
	work.Go(func() { answered <- a.k.Confirm(waiting) })
	<-cloud.begun
	leave()
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("who left hears %v", err)
	}
	close(cloud.on)
	<-rounds
	same(t, "confirmed", a.cloud.tree(), "")
	if s := a.k.Status(); s.Gone > 0 || s.State == Paused {
		t.Errorf("it asks again: %+v", s)
	}

	// And if they wait, they hear how it went.
	cloud.begun = nil
	must(t, a.k.Here(t.Context()))
	cloud.begun, cloud.on = make(chan struct{}), make(chan struct{})
	a.write("/new", strings.Repeat("x", 10))
	work.Go(func() { answered <- a.k.Restore(t.Context()) })
	<-cloud.begun
	stop() // nobody carries it out any more
	close(cloud.on)
	if err := <-answered; err == nil {
		t.Error("it was not done")
	}
	work.Wait()
	cloud.begun = nil
	must(t, a.k.Here(t.Context())) // without Run it does so itself
	same(t, "after all", a.cloud.tree(), "/new \"xxxxxxxxxx\"\n")
}

// While a question is open, most of the time is spent waiting, however long it
// takes to look at the folder.
func TestAnOpenQuestionCostsLittle(t *testing.T) {
	for _, c := range []struct {
		took, next time.Duration
		pause      string
	}{
		{took: time.Millisecond, next: retryDelay, pause: CodeMassDelete},
		{took: 10 * time.Second, next: scanShare * 10 * time.Second, pause: CodeMassDelete},
		{took: time.Minute, next: scanShare * time.Minute},
	} {
		a := newDevice(t, "a")
		a.k.full, a.k.pause = false, c.pause
		a.k.schedule(c.took, nil)
		a.clock.Advance(c.next - time.Second)
		if len(a.k.signal) > 0 {
			t.Errorf("after %v with pause %q: it looks again too soon", c.took, c.pause)
		}
		a.clock.Advance(time.Second)
		if len(a.k.signal) == 0 || !a.k.full {
			t.Errorf("after %v with pause %q: it does not look again", c.took, c.pause)
		}
	}
}
