'use strict'

// The npm package sodium-javascript, and what of sodium-native it lacks for handshakes in a page. A bundler takes this
// file for sodium-universal.

const sodium = require('sodium-javascript')
const { Point } = require('@noble/curves/ed25519.js').ed25519

module.exports = {
  ...sodium,

  crypto_scalarmult_ed25519_BYTES: 32,
  crypto_scalarmult_ed25519_SCALARBYTES: 32,

  crypto_scalarmult_ed25519_noclamp (out, scalar, publicKey) {
    const point = Point.fromBytes(Uint8Array.from(publicKey))
    if (point.isSmallOrder() || !point.isTorsionFree()) throw new Error('not a public key')
    let n = 0n
    for (const byte of Uint8Array.from(scalar).reverse()) n = n << 8n | BigInt(byte)
    out.set(point.multiply(Point.Fn.create(n)).toBytes())
  }
}
