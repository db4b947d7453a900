package home

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// status fills in how the cloud is: for node.Node.OnStatus.
func (h *Home) status(ctx context.Context, st *client.Status) {
	_ = h.use(ctx, func(s *session) error { // between two sessions there is nothing to say
		st.Machines = s.machines()
		st.Folders = s.listFolders()
		c := client.Cloud{ID: s.cloud.ID().String(), Name: s.name(), Want: wantedCopies}
		c.Copies = len(st.Machines)
		for _, f := range st.Folders {
			c.Copies = min(c.Copies, f.Copies)
			if f.Changed.After(c.Newest) {
				c.Newest = f.Changed
			}
		}
		if d, ok := s.self(); len(st.Folders) == 0 || ok && d.Status == identity.Revoked { // what it knows of others is old
			c.Copies = 0
		}
		st.Cloud = &c
		return nil
	})
}

// wantedCopies is how many machines should have everything.
const wantedCopies = 2

// name is what the cloud is called: as its first device, unless it got a name.
func (s *session) name() string {
	var name string
	if ok, err := s.cloud.Setting(s.ctx, "name", &name); err == nil && ok {
		return name
	}
	var first identity.Device
	for _, d := range s.cloud.Devices() {
		if first.Name == "" || d.Certificate.Issued.Before(first.Certificate.Issued) {
			first = d
		}
	}
	return first.Name
}

