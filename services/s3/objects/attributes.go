package objects

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/compact"
)

// attributes are what S3 knows of a file. Their bytes are described in
// docs/formats/s3.md: a version, then fields, each a tag and a buffer, tags rising.
type attributes struct {
	md5       []byte // what the ETag is made of; nil if it is made of the content's hash
	sizes     []run  // of the parts
	meta      Meta
	tags      []Tag
	checksum  Checksum
	checksums []byte // of the parts, one after the other
	lock      Lock
	acl       string
	version   []byte // id; nil for the null version
	event     string
	by        string
	marker    bool
	upload    []byte // id of the upload that made it
	state     State  // of a bucket
}

// A run is some parts of one size.
type run struct {
	count int
	size  int64
}

const attributesVersion = 1

// The tags of fields.
const (
	fieldMD5 = 1 + iota
	fieldSizes
	fieldContentType
	fieldCacheControl
	fieldContentDisposition
	fieldContentEncoding
	fieldContentLanguage
	fieldExpires
	fieldWebsiteRedirect
	fieldStorageClass
	fieldUser
	fieldTags
	fieldChecksum
	fieldChecksums
	fieldLock
	fieldHold
	fieldACL
	fieldVersion
	fieldEvent
	fieldBy
	fieldMarker
	fieldUpload
	fieldVersioning
	fieldLocks
	fieldDefault
	fieldNoHold
)

