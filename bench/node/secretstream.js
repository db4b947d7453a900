'use strict'

// Sends count messages of a size over secret-stream and TCP, from one process to another.

const { work, blocks, timed, report } = require('./lib')
const { serving, serve, connect } = require('./tcp')

const w = work()

if (w.role === 'serve') {
  const at = blocks(w.block)
  serve({
    // The first message is the sign to begin.
    onstream: (stream) => stream.once('data', async () => {
      for (let i = 0; i < w.count; i++) {
        if (!stream.write(at(i))) await new Promise((resolve) => stream.once('drain', resolve))
      }
    })
  })
} else {
  report('@hyperswarm/secret-stream', (w) => serving(w, async ({ ports }) => {
    const stream = connect(ports[0])
    await stream.opened
    const { seconds, cpuSeconds } = await timed(() => new Promise((resolve, reject) => {
      let left = w.count
      stream.on('data', (message) => {
        if (message.byteLength !== w.block) reject(new Error('a message of ' + message.byteLength + ' bytes'))
        if (--left === 0) resolve()
      })
      stream.on('close', () => reject(new Error('the stream has ended')))
      stream.write(Buffer.from('go'))
    }))
    stream.destroy()
    return { value: (w.count * w.block) / (1 << 20) / seconds, extra: { seconds, cpuSeconds } }
  }))
}
