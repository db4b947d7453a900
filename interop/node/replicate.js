'use strict'

// The real hypercore 11, hypercore 10 and corestore 7, replicating over the real secret-stream and TCP on loopback,
// behind JSON lines. Binary values are hex. `?` marks what may be left out.
//
// Nothing here waits for its turn: a call that waits (until, get, download…) does not hold up those after it. Stores,
// cores, streams and what else there is have names, given by the caller; a folder is the caller's too, and one of our own
// that is removed at the end if none is given.
//
// A head is {length, fork, byteLength, treeHash, signature}. Blocks are given as {blocks[]} or as
// {generate: {seed, sizes[], from, to, batch?}}, those of lib/blocks.js.
//
//   store {store, dir?, primaryKey?, namespace[]?}      -> {primaryKey}
//   core {core, store? | dir?, package?: "11" | "10", name?, seed?, key?, manifest?, compat?, encryptionKey?, blockKey?,
//         allowPush?, inflight[]?}                      -> {key, discoveryKey, manifestHex, length, fork, writable, compat}
//       seed is the Ed25519 seed of the writer. A manifest is an object with hex in it, or hex of its encoding.
//   snapshot {core, as}                                 -> head, of the new session
//   close {core} | {store}                              -> null
//
//   append {core, blocks | generate, signature?}        -> head
//   truncate {core, length, fork?}                      -> head
//   clear {core, start, end?}                           -> {contiguousLength}
//   info {core}                                         -> head and {key, discoveryKey, manifestHex, contiguousLength,
//                                                          writable, peers, remotes[], events}
//       remotes are {publicKey, length, fork, contiguousLength, synced, downloading, uploading, allowPush, inflight}.
//       byteLength counts what the tree counts, padding too; plainLength does not.
//   stats {core}                                        -> the replicator's own counters
//   update {core, force?}                               -> head and {updated}
//   get {core, index, wait?, timeout?, raw?}            -> {length, sha256, value} | {missing}; value up to 4096 bytes
//   gets {core, indices[]}                              -> {sha256}, digest of lib/blocks.js, all asked for at once
//   has {core, indices[]}                               -> {has[]}
//   digest {core, start?, end?}                         -> {blocks, bytes, sha256}, waiting for what is not here
//   held {core}                                         -> {ranges: [[start, end]…], blocks}
//   seek {core, bytes, wait?, timeout?}                 -> {index, offset} | {missing}
//   read {core, from, length}                           -> {length, sha256}, of a byte stream
//   download {core, start?, end?, blocks[]?, linear?, name?} -> {done}; with a name at once, and it goes on
//   undownload {name}                                   -> null
//   until {core, timeout?, length?, fork?, contiguousLength?, peers?, holds[]?, events?: {kind: count}} -> info
//       once it is at least that much (fork too), or rejects with TIMEOUT and what there is instead.
//       peers may be 0: once they are gone.
//       Kinds of event: append, truncate, conflict, peer-add, peer-remove, download, upload, verification-error,
//       invalid-request, extension, close; and downloadBytes, uploadBytes, pushed (blocks that nobody asked for).
//   extension {core, name}                              -> null; what comes is kept
//   extend {core, name, value}                          -> null, to all peers
//   extensions {core}                                   -> {messages: [{name, value, from}]}
//   allowPush {core, allow}                             -> null
//   push {core, index}                                  -> null
//   lie {core, what, after?}                            -> null; spoils what the core sends in data messages from now on,
//       after so many of them: value, node, upgrade, signature, length, fork, index or silence. none ends it.
//
//   listen {listener, seed?, stores[]?, cores[]?, alone?} -> {port}; its streams are named LISTENER/0, LISTENER/1, …
//   connect {stream, port, seed?, stores[]?, cores[]?}  -> null
//   attach {stream, store | core}                       -> null, replicates one more on a stream
//   stream {stream}                                     -> {connected, ended, closed, error, errorCode, publicKey,
//                                                          remotePublicKey, initiator, bytesRead, bytesWritten}
//   streams {}                                          -> {streams: [{stream, and the same}]}
//   untilStream {stream, connected?, closed?, timeout?} -> the same
//   unlisten {listener}                                 -> null
//   end {stream} | destroy {stream}                     -> null, in order or abruptly
//   stall {stream, stalled}                             -> null; reads nothing more
//
//   raw {raw, stream, key, capability?: "right" | "wrong" | "reflected" | hex, seeks?, messages[]?, cork?} -> {opened}
//       opens a hypercore channel by hand; messages as in rawSend are sent before the other side can have answered.
//   rawSend {raw, messages: [{type, payload} | {type, fields}], cork?} -> null
//   rawClose {raw}                                      -> null
//   rawFrame {stream, payload}                          -> null, a message of the stream below the channels
//   rawEvents {raw}                                     -> {opened, closed, events: [{type, length, payload, fields}]}
//   untilRaw {raw, events?, type?, opened?, closed?, timeout?} -> the same; type is that of one that must have come

