package objects

import (
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
)

// An Object is what is said of an object, of one of its versions, or of a delete
// marker.
type Object struct {
	Key  string
	Size int64
	// ETag is without quotes.
	ETag     string
	Modified time.Time
	// Version is "" in a bucket that never had versions, and "null" for what was put
	// without.
	Version string
	Latest  bool
	// Marker says that it is a delete marker, which has nothing else.
	Marker bool

	Meta     Meta
	Checksum Checksum
	// Parts is how many it was put in; 0 if it was not put in parts.
	Parts int
	Tags  []Tag
	Lock  Lock
	// ACL is what SetACL or Put were given.
	ACL string

	parts attributes
	entry folder.Entry
}

// Meta is what a client says of an object, and gets back with it.
type Meta struct {
	ContentType        string
	CacheControl       string
	ContentDisposition string
	ContentEncoding    string
	ContentLanguage    string
	Expires            string
	WebsiteRedirect    string
	StorageClass       string            // "" is STANDARD
	User               map[string]string // x-amz-meta-, names in lower case
}

// A Checksum is one that a client asked for. Its zero value is none.
type Checksum struct {
	// Algorithm is CRC32, CRC32C, CRC64NVME, SHA1 or SHA256.
	Algorithm string
	// Value is the bytes of it.
	Value []byte
	// Composite says that it is the checksum of the parts' checksums.
	Composite bool
}

// A Tag is one of an object.
type Tag struct{ Key, Value string }

// The modes of a Lock.
const (
	Governance = "GOVERNANCE"
	Compliance = "COMPLIANCE"
)

// A Lock keeps a version from being removed. Its zero value is none.
type Lock struct {
	Mode  string    // Governance, Compliance or ""
	Until time.Time // with a mode
	Hold  bool      // a legal hold, for as long as it is set
}

// A PartInfo is a part of an object that was put in parts.
type PartInfo struct {
	Number   int
	Start    int64 // where it begins in the object
	Size     int64
	Checksum []byte // by the algorithm of the object's checksum; nil if not known
}

// Conditions of a change, on what is there: ETags without quotes, or "*" for
// anything. None of what is a marker holds. No condition is an empty list.
type Conditions struct {
	IfMatch     []string // one of them is there; with nothing there it is ErrNoKey
	IfNoneMatch []string // none of them is
}

type attributes struct{}
