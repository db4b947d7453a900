package dynamodb

import (
	"encoding/binary"
	"errors"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A stored is an item as it is in a tree: a version, its size, its size in a page,
// and the item as JSON. nil is none.
type stored []byte

const storedVersion = 1

var errStored = errors.New("an item makes no sense")

func newStored(i item.Item, rangeKey string) stored {
	size := i.Size()
	b := append(make([]byte, 0, size+size/16+24*len(i)+16), storedVersion) // as most are
	b = binary.AppendUvarint(b, uint64(size))
	b = binary.AppendUvarint(b, uint64(i.PageSize(rangeKey)))
	return i.AppendJSON(b)
}

func (s stored) split() (size, page int, json []byte, err error) {
	if len(s) < 3 || s[0] != storedVersion {
		return 0, 0, nil, errStored
	}
	a, n := binary.Uvarint(s[1:])
	b, m := binary.Uvarint(s[1+max(n, 0):])
	if n <= 0 || m <= 0 || a > 1<<30 || b > 1<<30 {
		return 0, 0, nil, errStored
	}
	return int(a), int(b), s[1+n+m:], nil
}

// size is how many bytes the item counts.
func (s stored) size() int {
	size, _, _, _ := s.split()
	return size
}

// json is the item as clients get it.
func (s stored) json() []byte {
	_, _, json, _ := s.split()
	return json
}

// item reads the item; none is nil.
func (s stored) item() (item.Item, error) {
	if s == nil {
		return nil, nil
	}
	_, _, json, err := s.split()
	if err != nil {
		return nil, err
	}
	return item.ReadItem(json)
}
