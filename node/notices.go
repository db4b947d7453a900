package node

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxNotices bounds how many notices there are. Of more than that the worst are
// kept.
const maxNotices = 256

// Notices are what the owner should know. Any part of the node raises them and
// clears them; there is one for each code and subject.
type Notices struct {
	clock   clock.Clock
	publish func(kind string, data any)

	mu  sync.Mutex
	all map[noticeID]client.Notice
}

type noticeID struct{ code, subject string }

// Raise adds a notice, or changes the one with its code and subject. It sets
// Since.
func (n *Notices) Raise(notice client.Notice) {
	id := noticeID{notice.Code, notice.Subject}
	n.mu.Lock()
	defer n.mu.Unlock()
	notice.Since = n.clock.Now()
	if old, ok := n.all[id]; ok {
		notice.Since = old.Since
		if notice == old {
			return
		}
	} else if len(n.all) >= maxNotices {
		mildest := n.listLocked()[len(n.all)-1]
		if worst(mildest, notice) <= 0 {
			return
		}
		delete(n.all, noticeID{mildest.Code, mildest.Subject})
	}
	n.all[id] = notice
	n.publish(client.Noticed, notice)
}

// Clear takes a notice back. It is fine if there is none.
func (n *Notices) Clear(code, subject string) {
	id := noticeID{code, subject}
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.all[id]
	if !ok {
		return
	}
	delete(n.all, id)
	n.publish(client.Noticed, client.Notice{Code: code, Subject: subject, Severity: old.Severity, Since: old.Since})
}

// List returns all notices, the worst first.
func (n *Notices) List() []client.Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listLocked()
}

func (n *Notices) listLocked() []client.Notice { return slices.SortedFunc(maps.Values(n.all), worst) }

// worst is the order of notices: by severity, and then the oldest first.
func worst(a, b client.Notice) int {
	rank := func(n client.Notice) int { return -slices.Index(client.Severities, n.Severity) }
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Since.Compare(b.Since), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
}
