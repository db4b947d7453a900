package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// firstEpoch names the key that every cloud begins with. It follows from the
// owner's seed, so that the seed is enough to read what was written by it.
const firstEpoch = "0"

func firstKey(o identity.Owner) secret {
	k := o.Derive("cloud key " + firstEpoch)
	return k[:]
}

// Create makes a cloud, with this device in it. The owner is made at random if
// the seed is nil.
//
// With a seed it may be that of a cloud there is: this device then is one more
// in it, and gets the rest from the others once it reaches one.
func Create(ctx context.Context, o Options, seed *identity.Seed) (*Cloud, error) {
	o.fill()
	if _, err := loadSecrets(o.Vault); !errors.Is(err, ErrNoCloud) {
		if err == nil {
			err = ErrCloud
		}
		return nil, err
	}
	shown := seed != nil // who typed it has it
	if seed == nil {
		made, err := identity.NewSeed(o.Random)
		if err != nil {
			return nil, err
		}
		seed = &made
	}
	owner := identity.NewOwner(*seed)
	id := owner.Cloud()
	s := &secrets{Version: secretsVersion, Seed: seed[:], SeedShown: shown, Cloud: id[:], Epoch: firstEpoch, Keys: map[string]secret{firstEpoch: firstKey(owner)}}
	if err := s.renew(&o, owner.KeyPair(), nil); err != nil {
		return nil, err
	}
	return begin(ctx, o, s)
}

// ErrCloud: there is a cloud here already.
var ErrCloud = errors.New("there is a cloud here already")

// renew gives the device new keys, certified by an issuer who has a chain of
// certificates, and new logs.
func (s *secrets) renew(o *Options, issuer noise.KeyPair, chain [][]byte) error {
	device, err := newSecret(o.Random)
	if err != nil {
		return err
	}
	writer, err := newID(o.Random)
	if err != nil {
		return err
	}
	cert, err := identity.Certificate{
		Cloud: identity.CloudID(s.Cloud.array()), Device: noise.NewKeyPair(device.array()).Public,
		Name: o.Device, Issued: o.Clock.Now(), Admits: true,
	}.Sign(issuer)
	if err != nil {
		return fmt.Errorf("certify the device: %w", err)
	}
	s.Device, s.Writer, s.Chain = device, writer, append(slices.Clip(chain), cert.Encode())
	return nil
}

// begin saves new secrets and opens the cloud by them.
func begin(ctx context.Context, o Options, s *secrets) (*Cloud, error) {
	if err := s.save(o.Vault); err != nil {
		return nil, err
	}
	return recovered(ctx, o, s)
}

// Open opens the cloud that was made or joined here before: ErrNoCloud if none
// was.
func Open(ctx context.Context, o Options) (*Cloud, error) {
	o.fill()
	s, err := loadSecrets(o.Vault)
	if err != nil {
		return nil, err
	}
	if !o.Copied && !s.Behind {
		return recovered(ctx, o, s)
	}
	// The logs that were written until now are read on, as another's.
	old := newCloud(o, s)
	s.Before = append(s.Before, old.newRecord(SpaceInfo{ID: controlSpace}))
	if o.Device == "" || s.Behind { // it is the same machine
		if o.Device, err = s.name(); err != nil {
			return nil, err
		}
	}
	issuer, chain := noise.NewKeyPair(s.Device.array()), s.Chain
	if len(s.Seed) > 0 { // chains have an end
		issuer, chain = identity.NewOwner(s.Seed.array()).KeyPair(), nil
	}
	s.Former = append(s.Former, Former{Device: s.pair().Public, Behind: s.Behind, Time: o.Clock.Now()})
	if n := len(s.Former) - maxFormer; n > 0 {
		s.Former = s.Former[n:]
	}
	s.Behind = false
	if err := s.renew(&o, issuer, chain); err != nil {
		return nil, err
	}
	return begin(ctx, o, s)
}

// name is what the device is called by its certificate.
func (s *secrets) name() (string, error) {
	if len(s.Chain) == 0 {
		return "", errors.New("the device has no certificate")
	}
	cert, err := identity.DecodeCertificate(s.Chain[len(s.Chain)-1])
	return cert.Name, err
}

