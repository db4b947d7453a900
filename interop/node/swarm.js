'use strict'

// Swarms of the real hyperswarm on loopback, behind JSON lines. Binary values are hex.
//
//   open {handle, bootstrap: ["127.0.0.1:port"], seed, options?, drive?: key | true} -> {key, drive?}
//       a swarm; with drive it has a drive, its own or that of a key, and replicates it over all connections; otherwise
//       both sides of a connection say hello
//   join {handle, topic, server, client}             -> null, once it is announced and looked up
//   leave {handle, topic}                            -> null
//   refresh {handle, topic}                          -> null, looks up again
//   listen {handle}                                  -> null
//   joinPeer, leavePeer {handle, key}                -> null
//   flush {handle}                                   -> null
//   state {handle}                                   -> {conns: [{key, initiator, hello}], peers}
//       the open connections, and whether the other side has said hello
//   drop {handle, key}                               -> null, ends the connection to a peer
//   put {handle, files: {path: {seed, size}}}        -> null
//   sums {handle, paths[]}                           -> {sums[]}, once there are such files
//   suspend, resume, destroy {handle}                -> null

const { createHash } = require('crypto')
const Corestore = require('corestore')
const Hyperdrive = require('hyperdrive')
const DHT = require('hyperdht')
const Hyperswarm = require('hyperswarm')
const { hex, bytes } = require('./lib/hex')
const { serve, tempDir } = require('./lib/lines')

const swarms = new Map() // handle => {swarm, store, drive, said: Set of connections}

function entry (handle) {
  if (!swarms.has(handle)) throw new Error('no swarm is named ' + handle)
  return swarms.get(handle)
}

// contents is what a file of a seed has; Bevy makes the same.
function contents (seed, size) {
  const parts = []
  for (let n = 0, have = 0; have < size; n++) {
    const part = createHash('sha256').update(seed + ' ' + n).digest()
    parts.push(part)
    have += part.length
  }
  return Buffer.concat(parts).subarray(0, size)
}

const methods = {
  async open ({ handle, bootstrap, seed, options = {}, drive }) {
    const dht = new DHT({ bootstrap, host: '127.0.0.1', port: [0, 0] })
    const swarm = new Hyperswarm({ dht, seed: bytes(seed), ...options })
    const e = { swarm, store: null, drive: null, said: new Set() }
    swarms.set(handle, e)
    if (drive) {
      e.store = new Corestore(tempDir())
      e.drive = new Hyperdrive(e.store, drive === true ? null : bytes(drive))
      await e.drive.ready()
    }
    swarm.on('connection', (conn) => {
      conn.on('error', () => {})
      if (e.store) return e.store.replicate(conn)
      conn.once('data', () => e.said.add(conn))
      conn.on('end', () => conn.end())
      conn.write('hello')
    })
    return { key: hex(swarm.keyPair.publicKey), drive: e.drive && hex(e.drive.key) }
  },

  async join ({ handle, topic, server, client }) {
    await entry(handle).swarm.join(bytes(topic), { server, client }).flushed()
  },

  leave: ({ handle, topic }) => entry(handle).swarm.leave(bytes(topic)),
  refresh: async ({ handle, topic }) => { await entry(handle).swarm.status(bytes(topic)).refresh() },
  listen: async ({ handle }) => { await entry(handle).swarm.listen() },
  joinPeer: ({ handle, key }) => entry(handle).swarm.joinPeer(bytes(key)),
  leavePeer: ({ handle, key }) => entry(handle).swarm.leavePeer(bytes(key)),
  flush: async ({ handle }) => { await entry(handle).swarm.flush() },

  state ({ handle }) {
    const { swarm, said } = entry(handle)
    const conns = [...swarm.connections].map((c) => ({ key: hex(c.remotePublicKey), initiator: c.isInitiator, hello: said.has(c) }))
    return { conns, peers: swarm.peers.size }
  },

  drop ({ handle, key }) {
    for (const c of entry(handle).swarm.connections) if (hex(c.remotePublicKey) === key) c.destroy()
  },

  async put ({ handle, files }) {
    for (const [path, { seed, size }] of Object.entries(files)) await entry(handle).drive.put(path, contents(seed, size))
  },

  async sums ({ handle, paths }) {
    const { drive } = entry(handle)
    const sums = []
    for (const path of paths) {
      let data = null
      while (data === null) {
        data = await drive.get(path)
        if (data === null) await new Promise((resolve) => setTimeout(resolve, 20)) // an append may be over by now
      }
      sums.push(createHash('sha256').update(data).digest('hex'))
    }
    return { sums }
  },

  suspend: ({ handle }) => entry(handle).swarm.suspend(),
  resume: ({ handle }) => entry(handle).swarm.resume(),

  async destroy ({ handle }) {
    const { swarm, drive, store } = entry(handle)
    swarms.delete(handle)
    await swarm.destroy()
    if (drive) await drive.close()
    if (store) await store.close()
  }
}

serve(methods, {
  close: () => Promise.all([...swarms.values()].map((e) => e.swarm.destroy({ force: true })))
})
