package cloudlab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// seeds are BEVY_SEED, a random one in the long form, and a few in the short one.
func seeds(t *testing.T) []uint64 {
	if s := os.Getenv("BEVY_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("BEVY_SEED: %v", err)
		}
		return []uint64{seed}
	}
	if os.Getenv("BEVY_LONG") == "1" {
		return []uint64{rand.Uint64N(1e6)}
	}
	return []uint64{1, 2}
}

// lifeTime is how long the short form lasts; BEVY_LIFE says another time.
func lifeTime(t *testing.T) time.Duration {
	d := 4 * time.Second
	if os.Getenv("BEVY_LONG") == "1" {
		d = 10 * time.Minute
	}
	if s := os.Getenv("BEVY_LIFE"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatalf("BEVY_LIFE: %v", err)
		}
	}
	return d
}

// family are machines of one owner that have one folder.
func (l *lab) family(places ...place) []*machine {
	l.t.Helper()
	var all []*machine
	for _, p := range places {
		m := l.machine(p)
		m.up()
		if len(all) > 0 {
			m.joins(all[0])
		}
		all = append(all, m)
	}
	for _, m := range all {
		// The others hear of the folder by and by; adding it before would make another.
		if m != all[0] {
			l.await(m.name+" knows the folder", 30*time.Second, func() string {
				_, err := m.things()
				if err != nil {
					return err.Error()
				}
				return ""
			})
		}
		m.must("add", "--no-wait", m.folder)
	}
	return all
}

// People work on three machines of one owner at the same time, and these live
// through what happens to machines: they are killed in the middle of anything, and
// their cables are pulled out. In the end all are the same, nothing that was
// acknowledged is lost, and nothing that was removed is back.
func TestLife(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("BEVY_SEED=%d", seed), func(t *testing.T) { live(t, seed) })
	}
}

func live(t *testing.T, seed uint64) {
	l := newLab(t)
	life := lifeTime(t)
	all := l.family(attic, laptop, place{"oak", natlab.FullCone})
	l.settle(all, time.Minute)

	m := newModel(l, seed)
	cut := map[*machine]bool{}
	var kills, cuts, acts int
	for end := time.Now().Add(life); time.Now().Before(end); {
		on := all[m.rng.IntN(len(all))]
		switch n := m.rng.IntN(100); {
		case n < 3:
			on.kill()
			kills++
		case n < 7:
			for _, x := range all {
				if x.cmd == nil {
					x.up()
				}
			}
		case n < 10:
			if !cut[on] {
				cut[on] = true
				cuts++
				if err := on.host.Unplug(); err != nil {
					t.Fatal(err)
				}
			}
		case n < 14:
			for x := range cut {
				delete(cut, x)
				if err := x.host.Plug(); err != nil {
					t.Fatal(err)
				}
			}
		case n < 20:
			m.put(on)
		case n < 25:
			_ = m.hear(on) // it may be down
		default:
			acts++
			if err := m.act(on); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(m.rng.IntN(20)) * time.Millisecond)
	}
	t.Logf("%d acts, %d kills, %d cables pulled out", acts, kills, cuts)
	for _, x := range all {
		if cut[x] {
			if err := x.host.Plug(); err != nil {
				t.Fatal(err)
			}
		}
		if x.cmd == nil {
			x.up()
		}
	}
	now := l.settle(all, time.Minute)
	for _, wrong := range m.check(all[0], now) {
		t.Error(wrong)
	}
	l.sound(all)
}

// settle waits until all machines have the same on their disks and in the cloud,
// know it, and nothing is left to do; it returns what that is.
func (l *lab) settle(all []*machine, limit time.Duration) (now map[string]string) {
	l.t.Helper()
	var calm time.Time
	l.await("all are the same", limit, func() string {
		why := func() string {
			var trees []map[string]string
			for i, m := range all {
				f, err := m.things()
				if err != nil {
					return err.Error()
				}
				if f.State == "paused" {
					_ = m.call("POST", "/answers/confirm", nil, nil) // they were meant
				}
				if f.State != "safe" || f.Copies != len(all) || f.Missing > 0 {
					st, _ := m.status()
					return fmt.Sprintf("%s says %s, %s, %s", m.name, text(f), text(notices(st)), text(st.Machines))
				}
				tree, err := m.tree()
				if err != nil {
					return err.Error()
				}
				if why := m.saysSame(tree); why != "" {
					return why
				}
				if i > 0 {
					if d := differ(trees[0], tree); d != "" {
						return fmt.Sprintf("%s and %s differ: %s", all[0].name, m.name, d)
					}
				}
				trees = append(trees, tree)
			}
			now = trees[0]
			return ""
		}()
		if why != "" {
			calm = time.Time{}
			return why
		}
		if calm.IsZero() {
			calm = time.Now()
		}
		if time.Since(calm) < time.Second {
			return "it is to stay so for a second"
		}
		return ""
	})
	return now
}

// notices are those about the folder.
func notices(st client.Status) (list []client.Notice) {
	return slices.DeleteFunc(st.Notices, func(n client.Notice) bool { return n.Code == "words-not-written" })
}

// saysSame compares what the node lists with what is on its disk.
func (m *machine) saysSame(tree map[string]string) string {
	entries, err := m.list()
	if err != nil {
		return err.Error()
	}
	listed := map[string]string{}
	for _, e := range entries {
		switch e.Kind {
		case "folder":
			listed[e.Path] = "folder"
		case "link":
			listed[e.Path] = " " + nameOf(e)
		default:
			listed[e.Path] = e.Mode + " " + nameOf(e)
		}
		if e.Error != "" {
			return fmt.Sprintf("%s lists %s", m.name, text(e))
		}
	}
	if d := differ(listed, tree); d != "" {
		for path, line := range listed {
			if tree[path] != line {
				d += m.past(path)
				break
			}
		}
		return fmt.Sprintf("on %s the cloud and the disk differ: %s", m.name, d)
	}
	return ""
}

// sound holds that no machine has anything that is damaged.
func (l *lab) sound(all []*machine) {
	l.t.Helper()
	for _, m := range all {
		l.await(m.name+" has everything, undamaged", 30*time.Second, func() string {
			got, err := m.check()
			if err != nil {
				return err.Error()
			}
			if got.Problems > 0 || got.Missing > 0 {
				return text(got)
			}
			return ""
		})
	}
}
