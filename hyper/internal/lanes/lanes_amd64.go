//go:build !purego

package lanes

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/cpu"
)

var vectors = cpu.X86.HasAVX2

const (
	block = blake2b.BlockSize
	// maxBlocks bounds one call of compress, which can't be interrupted.
	maxBlocks = 1 << 10
)

// initial is the state that a hash begins with (RFC 7693, §2.6 and §3.3): no
// key, and no tree.
var initial = [8]uint64{
	0x6a09e667f3bcc908 ^ 0x01010000 ^ Size, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// A state is that of all lanes. compress knows where its fields are.
type state struct {
	h [8][Count]uint64
	t [Count]uint64 // bytes hashed so far
	f [Count]uint64 // all ones if the next block is the last
}

// compress hashes blocks of 128 bytes, the same number in each lane.
//
//go:noescape
func compress(s *state, data *[Count]*byte, blocks int)

// A lane is a message that is being hashed.
type lane struct {
	hash *[Size]byte // nil when there is none
	run  []byte      // whole blocks that are next
	rest []byte      // what follows
	last bool        // run is the last block
	edge [block]byte // the first block or the last
}

func sumLanes(next func() (Message, bool)) {
	var (
		s     state
		lanes [Count]lane
		data  [Count]*byte
		ended bool
	)
	for {
		blocks, busy := maxBlocks, -1
		for i := range lanes {
			l := &lanes[i]
			if l.hash == nil && !ended {
				m, ok := next()
				if ended = !ok; ok {
					s.begin(i, l, m)
				}
			}
			if l.hash == nil {
				continue
			}
			if len(l.run) == 0 {
				s.goOn(i, l)
			}
			blocks, busy = min(blocks, len(l.run)/block), i
			data[i] = &l.run[0]
		}
		if busy < 0 {
			return
		}
		for i := range lanes {
			if lanes[i].hash == nil {
				data[i] = data[busy] // to have something; nobody looks at the result
			}
		}
		compress(&s, &data, blocks)
		for i := range lanes {
			if l := &lanes[i]; l.hash != nil {
				l.run = l.run[blocks*block:]
				if l.last {
					s.end(i, l)
				}
			}
		}
	}
}

// begin begins a message.
func (s *state) begin(i int, l *lane, m Message) {
	for j := range s.h {
		s.h[j][i] = initial[j]
	}
	s.t[i], s.f[i] = 0, 0
	l.hash, l.last = m.Hash, false
	n := copy(l.edge[:], m.Prefix)
	n += copy(l.edge[n:], m.Data)
	l.run, l.rest = l.edge[:], m.Data[n-len(m.Prefix):]
	if len(l.rest) == 0 {
		s.close(i, l, n)
	}
}

// goOn gives a lane the blocks that follow.
func (s *state) goOn(i int, l *lane) {
	// The last block is the one that nothing comes after, and so never empty.
	if n := (len(l.rest) - 1) / block * block; n > 0 {
		l.run, l.rest = l.rest[:n], l.rest[n:]
		return
	}
	l.run = l.edge[:]
	s.close(i, l, copy(l.run, l.rest))
}

// close makes the block at the edge the last, with n bytes.
func (s *state) close(i int, l *lane, n int) {
	clear(l.edge[n:])
	l.last = true
	s.t[i] -= uint64(block - n) // as compress adds a whole block
	s.f[i] = ^uint64(0)
}

// end gives out the hash.
func (s *state) end(i int, l *lane) {
	for j := range Size / 8 {
		binary.LittleEndian.PutUint64(l.hash[8*j:], s.h[j][i])
	}
	l.hash, l.run, l.rest = nil, nil, nil
}
