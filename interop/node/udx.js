'use strict'

// The real udx-native, on loopback, behind JSON lines. Sockets and streams have names, given by the caller.
//
//   socket {socket}                                 -> {port}
//   stream {stream, id, firewall?: "open" | "follow"} -> null; open takes packets over any socket, and follow connects
//       to where the first one comes from, with remoteId. Without one there are none but over the stream's socket.
//   connect {stream, socket, remoteId, port}        -> null
//   write {stream, seed, size, end?}                -> null, when the other side has acked it: a block of lib/blocks.js
//   end {stream} | destroy {stream}                 -> null
//   send {stream, texts[]}                          -> null, as messages
//   change {stream, socket, remoteId, port}         -> null, when what was on its way has been acked
//   relay {stream, to}                              -> null, one way
//   keepalive {stream, ms}                          -> null
//   pause {stream} | resume {stream}                -> null, of reading
//   state {stream}                                  -> {bytes, sha256, ended, closed, error, messages[], mtu, rtos,
//                                                      retransmits, recoveries, packetsSent, packetsReceived}
//   until {stream, bytes?, ended?, closed?, messages?, packetsReceived?} -> state, once it is at least that much

const { createHash } = require('crypto')
const UDX = require('udx-native')
const { serve } = require('./lib/lines')
const { blocks } = require('./lib/blocks')

const udx = new UDX()
const sockets = new Map()
const streams = new Map()

function create (name, { id, firewall, remoteId }) {
  const e = { hash: createHash('sha256'), bytes: 0, ended: false, closed: false, error: null, messages: [], waits: new Set(), last: {} }
  const opts = {}
  if (firewall) {
    opts.firewall = (socket, port, host) => {
      if (firewall === 'follow' && !e.raw.connected) e.raw.connect(socket, remoteId, port, host)
      return false
    }
  }
  e.raw = udx.createStream(id, opts)
  e.raw.on('data', (data) => {
    e.bytes += data.byteLength
    e.hash.update(data)
    changed(e)
  })
  e.raw.on('end', () => { e.ended = true; changed(e) })
  e.raw.on('error', (err) => { e.error = err.code || err.message })
  e.raw.on('close', () => { e.closed = true; changed(e) })
  e.raw.on('message', (m) => { e.messages.push(m.toString()); changed(e) })
  streams.set(name, e)
}

function changed (e) {
  for (const w of e.waits) w()
}

function state (e) {
  const { raw } = e
  return {
    bytes: e.bytes,
    sha256: e.hash.copy().digest('hex'),
    ended: e.ended,
    closed: e.closed,
    error: e.error,
    messages: e.messages,
    mtu: raw.mtu,
    rtos: raw.rtoCount,
    retransmits: raw.retransmits,
    recoveries: raw.fastRecoveries,
    packetsSent: raw.packetsTransmitted,
    packetsReceived: raw.packetsReceived
  }
}

function reached (e, { bytes = 0, ended = false, closed = false, messages = 0, packetsReceived = 0 }) {
  return e.bytes >= bytes && (!ended || e.ended) && (!closed || e.closed) && e.messages.length >= messages &&
    e.raw.packetsReceived >= packetsReceived
}

const of = ({ stream }) => streams.get(stream)

const methods = {
  socket ({ socket }) {
    const s = udx.createSocket()
    s.bind(0, '127.0.0.1')
    sockets.set(socket, s)
    return { port: s.address().port }
  },

  stream (p) { create(p.stream, p) },

  connect (p) { of(p).raw.connect(sockets.get(p.socket), p.remoteId, p.port, '127.0.0.1') },

  async write (p) {
    const { raw } = of(p)
    const data = blocks(p.seed, [p.size])(0)
    for (let i = 0; i < data.byteLength; i += 65536) {
      if (!raw.write(data.subarray(i, i + 65536))) {
        await new Promise((resolve) => { raw.once('drain', resolve); raw.once('close', resolve) })
      }
    }
    if (p.end) raw.end()
    else if (!await raw.flush()) throw new Error('the stream has ended')
  },

  end (p) { of(p).raw.end() },
  destroy (p) { of(p).raw.destroy() },

  async send (p) {
    for (const text of p.texts) await of(p).raw.send(Buffer.from(text))
  },

  change (p) { return of(p).raw.changeRemote(sockets.get(p.socket), p.remoteId, p.port, '127.0.0.1') },
  relay (p) { of(p).raw.relayTo(streams.get(p.to).raw) },
  keepalive (p) { of(p).raw.setKeepalive(p.ms) },
  pause (p) { of(p).raw.pause() },
  resume (p) { of(p).raw.resume() },
  state (p) { return state(of(p)) },

  until (p) {
    const e = of(p)
    if (reached(e, p)) return state(e)
    return new Promise((resolve) => {
      const done = () => {
        if (!reached(e, p)) return
        clearInterval(poll)
        e.waits.delete(done)
        resolve(state(e))
      }
      const poll = setInterval(done, 20) // counters have no event
      e.waits.add(done)
    })
  }
}

serve(methods, {
  close () {
    for (const e of streams.values()) e.raw.destroy()
    for (const s of sockets.values()) s.close()
  }
})
