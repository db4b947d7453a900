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

const { WebSocket, WebSocketServer, createWebSocketStream } = require('ws')
const { serve } = require('./lib/lines')
const held = require('./lib/streams')
const { streams, entry, created } = held

function attach (e, initiator, socket, { seed, echo }) {
  e.socket = socket
  held.attach(e, initiator, createWebSocketStream(socket), { seed, echo })
}

const methods = {
  ...held.methods,

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

  ping ({ handle, text }) {
    const { socket } = entry(handle)
    return new Promise((resolve) => {
      socket.once('pong', (data) => resolve({ text: data.toString() }))
      socket.ping(text)
    })
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
