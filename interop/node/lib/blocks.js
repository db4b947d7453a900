'use strict'

// Blocks that both sides can make for themselves, so that a test needs to send neither them nor their sums.

const { createCipheriv, createHash } = require('crypto')

// blocks returns a function from an index to the block: AES-128-CTR of zeros, under the first half of the seed's SHA-256,
// from the index as the first half of the counter. Block i has the i-th of the sizes, which begin again at the end.
function blocks (seed, sizes) {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  return (index) => {
    const iv = Buffer.alloc(16)
    iv.writeBigUInt64BE(BigInt(index))
    return createCipheriv('aes-128-ctr', key, iv).update(Buffer.alloc(sizes[index % sizes.length]))
  }
}

// A digest is the SHA-256 of many blocks, each behind its length as 4 bytes, little-endian.
class Digest {
  constructor () {
    this.hash = createHash('sha256')
  }

  add (block) {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(block.byteLength)
    this.hash.update(length).update(block)
  }

  hex () {
    return this.hash.digest('hex')
  }
}

module.exports = { blocks, Digest }
