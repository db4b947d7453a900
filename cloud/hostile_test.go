package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// status is how another device stands.
func (d *device) status(of noise.Key) identity.Status {
	for _, other := range d.Devices() {
		if other.Key == of {
			return other.Status
		}
	}
	return 0
}

// A device takes back the words of others, and says things in their place.
func TestADeviceSpeaksForItselfAlone(t *testing.T) {
	a := first(t)
	s := a.makeTable("notes")
	check(t, a.SetKeep(t.Context(), s.Info().ID, Keep{Path: "/photos"}))
	b, h := a.admit("attic"), a.admit("thief")
	cut := link(t, a, h)
	h.until("notes", func() bool { return h.Keep(a.Self(), s.Info().ID).Path != "" })
	check(t, a.Revoke(t.Context(), b.Self()))
	h.until("the attic is out", func() bool { return h.status(b.Self()) == identity.Revoked })
	// It knows all that it takes away.
	entries := map[string][]byte{keepKeys + hypercore.Key(a.Self()).String() + "/" + s.Info().ID: []byte(`{"path":"/etc"}`)}
	for _, key := range h.controlKeys(certKeys, revocationKeys, writerKeys, sealedKeys) {
		entries[key] = nil
	}
	entries[spaceKeys+"../../x"] = []byte(`{"id":"../../x","kind":"folder","name":"x"}`)
	entries[spaceKeys+"00000000000000000000000000000001"] = []byte(`{"id":"00000000000000000000000000000001","kind":"folder","name":"\u001b[2J"}`)
	entries["mark/"] = []byte("x")
	if len(entries) < 8 {
		t.Fatalf("it takes back %d entries only", len(entries))
	}
	check(t, h.putAll(t.Context(), entries))
	defer a.control.tree.Notify(a.options().Changed)()
	a.until("the thief was heard", func() bool { _, err := a.control.tree.Get(t.Context(), []byte("mark/")); return err == nil })
	cut()
	check(t, a.refresh(t.Context()))
	// A new device, who has seen nothing of it come, comes to the same.
	c := a.admit("phone")
	cut = link(t, a, c)
	c.until("notes", func() bool { return c.Keep(a.Self(), s.Info().ID).Path != "" && c.status(h.Self()) == identity.In })
	cut()
	for _, d := range []*device{a, c} {
		if got := d.Keep(a.Self(), s.Info().ID).Path; got != "/photos" {
			t.Errorf("%s: the laptop keeps %q", d.name, got)
		}
		if got := d.status(b.Self()); got != identity.Revoked {
			t.Errorf("%s: the attic is %v", d.name, got)
		}
		if got := d.status(a.Self()); got != identity.In {
			t.Errorf("%s: the laptop is %v", d.name, got)
		}
		if n := len(d.Spaces(Folder)); n != 0 {
			t.Errorf("%s: %d folders with names that can't be", d.name, n)
		}
	}
}

// controlKeys returns the keys of the control tree with prefixes.
func (d *device) controlKeys(prefixes ...string) (keys []string) {
	d.t.Helper()
	for _, p := range prefixes {
		for e, err := range d.control.tree.Range(d.t.Context(), under(p)) {
			check(d.t, err)
			keys = append(keys, string(e.Key))
		}
	}
	return keys
}

func TestLogsOfOthersAreNotOnesOwn(t *testing.T) {
	a := first(t)
	w := writersOf(a.makeTable("notes"))[0]
	h := a.admit("thief")
	r := h.newRecord(a.space("notes").Info())
	check(t, r.check(r.Space, r.Tree))
	r.Tree = w.Tree.Key()
	r.Signature = h.secrets.pair().Sign(r.message())
	if err := r.check(r.Space, r.Tree); !errors.Is(err, errRecord) {
		t.Errorf("a record of another's log: %v", err)
	}
}

