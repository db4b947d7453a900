package identity

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"golang.org/x/crypto/blake2b"
)

// ChallengeLife is how long a challenge may be answered.
const ChallengeLife = time.Minute

// maxUsed is how many challenges may have been taken within ChallengeLife.
const maxUsed = 1 << 16

// A Challenge is to be signed by who wants to prove something.
type Challenge [32]byte

// Challenges gives out challenges, each of which counts once. Those that were
// given out take no memory, so anybody may ask for them. Its methods may be called
// by any goroutine.
type Challenges struct {
	clock  clock.Clock
	random io.Reader
	key    [32]byte // what challenges are known by

	mu   sync.Mutex
	used map[Challenge]time.Time // until when
}

// NewChallenges returns a set of its own.
func NewChallenges(c clock.Clock, random io.Reader) (*Challenges, error) {
	s := &Challenges{clock: c, random: random, used: map[Challenge]time.Time{}}
	if _, err := io.ReadFull(random, s.key[:]); err != nil {
		return nil, fmt.Errorf("prepare challenges: %w", err)
	}
	return s, nil
}

// New gives out a challenge.
func (s *Challenges) New() (c Challenge, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	binary.BigEndian.PutUint64(c[:8], uint64(s.clock.Now().Add(ChallengeLife).UnixMilli()))
	if _, err := io.ReadFull(s.random, c[8:16]); err != nil {
		return Challenge{}, fmt.Errorf("make a challenge: %w", err)
	}
	s.mark(&c)
	return c, nil
}

// Take uses a challenge up, once the answer to it was found to be right. It fails
// with [ErrReplayed] if it was not given out, was taken before or is too old, and
// with [ErrFull] if too many were taken.
func (s *Challenges) Take(c Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, until := s.clock.Now(), time.UnixMilli(int64(binary.BigEndian.Uint64(c[:8])))
	real := c
	s.mark(&real)
	_, used := s.used[c]
	switch {
	case subtle.ConstantTimeCompare(real[:], c[:]) != 1 || used || !now.Before(until):
		return ErrReplayed
	case len(s.used) >= maxUsed:
		for old, until := range s.used {
			if !now.Before(until) {
				delete(s.used, old)
			}
		}
		if len(s.used) >= maxUsed {
			return fmt.Errorf("take a challenge: %w", ErrFull)
		}
	}
	s.used[c] = until
	return nil
}

// mark puts in what only this set can make.
func (s *Challenges) mark(c *Challenge) {
	h, err := blake2b.New(16, s.key[:])
	if err != nil {
		panic("identity: " + err.Error()) // the key is 32 bytes
	}
	h.Write(c[:16])
	h.Sum(c[:16])
}
