'use strict'

// The real hyperbee 2 behind JSON lines, for differential tests from Go. Binary values are hex. `?` marks what may be
// left out. Keys and values are bytes, a value may be null.
//
// A database is {handle, sub?: [prefix…], version?}: the bee, or one in it, as it was at a version.
// An entry is {seq, key, value}. A range is {gt?, gte?, lt?, lte?, reverse?, limit?}.
//
//   versions {}                                         -> {node, hyperbee, hypercore}
//   open {handle, seed? | key?, metadata?: {contentFeed?, userData?}, skipEqual?, noHints?} -> {key}
//       seed is the Ed25519 seed of the writer. With noHints it does not know the extension.
//   apply {handle, groups: [{batch, sub[], ops: [{put | del, value?, cas?}]}]} -> {written: [bool…]}
//       put and del are the key; cas is what the compare function answers. A group with batch is one batch. Written says
//       of each operation whether it made a block.
//   head {handle}                                       -> {length, treeHash, signature, version}
//   blocks {handle, start?, end?}                       -> {blocks[]}
//   update {handle, length}                             -> {length}, once it is that long
//   get {database, key}                                 -> {entry | null}
//   range {database, range}                             -> {entries[]}
//   history {database, options: {gte?, lt?, reverse?, limit?}} -> {entries: [{type, seq, key, value}]}
//   typed {handle, keys, values, sub?, sep?, put: [[key, value]…], del: [key…], range?} -> {entries: [[key, value]…]}
//       uses the bee with a keyEncoding and a valueEncoding: names of hyperbee, or 'uint' for index-encoder's. Keys and
//       values are JSON, for 'binary' as hex. sub is text, and so is sep. The entries are those of the range afterwards.
//   diff {database, other, range}                       -> {diff: [{left, right}]}
//   held {handle}                                       -> {blocks}, how many of them are here
//   hints {handle}                                      -> {gets, iterators, blocks}, what came with the extension: the
//       questions, and the blocks that answers named
//   listen {handle}                                     -> {port}
//   connect {handle, port}                              -> null
//   close {handle}                                      -> null

const Hypercore = require('hypercore')
const Hyperbee = require('hyperbee')
const { createRequire } = require('module')
const crypto = createRequire(require.resolve('hypercore'))('hypercore-crypto')
const IndexEncoder = createRequire(createRequire(require.resolve('hypercore')).resolve('hypercore-storage'))('index-encoder')
const { hex, bytes, plain } = require('./lib/hex')
const { serve, tempDir, removeDir, coded } = require('./lib/lines')
const { listen, connect, disconnect } = require('./lib/wire')

const handles = new Map() // handle => {core, bee, dir, server, sockets, hints}

function entry (handle) {
  const e = handles.get(handle)
  if (!e) throw coded('BAD_ARGUMENT', 'no bee is open as ' + handle)
  return e
}

function database ({ handle, sub = [], version }) {
  let { bee } = entry(handle)
  // A checkout has no subs of its own version in all cases, so the version comes last.
  for (const prefix of sub) bee = bee.sub(bytes(prefix))
  return version === undefined ? bee : bee.checkout(version)
}

function rangeOf ({ gt, gte, lt, lte, reverse, limit } = {}) {
  const out = {}
  for (const [name, value] of Object.entries({ gt, gte, lt, lte })) {
    if (value !== undefined && value !== null) out[name] = bytes(value)
  }
  if (reverse) out.reverse = true
  if (limit) out.limit = limit
  return out
}

// encodingOf returns an encoding for hyperbee, and what makes its values of JSON and the other way round.
function encodingOf (name) {
  const same = (v) => v
  if (name === 'uint') return { encoding: new IndexEncoder([IndexEncoder.UINT]), take: (v) => [v], give: ([v]) => v }
  if (name === 'binary') return { encoding: name, take: bytes, give: hex }
  return { encoding: name, take: same, give: same }
}

async function all (stream) {
  const out = []
  for await (const value of stream) out.push(plain(value))
  return out
}

// counted calls f before a method of an object.
function counted (object, method, f) {
  const real = object[method].bind(object)
  object[method] = (...args) => { f(...args); return real(...args) }
}

