'use strict'

// Peers of the real hyperdht that talk all the time over connections that begin at a blind relay, and that relay, behind
// JSON lines. Binary values are hex. What a peer says are the blocks of a seed, of lib/blocks.js, each a message; the
// last message is END.
//
//   relay {name, bootstrap, seed}                    -> {key}, a blind relay that everyone can reach
//   use {name}                                       -> {sessions, links} that the relay has
//   listen {name, bootstrap, host, seed, talk, relay?} -> {key}, a peer behind a firewall, for one connection
//   connect {name, bootstrap, host, key, talk, relay?} -> null, the same for a client; talk is {says, hears, sizes, pause}
//   state {name}                                     -> {sent, received, ended, host, port, error}, of the connection
//   finish {name}                                    -> null, the peer says END

const DHT = require('hyperdht')
const blind = require('blind-relay')
const { blocks } = require('./lib/blocks')
const { hex, bytes } = require('./lib/hex')
const { serve } = require('./lib/lines')

const END = Buffer.from('END')

const dhts = []
const relays = new Map()
const talks = new Map()

// peer is options for one behind a firewall, that does not find out that it could be reached.
const peer = (bootstrap, host) => ({ bootstrap, host, quickFirewall: false })

function open (options) {
  const dht = new DHT({ port: [0, 0], ...options })
  dhts.push(dht)
  return dht
}

// A Talk is one side of a connection.
class Talk {
  constructor ({ says, hears, sizes, pause }) {
    this.says = blocks(says, sizes)
    this.hears = blocks(hears, sizes)
    this.pause = pause
    this.sent = this.received = 0
    this.ended = false
    this.error = null
    this.socket = null
    this.timer = null
  }

  begin (socket) {
    this.socket = socket
    socket.on('error', (err) => this.fail(err.message))
    socket.on('data', (data) => this.hear(data))
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      clearInterval(this.timer)
      if (!this.ended) this.fail('closed after ' + this.received + ' messages')
    })
    this.timer = setInterval(() => socket.write(this.says(this.sent++)), this.pause)
  }

  hear (data) {
    if (this.ended) return this.fail('there is more after the end')
    if (END.equals(data)) {
      this.ended = true
    } else if (this.hears(this.received++).equals(data) === false) {
      this.fail('message ' + (this.received - 1) + ' is wrong')
    }
  }

  fail (why) {
    if (this.error === null) this.error = why
  }

  finish () {
    clearInterval(this.timer)
    this.socket.write(END)
  }

  state () {
    const { remoteHost: host, remotePort: port } = this.socket === null || this.socket.rawStream === null ? {} : this.socket.rawStream
    return { sent: this.sent, received: this.received, ended: this.ended, host, port, error: this.error }
  }
}

const methods = {
  async relay ({ name, bootstrap, seed }) {
    const dht = open({ bootstrap, host: '127.0.0.1', firewalled: false, ephemeral: false })
    const relay = new blind.Server({ createStream: (o) => dht.createRawStream({ ...o, framed: true }) })
    const server = dht.createServer((socket) => {
      socket.on('error', () => {})
      relay.accept(socket, { id: socket.remotePublicKey }).on('error', () => {})
    })
    await server.listen(DHT.keyPair(bytes(seed)))
    relays.set(name, relay)
    return { key: hex(server.publicKey) }
  },

  use ({ name }) {
    const { sessions, streams } = relays.get(name).stats
    return { sessions: sessions.active, links: Math.ceil(streams.active / 2) }
  },

  async listen ({ name, bootstrap, host, seed, talk, relay }) {
    const t = new Talk(talk)
    const server = open(peer(bootstrap, host)).createServer({ relayThrough: bytes(relay) }, (socket) => t.begin(socket))
    await server.listen(DHT.keyPair(bytes(seed)))
    talks.set(name, t)
    return { key: hex(server.publicKey) }
  },

  async connect ({ name, bootstrap, host, key, talk, relay }) {
    const dht = open(peer(bootstrap, host))
    await dht.fullyBootstrapped()
    const t = new Talk(talk)
    talks.set(name, t)
    t.begin(dht.connect(bytes(key), { relayThrough: bytes(relay) }))
  },

  state: ({ name }) => talks.get(name).state(),
  finish: ({ name }) => talks.get(name).finish()
}

serve(methods, { close: () => Promise.all(dhts.map((d) => d.destroy({ force: true }))) })
