'use strict'

// Nodes of the real dht-rpc on loopback, behind JSON lines. Binary values are hex.
//
//   open {handle, bootstrap: ["127.0.0.1:port"], bootstrapper?, options?}  -> {port}
//       a node; bootstrapper makes one that others enter by. Options are those of dht-rpc. It keeps values for who has a
//       token: command 0 puts one, 1 gets it, 2 answers with error 7.
//   ready {handle}                                  -> null, once it has found its place
//   info {handle}                                   -> {id, host, port, serverPort, ephemeral, firewalled, online, nodes: ["host:port"]}
//   hasten {handle}                                 -> null, makes the next tick the one that looks whether it is reachable
//   untilPersistent {handle}                        -> {id}
//   query {handle, target, command, value?, put?}   -> {values[], from[], closest[]}; put is a value to leave with command 0
//   find {handle, target}                           -> {closest[]}
//   request {handle, port, command, target?, value?, token?} -> {from, to, error, value, token, closer}
//   ping {handle, port}, delayedPing {handle, port, delay}   -> {to}
//   suspend, resume, destroy {handle}               -> null

const DHT = require('dht-rpc')
const { hex, bytes } = require('./lib/hex')
const { serve } = require('./lib/lines')

const nodes = new Map()
const name = ({ host, port }) => host + ':' + port

function node (handle) {
  if (!nodes.has(handle)) throw new Error('no node is named ' + handle)
  return nodes.get(handle)
}

function keepValues (dht) {
  const values = new Map()
  dht.on('request', (req) => {
    const key = hex(req.target)
    if (req.command === 2) return req.error(7, { token: true })
    if (req.command > 2 || key === null) return req.error(DHT.ERROR_UNKNOWN_COMMAND)
    if (req.command === 0 && req.token) values.set(key, req.value)
    req.reply(values.get(key) || null)
  })
}

const methods = {
  async open ({ handle, bootstrap = [], bootstrapper, options = {} }) {
    let dht = null
    if (bootstrapper) {
      // A free port is not known before it is bound.
      const probe = new DHT({ bootstrap: [], host: '127.0.0.1' })
      await probe.fullyBootstrapped()
      const { port } = probe.io.serverSocket.address()
      await probe.destroy()
      dht = DHT.bootstrapper(port, '127.0.0.1', { host: '127.0.0.1', ...options })
    } else {
      dht = new DHT({ bootstrap, host: '127.0.0.1', ...options })
    }
    keepValues(dht)
    nodes.set(handle, dht)
    await dht.bind()
    return { port: dht.io.serverSocket.address().port }
  },

  async ready ({ handle }) {
    await node(handle).fullyBootstrapped()
  },

  info ({ handle }) {
    const dht = node(handle)
    return {
      id: hex(dht.id),
      host: dht.host,
      port: dht.port,
      serverPort: dht.io.serverSocket.address().port,
      ephemeral: dht.ephemeral,
      firewalled: dht.firewalled,
      online: dht.online,
      nodes: dht.toArray().map(name)
    }
  },

  hasten ({ handle }) {
    node(handle)._stableTicks = 1
    node(handle)._ontick()
  },

  async untilPersistent ({ handle }) {
    const dht = node(handle)
    if (dht.ephemeral) await new Promise((resolve) => dht.once('persistent', resolve))
    return { id: hex(dht.id) }
  },

  async query ({ handle, target, command, value, put }) {
    const dht = node(handle)
    const commit = put === undefined
      ? null
      : (reply) => dht.request({ token: reply.token, target: bytes(target), command: 0, value: bytes(put) }, reply.from)
    const q = dht.query({ target: bytes(target), command, value: bytes(value) }, { commit })
    const values = []
    const from = []
    for await (const reply of q) {
      from.push(name(reply.from))
      if (reply.value) values.push(hex(reply.value))
    }
    return { values, from, closest: q.closestNodes.map(name) }
  },

  async find ({ handle, target }) {
    const q = node(handle).findNode(bytes(target))
    await q.finished()
    return { closest: q.closestNodes.map(name) }
  },

  async request ({ handle, port, command, target, value, token }) {
    const call = { command, target: bytes(target), value: bytes(value), token: bytes(token) }
    const r = await node(handle).request(call, { host: '127.0.0.1', port })
    return { from: name(r.from), to: name(r.to), error: r.error, value: hex(r.value), token: hex(r.token), closer: (r.closerNodes || []).map(name) }
  },

  async ping ({ handle, port }) {
    const r = await node(handle).ping({ host: '127.0.0.1', port })
    return { to: name(r.to) }
  },

  async delayedPing ({ handle, port, delay }) {
    const r = await node(handle).delayedPing({ host: '127.0.0.1', port }, delay)
    return { to: name(r.to) }
  },

  suspend: ({ handle }) => node(handle).suspend(),
  resume: ({ handle }) => node(handle).resume(),

  async destroy ({ handle }) {
    await node(handle).destroy()
    nodes.delete(handle)
  }
}

serve(methods, {
  close: () => Promise.all([...nodes.values()].map((dht) => dht.destroy()))
})