const methods = {
  versions () {
    return {
      node: process.version,
      hyperbee: require('hyperbee/package.json').version,
      hypercore: require('hypercore/package.json').version
    }
  },

  async open ({ handle, seed, key, metadata, skipEqual, noHints }) {
    if (handles.has(handle)) throw coded('BAD_ARGUMENT', handle + ' is open already')
    const dir = tempDir()
    const keyPair = seed ? crypto.keyPair(bytes(seed)) : null
    const core = new Hypercore(dir, bytes(key), { keyPair })
    await core.ready()
    const options = { alwaysDuplicate: !skipEqual, extension: !noHints }
    if (metadata) {
      options.metadata = { contentFeed: bytes(metadata.contentFeed), userData: bytes(metadata.userData) }
    }
    const bee = new Hyperbee(core, options)
    await bee.ready()
    const hints = { gets: 0, iterators: 0, blocks: 0 }
    if (!noHints) {
      counted(bee.extension, 'onget', () => hints.gets++)
      counted(bee.extension, 'oniterator', () => hints.iterators++)
      counted(bee.extension, 'oncache', (message) => { hints.blocks += message.blocks.length })
    }
    handles.set(handle, { core, bee, dir, server: null, sockets: new Set(), hints })
    return { key: hex(core.key) }
  },

  async apply ({ handle, groups }) {
    const { bee, core } = entry(handle)
    const written = []
    for (const { batch, sub = [], ops } of groups) {
      let db = bee
      for (const prefix of sub) db = db.sub(bytes(prefix))
      const b = batch ? db.batch() : null
      for (const op of ops) {
        const before = batch ? b.length : core.length
        const options = op.cas === undefined ? undefined : { cas: () => op.cas }
        if (op.put !== undefined) await (b || db).put(bytes(op.put), bytes(op.value), options)
        else await (b || db).del(bytes(op.del), options)
        written.push((batch ? b.length : core.length) > before)
      }
      if (b) await b.flush()
    }
    return { written }
  },

  async head ({ handle }) {
    const { core, bee } = entry(handle)
    return {
      length: core.length,
      treeHash: hex(await core.treeHash()),
      signature: hex(core.core.state.signature),
      version: bee.version
    }
  },

  async blocks ({ handle, start = 0, end }) {
    const { core } = entry(handle)
    const blocks = []
    for (let i = start; i < (end === undefined ? core.length : end); i++) blocks.push(hex(await core.get(i)))
    return { blocks }
  },

  async update ({ handle, length }) {
    const { core } = entry(handle)
    while (core.length < length) {
      await new Promise((resolve) => core.once('append', resolve))
    }
    return { length: core.length }
  },

  async get ({ database: d, key }) {
    return { entry: plain(await database(d).get(bytes(key))) }
  },

  async range ({ database: d, range }) {
    return { entries: await all(database(d).createReadStream(rangeOf(range))) }
  },

  async typed ({ handle, keys, values, sub, sep, put, del, range = {} }) {
    const [key, value] = [encodingOf(keys), encodingOf(values)]
    let { bee } = entry(handle)
    let options = { keyEncoding: key.encoding, valueEncoding: value.encoding }
    if (sub !== undefined) {
      bee = bee.sub(sub, { ...options, sep })
      options = {} // those of the sub know its prefix
    }
    for (const [k, v] of put) await bee.put(key.take(k), value.take(v), options)
    for (const k of del) await bee.del(key.take(k), options)
    const bounds = Object.fromEntries(Object.entries(range).map(([name, k]) => [name, key.take(k)]))
    const entries = []
    for await (const e of bee.createReadStream(bounds, options)) {
      entries.push([key.give(e.key), value.give(e.value)])
    }
    return { entries }
  },

  async history ({ database: d, options }) {
    return { entries: await all(database(d).createHistoryStream(options)) }
  },

  async diff ({ database: d, other, range }) {
    return { diff: await all(database(d).createDiffStream(other, rangeOf(range))) }
  },

  held ({ handle }) {
    const { core } = entry(handle)
    let blocks = 0
    for (let i = 0; i < core.length; i++) if (core.core.bitfield.get(i)) blocks++
    return { blocks }
  },

  hints ({ handle }) {
    return entry(handle).hints
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
    await e.bee.close()
    removeDir(e.dir)
    return null
  }
}

serve(methods, {
  ready: methods.versions(),
  close: () => Promise.all([...handles.keys()].map((handle) => methods.close({ handle })))
})