func newCloud(o Options, s *secrets) *Cloud {
	apart := map[hypercore.Key]bool{}
	for _, l := range s.Lost {
		apart[l.Head.Log] = true
	}
	return &Cloud{
		apart: apart,
		store: o.Store, cache: o.Cache, vault: o.Vault, clock: o.Clock, random: o.Random, log: o.Log, tell: o.Changed,
		stale: make(chan struct{}), wake: make(chan struct{}, 1), secrets: s,
		state:  state{roster: identity.NewRoster(identity.CloudID(s.Cloud.array()))},
		spaces: map[string]*Space{}, private: map[hypercore.Key]bool{}, own: map[hypercore.Key]bool{}, peers: map[*Peer]bool{},
	}
}

// A welcome is what a device gets when it is let in, beside its certificate.
type welcome struct {
	Keys    map[string]secret `json:"keys"`    // of the cloud
	Epoch   string            `json:"epoch"`   // the key for what is written now
	Control []writerRecord    `json:"control"` // where to read on
}

// Admit lets a device in. What it returns is secret, and for that device alone.
// It is for pair.InviteOptions.
func (c *Cloud) Admit(ctx context.Context, r pair.Request) (pair.Admission, error) {
	fail := func(err error) (pair.Admission, error) {
		return pair.Admission{}, fmt.Errorf("admit %q: %w", r.Name, err)
	}
	c.mu.Lock()
	d, _ := c.roster.Device(r.Device)
	name := freeName(r.Name, r.Device, c.roster.Devices())
	c.mu.Unlock()
	if d.Status == identity.Revoked {
		return fail(fmt.Errorf("it was taken out of the cloud, and has to come back with another key: %w", identity.ErrRevoked))
	}
	cert, err := identity.Certificate{
		Cloud: c.ID(), Device: r.Device, Name: name, Issued: c.clock.Now(), Admits: true,
	}.Sign(c.KeyPair())
	if err != nil {
		return fail(err)
	}
	entries := map[string][]byte{certKey(cert): cert.Encode()}
	c.mu.Lock()
	for epoch, key := range c.secrets.Keys {
		if epoch != firstEpoch && err == nil {
			err = c.hand(entries, epoch, key, hypercore.Key(r.Device))
		}
	}
	c.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if err := c.putAll(ctx, entries); err != nil {
		return fail(err)
	}
	if err := c.refresh(ctx); err != nil {
		return fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	payload, err := json.Marshal(welcome{Keys: c.secrets.Keys, Epoch: c.secrets.Epoch, Control: c.someControl()})
	if err != nil {
		return fail(err)
	}
	return pair.Admission{Chain: append(c.roster.Chain(c.KeyPair().Public), cert), Payload: payload}, nil
}

// freeName returns a name for a device that none of the others that are in has, with
// a number at its end if the one that was asked for is taken.
func freeName(wanted string, device noise.Key, devices []identity.Device) string {
	taken := map[string]bool{}
	for _, d := range devices {
		if d.Status == identity.In && d.Key != device {
			taken[d.Name] = true
		}
	}
	name := wanted
	for n := 2; taken[name]; n++ {
		end := fmt.Sprintf("-%d", n)
		name = strings.ToValidUTF8(wanted[:min(len(wanted), identity.MaxName-len(end))], "") + end
	}
	return name
}

// NameApart gives this device another name if it was made from its owner's seed, and
// one that was let in before has the same: nobody could look while it was alone. Those
// that it was itself don't count. It reports whether it did.
func (c *Cloud) NameApart(ctx context.Context) (bool, error) {
	fail := func(err error) (bool, error) { return false, fmt.Errorf("give this device another name: %w", err) }
	c.mu.Lock()
	self := noise.Key(c.secrets.pair().Public)
	own, _ := c.roster.Device(self)
	former := map[noise.Key]bool{}
	for _, f := range c.secrets.Former {
		former[noise.Key(f.Device)] = true
	}
	devices := slices.DeleteFunc(c.roster.Devices(), func(d identity.Device) bool {
		a, b := d.Certificate, own.Certificate
		return former[d.Key] || a.Issued.After(b.Issued) || a.Issued.Equal(b.Issued) && bytes.Compare(d.Key[:], self[:]) > 0
	})
	name := freeName(own.Name, self, devices)
	seed, here := c.secrets.Seed.array(), len(c.secrets.Seed) > 0 && len(c.secrets.Chain) == 1
	c.mu.Unlock()
	if !here || own.Status != identity.In || name == own.Name {
		return false, nil
	}
	name = freeName(own.Name, self, c.Devices()) // now among all of them
	issued := c.clock.Now()
	if least := own.Certificate.Issued.Add(time.Second); issued.Before(least) {
		issued = least // the later one counts
	}
	cert, err := identity.Certificate{
		Cloud: c.ID(), Device: self, Name: name, Issued: issued, Admits: true,
	}.Sign(identity.NewOwner(seed).KeyPair())
	if err != nil {
		return fail(err)
	}
	c.mu.Lock()
	was := c.secrets.Chain
	c.secrets.Chain = [][]byte{cert.Encode()}
	if err = c.save(); err != nil {
		c.secrets.Chain = was
	}
	c.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if err := c.put(ctx, certKey(cert), cert.Encode()); err != nil {
		return fail(err)
	}
	if err := c.refresh(ctx); err != nil {
		return fail(err)
	}
	return true, nil
}

// maxControl is the most control logs that are named to others at a time: any
// one of them leads to all.
const maxControl = 256

// someControl returns the records of control logs, this device's own first.
// c.mu is held.
func (c *Cloud) someControl() []writerRecord {
	self := c.secrets.pair().Public
	list := slices.Clone(c.records[controlSpace])
	slices.SortStableFunc(list, func(a, b writerRecord) int {
		switch {
		case a.Device == self && b.Device != self:
			return -1
		case a.Device != self && b.Device == self:
			return 1
		}
		return 0
	})
	return list[:min(len(list), maxControl)]
}

// Join makes this device one of a cloud that has let it in, for the next Open:
// device is the seed of the key pair that was admitted. What there was in the
// vault is replaced; only who has nothing to lose in another cloud may join one.
// When Join returns, it is on the disk.
func Join(o Options, device [32]byte, a pair.Admission) error {
	o.fill()
	var w welcome
	if err := json.Unmarshal(a.Payload, &w); err != nil {
		return fmt.Errorf("read the welcome: %w", err)
	}
	id := a.Cloud()
	roster := identity.NewRoster(id)
	chain := make([][]byte, 0, len(a.Chain))
	for _, cert := range a.Chain {
		if err := roster.Admit(cert); err != nil {
			return fmt.Errorf("read the welcome: %w", err)
		}
		chain = append(chain, cert.Encode())
	}
	if !roster.Has(noise.NewKeyPair(device).Public) {
		return errors.New("read the welcome: it is for another device")
	}
	writer, err := newID(o.Random)
	if err != nil {
		return err
	}
	next := &secrets{
		Version: secretsVersion, Cloud: id[:], Device: device[:], Chain: chain,
		Keys: w.Keys, Epoch: w.Epoch, Writer: writer, Before: w.Control,
	}
	return next.save(o.Vault)
}

// admitAll gives a roster encoded certificates.
func admitAll(r *identity.Roster, certs [][]byte) error {
	for _, b := range certs {
		cert, err := identity.DecodeCertificate(b)
		if err != nil {
			return err
		}
		if err := r.Admit(cert); err != nil {
			return err
		}
	}
	return nil
}

func certKey(c identity.Certificate) string {
	return certKeys + hypercore.Key(c.Device).String() + "/" + hypercore.Key(c.Issuer).String()
}

func revocationKey(v identity.Revocation) string {
	return revocationKeys + hypercore.Key(v.Device).String() + "/" + hypercore.Key(v.Issuer).String()
}

// put writes one entry of the control tree.
func (c *Cloud) put(ctx context.Context, key string, value []byte) error {
	return c.putAll(ctx, map[string][]byte{key: value})
}

// putAll writes entries of the control tree, together. A nil value deletes.
func (c *Cloud) putAll(ctx context.Context, entries map[string][]byte) error {
	b, err := c.control.tree.Batch(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	for key, value := range entries {
		if value == nil {
			err = b.Delete(ctx, []byte(key))
		} else {
			err = b.Put(ctx, []byte(key), value)
		}
		if err != nil {
			return err
		}
	}
	return b.Flush(ctx)
}

// putRecord tells the cloud of a writer.
func (c *Cloud) putRecord(ctx context.Context, r writerRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.put(ctx, writerKeys+r.Space+"/"+r.Tree.String(), b)
}

// introduce writes into the own control log what leads to everything else, if
// it is not there: the certificates of this device and the control logs.
func (c *Cloud) introduce(ctx context.Context, own writerRecord) error {
	entries := map[string][]byte{}
	for _, b := range c.secrets.Chain {
		cert, err := identity.DecodeCertificate(b)
		if err != nil {
			return fmt.Errorf("read the certificate of this device: %w", err)
		}
		entries[certKey(cert)] = b
	}
	for _, r := range append(slices.Clone(c.secrets.Before), own) {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		entries[writerKeys+r.Space+"/"+r.Tree.String()] = b
	}
	for key := range entries {
		if _, err := c.control.own.says.Get(ctx, []byte(key)); err == nil {
			delete(entries, key)
		} else if err != nil && !errors.Is(err, tree.ErrNotFound) {
			return err
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if err := c.putAll(ctx, entries); err != nil {
		return fmt.Errorf("begin the control log: %w", err)
	}
	return c.refresh(ctx)
}

// hear hears who a peer is, and lets it in if the cloud has done so.
func (c *Cloud) hear(p *Peer, h hello) {
	if len(h.Chain) > identity.MaxDepth || len(h.Control) > maxControl {
		return // it says more than it has to
	}
	chain := identity.NewRoster(c.ID())
	if err := admitAll(chain, h.Chain); err != nil || !chain.Has(noise.Key(p.key)) {
		return // of another cloud, or of none
	}
	c.mu.Lock()
	roster := c.roster
	control := c.records[controlSpace]
	c.mu.Unlock()
	entries := map[string][]byte{}
	if !roster.Has(noise.Key(p.key)) {
		with := roster.Clone()
		for _, cert := range chain.Chain(noise.Key(p.key)) {
			if with.Admit(cert) == nil {
				entries[certKey(cert)] = cert.Encode()
			}
		}
		if !with.Has(noise.Key(p.key)) {
			return // it was revoked, or who admitted it
		}
	}
	for _, r := range h.Control {
		at := func(have writerRecord) bool { return have.Tree == r.Tree }
		if r.Device != p.key || slices.ContainsFunc(control, at) || r.check(controlSpace, r.Tree) != nil {
			continue
		}
		if b, err := json.Marshal(r); err == nil {
			entries[writerKeys+controlSpace+"/"+r.Tree.String()] = b
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(entries) == 0 || c.closed {
		return
	}
	c.work.Go(func() { // the connection must not wait for the disk
		if err := c.putAll(c.ctx, entries); err != nil && c.ctx.Err() == nil {
			c.log.Warn("cannot let a device in", "device", p.key, "err", err)
		}
	})
}

// ID returns the cloud's id, which is the owner's public key.
func (c *Cloud) ID() identity.CloudID { return identity.CloudID(c.secrets.Cloud.array()) }

// Self returns the public key of this device.
func (c *Cloud) Self() noise.Key { return noise.Key(c.secrets.pair().Public) }

// KeyPair returns the key pair of this device, by which others know it. It is
// never to be used on another one.
func (c *Cloud) KeyPair() noise.KeyPair { return noise.NewKeyPair(c.secrets.Device.array()) }

// Seed returns the owner's seed if this device has it. Shown says that a person
// has got to see it.
func (c *Cloud) Seed() (seed identity.Seed, here, shown bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets.Seed.array(), len(c.secrets.Seed) > 0, c.secrets.SeedShown
}

// SeedShown remembers that a person has got to see the seed.
func (c *Cloud) SeedShown() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secrets.SeedShown {
		return nil
	}
	c.secrets.SeedShown = true
	return c.save()
}

// ForgetSeed removes the owner's seed from this device. Nobody can make it again
// but who has its words.
func (c *Cloud) ForgetSeed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets.Seed = nil
	return c.save()
}

// Devices returns the devices that are or were in the cloud.
func (c *Cloud) Devices() []identity.Device {
	c.mu.Lock()
	r := c.roster
	c.mu.Unlock()
	return r.Devices()
}

// Revoke takes a device out of the cloud: it gets nothing any more, what it
// writes from now on does not count, and the others go on with another key. What
// it has said until now stays.
func (c *Cloud) Revoke(ctx context.Context, device noise.Key) error {
	if seed, here, _ := c.Seed(); here {
		return c.RevokeBy(ctx, device, identity.NewOwner(seed))
	}
	return c.revoke(ctx, device, c.KeyPair())
}

// RevokeBy is Revoke by the word of the owner, who can take out any device. The
// owner is not kept here.
func (c *Cloud) RevokeBy(ctx context.Context, device noise.Key, owner identity.Owner) error {
	if owner.Cloud() != c.ID() {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), ErrOwner)
	}
	return c.revoke(ctx, device, owner.KeyPair())
}

func (c *Cloud) revoke(ctx context.Context, device noise.Key, issuer noise.KeyPair) error {
	v := identity.Revocation{Cloud: c.ID(), Device: device, Time: c.clock.Now()}
	c.mu.Lock()
	r := c.roster
	records := c.records
	c.mu.Unlock()
	if !r.Has(device) {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), ErrNoDevice)
	}
	for _, s := range c.all() {
		versions, err := s.tree.Version(ctx)
		if err != nil {
			return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
		}
		for _, rec := range records[s.Info().ID] {
			length := versions[rec.Tree]
			if length == 0 || rec.Device != hypercore.Key(device) {
				continue
			}
			if s == c.control && device == c.Self() {
				length += lastWords
			}
			v.Logs = append(v.Logs, identity.LogLength{Log: rec.Tree, Length: length})
		}
	}
	v, err := v.Sign(issuer)
	if err != nil {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
	}
	entries := map[string][]byte{revocationKey(v): v.Encode()}
	// What leaned on the device is said again by who takes it out.
	after := r.Clone()
	for _, d := range r.Leaning(device) {
		if d.Status == identity.In {
			cert := d.Certificate
			cert.Admits = d.Admits
			if cert, err = cert.Sign(issuer); err == nil {
				err = after.Admit(cert)
			}
			if err != nil {
				return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
			}
			entries[certKey(cert)] = cert.Encode()
			continue
		}
		again, err := d.Revocation.Sign(issuer)
		if err != nil {
			return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
		}
		entries[revocationKey(again)] = again.Encode()
	}
	if err := after.Revoke(v); err != nil {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
	}
	if !after.Has(c.Self()) && c.Self() != device {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), ErrLeans)
	}
	if err := c.newEpoch(entries, func(k noise.Key) bool { return k != device }); err != nil {
		return err
	}
	if err := c.putAll(ctx, entries); err != nil {
		return fmt.Errorf("revoke %s: %w", hypercore.Key(device), err)
	}
	return c.refresh(ctx)
}

