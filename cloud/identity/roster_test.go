package identity

import (
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// feed takes certificates and revocations, in a random order and some twice.
func feed(t testing.TB, rng *rand.Rand, statements ...any) *Roster {
	t.Helper()
	statements = slices.Clone(statements)
	if rng != nil {
		statements = append(statements, statements[:len(statements)/3]...)
		rng.Shuffle(len(statements), func(i, j int) { statements[i], statements[j] = statements[j], statements[i] })
	}
	r := NewRoster(owner.Cloud())
	for _, s := range statements {
		var err error
		switch s := s.(type) {
		case Certificate:
			err = r.Admit(s)
		case Revocation:
			err = r.Revoke(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if rng != nil && rng.IntN(3) == 0 {
			r.Devices() // what was worked out before must not stay
		}
	}
	return r
}

// check says who is in and who is out, by their numbers; others are outside.
func check(t *testing.T, name string, r *Roster, in, out []byte) {
	t.Helper()
	for n := range byte(12) {
		want := Status(0)
		switch {
		case slices.Contains(in, n):
			want = In
		case slices.Contains(out, n):
			want = Revoked
		}
		d, _ := r.Device(device(n).Public)
		if d.Status != want && (want != 0 || d.Status != Outside) {
			t.Errorf("%s: device %d is %s, want %s", name, n, d.Status, want)
		}
		if r.Has(device(n).Public) != (want == In) {
			t.Errorf("%s: Has(%d) is %v", name, n, want != In)
		}
	}
}

func TestWhoIsInFollowsFromChains(t *testing.T) {
	o := owner.KeyPair()
	stranger := NewOwner(Seed{9})
	foreign := must[Certificate](t)(Certificate{Cloud: stranger.Cloud(), Device: device(1).Public, Name: "x", Issued: noon}.Sign(stranger.KeyPair()))
	if err := NewRoster(owner.Cloud()).Admit(foreign); !errors.Is(err, ErrCloud) {
		t.Errorf("a certificate of another cloud: %v", err)
	}
	forged := certificate(t, o, device(1), true, 0)
	forged.Admits = false
	if err := NewRoster(owner.Cloud()).Admit(forged); !errors.Is(err, ErrSignature) {
		t.Errorf("a forged certificate: %v", err)
	}
	lost := revocation(t, o, device(1), 0)
	lost.Issuer = device(2).Public
	if err := NewRoster(owner.Cloud()).Revoke(lost); !errors.Is(err, ErrSignature) {
		t.Errorf("a forged revocation: %v", err)
	}

	deep := []any{certificate(t, o, device(1), true, 0)}
	for n := byte(1); n < 11; n++ {
		deep = append(deep, certificate(t, device(n), device(n+1), true, 0))
	}
	for _, tt := range []struct {
		name       string
		statements []any
		in, out    []byte
	}{
		{name: "nobody"},
		{"by the owner", []any{certificate(t, o, device(1), false, 0)}, []byte{1}, nil},
		{"by a device", []any{certificate(t, o, device(1), true, 0), certificate(t, device(1), device(2), false, 0)}, []byte{1, 2}, nil},
		{"by a device that may not", []any{certificate(t, o, device(1), false, 0), certificate(t, device(1), device(2), false, 0)}, []byte{1}, nil},
		{"by a device that no longer may", []any{
			certificate(t, o, device(1), true, 0), certificate(t, o, device(1), false, time.Hour), certificate(t, device(1), device(2), false, 0),
		}, []byte{1}, nil},
		{"by itself", []any{certificate(t, device(1), device(1), true, 0)}, nil, nil},
		{"by each other", []any{certificate(t, device(1), device(2), true, 0), certificate(t, device(2), device(1), true, 0)}, nil, nil},
		{"by a stranger", []any{certificate(t, stranger.KeyPair(), device(1), true, 0)}, nil, nil},
		{"too deep", deep, []byte{1, 2, 3, 4, 5, 6, 7, 8}, nil},
		{"in by one, may admit by another", []any{
			certificate(t, o, device(1), true, 0), certificate(t, o, device(2), false, 0), certificate(t, device(1), device(2), true, 0), certificate(t, device(2), device(3), false, 0),
		}, []byte{1, 2, 3}, nil},
	} {
		for seed := range uint64(4) {
			r := feed(t, rand.New(rand.NewPCG(seed, 1)), tt.statements...)
			check(t, tt.name, r, tt.in, tt.out)
			checkChains(t, r)
		}
	}
}

// checkChains feeds the chain of each device that is in into a roster of its own.
func checkChains(t *testing.T, r *Roster) {
	t.Helper()
	for _, d := range r.Devices() {
		chain := r.Chain(d.Key)
		if d.Status != In {
			if chain != nil || d.Depth != 0 || d.Admits {
				t.Errorf("%s is %s and has %+v, a chain of %d", d.Name, d.Status, d, len(chain))
			}
			continue
		}
		alone := NewRoster(r.Cloud())
		for _, c := range chain {
			if err := alone.Admit(c); err != nil {
				t.Error(err)
			}
			if got, _ := r.Device(c.Device); got.Status != In {
				t.Errorf("the chain of %s goes through one that is %s", d.Key, got.Status)
			}
		}
		if !alone.Has(d.Key) || alone.MayAdmit(d.Key) != d.Admits || len(chain) != d.Depth || chain[len(chain)-1].Device != d.Key {
			t.Errorf("a chain of %d does not lead to %s at depth %d", len(chain), d.Key, d.Depth)
		}
	}
}

func TestLatestCertificateNamesADevice(t *testing.T) {
	named := func(issuer noise.KeyPair, name string, at time.Duration) Certificate {
		c := Certificate{Cloud: owner.Cloud(), Device: device(2).Public, Name: name, Issued: noon.Add(at), Admits: true}
		return must[Certificate](t)(c.Sign(issuer))
	}
	for seed := range uint64(10) {
		r := feed(t, rand.New(rand.NewPCG(seed, 1)), certificate(t, owner.KeyPair(), device(1), true, 0),
			named(owner.KeyPair(), "old", 0), named(device(1), "new", 2*time.Hour), named(device(1), "middle", time.Hour), named(device(7), "not in", 5*time.Hour))
		if d, ok := r.Device(device(2).Public); !ok || d.Name != "new" || d.Depth != 1 || !d.Admits {
			t.Fatalf("seed %d: %+v", seed, d)
		}
	}
}

func TestWhichRevocationsCount(t *testing.T) {
	o := owner.KeyPair()
	admit := func(issuer noise.KeyPair, n byte) Certificate { return certificate(t, issuer, device(n), true, 0) }
	revoke := func(issuer noise.KeyPair, n byte) Revocation { return revocation(t, issuer, device(n), 0) }
	two := []any{admit(o, 1), admit(o, 2)}
	for _, tt := range []struct {
		name       string
		statements []any
		in, out    []byte
	}{
		{"by the owner", append(two, revoke(o, 1)), []byte{2}, []byte{1}},
		{"by another", append(two, revoke(device(1), 2)), []byte{1}, []byte{2}},
		{"by one that is out", append(two, revoke(o, 1), revoke(device(1), 2)), []byte{2}, []byte{1}},
		{"by one that may not", []any{admit(o, 1), certificate(t, o, device(2), false, 0), revoke(device(2), 1)}, []byte{1, 2}, nil},
		{"by a stranger", append(two, revoke(device(7), 1)), []byte{1, 2}, nil},
		{"of itself", append(two, revoke(device(1), 1)), []byte{2}, []byte{1}},
		{"of itself, may not admit", []any{certificate(t, o, device(1), false, 0), revoke(device(1), 1)}, nil, []byte{1}},
		{"each other", append(two, revoke(device(1), 2), revoke(device(2), 1)), nil, []byte{1, 2}},
		{"each other, and one of them a third", append(two, admit(o, 3), revoke(device(1), 2), revoke(device(2), 1), revoke(device(2), 3)), nil, []byte{1, 2, 3}},
		{"each other, until the owner speaks", append(two, revoke(device(1), 2), revoke(device(2), 1), revoke(o, 2)), []byte{1}, []byte{2}},
		{"the nearer one wins", []any{admit(o, 1), admit(device(1), 2), revoke(device(1), 2), revoke(device(2), 1)}, []byte{1}, []byte{2}},
		{"the further one may", []any{admit(o, 1), admit(o, 2), admit(device(2), 3), revoke(device(3), 1)}, []byte{2, 3}, []byte{1}},
		{"who admitted it takes it along", []any{admit(o, 1), admit(device(1), 2), revoke(o, 1)}, nil, []byte{1}},
		{"unless another did too", []any{admit(o, 1), admit(o, 3), admit(device(1), 2), admit(device(3), 2), revoke(o, 1)}, []byte{2, 3}, []byte{1}},
		{"a later certificate does not help", append(two, revoke(o, 1), certificate(t, o, device(1), true, time.Hour)), []byte{2}, []byte{1}},
		{"three in a ring", []any{
			admit(o, 3), admit(device(3), 4), admit(device(4), 5),
			revoke(device(3), 4), revoke(device(4), 5), revoke(device(5), 3),
		}, []byte{3}, []byte{4}},
		{"a word that stands though its speaker is out", []any{
			admit(o, 1), admit(o, 2), admit(device(2), 3), admit(o, 4), revoke(device(3), 1), revoke(device(1), 4),
		}, []byte{2, 3}, []byte{1, 4}},
	} {
		for seed := range uint64(2) {
			r := feed(t, rand.New(rand.NewPCG(seed, 1)), tt.statements...)
			check(t, tt.name, r, tt.in, tt.out)
			checkChains(t, r)
		}
	}
}

func TestLengthsAreThoseOfWhoIsNearest(t *testing.T) {
	log := hypercore.Key{1}
	says := func(issuer noise.KeyPair, length uint64, at time.Duration) Revocation {
		return revocation(t, issuer, device(3), at, LogLength{log, length})
	}
	statements := []any{certificate(t, owner.KeyPair(), device(1), true, 0), certificate(t, owner.KeyPair(), device(3), true, 0), says(device(1), 10, 9*time.Hour)}
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		if d, _ := feed(t, rng, statements...).Device(device(3).Public); d.Revocation.Length(log) != 10 {
			t.Errorf("by a device: %d", d.Revocation.Length(log))
		}
		more := append(slices.Clone(statements), says(owner.KeyPair(), 30, 2*time.Hour), says(owner.KeyPair(), 20, time.Hour))
		if d, _ := feed(t, rng, more...).Device(device(3).Public); d.Revocation.Length(log) != 30 {
			t.Errorf("by the owner, corrected: %d", d.Revocation.Length(log))
		}
	}
}

func TestCloneIsOnItsOwn(t *testing.T) {
	o := owner.KeyPair()
	r := feed(t, nil, certificate(t, o, device(1), true, 0), certificate(t, device(1), device(2), true, 0))
	check(t, "before", r, []byte{1, 2}, nil)
	preview := r.Clone()
	// The device is out with the one that has let it in.
	if err := preview.Revoke(revocation(t, device(2), device(1), 0)); err != nil {
		t.Fatal(err)
	}
	check(t, "preview", preview, nil, []byte{1})
	check(t, "after", r, []byte{1, 2}, nil)
	if err := r.Admit(certificate(t, o, device(3), true, 0)); err != nil {
		t.Fatal(err)
	}
	check(t, "the original goes on", r, []byte{1, 2, 3}, nil)
	check(t, "and the preview doesn't", preview, nil, []byte{1})
}

func TestRosterIsBounded(t *testing.T) {
	r := NewRoster(owner.Cloud())
	for i := range MaxStatements {
		r.certificate[pair{device: Key{byte(i), byte(i >> 8), 1}}] = Certificate{}
	}
	c := certificate(t, device(2), device(1), true, 0)
	if err := r.Admit(c); !errors.Is(err, ErrFull) {
		t.Errorf("one certificate too many: %v", err)
	}
	// What others have said takes no room from the owner.
	if err := r.Admit(certificate(t, owner.KeyPair(), device(3), true, 0)); err != nil {
		t.Errorf("the owner's: %v", err)
	}
	delete(r.certificate, pair{device: Key{0, 0, 1}})
	later := certificate(t, device(2), device(1), true, time.Hour)
	if err := errors.Join(r.Admit(c), r.Admit(later), r.Revoke(revocation(t, owner.KeyPair(), device(1), 0))); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
}

func TestRosterIsBoundedInLogs(t *testing.T) {
	r := NewRoster(owner.Cloud())
	for i := range MaxAllLogs / MaxLogs {
		r.revocation[pair{device: Key{byte(i), 1}}] = Revocation{Logs: make([]LogLength, MaxLogs)}
	}
	v := Revocation{Cloud: owner.Cloud(), Device: device(1).Public, Time: noon, Logs: []LogLength{{Log: hypercore.Key{1}, Length: 1}}}
	for _, test := range []struct {
		issuer noise.KeyPair
		want   error
	}{{device(2), ErrFull}, {owner.KeyPair(), nil}} {
		v, err := v.Sign(test.issuer)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Revoke(v); !errors.Is(err, test.want) {
			t.Errorf("by %s: %v, want %v", test.issuer.Public, err, test.want)
		}
	}
	if err := r.Revoke(revocation(t, device(2), device(1), 0)); err != nil {
		t.Errorf("one that names no logs: %v", err)
	}
}

// Random certificates and revocations, fed in two orders, have to come to the
// same, and to something that makes sense.
func TestRosterDoesNotDependOnOrder(t *testing.T) {
	const devices = 6
	keys := []noise.KeyPair{owner.KeyPair()}
	for n := range byte(devices) {
		keys = append(keys, device(n))
	}
	// Signed once: signing is what takes time.
	var certificates, revocations [devices + 1][devices + 1][2]any
	for i, issuer := range keys {
		for j, of := range keys[1:] {
			for k := range 2 {
				certificates[i][j+1][k] = certificate(t, issuer, of, k == 0, time.Duration(k)*time.Minute)
				revocations[i][j+1][k] = revocation(t, issuer, of, time.Duration(k)*time.Minute)
			}
		}
	}
	runs := uint64(24)
	if os.Getenv("BEVY_LONG") != "" {
		runs = 5000
	}
	var in, out, leaning int
	for seed := range runs {
		rng := rand.New(rand.NewPCG(seed, 2))
		var statements []any
		for range 4 + rng.IntN(14) {
			issuer := rng.IntN(devices + 1)
			if rng.IntN(3) == 0 {
				issuer = 0
			}
			statements = append(statements, certificates[issuer][1+rng.IntN(devices)][min(1, rng.IntN(4)/3)])
		}
		for range rng.IntN(7) {
			statements = append(statements, revocations[rng.IntN(devices+1)][1+rng.IntN(devices)][rng.IntN(2)])
		}
		a, b := feed(t, rng, statements...), feed(t, rng, statements...)
		if x, y := a.Devices(), b.Devices(); !reflect.DeepEqual(x, y) {
			t.Fatalf("seed %d: in another order\n%v\nis\n%v", seed, x, y)
		}
		checkChains(t, a)

		_, said := a.Statements()
		for _, v := range said {
			of, _ := a.Device(v.Device)
			if v.Issuer == Key(owner.Cloud()) && of.Status != Revoked {
				t.Fatalf("seed %d: the owner revoked a device that is %s", seed, of.Status)
			}
			// Whoever is in and may revoke did not do it in vain.
			if a.MayAdmit(v.Issuer) && of.Status != Revoked {
				t.Fatalf("seed %d: %s is in, and the device it revoked is %s", seed, v.Issuer, of.Status)
			}
		}
		for _, d := range a.Devices() {
			switch d.Status {
			case In:
				in++
			case Revoked:
				out++
				if d.Revocation.Device != d.Key {
					t.Fatalf("seed %d: the revocation of %s is of %s", seed, d.Key, d.Revocation.Device)
				}
			}
		}

		// What leans on a device is what changes when the owner revokes it.
		on := 1 + rng.IntN(devices)
		want := a.Leaning(keys[on].Public)
		after := feed(t, rng, append(statements, revocations[0][on][1])...)
		var got []Device
		for _, d := range a.Devices() {
			now, _ := after.Device(d.Key)
			if d.Key != keys[on].Public && d.Status != now.Status && d.Status != Outside {
				got = append(got, d)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %d devices lean on one, %d changed", seed, len(want), len(got))
		}
		leaning += len(want)
		// Said again by the owner, they stand as before.
		again := append(statements, revocations[0][on][1])
		for _, d := range want {
			i := slices.IndexFunc(keys, func(k noise.KeyPair) bool { return k.Public == d.Key })
			if d.Status == In {
				again = append(again, certificates[0][i][0])
			} else {
				again = append(again, revocations[0][i][0])
			}
		}
		restored := feed(t, rng, again...)
		for _, d := range want {
			if now, _ := restored.Device(d.Key); d.Status == Revoked && now.Status != Revoked {
				t.Fatalf("seed %d: %s was revoked, and again, and is %s", seed, d.Key, now.Status)
			}
		}
	}
	if in < 20 || out < 20 || leaning < 3 {
		t.Errorf("too little happened: %d in, %d out, %d leaning", in, out, leaning)
	}
}

// Whatever the thief of device 3 signs, and whatever times it makes up: once a
// device as near to the owner, or nearer, has revoked it, it stays out, and so do
// those that it brings; and the nearer one stays in.
func TestThiefCannotStay(t *testing.T) {
	o := owner.KeyPair()
	runs := uint64(20)
	if os.Getenv("BEVY_LONG") != "" {
		runs = 2000
	}
	for seed := range runs {
		rng := rand.New(rand.NewPCG(seed, 3))
		nearer := seed%2 == 0
		statements := []any{certificate(t, o, device(1), true, 0), certificate(t, o, device(2), true, 0)}
		if nearer {
			statements = append(statements, certificate(t, device(2), device(3), true, 0))
		} else {
			statements = append(statements, certificate(t, o, device(3), true, 0))
		}
		statements = append(statements, revocation(t, device(1), device(3), time.Hour))
		for range 8 {
			at := time.Duration(rng.IntN(2000)-1000) * time.Hour
			by, of := device(byte(3+rng.IntN(4))), device(byte(1+rng.IntN(6))) // 4 to 6 are the thief's own
			if rng.IntN(2) == 0 {
				statements = append(statements, revocation(t, by, of, at))
			} else {
				statements = append(statements, certificate(t, by, of, true, at))
			}
		}
		r := feed(t, rng, statements...)
		for n := byte(3); n <= 6; n++ {
			if r.Has(device(n).Public) {
				t.Errorf("seed %d: device %d is in", seed, n)
			}
		}
		if nearer && !(r.Has(device(1).Public) && r.Has(device(2).Public)) {
			t.Errorf("seed %d: the thief has put out one that is nearer to the owner", seed)
		}
	}
}
