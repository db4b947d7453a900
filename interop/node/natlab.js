'use strict'

// Subjects of the NAT laboratory with the real hyperdht, behind JSON lines. Each runs on a host of the lab.
//
//   network {hosts[], each}                    -> {bootstrap: ["host:port"]}, a DHT of so many nodes on each address
//   relay {host, bootstrap}                    -> {key}, a blind relay on this address
//   listen {bootstrap}                         -> {key}, a new node and server that echoes; the one before is closed
//   connect {bootstrap, key, relay, through,   -> {path, ms, error}, of a new node's connection once an echo came back,
//            timeout}                             by the relay {host, key} if through is set; it stays until the next
//                                                 connect or drop
//   again {timeout}                            -> {path, ms, error}, of the next echo over that connection, or over
//                                                 another one if it breaks
//   drop {}                                    -> null, closes what connect and listen made
//
// A path is lan, direct, punched or relayed. New nodes are made because hyperdht punches at random once in 20 seconds,
// and because what a node learnt in one cell of the matrix is not to help it in the next.

const DHT = require('hyperdht')
const { Server: BlindRelay } = require('blind-relay')
const { serve } = require('./lib/lines')

const open = [] // nodes of this network and relay

// node makes one that has joined the network, or can't.
async function node (opts) {
  const dht = new DHT(opts)
  await Promise.race([dht.fullyBootstrapped(), new Promise((resolve) => setTimeout(resolve, 2000))])
  return dht
}

let server = null // {dht}
let client = null // {dht, key, relay, stream, path, punchers: how many there were}

async function dropServer () {
  const s = server
  server = null
  if (s) await s.dht.destroy({ force: true })
}

async function dropClient () {
  const c = client
  client = null
  if (c) await c.dht.destroy({ force: true })
}

const ignore = () => {}

// dial resolves with the first echo over a new connection.
async function dial (c, timeout) {
  const started = performance.now()
  const before = c.punchers
  const opts = {}
  if (c.relay) opts.relayThrough = Buffer.from(c.relay.key, 'hex')
  const stream = c.stream = c.dht.connect(Buffer.from(c.key, 'hex'), opts)
  const error = await echo(stream, timeout)
  const ms = performance.now() - started
  if (error) {
    stream.on('error', ignore)
    stream.destroy()
    return { path: 'none', ms, error }
  }
  c.path = path(c, before)
  return { path: c.path, ms, error: '' }
}

// echo sends a byte, and resolves with why it did not come back.
function echo (stream, timeout) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, timeout, 'timeout')
    const fail = (err) => done((err && err.code) || 'CLOSED')
    const data = () => done('')
    stream.on('error', fail)
    stream.on('close', fail)
    stream.on('data', data)
    stream.write(Buffer.from([1]))
    function done (error) {
      clearTimeout(timer)
      stream.off('error', fail).off('close', fail).off('data', data)
      stream.on('error', ignore)
      resolve(error)
    }
  })
}

function path ({ relay, stream, punchers }, before) {
  const host = stream.rawStream.remoteHost
  if (relay && host === relay.host) return 'relayed'
  if (host.startsWith('192.168.')) return 'lan'
  return punchers > before ? 'punched' : 'direct'
}

const methods = {
  async network ({ hosts, each }) {
    const bootstrap = [hosts[0] + ':49737']
    for (let i = 0; i < each; i++) {
      for (const host of hosts) {
        const first = open.length === 0
        open.push(await node({ host, port: 49737 + i, ephemeral: false, firewalled: false, bootstrap: first ? [] : bootstrap }))
      }
    }
    return { bootstrap }
  },

  async relay ({ host, bootstrap }) {
    const dht = await node({ host, bootstrap, ephemeral: false, firewalled: false })
    open.push(dht)
    const relay = new BlindRelay({ createStream: (opts) => dht.createRawStream({ ...opts, framed: true }) })
    const s = dht.createServer((stream) => {
      stream.on('error', ignore)
      relay.accept(stream, { id: stream.remotePublicKey }).on('error', ignore)
    })
    const keyPair = DHT.keyPair()
    await s.listen(keyPair)
    return { key: keyPair.publicKey.toString('hex') }
  },

  async listen ({ bootstrap }) {
    await dropServer()
    const dht = await node({ bootstrap })
    server = { dht }
    const s = dht.createServer((stream) => {
      stream.on('error', ignore)
      stream.on('data', (data) => stream.write(data))
      stream.on('end', () => stream.end())
    })
    const keyPair = DHT.keyPair()
    await s.listen(keyPair)
    return { key: keyPair.publicKey.toString('hex') }
  },

  async connect ({ bootstrap, key, relay, through, timeout }) {
    await dropClient()
    client = { dht: await node({ bootstrap }), key, relay: through ? relay : null, stream: null, path: 'none', punchers: 0 }
    // The node's statistics miss a hole that was there at the first try. A puncher begins with a socket of the pool.
    const c = client
    const pool = c.dht._socketPool
    const acquire = pool.acquire
    pool.acquire = function () {
      c.punchers++
      return acquire.call(this)
    }
    return dial(c, timeout)
  },

  async again ({ timeout }) {
    const started = performance.now()
    const left = () => Math.max(1, timeout - (performance.now() - started))
    let error = await echo(client.stream, left())
    let way = error ? 'none' : client.path
    while (error && error !== 'timeout' && left() > 1) {
      ({ path: way, error } = await dial(client, left()))
    }
    return { path: way, ms: performance.now() - started, error }
  },

  async drop () {
    await Promise.all([dropClient(), dropServer()])
    return null
  }
}

serve(methods, {
  close: () => Promise.all([dropClient(), dropServer(), ...open.map((dht) => dht.destroy({ force: true }))])
})
