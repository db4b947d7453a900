package identity

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Bounds of a [Roster].
const (
	// MaxStatements is the most certificates, and the most revocations, that a
	// roster takes from the owner, and again from all others together.
	MaxStatements = 4096
	// MaxAllLogs is the most logs that all revocations together may name, those
	// by the owner and those by others apart.
	MaxAllLogs = 1 << 17
	// MaxDepth is how many certificates there may be from the owner to a device.
	MaxDepth = 8
)

// A Roster is fed with certificates and revocations in any order and says which
// devices are in a cloud. What it says depends on what it was fed with and on
// nothing else. Its methods may be called by any goroutine.
//
// # Who is in
//
// A device is in if there is a chain of certificates to it from the owner, in
// which every device in between is in and admits, and no revocation of it counts.
//
// # Which revocations count
//
// The owner's all do. Then those of devices, the nearer ones to the owner in the
// chain before the others, and those that are equally near together. A device that
// was revoked by one before it has no say. So of two that revoke each other the
// nearer one stays, and both are out if neither is: whoever stole a device can't
// stay by revoking who revoked it. Nobody is brought back by a device that is
// further from the owner; and if a device that is in revoked another, that one is
// out, always.
//
// What a device signed is void once one before it has revoked it, as whoever stole
// it may have signed that: devices that are in by its word alone are out, and those
// that were out by its word alone are back. Whoever revokes it asks
// [Roster.Leaning] first and says again what is right.
type Roster struct {
	cloud CloudID

	mu          sync.Mutex
	certificate map[pair]Certificate
	revocation  map[pair]Revocation
	state       *state // nil when it has to be worked out again
}

// A pair is who speaks of whom.
type pair struct{ issuer, device Key }

// A Status says how a device stands.
type Status uint8

const (
	// In means that the device belongs to the cloud.
	In Status = iota + 1
	// Revoked means that it was taken out.
	Revoked
	// Outside means that there is a certificate for it, but no chain of them that
	// leads to the owner.
	Outside
)

