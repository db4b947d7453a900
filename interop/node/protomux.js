'use strict'

// The real protomux over the real secret-stream and TCP on loopback, behind JSON lines. Binary values are hex.
//
//   listen {handle, seed}                               -> {port}; the first connection to it becomes the handle's mux
//   connect {handle, port, seed}                        -> null
//   pair {handle, protocol, id?, echo?, refuse?}        -> null
//       opens what the other side opens, under its id in hex as name, and sends messages back if echo is set; with
//       refuse it looks on instead, and protomux rejects.
//   open {handle, name, protocol, aliases?, id?, handshake?, echo?} -> {opened}, false for a second one of its kind
//       a channel with three messages, of raw bytes. The handshake is raw bytes, too.
//   send {handle, name, messages: [{type, payload} | {type, size}], cork?} -> null; of a size, all bytes are its low byte
//   close {handle, name}                                -> null
//   until {handle, events?, name?, event?, idle?}       -> {events: [{name, event, type?, payload?, length?, sha256?}], idle}
//       what the channels saw, once it is that many events, or one is of that name and kind, or no channel is left, or
//       the stream has ended. The payload is that of short messages, the sum that of all. Events are open with the
//       handshake as payload, message, and close. idle is whether no channel is left.
//   state {handle}                                      -> {destroyed, error, events, idle}
//   end {handle}                                        -> null

const { createHash } = require('crypto')
const c = require('compact-encoding')
const Protomux = require('protomux')
const SecretStream = require('@hyperswarm/secret-stream')
const { hex, bytes } = require('./lib/hex')
const { serve, coded } = require('./lib/lines')
const { listenOnce, dial } = require('./lib/streams')

const muxes = new Map() // handle => {stream, mux, channels, events, ...}

function entry (handle) {
  const e = muxes.get(handle)
  if (!e) throw coded('BAD_HANDLE', 'no mux is named ' + handle)
  return e
}

function created (handle) {
  const e = { stream: null, mux: null, server: null, channels: new Map(), events: [], checks: new Set(), error: null, destroyed: false }
  e.ready = new Promise((resolve) => { e.attached = resolve })
  muxes.set(handle, e)
  return e
}

function attach (e, initiator, socket, { seed }) {
  socket.setNoDelay(true)
  e.stream = new SecretStream(initiator, socket, { keyPair: SecretStream.keyPair(bytes(seed)), keepAlive: 5000 })
  e.mux = new Protomux(e.stream)
  e.stream.on('error', (err) => { e.error = err.message })
  e.stream.on('close', () => { e.destroyed = true; changed(e) })
  e.attached()
}

function changed (e) {
  for (const check of [...e.checks]) check()
}

function open (e, { name, protocol, aliases = [], id, handshake = '', echo = false }) {
  const note = (event, more) => {
    e.events.push({ name, event, ...more })
    changed(e)
  }
  const message = (type) => ({
    encoding: c.raw,
    onmessage (payload, channel) {
      const short = payload.byteLength <= 64
      note('message', { type, length: payload.byteLength, payload: short ? hex(payload) : null, sha256: createHash('sha256').update(payload).digest('hex') })
      if (echo) channel.messages[type].send(payload)
    }
  })
  const channel = e.mux.createChannel({
    protocol,
    aliases,
    id: bytes(id),
    handshake: c.raw,
    messages: [message(0), message(1), message(2)],
    onopen: (h) => note('open', { payload: hex(h) || '' }),
    onclose: () => {
      if (e.channels.get(name) === channel) e.channels.delete(name)
      note('close')
    }
  })
  if (!channel) return false
  e.channels.set(name, channel)
  channel.open(bytes(handshake))
  return true
}

function channelOf (e, name) {
  const channel = e.channels.get(name)
  if (!channel) throw coded('BAD_NAME', 'no channel is named ' + name)
  return channel
}

const stateOf = (e) => ({ destroyed: e.destroyed, error: e.error, events: e.events, idle: e.mux !== null && e.mux.isIdle() })

const methods = {
  listen (p) {
    const e = created(p.handle)
    return listenOnce(e, (socket) => attach(e, false, socket, p))
  },

  connect (p) {
    attach(created(p.handle), true, dial(p.port), p)
    return null
  },

  async pair ({ handle, protocol, id, echo, refuse }) {
    const e = entry(handle)
    await e.ready
    e.mux.pair({ protocol, id: bytes(id) }, (topic) => {
      if (refuse) return
      const name = hex(topic) || ''
      open(e, { name, protocol, id: name || undefined, handshake: hex(Buffer.from('paired')), echo })
    })
    return null
  },

  async open (p) {
    const e = entry(p.handle)
    await e.ready
    return { opened: open(e, p) }
  },

  send ({ handle, name, messages, cork }) {
    const channel = channelOf(entry(handle), name)
    if (cork) channel.cork()
    for (const { type, payload, size } of messages) {
      channel.messages[type].send(size === undefined ? bytes(payload) : Buffer.alloc(size, size & 255))
    }
    if (cork) channel.uncork()
    return null
  },

  close ({ handle, name }) {
    channelOf(entry(handle), name).close()
    return null
  },

  until ({ handle, events = 0, name, event, idle }) {
    const e = entry(handle)
    const missing = () => {
      if (e.events.length < events || (idle && !e.mux.isIdle())) return true
      return name !== undefined && !e.events.some((x) => x.name === name && x.event === event)
    }
    return new Promise((resolve) => {
      const check = () => {
        if (missing() && !e.destroyed) return
        e.checks.delete(check)
        resolve(stateOf(e))
      }
      e.checks.add(check)
      check()
    })
  },

  state ({ handle }) {
    return stateOf(entry(handle))
  },

  end ({ handle }) {
    entry(handle).stream.end()
    return null
  }
}

serve(methods, {
  close () {
    for (const { stream, server } of muxes.values()) {
      if (stream) stream.destroy()
      if (server) server.close()
    }
  }
})
