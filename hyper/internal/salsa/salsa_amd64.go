//go:build !purego

package salsa

import (
	"encoding/binary"

	//lint:ignore SA1019 this is XSalsa20 itself, and HSalsa20 is exported nowhere else
	"golang.org/x/crypto/salsa20/salsa"
	"golang.org/x/sys/cpu"
)

// The vectors that the processor has.
var (
	wide   = cpu.X86.HasAVX2
	widest = cpu.X86.HasAVX512F
)

// minVectors is how long something is that is worth the preparation.
const minVectors = 256

const (
	block = 64
	// How many blocks are made side by side, and how many of them lie in the words of
	// one state.
	wideBlocks, wideLanes     = 6, 2
	widestBlocks, widestLanes = 16, 4
	// maxGroups bounds one call of assembly, which can't be interrupted.
	maxGroups = 64
)

// A state is the diagonals of the matrices of many blocks, four words for each lane;
// what is not used of it is zero. Blocks differ by their numbers, which are in the
// third diagonal. Assembly knows where the fields are.
type state struct {
	a, b, d [16]uint32
	step    [16]uint32 // added to each c after each group
	c       [4][16]uint32
}

// xorAVX2 encrypts groups of wideBlocks, and moves the state on.
//
//go:noescape
func xorAVX2(out, in *byte, groups int, s *state)

// xorAVX512 encrypts groups of widestBlocks, and moves the state on.
//
//go:noescape
func xorAVX512(out, in *byte, groups int, s *state)

// xorVectors encrypts with vectors, if there are some.
func xorVectors(out, in []byte, nonce *[24]byte, key *[32]byte) bool {
	blocks, lanes := wideBlocks, wideLanes
	switch {
	case uint64(len(in)) > block<<31: // a block's number has one word here
		return false
	case widest:
		blocks, lanes = widestBlocks, widestLanes
	case !wide:
		return false
	}
	var s state
	s.begin(nonce, key, blocks, lanes)
	group := blocks * block
	for len(in) >= group {
		groups := min(len(in)/group, maxGroups)
		s.xor(out, in, groups)
		out, in = out[groups*group:], in[groups*group:]
	}
	if len(in) > 0 {
		var last [widestBlocks * block]byte
		copy(last[:], in)
		s.xor(last[:], last[:], 1)
		copy(out, last[:len(in)])
	}
	return true
}

// xor encrypts groups. It is no function value, of which nobody knew that it keeps
// nothing.
func (s *state) xor(out, in []byte, groups int) {
	if widest {
		xorAVX512(&out[0], &in[0], groups, s)
		return
	}
	xorAVX2(&out[0], &in[0], groups, s)
}

// begin makes the state of the first group.
func (s *state) begin(nonce *[24]byte, key *[32]byte, blocks, lanes int) {
	var k [32]byte
	salsa.HSalsa20(&k, (*[16]byte)(nonce[:16]), key, &salsa.Sigma)
	word := func(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	for lane := range lanes {
		at := 4 * lane
		// Words 0, 5, 10, 15; 4, 9, 14, 3; 12, 1, 6, 11; and 8, 13, 2, 7.
		copy(s.a[at:], []uint32{word(salsa.Sigma[:], 0), word(salsa.Sigma[:], 1), word(salsa.Sigma[:], 2), word(salsa.Sigma[:], 3)})
		copy(s.b[at:], []uint32{word(k[:], 3), 0, word(k[:], 7), word(k[:], 2)})
		copy(s.d[at:], []uint32{word(k[:], 5), word(k[:], 0), word(nonce[16:], 0), word(k[:], 4)})
		s.step[at] = uint32(blocks)
		for i := range blocks / lanes {
			copy(s.c[i][at:], []uint32{uint32(i*lanes + lane), word(k[:], 6), word(k[:], 1), word(nonce[16:], 1)})
		}
	}
}
