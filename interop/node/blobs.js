'use strict'

// The real hyperblobs 2 behind JSON lines, for differential tests from Go. Binary values are hex. `?` marks what may be
// left out. An id is one of hyperblobs: {blockOffset, blockLength, byteOffset, byteLength, blockMap?}.
//
//   versions {}                                         -> {node, hyperblobs, hypercore}
//   open {handle, seed? | key?, encryptionKey?, blockSize?} -> {key}
//       seed is the Ed25519 seed of the writer.
//   put {handle, data}                                  -> {id}
//   batch {handle, data[]}                              -> {ids[]}, put with one append
//   write {handle, chunks[], dedup?, blockMap?, base?}  -> {id}, written as a stream of chunks
//   fill {handle, seed, size, blocks, same?}            -> {id}, of that many blocks of lib/blocks.js; with same, of the
//       first of them again and again, by a block map
//   get {handle, id, start?, length?}                   -> {size, sha256}
//   size {handle, id}                                   -> {size}
//   map {handle, id}                                    -> {blocks: [{index, byteLength}]}
//   clear {handle, id}                                  -> null
//   head {handle}                                       -> {length, treeHash, byteLength}
//   blocks {handle, start, end}                         -> {blocks[]}
//   held {handle}                                       -> {blocks}, how many of them are here
//   update {handle, length}                             -> {length}, once it is that long
//   listen {handle}                                     -> {port}
//   connect {handle, port}                              -> null
//   close {handle}                                      -> null

const { createHash } = require('crypto')
const { createRequire } = require('module')
const Hypercore = require('hypercore')
const Hyperblobs = require('hyperblobs')
const blockMap = require('hyperblobs/lib/block-map')
const crypto = createRequire(require.resolve('hypercore'))('hypercore-crypto')
const { blocks } = require('./lib/blocks')
const { hex, bytes, plain } = require('./lib/hex')
const { serve, tempDir, removeDir, coded } = require('./lib/lines')
const { listen, connect, disconnect } = require('./lib/wire')

const handles = new Map() // handle => {core, blobs, dir, server, sockets}

function entry (handle) {
  const e = handles.get(handle)
  if (!e) throw coded('BAD_ARGUMENT', 'no blobs are open as ' + handle)
  return e
}

// written writes chunks with a stream, one after the other is taken.
async function written (blobs, chunks, { dedup = false, blockMap = false, base } = {}) {
  const stream = blobs.createWriteStream({ dedup, blockMap, blob: base })
  const done = new Promise((resolve, reject) => {
    stream.on('error', reject)
    stream.on('close', resolve)
  })
  for (const chunk of chunks) {
    if (!stream.write(chunk)) {
      await Promise.race([done, new Promise((resolve) => stream.once('drain', resolve))])
    }
  }
  stream.end()
  await done
  return { id: stream.id }
}

const methods = {
  versions () {
    return {
      node: process.version,
      hyperblobs: require('hyperblobs/package.json').version,
      hypercore: require('hypercore/package.json').version
    }
  },

  async open ({ handle, seed, key, encryptionKey, blockSize }) {
    if (handles.has(handle)) throw coded('BAD_ARGUMENT', handle + ' is open already')
    const dir = tempDir()
    const keyPair = seed ? crypto.keyPair(bytes(seed)) : null
    const core = new Hypercore(dir, bytes(key), { keyPair, encryptionKey: bytes(encryptionKey) })
    await core.ready()
    const blobs = new Hyperblobs(core, { blockSize })
    handles.set(handle, { core, blobs, dir, server: null, sockets: new Set() })
    return { key: hex(core.key) }
  },

  async put ({ handle, data }) {
    return { id: await entry(handle).blobs.put(bytes(data)) }
  },

  async batch ({ handle, data }) {
    const batch = entry(handle).blobs.batch()
    const ids = []
    for (const d of data) ids.push(await batch.put(bytes(d)))
    await batch.flush()
    return { ids }
  },

  async write ({ handle, chunks, ...options }) {
    return written(entry(handle).blobs, chunks.map(bytes), options)
  },

  async fill ({ handle, seed, size, blocks: n, same }) {
    const { core, blobs } = entry(handle)
    const block = blocks(seed, [size])
    function * chunks () {
      for (let i = 0; i < n; i++) yield block(i)
    }
    if (!same) return written(blobs, chunks())
    const index = core.length
    await core.append(block(0))
    const [blockOffset, byteOffset] = [core.length, core.byteLength]
    const map = blockMap.encode({ blocks: new Array(n).fill({ index, byteLength: size }) })
    await core.append(map)
    return { id: { blockOffset, blockLength: map.length, byteOffset, byteLength: core.byteLength - byteOffset, blockMap: true } }
  },

  async get ({ handle, id, start, length }) {
    const { blobs } = entry(handle)
    const hash = createHash('sha256')
    let size = 0
    if (start === undefined) {
      const data = await blobs.get(id)
      hash.update(data)
      size = data.byteLength
    } else {
      for await (const part of blobs.createReadStream(id, { start, length })) {
        hash.update(part)
        size += part.byteLength
      }
    }
    return { size, sha256: hash.digest('hex') }
  },

  async size ({ handle, id }) {
    return { size: await entry(handle).blobs.getByteLength(id) }
  },

  async map ({ handle, id }) {
    return { blocks: (await entry(handle).blobs.getBlockMap(id)).blocks }
  },

  async clear ({ handle, id }) {
    await entry(handle).blobs.clear(id)
    return null
  },

  async head ({ handle }) {
    const { core } = entry(handle)
    return { length: core.length, treeHash: hex(await core.treeHash()), byteLength: core.byteLength }
  },

  async blocks ({ handle, start, end }) {
    const { core } = entry(handle)
    const blocks = []
    for (let i = start; i < end; i++) blocks.push(await core.get(i))
    return plain({ blocks })
  },

  held ({ handle }) {
    const { core } = entry(handle)
    let blocks = 0
    for (let i = 0; i < core.length; i++) if (core.core.bitfield.get(i)) blocks++
    return { blocks }
  },

  async update ({ handle, length }) {
    const { core } = entry(handle)
    while (core.length < length) {
      await new Promise((resolve) => core.once('append', resolve))
    }
    return { length: core.length }
  },

  listen ({ handle }) {
    const e = entry(handle)
    return listen(e, e.core)
  },

  connect ({ handle, port }) {
    const e = entry(handle)
    return connect(e, e.core, port)
  },

  async close ({ handle }) {
    const e = entry(handle)
    handles.delete(handle)
    disconnect(e)
    await e.core.close()
    removeDir(e.dir)
    return null
  }
}

serve(methods, {
  ready: methods.versions(),
  close: () => Promise.all([...handles.keys()].map((handle) => methods.close({ handle })))
})