// Of what one device calls its logs so many count as others can take.
func TestTheLogsOfADeviceAreBounded(t *testing.T) {
	a := first(t)
	self := hypercore.Key(a.Self())
	a.mu.Lock()
	st := &state{roster: a.roster}
	a.mu.Unlock()
	st.records = map[string][]writerRecord{}
	var records []writerRecord
	for i := range maxLogs + 10 {
		records = append(records, writerRecord{Space: "x", Device: self, Tree: hypercore.Key{byte(i), byte(i >> 8)}}, writerRecord{Space: controlSpace, Device: hypercore.Key{1}})
	}
	slices.Reverse(records)
	st.takeRecords(records)
	if got := st.records["x"]; len(got) != maxLogs || len(st.records[controlSpace]) != 0 || !slices.IsSortedFunc(got, func(a, b writerRecord) int { return bytes.Compare(a.Tree[:], b.Tree[:]) }) {
		t.Errorf("%d logs, and %d of a stranger", len(got), len(st.records[controlSpace]))
	}
}

// Two devices take out two others at the same time, and each gives the new key
// to the one that the other has taken out.
func TestKeysThatLeakedAreReplaced(t *testing.T) {
	a := first(t)
	b, x, y := a.admit("attic"), a.admit("phone"), a.admit("tablet")
	cut := link(t, a, b)
	everybody := func() bool { return len(b.Devices()) == 4 }
	b.until("all devices", everybody)
	cut()
	check(t, a.Revoke(t.Context(), x.Self()))
	check(t, b.Revoke(t.Context(), y.Self()))
	newest := func(d *device) string {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.newest
	}
	had := map[string]bool{newest(a): true, newest(b): true}
	if len(had) != 2 {
		t.Fatal("the keys are the same")
	}
	a.reopen(false)
	b.reopen(false)
	for range 8 { // the new keys of both may cross
		cut = link(t, a, b)
		done := func(d *device) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return !had[d.newest] && !d.leaked && d.newest != ""
		}
		for !done(a) || !done(b) || newest(a) != newest(b) {
			select {
			case <-a.changed:
			case <-b.changed:
			}
		}
		cut()
		// Logs may have been begun with a key that came between.
		for range 2 {
			a.reopen(false)
			b.reopen(false)
		}
		if a.secrets.Epoch == b.secrets.Epoch && !had[a.secrets.Epoch] {
			break
		}
	}
	for _, d := range []*device{a, b} {
		if had[d.secrets.Epoch] || a.secrets.Epoch != d.secrets.Epoch {
			t.Errorf("%s writes by key %s", d.name, d.secrets.Epoch)
		}
		if d.status(x.Self()) != identity.Revoked || d.status(y.Self()) != identity.Revoked {
			t.Errorf("%s: %v, %v", d.name, d.status(x.Self()), d.status(y.Self()))
		}
		for _, gone := range []*device{x, y} {
			key := sealedKeys + d.secrets.Epoch + "/" + hypercore.Key(gone.Self()).String()
			if slices.Contains(d.controlKeys(sealedKeys), key) {
				t.Errorf("%s has the key of %s", gone.name, d.name)
			}
		}
	}
}

// A device that was away while another was taken out comes back, and reads and
// writes on.
func TestADeviceThatWasAwayGoesOn(t *testing.T) {
	a := first(t)
	a.write(a.makeTable("notes"), "one", "1")
	b, x := a.admit("attic"), a.admit("phone")
	cut := link(t, a, b)
	b.gets("notes", "one", "1")
	cut()
	check(t, a.Revoke(t.Context(), x.Self()))
	<-a.Stale()
	a.reopen(false)
	a.write(a.space("notes"), "two", "2")
	b.write(b.space("notes"), "away", "b")
	// One more is let in by who does not know of the new key.
	c := b.admit("tablet")
	cut = link(t, a, b)
	a.gets("notes", "away", "b")
	<-b.Stale()
	cut()
	b.reopen(false)
	link(t, a, b)
	link(t, b, c)
	b.gets("notes", "two", "2")
	c.gets("notes", "two", "2")
	if got := a.status(x.Self()); got != identity.Revoked {
		t.Errorf("the phone is %v", got)
	}
}

