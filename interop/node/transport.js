'use strict'

// The real secret-stream over WebSockets of the npm package ws, behind JSON lines. Who dials is the initiator.
//
//   listen {handle, seed, echo?}                -> {port}; the first connection to it becomes the handle's stream
//   connect {handle, url, seed, echo?}          -> null
//       a handle's stream sends every message back if echo is set.
//   until {handle, received?, ended?, closed?}  -> {connected, ended, closed, error, publicKey, remotePublicKey,
//                                                   handshakeHash, received: [{length, sha256}]}, once that has happened
//   send {handle, sizes[]}                      -> {sha256[]}, messages of those sizes
//   ping {handle, text}                         -> {text}, what came back
//   end {handle}                                -> null, no more writes

const { createHash } = require('crypto')
const { WebSocket, WebSocketServer, createWebSocketStream } = require('ws')
const SecretStream = require('@hyperswarm/secret-stream')
const { hex, bytes } = require('./lib/hex')
const { serve, coded } = require('./lib/lines')

const streams = new Map() // handle => {stream, socket, server, seen, checks}

const sha256 = (b) => createHash('sha256').update(b).digest('hex')

function entry (handle) {
  const e = streams.get(handle)
  if (!e) throw coded('BAD_HANDLE', 'no stream is named ' + handle)
  return e
}

function created (handle) {
  const seen = { received: [], ended: false, closed: false, error: null }
  const e = { stream: null, socket: null, server: null, seen, checks: new Set() }
  streams.set(handle, e)
  return e
}

function attach (e, initiator, socket, { seed, echo = false }) {
  e.socket = socket
  const pipe = createWebSocketStream(socket)
  const stream = new SecretStream(initiator, pipe, { keyPair: SecretStream.keyPair(bytes(seed)), keepAlive: 0 })
  e.stream = stream
  const changed = () => { for (const check of [...e.checks]) check() }
  stream.on('connect', changed)
  stream.on('data', (data) => {
    e.seen.received.push({ length: data.byteLength, sha256: sha256(data) })
    if (echo) stream.write(Buffer.from(data))
    changed()
  })
  stream.on('end', () => { e.seen.ended = true; changed() })
  stream.on('error', (err) => { e.seen.error = err.message })
  stream.on('close', () => { e.seen.closed = true; changed() })
}

function stateOf ({ stream, seen }) {
  return {
    ...seen,
    connected: !!stream && stream.connected,
    publicKey: stream && hex(stream.publicKey),
    remotePublicKey: stream && hex(stream.remotePublicKey),
    handshakeHash: stream && hex(stream.handshakeHash)
  }
}

const methods = {
  async listen (p) {
    const e = created(p.handle)
    e.server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    e.server.on('connection', (socket) => attach(e, false, socket, p))
    await new Promise((resolve, reject) => {
      e.server.on('error', reject)
      e.server.on('listening', resolve)
    })
    return { port: e.server.address().port }
  },

  connect (p) {
    attach(created(p.handle), true, new WebSocket(p.url), p)
    return null
  },

  until ({ handle, received = 0, ended = false, closed = false }) {
    const e = entry(handle)
    return new Promise((resolve) => {
      const check = () => {
        const { seen } = e
        const done = seen.received.length >= received && (!ended || seen.ended) && (!closed || seen.closed)
        if (!done && !seen.closed) return
        e.checks.delete(check)
        resolve(stateOf(e))
      }
      e.checks.add(check)
      check()
    })
  },

  async send ({ handle, sizes }) {
    const { stream } = entry(handle)
    const sums = []
    for (const [i, size] of sizes.entries()) {
      const message = Buffer.alloc(size, i + 1)
      sums.push(sha256(message))
      if (!stream.write(message)) await new Promise((resolve) => stream.once('drain', resolve))
    }
    return { sha256: sums }
  },

  ping ({ handle, text }) {
    const { socket } = entry(handle)
    return new Promise((resolve) => {
      socket.once('pong', (data) => resolve({ text: data.toString() }))
      socket.ping(text)
    })
  },

  end ({ handle }) {
    entry(handle).stream.end()
    return null
  }
}

serve(methods, {
  close () {
    for (const { socket, server } of streams.values()) {
      if (socket) socket.terminate()
      if (server) server.close()
    }
  }
})
