'use strict'

// Joins a topic that one peer serves, count times, each time with a new swarm whose DHT is ready: how long until it
// is connected to the peer? The network and both swarms share this process, as in swarm.go.

const crypto = require('crypto')
const { load, percentile, report } = require('./lib')
const createTestnet = load('hyperdht/testnet')
const Hyperswarm = load('hyperswarm')

report('hyperswarm', async (w) => {
  const net = await createTestnet(w.nodes)
  const topic = crypto.createHash('sha256').update('bench').digest()
  const server = new Hyperswarm({ bootstrap: net.bootstrap })
  server.on('connection', (c) => c.on('error', () => {}))
  await server.join(topic, { server: true, client: false }).flushed()

  const times = []
  for (let i = 0; i < w.count; i++) {
    const swarm = new Hyperswarm({ bootstrap: net.bootstrap })
    await swarm.dht.fullyBootstrapped()
    const start = process.hrtime.bigint()
    const connected = new Promise((resolve) => swarm.once('connection', (c) => {
      c.on('error', () => {})
      resolve()
    }))
    swarm.join(topic, { server: false, client: true })
    await connected
    times.push(Number(process.hrtime.bigint() - start) / 1e6)
    await swarm.destroy()
  }
  await server.destroy()
  await net.destroy()
  times.sort((a, b) => a - b)
  return { value: percentile(times, 0.5), extra: { bestMs: times[0], p95Ms: percentile(times, 0.95) } }
})
