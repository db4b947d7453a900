package cloud

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// The control tree has these keys, each followed by a name. Its values are
// written down in docs/formats/cloud.md.
const (
	certKeys       = "cert/"       // + device + "/" + issuer: its certificate
	revocationKeys = "revocation/" // + device + "/" + issuer: its revocation
	sealedKeys     = "key/"        // + epoch + "/" + device: the cloud's key of an epoch, for one device
	spaceKeys      = "space/"      // + id: what it is
	writerKeys     = "writer/"     // + space + "/" + log: who writes it
	keepKeys       = "keep/"       // + device + "/" + space: what the device does with it
	settingKeys    = "setting/"    // + name: a setting that belongs to the cloud
	appRows        = "app/"        // + name: an app
	appKeyRows     = "appkey/"     // + id: an access key of an app
	revokedKeyRows = "appkeyout/"  // + id: that it is over
	shareRows      = "share/"      // + id: a part of a folder that a link opens

	stoppedShareRows = "shareout/" // + id: that it is over
)

// controlSpace is the id of the space of the control tree itself.
const controlSpace = "control"

// A writerRecord says that a device writes logs of a space. It is signed by the
// device, so that no other can put words in its mouth.
type writerRecord struct {
	Space string `json:"space"`
	// Device is its public key.
	Device hypercore.Key `json:"device"`
	// Tree and Content are the keys of the logs; Content is zero where a space
	// has none.
	Tree    hypercore.Key `json:"tree"`
	Content hypercore.Key `json:"content,omitzero"`
	// Epoch names the key of the cloud by which they are encrypted.
	Epoch     string `json:"epoch"`
	Signature []byte `json:"signature"`
	// The logs sign as well, so that no device can call others' logs its own.
	TreeProof    proof `json:"treeProof"`
	ContentProof proof `json:"contentProof,omitzero"`
}

// A proof is the signature of a record by the key pair of a log.
type proof struct {
	Public    hypercore.Key `json:"public"`
	Signature []byte        `json:"signature"`
}

func (p proof) of(log hypercore.Key, message []byte) bool {
	return hypercore.SingleSigner(p.Public).Key() == log && ed25519.Verify(p.Public[:], message, p.Signature)
}

// IsZero is for the encoding of a record.
func (p proof) IsZero() bool { return p.Public == hypercore.Key{} && p.Signature == nil }

// message is what is signed.
func (r *writerRecord) message() []byte {
	b := append([]byte("bevy cloud writer 1\x00"), r.Device[:]...)
	b = append(b, r.Tree[:]...)
	b = append(b, r.Content[:]...)
	return fmt.Appendf(b, "%q %q", r.Epoch, r.Space)
}

// sign names the logs of the key pairs, content nil if there is none, and signs
// with these and with the device's.
func (r *writerRecord) sign(device, tree hypercore.KeyPair, content *hypercore.KeyPair) {
	r.Device, r.Tree = device.Public, hypercore.SingleSigner(tree.Public).Key()
	if content != nil {
		r.Content = hypercore.SingleSigner(content.Public).Key()
	}
	m := r.message()
	r.Signature, r.TreeProof = device.Sign(m), proof{tree.Public, tree.Sign(m)}
	if content != nil {
		r.ContentProof = proof{content.Public, content.Sign(m)}
	}
}

// errRecord: a record of the control tree makes no sense.
var errRecord = errors.New("invalid record")

// check tells whether the record can be taken for that of its key.
func (r *writerRecord) check(space string, tree hypercore.Key) error {
	switch {
	case r.Space != space || r.Tree != tree || r.Tree == r.Content:
		return fmt.Errorf("%w: writer %s of space %s", errRecord, tree, space)
	case len(r.Epoch) > maxEpoch:
		return fmt.Errorf("%w: writer %s of space %s: the epoch has %d bytes", errRecord, tree, space, len(r.Epoch))
	}
	m := r.message()
	if !ed25519.Verify(r.Device[:], m, r.Signature) || !r.TreeProof.of(r.Tree, m) || r.Content != (hypercore.Key{}) && !r.ContentProof.of(r.Content, m) {
		return fmt.Errorf("%w: writer %s of space %s: a signature is wrong", errRecord, tree, space)
	}
	return nil
}

// A Kind is what the data of a space is.
type Kind string

// The kinds of spaces.
const (
	Control Kind = "control" // of the cloud itself
	Folder  Kind = "folder"  // files: a tree of entries, and contents
	Table   Kind = "table"   // items: a tree alone
)

// A SpaceInfo is what the cloud knows about a space.
type SpaceInfo struct {
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Name is for people, and is one of a kind in its app.
	Name string `json:"name"`
	// App is whose data it is: empty is the owner's own.
	App string `json:"app,omitempty"`
	// Options are for who uses the space, as JSON.
	Options json.RawMessage `json:"options,omitempty"`
	// Removed says that nobody is to use it any more. Its logs stay until they
	// are past what is kept.
	Removed bool `json:"removed,omitempty"`
}

// maxEpoch is the most bytes of an epoch's name, and maxOptions of a space's
// options.
const (
	maxEpoch   = 64
	maxOptions = 64 << 10
)

// check tells whether a device that keeps to the rules can have said it. Its ID
// is used as the name of files.
func (i SpaceInfo) check(id string) error {
	name := i.App
	if name == "" {
		name = i.Name
	}
	switch {
	case i.ID != id || !goodID(id) || i.Kind != Folder && i.Kind != Table || len(i.Options) > maxOptions:
		return fmt.Errorf("%w: space %q", errRecord, id)
	case CheckName(i.Name) != nil || CheckName(name) != nil:
		return fmt.Errorf("%w: space %s: its name", errRecord, id)
	}
	return nil
}

// goodID tells whether a name can be one that NewID made.
func goodID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16 && hex.EncodeToString(b) == id
}

// epochName names a key of the cloud by what it is, so that nobody can hand
// out two under one name.
func epochName(key []byte) string {
	h := sha256.Sum256(append([]byte("bevy cloud epoch 1\x00"), key...))
	return hex.EncodeToString(h[:16])
}

// spaceKey derives the key that the logs of a space are encrypted with from the
// cloud's key of an epoch.
func spaceKey(cloud [32]byte, space string) (key [32]byte) {
	b, err := hkdf.Key(sha256.New, cloud[:], nil, "bevy cloud space 1 "+space, 32)
	if err != nil {
		panic("cloud: " + err.Error()) // 32 bytes can be had
	}
	copy(key[:], b)
	return key
}
