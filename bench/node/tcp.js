'use strict'

// What the scripts with two processes share. A script is run to measure, and starts itself again to serve:
//
//   node replicate.js … role=serve      prints {"port": …, "key": …} when it is ready, serves until its stdin ends, and
//                                       prints {"extra": {…}}
//   node replicate.js … port=… key=…    measures against what serves there already, which may be Bevy; ports are
//                                       separated by commas
//
// bench/peer.go does the same.

const net = require('net')
const readline = require('readline')
const { spawn } = require('child_process')
const { load, residentMiB } = require('./lib')
const SecretStream = load('@hyperswarm/secret-stream')

// serving starts this script once more for each, and calls fn with their ports, the key, and what stops them.
async function serving (w, fn) {
  if (w.port !== undefined) return fn({ ports: String(w.port).split(',').map(Number), key: w.key, stop: () => ({}) })
  const child = spawn(process.execPath, [...process.argv.slice(1), 'role=serve'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => child.on('close', resolve))
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error('the process that serves has ended')
    return JSON.parse(value)
  }
  try {
    const { port, key } = await line()
    const stop = async () => {
      child.stdin.end()
      const { extra } = await line()
      return extra
    }
    return await fn({ ports: [port], key, stop })
  } finally {
    child.stdin.destroy()
    await ended
  }
}

// serve calls onstream with every stream that comes, until stdin ends; then finish says what else was measured.
async function serve ({ key, onstream, finish = () => ({}) }) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => onstream(streamOf(false, socket)))
  await new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  process.stdout.write(JSON.stringify({ port: server.address().port, key }) + '\n')
  process.stdin.resume()
  await new Promise((resolve) => process.stdin.on('close', resolve))
  process.stdout.write(JSON.stringify({ extra: await finish() }) + '\n', () => process.exit())
}

function streamOf (initiator, socket) {
  socket.setNoDelay(true)
  const stream = new SecretStream(initiator, socket)
  stream.on('error', (err) => {
    if (err.code !== 'ECONNRESET' && err.code !== 'EPIPE') console.error(err)
  })
  return stream
}

function connect (port) {
  return streamOf(true, net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }))
}

// growth watches how much more memory the process has than now.
function growth () {
  const before = residentMiB()
  let most = before
  const look = () => { most = Math.max(most, residentMiB()) }
  const timer = setInterval(look, 20)
  timer.unref()
  return () => {
    look()
    clearInterval(timer)
    return most - before
  }
}

module.exports = { serving, serve, connect, growth }