// A revoked device that keeps its connection gets nothing by it.
func TestConnectionsEndWithTheRightToThem(t *testing.T) {
	a := first(t)
	b := a.admit("attic")
	was := a.Attacher(b.Self())
	mux := protomux.New(protomux.Options{})
	was(mux)
	if mux.Ended() {
		t.Fatal("a device of the cloud was sent away")
	}
	late := a.Attacher(b.Self())
	check(t, a.Revoke(t.Context(), b.Self()))
	if !mux.Ended() {
		t.Error("the connection goes on")
	}
	// One that was offered logs before, and is only attached now.
	other := protomux.New(protomux.Options{})
	late(other)
	if !other.Ended() {
		t.Error("the connection that was about to begin goes on")
	}
	mux.Dispatch()
	other.Dispatch()
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.peers); n != 0 {
		t.Errorf("%d peers stay", n)
	}
}

// What is forgotten stays so, whatever else is saved at the time.
func TestAForgottenSeedStaysForgotten(t *testing.T) {
	a := first(t)
	b := a.admit("attic")
	check(t, a.Revoke(t.Context(), b.Self()))
	<-a.Stale()
	var at sync.WaitGroup
	at.Go(func() { check(t, a.SeedShown()) })
	at.Go(func() { check(t, a.ForgetSeed()) })
	at.Wait()
	a.mu.Lock()
	writer := a.next.Writer
	a.mu.Unlock()
	a.reopen(false)
	if _, here, shown := a.Seed(); here || !shown || a.secrets.Writer != writer {
		t.Errorf("here %v, shown %v, new logs %v", here, shown, a.secrets.Writer == writer)
	}
}

// A machine is copied, and both copies go on.
func TestBothCopiesGoOnAndMeet(t *testing.T) {
	disk := storagetest.NewFaulty()
	open := func(f *storagetest.Faulty, adopt bool) *corestore.Store {
		o := f.Disk()
		o.Adopt = adopt
		s, err := corestore.OpenDisk(o, corestore.Options{})
		check(t, err)
		return s
	}
	vault := &MemoryVault{}
	a := newDeviceOn(t, "laptop", open(disk, false), vault, func(o Options) (*Cloud, error) { return Create(t.Context(), o, nil) })
	a.write(a.makeTable("notes"), "one", "1")
	check(t, a.store.Sync())
	b := newDeviceOn(t, "copy", open(disk.PowerCut(1), true), &MemoryVault{Bytes: slices.Clone(vault.Bytes)}, func(o Options) (*Cloud, error) {
		o.Copied = true
		return Open(t.Context(), o)
	})
	a.write(a.space("notes"), "two", "by the original")
	b.write(b.space("notes"), "three", "by the copy")
	link(t, a, b)
	a.gets("notes", "three", "by the copy")
	b.gets("notes", "two", "by the original")
	b.gets("notes", "one", "1")
	if a.Self() == b.Self() || len(a.secrets.Chain) != 1 || len(b.secrets.Chain) != 1 {
		t.Error("the copies are one device, or the one leans on the other")
	}
}

