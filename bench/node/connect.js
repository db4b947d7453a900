'use strict'

// Connects to a server by its key, count times one after another, in a network of its own: how long until the
// encrypted stream is open? The network, the server and the client share this process, as in swarm.go.

const { load, percentile, report } = require('./lib')
const createTestnet = load('hyperdht/testnet')

report('hyperdht', async (w) => {
  const net = await createTestnet(w.nodes)
  const server = net.createNode().createServer((socket) => {
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
  })
  await server.listen()
  const client = net.createNode()
  await client.fullyBootstrapped()

  const times = []
  for (let i = 0; i < w.count; i++) {
    const start = process.hrtime.bigint()
    const socket = client.connect(server.publicKey)
    await new Promise((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('error', reject)
    })
    times.push(Number(process.hrtime.bigint() - start) / 1e6)
    socket.destroy()
    await new Promise((resolve) => socket.once('close', resolve))
  }
  await net.destroy()
  times.sort((a, b) => a - b)
  return { value: percentile(times, 0.5), extra: { bestMs: times[0], p95Ms: percentile(times, 0.95) } }
})