// lastWords is more than a device writes to its control log when it revokes itself:
// that it does must count.
const lastWords = 1 << 12

// Errors about devices, which come wrapped.
var (
	// ErrNoDevice: there is no such device in the cloud.
	ErrNoDevice = errors.New("no such device in the cloud")
	// ErrManyDevices: more than one device is called so.
	ErrManyDevices = errors.New("more than one device is called so")
	// ErrLeans: this device is in by the word of the one that it would revoke.
	ErrLeans = fmt.Errorf("this device is in by its word alone: %w", identity.ErrDenied)
	// ErrOwner: who is asked for is the owner of another cloud.
	ErrOwner = fmt.Errorf("the owner is another one's: %w", identity.ErrDenied)
)

// newEpoch adds a new key of the cloud to entries, sealed for the owner and for
// each device that stays.
func (c *Cloud) newEpoch(entries map[string][]byte, stays func(noise.Key) bool) error {
	key, err := newSecret(c.random)
	if err != nil {
		return err
	}
	to := []hypercore.Key{hypercore.Key(c.ID())}
	for _, d := range c.Devices() {
		if d.Status == identity.In && stays(d.Key) {
			to = append(to, hypercore.Key(d.Key))
		}
	}
	return c.hand(entries, epochName(key), key, to...)
}