func (s Status) String() string {
	switch s {
	case In:
		return "in"
	case Revoked:
		return "revoked"
	case Outside:
		return "outside"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// A Device is what a roster knows of a device.
type Device struct {
	Key    Key
	Status Status
	// Name and Certificate are of the latest certificate that counts, or of the
	// latest of all if none does.
	Name        string
	Certificate Certificate
	// Admits says that it is in and may admit and revoke others.
	Admits bool
	// Depth is how many certificates lead from the owner to it, and give it the
	// right to admit if it has that: 0 if it is not in.
	Depth int
	// Revocation is the one that says how much of its logs counts, if it is
	// revoked.
	Revocation Revocation
}

// NewRoster returns a roster without devices.
func NewRoster(cloud CloudID) *Roster {
	return &Roster{cloud: cloud, certificate: map[pair]Certificate{}, revocation: map[pair]Revocation{}}
}

// Clone returns a roster with the same statements, to see what others would lead
// to. A device that revokes one by whose word it is in itself, for example, would
// be out.
func (r *Roster) Clone() *Roster {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Roster{cloud: r.cloud, certificate: maps.Clone(r.certificate), revocation: maps.Clone(r.revocation), state: r.state}
}

// Cloud returns the id of the cloud.
func (r *Roster) Cloud() CloudID { return r.cloud }

// Admit takes a certificate. It fails with [ErrInvalid], [ErrSignature],
// [ErrCloud] or [ErrFull]; a certificate of somebody who has no right to give it
// is taken and does not count, as that right may come later. What others have
// said takes no room from the owner.
func (r *Roster) Admit(c Certificate) error {
	return add(r, r.certificate, pair{c.Issuer, c.Device}, c, c.Cloud)
}

// Revoke takes a revocation, as Admit takes a certificate.
func (r *Roster) Revoke(v Revocation) error {
	return add(r, r.revocation, pair{v.Issuer, v.Device}, v, v.Cloud)
}

// A statement is a certificate or a revocation.
type statement interface {
	Verify() error
	Encode() []byte
	time() int64
	logs() int // that it names
}

func (c Certificate) time() int64 { return c.Issued.UnixMilli() }
func (r Revocation) time() int64  { return r.Time.UnixMilli() }

func (Certificate) logs() int  { return 0 }
func (r Revocation) logs() int { return len(r.Logs) }

// later orders statements of one issuer about one device.
func later[S statement](a, b S) int {
	return cmp.Or(cmp.Compare(a.time(), b.time()), bytes.Compare(a.Encode(), b.Encode()))
}

func add[S statement](r *Roster, to map[pair]S, p pair, s S, cloud CloudID) error {
	if cloud != r.cloud {
		return fmt.Errorf("statement about %s: %w", p.device, ErrCloud)
	}
	if err := s.Verify(); err != nil {
		return fmt.Errorf("statement about %s: %w", p.device, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := to[p]
	if ok && later(s, known) <= 0 {
		return nil
	}
	if !fits(to, p, s, Key(cloud)) {
		return fmt.Errorf("statement about %s: %w", p.device, ErrFull)
	}
	to[p], r.state = s, nil
	return nil
}

// fits tells whether there is room for a statement beside those of who is
// counted with its issuer: the owner alone, or all others.
func fits[S statement](to map[pair]S, p pair, s S, owner Key) bool {
	if len(to) < MaxStatements && s.logs() == 0 {
		return true // most are
	}
	statements, logs := 1, s.logs()
	for q, other := range to {
		if q != p && (q.issuer == owner) == (p.issuer == owner) {
			statements++
			logs += other.logs()
		}
	}
	return statements <= MaxStatements && logs <= MaxAllLogs
}

// Has reports whether a device is in.
func (r *Roster) Has(key Key) bool { return r.current().devices[key].Status == In }

// MayAdmit reports whether who has the key may admit and revoke: the owner, or a
// device that is in and admits.
func (r *Roster) MayAdmit(key Key) bool {
	return key == Key(r.cloud) || r.current().devices[key].Admits
}

// Device returns what is known of a device, and whether anything is.
func (r *Roster) Device(key Key) (Device, bool) {
	d, ok := r.current().devices[key]
	return d, ok
}

// Devices returns all devices that are known, in the order of their keys.
func (r *Roster) Devices() []Device {
	devices := r.current().devices
	out := make([]Device, 0, len(devices))
	for _, d := range devices {
		out = append(out, d)
	}
	sortDevices(out)
	return out
}

// Chain returns the certificates that lead from the owner to a device that is in,
// the device's own last. Fed into an empty roster they show that the device was
// admitted, though not that it was not revoked.
func (r *Roster) Chain(key Key) []Certificate {
	s := r.current()
	if s.devices[key].Status != In {
		return nil
	}
	var chain []Certificate
	for key != Key(r.cloud) {
		c := s.by[key]
		chain = append(chain, c)
		key = c.Issuer
	}
	slices.Reverse(chain)
	return chain
}

// Statements returns everything that the roster was fed with and that may count,
// in an order of its own.
func (r *Roster) Statements() ([]Certificate, []Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sorted(r.certificate), sorted(r.revocation)
}

// Leaning returns the devices that would stand otherwise if one were revoked by
// the owner, as they stand now: those that would be out, and those that would be
// back, in the order of their keys. Whoever revokes it signs again what is right
// of that: certificates of the former, revocations of the latter.
func (r *Roster) Leaning(on Key) (devices []Device) {
	r.mu.Lock()
	now := r.workOutLocked(nil)
	then := r.workOutLocked(&on)
	r.mu.Unlock()
	for key, d := range now.devices {
		if key != on && d.Status != then.devices[key].Status && d.Status != Outside {
			devices = append(devices, d)
		}
	}
	sortDevices(devices)
	return devices
}

func sortDevices(devices []Device) {
	slices.SortFunc(devices, func(a, b Device) int { return bytes.Compare(a.Key[:], b.Key[:]) })
}

func sorted[S statement](m map[pair]S) []S {
	type encoded struct {
		statement S
		bytes     []byte
	}
	all := make([]encoded, 0, len(m))
	for _, s := range m {
		all = append(all, encoded{s, s.Encode()})
	}
	slices.SortFunc(all, func(a, b encoded) int { return bytes.Compare(a.bytes, b.bytes) })
	out := make([]S, len(all))
	for i, e := range all {
		out[i] = e.statement
	}
	return out
}

// A state is what follows from the statements.
type state struct {
	devices map[Key]Device
	by      map[Key]Certificate // the last of the chain to a device that is in
}

func (r *Roster) current() *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == nil {
		r.state = r.workOutLocked(nil)
	}
	return r.state
}

// workOutLocked takes a time in proportion to the number of statements. A
// device may be supposed to be revoked by the owner.
func (r *Roster) workOutLocked(supposed *Key) *state {
	issued := map[Key][]Certificate{}
	for _, c := range r.certificate {
		issued[c.Issuer] = append(issued[c.Issuer], c)
	}
	out := r.revokedLocked(issued, supposed)
	s := r.insideLocked(issued, out)
	// The others are there so that they can be shown.
	for _, c := range r.certificate {
		d, ok := s.devices[c.Device]
		if ok && (d.Status == In || later(c, d.Certificate) <= 0) {
			continue
		}
		s.devices[c.Device] = Device{Key: c.Device, Status: Outside, Name: c.Name, Certificate: c}
	}
	for key, v := range out {
		d := s.devices[key]
		d.Key, d.Status, d.Revocation = key, Revoked, v
		s.devices[key] = d
	}
	return s
}

// revokedLocked finds who was revoked, by going down from the owner level by level:
// what is said by who was revoked above does not count.
func (r *Roster) revokedLocked(issued map[Key][]Certificate, supposed *Key) map[Key]Revocation {
	owner := Key(r.cloud)
	said := map[Key][]Revocation{}
	for _, v := range r.revocation {
		said[v.Issuer] = append(said[v.Issuer], v)
	}
	out := map[Key]Revocation{}
	if supposed != nil {
		out[*supposed] = Revocation{Cloud: r.cloud, Device: *supposed, Issuer: owner}
	}
	heard := map[Key]bool{}
	hear := func(key Key) {
		heard[key] = true
		for _, v := range said[key] {
			if _, ok := out[v.Device]; !ok {
				out[v.Device] = v
			}
		}
	}
	hear(owner)
	level := []Key{owner}
	for range MaxDepth {
		var next []Key
		for _, issuer := range level {
			if _, gone := out[issuer]; gone {
				continue
			}
			for _, c := range issued[issuer] {
				if c.Admits && !heard[c.Device] {
					next = append(next, c.Device)
				}
			}
		}
		slices.SortFunc(next, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
		level = slices.Compact(next)
		level = slices.DeleteFunc(level, func(key Key) bool { _, gone := out[key]; return gone })
		for _, key := range level {
			hear(key)
		}
	}
	for _, v := range r.revocation {
		if _, gone := out[v.Device]; !gone && v.Issuer == v.Device {
			out[v.Device] = v // whoever wants to leave may
		}
	}
	return out
}

// insideLocked finds who is in: those that a chain leads to without anybody who is
// out.
func (r *Roster) insideLocked(issued map[Key][]Certificate, out map[Key]Revocation) *state {
	s := &state{map[Key]Device{}, map[Key]Certificate{}}
	level := []Key{Key(r.cloud)}
	for depth := 1; depth <= MaxDepth; depth++ {
		var next []Key
		for _, issuer := range level {
			for _, c := range issued[issuer] {
				if _, gone := out[c.Device]; gone {
					continue
				}
				d, ok := s.devices[c.Device]
				if !ok {
					d = Device{Key: c.Device, Status: In}
				}
				if !ok || later(c, d.Certificate) > 0 {
					d.Name, d.Certificate = c.Name, c
				}
				admits := c.Admits && !d.Admits
				if !ok || admits {
					s.by[c.Device], d.Depth = c, depth
				}
				if admits {
					d.Admits = true
					next = append(next, c.Device)
				}
				s.devices[c.Device] = d
			}
		}
		slices.SortFunc(next, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
		level = next
	}
	return s
}