const net = require('net')
const { createHash } = require('crypto')
const Corestore = require('corestore')
const Protomux = require('protomux')
const SecretStream = require('@hyperswarm/secret-stream')
const { open, wrap, packageOf, manifestOf } = require('./lib/core')
const { blocks, Digest } = require('./lib/blocks')
const { hex, bytes, plain } = require('./lib/hex')
const { serve, tempDir, removeDir, coded } = require('./lib/lines')

const open11 = packageOf('11')
const MAX_EVENTS = 10_000 // that a raw channel keeps
const MAX_VALUE = 4096
const TIMEOUT = 30_000
const POLL = 5

const stores = new Map() // name => {store, root, dir}
const cores = new Map() // name => {face, core, dir, parent, events, extensions, messages, lie}
const streams = new Map() // name => {stream, socket, seen}
const listeners = new Map() // name => {server, count}
const raws = new Map() // name => {channel, events, opened, closed}
const downloads = new Map() // name => Download

const sha256 = (b) => createHash('sha256').update(b).digest('hex')

function of (map, name) {
  const e = map.get(name)
  if (!e) throw coded('BAD_ARGUMENT', 'nothing is named ' + name)
  return e
}

function added (map, name, e) {
  if (name === undefined || map.has(name)) throw coded('BAD_ARGUMENT', 'wants a name of its own, not ' + name)
  map.set(name, e)
  return e
}

function dropped (map, name) {
  const e = of(map, name)
  map.delete(name)
  return e
}

// until answers what state returns once test is true, and asks every few milliseconds.
function until (test, state, timeout = TIMEOUT) {
  const late = Date.now() + timeout
  return new Promise((resolve, reject) => {
    const check = () => {
      try {
        if (test()) return resolve(state())
        if (Date.now() < late) return setTimeout(check, POLL)
        Promise.resolve(state()).then((s) => {
          reject(coded('TIMEOUT', 'not within ' + timeout + ' ms; it is ' + JSON.stringify(s)))
        }, reject)
      } catch (err) {
        reject(err)
      }
    }
    check()
  })
}

async function head ({ face }) {
  const { length, fork, byteLength, signature } = face
  return { length, fork, byteLength, treeHash: hex(await face.treeHash()), signature: hex(signature) }
}

// register counts the events of a core under a name.
function register (name, face, more) {
  const e = added(cores, name, { face, core: face.core, dir: null, events: {}, messages: [], lie: null, ...more })
  const count = (kind, n = 1) => { e.events[kind] = (e.events[kind] || 0) + n }
  for (const kind of ['append', 'truncate', 'conflict', 'peer-add', 'peer-remove', 'close', 'verification-error', 'invalid-request']) {
    e.core.on(kind, () => count(kind))
  }
  e.core.on('download', (index, byteLength, from, req) => {
    count('download')
    count('downloadBytes', byteLength)
    if (req === null) count('pushed')
  })
  e.core.on('upload', (index, byteLength) => { count('upload'); count('uploadBytes', byteLength) })
  e.core.on('peer-add', (peer) => { if (e.lie) spoil(e, peer) })
  return e
}

function remotes (core) {
  return core.peers.map((p) => ({
    publicKey: hex(p.remotePublicKey),
    length: p.remoteLength,
    fork: p.remoteFork,
    contiguousLength: p.remoteContiguousLength,
    synced: p.remoteSynced,
    downloading: p.remoteDownloading,
    uploading: p.remoteUploading,
    allowPush: !!p.remoteAllowPush,
    inflight: p.inflight
  }))
}