// machines are the devices of the cloud, this one first.
func (s *session) machines() []client.Machine {
	self := s.cloud.Self()
	rates := s.rates()
	var list []client.Machine
	for _, d := range s.cloud.Devices() {
		m := client.Machine{ID: hypercore.Key(d.Key).String(), Name: d.Name, This: d.Key == self, State: "away"}
		conn := s.swarm.connOf(d.Key)
		switch {
		case d.Status == identity.Revoked:
			m.State = "revoked"
		case d.Status == identity.Outside:
			continue
		case m.This:
			m.State = "this"
			for _, k := range s.all() {
				m.Holds += k.held()
			}
		case conn != nil:
			m.State = "idle"
			r := rates[m.ID]
			m.Up, m.Down, m.RTT = r.up, r.down, r.rtt
			m.Sent, m.Got = conn.Traffic()
			if r.up > 0 || r.down > 0 {
				m.State = "active"
			}
			m.Path, m.Why = s.describe(conn.Path())
			m.Holds = s.heldBy(d.Key)
		default:
			s.mu.Lock()
			m.Seen = s.seen[m.ID]
			s.mu.Unlock()
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b client.Machine) int {
		switch {
		case a.This != b.This:
			if a.This {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// held is how many bytes of the folder are here.
func (k *kept) held() uint64 {
	k.mu.Lock()
	st, keeper, sparse := k.stats, k.keeper, k.keep.Sparse
	k.mu.Unlock()
	bytes := st.Bytes
	if keeper != nil && !sparse { // it knows before all is counted
		bytes = max(bytes, keeper.Status().Bytes)
	}
	return uint64(max(0, bytes-st.Missing))
}

// describe says in a few words how a connection goes.
func (s *session) describe(p hyperdht.Path) (path, why string) {
	switch p.Kind {
	case hyperdht.PathLAN:
		return "direct lan", ""
	case hyperdht.PathRelayed:
		return "relay via " + s.cloud.DeviceName(p.Relay), p.Why
	}
	return p.Kind.String(), p.Why
}

// A rate is how fast a machine gives and takes, in bytes a second.
type rate struct{ up, down, rtt float64 }

// rates adds up what is known of the peers of all logs.
func (s *session) rates() map[string]rate {
	all := map[string]rate{}
	now := s.home.node.Clock().Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	passed := now.Sub(s.counted).Seconds()
	counts := map[string][2]uint64{}
	for _, p := range s.home.store.Peers() {
		key := hypercore.Key(p.Key).String()
		c := counts[key]
		counts[key] = [2]uint64{c[0] + p.Up, c[1] + p.Down}
		r := all[key]
		if p.RTT > 0 && (r.rtt == 0 || p.RTT.Seconds()*1000 < r.rtt) {
			r.rtt = p.RTT.Seconds() * 1000
		}
		all[key] = r
	}
	if passed >= 0.5 {
		for key, c := range counts {
			last := s.counts[key]
			if c[0] >= last[0] && c[1] >= last[1] && !s.counted.IsZero() {
				s.speeds[key] = rate{up: float64(c[0]-last[0]) / passed, down: float64(c[1]-last[1]) / passed}
			}
		}
		s.counts, s.counted = counts, now
	}
	for key, r := range all {
		speed := s.speeds[key]
		all[key] = rate{up: speed.up, down: speed.down, rtt: r.rtt}
	}
	return all
}

// all are the folders that are open.
func (s *session) all() []*kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*kept, 0, len(s.folders))
	for _, k := range s.folders {
		list = append(list, k)
	}
	return list
}

// heldBy adds up what another device has of the folders, as far as it has said.
func (s *session) heldBy(device noise.Key) (bytes uint64) {
	holdings := s.holdingsOf(device)
	for _, k := range s.all() {
		k.mu.Lock()
		total := k.stats.Bytes
		k.mu.Unlock()
		if h, ok := holdings[k.space.Info().ID]; ok && !h.Sparse {
			bytes += uint64(max(0, total-h.Missing))
		}
	}
	return bytes
}

// holdingsOf is what a device said last.
func (s *session) holdingsOf(device noise.Key) map[string]cloud.Holding {
	for _, p := range s.cloud.Peers() {
		if p.Key() == hypercore.Key(device) {
			if h := p.Holdings(); h != nil {
				s.mu.Lock()
				s.holdings[device] = h
				s.mu.Unlock()
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holdings[device]
}

// copies counts the machines that have all of a folder that this one knows of.
func (s *session) copies(k *kept) (n int) {
	own := k.space.Holding()
	if own.Missing == 0 {
		n++
	}
	for _, d := range s.cloud.Devices() {
		if d.Status != identity.In || d.Key == s.cloud.Self() {
			continue
		}
		if h, ok := s.holdingsOf(d.Key)[k.space.Info().ID]; ok && h.Covers(own) {
			n++
		}
	}
	return n
}

// listFolders are the folders of the cloud, by name.
func (s *session) listFolders() []client.Folder {
	list := []client.Folder{}
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		if k, err := s.folderOf(info.ID); err == nil {
			list = append(list, s.describeFolder(k))
		}
	}
	return list
}

// describeFolder says how a folder is.
func (s *session) describeFolder(k *kept) (f client.Folder) {
	info := k.space.Info()
	k.mu.Lock()
	f = client.Folder{
		ID: info.ID, Name: called(info), App: info.App, Path: k.keep.Path, Sparse: k.keep.Sparse,
		Files: uint64(k.stats.Files), Bytes: uint64(k.stats.Bytes), Missing: uint64(k.stats.Missing), Changed: k.changed,
	}
	keeper := k.keeper
	k.mu.Unlock()
	defer func() {
		if f.State == "syncing" {
			f.Progress = progressOf(f)
		}
	}()
	f.Copies = s.copies(k)
	f.State = "safe"
	if f.Missing > 0 && !f.Sparse {
		f.State = "syncing"
	}
	if keeper == nil {
		return f
	}
	st := keeper.Status()
	f.Why = st.Why
	if !f.Sparse { // it knows before all is counted
		f.Files, f.Bytes = uint64(st.Files), uint64(st.Bytes)
	}
	p := st.Progress
	f.Now = &client.Progress{
		Looked: p.Looked, Sent: p.Sent, SentBytes: p.SentBytes, Written: p.Written, WrittenBytes: p.WroteBytes,
		Errors: p.Errors, Path: p.Path, FilesToGo: p.FilesToGo, BytesToGo: p.BytesToGo,
	}
	switch st.State {
	case disk.Paused:
		f.State = "paused"
	case disk.Syncing:
		f.State = "syncing"
	default:
		if st.Waiting > 0 {
			f.State = "syncing"
		}
	}
	return f
}

// progressOf tells how much of a folder is where it is to be: contents on this
// machine, and at first what the disk has in the cloud.
func progressOf(f client.Folder) float64 {
	if f.Bytes == 0 {
		return 0
	}
	part := 1 - float64(f.Missing)/float64(f.Bytes)
	if f.Now != nil && f.Now.FilesToGo > 0 {
		part = min(part, float64(f.Files)/float64(f.Now.FilesToGo))
	}
	return part
}

// notices raises what the owner should know, and clears what is no more.
func (s *session) notices() {
	n := s.home.node.Notices
	if _, here, shown := s.cloud.Seed(); here && !shown {
		n.Raise(client.Notice{
			Code: "words-not-written", Severity: client.Warning,
			Text: "nobody has written down the words of this cloud: without them it can't be had back when all machines are lost",
			Fix:  "bevy keys show",
		})
	} else {
		n.Clear("words-not-written", "")
	}
	folders := s.listFolders()
	if 1+s.others() < wantedCopies && len(folders) > 0 {
		n.Raise(client.Notice{
			Code: "one-machine", Severity: client.Warning,
			Text: "everything is on this machine alone", Fix: "bevy join",
		})
	} else {
		n.Clear("one-machine", "")
	}
	if d, ok := s.self(); ok && d.Status == identity.Revoked {
		n.Raise(client.Notice{
			Code: "revoked", Severity: client.Problem,
			Text: "this machine was taken out of the cloud: nothing that is written here reaches the others. After leaving it can join again, as a new one", Fix: "bevy leave",
		})
	} else {
		n.Clear("revoked", "")
	}
	s.formerNotices()
	s.folderNotices()
}

// anotherMachine is the code of the notices that a machine was another one before.
const anotherMachine = "another-machine"

// formerNotices say which device this one was before, until that has been taken out
// or turns out to live.
func (s *session) formerNotices() {
	n := s.home.node.Notices
	lives := map[hypercore.Key]bool{}
	for _, p := range s.cloud.Peers() {
		lives[p.Key()] = true
	}
	for _, d := range s.cloud.Devices() {
		i := slices.IndexFunc(s.cloud.Former(), func(f cloud.Former) bool { return f.Device == hypercore.Key(d.Key) })
		if i < 0 {
			continue
		}
		id := hypercore.Key(d.Key).String()[:8]
		if d.Status != identity.In || lives[hypercore.Key(d.Key)] {
			n.Clear(anotherMachine, id)
			continue
		}
		var kept []string
		for _, info := range s.cloud.Spaces(cloud.Folder) {
			if path := s.cloud.Keep(s.cloud.Self(), info.ID).Path; path != "" && path == s.cloud.Keep(d.Key, info.ID).Path {
				kept = append(kept, called(info))
			}
		}
		why := "its data were copied, or put back from a backup"
		if s.cloud.Former()[i].Behind {
			why = "the others had more of what it wrote than was here, as of a disk that was put back to an earlier state"
		}
		text := fmt.Sprintf("this machine goes on as another one beside %s %s: %s", d.Name, id, why)
		if len(kept) > 0 {
			text += "; it has taken over " + strings.Join(kept, ", ")
		}
		n.Raise(client.Notice{Code: anotherMachine, Subject: id, Severity: client.Warning, Text: text, Fix: "bevy machines rm " + id + ", if that one is gone for good"})
	}
}

// self is what is known of this device.
func (s *session) self() (identity.Device, bool) {
	for _, d := range s.cloud.Devices() {
		if d.Key == s.cloud.Self() {
			return d, true
		}
	}
	return identity.Device{}, false
}

// folderNotices has the notices of folders be those of the node.
func (s *session) folderNotices() {
	n := s.home.node.Notices
	now := map[[2]string]bool{}
	for _, k := range s.all() {
		k.mu.Lock()
		keeper := k.keeper
		k.mu.Unlock()
		if keeper == nil {
			continue
		}
		name := called(k.space.Info())
		for _, x := range keeper.Status().Notices {
			severity := client.Info
			switch x.Severity {
			case disk.Warning:
				severity = client.Warning
			case disk.Severe:
				severity = client.Problem
			}
			now[[2]string{x.Code, name}] = true
			n.Raise(client.Notice{Code: x.Code, Subject: name, Severity: severity, Text: x.Text, Fix: x.Fix})
		}
	}
	s.mu.Lock()
	before := s.raised
	s.raised = now
	s.mu.Unlock()
	for key := range before {
		if !now[key] {
			n.Clear(key[0], key[1])
		}
	}
}

// ping measures how long a message to a device and back takes.
func (s *session) ping(ctx context.Context, d identity.Device) (time.Duration, error) {
	for _, p := range s.cloud.Peers() {
		if p.Key() != hypercore.Key(d.Key) {
			continue
		}
		type answer struct {
			rtt time.Duration
			err error
		}
		got := make(chan answer, 1)
		p.Ping(func(rtt time.Duration, err error) { got <- answer{rtt, err} })
		select {
		case a := <-got:
			return a.rtt, a.err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return 0, errNotConnected
}

// errNotConnected: there is no connection to the machine.
var errNotConnected = errors.New("there is no connection to it")
