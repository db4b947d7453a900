'use strict'

// Random requests for proofs, the same ones for the same seed.

// mulberry32: a small generator whose whole state is one 32-bit number. Not for secrets.
function generator (seed) {
  let a = seed >>> 0
  return (below) => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), a | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below)
  }
}

const shapes = [
  ['block'], ['hash'], ['upgrade'],
  ['block', 'upgrade'], ['hash', 'upgrade'], ['seek', 'upgrade'],
  ['block', 'seek'], ['hash', 'seek'], ['block', 'seek', 'upgrade']
]

// request is one that a reader could send to the holder of a tree of this length; the holder may still have to refuse it.
function request (random, { fork, length, byteLength, paddings }) {
  const shape = shapes[random(shapes.length)]
  const depth = Math.ceil(Math.log2(length + 1)) + 1
  const r = { id: 1, fork, block: null, hash: null, seek: null, upgrade: null, manifest: random(4) === 0, priority: 0 }
  if (shape.includes('upgrade')) {
    const start = random(3) === 0 ? 0 : random(length)
    r.upgrade = { start, length: 1 + random(length - start) }
  }
  const nodes = (index) => (r.upgrade && index >= 2 * r.upgrade.start ? 0 : random(depth))
  if (shape.includes('block')) {
    const index = random(length)
    r.block = { index, nodes: nodes(2 * index) }
  }
  if (shape.includes('hash')) {
    const index = random(2 * length)
    r.hash = { index, nodes: nodes(index) }
  }
  if (shape.includes('seek')) r.seek = { bytes: random(byteLength + 1), padding: paddings[random(paddings.length)] }
  return r
}

module.exports = { generator, request }
