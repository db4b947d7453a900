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

const sodium = require('sodium-universal')
const SecretStream = require('@hyperswarm/secret-stream')
const curve = require('noise-curve-ed')
const { hex, bytes } = require('./lib/hex')
const { serve } = require('./lib/lines')
const held = require('./lib/streams')
const { streams, keyPair, entry, created, stateOf: stateOfStream } = held

const secretstream = (name) => sodium['crypto_secretstream_xchacha20poly1305_' + name]

function stateOf (key, header, counter) {
  const state = Buffer.alloc(secretstream('STATEBYTES'))
  secretstream('init_pull')(state, bytes(header), bytes(key)) // makes the same state as init_push
  if (counter !== undefined) state.writeUInt32LE(counter, 32)
  return state
}

function attach (e, initiator, socket, o) {
  socket.setNoDelay(true)
  held.attach(e, initiator, socket, o)
}

const methods = {
  ...held.methods,

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

  listen (p) {
    const e = created(p.handle)
    return held.listenOnce(e, (socket) => attach(e, false, socket, p))
  },

  connect (p) {
    attach(created(p.handle), true, held.dial(p.port), p)
    return null
  },

  state ({ handle }) {
    return stateOfStream(entry(handle))
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
