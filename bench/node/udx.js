'use strict'

// Sends count blocks of a size over one UDX stream from one process to another, plain, or as the messages of a secret
// stream when noise is 1. The serving process begins when a datagram "go ID" comes, with the reader's stream in it.

const { load, work, blocks, timed, report } = require('./lib')
const { serving } = require('./tcp')
const UDX = load('udx-native')
const SecretStream = load('@hyperswarm/secret-stream')

const OURS = 1 // the stream of the serving process
const READERS = 2

const w = work()

async function serve () {
  const at = blocks(w.block)
  const udx = new UDX()
  const socket = udx.createSocket()
  const raw = udx.createStream(OURS)
  raw.on('error', () => {}) // the reader has gone
  let begun = false
  socket.on('message', async (message, { host, port }) => {
    if (begun) return
    begun = true
    raw.connect(socket, Number(message.toString().split(' ')[1]), port, host)
    const stream = w.noise ? new SecretStream(false, raw) : raw
    stream.on('error', () => {})
    if (w.noise) await new Promise((resolve) => stream.once('data', resolve)) // the sign to begin
    for (let i = 0; i < w.count; i++) {
      if (!stream.write(at(i))) await new Promise((resolve) => stream.once('drain', resolve))
    }
  })
  socket.bind(0, '127.0.0.1')
  process.stdout.write(JSON.stringify({ port: socket.address().port, key: String(OURS) }) + '\n')
  process.stdin.resume()
  await new Promise((resolve) => process.stdin.on('close', resolve))
  const extra = { packets: raw.packetsTransmitted, again: raw.retransmits }
  process.stdout.write(JSON.stringify({ extra }) + '\n', () => process.exit())
}

async function read ({ ports, key, stop }) {
  const udx = new UDX()
  const socket = udx.createSocket()
  socket.bind(0, '127.0.0.1')
  const raw = udx.createStream(READERS)
  raw.connect(socket, Number(key), ports[0], '127.0.0.1')
  const stream = w.noise ? new SecretStream(true, raw) : raw
  const total = w.count * w.block
  let bytes = 0
  const { seconds, cpuSeconds } = await timed(() => new Promise((resolve, reject) => {
    const go = () => socket.send(Buffer.from('go ' + READERS), ports[0], '127.0.0.1')
    const again = setInterval(() => { if (bytes === 0) go() }, 200) // it may be lost
    stream.on('data', (data) => {
      bytes += data.byteLength
      if (bytes < total) return
      clearInterval(again)
      resolve()
    })
    stream.on('error', reject)
    stream.on('close', () => reject(new Error('the stream has ended')))
    go()
    if (w.noise) stream.opened.then(() => stream.write(Buffer.from('go')))
  }))
  if (bytes !== total) throw new Error(bytes + ' bytes came')
  const values = { 'MiB/s': total / (1 << 20) / seconds, 'Mbit/s': total * 8 / 1e6 / seconds }
  return { value: values[w.unit], extra: { seconds, cpuSeconds, ...(await stop()) } }
}

if (w.role === 'serve') {
  serve()
} else {
  report('udx-native', (w) => serving(w, read))
}