async function info (e) {
  const { core, face } = e
  const closed = core.closed || core.closing
  return {
    ...(closed ? {} : await head(e)),
    key: hex(core.key),
    discoveryKey: hex(core.discoveryKey),
    manifestHex: face.manifest ? hex(face.pkg.c.encode(face.pkg.messages.manifest, face.manifest)) : null,
    contiguousLength: core.contiguousLength,
    plainLength: closed ? 0 : core.byteLength,
    writable: core.writable,
    peers: core.peers.length,
    remotes: remotes(core),
    events: e.events
  }
}

function value (block) {
  if (block === null) return { missing: true }
  return { length: block.byteLength, sha256: sha256(block), value: block.byteLength <= MAX_VALUE ? hex(block) : null }
}

// batches calls fn with blocks, as many at a time as the caller wants.
async function batches ({ blocks: list, generate }, fn) {
  if (!generate) return fn(list.map(bytes))
  const { seed, sizes, from = 0, to, batch = 64 } = generate
  const at = blocks(seed, sizes)
  for (let i = from; i < to;) {
    const some = []
    for (; i < to && some.length < batch; i++) some.push(at(i))
    await fn(some)
  }
}

// spoil makes a peer send data that is wrong in one way.
function spoil (e, peer) {
  const message = peer.wireData
  if (message.spoiled) return
  message.spoiled = true
  const send = message.send.bind(message)
  const flip = (buffer) => {
    const copy = Buffer.from(buffer)
    if (copy.byteLength > 0) copy[copy.byteLength >> 1] ^= 1
    return copy
  }
  const flipNode = (nodes) => nodes.map((n, i) => (i === 0 ? { ...n, hash: flip(n.hash) } : n))
  const lies = {
    value: (m) => { if (m.block) m.block = { ...m.block, value: flip(m.block.value) } },
    node: (m) => { if (m.block) m.block = { ...m.block, nodes: flipNode(m.block.nodes) } },
    upgrade: (m) => { if (m.upgrade) m.upgrade = { ...m.upgrade, nodes: flipNode(m.upgrade.nodes) } },
    signature: (m) => { if (m.upgrade) m.upgrade = { ...m.upgrade, signature: flip(m.upgrade.signature) } },
    length: (m) => { if (m.upgrade) m.upgrade = { ...m.upgrade, length: m.upgrade.length + 1 } },
    fork: (m) => { m.fork++ },
    index: (m) => { if (m.block) m.block = { ...m.block, index: m.block.index + 1 } }
  }
  message.send = (m) => {
    const { lie } = e
    if (!lie || lie.after-- > 0) return send(m)
    if (lie.what === 'silence') return true
    const copy = { ...m }
    lies[lie.what](copy)
    return send(copy)
  }
}

function streamState ({ stream, socket, seen }) {
  return {
    ...seen,
    connected: stream.connected,
    publicKey: hex(stream.publicKey),
    remotePublicKey: hex(stream.remotePublicKey),
    initiator: stream.isInitiator,
    bytesRead: socket.bytesRead,
    bytesWritten: socket.bytesWritten
  }
}

function replicate (stream, { stores: s = [], cores: c = [] }) {
  for (const name of s) of(stores, name).store.replicate(stream)
  for (const name of c) of(cores, name).core.replicate(stream)
}

function start (name, initiator, socket, p) {
  socket.setNoDelay(true)
  const keyPair = p.seed ? SecretStream.keyPair(bytes(p.seed)) : undefined
  const stream = new SecretStream(initiator, socket, { keyPair })
  const seen = { ended: false, closed: false, error: null, errorCode: null }
  stream.on('end', () => { seen.ended = true })
  stream.on('error', (err) => { seen.error = err.message; seen.errorCode = err.code || '' })
  stream.on('close', () => { seen.closed = true })
  added(streams, name, { stream, socket, seen })
  replicate(stream, p)
  // Without a core nobody else would read.
  if (!stream.userData) stream.userData = Protomux.from(stream)
}

function messagesOf (e, list, cork) {
  if (cork) e.channel.cork()
  for (const { type, payload, fields } of list) {
    const encoding = encodings[type]
    e.channel.messages[type].send(fields ? open11.c.encode(encoding, fields) : bytes(payload))
  }
  if (cork) e.channel.uncork()
}

