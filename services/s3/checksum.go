package s3

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/internal/xxhash"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// An algorithm is one of checksums.
type algorithm struct {
	name      string
	size      int
	new       func() hash.Hash
	full      bool // can be of a whole object that is put in parts
	composite bool // can be of the checksums of its parts
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c9329ac4bc9b5)
)

var algorithms = []algorithm{
	{"CRC32", 4, func() hash.Hash { return crc32.NewIEEE() }, true, true},
	{"CRC32C", 4, func() hash.Hash { return crc32.New(castagnoli) }, true, true},
	{"CRC64NVME", 8, func() hash.Hash { return crc64.New(nvme) }, true, false},
	{"SHA1", 20, sha1.New, false, true},
	{"SHA256", 32, sha256.New, false, true},
	{"SHA512", 64, sha512.New, false, true},
	{"MD5", md5.Size, md5.New, false, true},
	{"XXHASH64", 8, func() hash.Hash { return xxhash.New64() }, false, true},
	{"XXHASH3", 8, func() hash.Hash { return xxhash.New3() }, false, true},
	{"XXHASH128", 16, func() hash.Hash { return xxhash.New128() }, false, true},
}

// byName returns an algorithm, or nil.
func byName(name string) *algorithm {
	i := slices.IndexFunc(algorithms, func(a algorithm) bool { return strings.EqualFold(a.name, name) })
	if i < 0 {
		return nil
	}
	return &algorithms[i]
}

const checksumHeader = "x-amz-checksum-"

// header is the name of the header that has a checksum.
func (a *algorithm) header() string { return checksumHeader + strings.ToLower(a.name) }

// parse reads a checksum; composite ones end in the number of parts.
func (a *algorithm) parse(text string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(text)
	return b, err == nil && len(b) == a.size
}

// element is the name of a checksum in XML.
func element(algorithm string) string { return "Checksum" + algorithm }

// checksumText is a checksum as clients see it.
func checksumText(c objects.Checksum, parts int) string {
	text := base64.StdEncoding.EncodeToString(c.Value)
	if c.Composite {
		text += "-" + strconv.Itoa(parts)
	}
	return text
}

// checksumType is FULL_OBJECT or COMPOSITE.
func checksumType(composite bool) string {
	if composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// setChecksum says the checksum of an object in the headers of an answer.
func setChecksum(h http.Header, c objects.Checksum, parts int) {
	if c.Algorithm == "" {
		return
	}
	h.Set(checksumHeader+strings.ToLower(c.Algorithm), checksumText(c, parts))
	h.Set("x-amz-checksum-type", checksumType(c.Composite))
}

// A digest is what a body has to be: what the headers of a request say of it.
type digest struct {
	md5     []byte
	algo    *algorithm // nil if there is none
	want    []byte     // nil if it comes in a trailer, or is asked for only
	trailer bool
	hash    hash.Hash
}

// digestOf reads what a request says of its body.
func digestOf(h http.Header) (*digest, error) {
	d := &digest{}
	if values := h.Values("Content-MD5"); len(values) > 0 {
		b, err := base64.StdEncoding.DecodeString(values[0])
		if err != nil || len(b) != md5.Size {
			return nil, fail("InvalidDigest").with("Content-MD5", values[0])
		}
		d.md5 = b
	}
	text := ""
	for name, values := range h {
		kind, ok := strings.CutPrefix(strings.ToLower(name), checksumHeader)
		if !ok || kind == "algorithm" || kind == "type" || kind == "mode" {
			continue
		}
		a := byName(kind)
		if a == nil {
			return nil, badRequest("The algorithm type you specified in x-amz-checksum- header is invalid.")
		}
		if d.algo != nil || len(values) > 1 {
			return nil, badRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		d.algo, text = a, values[0]
	}
	if d.algo != nil {
		var ok bool
		if d.want, ok = d.algo.parse(text); !ok {
			return nil, badRequest("Value for %s header is invalid.", d.algo.header())
		}
	}
	if err := d.readTrailer(h.Get("X-Amz-Trailer")); err != nil {
		return nil, err
	}
	if err := d.readAlgorithm(h); err != nil {
		return nil, err
	}
	if d.algo != nil {
		d.hash = d.algo.new()
	}
	return d, nil
}

// readTrailer reads which checksum comes after the body.
func (d *digest) readTrailer(names string) error {
	if names == "" {
		return nil
	}
	kind, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(names)), checksumHeader)
	a := byName(kind)
	if !ok || a == nil {
		return badRequest("The value specified in the x-amz-trailer header is not supported")
	}
	if d.algo != nil {
		return badRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	}
	d.algo, d.trailer = a, true
	return nil
}

// readAlgorithm looks whether the algorithm that is named is the one that is used.
func (d *digest) readAlgorithm(h http.Header) error {
	name := h.Get("X-Amz-Sdk-Checksum-Algorithm")
	if name == "" {
		return nil
	}
	switch a := byName(name); {
	case a == nil:
		return badAlgorithm()
	case d.algo == nil && d.md5 == nil:
		return badRequest("x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	case d.algo != nil && d.algo.name != a.name:
		return badRequest("Value for x-amz-sdk-checksum-algorithm header is invalid.")
	}
	return nil
}

func badAlgorithm() *Error {
	return badRequest("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]")
}

// check compares what was read with what was said.
func (d *digest) check(sum [md5.Size]byte, trailer http.Header) (objects.Checksum, error) {
	if d.md5 != nil && string(d.md5) != string(sum[:]) {
		return objects.Checksum{}, fail("BadDigest").
			with("ExpectedDigest", hex.EncodeToString(d.md5)).with("CalculatedDigest", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if d.algo == nil {
		return objects.Checksum{}, nil
	}
	got := objects.Checksum{Algorithm: d.algo.name, Value: d.hash.Sum(nil)}
	want := d.want
	if d.trailer {
		text := trailer.Get(d.algo.header())
		if text == "" {
			return got, fail("MalformedTrailerError")
		}
		var ok bool
		if want, ok = d.algo.parse(text); !ok {
			return got, badRequest("Value for %s trailing header is invalid.", d.algo.header())
		}
	}
	if want != nil && string(want) != string(got.Value) {
		return got, failf("BadDigest", "The %s you specified did not match the calculated checksum.", d.algo.name)
	}
	return got, nil
}

// A hashed body is hashed while it is read.
type hashed struct {
	*sigv4.Body
	hash hash.Hash // may be nil
}

func (b *hashed) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	return n, err
}

// compositeOf is the checksum of the checksums of parts, and false if a part has none.
func compositeOf(a *algorithm, parts []objects.Part) (objects.Checksum, bool) {
	h := a.new()
	for _, p := range parts {
		if p.Checksum.Algorithm != a.name {
			return objects.Checksum{}, false
		}
		h.Write(p.Checksum.Value)
	}
	return objects.Checksum{Algorithm: a.name, Value: h.Sum(nil), Composite: true}, true
}
