'use strict'

// Nodes of the real hyperdht on loopback, behind JSON lines. Binary values are hex.
//
//   open {handle, bootstrap: ["127.0.0.1:port"], node?, first?, options?} -> {port, key}
//       a DHT; node takes part at once, and first is one that others enter by
//   ready {handle}                                   -> null, once it has joined
//   info {handle}                                    -> {host, port, firewalled, ephemeral, stats}
//   listen {handle, name, seed, refuse?, options?}   -> {key}, a server that echoes; it refuses the keys in refuse
//   unlisten {handle, name}                          -> null
//   relays {handle, name}                            -> {addresses[]} through which the server is found
//   connect {handle, key, messages, seed?, name?, options?} -> {host, port, key}, once that many messages came back; it closes
//       the connection unless it has a name
//   connectMany {handle, key, count}                 -> {echoed}, that many connections at once
//   say {name, count}                                -> {host, port}, after that many messages on an open connection came back
//   close {name}                                     -> null
//   announce {handle, topic, seed, relays?, clear?, bump?} -> {closest}
//   unannounce {handle, topic, seed}                 -> null
//   lookup {handle, topic}                           -> {keys[], bump}
//   findPeer {handle, key}                           -> {found}
//   immutablePut {handle, value}                     -> {hash}
//   immutableGet {handle, hash}                      -> {value}
//   mutablePut {handle, seed, seq, value}            -> {key, signature}
//   mutableGet {handle, key, seq?, latest?}          -> {seq, value}
//   suspend, resume, destroy {handle}                -> null

const DHT = require('hyperdht')
const { hex, bytes } = require('./lib/hex')
const { serve } = require('./lib/lines')

const dhts = new Map()
const servers = new Map()
const sockets = new Map()
const name = ({ host, port }) => host + ':' + port

function dht (handle) {
  if (!dhts.has(handle)) throw new Error('no DHT is named ' + handle)
  return dhts.get(handle)
}

function keyPair (seed) {
  return seed === undefined ? undefined : DHT.keyPair(bytes(seed))
}

// freePort is a port that was free just now.
async function freePort () {
  const probe = new DHT({ bootstrap: [], host: '127.0.0.1', port: [0, 0] })
  await probe.bind()
  const { port } = probe.io.serverSocket.address()
  await probe.destroy()
  return port
}

// echoed sends messages and waits until all came back.
function echoed (socket, count) {
  return new Promise((resolve, reject) => {
    const want = Array.from({ length: count }, (_, i) => 'message ' + i)
    let got = 0
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('closed after ' + got + ' of ' + count + ' messages')))
    socket.on('data', (data) => {
      if (data.toString() !== want[got]) return reject(new Error('message ' + got + ' is ' + data))
      if (++got === count) {
        socket.removeAllListeners('data')
        socket.removeAllListeners('close')
        resolve()
      }
    })
    for (const m of want) socket.write(m)
  })
}

function remote (socket) {
  const { remoteHost, remotePort } = socket.rawStream
  return { host: remoteHost, port: remotePort, key: hex(socket.remotePublicKey) }
}

function closed (socket) {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve()
    socket.on('close', resolve)
    socket.end()
  })
}

