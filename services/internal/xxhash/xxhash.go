// Package xxhash has the checksums XXH64, XXH3 and XXH128 without a seed, which
// clients of S3 may ask for. They find mistakes, and keep nobody from anything.
//
//	h := xxhash.New128()
//	io.Copy(h, body)
//	sum := h.Sum(nil) // the canonical form: the highest byte first
//
// They are as xxHash's specification says ("xxhash_spec.md", version 0.2.0).
package xxhash

import (
	"encoding/binary"
	"hash"
	"math/bits"
)

const (
	prime32x1 = 0x9E3779B1
	prime32x2 = 0x85EBCA77
	prime32x3 = 0xC2B2AE3D
	prime64x1 = 0x9E3779B185EBCA87
	prime64x2 = 0xC2B2AE3D27D4EB4F
	prime64x3 = 0x165667B19E3779F9
	prime64x4 = 0x85EBCA77C2B2AE63
	prime64x5 = 0x27D4EB2F165667C5
)

func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
func u32(b []byte) uint64 { return uint64(binary.LittleEndian.Uint32(b)) }

// New64 returns the hash XXH64.
func New64() hash.Hash {
	h := &long64{}
	h.Reset()
	return h
}

// long64 is XXH64.
type long64 struct {
	v    [4]uint64
	buf  [32]byte
	size uint64
}

func (h *long64) Size() int      { return 8 }
func (h *long64) BlockSize() int { return 32 }

func (h *long64) Reset() {
	var one, two uint64 = prime64x1, prime64x2
	h.v, h.size = [4]uint64{one + two, two, 0, -one}, 0
}

func round64(acc, in uint64) uint64 {
	return bits.RotateLeft64(acc+in*prime64x2, 31) * prime64x1
}

func (h *long64) Write(p []byte) (int, error) {
	n := len(p)
	at := int(h.size % 32)
	h.size += uint64(n)
	if at > 0 {
		k := copy(h.buf[at:], p)
		p = p[k:]
		if at+k < 32 {
			return n, nil
		}
		h.stripe(h.buf[:])
	}
	for ; len(p) >= 32; p = p[32:] {
		h.stripe(p)
	}
	copy(h.buf[:], p)
	return n, nil
}

func (h *long64) stripe(p []byte) {
	for i := range h.v {
		h.v[i] = round64(h.v[i], u64(p[8*i:]))
	}
}

func (h *long64) Sum(b []byte) []byte {
	var sum uint64 = prime64x5
	if h.size >= 32 {
		v := h.v
		sum = bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) + bits.RotateLeft64(v[3], 18)
		for _, v := range v {
			sum = (sum^round64(0, v))*prime64x1 + prime64x4
		}
	}
	sum += h.size
	p := h.buf[:h.size%32]
	for ; len(p) >= 8; p = p[8:] {
		sum = bits.RotateLeft64(sum^round64(0, u64(p)), 27)*prime64x1 + prime64x4
	}
	if len(p) >= 4 {
		sum = bits.RotateLeft64(sum^u32(p)*prime64x1, 23)*prime64x2 + prime64x3
		p = p[4:]
	}
	for _, c := range p {
		sum = bits.RotateLeft64(sum^uint64(c)*prime64x5, 11) * prime64x1
	}
	return binary.BigEndian.AppendUint64(b, avalanche64(sum))
}

func avalanche64(h uint64) uint64 {
	h ^= h >> 33
	h *= prime64x2
	h ^= h >> 29
	h *= prime64x3
	return h ^ h>>32
}
