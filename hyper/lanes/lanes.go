// Package lanes does what takes most of the time of large contents, BLAKE2b and
// XSalsa20, on vector registers where the processor has wide ones: for several
// messages at once, or several parts of one. Elsewhere it is x/crypto that does.
// The results are the same.
//
//	var sums [2]lanes.Sum
//	lanes.Sum256(sums[:], []lanes.Message{{Body: a}, {Body: b}})
//	lanes.XSalsa20(block, block, &nonce, &key)
//
// It knows nothing of logs; it is below package merkle.
package lanes

import (
	"cmp"
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/salsa20"
)

// A Sum is a BLAKE2b hash of 32 bytes.
type Sum = [blake2b.Size256]byte

// MaxHead is how long the beginning of a message may be.
const MaxHead = 16

// A Message is bytes to be hashed, in two parts.
type Message struct {
	Head []byte // MaxHead bytes at most
	Body []byte
}

// fewLanes is how many messages there must be: fewer are hashed sooner one by one.
const fewLanes = 3

// Sum256 hashes messages. There must be as many sums. It is for what is large
// together: some 16 KiB and more.
func Sum256(sums []Sum, messages []Message) {
	sums = sums[:len(messages)]
	switch {
	case has8 && len(messages) >= fewLanes:
		sum8(sums, messages)
	case has4 && len(messages) >= fewLanes:
		sum4(sums, messages)
	default:
		sum1(sums, messages)
	}
}

// sum1 hashes messages one by one, in several goroutines.
func sum1(sums []Sum, messages []Message) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(messages); i = int(next.Add(1)) - 1 {
			d, err := blake2b.New256(nil)
			if err != nil {
				panic("lanes: " + err.Error()) // no key, so it can't fail
			}
			d.Write(messages[i].Head)
			d.Write(messages[i].Body)
			d.Sum(sums[i][:0])
		}
	}
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(messages)) - 1 {
		all.Go(work)
	}
	work()
	all.Wait()
}

func sum8(sums []Sum, messages []Message) {
	var h [64]uint64
	var in [8]unsafe.Pointer
	var t, last [8]uint64
	sum(sums, messages, h[:], in[:], t[:], last[:], func(n int) { blake8(&h, &in, &t, &last, n) })
}

func sum4(sums []Sum, messages []Message) {
	var h [32]uint64
	var in [4]unsafe.Pointer
	var t, last [4]uint64
	sum(sums, messages, h[:], in[:], t[:], last[:], func(n int) { blake4(&h, &in, &t, &last, n) })
}

const blockSize = blake2b.BlockSize

// A lane is a message that is being hashed.
type lane struct {
	message int // its number; -1 is none
	rest    []byte
	size    int             // of all of the message
	edge    [blockSize]byte // its first block, or its last
	first   bool            // edge is the first, which is yet to be taken
}

// blocks returns how many blocks can be taken at once, from where, and whether they are the end.
func (l *lane) blocks() (n int, from *byte, end bool) {
	switch {
	case l.first && l.size > blockSize:
		return 1, &l.edge[0], false
	case !l.first && len(l.rest) > blockSize:
		return (len(l.rest) - 1) / blockSize, &l.rest[0], false
	case !l.first:
		clear(l.edge[copy(l.edge[:], l.rest):])
	}
	return 1, &l.edge[0], true
}

// The initial state (RFC 7693 §2.7), for 32 bytes and no key.
var initial = [8]uint64{
	0x6a09e667f3bcc908 ^ 0x01010020, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// sum has take hash messages, one in each lane until there are no more. The
// longest are first, so that lanes end at about the same time.
func sum(sums []Sum, messages []Message, h []uint64, in []unsafe.Pointer, t, last []uint64, take func(blocks int)) {
	order := make([]int, len(messages))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(len(messages[b].Body), len(messages[a].Body)) })
	width := len(in)
	lanes := make([]lane, width)
	next := func(i int) {
		l := &lanes[i]
		l.message = -1
		if len(order) == 0 {
			return
		}
		l.message, order = order[0], order[1:]
		m := messages[l.message]
		l.size, l.rest, l.first = len(m.Head)+len(m.Body), m.Body, true
		clear(l.edge[:])
		l.rest = l.rest[copy(l.edge[copy(l.edge[:MaxHead], m.Head):], l.rest):]
		for word, value := range initial {
			h[word*width+i] = value
		}
		t[i] = 0
	}
	for i := range lanes {
		next(i)
	}
	for {
		blocks, some := math.MaxInt, -1
		for i := range lanes {
			l := &lanes[i]
			if l.message < 0 {
				continue
			}
			n, from, end := l.blocks()
			in[i], last[i] = unsafe.Pointer(from), 0
			if end {
				last[i] = math.MaxUint64
				t[i] = uint64(l.size) - blockSize // to which take adds a block
			}
			blocks, some = min(blocks, n), i
		}
		if some < 0 {
			return
		}
		for i := range lanes {
			if lanes[i].message < 0 {
				in[i] = in[some] // it takes something, for nothing
			}
		}
		take(blocks)
		for i := range lanes {
			l := &lanes[i]
			switch {
			case l.message < 0:
			case last[i] != 0:
				for word := range 4 {
					binary.LittleEndian.PutUint64(sums[l.message][8*word:], h[word*width+i])
				}
				next(i)
			case l.first:
				l.first = false
			default:
				l.rest = l.rest[blocks*blockSize:]
			}
		}
	}
}

// wide is how much is encrypted at once.
const wide = 1024

// XSalsa20 encrypts or decrypts with the key stream of a key and a nonce. dst and
// src may be the same, but must not overlap otherwise.
func XSalsa20(dst, src []byte, nonce *[24]byte, key *[32]byte) {
	dst = dst[:len(src)]
	n := len(src) / wide
	if !has16 || n == 0 {
		salsa20.XORKeyStream(dst, src, nonce[:], key)
		return
	}
	sub := subkey(key, (*[16]byte)(nonce[:16]))
	var place [16]byte // the end of the nonce, and the number of the block
	copy(place[:], nonce[16:])
	state := salsaState(&place, &sub)
	salsa16(&dst[0], &src[0], &state, n)
	if rest := src[n*wide:]; len(rest) > 0 {
		var end [wide]byte
		copy(end[:], rest)
		salsa16(&end[0], &end[0], &state, 1)
		copy(dst[n*wide:], end[:])
	}
}

// salsaState is the state of Salsa20 before its rounds.
func salsaState(place *[16]byte, key *[32]byte) (s [16]uint32) {
	word := func(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	for i := range 4 {
		s[5*i] = word([]byte("expand 32-byte k"), i)
		s[1+i], s[11+i], s[6+i] = word(key[:], i), word(key[:], 4+i), word(place[:], i)
	}
	return s
}

// subkey is HSalsa20: some words of a block of the key stream, without the state
// that was added at its end.
func subkey(key *[32]byte, place *[16]byte) (out [32]byte) {
	state := salsaState(place, key)
	before := state
	var stream [wide]byte
	salsa16(&stream[0], &stream[0], &state, 1)
	for i, word := range [8]int{0, 5, 10, 15, 6, 7, 8, 9} {
		binary.LittleEndian.PutUint32(out[4*i:], binary.LittleEndian.Uint32(stream[4*word:])-before[word])
	}
	return out
}
