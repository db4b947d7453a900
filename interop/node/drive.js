'use strict'

// The real hyperdrive 13, mirror-drive and localdrive behind JSON lines, for differential tests from Go. Binary values are
// hex. `?` marks what may be left out.
//
// A drive is {handle, version?}: as it is, or as it was at a version. Contents are {hex}, {seed, size} (block 0 of
// lib/blocks.js), or {file}, a file's path. An entry is {seq, key, executable, linkname, blob, metadata}, with metadata as
// the text of its JSON. A sum is the SHA-256 of contents, null if there are none.
//
//   versions {}                                         -> {node, hyperdrive, mirrorDrive, localdrive, hypercore}
//   open {handle, primaryKey?, key?, encryptionKey?, compat?, noHints?} -> {key, contentKey | null, writable}
//       primaryKey is that of the store; the drive is in the store's namespace of the handle. With compat its cores are of
//       the old kind, with public keys as their keys.
//   apply {handle, ops[]}                               -> {refused: [bool…], versions[]}: whose path names nothing, and
//       the version after each
//       {put: path, data, executable?, metadata?}, metadata as the text of JSON
//       {stream: path, chunks?: [data…], dedup?, executable?, metadata?}
//       {entry: path, from?, linkname?, executable?, metadata?}, from is the path of the entry whose blob it gets,
//           not in a batch
//       {symlink: path, target, metadata?}
//       {del: path}
//       {batch: [op…]}, which is one operation of the result
//   paths {paths[]}                                     -> {paths: [string | null…]}, as the drive has them, null if refused
//   head {handle, log}                                  -> {length, byteLength, treeHash, signature}; log is db or blobs
//   blocks {handle, log, start?, end?, raw?}            -> {blocks[]}
//   update {handle, length}                             -> {length}, once the db is that long
//   entry {drive, path, follow?}                        -> {entry | null}, and throws on too many links
//   sums {drive, paths[]}                               -> {sums[]}, of what get returns; paths are clean, as is from
//   read {drive, path, start, length}                   -> {hex}, through a read stream
//   list {drive, folder, ignore?}                       -> {entries[]}
//   readdir {drive, folder}                             -> {names[]}
//   diff {drive, other, folder}                         -> {diff: [{left, right}]}
//   has {drive, path}                                   -> {has}
//   download {drive, path}                              -> null, once all of it is here
//   clear {handle, path}                                -> null
//   held {handle}                                       -> {db, blobs}, how many blocks of them are here
//   mirror {from, to, options?}                         -> {files, add, remove, change}
//       from and to are drives, or {folder} on disk.
//   listen {handle}                                     -> {port}
//   connect {handle, port}                              -> null
//   close {handle}                                      -> null

const fs = require('fs')
const { createHash } = require('crypto')
const { createRequire } = require('module')
const Corestore = require('corestore')
const Hyperdrive = require('hyperdrive')
const Localdrive = require('localdrive')
const MirrorDrive = require('mirror-drive')
const Verifier = createRequire(require.resolve('hypercore'))('./lib/verifier')
const { blocks } = require('./lib/blocks')
const { hex, bytes } = require('./lib/hex')
const { serve, tempDir, removeDir, coded } = require('./lib/lines')
const { listen, connect, disconnect } = require('./lib/wire')

const handles = new Map() // handle => {root, drive, dir, server, sockets}

function entry (handle) {
  const e = handles.get(handle)
  if (!e) throw coded('BAD_ARGUMENT', 'no drive is open as ' + handle)
  return e
}

// within calls fn with a drive, and closes it if it is one of the past.
async function within ({ handle, version }, fn) {
  const { drive } = entry(handle)
  if (version === undefined) return fn(drive)
  const old = drive.checkout(version)
  await old.ready()
  try {
    return await fn(old)
  } finally {
    await old.close()
  }
}