// Whenever the power fails, the device opens its cloud again, has what it had
// written, and writes on.
func TestPowerCuts(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		vault []byte
		wrote bool
		point uint64
	}
	inviter := first(t)
	inviter.makeTable("theirs")
	seed := [32]byte{7}
	admission, err := inviter.Admit(t.Context(), pair.Request{Device: noise.NewKeyPair(seed).Public, Name: "attic"})
	check(t, err)
	disk, vault := storagetest.NewFaulty(), &MemoryVault{}
	store, err := corestore.OpenDisk(disk.Disk(), corestore.Options{})
	check(t, err)
	var mu sync.Mutex
	var crashes []crash
	wrote := false
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%3 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), slices.Clone(vault.Bytes), wrote, p.Number})
		}
	})
	a := newDeviceOn(t, "attic", store, vault, func(o Options) (*Cloud, error) {
		// A cloud of its own that it had before is replaced.
		c, err := Create(t.Context(), o, nil)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(c.Close(), Join(o, seed, admission)); err != nil {
			return nil, err
		}
		return Open(t.Context(), o)
	})
	if a.ID() != inviter.ID() {
		t.Fatal("it is in another cloud")
	}
	a.write(a.makeTable("notes"), "one", "1")
	check(t, a.store.Sync())
	mu.Lock()
	wrote = true
	mu.Unlock()
	x := a.admit("phone")
	check(t, a.Revoke(t.Context(), x.Self()))
	<-a.Stale()
	a.reopen(false)
	a.write(a.space("notes"), "two", "2")
	mu.Lock()
	all := crashes
	crashes = nil
	mu.Unlock()
	disk.Hook(nil)
	if len(all) < 8 {
		t.Fatalf("there were %d crashes only", len(all))
	}
	for _, c := range all {
		func() {
			store, err := corestore.OpenDisk(c.disk.Disk(), corestore.Options{})
			check(t, err)
			v := &MemoryVault{Bytes: c.vault}
			d := &device{t: t, store: store, vault: v, name: "attic", changed: make(chan struct{}, 1)}
			d.Cloud, err = Open(t.Context(), d.options())
			if errors.Is(err, ErrNoCloud) && !c.wrote {
				d.Cloud, err = Create(t.Context(), d.options(), nil)
			}
			if err != nil {
				t.Fatalf("after a power cut at %d: %v", c.point, err)
			}
			if got := d.reads("notes", "one"); c.wrote && got != "1" {
				t.Errorf("after a power cut at %d it reads %q", c.point, got)
			}
			d.write(d.makeTable("more"), "k", "v")
			check(t, errors.Join(d.Close(), store.Close()))
		}()
	}
}

// FuzzMessages has a stranger and a device of the cloud say anything.
func FuzzMessages(f *testing.F) {
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		f.Fatal(err)
	}
	c, err := Create(context.Background(), Options{Store: store, Vault: &MemoryVault{}, Device: "laptop"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := errors.Join(c.Close(), store.Close()); err != nil {
			f.Error(err)
		}
	})
	c.mu.Lock()
	h, err := json.Marshal(hello{Chain: c.secrets.Chain, Control: c.records[controlSpace]})
	c.mu.Unlock()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, uint8(messageHello), h)
	f.Add(true, uint8(messageHello), h)
	f.Add(true, uint8(messageHoldings), []byte(`{"control":{"trees":{},"missing":-1}}`))
	f.Add(true, uint8(messagePing), []byte("12345678"))
	f.Add(true, uint8(messagePong), []byte("12345678"))
	f.Add(true, uint8(messageMine), []byte(`{"":1}`))
	f.Add(true, uint8(messageHeads), []byte(`[{"log":"","length":1,"roots":"AQ=="}]`))
	f.Add(true, uint8(messageOffered), []byte(nil))
	f.Fuzz(func(t *testing.T, member bool, number uint8, b []byte) {
		p := &Peer{cloud: c, key: hypercore.Key{1}, mux: protomux.New(protomux.Options{}), member: member, pings: map[uint64]func(){}}
		ch, err := p.mux.Open(protomux.ChannelOptions{Protocol: protocol})
		check(t, err)
		on := []func(*protomux.Channel, []byte) error{p.onHello, p.onHoldings, p.onPing, p.onPong, p.onMine, p.onHeads, p.onOffered}[number%7]
		_ = on(ch, b)
		if !member && p.holdings != nil {
			t.Error("a stranger says what it has")
		}
		if n := len(c.Devices()); n != 1 {
			t.Errorf("%d devices", n)
		}
		var r writerRecord
		if json.Unmarshal(b, &r) == nil {
			_ = r.check(controlSpace, r.Tree)
		}
		if _, ok := unseal(b, [32]byte{1}); ok {
			t.Error("anything can be opened")
		}
		if k, err := readSealed(string(b), nil); err == nil && (k.epoch == "" || len(k.epoch) > maxEpoch) {
			t.Errorf("epoch %q", k.epoch)
		}
	})
}
