package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Vault keeps the secrets of a device: one value, replaced as a whole.
type Vault interface {
	// Load returns what was saved last, or an error that is fs.ErrNotExist.
	Load() ([]byte, error)
	// Save replaces it. When Save returns, it is on the disk; when the machine
	// stops before, either the old value is there or the new one.
	Save([]byte) error
}

// A FileVault is a vault in a file that only its owner can read.
type FileVault string

// Load implements [Vault].
func (f FileVault) Load() ([]byte, error) { return os.ReadFile(string(f)) }

// Save implements [Vault].
func (f FileVault) Save(b []byte) (err error) {
	dir := filepath.Dir(string(f))
	temp, err := os.CreateTemp(dir, ".secrets-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(b)
	if err == nil {
		err = temp.Sync()
	}
	if e := temp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp.Name(), string(f))
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir has the names in a folder reach the disk, where a system knows how.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// A MemoryVault is a vault for tests.
type MemoryVault struct{ Bytes []byte }

// Load implements [Vault].
func (m *MemoryVault) Load() ([]byte, error) {
	if m.Bytes == nil {
		return nil, fs.ErrNotExist
	}
	return m.Bytes, nil
}

// Save implements [Vault].
func (m *MemoryVault) Save(b []byte) error {
	m.Bytes = append([]byte(nil), b...)
	return nil
}

// secretsVersion is that of the format in docs/formats/cloud.md.
const secretsVersion = 1

// secrets are all that a device must know besides its logs.
type secrets struct {
	Version int `json:"version"`
	// Seed is the owner's, where it was made or typed in; empty elsewhere.
	Seed secret `json:"seed,omitempty"`
	// SeedShown says that a person has seen the words of the seed.
	SeedShown bool `json:"seedShown,omitempty"`
	// Cloud is the owner's public key.
	Cloud secret `json:"cloud"`
	// Device is the seed of the device's own key pair.
	Device secret `json:"device"`
	// Chain are certificates from the device's up to the owner's.
	Chain [][]byte `json:"chain"`
	// Keys are the cloud's keys, by the names of their epochs.
	Keys map[string]secret `json:"keys"`
	// Writer names the device's present logs, at random.
	Writer string `json:"writer"`
	// Epoch says by which key these logs are encrypted.
	Epoch string `json:"epoch"`
	// Before are control logs that were known when the present ones were begun:
	// by them everything else is found.
	Before []writerRecord `json:"before,omitempty"`
	// Behind says that others have more of this device's logs than there is here:
	// it has to begin anew, as another device.
	Behind bool `json:"behind,omitempty"`
	// Lost are the logs of which they have more.
	Lost []lostLog `json:"lost,omitempty"`
	// Mended is how often logs have become what others have of them.
	Mended int `json:"mended,omitempty"`
	// Former are the devices that this one was before, the last ones.
	Former []Former `json:"former,omitempty"`
}

// A secret is 32 bytes that don't print.
type secret []byte

func (secret) String() string   { return "[redacted]" }
func (secret) GoString() string { return "[redacted]" }

// array returns the bytes, zero if they are none.
func (s secret) array() (a [32]byte) {
	copy(a[:], s)
	return a
}

// ErrNoCloud: there is no cloud here yet.
var ErrNoCloud = errors.New("no cloud here")

func loadSecrets(v Vault) (*secrets, error) {
	b, err := v.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCloud
	}
	if err != nil {
		return nil, fmt.Errorf("read the secrets of the cloud: %w", err)
	}
	s := &secrets{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read the secrets of the cloud: %w", err)
	}
	if s.Version != secretsVersion {
		return nil, fmt.Errorf("the secrets of the cloud are of version %d, and this program knows %d: a newer one is needed", s.Version, secretsVersion)
	}
	whole := s.Writer != "" && s.Keys[s.Epoch] != nil && len(s.Cloud) == 32 && len(s.Device) == 32 && (len(s.Seed) == 0 || len(s.Seed) == 32)
	for _, k := range s.Keys {
		whole = whole && len(k) == 32
	}
	if !whole {
		return nil, errors.New("read the secrets of the cloud: they are not whole")
	}
	return s, nil
}

// pair returns the device's key pair.
func (s *secrets) pair() hypercore.KeyPair { return hypercore.NewKeyPair(s.Device.array()) }

func (s *secrets) save(v Vault) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := v.Save(append(b, '\n')); err != nil {
		return fmt.Errorf("save the secrets of the cloud: %w", err)
	}
	return nil
}
