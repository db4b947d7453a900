package identity

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// Every statement begins with these bytes: the version of the format and what is
// stated.
const (
	version = 1

	kindCertificate = 1
	kindRevocation  = 2
	kindCapability  = 3
)

// Bounds of statements.
const (
	// MaxName is the most bytes of a device's name.
	MaxName = 64
	// MaxLogs is the most logs that a revocation may name.
	MaxLogs = 1 << 14
)

const signatureSize = 64

// domains keep a signature for one purpose from counting for another.
var domains = [...]string{
	kindCertificate: "bevy/identity/1/certificate\x00",
	kindRevocation:  "bevy/identity/1/revocation\x00",
	kindCapability:  "bevy/identity/1/capability\x00",
}

const domainProof = "bevy/identity/1/proof\x00"

// A Certificate says that a device belongs to a cloud.
type Certificate struct {
	Cloud  CloudID
	Device Key
	// Name is what people call the device: 1 to MaxName bytes of UTF-8 that can
	// be printed.
	Name string
	// Issued is when, to the millisecond. Of two certificates by one issuer for
	// one device the later counts.
	Issued time.Time
	// Admits says that the device may admit and revoke others.
	Admits bool
	// Issuer is who signed it: the owner, or a device that admits.
	Issuer    Key
	Signature [64]byte
}

// Sign returns the certificate signed by the owner or a device.
func (c Certificate) Sign(issuer noise.KeyPair) (Certificate, error) {
	c.Issuer, c.Issued = issuer.Public, milliseconds(c.Issued)
	if err := c.check(); err != nil {
		return Certificate{}, err
	}
	c.Signature = sign(issuer, kindCertificate, c.body())
	return c, nil
}

// Verify checks the fields and the signature. Whether the issuer had the right to
// sign is for a [Roster] to say.
func (c Certificate) Verify() error {
	if err := c.check(); err != nil {
		return err
	}
	return verify(c.Issuer, kindCertificate, c.body(), c.Signature)
}

func (c Certificate) check() error {
	if !GoodName(c.Name) {
		return fmt.Errorf("certificate: %w: the name %q", ErrInvalid, c.Name[:min(len(c.Name), MaxName)])
	}
	if !goodTime(c.Issued) {
		return fmt.Errorf("certificate: %w: the time %s", ErrInvalid, c.Issued)
	}
	if c.Device == Key(c.Cloud) {
		return fmt.Errorf("certificate: %w: the owner's key is no device's", ErrInvalid)
	}
	return nil
}

func (c Certificate) body() []byte {
	b := append([]byte{version, kindCertificate}, c.Cloud[:]...)
	b = append(b, c.Device[:]...)
	b = append(b, c.Issuer[:]...)
	b = appendTime(b, c.Issued)
	b = compact.AppendBool(b, c.Admits)
	return compact.AppendString(b, c.Name)
}

// Encode returns the certificate's bytes.
func (c Certificate) Encode() []byte { return append(c.body(), c.Signature[:]...) }

// DecodeCertificate reads what Encode wrote. It checks no signature.
func DecodeCertificate(b []byte) (c Certificate, err error) {
	d := begin(b, kindCertificate)
	c.Cloud, c.Device, c.Issuer = d.Fixed32(), d.Fixed32(), d.Fixed32()
	c.Issued = readTime(&d)
	c.Admits = d.Bool()
	c.Name = d.String(MaxName)
	c.Signature = d.Fixed64()
	if err := d.Finish(); err != nil {
		return Certificate{}, fmt.Errorf("certificate: %w: %w", ErrInvalid, err)
	}
	if err := c.check(); err != nil {
		return Certificate{}, err
	}
	return c, oneForm("certificate", b, c.Encode())
}

// A LogLength is how much of a log counts.
type LogLength struct {
	Log    hypercore.Key
	Length uint64
}

// A Revocation takes a device out of a cloud for good. The device may come back
// with another key.
type Revocation struct {
	Cloud  CloudID
	Device Key
	// Time is when, to the millisecond. Of two revocations by one issuer for one
	// device the later counts, so lengths can be corrected.
	Time time.Time
	// Logs says how much of the device's logs counts, in the order of their keys.
	// Of a log that is not there nothing counts.
	Logs []LogLength
	// Issuer is who signed it: the owner, a device that admits, or the device
	// itself.
	Issuer    Key
	Signature [64]byte
}

// Sign returns the revocation signed by the owner or a device. It puts a copy of
// Logs in order.
func (r Revocation) Sign(issuer noise.KeyPair) (Revocation, error) {
	r.Issuer, r.Time = issuer.Public, milliseconds(r.Time)
	r.Logs = slices.Clone(r.Logs)
	slices.SortFunc(r.Logs, func(a, b LogLength) int { return bytes.Compare(a.Log[:], b.Log[:]) })
	if err := r.check(); err != nil {
		return Revocation{}, err
	}
	r.Signature = sign(issuer, kindRevocation, r.body())
	return r, nil
}

