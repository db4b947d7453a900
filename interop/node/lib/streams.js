'use strict'

// Secret-streams by their handles, what they have seen, and the methods of scripts that are about them.

const net = require('net')
const { createHash } = require('crypto')
const SecretStream = require('@hyperswarm/secret-stream')
const { hex, bytes } = require('./hex')
const { coded } = require('./lines')

const streams = new Map() // handle => {stream, socket, server, seen, checks}

const sha256 = (b) => createHash('sha256').update(b).digest('hex')

function keyPair (seed) {
  return SecretStream.keyPair(bytes(seed))
}

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

// attach begins a stream over any duplex, and keeps what it sees.
function attach (e, initiator, duplex, { seed, keepAlive = 0, echo = false }) {
  const stream = new SecretStream(initiator, duplex, { keyPair: keyPair(seed), keepAlive })
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

  end ({ handle }) {
    entry(handle).stream.end()
    return null
  }
}

// listenOnce gives e a server on loopback, and onsocket the first connection to it.
async function listenOnce (e, onsocket) {
  e.server = net.createServer({ allowHalfOpen: true }, (socket) => {
    e.server.close()
    onsocket(socket)
  })
  await new Promise((resolve, reject) => {
    e.server.on('error', reject)
    e.server.listen(0, '127.0.0.1', resolve)
  })
  return { port: e.server.address().port }
}

function dial (port) {
  return net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
}

module.exports = { streams, keyPair, entry, created, attach, stateOf, methods, listenOnce, dial }