// ofTheOldKind lets a store make cores as the stores before version 7 did when they were told compat.
function ofTheOldKind (store) {
  const get = store.get.bind(store)
  store.get = ({ compat, name, ...options }) => {
    if (!compat || !name) return get({ name, ...options })
    const preload = store.createKeyPair(name).then((keyPair) => {
      const key = keyPair.publicKey
      return { key, keyPair, manifest: Verifier.defaultSignerManifest(key) }
    })
    return get({ ...options, preload })
  }
  return store
}

// find returns the entry of a clean path. The get of hyperbee 2.27 may still find what was deleted, where a block of that
// key is passed on the way down; its ranges do not. In a batch, ranges have it write nodes again that did not change.
async function find (drive, path) {
  for await (const e of drive.entries({ gte: path, lte: path })) return e
  return null
}

function contents ({ hex: b, seed, size, file }) {
  if (file !== undefined) return fs.readFileSync(file)
  return b !== undefined ? bytes(b) : blocks(seed, [size])(0)
}

const attributes = ({ executable = false, metadata }) => ({ executable, metadata: metadata ? JSON.parse(metadata) : null })

const ended = (stream) => new Promise((resolve, reject) => {
  stream.on('error', reject)
  stream.on('close', resolve)
})

async function change (drive, op) {
  if (op.put !== undefined) return drive.put(op.put, contents(op.data), attributes(op))
  if (op.symlink !== undefined) return drive.symlink(op.symlink, op.target, attributes(op))
  if (op.del !== undefined) return drive.del(op.del)
  if (op.entry !== undefined) {
    const from = op.from === undefined ? null : await find(drive, op.from)
    return drive.putEntry(op.entry, { ...attributes(op), linkname: op.linkname, blob: from && from.value.blob })
  }
  if (op.stream !== undefined) {
    const stream = drive.createWriteStream(op.stream, { ...attributes(op), dedup: op.dedup })
    const done = ended(stream)
    for (const chunk of op.chunks || []) stream.write(contents(chunk))
    stream.end()
    return done
  }
  const batch = drive.batch()
  await batch.ready()
  for (const one of op.batch) await change(batch, one)
  await batch.flush()
}

function told (node) {
  if (!node) return null
  const { executable, linkname, blob, metadata } = node.value
  return { seq: node.seq, key: node.key, executable, linkname, blob, metadata: metadata === null ? null : JSON.stringify(metadata) }
}

function sum (b) {
  return b && createHash('sha256').update(b).digest('hex')
}

async function logOf ({ handle, log }) {
  const { drive } = entry(handle)
  return log === 'db' ? drive.core : (await drive.getBlobs()).core
}

function heldOf (core) {
  let held = 0
  for (let i = 0; i < core.length; i++) if (core.core.bitfield.get(i)) held++
  return held
}