const methods = {
  async open ({ handle, bootstrap = [], node, first, options = {} }) {
    const o = { bootstrap, host: '127.0.0.1', port: [0, 0], ...options }
    if (node) Object.assign(o, { ephemeral: false, firewalled: false })
    const d = first ? DHT.bootstrapper(await freePort(), '127.0.0.1', { host: '127.0.0.1' }) : new DHT(o)
    dhts.set(handle, d)
    await d.bind()
    return { port: d.io.serverSocket.address().port, key: hex(d.defaultKeyPair.publicKey) }
  },

  async ready ({ handle }) {
    await dht(handle).fullyBootstrapped()
  },

  info ({ handle }) {
    const { host, port, firewalled, ephemeral, stats } = dht(handle)
    return { host, port, firewalled, ephemeral, punches: stats.punches, relaying: stats.relaying }
  },

  async listen ({ handle, name, seed, refuse = [], options = {} }) {
    const server = dht(handle).createServer({ ...options, firewall: (key) => refuse.includes(hex(key)) })
    server.on('connection', (socket) => {
      socket.on('error', () => {})
      socket.on('data', (data) => socket.write(data))
      socket.on('end', () => socket.end())
    })
    await server.listen(keyPair(seed))
    servers.set(name, server)
    return { key: hex(server.publicKey) }
  },

  async unlisten ({ name }) {
    await servers.get(name).close()
    servers.delete(name)
  },

  relays: ({ name: of }) => ({ addresses: servers.get(of).relayAddresses.map(name) }),

  async connect ({ handle, key, messages, seed, name: as, options = {} }) {
    const socket = dht(handle).connect(bytes(key), { ...options, keyPair: keyPair(seed) })
    await echoed(socket, messages)
    const r = remote(socket)
    if (as === undefined) {
      await closed(socket)
    } else {
      sockets.set(as, socket)
    }
    return r
  },

  async connectMany ({ handle, key, count }) {
    const all = Array.from({ length: count }, () => dht(handle).connect(bytes(key)))
    await Promise.all(all.map((socket) => echoed(socket, 3)))
    await Promise.all(all.map(closed))
    return { echoed: count }
  },

  async say ({ name: of, count }) {
    await echoed(sockets.get(of), count)
    return remote(sockets.get(of))
  },

  async close ({ name: of }) {
    await closed(sockets.get(of))
    sockets.delete(of)
  },

  async announce ({ handle, topic, seed, relays = [], clear, bump }) {
    const addrs = relays.map((r) => ({ host: r.split(':')[0], port: Number(r.split(':')[1]) }))
    const q = dht(handle).announce(bytes(topic), keyPair(seed), addrs, { clear, bump })
    await q.finished()
    return { closest: q.closestNodes.length }
  },

  unannounce: ({ handle, topic, seed }) => dht(handle).unannounce(bytes(topic), keyPair(seed)),

  async lookup ({ handle, topic }) {
    const keys = new Set()
    let latest = 0
    for await (const { peers, bump } of dht(handle).lookup(bytes(topic))) {
      for (const { publicKey } of peers) keys.add(hex(publicKey))
      latest = Math.max(latest, bump)
    }
    return { keys: [...keys].sort(), bump: latest }
  },

  async findPeer ({ handle, key }) {
    for await (const { peer } of dht(handle).findPeer(bytes(key))) {
      if (hex(peer.publicKey) === key) return { found: true }
    }
    return { found: false }
  },

  async immutablePut ({ handle, value }) {
    const { hash } = await dht(handle).immutablePut(bytes(value))
    return { hash: hex(hash) }
  },

  async immutableGet ({ handle, hash }) {
    const r = await dht(handle).immutableGet(bytes(hash))
    return { value: r ? hex(r.value) : null }
  },

  async mutablePut ({ handle, seed, seq, value }) {
    const { publicKey, signature } = await dht(handle).mutablePut(keyPair(seed), bytes(value), { seq })
    return { key: hex(publicKey), signature: hex(signature) }
  },

  async mutableGet ({ handle, key, seq, latest }) {
    const r = await dht(handle).mutableGet(bytes(key), { seq, latest })
    return r ? { seq: r.seq, value: hex(r.value) } : { seq: 0, value: null }
  },

  suspend: ({ handle }) => dht(handle).suspend(),
  resume: ({ handle }) => dht(handle).resume(),

  async destroy ({ handle }) {
    await dht(handle).destroy()
    dhts.delete(handle)
  }
}

serve(methods, {
  close: () => Promise.all([...dhts.values()].map((d) => d.destroy({ force: true })))
})