const { wire } = open11.messages
const names = ['sync', 'request', 'cancel', 'data', 'noData', 'want', 'unwant', 'bitfield', 'range', 'extension']
const encodings = names.map((n) => wire[n])

function decoded (type, payload) {
  try {
    return plain(open11.c.decode(encodings[type], payload))
  } catch {
    return null
  }
}

const rawState = ({ opened, closed, handshake, events }) => ({ opened, closed, handshake, events })

const methods = {
  async store ({ store: name, dir, primaryKey, namespace = [] }) {
    const own = dir || tempDir()
    const root = new Corestore(own, { primaryKey: bytes(primaryKey), unsafe: true })
    await root.ready()
    let store = root
    for (const ns of namespace) store = store.namespace(ns)
    added(stores, name, { store, root, dir: dir ? null : own })
    return { primaryKey: hex(root.primaryKey) }
  },

  async core (p) {
    const pkg = packageOf(p.package)
    const manifest = manifestOf(pkg, p.manifest)
    const keyPair = p.seed ? pkg.crypto.keyPair(bytes(p.seed)) : undefined
    // Without a seed, naming the key keeps the packages from making up a key pair that the manifest does not know.
    const key = bytes(p.key) || (manifest && !keyPair ? pkg.Verifier.manifestHash(manifest) : undefined)
    const encryptionKey = bytes(p.encryptionKey) || undefined
    const allowPush = !!p.allowPush
    const inflightRange = p.inflight
    let face = null
    let dir = null
    if (p.store) {
      const more = { isBlockKey: !!p.blockKey, encryptionKey, allowPush, inflightRange }
      const core = of(stores, p.store).store.get({ name: p.name, key, keyPair, manifest, ...more })
      await core.ready()
      face = wrap(core)
    } else {
      if (!p.dir) dir = tempDir()
      const more = { compat: !!p.compat, encryptionKey, blockKey: !!p.blockKey, allowPush, inflightRange }
      face = await open(p.dir || dir, { package: p.package, key: key || null, keyPair: keyPair || null, manifest, ...more })
    }
    const { core } = register(p.core, face, { dir })
    return {
      key: hex(core.key),
      discoveryKey: hex(core.discoveryKey),
      manifestHex: face.manifest ? hex(pkg.c.encode(pkg.messages.manifest, face.manifest)) : null,
      length: core.length,
      fork: core.fork,
      writable: core.writable,
      compat: core.core.compat
    }
  },

  async snapshot ({ core: name, as }) {
    const { face, core } = of(cores, name)
    const s = core.snapshot()
    await s.ready()
    register(as, wrap(s, face.pkg === open11 ? '11' : '10'))
    return { length: s.length, fork: s.fork, byteLength: s.byteLength }
  },

  async close ({ core: name, store }) {
    const e = name === undefined ? dropped(stores, store) : dropped(cores, name)
    await (e.root || e.core).close()
    if (e.dir) removeDir(e.dir)
    return null
  },

  async append (p) {
    const e = of(cores, p.core)
    const options = p.signature ? { signature: bytes(p.signature) } : {}
    await batches(p, (some) => e.core.append(some, options))
    return head(e)
  },

  async truncate ({ core: name, length, fork }) {
    const e = of(cores, name)
    await e.core.truncate(length, fork === undefined ? {} : { fork })
    return head(e)
  },

  async clear ({ core: name, start, end = start + 1 }) {
    const { core } = of(cores, name)
    await core.clear(start, end)
    return { contiguousLength: core.contiguousLength }
  },

  info ({ core }) {
    return info(of(cores, core))
  },

  stats ({ core }) {
    return of(cores, core).core.replicator.stats
  },

  async update ({ core: name, force }) {
    const e = of(cores, name)
    const updated = await e.core.update({ wait: true, force: !!force })
    return { updated, ...(await head(e)) }
  },

  async get ({ core, index, wait = true, timeout = 0, raw = false }) {
    return value(await of(cores, core).core.get(index, { wait, timeout, raw }))
  },

  async gets ({ core: name, indices }) {
    const { core } = of(cores, name)
    const digest = new Digest()
    for (const block of await Promise.all(indices.map((i) => core.get(i)))) digest.add(block)
    return { sha256: digest.hex() }
  },

  async has ({ core: name, indices }) {
    const { core } = of(cores, name)
    return { has: await Promise.all(indices.map((i) => core.has(i))) }
  },

  async digest ({ core: name, start = 0, end }) {
    const { core } = of(cores, name)
    const to = end === undefined ? core.length : end
    const digest = new Digest()
    let size = 0
    for (let i = start; i < to; i += 64) {
      const some = []
      for (let j = i; j < Math.min(to, i + 64); j++) some.push(core.get(j))
      for (const block of await Promise.all(some)) {
        digest.add(block)
        size += block.byteLength
      }
    }
    return { blocks: to - start, bytes: size, sha256: digest.hex() }
  },

  held ({ core: name }) {
    const { face, core } = of(cores, name)
    const ranges = []
    let count = 0
    for (let i = 0; i < core.length; i++) {
      if (!face.has(i)) continue
      count++
      const last = ranges[ranges.length - 1]
      if (last && last[1] === i) last[1]++
      else ranges.push([i, i + 1])
    }
    return { ranges, blocks: count }
  },

  async seek ({ core, bytes: at, wait = true, timeout = 0 }) {
    const found = await of(cores, core).core.seek(at, { wait, timeout })
    return found ? { index: found[0], offset: found[1] } : { missing: true }
  },

  async read ({ core: name, from, length }) {
    const { core, face } = of(cores, name)
    const hash = createHash('sha256')
    let size = 0
    if (face.pkg === open11) {
      for await (const data of core.createByteStream({ byteOffset: from, byteLength: length })) {
        hash.update(data)
        size += data.byteLength
      }
      return { length: size, sha256: hash.digest('hex') }
    }
    // The byte stream of package 10 trips over the end of what it fetches ahead.
    for (let [index, offset] = await core.seek(from); size < length; index++, offset = 0) {
      const data = (await core.get(index)).subarray(offset).subarray(0, length - size)
      hash.update(data)
      size += data.byteLength
    }
    return { length: size, sha256: hash.digest('hex') }
  },

  async download ({ core: name, start, end, blocks: list, linear, name: as }) {
    const range = {}
    if (start !== undefined) range.start = start
    if (end !== undefined) range.end = end
    if (list) range.blocks = list
    if (linear) range.linear = true
    const { core } = of(cores, name)
    // All that there is now is to be had to the end; without an end it would go on for ever.
    if (!list && end === undefined && as === undefined) range.end = core.length
    const d = core.download(range)
    if (as === undefined) return { done: await d.done() }
    added(downloads, as, d)
    if (d.ready) await d.ready() // package 10 has begun by itself
    return { done: false }
  },

  undownload ({ name }) {
    dropped(downloads, name).destroy()
    return null
  },

  until ({ core: name, timeout, length = 0, fork = 0, contiguousLength = 0, peers, holds = [], events = {} }) {
    const e = of(cores, name)
    const { core, face } = e
    return until(() => {
      if (peers !== undefined && (peers === 0 ? core.peers.length !== 0 : core.peers.length < peers)) return false
      if (Object.entries(events).some(([kind, n]) => (e.events[kind] || 0) < n)) return false
      if (core.length < length || core.fork < fork || core.contiguousLength < contiguousLength) return false
      return holds.every((i) => face.has(i))
    }, () => info(e), timeout)
  },

  extension ({ core: name, name: ext }) {
    const e = of(cores, name)
    e.core.registerExtension(ext, {
      encoding: 'binary',
      onmessage: (message, peer) => {
        e.messages.push({ name: ext, value: hex(message), from: hex(peer.remotePublicKey) })
        e.events.extension = (e.events.extension || 0) + 1
      }
    })
    return null
  },

  extend ({ core, name, value: message }) {
    of(cores, core).core.extensions.get(name).broadcast(bytes(message))
    return null
  },

  extensions ({ core }) {
    return { messages: of(cores, core).messages }
  },

  allowPush ({ core, allow }) {
    of(cores, core).core.replicator.setAllowPush(allow)
    return null
  },

  async push ({ core, index }) {
    await of(cores, core).core.replicator.push(index)
    return null
  },

  lie ({ core: name, what, after = 0 }) {
    const e = of(cores, name)
    e.lie = what === 'none' ? null : { what, after }
    for (const peer of e.core.peers) spoil(e, peer)
    return null
  },

  async listen (p) {
    const e = added(listeners, p.listener, { server: null, count: 0 })
    e.server = net.createServer({ allowHalfOpen: true }, (socket) => start(p.listener + '/' + e.count++, false, socket, p))
    await new Promise((resolve, reject) => {
      e.server.on('error', reject)
      e.server.listen(0, '127.0.0.1', resolve)
    })
    return { port: e.server.address().port }
  },

  connect (p) {
    start(p.stream, true, net.connect({ port: p.port, host: '127.0.0.1', allowHalfOpen: true }), p)
    return null
  },

  attach ({ stream, store, core }) {
    replicate(of(streams, stream).stream, { stores: store === undefined ? [] : [store], cores: core === undefined ? [] : [core] })
    return null
  },

  stream ({ stream }) {
    return streamState(of(streams, stream))
  },

  streams () {
    return { streams: [...streams].map(([name, e]) => ({ stream: name, ...streamState(e) })) }
  },

  async untilStream ({ stream: name, connected, closed, timeout }) {
    await until(() => streams.has(name), () => null, timeout) // that of a listener may be yet to come
    const e = of(streams, name)
    return until(() => (!connected || e.stream.connected) && (!closed || e.seen.closed), () => streamState(e), timeout)
  },

  unlisten ({ listener }) {
    dropped(listeners, listener).server.close()
    return null
  },

  end ({ stream }) {
    of(streams, stream).stream.end()
    return null
  },

  destroy ({ stream }) {
    of(streams, stream).stream.destroy()
    return null
  },

  stall ({ stream, stalled }) {
    const { socket } = of(streams, stream)
    if (stalled) socket.pause()
    else socket.resume()
    return null
  },

  async raw (p) {
    const { stream } = of(streams, p.stream)
    await stream.opened
    const key = bytes(p.key)
    const { caps, crypto } = open11
    const capabilities = {
      right: () => caps.replicate(stream.isInitiator, key, stream.handshakeHash),
      reflected: () => caps.replicate(!stream.isInitiator, key, stream.handshakeHash),
      wrong: () => Buffer.alloc(32, 7)
    }
    const { capability: which = 'right' } = p
    const capability = capabilities[which] ? capabilities[which]() : bytes(which)
    const e = added(raws, p.raw, { channel: null, opened: false, closed: false, handshake: null, events: [] })
    const message = (type) => ({
      encoding: open11.c.raw,
      onmessage (payload) {
        if (e.events.length >= MAX_EVENTS) return
        const short = payload.byteLength <= MAX_VALUE
        const fields = short && type < encodings.length ? decoded(type, payload) : null
        e.events.push({ type, length: payload.byteLength, payload: short ? hex(payload) : null, fields })
      }
    })
    e.channel = stream.userData.createChannel({
      protocol: 'hypercore/alpha',
      aliases: ['hypercore'],
      id: crypto.discoveryKey(key),
      handshake: wire.handshake,
      messages: Array.from({ length: 16 }, (_, type) => message(type)),
      onopen: (h) => { e.opened = true; e.handshake = plain(h) },
      onclose: () => { e.closed = true }
    })
    if (!e.channel) {
      raws.delete(p.raw)
      return { opened: false }
    }
    e.channel.open({ seeks: p.seeks !== false, capability })
    messagesOf(e, p.messages || [], p.cork)
    return { opened: true }
  },

  rawSend ({ raw, messages, cork }) {
    messagesOf(of(raws, raw), messages, cork)
    return null
  },

  rawClose ({ raw }) {
    of(raws, raw).channel.close()
    return null
  },

  rawFrame ({ stream, payload }) {
    of(streams, stream).stream.write(bytes(payload))
    return null
  },

  rawEvents ({ raw }) {
    return rawState(of(raws, raw))
  },

  untilRaw ({ raw, events = 0, type, opened, closed, timeout }) {
    const e = of(raws, raw)
    return until(() => {
      if (e.events.length < events || (opened && !e.opened) || (closed && !e.closed)) return false
      return type === undefined || e.events.some((m) => m.type === type)
    }, () => rawState(e), timeout)
  }
}

serve(methods, {
  async close () {
    for (const { server } of listeners.values()) server.close()
    for (const { stream } of streams.values()) stream.destroy()
    await Promise.all([...cores.values()].map(({ core }) => core.close()))
    await Promise.all([...stores.values()].map(({ root }) => root.close()))
  }
})
