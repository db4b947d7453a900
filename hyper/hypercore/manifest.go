package hypercore

import (
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"golang.org/x/crypto/blake2b"
)

// A Manifest says who may sign a log. The log's key is its hash, so it can't
// change. It is the same thing in the npm package hypercore (lib/messages.js,
// lib/verifier.js); a decoded one must not be changed.
type Manifest struct {
	// Version is 0 to 3. Version 1 is right unless Linked or UserData are wanted,
	// which need 2: peers of version 10 know no higher one than 1.
	Version int
	// AllowPatch lets signatures of a multisig cover different lengths.
	AllowPatch bool
	// Quorum is how many of the signers must sign.
	Quorum  uint64
	Signers []Signer
	// Prologue pins the first blocks by hash; with no signers, the whole log.
	Prologue *merkle.Prologue
	Linked   []Key
	UserData []byte
}

// A Signer is one who may sign.
type Signer struct {
	Namespace [32]byte // what the key signs for; DefaultNamespace if it has one use
	PublicKey Key
}

// SingleSigner returns the manifest of version 1 for one writer.
func SingleSigner(public Key) *Manifest {
	return &Manifest{Version: 1, Quorum: 1, Signers: []Signer{{DefaultNamespace, public}}}
}

// Limits of a manifest that is read.
const (
	maxManifest = 1 << 20
	maxSigners  = 1 << 10
	maxLinked   = 1 << 12
)

const (
	manifestPatch = 1 << iota
	manifestPrologue
	manifestLinked
	manifestUserData
)

// Encode returns the manifest's bytes.
func (m *Manifest) Encode() []byte {
	b := compact.AppendUint(nil, uint64(m.Version))
	if m.Version == 0 {
		return m.appendV0(b)
	}
	var flags uint64
	if m.AllowPatch {
		flags |= manifestPatch
	}
	if m.Prologue != nil {
		flags |= manifestPrologue
	}
	if m.Linked != nil {
		flags |= manifestLinked
	}
	if m.UserData != nil {
		flags |= manifestUserData
	}
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, 0) // BLAKE2b
	b = compact.AppendUint(b, m.Quorum)
	b = compact.AppendArray(b, m.Signers, appendSigner)
	if p := m.Prologue; p != nil {
		b = append(b, p.Hash[:]...)
		b = compact.AppendUint(b, p.Length)
	}
	if m.Linked != nil {
		b = compact.AppendArray(b, m.Linked, func(b []byte, k Key) []byte { return append(b, k[:]...) })
	}
	if m.UserData != nil {
		b = compact.AppendBuffer(b, m.UserData)
	}
	return b
}

func (m *Manifest) appendV0(b []byte) []byte {
	b = compact.AppendUint(b, 0) // BLAKE2b
	switch {
	case m.Prologue != nil && len(m.Signers) == 0:
		b = compact.AppendUint(b, 0)
		return append(b, m.Prologue.Hash[:]...)
	case m.Quorum == 1 && len(m.Signers) == 1 && !m.AllowPatch:
		b = compact.AppendUint(b, 1)
		return appendSigner(b, m.Signers[0])
	}
	b = compact.AppendUint(b, 2)
	flags := uint64(0)
	if m.AllowPatch {
		flags = 1
	}
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, m.Quorum)
	return compact.AppendArray(b, m.Signers, appendSigner)
}

func appendSigner(b []byte, s Signer) []byte {
	b = compact.AppendUint(b, 0) // Ed25519
	b = append(b, s.Namespace[:]...)
	return append(b, s.PublicKey[:]...)
}

