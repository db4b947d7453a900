'use strict'

// The real secret-stream behind JSON lines: over TCP on loopback, and its parts as plain functions. Binary values are hex.
//
//   dh {seed, publicKeys[]}                             -> {outputs: [hex | null]}, null for a key that libsodium refuses
//   seal {key, header, counter?, messages: [{plain, tag?}]} -> {ciphers[]}
//       a push stream with that header; counter is where its message counter stands, tag is MESSAGE, PUSH, REKEY or FINAL.
//   open {key, header, ciphers[]}                       -> {plains[]}
//   box {hash, initiator, counter, plain}               -> {envelope}, as stream.send makes it
//   listen {handle, seed, keepAlive?, echo?}            -> {port}; the first connection to it becomes the handle's stream
//   connect {handle, port, seed, keepAlive?, echo?}     -> null
//       a handle's stream sends every message back if echo is set.
//   state {handle}                                      -> {connected, ended, closed, error, publicKey, remotePublicKey,
//                                                           handshakeHash, received: [{length, sha256}]}
//   until {handle, received?, ended?, closed?}          -> the same, once that much was received or that has happened
//   send {handle, sizes[]}                              -> {sha256[]}, messages of those sizes
//   end {handle}                                        -> null, no more writes
//   destroy {handle}                                    -> null

const net = require('net')
const { createHash } = require('crypto')
const sodium = require('sodium-universal')
const SecretStream = require('@hyperswarm/secret-stream')
const curve = require('noise-curve-ed')
const { hex, bytes } = require('./lib/hex')
const { serve, coded } = require('./lib/lines')

const streams = new Map() // handle => {stream, server, seen}

const sha256 = (b) => createHash('sha256').update(b).digest('hex')
const secretstream = (name) => sodium['crypto_secretstream_xchacha20poly1305_' + name]

function keyPair (seed) {
  return SecretStream.keyPair(bytes(seed))
}

function stateOf (key, header, counter) {
  const state = Buffer.alloc(secretstream('STATEBYTES'))
  secretstream('init_pull')(state, bytes(header), bytes(key)) // makes the same state as init_push
  if (counter !== undefined) state.writeUInt32LE(counter, 32)
  return state
}

function entry (handle) {
  const e = streams.get(handle)
  if (!e) throw coded('BAD_HANDLE', 'no stream is named ' + handle)
  return e
}

function attach (e, initiator, socket, { seed, keepAlive = 0, echo = false }) {
  socket.setNoDelay(true)
  const stream = new SecretStream(initiator, socket, { keyPair: keyPair(seed), keepAlive })
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

function created (handle) {
  const e = { stream: null, server: null, seen: { received: [], ended: false, closed: false, error: null }, checks: new Set() }
  streams.set(handle, e)
  return e
}

function stateOfStream ({ stream, seen }) {
  return {
    ...seen,
    connected: !!stream && stream.connected,
    publicKey: stream && hex(stream.publicKey),
    remotePublicKey: stream && hex(stream.remotePublicKey),
    handshakeHash: stream && hex(stream.handshakeHash)
  }
}

const methods = {
  dh ({ seed, publicKeys }) {
    const pair = keyPair(seed)
    const outputs = publicKeys.map((key) => {
      try {
        return hex(curve.dh(bytes(key), pair))
      } catch {
        return null
      }
    })
    return { outputs }
  },

  seal ({ key, header, counter, messages }) {
    const state = stateOf(key, header, counter)
    const ciphers = messages.map(({ plain, tag = 'MESSAGE' }) => {
      const message = bytes(plain)
      const cipher = Buffer.alloc(message.byteLength + secretstream('ABYTES'))
      secretstream('push')(state, cipher, message, null, secretstream('TAG_' + tag))
      return hex(cipher)
    })
    return { ciphers }
  },

  open ({ key, header, ciphers }) {
    const state = stateOf(key, header)
    const plains = ciphers.map((c) => {
      const cipher = bytes(c)
      const plain = Buffer.alloc(cipher.byteLength - secretstream('ABYTES'))
      secretstream('pull')(state, plain, Buffer.alloc(1), cipher, null)
      return hex(plain)
    })
    return { plains }
  },

  box ({ hash, initiator, counter, plain }) {
    const s = new SecretStream(initiator, null, { autoStart: false })
    s._setupSecretSend(bytes(hash))
    const before = bytes(counter)
    before.copy(s._sendState, 64)
    return { envelope: hex(s._boxMessage(bytes(plain))) }
  },

  async listen (p) {
    const e = created(p.handle)
    e.server = net.createServer({ allowHalfOpen: true }, (socket) => {
      e.server.close()
      attach(e, false, socket, p)
    })
    await new Promise((resolve, reject) => {
      e.server.on('error', reject)
      e.server.listen(0, '127.0.0.1', resolve)
    })
    return { port: e.server.address().port }
  },

  connect (p) {
    attach(created(p.handle), true, net.connect({ port: p.port, host: '127.0.0.1', allowHalfOpen: true }), p)
    return null
  },

  state ({ handle }) {
    return stateOfStream(entry(handle))
  },

  until ({ handle, received = 0, ended = false, closed = false }) {
    const e = entry(handle)
    return new Promise((resolve) => {
      const check = () => {
        const { seen } = e
        const done = seen.received.length >= received && (!ended || seen.ended) && (!closed || seen.closed)
        if (!done && !seen.closed) return
        e.checks.delete(check)
        resolve(stateOfStream(e))
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
  },

  destroy ({ handle }) {
    entry(handle).stream.destroy()
    return null
  }
}

serve(methods, {
  close () {
    for (const { stream, server } of streams.values()) {
      if (stream) stream.destroy()
      if (server) server.close()
    }
  }
})
