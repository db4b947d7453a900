package cloud

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A device is a store with a cloud on it.
type device struct {
	*Cloud
	t       *testing.T
	store   *corestore.Store
	vault   *MemoryVault
	name    string
	changed chan struct{}
}

// newDevice makes a device whose cloud begin opens.
func newDevice(t *testing.T, name string, begin func(Options) (*Cloud, error)) *device {
	t.Helper()
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return newDeviceOn(t, name, store, &MemoryVault{}, begin)
}

// newDeviceOn makes a device of a store and a vault.
func newDeviceOn(t *testing.T, name string, store *corestore.Store, vault *MemoryVault, begin func(Options) (*Cloud, error)) *device {
	t.Helper()
	d := &device{t: t, store: store, vault: vault, name: name, changed: make(chan struct{}, 1)}
	var err error
	if d.Cloud, err = begin(d.options()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Close(), d.store.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return d
}

func (d *device) options() Options {
	return Options{Store: d.store, Vault: d.vault, Device: d.name, Changed: func() {
		select {
		case d.changed <- struct{}{}:
		default:
		}
	}}
}

// reopen closes the cloud and opens it again.
func (d *device) reopen(copied bool) {
	d.t.Helper()
	if err := d.Close(); err != nil {
		d.t.Fatal(err)
	}
	o := d.options()
	o.Copied = copied
	var err error
	if d.Cloud, err = Open(d.t.Context(), o); err != nil {
		d.t.Fatal(err)
	}
}

// until waits until something about the cloud is so.
func (d *device) until(what string, is func() bool) {
	d.t.Helper()
	for !is() {
		select {
		case <-d.changed:
		case <-d.t.Context().Done():
			d.t.Fatalf("%s: never came: %s", d.name, what)
		}
	}
}

// first makes a cloud with one device.
func first(t *testing.T) *device {
	return newDevice(t, "laptop", func(o Options) (*Cloud, error) { return Create(t.Context(), o, nil) })
}

// admit makes another device and lets it in.
func (d *device) admit(name string) *device {
	d.t.Helper()
	seed := [32]byte([]byte((name + "................................")[:32]))
	admission, err := d.Admit(d.t.Context(), pair.Request{Device: noise.NewKeyPair(seed).Public, Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return newDevice(d.t, name, func(o Options) (*Cloud, error) {
		if err := Join(o, seed, admission); err != nil {
			return nil, err
		}
		return Open(d.t.Context(), o)
	})
}

// link connects two devices, again and again as a swarm does, until cut is called.
func link(t *testing.T, a, b *device) (cut func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() {
		for ctx.Err() == nil {
			x, y := transport.Pipe()
			var ends sync.WaitGroup
			run := func(d *device, conn transport.Conn, start func(context.Context, transport.Conn, secretstream.Options) (*secretstream.Stream, error)) {
				c := d.Cloud
				stream, err := start(ctx, conn, secretstream.Options{KeyPair: c.KeyPair(), KeepAlive: -1})
				if err != nil {
					conn.Close()
					return
				}
				_ = d.store.Replicate(ctx, stream, corestore.ReplicateOptions{Allow: c.Access, Attached: c.Attacher(stream.RemoteKey())})
			}
			ends.Go(func() {
				run(a, x, func(ctx context.Context, c transport.Conn, o secretstream.Options) (*secretstream.Stream, error) {
					return secretstream.Client(ctx, c, o)
				})
			})
			ends.Go(func() {
				run(b, y, func(ctx context.Context, c transport.Conn, o secretstream.Options) (*secretstream.Stream, error) {
					return secretstream.Server(ctx, c, o)
				})
			})
			ends.Wait()
		}
	})
	cut = func() {
		cancel()
		both.Wait()
	}
	t.Cleanup(cut)
	return cut
}

// write puts an entry into a space.
func (d *device) write(s *Space, key, value string) {
	d.t.Helper()
	if err := s.Write(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	b, err := s.Tree().Batch(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	defer b.Close()
	if err := b.Put(d.t.Context(), []byte(key), []byte(value)); err != nil {
		d.t.Fatal(err)
	}
	if err := b.Flush(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// reads tells what a device reads of an entry; "" if there is none.
func (d *device) reads(space, key string) string {
	info, err := d.Find(Table, "", space)
	if err != nil {
		return ""
	}
	s, err := d.Space(info.ID)
	if err != nil {
		return ""
	}
	e, err := s.Tree().Get(d.t.Context(), []byte(key))
	if err != nil {
		if !errors.Is(err, tree.ErrNotFound) {
			d.t.Error(err)
		}
		return ""
	}
	return string(e.Value)
}

// gets waits until a device reads a value.
func (d *device) gets(space, key, value string) {
	d.t.Helper()
	info := func() SpaceInfo { i, _ := d.Find(Table, "", space); return i }
	d.until("space "+space, func() bool { return info().ID != "" })
	s, err := d.Space(info().ID)
	if err != nil {
		d.t.Fatal(err)
	}
	defer s.Tree().Notify(d.options().Changed)()
	d.until(key+" = "+value, func() bool { return d.reads(space, key) == value })
}

func (d *device) makeTable(name string) *Space {
	d.t.Helper()
	s, err := d.Make(d.t.Context(), SpaceInfo{Kind: Table, Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *device) space(name string) *Space {
	d.t.Helper()
	info, err := d.Find(Table, "", name)
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := d.Space(info.ID)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func TestDevicesWriteTogether(t *testing.T) {
	a := first(t)
	notes := a.makeTable("notes")
	a.write(notes, "one", "by a")
	b := a.admit("attic")
	link(t, a, b)
	b.gets("notes", "one", "by a")
	b.write(b.space("notes"), "two", "by b")
	a.gets("notes", "two", "by b")
	// A third one comes by the second, and the first hears of it.
	c := b.admit("phone")
	link(t, b, c)
	c.gets("notes", "one", "by a")
	c.write(c.space("notes"), "three", "by c")
	a.gets("notes", "three", "by c")
	// It knows the first only from what the second says, and is let in.
	cut := link(t, a, c)
	a.until("the phone is a peer", func() bool {
		return slices.ContainsFunc(a.Peers(), func(p *Peer) bool { return p.Key() == hypercore.Key(c.Self()) })
	})
	cut()
	if n := len(a.Devices()); n != 3 {
		t.Errorf("%d devices", n)
	}
}

func TestStatesAreMadeFromLogsAlone(t *testing.T) {
	a := first(t)
	a.write(a.makeTable("notes"), "one", "1")
	if err := a.SetKeep(t.Context(), a.space("notes").Info().ID, Keep{Path: "/somewhere"}); err != nil {
		t.Fatal(err)
	}
	b := a.admit("attic")
	cut := link(t, a, b)
	b.gets("notes", "one", "1")
	cut()
	for _, d := range []*device{a, b} {
		d.reopen(false)
		if got := d.reads("notes", "one"); got != "1" {
			t.Errorf("%s reads %q", d.name, got)
		}
		if k := d.Keep(a.Self(), d.space("notes").Info().ID); k.Path != "/somewhere" {
			t.Errorf("%s knows of %+v", d.name, k)
		}
	}
	a.write(a.space("notes"), "two", "2")
	b.write(b.space("notes"), "three", "3")
	link(t, a, b)
	a.gets("notes", "three", "3")
	b.gets("notes", "two", "2")
}

func TestACopyWritesOtherLogs(t *testing.T) {
	a := first(t)
	a.write(a.makeTable("notes"), "one", "1")
	was := a.Self()
	a.reopen(true)
	if a.Self() == was {
		t.Fatal("the copy has the key of the original")
	}
	if got := a.reads("notes", "one"); got != "1" {
		t.Fatalf("the copy reads %q", got)
	}
	before := writersOf(a.space("notes"))
	a.write(a.space("notes"), "two", "2")
	if after := writersOf(a.space("notes")); len(before) != 1 || len(after) != 2 {
		t.Fatalf("%d, then %d writers", len(before), len(after))
	}
	for _, w := range writersOf(a.space("notes")) {
		if w.Own == (hypercore.Key(was) == w.Device) {
			t.Errorf("%v writes %v: own %v", w.Device, w.Tree.Key(), w.Own)
		}
	}
	a.reopen(false)
	if one, two := a.reads("notes", "one"), a.reads("notes", "two"); one != "1" || two != "2" {
		t.Errorf("%q, %q", one, two)
	}
}

func writersOf(s *Space) (list []Writer) {
	s.Writers(func(w Writer) { list = append(list, w) })
	return list
}

func TestARevokedDeviceIsOut(t *testing.T) {
	a := first(t)
	a.makeTable("notes")
	b, c := a.admit("attic"), a.admit("phone")
	cutAB, cutAC := link(t, a, b), link(t, a, c)
	c.until("notes", func() bool { _, err := c.Find(Table, "", "notes"); return err == nil })
	c.write(c.space("notes"), "early", "by the phone")
	a.gets("notes", "early", "by the phone")
	b.gets("notes", "early", "by the phone")
	cutAC()
	c.write(c.space("notes"), "late", "by the thief")
	if err := a.Revoke(t.Context(), c.Self()); err != nil {
		t.Fatal(err)
	}
	<-a.Stale()
	<-b.Stale()
	cutAB()
	a.reopen(false)
	b.reopen(false)
	link(t, a, b)
	link(t, a, c)
	a.write(a.space("notes"), "secret", "not for the phone")
	b.gets("notes", "secret", "not for the phone")
	for _, d := range []*device{a, b} {
		if got := d.reads("notes", "early"); got != "by the phone" {
			t.Errorf("%s reads %q: what was said before counts", d.name, got)
		}
		if got := d.reads("notes", "late"); got != "" {
			t.Errorf("%s reads %q of a revoked device", d.name, got)
		}
	}
	if got := c.reads("notes", "secret"); got != "" {
		t.Errorf("a revoked device reads %q", got)
	}
	for _, p := range a.Peers() {
		if p.Key() == hypercore.Key(c.Self()) {
			t.Error("a revoked device is a peer")
		}
	}
	// What is written now is not encrypted by a key that it has.
	if c.secrets.Keys[a.secrets.Epoch] != nil || a.secrets.Epoch != b.secrets.Epoch {
		t.Error("a revoked device has the new key")
	}
}

func TestTheSeedIsEnough(t *testing.T) {
	a := first(t)
	a.write(a.makeTable("notes"), "one", "1")
	b := a.admit("attic")
	cut := link(t, a, b)
	b.gets("notes", "one", "1")
	seed, here, shown := a.Seed()
	if !here || shown {
		t.Fatal("the seed is not here, or was shown")
	}
	if _, here, _ := b.Seed(); here {
		t.Fatal("the seed was handed over")
	}
	cut()
	// The first machine is lost. A third one gets the words.
	c := newDevice(t, "new laptop", func(o Options) (*Cloud, error) { return Create(t.Context(), o, &seed) })
	if c.ID() != a.ID() {
		t.Fatal("the seed made another cloud")
	}
	cut = link(t, b, c)
	c.gets("notes", "one", "1")
	if err := c.Revoke(t.Context(), a.Self()); err != nil {
		t.Fatal(err)
	}
	<-c.Stale()
	<-b.Stale()
	cut()
	b.reopen(false)
	c.reopen(false)
	// One more gets the newer key by the seed, too.
	d := newDevice(t, "newest laptop", func(o Options) (*Cloud, error) { return Create(t.Context(), o, &seed) })
	c.write(c.space("notes"), "two", "2")
	link(t, c, d)
	d.gets("notes", "two", "2")
}

func TestStrangersGetNothing(t *testing.T) {
	a, x := first(t), first(t)
	s := a.makeTable("notes")
	a.write(s, "one", "1")
	cut := link(t, a, x)
	w := writersOf(s)[0]
	if a.Access(x.Self(), w.Tree.Key()).Upload {
		t.Error("a stranger may read")
	}
	if !a.Access(x.Self(), hypercore.Key{1}).Upload {
		t.Error("what is not the cloud's is not for those who have its key")
	}
	if err := a.Update(t.Context(), s.Info().ID, func(i *SpaceInfo) { i.Removed = true }); err != nil {
		t.Fatal(err)
	}
	cut()
	a.reopen(false)
	if a.Access(x.Self(), w.Tree.Key()).Upload {
		t.Error("a stranger may read what was removed")
	}
	for _, d := range a.Devices() {
		if d.Key == x.Self() && d.Status == identity.In {
			t.Error("a stranger was let in")
		}
	}
}

// TestNamesAreTakenOnce lets in devices that want the same name: each is found by its
// own.
func TestNamesAreTakenOnce(t *testing.T) {
	a := first(t)
	b := a.admit("laptop")
	again, err := a.Admit(t.Context(), pair.Request{Device: b.Self(), Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	a.admit("lapdog")
	var names []string
	for _, d := range a.Devices() {
		found, err := a.Device(d.Name)
		if err != nil || found.Key != d.Key {
			t.Errorf("%q finds %q: %v", d.Name, found.Name, err)
		}
		names = append(names, d.Name)
	}
	slices.Sort(names)
	if want := []string{"lapdog", "laptop", "laptop-2"}; !slices.Equal(names, want) || again.Chain[len(again.Chain)-1].Name != "laptop-2" {
		t.Errorf("the devices are called %q, not %q; asked again: %q", names, want, again.Chain[len(again.Chain)-1].Name)
	}
	if _, err := a.Device("lapdo"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a part of a name finds %v", err)
	}
}

// A device that is made from the words while it is alone can't know what the others
// are called. It takes another name once it meets one that has the same.
func TestADeviceMadeFromTheWordsTakesAnotherName(t *testing.T) {
	a := newDevice(t, "laptop", func(o Options) (*Cloud, error) { return Create(t.Context(), o, nil) })
	seed, _, _ := a.Seed()
	b := newDevice(t, "laptop", func(o Options) (*Cloud, error) { return Create(t.Context(), o, &seed) })
	link(t, a, b)
	b.until("the other one", func() bool { return len(b.Devices()) == 2 })
	a.until("the other one", func() bool { return len(a.Devices()) == 2 })
	for _, d := range []*device{a, b} {
		if _, err := d.NameApart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*device{a, b} {
		d.until("two names", func() bool {
			names := []string{d.DeviceName(a.Self()), d.DeviceName(b.Self())}
			slices.Sort(names)
			return slices.Equal(names, []string{"laptop", "laptop-2"})
		})
		if again, err := d.NameApart(t.Context()); err != nil || again {
			t.Errorf("named again: %v", err)
		}
	}
	b.reopen(false)
	if a.DeviceName(b.Self()) != b.DeviceName(b.Self()) {
		t.Errorf("after it was opened again it is %q", b.DeviceName(b.Self()))
	}
}

// FuzzFreeName holds that names that are made are names, and taken by nobody.
func FuzzFreeName(f *testing.F) {
	f.Add("laptop", "laptop-2")
	f.Add("パソコンパソコンパソコンパソコンパソコンパソ", "x")
	f.Fuzz(func(t *testing.T, wanted, other string) {
		if !identity.GoodName(wanted) {
			t.Skip()
		}
		in := func(key byte, name string) identity.Device {
			return identity.Device{Key: noise.Key{key}, Name: name, Status: identity.In}
		}
		name := freeName(wanted, noise.Key{9}, []identity.Device{in(1, wanted), in(2, other), in(9, wanted+"-2")})
		if !identity.GoodName(name) || name == wanted || name == other {
			t.Errorf("%q and %q are taken, and it is called %q", wanted, other, name)
		}
	})
}

// TestARevocationIsToldOnce waits until a cloud with a revoked device rests: what
// follows the control tree may say again what it knows.
func TestARevocationIsToldOnce(t *testing.T) {
	a := first(t)
	b := a.admit("phone")
	cut := link(t, a, b)
	a.until("it", func() bool { return len(a.Devices()) == 2 })
	b.makeTable("notes") // so that it has written
	a.until("notes", func() bool { _, err := a.Find(Table, "", "notes"); return err == nil })
	if err := a.Revoke(t.Context(), b.Self()); err != nil {
		t.Fatal(err)
	}
	<-a.Stale()
	cut()
	a.reopen(false)
	told := make(chan struct{}, 100)
	defer a.control.tree.Notify(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})()
	for range 20 {
		if err := a.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) >= 20 {
		t.Errorf("looking again 20 times was told %d times", len(told))
	}
}