// DecodeManifest reads a manifest from bytes that are nothing else.
func DecodeManifest(b []byte) (*Manifest, error) {
	d := compact.NewDecoder(b)
	m, err := ReadManifest(&d)
	if err == nil {
		err = d.Finish()
	}
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

// ReadManifest reads a manifest that is part of a message.
func ReadManifest(d *compact.Decoder) (*Manifest, error) {
	version := d.Uint()
	if version > 3 {
		d.Fail("manifest version", compact.ErrInvalid)
	}
	m := &Manifest{Version: int(version)}
	if version == 0 {
		m.readV0(d)
		return m, d.Err()
	}
	flags := d.Uint()
	if d.Uint() != 0 {
		d.Fail("manifest hash", compact.ErrInvalid)
	}
	m.AllowPatch = flags&manifestPatch != 0
	m.Quorum = d.Uint()
	m.Signers = compact.DecodeArray(d, maxSigners, readSigner)
	if flags&manifestPrologue != 0 {
		m.Prologue = &merkle.Prologue{Hash: d.Fixed32(), Length: d.Uint()}
	}
	if flags&manifestLinked != 0 {
		m.Linked = compact.DecodeArray(d, maxLinked, func(d *compact.Decoder) Key { return d.Fixed32() })
		if m.Linked == nil {
			m.Linked = []Key{}
		}
	}
	if flags&manifestUserData != 0 {
		m.UserData = append([]byte{}, d.Buffer(maxManifest)...)
	}
	return m, d.Err()
}

func (m *Manifest) readV0(d *compact.Decoder) {
	if d.Uint() != 0 {
		d.Fail("manifest hash", compact.ErrInvalid)
	}
	switch d.Uint() {
	case 0:
		m.Prologue = &merkle.Prologue{Hash: d.Fixed32()}
	case 1:
		m.Quorum = 1
		m.Signers = []Signer{readSigner(d)}
	case 2:
		m.AllowPatch = d.Uint()&1 != 0
		m.Quorum = d.Uint()
		m.Signers = compact.DecodeArray(d, maxSigners, readSigner)
	default:
		d.Fail("manifest type", compact.ErrInvalid)
	}
}

func readSigner(d *compact.Decoder) Signer {
	if d.Uint() != 0 {
		d.Fail("signature kind", compact.ErrInvalid)
	}
	return Signer{d.Fixed32(), d.Fixed32()}
}

// Key returns the key of the log with this manifest.
func (m *Manifest) Key() Key {
	return blake2b.Sum256(append(nsManifest[:len(nsManifest):len(nsManifest)], m.Encode()...))
}

// ErrManifest: a manifest makes no sense, or is not that of the log.
var ErrManifest = errors.New("invalid manifest")

// Validate reports what is wrong with a manifest that a program made.
func (m *Manifest) Validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrManifest, what) }
	switch {
	case m.Version < 0 || m.Version > 3:
		return bad(fmt.Sprintf("version %d is not 0 to 3", m.Version))
	case m.Quorum > uint64(len(m.Signers)):
		return bad(fmt.Sprintf("a quorum of %d among %d signers", m.Quorum, len(m.Signers)))
	case len(m.Signers) > 0 && m.Quorum == 0:
		return bad("a quorum of 0: DefaultQuorum is more than half")
	case len(m.Signers) == 0 && m.Prologue == nil:
		return bad("neither signers nor a prologue")
	case m.Version < 2 && (len(m.Linked) > 0 || m.UserData != nil):
		return bad("linked keys and user data need version 2")
	case m.Prologue != nil && m.Prologue.Length > merkle.MaxSize:
		return bad("prologue is too long")
	case len(m.UserData) > maxManifest/2 || len(m.Signers) > maxSigners || len(m.Linked) > maxLinked:
		return bad("too large")
	}
	return nil
}

// DefaultQuorum is more than half of n signers.
func DefaultQuorum(n int) uint64 { return uint64(n/2 + 1) }

// isCompat reports whether a log of that key and manifest is one of the old
// kind, whose key is its writer's public key.
func (m *Manifest) isCompat(key Key) bool {
	return len(m.Signers) == 1 && m.Signers[0].PublicKey == key
}