// hand adds a key of the cloud to entries, sealed for devices.
func (c *Cloud) hand(entries map[string][]byte, epoch string, key secret, to ...hypercore.Key) error {
	for _, k := range to {
		sealed, err := seal(key, k, c.random)
		if err != nil {
			return err
		}
		entries[sealedKeys+epoch+"/"+k.String()] = sealed
	}
	return nil
}

// newRoster makes sense of certificates and revocations. What makes none does
// not count.
func (c *Cloud) newRoster(certs []identity.Certificate, revocations []identity.Revocation) *identity.Roster {
	r := identity.NewRoster(c.ID())
	// There is room for so many of each issuer only, for those first who are
	// nearer to the owner, so that no device fills the roster with what keeps
	// others out, or itself in.
	fed := map[noise.Key]bool{}
	feed := func(issuer noise.Key) {
		fed[issuer] = true
		room := maxSaid
		if issuer == noise.Key(c.ID()) {
			room = identity.MaxStatements
		}
		left := room
		for _, v := range revocations {
			if v.Issuer == issuer && left > 0 && r.Revoke(v) == nil {
				left--
			}
		}
		left = room
		for _, cert := range certs {
			if cert.Issuer == issuer && left > 0 && r.Admit(cert) == nil {
				left--
			}
		}
	}
	feed(noise.Key(c.ID()))
	for more := true; more; {
		more = false
		for _, d := range r.Devices() {
			if d.Admits && !fed[d.Key] {
				feed(d.Key)
				more = true
			}
		}
	}
	// Then who is in by those that have been revoked, so that they can be shown,
	// and who has left.
	for _, cert := range certs {
		if !fed[cert.Issuer] {
			_ = r.Admit(cert)
		}
	}
	for _, v := range revocations {
		if _, ok := r.Device(v.Device); !fed[v.Issuer] && ok {
			_ = r.Revoke(v)
		}
	}
	return r
}

