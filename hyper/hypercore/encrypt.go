package hypercore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/internal/salsa"
	"golang.org/x/crypto/blake2b"
)

// EncryptionPadding is how many bytes longer an encrypted block is.
const EncryptionPadding = 8

// ErrDecrypt: a block is too short to be an encrypted one.
var ErrDecrypt = errors.New("not an encrypted block")

// blockCipher encrypts the blocks of one log (hypercore
// lib/default-encryption.js): XSalsa20 with a nonce of the block's number and a
// prefix that hides the fork, which goes before the block. There is no MAC: the
// tree authenticates what is stored.
type blockCipher struct {
	block, blinding [32]byte
}

// newBlockCipher derives the cipher of a log from its encryption key. Logs of
// the old kind derive it in another way.
func newBlockCipher(key Key, encryptionKey [32]byte, compat bool) *blockCipher {
	c := new(blockCipher)
	if compat {
		c.block = keyedHash(key[:], encryptionKey[:])
	} else {
		c.block = keyedHash(nil, nsEncryption[:], key[:], encryptionKey[:])
	}
	c.blinding = blake2b.Sum256(c.block[:])
	return c
}

// newBlockKeyCipher returns the cipher of a block key itself.
func newBlockKeyCipher(blockKey [32]byte) *blockCipher {
	return &blockCipher{blockKey, blake2b.Sum256(blockKey[:])}
}

// BlockEncryptionKey returns the key that a log's blocks are encrypted with: it
// opens this log alone, not others of the same encryption key.
func BlockEncryptionKey(key Key, encryptionKey [32]byte) [32]byte {
	return newBlockCipher(key, encryptionKey, false).block
}

// seal appends the stored form of a block to dst.
func (c *blockCipher) seal(dst []byte, index, fork uint64, block []byte) []byte {
	at := len(dst)
	dst = slices.Grow(dst, EncryptionPadding+len(block))[:at+EncryptionPadding+len(block)]
	out := dst[at:]
	clear(out[:EncryptionPadding])
	var nonce [24]byte
	binary.LittleEndian.PutUint64(nonce[:], index)
	binary.LittleEndian.PutUint64(out, fork)
	salsa.XORKeyStream(out[:EncryptionPadding], out[:EncryptionPadding], &nonce, &c.blinding)
	copy(nonce[8:], out[:EncryptionPadding])
	salsa.XORKeyStream(out[EncryptionPadding:], block, &nonce, &c.block)
	return dst
}

// draftFork returns what a draft's block has in place of the fork. The log may
// be truncated and grow again before the draft is committed, and no two blocks
// may have the same number and fork: this one depends on what is in the block.
// Readers take the nonce from the stored block and do not look at the fork.
func (c *blockCipher) draftFork(index uint64, block []byte) uint64 {
	h := keyedHash(c.block[:], binary.LittleEndian.AppendUint64(nil, index), block)
	return binary.LittleEndian.Uint64(h[:])
}

// open decrypts a stored block in place and returns the part that is the block.
func (c *blockCipher) open(index uint64, stored []byte) ([]byte, error) {
	if len(stored) < EncryptionPadding {
		return nil, fmt.Errorf("block %d of %d bytes: %w", index, len(stored), ErrDecrypt)
	}
	var nonce [24]byte
	binary.LittleEndian.PutUint64(nonce[:], index)
	copy(nonce[8:], stored[:EncryptionPadding])
	body := stored[EncryptionPadding:]
	salsa.XORKeyStream(body, body, &nonce, &c.block)
	return body, nil
}
