package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/statements.json again")

var (
	owner = NewOwner(Seed{1})
	noon  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// device returns the key pair of device n.
func device(n byte) noise.KeyPair { return Seed{2, n}.KeyPair() }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func certificate(t testing.TB, issuer noise.KeyPair, of noise.KeyPair, admits bool, at time.Duration) Certificate {
	t.Helper()
	return must[Certificate](t)(Certificate{Cloud: owner.Cloud(), Device: of.Public, Name: "attic", Issued: noon.Add(at), Admits: admits}.Sign(issuer))
}

func revocation(t testing.TB, issuer noise.KeyPair, of noise.KeyPair, at time.Duration, logs ...LogLength) Revocation {
	t.Helper()
	return must[Revocation](t)(Revocation{Cloud: owner.Cloud(), Device: of.Public, Time: noon.Add(at), Logs: logs}.Sign(issuer))
}

// samples are one of each statement, encoded.
func samples(t testing.TB) map[string][]byte {
	grant := must[Grant](t)(NewGrant(device(1), Capability{
		Cloud: owner.Cloud(), Kind: Folder, Resource: "photos", Prefix: "/2026", Actions: Read | Share,
		NotBefore: noon, Until: noon.AddDate(0, 0, 7), Holder: device(8).Public,
	}))
	longer := must[Grant](t)(grant.Delegate(device(8), Capability{Prefix: "/2026/11", Actions: Read, Holder: device(9).Public}))
	return map[string][]byte{
		"certificate": certificate(t, owner.KeyPair(), device(1), true, 0).Encode(),
		"revocation":  revocation(t, device(1), device(2), time.Hour, LogLength{hypercore.Key{2}, 70000}, LogLength{hypercore.Key{1}, 5}).Encode(),
		"capability":  grant[0].Encode(),
		"grant":       longer.Encode(),
	}
}

// What was signed once must be read for ever.
func TestStatementsKeepTheirBytes(t *testing.T) {
	const file = "testdata/statements.json"
	got := map[string]string{}
	for name, b := range samples(t) {
		got[name] = hex.EncodeToString(b)
	}
	if *rewrite {
		b, err := json.MarshalIndent(got, "", "\t")
		if err := errors.Join(err, os.WriteFile(file, append(b, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	want := map[string]string{}
	if err := errors.Join(err, json.Unmarshal(b, &want)); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s\n got %s\nwant %s", name, got[name], want[name])
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d samples, want %d", len(got), len(want))
	}
}

// read decodes a statement of any kind, and verifies its signatures. It returns
// what it would be written as.
func read(name string, b []byte) (again []byte, err error) {
	switch name {
	case "certificate":
		c, err := DecodeCertificate(b)
		if err != nil {
			return nil, err
		}
		return c.Encode(), c.Verify()
	case "revocation":
		r, err := DecodeRevocation(b)
		if err != nil {
			return nil, err
		}
		return r.Encode(), r.Verify()
	case "capability":
		c, err := DecodeCapability(b)
		if err != nil {
			return nil, err
		}
		return c.Encode(), verify(c.Issuer, kindCapability, c.body(), c.Signature)
	}
	g, err := DecodeGrant(b)
	if err != nil {
		return nil, err
	}
	roster := NewRoster(owner.Cloud())
	c, err := Certificate{Cloud: owner.Cloud(), Device: device(1).Public, Name: "x", Issued: noon, Admits: true}.Sign(owner.KeyPair())
	if err := errors.Join(err, roster.Admit(c)); err != nil {
		return nil, err
	}
	_, err = g.Verify(Rules{Roster: roster, Now: noon})
	return g.Encode(), err
}

func TestChangedStatementsAreRefused(t *testing.T) {
	for name, b := range samples(t) {
		if again, err := read(name, b); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s: %v", name, err)
		}
		step := 11 // of each byte another bit, and of all bytes many
		if os.Getenv("BEVY_LONG") != "" {
			step = 1
		}
		for bit := 0; bit < len(b)*8; bit += step {
			c := bytes.Clone(b)
			c[bit/8] ^= 1 << (bit % 8)
			if _, err := read(name, c); err == nil {
				t.Errorf("%s with bit %d changed is taken", name, bit)
			}
		}
		for n := range len(b) {
			if _, err := read(name, b[:n]); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if _, err := read(name, append(bytes.Clone(b), 0)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s with one byte more: %v", name, err)
		}
		for other := range samples(t) {
			if _, err := read(other, b); other != name && err == nil {
				t.Errorf("%s is read as %s", name, other)
			}
		}
	}
}

func TestStatementsHaveOneForm(t *testing.T) {
	b := certificate(t, owner.KeyPair(), device(1), true, 0).Encode()
	name := bytes.Index(b, []byte("\x05attic"))
	long := slices.Concat(b[:name], []byte{0xfd, 5, 0}, b[name+1:]) // the same length, written longer
	if _, err := DecodeCertificate(long); !errors.Is(err, ErrInvalid) {
		t.Errorf("a longer form: %v", err)
	}
}

func TestFieldsThatCannotBeAreRefused(t *testing.T) {
	keys := owner.KeyPair()
	good := Certificate{Cloud: owner.Cloud(), Device: device(1).Public, Name: "x", Issued: noon}
	for name, change := range map[string]func(*Certificate){
		"no name":       func(c *Certificate) { c.Name = "" },
		"long name":     func(c *Certificate) { c.Name = strings.Repeat("x", MaxName+1) },
		"escape":        func(c *Certificate) { c.Name = "a\x1b[2J" },
		"new line":      func(c *Certificate) { c.Name = "a\nb" },
		"right to left": func(c *Certificate) { c.Name = "a\u202eb" },
		"not UTF-8":     func(c *Certificate) { c.Name = "a\xff" },
		"before 1970":   func(c *Certificate) { c.Issued = time.Unix(-1, 0) },
		"no time":       func(c *Certificate) { c.Issued = time.Time{} },
		"the owner's":   func(c *Certificate) { c.Device = Key(c.Cloud) },
		"far too late":  func(c *Certificate) { c.Issued = time.UnixMilli(1 << 53) },
	} {
		c := good
		change(&c)
		if _, err := c.Sign(keys); !errors.Is(err, ErrInvalid) {
			t.Errorf("certificate, %s: %v", name, err)
		}
		if err := c.Verify(); !errors.Is(err, ErrInvalid) {
			t.Errorf("certificate, %s, verified: %v", name, err)
		}
	}
	for _, name := range []string{"x", "Lenka's laptop", "Dachboden-Rechner 2", "パソコン", strings.Repeat("x", MaxName)} {
		c := good
		c.Name = name
		if c, err := c.Sign(keys); err != nil || c.Verify() != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, r := range map[string]Revocation{
		"owner": {Cloud: owner.Cloud(), Device: Key(owner.Cloud()), Time: noon},
		"twice": {Cloud: owner.Cloud(), Device: device(1).Public, Time: noon, Logs: make([]LogLength, 2)},
		"many":  {Cloud: owner.Cloud(), Device: device(1).Public, Time: noon, Logs: make([]LogLength, MaxLogs+1)},
		"long":  {Cloud: owner.Cloud(), Device: device(1).Public, Time: noon, Logs: []LogLength{{Length: 1 << 60}}},
		"early": {Cloud: owner.Cloud(), Device: device(1).Public},
	} {
		if _, err := r.Sign(keys); !errors.Is(err, ErrInvalid) {
			t.Errorf("revocation, %s: %v", name, err)
		}
	}
}

func TestRevocationSaysHowMuchCounts(t *testing.T) {
	logs := []LogLength{{hypercore.Key{9}, 9}, {hypercore.Key{1}, 1}, {hypercore.Key{5}, 5}}
	r := revocation(t, owner.KeyPair(), device(1), 0, logs...)
	if logs[0].Length != 9 {
		t.Error("Sign has sorted the caller's logs")
	}
	again := must[Revocation](t)(DecodeRevocation(r.Encode()))
	for n := range byte(12) {
		want := uint64(0)
		if n == 1 || n == 5 || n == 9 {
			want = uint64(n)
		}
		if got := again.Length(hypercore.Key{n}); got != want {
			t.Errorf("log %d counts up to %d, want %d", n, got, want)
		}
	}
}

func FuzzStatements(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []string{"certificate", "revocation", "capability", "grant"} {
			if again, _ := read(name, b); again != nil && !bytes.Equal(again, b) {
				t.Errorf("%s %x is written as %x", name, b, again)
			}
		}
	})
}
