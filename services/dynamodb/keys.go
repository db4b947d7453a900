package dynamodb

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// The keys of a table's tree begin with what they are: docs/formats/dynamodb.md.
const (
	keyTable   = 0x00 // the table itself
	keyItem    = 0x01
	keyIndex   = 0x02
	keyStream  = 0x03
	keyExpiry  = 0x04
	keyToken   = 0x05
	keyApplied = 0x06
	keyCount   = 0x07
)

// appendPart appends a part of a key so that parts sort as DynamoDB sorts, and
// none is the beginning of another.
func appendPart(b []byte, v item.Value) []byte {
	if v.Type == item.N {
		return append(v.Number().AppendSortable(b), 0)
	}
	return append(appendEscaped(b, v.Text), 0, 1)
}

func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		b = append(b, s[i])
		if s[i] == 0 {
			b = append(b, 0xff)
		}
	}
	return b
}

// skipPart returns what follows a part of a type.
func skipPart(b []byte, t item.Type) []byte {
	if t == item.N {
		// The first byte, an exponent, may be 0.
		if i := bytes.IndexByte(b[min(1, len(b)):], 0); i >= 0 {
			return b[i+2:]
		}
		return nil
	}
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 == len(b) {
			return nil
		}
		if b[i+1] == 1 {
			return b[i+2:]
		}
		b = b[i+2:]
	}
}

// appendBucket appends where in a scan a key comes: spread, and such that the
// order is the one that DynamoDB was seen to have.
func appendBucket(b []byte, parts ...item.Value) []byte {
	in := append(make([]byte, 0, 128), "Outliers"...)
	for _, v := range parts {
		if v.Type == item.N {
			in = v.Number().AppendSortable(in)
		} else {
			in = append(in, v.Text...)
		}
	}
	sum := md5.Sum(in)
	return append(b, sum[:3]...)
}

// after returns the first key after all that begin with a prefix.
func after(prefix []byte) []byte {
	next := bytes.Clone(prefix)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			return next[:i+1]
		}
	}
	return nil
}

// itemKey is the key of the item with these values of the key's attributes.
func (s *schema) itemKey(key item.Item) []byte {
	b := append(make([]byte, 0, 64), keyItem)
	b = appendBucket(b, key[s.Keys[0].Name])
	for _, k := range s.Keys {
		b = appendPart(b, key[k.Name])
	}
	return b
}

// hasKey reports whether an item is in an index.
func (x *index) hasKey(s *schema, i item.Item) bool {
	for _, k := range x.Keys {
		v, ok := i[k.Name]
		if !ok || v.Text == "" || v.Type != s.typeOf(k.Name) || checkKeySize(v, k.Kind == "HASH") != nil {
			return false
		}
	}
	return true
}

// prefix is what all keys of an index begin with.
func (x *index) prefix() []byte {
	return binary.BigEndian.AppendUint32([]byte{keyIndex}, x.Number)
}

// key is the key of an item in an index, which leads to the item's own.
func (x *index) key(s *schema, i item.Item, itemKey []byte) []byte {
	b := append(make([]byte, 0, 96), x.prefix()...)
	b = x.appendHash(b, i)
	for _, k := range x.Keys[x.hashes():] {
		b = appendPart(b, i[k.Name])
	}
	primary := make([]item.Value, len(s.Keys))
	for j, k := range s.Keys {
		primary[j] = i[k.Name]
	}
	b = appendBucket(b, primary...)
	return append(b, itemKey[1:]...)
}

// hashes is how many attributes the first part of the key has.
func (x *index) hashes() int { return hashes(x.Keys) }

func hashes(keys []keyPart) int {
	n := 1
	for n < len(keys) && keys[n].Kind == "HASH" {
		n++
	}
	return n
}

// appendHash appends where an item comes in an index, and the first part of its
// key.
func (x *index) appendHash(b []byte, i item.Item) []byte {
	n := x.hashes()
	values := make([]item.Value, n)
	for j, k := range x.Keys[:n] {
		values[j] = i[k.Name]
	}
	b = appendBucket(b, values...)
	for _, v := range values {
		b = appendPart(b, v)
	}
	return b
}

// itemKey returns the item's key of a key in the index.
func (x *index) itemKey(s *schema, key []byte) []byte {
	rest := key[min(len(key), 1+4+3):]
	for _, k := range x.Keys {
		rest = skipPart(rest, s.typeOf(k.Name))
	}
	if len(rest) < 3 {
		return nil
	}
	return append([]byte{keyItem}, rest[3:]...)
}

// expiryKey is the key by which an item is found when it has expired.
func expiryKey(seconds uint64, itemKey []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{keyExpiry}, seconds), itemKey[1:]...)
}

// streamKey is the key of a record of a writer's stream.
func streamKey(writer [8]byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{keyStream}, writer[:]...), seq)
}