// Checksum algorithms by their numbers.
var algorithms = []string{"", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128"}

// Lock modes by their numbers.
var modes = []string{"", Governance, Compliance}

// texts are the fields that are no more than a text.
func (a *attributes) texts() [8]struct {
	tag  uint64
	text *string
} {
	m := &a.meta
	return [8]struct {
		tag  uint64
		text *string
	}{
		{fieldContentType, &m.ContentType}, {fieldCacheControl, &m.CacheControl},
		{fieldContentDisposition, &m.ContentDisposition}, {fieldContentEncoding, &m.ContentEncoding},
		{fieldContentLanguage, &m.ContentLanguage}, {fieldExpires, &m.Expires},
		{fieldWebsiteRedirect, &m.WebsiteRedirect}, {fieldStorageClass, &m.StorageClass},
	}
}

// The longest that new versions are locked for.
const (
	maxLockDays  = 36500
	maxLockYears = 100
)

// maxChecksums bounds what is kept of parts' checksums, and maxRuns their sizes. Of
// what is beyond only the parts' number is known.
const (
	maxChecksums = 24 << 10
	maxRuns      = 2000
)

func (a *attributes) encode() []byte {
	b := append(make([]byte, 0, 96), attributesVersion)
	field := func(tag uint64, v []byte) { b = compact.AppendBuffer(compact.AppendUint(b, tag), v) }
	some := func(tag uint64, v []byte) {
		if len(v) > 0 {
			field(tag, v)
		}
	}
	some(fieldMD5, a.md5)
	if len(a.sizes) > 0 {
		field(fieldSizes, compact.AppendArray(nil, a.sizes, func(b []byte, r run) []byte {
			return compact.AppendUint(compact.AppendUint(b, uint64(r.count)), uint64(r.size))
		}))
	}
	for _, t := range a.texts() {
		some(t.tag, []byte(*t.text))
	}
	if len(a.meta.User) > 0 {
		var v []byte
		for _, name := range slices.Sorted(maps.Keys(a.meta.User)) {
			v = compact.AppendString(compact.AppendString(v, name), a.meta.User[name])
		}
		field(fieldUser, v)
	}
	if len(a.tags) > 0 {
		var v []byte
		for _, t := range a.tags {
			v = compact.AppendString(compact.AppendString(v, t.Key), t.Value)
		}
		field(fieldTags, v)
	}
	if n := slices.Index(algorithms, a.checksum.Algorithm); n > 0 {
		v := []byte{byte(n), 0}
		if a.checksum.Composite {
			v[1] = 1
		}
		field(fieldChecksum, append(v, a.checksum.Value...))
	}
	some(fieldChecksums, a.checksums)
	if n := slices.Index(modes, a.lock.Mode); n > 0 {
		field(fieldLock, binary.LittleEndian.AppendUint64([]byte{byte(n)}, uint64(a.lock.Until.UnixNano())))
	}
	if a.lock.Hold {
		field(fieldHold, nil)
	}
	some(fieldACL, []byte(a.acl))
	some(fieldVersion, a.version)
	some(fieldEvent, []byte(a.event))
	some(fieldBy, []byte(a.by))
	if a.marker {
		field(fieldMarker, nil)
	}
	some(fieldUpload, a.upload)
	some(fieldVersioning, []byte(a.state.Versioning))
	if a.state.Locks {
		field(fieldLocks, nil)
	}
	if n := slices.Index(modes, a.state.Default); n > 0 {
		v := compact.AppendUint([]byte{byte(n)}, uint64(a.state.Days))
		field(fieldDefault, compact.AppendUint(v, uint64(a.state.Years)))
	}
	if a.lock.NoHold {
		field(fieldNoHold, nil)
	}
	return b
}

var errAttributes = errors.New("its attributes make no sense")

// decode reads attributes. Fields of later versions are left out. With brief, only
// what lists show is read.
func (a *attributes) decode(b []byte, brief bool) error {
	if len(b) == 0 || b[0] != attributesVersion {
		return errAttributes
	}
	d := compact.NewDecoder(b[1:])
	texts := a.texts()
	for d.Err() == nil && d.Len() > 0 {
		tag := d.Uint()
		v := d.Frame(folder.MaxAttributes)
		if d.Err() != nil {
			break
		}
		switch {
		case tag == fieldMD5:
			a.md5 = v.Fixed(16)
		case tag == fieldSizes:
			a.sizes = compact.DecodeArray(&v, MaxPart, func(d *compact.Decoder) run {
				return run{int(min(d.Uint(), MaxPart)), int64(min(d.Uint(), MaxSize))}
			})
		case tag == fieldStorageClass:
			a.meta.StorageClass = string(v.Rest())
		case tag == fieldChecksum:
			n, composite := v.Uint8(), v.Uint8()
			if int(n) < len(algorithms) {
				a.checksum = Checksum{algorithms[n], v.Rest(), composite == 1}
			}
		case tag == fieldVersion:
			a.version = v.Fixed(idSize)
		case tag == fieldMarker:
			a.marker = true
		case brief:
			continue
		case tag >= fieldContentType && tag < fieldStorageClass:
			*texts[tag-fieldContentType].text = string(v.Rest())
		case tag == fieldUser:
			a.meta.User = map[string]string{}
			for v.Err() == nil && v.Len() > 0 {
				name := v.String(folder.MaxAttributes)
				a.meta.User[name] = v.String(folder.MaxAttributes)
			}
		case tag == fieldTags:
			for v.Err() == nil && v.Len() > 0 {
				a.tags = append(a.tags, Tag{v.String(folder.MaxAttributes), v.String(folder.MaxAttributes)})
			}
		case tag == fieldChecksums:
			a.checksums = v.Rest()
		case tag == fieldLock:
			n, until := v.Uint8(), v.Uint64()
			if int(n) < len(modes) {
				a.lock.Mode, a.lock.Until = modes[n], time.Unix(0, int64(until)).UTC()
			}
		case tag == fieldHold:
			a.lock.Hold = true
		case tag == fieldNoHold:
			a.lock.NoHold = true
		case tag == fieldACL:
			a.acl = string(v.Rest())
		case tag == fieldEvent:
			a.event = string(v.Rest())
		case tag == fieldBy:
			a.by = string(v.Rest())
		case tag == fieldUpload:
			a.upload = v.Fixed(idSize)
		case tag == fieldVersioning:
			switch s := Versioning(v.Rest()); s {
			case Enabled, Suspended:
				a.state.Versioning = s
			}
		case tag == fieldLocks:
			a.state.Locks = true
		case tag == fieldDefault:
			if n := v.Uint8(); int(n) < len(modes) {
				a.state.Default = modes[n]
			}
			a.state.Days, a.state.Years = int(min(v.Uint(), maxLockDays)), int(min(v.Uint(), maxLockYears))
		}
		if v.Err() != nil {
			return errAttributes
		}
	}
	if d.Err() != nil {
		return errAttributes
	}
	return nil
}

// parts is how many parts the sizes are of.
func (a *attributes) parts() (n int) {
	for _, r := range a.sizes {
		n = min(n+r.count, MaxPart)
	}
	return n
}

// setParts notes the parts that an object was put in.
func (a *attributes) setParts(parts []Part) {
	a.sizes, a.checksums = nil, nil
	for _, p := range parts {
		if n := len(a.sizes); n > 0 && a.sizes[n-1].size == p.Size {
			a.sizes[n-1].count++
		} else {
			a.sizes = append(a.sizes, run{1, p.Size})
		}
		a.checksums = append(a.checksums, p.Checksum.Value...)
	}
	if len(a.sizes) > maxRuns {
		a.sizes = []run{{len(parts), 0}}
	}
	if len(a.checksums) > maxChecksums {
		a.checksums = nil
	}
}

// etag is the ETag of a content with these attributes.
func (a *attributes) etag(e *folder.Entry) string {
	if a.md5 == nil {
		return hex.EncodeToString(e.Content.Hash[:16]) + "-1"
	}
	if n := a.parts(); n > 0 {
		return fmt.Sprintf("%x-%d", a.md5, n)
	}
	return hex.EncodeToString(a.md5)
}
