package xxhash

import (
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/bits"
)

// secret is the one of the specification.
var secret = func() []byte {
	b, err := hex.DecodeString("b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c" +
		"3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364" +
		"eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
	if err != nil {
		panic("xxhash: the secret is no hex: " + err.Error())
	}
	return b
}()

const (
	stripe   = 64
	block    = 16 * stripe
	short    = 240 // bytes, up to which all is mixed at once
	mixPrime = 0x165667919E3779F9
	rrmxmx   = 0x9FB21C651E98DF25
)

// New3 returns the hash XXH3 of 64 bits.
func New3() hash.Hash { return newXXH3(8) }

// New128 returns the hash XXH128.
func New128() hash.Hash { return newXXH3(16) }

// xxh3 is XXH3 or XXH128.
type xxh3 struct {
	width int // bytes of the sum
	acc   [8]uint64
	// buf has what is not mixed yet: up to a block, for how the last one is mixed depends
	// on where it ends. Before it are the last bytes of the block before.
	buf  [stripe + block]byte
	n    int
	size uint64
}

func newXXH3(width int) hash.Hash {
	h := &xxh3{width: width}
	h.Reset()
	return h
}

func (h *xxh3) Size() int      { return h.width }
func (h *xxh3) BlockSize() int { return block }

func (h *xxh3) Reset() {
	h.acc = [8]uint64{prime32x3, prime64x1, prime64x2, prime64x3, prime64x4, prime32x2, prime64x5, prime32x1}
	h.n, h.size = 0, 0
}

func (h *xxh3) Write(p []byte) (int, error) {
	n := len(p)
	h.size += uint64(n)
	for len(p) > 0 {
		if h.n == block {
			accumulate(&h.acc, h.buf[stripe:], 16)
			scramble(&h.acc)
			copy(h.buf[:stripe], h.buf[block:])
			h.n = 0
		}
		k := copy(h.buf[stripe+h.n:], p)
		h.n += k
		p = p[k:]
	}
	return n, nil
}

func accumulate(acc *[8]uint64, p []byte, stripes int) {
	for i := range stripes {
		mixStripe(acc, p[stripe*i:], secret[8*i:])
	}
}

func mixStripe(acc *[8]uint64, p, s []byte) {
	p, s = p[:stripe], s[:stripe]
	for i := range 8 {
		v := u64(p[8*i:])
		k := v ^ u64(s[8*i:])
		acc[i^1] += v
		acc[i] += uint64(uint32(k)) * (k >> 32)
	}
}

func scramble(acc *[8]uint64) {
	for i := range acc {
		acc[i] = (acc[i] ^ acc[i]>>47 ^ u64(secret[128+8*i:])) * prime32x1
	}
}

// fold multiplies two numbers to 128 bits, whose halves it mixes.
func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

func avalanche(h uint64) uint64 {
	h ^= h >> 37
	h *= mixPrime
	return h ^ h>>32
}

func merge(acc *[8]uint64, s []byte, sum uint64) uint64 {
	for i := range 4 {
		sum += fold(acc[2*i]^u64(s[16*i:]), acc[2*i+1]^u64(s[16*i+8:]))
	}
	return avalanche(sum)
}

func (h *xxh3) Sum(b []byte) []byte {
	if h.size <= short {
		p := h.buf[stripe : stripe+h.n]
		if h.width == 8 {
			return binary.BigEndian.AppendUint64(b, short64(p))
		}
		low, high := short128(p)
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, high), low)
	}
	acc := h.acc
	accumulate(&acc, h.buf[stripe:], (h.n-1)/stripe)
	mixStripe(&acc, h.buf[h.n:], secret[121:])
	low := merge(&acc, secret[11:], h.size*prime64x1)
	if h.width == 16 {
		b = binary.BigEndian.AppendUint64(b, merge(&acc, secret[117:], ^(h.size*prime64x2)))
	}
	return binary.BigEndian.AppendUint64(b, low)
}

func mix16(p, s []byte) uint64 { return fold(u64(p)^u64(s), u64(p[8:])^u64(s[8:])) }

// few are up to three bytes as a number.
func few(p []byte) uint32 {
	n := len(p)
	return uint32(p[0])<<16 | uint32(p[n>>1])<<24 | uint32(p[n-1]) | uint32(n)<<8
}