const methods = {
  versions () {
    return {
      node: process.version,
      hyperdrive: require('hyperdrive/package.json').version,
      mirrorDrive: require('mirror-drive/package.json').version,
      localdrive: require('localdrive/package.json').version,
      hypercore: require('hypercore/package.json').version
    }
  },

  async open ({ handle, primaryKey, key, encryptionKey, compat, noHints }) {
    if (handles.has(handle)) throw coded('BAD_ARGUMENT', handle + ' is open already')
    const dir = tempDir()
    const root = new Corestore(dir, primaryKey ? { primaryKey: bytes(primaryKey), unsafe: true } : {})
    await root.ready()
    const store = ofTheOldKind(root.namespace(handle))
    await store.ready()
    const drive = new Hyperdrive(store, bytes(key), { encryptionKey: bytes(encryptionKey), compat, extension: !noHints })
    await drive.ready()
    handles.set(handle, { root, drive, dir, server: null, sockets: new Set() })
    return { key: hex(drive.key), contentKey: hex(drive.contentKey), writable: drive.writable }
  },

  async apply ({ handle, ops }) {
    const { drive } = entry(handle)
    const refused = []
    const versions = []
    for (const op of ops) {
      try {
        await change(drive, op)
        refused.push(false)
      } catch (err) {
        if (op.batch || !/^(Invalid filename|Path cannot be resolved)/.test(err.message)) throw err
        refused.push(true)
      }
      versions.push(drive.version)
    }
    return { refused, versions }
  },

  paths ({ paths }) {
    return {
      paths: paths.map((p) => {
        try {
          return Hyperdrive.normalizePath(p)
        } catch {
          return null
        }
      })
    }
  },

  async head (p) {
    const core = await logOf(p)
    return {
      length: core.length,
      byteLength: core.byteLength,
      treeHash: hex(await core.treeHash()),
      signature: hex(core.core.state.signature)
    }
  },

  async blocks ({ start = 0, end, raw = false, ...p }) {
    const core = await logOf(p)
    const blocks = []
    for (let i = start; i < (end === undefined ? core.length : end); i++) blocks.push(hex(await core.get(i, { raw })))
    return { blocks }
  },

  async update ({ handle, length }) {
    const { core } = entry(handle).drive
    while (core.length < length) {
      await new Promise((resolve) => core.once('append', resolve))
    }
    return { length: core.length }
  },

  entry ({ drive: d, path, follow }) {
    return within(d, async (drive) => ({ entry: told(await drive.entry(path, { follow })) }))
  },

  sums ({ drive: d, paths }) {
    return within(d, async (drive) => {
      const sums = []
      for (const path of paths) sums.push(sum(await drive.get(await find(drive, path))))
      return { sums }
    })
  },

  read ({ drive: d, path, start, length }) {
    return within(d, async (drive) => {
      const parts = []
      for await (const part of drive.createReadStream(path, { start, length })) parts.push(part)
      return { hex: hex(Buffer.concat(parts)) }
    })
  },

  list ({ drive: d, folder, ignore }) {
    return within(d, async (drive) => {
      const entries = []
      for await (const e of drive.list(folder, { ignore })) entries.push(told(e))
      return { entries }
    })
  },

  readdir ({ drive: d, folder }) {
    return within(d, async (drive) => {
      const names = []
      for await (const name of drive.readdir(folder)) names.push(name)
      return { names }
    })
  },

  diff ({ drive: d, other, folder }) {
    return within(d, async (drive) => {
      const diff = []
      for await (const { left, right } of drive.diff(other, folder)) diff.push({ left: told(left), right: told(right) })
      return { diff }
    })
  },

  has ({ drive: d, path }) {
    return within(d, async (drive) => ({ has: await drive.has(path) }))
  },

  download ({ drive: d, path }) {
    return within(d, async (drive) => {
      await drive.download(path).done()
      return null
    })
  },

  async clear ({ handle, path }) {
    await entry(handle).drive.clear(path)
    return null
  },

  async held ({ handle }) {
    const { drive } = entry(handle)
    return { db: heldOf(drive.core), blobs: drive.blobs ? heldOf(drive.blobs.core) : 0 }
  },

  async mirror ({ from, to, options }) {
    const end = (side, fn) => side.folder !== undefined ? fn(new Localdrive(side.folder)) : within(side, fn)
    return end(from, (src) => end(to, async (dst) => {
      const mirror = new MirrorDrive(src, dst, options)
      await mirror.done()
      return mirror.count
    }))
  },

  listen ({ handle }) {
    const e = entry(handle)
    return listen(e, e.drive)
  },

  connect ({ handle, port }) {
    const e = entry(handle)
    return connect(e, e.drive, port)
  },

  async close ({ handle }) {
    const e = entry(handle)
    handles.delete(handle)
    disconnect(e)
    await e.drive.close()
    await e.root.close()
    removeDir(e.dir)
    return null
  }
}

serve(methods, {
  ready: methods.versions(),
  close: () => Promise.all([...handles.keys()].map((handle) => methods.close({ handle })))
})