// Verify checks the fields and the signature. Whether the issuer had the right to
// sign is for a [Roster] to say.
func (r Revocation) Verify() error {
	if err := r.check(); err != nil {
		return err
	}
	return verify(r.Issuer, kindRevocation, r.body(), r.Signature)
}

// Length returns how much of a log of the device counts.
func (r Revocation) Length(log hypercore.Key) uint64 {
	i, ok := slices.BinarySearchFunc(r.Logs, log, func(l LogLength, log hypercore.Key) int { return bytes.Compare(l.Log[:], log[:]) })
	if !ok {
		return 0
	}
	return r.Logs[i].Length
}

func (r Revocation) check() error {
	if !goodTime(r.Time) {
		return fmt.Errorf("revocation: %w: the time %s", ErrInvalid, r.Time)
	}
	if r.Device == Key(r.Cloud) {
		return fmt.Errorf("revocation: %w: the owner can't be revoked", ErrInvalid)
	}
	if len(r.Logs) > MaxLogs {
		return fmt.Errorf("revocation: %w: it names %d logs", ErrInvalid, len(r.Logs))
	}
	for i, l := range r.Logs {
		if i > 0 && bytes.Compare(r.Logs[i-1].Log[:], l.Log[:]) >= 0 {
			return fmt.Errorf("revocation: %w: its logs are not in order", ErrInvalid)
		}
		if l.Length > compact.MaxUint {
			return fmt.Errorf("revocation: %w: the length %d", ErrInvalid, l.Length)
		}
	}
	return nil
}

func (r Revocation) body() []byte {
	b := append([]byte{version, kindRevocation}, r.Cloud[:]...)
	b = append(b, r.Device[:]...)
	b = append(b, r.Issuer[:]...)
	b = appendTime(b, r.Time)
	return compact.AppendArray(b, r.Logs, func(b []byte, l LogLength) []byte {
		return compact.AppendUint(append(b, l.Log[:]...), l.Length)
	})
}

// Encode returns the revocation's bytes.
func (r Revocation) Encode() []byte { return append(r.body(), r.Signature[:]...) }

// DecodeRevocation reads what Encode wrote. It checks no signature.
func DecodeRevocation(b []byte) (r Revocation, err error) {
	d := begin(b, kindRevocation)
	r.Cloud, r.Device, r.Issuer = d.Fixed32(), d.Fixed32(), d.Fixed32()
	r.Time = readTime(&d)
	r.Logs = compact.DecodeArray(&d, MaxLogs, func(d *compact.Decoder) LogLength {
		return LogLength{d.Fixed32(), d.Uint()}
	})
	r.Signature = d.Fixed64()
	if err := d.Finish(); err != nil {
		return Revocation{}, fmt.Errorf("revocation: %w: %w", ErrInvalid, err)
	}
	if err := r.check(); err != nil {
		return Revocation{}, err
	}
	return r, oneForm("revocation", b, r.Encode())
}

// begin reads the two bytes that every statement begins with.
func begin(b []byte, kind byte) compact.Decoder {
	d := compact.NewDecoder(b)
	if v, k := d.Uint8(), d.Uint8(); d.Err() == nil && (v != version || k != kind) {
		d.Fail("version and kind", compact.ErrInvalid)
	}
	return d
}

// oneForm refuses bytes that mean the same as others, so that a statement has one
// hash.
func oneForm(what string, got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %w: not in its one form", what, ErrInvalid)
	}
	return nil
}

func sign(keys noise.KeyPair, kind byte, body []byte) [signatureSize]byte {
	return [signatureSize]byte(keys.Sign(append([]byte(domains[kind]), body...)))
}

func verify(key Key, kind byte, body []byte, signature [signatureSize]byte) error {
	if !ed25519.Verify(key[:], append([]byte(domains[kind]), body...), signature[:]) {
		return fmt.Errorf("%w of %s", ErrSignature, key)
	}
	return nil
}

// GoodName reports whether a device can be called that: 1 to MaxName bytes that
// any terminal can show without harm.
func GoodName(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func goodTime(t time.Time) bool {
	ms := t.UnixMilli()
	return ms >= 0 && ms <= compact.MaxInt
}

// milliseconds returns t as it is written.
func milliseconds(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

func appendTime(b []byte, t time.Time) []byte {
	return compact.AppendUint(b, uint64(t.UnixMilli()))
}

func readTime(d *compact.Decoder) time.Time {
	return time.UnixMilli(int64(d.Uint())).UTC()
}