// short64 is XXH3 of up to 240 bytes.
func short64(p []byte) uint64 {
	n, s := uint64(len(p)), secret
	switch {
	case n == 0:
		return avalanche64(u64(s[56:]) ^ u64(s[64:]))
	case n < 4:
		return avalanche64(uint64(few(p)) ^ u32(s) ^ u32(s[4:]))
	case n <= 8:
		h := (u32(p[n-4:]) + u32(p)<<32) ^ u64(s[8:]) ^ u64(s[16:])
		h ^= bits.RotateLeft64(h, 49) ^ bits.RotateLeft64(h, 24)
		h *= rrmxmx
		h ^= h>>35 + n
		h *= rrmxmx
		return h ^ h>>28
	case n <= 16:
		low := u64(p) ^ u64(s[24:]) ^ u64(s[32:])
		high := u64(p[n-8:]) ^ u64(s[40:]) ^ u64(s[48:])
		return avalanche(n + bits.ReverseBytes64(low) + high + fold(low, high))
	}
	sum := n * prime64x1
	if n <= 128 {
		for i := (n - 1) / 32; ; i-- {
			sum += mix16(p[16*i:], s[32*i:]) + mix16(p[n-16*(i+1):], s[32*i+16:])
			if i == 0 {
				return avalanche(sum)
			}
		}
	}
	for i := range 8 {
		sum += mix16(p[16*i:], s[16*i:])
	}
	sum = avalanche(sum)
	for i := 8; i < len(p)/16; i++ {
		sum += mix16(p[16*i:], s[16*(i-8)+3:])
	}
	return avalanche(sum + mix16(p[n-16:], s[119:]))
}

// short128 is XXH128 of up to 240 bytes.
func short128(p []byte) (low, high uint64) {
	n, s := uint64(len(p)), secret
	switch {
	case n == 0:
		return avalanche64(u64(s[64:]) ^ u64(s[72:])), avalanche64(u64(s[80:]) ^ u64(s[88:]))
	case n < 4:
		c := few(p)
		d := bits.RotateLeft32(bits.ReverseBytes32(c), 13)
		return avalanche64(uint64(c) ^ u32(s) ^ u32(s[4:])), avalanche64(uint64(d) ^ u32(s[8:]) ^ u32(s[12:]))
	case n <= 8:
		high, low = bits.Mul64((u32(p)+u32(p[n-4:])<<32)^u64(s[16:])^u64(s[24:]), prime64x1+n<<2)
		high += low << 1
		low ^= high >> 3
		low = (low ^ low>>35) * rrmxmx
		return low ^ low>>28, avalanche(high)
	case n <= 16:
		a, b := u64(p), u64(p[n-8:])
		high, low = bits.Mul64(a^b^u64(s[32:])^u64(s[40:]), prime64x1)
		low += (n - 1) << 54
		b ^= u64(s[48:]) ^ u64(s[56:])
		high += b + uint64(uint32(b))*(prime32x2-1)
		low ^= bits.ReverseBytes64(high)
		top, bottom := bits.Mul64(low, prime64x2)
		return avalanche(bottom), avalanche(top + high*prime64x2)
	}
	low = n * prime64x1
	mix32 := func(a, b, s []byte) {
		low = (low + mix16(a, s)) ^ (u64(b) + u64(b[8:]))
		high = (high + mix16(b, s[16:])) ^ (u64(a) + u64(a[8:]))
	}
	if n <= 128 {
		for i := int(n-1) / 32; i >= 0; i-- {
			mix32(p[16*i:], p[int(n)-16*(i+1):], s[32*i:])
		}
	} else {
		for i := 32; i < 160; i += 32 {
			mix32(p[i-32:], p[i-16:], s[i-32:])
		}
		low, high = avalanche(low), avalanche(high)
		for i := 160; i <= int(n); i += 32 {
			mix32(p[i-32:], p[i-16:], s[3+i-160:])
		}
		mix32(p[n-16:], p[n-32:], s[103:])
	}
	return avalanche(low + high), -avalanche(low*prime64x1 + high*prime64x4 + n*prime64x2)
}
