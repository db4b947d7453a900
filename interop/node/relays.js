'use strict'

// The real blind-relay and @hyperswarm/dht-relay on loopback, behind JSON lines. Binary values are hex. DHTs are made
// of the bootstrap nodes that are given.
//
//   relay {name, bootstrap, repaired?}               -> {port}, a dht-relay for WebSockets; repaired, it can ask for
//       signatures: it takes a record for its relayAddresses, and with that nothing can be encoded
//   client {name, url, seed, custodial}              -> null, a client of a dht-relay at ws://… or tcp://127.0.0.1:port
//   listen {name, deny?: [keys]}                     -> {key}, the client takes connections, and echoes
//   unlisten {name}                                  -> null
//   connect {name, key, messages}                    -> {key, hash}, once that many messages came back to the client
//   announce, unannounce {name, topic}               -> null, with the key of the client
//   lookup {name, topic}                             -> {keys[]}
//   blind {name, bootstrap, seed}                    -> {key}, a blind relay that listens on a DHT
//   pair {name, bootstrap, relay, initiator, token}  -> null, once a stream is paired, and connected to the relay
//   say {name, text}                                 -> {text} that has come meanwhile, at least a byte
//   unpair {name, token}                             -> null
//   close {name}                                     -> null

const net = require('net')
const path = require('path')
const DHT = require('hyperdht')
const blind = require('blind-relay')
const Relayed = require('@hyperswarm/dht-relay')
const Stream = require('@hyperswarm/dht-relay/ws')
const SecretStream = require('@hyperswarm/dht-relay/tcp')
const { WebSocketServer, WebSocket } = require('ws')
const { hex, bytes } = require('./lib/hex')
const { serve } = require('./lib/lines')

const things = new Map() // name => {close, …}

function thing (name) {
  if (!things.has(name)) throw new Error('nothing is named ' + name)
  return things.get(name)
}

// repair gives lib/signee-proxy.js the list that it means to send.
function repair () {
  const { signAnnounce } = require(path.join(path.dirname(require.resolve('@hyperswarm/dht-relay')), 'lib', 'messages.js'))
  for (const name of ['preencode', 'encode']) {
    const original = signAnnounce[name]
    signAnnounce[name] = (state, m) => original(state, { ...m, relayAddresses: m.relayAddresses.relayAddresses })
  }
}

function dhtOf (bootstrap) {
  return new DHT({ bootstrap, host: '127.0.0.1', port: [0, 0] })
}

function echo (socket) {
  socket.on('error', () => {})
  socket.on('data', (data) => socket.write(data))
  socket.on('end', () => socket.end())
}

// text is a message; one is larger than packets and buffers are.
const text = (i) => 'message ' + i + (i === 7 ? 'x'.repeat(300_000) : '')

function echoed (socket, count) {
  return new Promise((resolve, reject) => {
    let got = 0
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('closed after ' + got + ' of ' + count + ' messages')))
    socket.on('data', (data) => {
      if (data.toString() !== text(got)) return reject(new Error('message ' + got + ' is ' + data))
      if (++got === count) resolve()
    })
    for (let i = 0; i < count; i++) socket.write(text(i))
  })
}

const methods = {
  async relay ({ name, bootstrap, repaired }) {
    if (repaired) repair()
    const dht = dhtOf(bootstrap)
    await dht.fullyBootstrapped()
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
    server.on('connection', (socket) => Relayed.relay(dht, new Stream(false, socket)))
    await new Promise((resolve) => server.once('listening', resolve))
    const close = async () => {
      for (const socket of server.clients) socket.terminate()
      server.close()
      await dht.destroy({ force: true })
    }
    things.set(name, { close })
    return { port: server.address().port }
  },

  async client ({ name, url, seed, custodial }) {
    const keyPair = Relayed.keyPair(bytes(seed))
    const { protocol, port } = new URL(url)
    const stream = protocol === 'tcp:' ? new SecretStream(true, net.connect(port, '127.0.0.1')) : new Stream(true, new WebSocket(url))
    const node = new Relayed(stream, { keyPair, custodial })
    await node.ready()
    things.set(name, { node, keyPair, server: null, close: () => node.destroy({ force: true }) })
  },

  async listen ({ name, deny = [] }) {
    const c = thing(name)
    c.server = c.node.createServer({ firewall: (key) => deny.includes(hex(key)) }, echo)
    await c.server.listen(c.keyPair)
    return { key: hex(c.server.publicKey) }
  },

  unlisten: ({ name }) => thing(name).server.close(),

  async connect ({ name, key, messages }) {
    const socket = thing(name).node.connect(bytes(key))
    await echoed(socket, messages)
    const closed = new Promise((resolve) => socket.on('close', resolve))
    socket.end()
    const result = { key: hex(socket.remotePublicKey), hash: hex(socket.handshakeHash) }
    await closed
    return result
  },

  async announce ({ name, topic }) {
    const { node, keyPair } = thing(name)
    const query = node.announce(bytes(topic), keyPair)
    query.resume()
    await query.finished()
  },

  async unannounce ({ name, topic }) {
    const { node, keyPair } = thing(name)
    await node.unannounce(bytes(topic), keyPair)
  },

  async lookup ({ name, topic }) {
    const keys = new Set()
    for await (const { peers } of thing(name).node.lookup(bytes(topic))) {
      for (const { publicKey } of peers) keys.add(hex(publicKey))
    }
    return { keys: [...keys].sort() }
  },

  async blind ({ name, bootstrap, seed }) {
    const dht = dhtOf(bootstrap)
    const relay = new blind.Server({ createStream: (o) => dht.createRawStream({ ...o, framed: true }) })
    const server = dht.createServer((socket) => {
      socket.on('error', () => {})
      relay.accept(socket, { id: socket.remotePublicKey }).on('error', () => {})
    })
    await server.listen(DHT.keyPair(bytes(seed)))
    things.set(name, { close: () => dht.destroy({ force: true }) })
    return { key: hex(server.publicKey) }
  },

  async pair ({ name, bootstrap, relay, initiator, token }) {
    const dht = dhtOf(bootstrap)
    const socket = dht.connect(bytes(relay))
    socket.on('error', () => {})
    const client = blind.Client.from(socket, { id: socket.publicKey })
    const stream = dht.createRawStream()
    stream.on('error', () => {})
    const c = { client, stream, text: '', changed: () => {}, close: () => dht.destroy({ force: true }) }
    things.set(name, c)
    stream.on('data', (data) => { c.text += data; c.changed() })
    const id = await new Promise((resolve, reject) => client.pair(initiator, bytes(token), stream).on('error', reject).on('data', resolve))
    const raw = socket.rawStream
    stream.connect(raw.socket, id, raw.remotePort, raw.remoteHost)
  },

  async say ({ name, text }) {
    const c = thing(name)
    c.stream.write(Buffer.from(text))
    while (c.text === '') await new Promise((resolve) => { c.changed = resolve })
    const come = c.text
    c.text = ''
    return { text: come }
  },

  unpair: ({ name, token }) => { thing(name).client.unpair(bytes(token)) },

  async close ({ name }) {
    await thing(name).close()
    things.delete(name)
  }
}

serve(methods, { close: () => Promise.all([...things.values()].map((t) => t.close())) })