// maxSaid is the most certificates, and the most revocations, that are taken of
// one device.
const maxSaid = 256

// takeKeys opens the keys that are for this device, and finds out which one is
// to be used: none that somebody has handed out who is not in any more.
func (c *Cloud) takeKeys(st *state, sealed []sealedKey) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	owner := hypercore.Key(c.secrets.Cloud.array())
	self := c.secrets.pair().Public
	type epoch struct {
		to   map[hypercore.Key]bool // who has the key
		time time.Time
		void bool // one who handed it out is not in
	}
	epochs := map[string]*epoch{}
	for _, k := range sealed {
		e := epochs[k.epoch]
		if e == nil {
			e = &epoch{to: map[hypercore.Key]bool{}, time: k.time}
			epochs[k.epoch] = e
		}
		e.to[k.device] = true
		e.void = e.void || !st.roster.Has(noise.Key(k.by))
		if k.time.Before(e.time) {
			e.time = k.time
		}
		if c.secrets.Keys[k.epoch] != nil {
			continue
		}
		var key []byte
		var ok bool
		switch {
		case k.device == self:
			key, ok = unseal(k.box, c.secrets.Device.array())
		case k.device == owner && len(c.secrets.Seed) > 0:
			// The seed of the owner's key pair, see identity.NewOwner.
			key, ok = unseal(k.box, identity.Seed(c.secrets.Seed.array()).Derive("owner"))
		}
		if ok && len(key) == 32 && epochName(key) == k.epoch {
			c.secrets.Keys[k.epoch] = key
			changed = true
		}
	}
	none := true
	st.without = map[string][]hypercore.Key{}
	for name, e := range epochs {
		none = none && e.void
		if c.secrets.Keys[name] == nil {
			continue
		}
		newest := epochs[st.newest]
		if !e.void && (newest == nil || e.time.After(newest.time) || e.time.Equal(newest.time) && name > st.newest) {
			st.newest = name
		}
		for _, d := range st.roster.Devices() {
			if d.Status == identity.In && d.Key != noise.Key(self) && !e.to[hypercore.Key(d.Key)] {
				st.without[name] = append(st.without[name], hypercore.Key(d.Key))
			}
		}
	}
	if newest := epochs[st.newest]; newest != nil {
		for k := range newest.to {
			st.leaked = st.leaked || k != owner && !st.roster.Has(noise.Key(k))
		}
	} else if none {
		for _, d := range st.roster.Devices() { // all have the first key
			st.leaked = st.leaked || d.Status == identity.Revoked
		}
	}
	if changed {
		return c.save()
	}
	return nil
}

// known tells whether what a device has written counts, at least in part.
func known(r *identity.Roster, device hypercore.Key) bool {
	d, ok := r.Device(noise.Key(device))
	return ok && d.Status != identity.Outside
}

// emptyTree is the version of a tree that nobody has written to.
const emptyTree = 1

// limit returns up to where a log of a device counts; 0 is all of it.
func limit(r *identity.Roster, device, log hypercore.Key) uint64 {
	d, ok := r.Device(noise.Key(device))
	if !ok || d.Status != identity.Revoked {
		return 0
	}
	return max(d.Revocation.Length(log), emptyTree)
}

// setLimits applies revocations to what is open.
func (c *Cloud) setLimits(spaces []*Space, r *identity.Roster) error {
	for _, s := range spaces {
		for _, w := range s.open() {
			if n := limit(r, w.Device, w.record.Tree); n > 0 && !w.Own {
				if err := s.tree.Add(w.bee, n); err != nil {
					return err
				}
				if w.says != nil {
					if err := w.says.Add(w.bee, n); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
