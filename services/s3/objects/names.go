package objects

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// Names of what is kept aside, by what they begin with. Keys in the middle of a name
// are escaped, so that names sort as keys do.
const (
	rowState   = "s3b" // the bucket's state
	rowConfig  = "s3c" // and a name
	rowObject  = "s3o" // and a key that the tree of files has no place for
	rowVersion = "s3v" // and a key and a version's id
	rowUpload  = "s3u" // and a key and an upload's id
	rowPart    = "s3p" // and an upload's id and two bytes: a part's number
)

// idSize is the size of the ids of versions and uploads.
const idSize = 16

// nullID is in the place of the null version's id. Others are longer.
const nullID = "\xff"

// Null is the name of the version that was put while the bucket had none.
const Null = "null"

// checkKey returns ErrKey unless a key is one.
func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: it is empty", ErrKey)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrKey, len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: it is no text", ErrKey)
	}
	return nil
}

// escaped appends a key, or the beginning of one, in which zero bytes are escaped.
func escaped(b []byte, key string) []byte {
	for i := range len(key) {
		if b = append(b, key[i]); key[i] == 0 {
			b = append(b, 0xff)
		}
	}
	return b
}

// rowOf returns the name of a row of a key.
func rowOf(kind, key, id string) string {
	return string(append(append(escaped([]byte(kind), key), 0, 0), id...))
}

// splitRow reads a name that rowOf made.
func splitRow(kind, name string) (key, id string, ok bool) {
	if len(name) < len(kind) || name[:len(kind)] != kind {
		return "", "", false
	}
	var b []byte
	for i := len(kind); i+1 < len(name); i++ {
		switch {
		case name[i] != 0:
			b = append(b, name[i])
		case name[i+1] == 0:
			return string(b), name[i+2:], true
		case name[i+1] == 0xff:
			b = append(b, 0)
			i++
		default:
			return "", "", false
		}
	}
	return "", "", false
}

func partRow(upload string, number int) string {
	return string(binary.BigEndian.AppendUint16(append([]byte(rowPart), upload...), uint16(number)))
}

// A version's id sorts the newest first: the time, then its number among those of one
// append, both turned round, then what tells devices apart.
func versionID(at time.Time, n uint16, device [6]byte) string {
	b := binary.BigEndian.AppendUint64(nil, ^uint64(at.UnixNano()))
	b = binary.BigEndian.AppendUint16(b, ^n)
	return string(append(b, device[:]...))
}

// timeOfID returns when a version was made.
func timeOfID(id string) time.Time {
	if len(id) < 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(^binary.BigEndian.Uint64([]byte(id[:8])))).UTC()
}

// versionName is an id as clients have it.
func versionName(id string) string {
	if id == nullID {
		return Null
	}
	return hex.EncodeToString([]byte(id))
}

// readVersion reads what versionName made.
func readVersion(name string) (id string, ok bool) {
	if name == Null {
		return nullID, true
	}
	b, err := hex.DecodeString(name)
	return string(b), err == nil && len(b) == idSize
}

// from returns the range of what begins with a prefix, from another one on. Both have
// what the names begin with.
func from(start, prefix string) hyperbee.RangeOptions {
	o := hyperbee.RangeOptions{Gte: []byte(max(start, prefix))}
	o.Lt = behind(prefix)
	return o
}

// behind returns what is first behind all that begin with a prefix; nil for none.
func behind(prefix string) []byte {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			b[i]++
			return bytes.Clone(b[:i+1])
		}
	}
	return nil
}
